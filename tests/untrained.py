"""A run folder that no training made: the encoder has the weights it begins with. For tests of what comes after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from toy import stripes

from nearfar.runs import Run, write_tensors
from nearfar.settings import parse
from nearfar.tasks.encoder import stored_method
from nearfar.views import CentreCrop


def untrained_run(
    path: Path, *, seed: int = 0, size: int = 16, classes: list[str] | None = None, **more: object
) -> Path:
    """A finished run of SimCLR with the small encoder, views of `size` px, three channels; `more` of its info."""
    settings = parse({"encoder": "small", "size": size, "seed": seed, "threads": 1}, where="test")
    transform = CentreCrop(size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    info = {"data": "stripes", "fingerprint": "0" * 32, "classes": classes, "transform": transform.to_dict()}
    info |= more
    with Run.create(path, settings=settings.model_dump(mode="json"), info=info) as run:
        write_tensors(path / "encoder.safetensors", stored_method(run).encoder.state_dict())
    return path


def striped_folder(path: Path, *, each: int, seed: int = 0, flat: bool = False) -> Path:
    """PNG files of four patterns: one folder a class, or (flat) `CLASS-NUMBER.png`."""
    data = stripes(4 * each, seed=seed)
    assert data.labels is not None and data.classes is not None
    for number, label in enumerate(data.labels):
        name = data.classes[label]
        file = path / (f"{name}-{number}.png" if flat else f"{name}/{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(np.asarray(data.inputs[number]), 0, 2)).save(file)
    return path
