"""The first look at every image: header, hash and, if asked, its pixels. Kept in the cache until a file changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, DeviceError
from .decode import decode, inspect, read
from .names import safe_name
from .pixels import BadImage
from .source import Item, Source

_VERSION = 1  # of what is stored; another number makes all caches stale
GLANCE = 16
"""Longer side of an image that is decoded to see whether it is whole, pixels; a JPEG is quicker at that than whole."""
Progress = Callable[[int, int], None]
Seen = tuple[int, int, bool, bool, bytes]


@dataclass(frozen=True)
class Survey:
    """What the headers say; row i is image i of the source, zeros where it is bad.

    Args:
        sizes: Height and width, upright, int64 `[N, 2]`.
        grey: bool `[N]`.
        animated: bool `[N]`.
        hashes: First 16 bytes of the BLAKE2 hash of the encoded image, uint8 `[N, 16]`.
        bad: Row and reason.
    """

    sizes: np.ndarray
    grey: np.ndarray
    animated: np.ndarray
    hashes: np.ndarray
    bad: list[tuple[int, str]]

    @property
    def good(self) -> np.ndarray:
        """Rows of the readable images, int64."""
        return np.setdiff1d(np.arange(len(self.sizes)), [row for row, _ in self.bad])

    @property
    def channels(self) -> int:
        """1 where every readable image is grey, else 3."""
        return 1 if self.grey[self.good].all() else 3


def survey(
    source: Source,
    *,
    cache: Path,
    max_bad: int | None,
    max_pixels: int,
    threads: int,
    pixels: bool = False,
    progress: Progress | None = None,
) -> Survey:
    """Looks at every image of the source, or takes what was seen last time.

    With `pixels` each is decoded too, and those that are damaged inside are bad.

    Raises:
        DataError: More bad images than `max_bad`, or no readable one.
    """
    file = cache / "scans" / f"{source.key}-{max_pixels}-{_VERSION}{'-pixels' * pixels}.npz"
    found = _recall(file, len(source.names))
    if found is None:
        found = _look_at_all(source, lambda item: _look(item, max_pixels, pixels), max_bad, threads, progress)
        _keep(file, found)
    check_bad([(source.names[row], reason) for row, reason in found.bad], len(source.names), max_bad, source.path)
    return found


def check_bad(bad: list[tuple[str, str]], total: int, max_bad: int | None, where: str) -> None:
    """Stops where too much is bad: more than `max_bad`; without it more than 1 % and than 100, or half of all.

    Args:
        bad: Name and reason.
        total: Number of images in the source.
        max_bad: Bad images that are still accepted, or None.
        where: The source.

    Raises:
        DataError: With the first ten.
    """
    too_many = len(bad) > max_bad if max_bad is not None else len(bad) > max(total / 100, 100) or 2 * len(bad) >= total
    if not too_many and len(bad) < total:
        return
    first = "; ".join(f"{safe_name(name)}: {reason}" for name, reason in bad[:10])
    what = "nothing here can be read" if len(bad) == total else f"{len(bad):,} of {total:,} cannot be read"
    raise DataError(
        f"{what}: {first}", where=where, mend="mend or remove them, or accept them: --max-bad N (max_bad=N)"
    )


def digest(data: bytes) -> bytes:
    """16 bytes that tell encoded images apart."""
    return hashlib.blake2b(data, digest_size=16).digest()


def array_digest(pixels: np.ndarray) -> bytes:
    """The same for uint8 pixels `[h, w, C]`; the shape counts."""
    return digest(str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a cache that cannot be written into an error that says what to do."""
    try:
        yield
    except OSError as problem:
        raise DeviceError(
            f"the cache cannot be written: {problem.strerror or problem}",
            where=folder,
            mend="free some space, or name another folder with cache= or the variable NEARFAR_CACHE",
        ) from None


def _look(item: Item, max_pixels: int, pixels: bool) -> Seen | BadImage:
    try:
        if isinstance(item, BadImage):
            raise item
        if isinstance(item, np.ndarray):
            return item.shape[0], item.shape[1], item.shape[2] == 1, False, array_digest(item)
        data = read(item)
        header = inspect(data, max_pixels=max_pixels)
        if pixels:
            decode(data, channels=3, long_side=GLANCE, max_pixels=max_pixels)
        return header.height, header.width, header.grey, header.animated, digest(data)
    except BadImage as bad:
        return bad


def _look_at_all(
    source: Source,
    look: Callable[[Item], Seen | BadImage],
    max_bad: int | None,
    threads: int,
    progress: Progress | None,
) -> Survey:
    total, row = len(source.names), 0
    sizes, hashes = np.zeros((total, 2), np.int64), np.zeros((total, 16), np.uint8)
    grey, animated = np.zeros(total, bool), np.zeros(total, bool)
    bad: list[tuple[int, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for items in source.blocks(0):
            before = len(bad)
            for seen in pool.map(look, items):
                if isinstance(seen, BadImage):
                    bad.append((row, seen.what))
                else:
                    sizes[row], grey[row], animated[row] = seen[:2], seen[2], seen[3]
                    hashes[row] = np.frombuffer(seen[4], np.uint8)
                row += 1
            if len(bad) > before:
                check_bad([(source.names[number], reason) for number, reason in bad], total, max_bad, source.path)
            if progress is not None:
                progress(row, total)
    return Survey(sizes, grey, animated, hashes, bad)


def _recall(file: Path, total: int) -> Survey | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            bad = [(int(row), str(reason)) for row, reason in json.loads(kept["bad"].tobytes())]
            found = Survey(kept["sizes"], kept["grey"], kept["animated"], kept["hashes"], bad)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if len(found.sizes) == total else None


def _keep(file: Path, found: Survey) -> None:
    bad = np.frombuffer(json.dumps(found.bad).encode(), np.uint8)
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as stream:
            np.savez(stream, sizes=found.sizes, grey=found.grey, animated=found.animated, hashes=found.hashes, bad=bad)
        temporary.replace(file)
