"""Lists of episodes, and their files: named by their hash, read back only if every byte is right."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, IntegrityError, UsageError

if TYPE_CHECKING:
    from .sampler import EpisodeSampler

FORMAT = 1
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
)


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """T episodes: places of their images in the data set whose labels the sampler was given, int64 arrays.

    Args:
        support: Places of the labelled images, `[T, S]`, class by class.
        support_label: Class of each within its episode, 0 to ways - 1, `[T, S]`.
        query: Places of the images that are asked for, `[T, Q]`, class by class; none is in the support.
        query_label: As for the support, `[T, Q]`.
        classes: Label in the data set of each class of an episode, `[T, ways]`.

    Raises:
        UsageError: Arrays of other shapes or types.

    Example:
        >>> from nearfar.episodes import EpisodeSampler
        >>> episodes = EpisodeSampler([0, 0, 1, 1, 2, 2], ways=2, shots=1, queries=1).draw(0, 10)
        >>> len(episodes), episodes.ways, episodes[4:6].query.shape
        (10, 2, (2, 2))
    """

    support: np.ndarray
    support_label: np.ndarray
    query: np.ndarray
    query_label: np.ndarray
    classes: np.ndarray

    def __post_init__(self) -> None:
        shapes = {name: array.shape for name, array in self._arrays()}
        alike = shapes["support"] == shapes["support_label"] and shapes["query"] == shapes["query_label"]
        flat = all(array.ndim == 2 and array.dtype == np.int64 for _, array in self._arrays())
        if not (alike and flat and len({shape[0] for shape in shapes.values()}) == 1):
            found = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in self._arrays())
            raise UsageError(found, where="episodes", mend="int64 arrays [T, S], [T, S], [T, Q], [T, Q], [T, ways]")

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, part: slice) -> Episodes:
        if not isinstance(part, slice):
            raise UsageError(f"episodes[{part!r}]", where="episodes", mend="a slice, such as episodes[3:4]")
        return Episodes(**{name: array[part] for name, array in self._arrays()})

    @property
    def ways(self) -> int:
        """Classes of an episode."""
        return self.classes.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that is in the list, in order; 32 hexadecimal digits."""
        total = hashlib.blake2b(digest_size=16)
        for name, array in self._arrays():
            total.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array, "<i8").tobytes())
        return total.hexdigest()

    def save(self, path: str | Path, *, data: str) -> None:
        """Writes the list in one step: the file is whole or not there.

        Args:
            path: The file, `.npz`; its folder is made.
            data: `fingerprint` of the data set that the places are of.

        Raises:
            DeviceError: The disk is full or read-only.
        """
        from ..runs.atomic import disk_errors, replace  # imports torch

        content: dict[str, Any] = dict(self._arrays())
        content |= {"format": np.int64(FORMAT), "data": np.str_(data), "fingerprint": np.str_(self.fingerprint)}

        def write(part: Path) -> None:
            with part.open("wb") as stream:  # given a name, NumPy would add its own suffix
                np.savez_compressed(stream, **content)

        with disk_errors(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            replace(Path(path), write)

    @classmethod
    def load(cls, path: str | Path, *, data: str) -> Episodes:
        """Reads a list that `save` wrote.

        Args:
            path: The file.
            data: `fingerprint` of the data set at hand.

        Raises:
            DataError: No such file, or one for other data.
            IntegrityError: A damaged file, or one of a newer nearfar.
        """
        found = _read(Path(path))
        if str(found["data"]) != data:
            raise DataError(
                f"episodes of other data ({str(found['data'])[:12]}, here {data[:12]})",
                where=path,
                mend="give the data set they were drawn from, or draw others",
            )
        try:
            episodes = cls(**{field.name: found[field.name] for field in fields(cls)})
        except UsageError as problem:
            raise _damaged(Path(path), problem.what) from None
        if episodes.fingerprint != str(found["fingerprint"]):
            raise _damaged(Path(path), "the contents do not have the fingerprint that is stored with them")
        return episodes

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


def stored(folder: str | Path, sampler: EpisodeSampler, count: int, *, data: str) -> Episodes:
    """Episodes 0 to count - 1 of a sampler, compared with their file; the first time it is written.

    Drawing takes about 0.1 s for 10,000 episodes, so the file saves no time: it proves, years and versions later, that
    they are still the same.

    Args:
        folder: Where `episodes-HASH.npz` is, or will be.
        sampler: What draws them; its settings, `count` and `data` make the hash.
        count: Episodes, >= 1.
        data: `fingerprint` of the data set whose labels the sampler was given.

    Raises:
        IntegrityError: The file is damaged, or holds episodes that this sampler does not draw.
    """
    if count < 1:
        raise UsageError(f"{count} episodes", where="count", mend="1 or more; 10,000 give ± 0.2 points")
    made_of = f"{FORMAT} {sampler.fingerprint} {count} {data}"
    path = Path(folder) / f"episodes-{hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()}.npz"
    episodes = sampler.draw(0, count)
    if not path.exists():
        episodes.save(path, data=data)
    elif Episodes.load(path, data=data).fingerprint != episodes.fingerprint:
        raise _damaged(path, "other episodes than this sampler draws")
    return episodes


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file. The checksums are compared before any header is looked at."""
    from ..runs.atomic import disk_errors  # imports torch

    if not path.is_file():
        raise DataError("no list of episodes there", where=path, mend="write one with Episodes.save")
    with disk_errors(path):
        raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            wrong = archive.testzip()
        if wrong:
            raise ValueError(f"checksum of {wrong}")
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
        number = int(found["format"])
    except _DAMAGE as problem:
        raise _damaged(path, str(problem)) from None
    if number > FORMAT:
        raise IntegrityError(f"a list of format {number}, known is {FORMAT}", where=path, mend="update nearfar")
    if set(found) != {"format", "data", "fingerprint", *(field.name for field in fields(Episodes))}:
        raise _damaged(path, f"it holds {', '.join(sorted(found))}")
    return found


def _damaged(path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"not a whole list of episodes: {why}", where=path, mend="delete it and draw it again")
