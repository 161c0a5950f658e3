"""Sequences of observations: NumPy files of many, or a folder with one in each file. Nothing is ever unpickled."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DataError, IntegrityError
from .dataset import Dataset
from .folder import RUN_FILE
from .folder import _classes as folder_classes
from .inputs import Ragged
from .source import numbered
from .survey import Progress, check_bad, digest

_MAGIC = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")  # .npy; .npz, and one that is empty
_PICKLE = b"\x80"  # of protocol 2 and later
OBSERVATION_KEYS, LABEL_KEYS, SUFFIXES = ("observations", "x"), ("labels", "y"), (".npy", ".npz")
_SHAPES = "[N, T, ...] with as many steps in each, or [total, ...] with lengths or ends [N], as of np.savez(...)"


@dataclass
class _Found:
    """Sequences end to end, before it is known which are fit."""

    flat: np.ndarray
    lengths: np.ndarray
    names: list[str]
    values: list[str] | None = None
    bad: list[tuple[str, str]] = field(default_factory=list)


def load_sequences(
    path: str | Path, *, labels: bool | None = None, max_bad: int | None = None, progress: Progress | None = None
) -> Dataset:
    """Sequences of vectors or pictures, in memory.

    An observation is a number, a vector, a picture `[h, w]`, or one with colours or stacked frames `[C, h, w]` or
    `[h, w, C]`, the shorter end being C. uint8 stays as it is (views divide it by 255), all else becomes float32; scale
    it to about 1 yourself. Sequences without a step, or with NaN or infinity, are listed as bad.

    Args:
        path: `.npz` with `observations` (or `x`) `[N, T, ...]`, or with all steps end to end `[total, ...]` and
            `lengths` or `ends` (of each in `[total]`) `[N]`; `labels` (or `y`) `[N]` may be there too. `.npy` with
            `[N, T, ...]`. A folder of such files, one sequence `[T, ...]` in each; its subfolders are the classes.
        labels: True: labels are needed; False: none are taken; None: taken where they are evident.
        max_bad: Bad sequences that are accepted; None: up to 100 or 1 %, and less than half.
        progress: Called with the number of sequences done, and of all.

    Raises:
        DataError: Nothing to read, too much that is bad, lengths that don't add up, no labels where they are needed.
        IntegrityError: A file that would run code if it were read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "walks.npz"
        >>> np.savez(path, observations=np.zeros((7, 2)), lengths=[3, 4], labels=["up", "down"])
        >>> walks = load_sequences(path)
        >>> walks.inputs.shape, walks.sizes.tolist(), walks.classes
        ((2, 4, 2), [[3], [4]], ['down', 'up'])
    """
    path = Path(path)
    if not path.exists():
        raise DataError("nothing there", where=path, mend="sequences are .npz, .npy or a folder of such files")
    found = _read_folder(path, progress, deep=bool(labels)) if path.is_dir() else _read_file(path)
    reasons = _reasons(found)
    bad = found.bad + [(found.names[row], reason) for row, reason in sorted(reasons.items())]
    check_bad(bad, len(found.names) + len(found.bad), max_bad, str(path))
    good = np.array([row for row in range(len(found.names)) if row not in reasons], np.int64)
    numbers, classes = _labels(found.values, labels, path)
    starts = np.cumsum(found.lengths) - found.lengths
    inputs = Ragged(found.flat, starts[good], found.lengths[good])
    if progress is not None:
        progress(len(good), len(good))
    return Dataset(
        inputs=inputs,
        sizes=inputs.lengths[:, None],
        ids=np.arange(len(good)),
        names=[found.names[row] for row in good],
        hashes=np.stack([_hash(inputs[row]) for row in range(len(good))]),
        labels=None if numbers is None else numbers[good],
        classes=classes,
        bad=bad,
        kind="sequences",
    )


def _read_file(path: Path) -> _Found:
    arrays = _arrays(path)
    observations, lengths = _observations(arrays, path), _lengths(arrays, path)
    if lengths is None:
        if observations.ndim < 2 or 0 in observations.shape:
            raise DataError(f"observations of shape {list(observations.shape)}", where=path, mend=_SHAPES)
        lengths = np.full(len(observations), observations.shape[1])
        observations = observations.reshape(-1, *observations.shape[2:])
    names = [f"{number:0{len(str(len(lengths) - 1))}d}" for number in range(len(lengths))]
    values = _values(next((arrays[key] for key in LABEL_KEYS if key in arrays), None), len(lengths), path)
    return _Found(_settled(observations, path), lengths, names, values)


def _read_folder(root: Path, progress: Progress | None, *, deep: bool) -> _Found:
    """One sequence a file. A file that can't be read, or has other observations than the first, is bad."""
    names = sorted(_walk(root))
    if not names:
        raise DataError("no .npz or .npy in the folder", where=root, mend="one sequence [T, ...] in each file")
    good: list[str] = []
    bad: list[tuple[str, str]] = []
    parts: list[np.ndarray] = []
    for number, name in enumerate(names):
        try:
            part = _one(root / name)
            if parts and (part.dtype, part.shape[1:]) != (parts[0].dtype, parts[0].shape[1:]):
                raise DataError(f"observations are {_told(part)}, those of {good[0]} {_told(parts[0])}")
            parts.append(part)
            good.append(name)
        except (DataError, IntegrityError) as problem:
            bad.append((name, str(problem.args[0])))
        if progress is not None:
            progress(number, len(names))
    check_bad(bad, len(names), len(names), str(root))
    folders, _ = folder_classes(good, deep=deep)
    return _Found(np.concatenate(parts), np.array([len(part) for part in parts]), good, folders, bad)


