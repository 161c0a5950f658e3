"""Checkpoints that survive a kill at any moment, and damage that is found before it is used.

A checkpoint is a folder `checkpoints/step_00001200/`: safetensors files, `state.json`, and `manifest.json`, written
last, with the sha256 of every file. It is written under another name, flushed to the disk and renamed, so a folder of
that name is whole. `checkpoints/latest` names the newest and `checkpoints/best` the marked one; both are for people.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import IntegrityError
from .atomic import discard, disk_errors, partial_name, read_json, sync_folder, write_json, write_text
from .versions import refuse_newer, versions
from .weights import read_tensors, write_tensors

FORMAT = 1
_STEP = re.compile(r"step_(\d{8,})(\.old)?")
_FILE = re.compile(r"[a-z][a-z0-9_]*\.(safetensors|json)")
_MEND = "restore the file from a copy, or start anew with another --out"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Args:
        step: Steps done.
        state: Plain values, `step` among them.
        tensors: File stem (`model`, `optimizer`) -> name -> tensor on the CPU, mapped into memory.
        path: Its folder.
    """

    step: int
    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    path: Path


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int = 2,
    best: bool = False,
) -> Path:
    """Writes a checkpoint and removes the ones it replaces.

    Checkpoints of later steps are removed too: there are some only where they were found damaged on resuming.

    Args:
        folder: The run's folder of checkpoints.
        step: Steps done, >= 0.
        tensors: File stem -> name -> tensor, such as `{"model": module.state_dict()}`.
        state: Plain values, as JSON has them.
        keep: Newest checkpoints that stay, >= 2; the marked one stays as well.
        best: Marks this one.

    Raises:
        DeviceError: The disk is full, read-only or gone; the checkpoints there were are untouched.
    """
    assert keep >= 2, "with one checkpoint there is nothing to fall back to"
    final = folder / f"step_{step:08d}"
    part = partial_name(final)
    with disk_errors(final):
        _clear(folder)
        try:
            _write(part, step, tensors, {**state, "step": step})
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _put(part, final)
        write_text(folder / "latest", final.name + "\n")
        if best:
            write_text(folder / "best", final.name + "\n")
        _prune(folder, step, keep)
    return final


