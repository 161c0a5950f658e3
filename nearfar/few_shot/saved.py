"""A classifier as a folder: examples, head and encoder in safetensors and JSON. Nothing in it can run code."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import IntegrityError, UsageError
from ..runs import MARKER, read_tensors, write_tensors
from ..runs.atomic import disk_errors, read_json, replace, write_json
from ..runs.versions import refuse_newer, versions
from ..signatures import nearest

if TYPE_CHECKING:
    from .classifier import FewShotClassifier

RECORD, EXAMPLES, ENCODER = "classifier.json", "examples.safetensors", "encoder.safetensors"
FORMAT = 1
_KINDS = {"head": str, "classes": list, "dtype": str, "examples": list, "files": dict}


def save(classifier: FewShotClassifier, folder: Path) -> Path:
    """Writes `classifier.json`, `examples.safetensors`, and copies of the run's record and `encoder.safetensors`.

    Args:
        classifier: Fitted.
        folder: A new one, or that of a saved classifier, which is replaced.

    Returns:
        The folder. It may be moved; its names of examples and its record still tell where things came from.

    Raises:
        UsageError: The folder holds something else, or the encoder came from no run.
        DeviceError: The disk refuses.
    """
    if folder.exists() and not (folder / RECORD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("this holds something, and no classifier", where=folder, mend="choose a new folder")
    origin = None if classifier.encoder_ is None else classifier.encoder_.run
    names = [EXAMPLES] if origin is None else [EXAMPLES, MARKER, ENCODER]
    missing = [name for name in names[1:] if origin is not None and not (origin / name).is_file()]
    if missing:
        raise UsageError(f"no {' and no '.join(missing)}", where=origin, mend="the encoder must come from a run folder")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(
            folder / EXAMPLES,
            {"features": classifier.features_, "labels": torch.from_numpy(classifier.labels_)},
        )
        for name in names[1:]:
            source = Path(origin or "") / name
            if not (folder / name).exists() or not source.samefile(folder / name):
                replace(folder / name, lambda part, source=source: shutil.copyfile(source, part))
        record = {
            "format": FORMAT,
            "versions": versions(),
            "head": classifier.head,
            "unknown": classifier.unknown,
            "classes": classifier.classes_.tolist(),
            "dtype": str(classifier.classes_.dtype),
            "examples": classifier.examples_,
            "files": {name: _sha256(folder / name) for name in names},
        }
        write_json(folder / RECORD, record)
    return folder


def load(kind: type[FewShotClassifier], folder: Path, *, device: str) -> FewShotClassifier:
    """The classifier of a folder that `save` wrote; it gives the same answers.

    Args:
        kind: Class of the classifier.
        folder: The folder.
        device: As in `train`.

    Raises:
        UsageError: No classifier there.
        IntegrityError: A file is damaged, or not the one that was saved.
        DeviceError: It was written by a newer nearfar.
    """
    if not (folder / RECORD).is_file():
        beside = [path.parent.name for path in folder.parent.glob(f"*/{RECORD}")]
        what = f"there is no saved classifier{nearest(folder.name, beside)}"
        raise UsageError(what, where=folder, mend="give a folder that `FewShotClassifier.save` made")
    record = read_json(folder / RECORD)
    refuse_newer(record, FORMAT, folder / RECORD)
    if not all(isinstance(record.get(name), type_) for name, type_ in _KINDS.items()):
        raise IntegrityError("the record of the classifier is damaged", where=folder / RECORD, mend="save it again")
    for name, known in record["files"].items():
        if Path(name).name != name or not (folder / name).is_file() or _sha256(folder / name) != known:
            raise IntegrityError(f"{name} is not the file that was saved", where=folder, mend="save it again")
    run = str(folder) if ENCODER in record["files"] else None
    classifier = kind(run, head=record["head"], unknown=record.get("unknown"), device=device)
    return _restore(classifier, record, folder)


def _restore(classifier: FewShotClassifier, record: dict[str, Any], folder: Path) -> FewShotClassifier:
    """The classifier as it was after `fit`."""
    tensors = read_tensors(folder / EXAMPLES)
    try:
        classes = np.array(record["classes"], dtype=np.dtype(record["dtype"]))
        features, labels = tensors["features"], tensors["labels"].numpy()
        if not len(features) == len(labels) == len(record["examples"]) or features.ndim != 2:
            raise ValueError("lengths differ")
        y = classes[labels]
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise IntegrityError(f"examples and record don't fit: {error}", where=folder, mend="save it again") from error
    return classifier.restored(features, y, record["examples"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