def _walk(root: Path) -> Iterator[str]:
    """Names of the files; hidden ones, runs of nearfar and links to folders are passed over."""
    for place, folders, files in os.walk(root):
        here = Path(place)
        folders[:] = [name for name in folders if name[0] != "." and not (here / name / RUN_FILE).exists()]
        for name in files:
            if name[0] != "." and Path(name).suffix.lower() in SUFFIXES:
                yield (here / name).relative_to(root).as_posix()


def _one(path: Path) -> np.ndarray:
    """The sequence of a file, `[T, ...]`."""
    arrays = _arrays(path)
    if "lengths" in arrays or "ends" in arrays:
        raise DataError("several sequences in one file of a folder", where=path)
    observations = _observations(arrays, path)
    if observations.ndim < 1:
        raise DataError("a single number", where=path)
    return _settled(observations, path)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that have a meaning, by name; that of `.npy` as observations."""
    wanted = (*OBSERVATION_KEYS, *LABEL_KEYS, "lengths", "ends")
    mend = "write it again with np.savez(path, observations=...)"
    try:
        with path.open("rb") as stream:
            head = stream.read(6)
            stream.seek(0)
            if not head.startswith((*_MAGIC, _PICKLE)):
                what = f"a file of a kind that is not read ({path.suffix or 'no suffix'})"
                raise DataError(
                    what, where=path, mend=f"sequences are .npy or .npz: {_SHAPES}; or a folder of such files"
                )
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {OBSERVATION_KEYS[0]: found}
            with found as archive:
                return {key: archive[key] for key in wanted if key in archive}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as problem:
        if "pickle" in str(problem) or "Python objects" in str(problem):
            what = "the file holds Python objects, and reading those can run code"
            raise IntegrityError(what, where=path, mend=mend) from None
        raise DataError(f"not a whole array: {problem}", where=path, mend=mend) from None
    except MemoryError:
        raise DataError("more than the memory holds", where=path, mend="several files, or uint8 pictures") from None


def _observations(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    name = next((key for key in OBSERVATION_KEYS if key in arrays), None)
    if name is None:
        raise DataError(f"no key {' or '.join(OBSERVATION_KEYS)}", where=path, mend="np.savez(path, observations=...)")
    if arrays[name].dtype.kind not in "biuf":
        raise DataError(f"observations of type {arrays[name].dtype}", where=path, mend="numbers: uint8 or float32")
    return arrays[name]


def _lengths(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray | None:
    """Steps of each sequence, from `lengths` or `ends`; None: neither is there."""
    name = next((key for key in ("lengths", "ends") if key in arrays), None)
    if name is None:
        return None
    given, total = arrays[name], len(np.atleast_1d(_observations(arrays, path)))
    if given.ndim != 1 or given.dtype.kind not in "iu" or not len(given):
        raise DataError(f"{name} of shape {list(given.shape)}, {given.dtype}", where=path, mend="whole numbers, [N]")
    lengths = given.astype(np.int64) if name == "lengths" else np.diff(given.astype(np.int64), prepend=0)
    if lengths.min() < 0 or lengths.sum() != total:
        raise DataError(
            f"{name} tell of {lengths.sum():,} steps, the shortest sequence of {lengths.min()}; there are {total:,}",
            where=path,
            mend="lengths add up to the number of steps; ends rise to it",
        )
    return lengths


def _settled(steps: np.ndarray, path: Path) -> np.ndarray:
    """Observations `[total, ...]` as uint8 or float32, vectors or `[C, h, w]`."""
    if steps.ndim > 4 or 0 in steps.shape[1:]:
        raise DataError(f"observations of shape {list(steps.shape[1:])}", where=path, mend="vectors or pictures")
    if steps.ndim in (1, 3):
        steps = steps[:, None]
    elif steps.ndim == 4:
        if steps.shape[1] == steps.shape[3]:
            raise DataError(
                f"which axis holds the colours of {list(steps.shape[1:])}?", where=path, mend="[C, h, w] or [h, w, C]"
            )
        steps = np.moveaxis(steps, 3, 1) if steps.shape[3] < steps.shape[1] else steps
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and found as such
        return np.ascontiguousarray(steps, None if steps.dtype == np.uint8 else np.float32)


def _reasons(found: _Found) -> dict[int, str]:
    """What is wrong with which sequence."""
    reasons = {int(row): "no steps" for row in np.flatnonzero(found.lengths == 0)}
    if found.flat.dtype == np.uint8:
        return reasons
    wrong = np.flatnonzero(~np.isfinite(found.flat).reshape(len(found.flat), -1).all(1))
    ends = np.cumsum(found.lengths)
    rows, first, counts = np.unique(np.searchsorted(ends, wrong, "right"), return_index=True, return_counts=True)
    for row, at, count in zip(rows.tolist(), wrong[first], counts, strict=True):
        length = found.lengths[row]
        reasons[row] = f"NaN or infinity in {count} of {length} steps, first in step {at - ends[row] + length}"
    return reasons


def _values(values: np.ndarray | None, count: int, path: Path) -> list[str] | None:
    """Labels as text."""
    if values is None:
        return None
    if values.shape != (count,):
        raise DataError(
            f"{count} sequences, labels of shape {list(values.shape)}", where=path, mend="one label a sequence"
        )
    if values.dtype.kind not in "biuUS":
        raise DataError(f"labels of type {values.dtype}", where=path, mend="labels are whole numbers or text")
    return (values.astype(np.int64) if values.dtype.kind == "b" else values).astype(np.str_).tolist()


def _labels(values: list[str] | None, wanted: bool | None, path: Path) -> tuple[np.ndarray | None, list[str] | None]:
    """Numbers and names of the classes, as far as they are wanted."""
    if wanted and len(set(values or ())) < 2:
        raise DataError(
            "no labels" if values is None else f"only one class, {values[:1]}",
            where=path,
            mend="a key labels [N] with two classes or more, or one folder a class",
        )
    return (None, None) if values is None or wanted is False else numbered(values)


def _hash(steps: np.ndarray) -> np.ndarray:
    return np.frombuffer(digest(f"{steps.dtype} {steps.shape}".encode() + steps.tobytes()), np.uint8)


def _told(steps: np.ndarray) -> str:
    return f"{steps.dtype} {list(steps.shape[1:])}"
