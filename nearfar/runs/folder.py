"""The run folder: everything that made a result, in files that are whole or not there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from .. import errors
from ..errors import IntegrityError, UsageError
from . import atomic, lock
from .atomic import disk_errors, write_json, write_text
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .record import MARKER, continued, differences, new_record, read_record


@dataclass(frozen=True)
class Run:
    """A run folder. Make one with `create`, `open` or `open_or_create`.

    Args:
        path: The folder.
        record: What `nearfar-run.json` says: settings, info, versions, command, time, and when it was continued.
        held: The lock, where this process writes.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> with Run.open_or_create(folder, settings={"batch": 256}, info={"fingerprint": "5f2a"}) as run:
        ...     run.log({"step": 1, "loss": 5.5})
        >>> Run.open(folder).rows()
        [{'step': 1, 'loss': 5.5}]
    """

    path: Path
    record: dict[str, Any]
    held: IO[str] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def create(cls, path: str | Path, *, settings: Mapping[str, Any], info: Mapping[str, Any]) -> Run:
        """A new run in a new or empty folder, locked for this process.

        Args:
            path: The folder.
            settings: What the user chose; plain values, as JSON has them.
            info: What the data gave: its fingerprint, the evaluation transform, classes.

        Raises:
            UsageError: The folder holds another run (what differs is named) or something else, or is locked.
            DeviceError: The folder cannot be made or written to.
        """
        path, record = Path(path), new_record(settings, info)
        _refuse_other(path, record)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            held = lock.acquire(path)
            try:
                _refuse_other(path, record)  # again: another process may have been quicker
                write_json(path / MARKER, record)
                (path / "checkpoints").mkdir(exist_ok=True)
            except (OSError, errors.NearfarError):
                held.close()
                raise
        return cls(path, record, held)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run, to read.

        Raises:
            UsageError: There is no run.
            IntegrityError: Its record is damaged.
            DeviceError: It was written by a newer nearfar.
        """
        path = Path(path)
        return cls(path, read_record(path / MARKER))

    @classmethod
    def open_or_create(
        cls,
        path: str | Path,
        *,
        settings: Mapping[str, Any],
        info: Mapping[str, Any],
        free: Iterable[str] = (),
        writer: bool = True,
        say: Callable[[str], None] = print,
    ) -> Run:
        """The run of that folder to continue, or a new one; locked for this process.

        Args:
            path, settings, info: See `create`.
            free: Keys of settings and info that may differ from the stored ones; the new value is kept.
            writer: False in all processes of a job but one: nothing is locked, written or compared.
            say: Takes a sentence where versions of packages have changed.

        Raises:
            UsageError: Anything else differs: a line `key: stored -> given` for each.
        """
        path, record = Path(path), new_record(settings, info)
        if not writer:
            return cls(path, record)
        if not (path / MARKER).is_file():
            return cls.create(path, settings=settings, info=info)
        with disk_errors(path):
            held = lock.acquire(path)
            try:
                record = continued(read_record(path / MARKER), record, free=set(free), where=path, say=say)
                write_json(path / MARKER, record)
                (path / "checkpoints").mkdir(exist_ok=True)
            except (OSError, errors.NearfarError):
                held.close()
                raise
        return cls(path, record, held)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back."""
        if self.held is not None:
            self.held.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What the user chose."""
        return self.record["settings"]

    @property
    def info(self) -> dict[str, Any]:
        """What the data gave."""
        return self.record["info"]

    def save(
        self, *, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], best: bool = False
    ) -> Path:
        """Writes a checkpoint; see `save_checkpoint`. Rows of metrics up to it are flushed to the disk first."""
        metrics = self.path / "metrics.jsonl"
        with disk_errors(metrics):
            if metrics.is_file():
                with open(metrics, "rb+") as file:
                    os.fsync(file.fileno())
        return save_checkpoint(self.path / "checkpoints", step=step, tensors=tensors, state=state, best=best)

    def load(self, say: Callable[[str], None] = print, *, best: bool = False) -> Checkpoint | None:
        """The newest whole checkpoint, or None; see `load_checkpoint`.

        Where this process writes, `metrics.jsonl` is cut back to the checkpoint's step.
        """
        checkpoint = load_checkpoint(self.path / "checkpoints", say=say, best=best)
        if self.held is not None:
            self.rewind(-1 if checkpoint is None else checkpoint.step)
        return checkpoint

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row to `metrics.jsonl`. A step's row comes before its checkpoint, so that `rewind` keeps it.

        Args:
            row: Plain values, `step` among them; NaN and infinity become null.
        """
        assert "step" in row, "a row of metrics needs its step"
        path = self.path / "metrics.jsonl"
        with disk_errors(path), open(path, "a", encoding="utf-8", newline="") as file:
            file.write(json.dumps(_finite(row), allow_nan=False) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`; a last line that a kill cut off is left out.

        Raises:
            IntegrityError: Another line is damaged.
        """
        return [json.loads(line) for line in self._lines()]

    def rewind(self, step: int) -> None:
        """Cuts `metrics.jsonl` back to the rows with `step <= step`, byte for byte; -1: to none."""
        path = self.path / "metrics.jsonl"
        kept = "".join(line for line in self._lines() if json.loads(line)["step"] <= step)
        with disk_errors(path):
            if path.is_file():
                write_text(path, kept)

    def _lines(self) -> list[str]:
        path = self.path / "metrics.jsonl"
        with disk_errors(path):
            lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                int(json.loads(line)["step"])
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                where = f"{path}:{number}"
                raise IntegrityError("a damaged row of metrics", where=where, mend="delete that line") from error
        return [line.decode() + "\n" for line in lines]

    def replace(self, name: str, write: Callable[[Path], object]) -> Path:
        """Makes or replaces a file of the run in one step; `write` writes the file whose path it is given."""
        with disk_errors(self.path / name):
            atomic.replace(self.path / name, write)
        return self.path / name

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Makes or replaces a JSON file of the run in one step; NaN and infinity become null."""
        text = json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"
        return self.replace(name, lambda path: path.write_text(text, encoding="utf-8", newline=""))


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON lacks, become None."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse_other(path: Path, record: Mapping[str, Any]) -> None:
    """Refuses a folder that holds anything but what a start killed at once has left."""
    if path.exists() and not path.is_dir():
        raise UsageError("this is a file, not a folder", where=path, mend="choose another --out")
    if (path / MARKER).is_file():
        lines = differences(read_record(path / MARKER), record, set())
        what = "\n  ".join(["the folder holds another run (stored -> new):", *lines])
        mend = "choose another --out, or continue that run with its own settings"
        raise UsageError(what if lines else "the folder holds this very run", where=path, mend=mend)
    with disk_errors(path):
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    others = [name for name in names if name != lock.NAME and not name.startswith(MARKER + ".tmp-")]
    if others:
        what = f"the folder is not empty and holds no run (it holds {', '.join(others[:3])})"
        raise UsageError(what, where=path, mend="choose another --out")
