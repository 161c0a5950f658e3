"""Files that are whole or not there: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DeviceError, IntegrityError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a `DeviceError` that names the file and what to do."""
    try:
        yield
    except OSError as error:
        mend = "check that the disk is still there"
        if error.errno in _FULL:
            mend = "free some space and give the same command again: the run continues from its last checkpoint"
        elif error.errno in _FORBIDDEN:
            mend = "choose a folder you may write to with --out, or change its permissions"
        what = f"the disk refused: {error.strerror or error}"
        raise DeviceError(what, where=error.filename or path, mend=mend) from error


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Makes or replaces a file in one step: a reader sees the old one or the new one, also after a power cut.

    Args:
        path: The file.
        write: Writes the file whose name it is given.
    """
    part = partial_name(path)
    try:
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Waits until the folder's entries are on the disk. Windows has no such call."""
    if os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def partial_name(path: Path) -> Path:
    """The name under which `path` is written before it is whole."""
    return path.with_name(f"{path.name}.tmp-{os.getpid()}")


def discard(folder: Path) -> None:
    """Deletes a folder. It is renamed first, so that a half deleted one is never taken for a damaged one."""
    part = partial_name(folder)
    os.replace(folder, part)
    shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Makes or replaces a small text file in one step."""
    replace(path, lambda part: part.write_text(text, encoding="utf-8", newline=""))


def write_json(path: Path, value: Any) -> None:
    """Makes or replaces a JSON file in one step; the value must read back the same (no tuples, no NaN, text keys)."""
    text = json.dumps(value, indent=1, allow_nan=False)
    assert json.loads(text) == value, f"{path.name}: the value is not plain JSON"
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        IntegrityError: The file is missing, is not JSON or holds no object.
    """
    try:
        with disk_errors(path):
            value = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path.name} is not JSON: {error}", where=path, mend="restore the file") from error
    if not isinstance(value, dict):
        what = f"{path.name} is {'missing' if value is None else 'no JSON object'}"
        raise IntegrityError(what, where=path, mend="restore the file")
    return value