def _clear(folder: Path) -> None:
    """Removes what killed processes have left half done."""
    for part in folder.glob("*.tmp-*"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    for old in folder.glob("step_*.old"):
        if not old.with_suffix("").exists():
            os.replace(old, old.with_suffix(""))


def _write(part: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    part.mkdir()
    for stem, named in tensors.items():
        assert _FILE.fullmatch(f"{stem}.safetensors"), f"{stem}: lower case letters, digits and _ only"
        write_tensors(part / f"{stem}.safetensors", named)
    write_json(part / "state.json", state)
    files = {file.name: {"sha256": _sha256(file), "bytes": file.stat().st_size} for file in sorted(part.iterdir())}
    manifest = {"format": FORMAT, "versions": versions(), "step": step, "files": files}
    write_json(part / "manifest.json", {**manifest, "sha256": _seal(manifest)})


def _put(part: Path, final: Path) -> None:
    """Renames the finished folder. One of the same step moves aside first, under a name that is still found."""
    if final.exists():
        old = final.with_name(final.name + ".old")
        if old.exists():
            discard(old)
        os.replace(final, old)
    os.replace(part, final)
    sync_folder(final.parent)


def _prune(folder: Path, step: int, keep: int) -> None:
    best = _pointer(folder, "best")
    newest = sorted({number for number, _ in _candidates(folder) if number <= step}, reverse=True)[:keep]
    for number, path in _candidates(folder):
        if path.suffix == ".old" or (number not in newest and (number != best or number > step)):
            discard(path)


def load_checkpoint(folder: Path, *, say: Callable[[str], None] = print, best: bool = False) -> Checkpoint | None:
    """The newest checkpoint whose every byte is as it was written, or None where none was ever finished.

    Args:
        folder: The run's folder of checkpoints.
        say: Takes one sentence for each checkpoint that was passed over.
        best: The marked one instead, and no other.

    Raises:
        IntegrityError: There are checkpoints, and all are damaged: never from scratch by stealth. Or `latest` or `best`
            names something that is no checkpoint of this run.
        DeviceError: It was written by a newer nearfar, or cannot be read.
    """
    candidates = _candidates(folder)
    wanted = _pointer(folder, "best" if best else "latest")
    if best:
        candidates = [(number, path) for number, path in candidates if number == wanted]
    problems = []
    if wanted is not None and wanted not in [number for number, _ in candidates]:
        problems.append(f"step_{wanted:08d}: missing")
    for _, path in candidates:
        try:
            checkpoint = _read(path)
        except IntegrityError as error:
            problems.append(f"{path.name}: {error.what}")
            continue
        for problem in problems:
            say(f"checkpoint {problem}; falling back to {path.name}")
        return checkpoint
    if problems:
        what = "\n  ".join(["no checkpoint of this run is whole:", *problems])
        raise IntegrityError(what, where=folder, mend=_MEND)
    return None


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of each checkpoint, newest first."""
    with disk_errors(folder):
        matches = [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    found = [(int(match[1]), match[2] is None, path) for match, path in matches if match]
    return [(number, path) for number, _, path in sorted(found, reverse=True)]


def _pointer(folder: Path, name: str) -> int | None:
    """The step that `latest` or `best` names. It is never followed as a path."""
    path = folder / name
    if path.is_symlink():
        raise IntegrityError(f"{name} is a link", where=path, mend="delete it")
    if not path.is_file():
        return None
    with disk_errors(path):
        text = path.read_bytes()[:100].decode(errors="replace").strip()
    match = _STEP.fullmatch(text)
    if match is None or match[2]:
        raise IntegrityError(f"{name} names no checkpoint of this run, but {text!r}", where=path, mend="delete it")
    return int(match[1])


def _read(path: Path) -> Checkpoint:
    """The checkpoint in that folder; `IntegrityError` where a byte of it is not as it was written."""
    manifest = _manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        if not _FILE.fullmatch(name) or file.is_symlink():
            raise IntegrityError(
                f"the manifest names {name!r}, which is no file of a checkpoint", where=path, mend=_MEND
            )
        if not file.is_file():
            raise IntegrityError(f"{name} is missing", where=file, mend=_MEND)
        with disk_errors(file):
            size = file.stat().st_size
            if size != entry["bytes"]:
                raise IntegrityError(f"{name} has {size} bytes, not {entry['bytes']}", where=file, mend=_MEND)
            if _sha256(file) != entry["sha256"]:
                raise IntegrityError(f"{name} is damaged (its sha256 differs)", where=file, mend=_MEND)
    weights = [path / name for name in manifest["files"] if name.endswith(".safetensors")]
    tensors = {file.stem: read_tensors(file) for file in weights}
    return Checkpoint(manifest["step"], read_json(path / "state.json"), tensors, path)


def _manifest(path: Path) -> dict[str, Any]:
    match = _STEP.fullmatch(path.name)
    if path.is_symlink() or match is None:
        raise IntegrityError("is a link", where=path, mend=_MEND)
    manifest = read_json(path / "manifest.json")
    seal = manifest.pop("sha256", None)
    if seal != _seal(manifest):
        raise IntegrityError("manifest.json is damaged", where=path / "manifest.json", mend=_MEND)
    refuse_newer(manifest, FORMAT, path / "manifest.json")
    if manifest["step"] != int(match[1]) or "state.json" not in manifest["files"]:
        raise IntegrityError("manifest.json belongs to another checkpoint", where=path / "manifest.json", mend=_MEND)
    return manifest


def _seal(manifest: Mapping[str, Any]) -> str:
    """sha256 of the manifest without its seal, keys sorted."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
