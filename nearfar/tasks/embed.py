"""`nearfar embed`: a vector for every image, in a file that other tools open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..data import Dataset
from ..evaluation import thumbnail, write_embeddings
from .encoder import load_encoder


def embed(
    run: str | Path, data: str | Path, *, out: str | Path, device: str = "auto", say: Callable[[str], None] = print
) -> Path:
    """Writes one row an image: id, path, label, thumbnail, position on a map, nearest neighbours, vector, status.

    Args:
        run: Run folder.
        data: Images, as for `train`. An image that can't be read keeps its row, with the reason as its status.
        out: Parquet file to write.
        device: As in `train`.
        say: Called with messages.

    Returns:
        The file.
    """
    encoder = load_encoder(run, device=device)
    dataset = encoder.load(data)
    vectors = encoder(dataset)
    unreadable = len(dataset.bad)
    ids = [*dataset.ids.tolist(), *range(len(dataset), len(dataset) + unreadable)]
    write_embeddings(
        Path(out),
        torch.cat([vectors, vectors.new_zeros(unreadable, vectors.shape[1])]),
        names=[*dataset.names, *(name for name, _ in dataset.bad)],
        ids=ids,
        status=["ok"] * len(dataset) + [reason for _, reason in dataset.bad],
        labels=None if dataset.labels is None else [*dataset.labels.tolist(), *[-1] * unreadable],
        classes=dataset.classes,
        thumbnails=None if dataset.kind != "images" else lambda row: _small(dataset, row),
    )
    say(
        f"wrote {out}: {len(dataset):,} vectors of {vectors.shape[1]}"
        + (f", {unreadable} unreadable" if unreadable else "")
    )
    return Path(out)


def _small(dataset: Dataset, row: int) -> bytes | None:
    """A small picture of an image; None for those that can't be read, which come last."""
    return thumbnail(dataset.inputs[row], dataset.sizes[row]) if row < len(dataset) else None
