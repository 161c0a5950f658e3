"""Which versions wrote a file, and whether this one can read it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..errors import DeviceError, IntegrityError


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"nearfar": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def refuse_newer(record: Mapping[str, object], ours: int, where: Path) -> None:
    """Refuses a file in a format of the future, with the versions of both sides.

    Raises:
        DeviceError: It needs a newer nearfar.
        IntegrityError: It has no format number.
    """
    theirs, writer = record.get("format"), record.get("versions")
    if not isinstance(theirs, int) or theirs < 1:
        raise IntegrityError("no format number", where=where, mend="restore the file")
    if theirs > ours:
        name = writer.get("nearfar", "?") if isinstance(writer, dict) else "?"
        what = f"format {theirs}, written by nearfar {name}; this is nearfar {__version__}, which reads format {ours}"
        raise DeviceError(what, where=where, mend="pip install --upgrade nearfar")
