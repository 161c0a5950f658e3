"""Features on the disk, where memory need not hold them: written part by part, and gone on with after a stop."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.inputs import blocks
from ..errors import DeviceError, IntegrityError, UsageError
from ..runs.atomic import disk_errors, read_json, write_json
from .features import Images, parts

JOURNAL_SECONDS = 5.0
"""How often it is noted how far the features are; each time the disk is waited for."""
_SPARE = 64 * 2**20  # bytes that must stay free on the disk


@contextlib.contextmanager
def stored_features(
    encode: Callable[[Tensor], Tensor],
    dataset: Images,
    transform: Callable[[Tensor, Tensor], Tensor],
    folder: Path,
    *,
    key: str,
    more: int = 0,
    batch: int = 256,
    **settings: Any,
) -> Iterator[NDArray[np.float32]]:
    """A context with what `features` gives, `[N + more, D]`, mapped from a file of the folder; the added rows are zero.

    At its end the folder is deleted. Where it ends in an error or is killed the folder stays, and the next call goes on
    from what was written up to a few seconds before, if `key` is the same; otherwise it begins anew. The rows are those
    of an undisturbed call, bit for bit.

    Args:
        encode: As in `features`.
        dataset: As in `features`.
        transform: As in `features`.
        folder: Made where it isn't there.
        key: Of all that the features depend on: weights, images, transform, device.
        more: Rows that are added at the end.
        batch: As in `features`; rows of another one are not gone on from.
        settings: `device`, `dtype` and `progress` of `features`.

    Raises:
        UsageError: As `features`; or another process is at work in the folder.
        DeviceError: The disk refuses, or has no room for all.
    """
    from filelock import FileLock, Timeout

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / ".lock").acquire(timeout=0)
        except Timeout:
            mend = "wait for it, or choose another --out"
            raise UsageError("another process is at work here", where=folder, mend=mend) from None
    with lock:
        with disk_errors(folder), (folder / "rows").open("ab+") as file:
            key, starts = f"{key}, {batch} at once", {int(part[0]) for part in blocks(dataset, batch)}
            done, width = _begun(file, folder, key, starts | {len(dataset)})
            found = parts(encode, dataset, transform, done=done, batch=batch, **settings)
            with contextlib.closing(found):
                width = _write(file, folder, found, (key, done, width), len(dataset) + more)
        yield np.memmap(folder / "rows", "<f4", "r+", shape=(len(dataset) + more, width))
        shutil.rmtree(folder, ignore_errors=True)


def _begun(file: BinaryIO, folder: Path, key: str, starts: set[int]) -> tuple[int, int]:
    """Rows of these features that are there, and their width; all else is cut off."""
    try:
        noted = read_json(folder / "journal.json")
    except IntegrityError:  # none was written so far
        noted = {}
    known = noted.get("key") == key and noted["done"] in starts
    done, width = (noted["done"], noted["width"]) if known else (0, 0)
    file.truncate(4 * done * width)
    return done, width


def _write(file: BinaryIO, folder: Path, found: Iterator[Tensor], begun: tuple[str, int, int], rows: int) -> int:
    """Adds the parts, and zeros up to so many rows. Returns their width."""
    key, done, width = begun
    saved = time.monotonic()
    for part in found:
        if not done:
            width = part.shape[1]
            _check_room(folder, 4 * width * rows)
        file.write(part.numpy().astype("<f4").tobytes())
        done += len(part)
        if time.monotonic() - saved >= JOURNAL_SECONDS:
            _note(file, folder, {"key": key, "done": done, "width": width})
            saved = time.monotonic()
    _note(file, folder, {"key": key, "done": done, "width": width})
    file.truncate(4 * width * rows)
    return width


def _note(file: BinaryIO, folder: Path, journal: dict[str, Any]) -> None:
    """Rows first, then the file that says they are there."""
    file.flush()
    os.fsync(file.fileno())
    write_json(folder / "journal.json", journal)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise DeviceError(
            f"the features need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=folder.parent,
            mend="choose a folder on a larger disk with --out",
        )
