"""What is in the data, before anything is trained on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .decode import MAX_PIXELS
from .names import safe_name
from .source import LABEL, Source
from .sources import open_source
from .survey import Progress, Survey, survey

EXTREME_ASPECT, EXTREME_SHORT, EXTREME_LONG = 20, 8, 10_000
"""An image is extreme where one side is more than 20 times the other, below 8 pixels or above 10,000."""


class _Hashed(Protocol):
    """A `Scan` or a `Dataset`."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def hashes(self) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Counts and complaints. Everything but `bad`, `skipped` and `ignored` is about the readable images alone.

    Args:
        path: As the user named it.
        names: Name of each image.
        sizes: Height and width of each, upright, int64 `[N, 2]`.
        hashes: Hash of each encoded image, uint8 `[N, 16]`.
        channels: 1 where every image is grey, else 3.
        labels: int64 `[N]`, or None.
        classes: Names of the classes, by label, or None.
        labelled_by: Where the labels come from, in words.
        bad: Name and reason of images that cannot be read.
        skipped: Name and reason of links and folders that were not entered.
        ignored: Number of files that are no images, by suffix.
        animated: Images with more than one frame or page; the first is used.
        notes: Remarks.
    """

    path: str
    names: list[str]
    sizes: np.ndarray
    hashes: np.ndarray
    channels: int
    labels: np.ndarray | None
    classes: list[str] | None
    labelled_by: str
    bad: list[tuple[str, str]]
    skipped: list[tuple[str, str]]
    ignored: dict[str, int]
    animated: int
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def longest(self) -> int:
        """Longest side of all images, in pixels."""
        return int(self.sizes.max())

    @property
    def shortest(self) -> int:
        """Shortest side of all images, in pixels."""
        return int(self.sizes.min())

    @property
    def class_counts(self) -> dict[str, int]:
        """Images of each class; empty without labels."""
        if self.labels is None or self.classes is None:
            return {}
        counts = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    @property
    def duplicates(self) -> list[list[str]]:
        """Names of images whose files are equal byte for byte, a list for each group."""
        groups: dict[bytes, list[str]] = {}
        for name, value in zip(self.names, self.hashes, strict=True):
            groups.setdefault(value.tobytes(), []).append(name)
        return [group for group in groups.values() if len(group) > 1]

    @property
    def extreme(self) -> list[str]:
        """Names of images of extreme shape: more than 1 : 20, a side below 8 pixels or above 10,000."""
        short, long = self.sizes.min(1), self.sizes.max(1)
        odd = (long > EXTREME_ASPECT * short) | (short < EXTREME_SHORT) | (long > EXTREME_LONG)
        return [self.names[row] for row in np.flatnonzero(odd)]

    def summary(self) -> str:
        """One line, such as `9,812 images, 32 x 32 px, colour, 3 unreadable, 41 exact duplicates, 10 classes (...)`."""
        low, high = self.sizes.min(0), self.sizes.max(0)
        size = f"{low[0]} x {low[1]} px" if (low == high).all() else f"sides of {self.shortest} to {self.longest} px"
        again = sum(len(group) - 1 for group in self.duplicates)
        counted = (
            (len(self.bad), "unreadable"),
            (again, "exact duplicates" if again > 1 else "exact duplicate"),
            (len(self.extreme), "of extreme shape"),
            (self.animated, "with more than one frame (the first is used)"),
            (len(self.skipped), "links or folders not entered"),
            (sum(self.ignored.values()), "other files"),
        )
        parts = [f"{len(self):,} image{'s' * (len(self) != 1)}", size, "grey" if self.channels == 1 else "colour"]
        parts += [f"{count:,} {what}" for count, what in counted if count]
        if self.classes is None:
            parts.append("unlabelled")
        else:
            parts.append(f"{len(self.classes):,} class{'es' * (len(self.classes) != 1)} (from {self.labelled_by})")
        return "; ".join([", ".join(parts), *self.notes])

    def details(self, *, most: int = 10) -> str:
        """The summary, and what is behind its numbers: classes, unreadable files, duplicates; `most` of each."""
        listed = {
            "classes": [f"{name}: {count:,}" for name, count in self.class_counts.items()],
            "unreadable": [f"{name}: {reason}" for name, reason in self.bad],
            "exact duplicates": [" = ".join(group) for group in self.duplicates],
            "of extreme shape": self.extreme,
            "not entered": [f"{name}: {reason}" for name, reason in self.skipped],
        }
        lines = [self.summary()]
        for what, found in listed.items():
            lines += [f"{what}:", *(f"  {safe_name(one)}" for one in found[:most])] if found else []
            lines += [f"  and {len(found) - most:,} more"] if len(found) > most else []
        return "\n".join(lines)


def scan(
    path: str | Path,
    *,
    labels: bool | None = None,
    follow_links: bool = False,
    max_bad: int | None = None,
    max_pixels: int = MAX_PIXELS,
    cache: Path | None = None,
    threads: int | None = None,
    label: str = LABEL,
    pixels: bool = True,
    progress: Progress | None = None,
) -> Scan:
    """Reads every header, hashes every file and decodes every image, so that damage inside is seen before a training.

    Args:
        path: As for `load`.
        labels: True: labels are needed; False: none are taken; None: taken where they are evident.
        follow_links: Whether symbolic links out of the folder are followed.
        max_bad: Bad images that are accepted; None: up to 100 or 1 %, and less than half.
        max_pixels: Largest height times width of an image.
        cache: Folder for what was seen; None: `NEARFAR_CACHE`, or `~/.cache/nearfar`.
        threads: Threads that read; None: one a core.
        label: Column of a manifest or of Parquet that holds the labels.
        pixels: False: headers alone, in a fraction of the time; damage inside of an image then shows only in `load`.
        progress: Called with the number of images done, and of all.

    Raises:
        DataError: Nothing to read, too much that is bad, no labels where they are needed.

    Example:
        >>> scan("digits").summary()
        '5,000 images, 28 x 28 px, grey, 10 classes (from MNIST)'
    """
    source = open_source(path, labels=labels, follow_links=follow_links, label=label)
    seen = survey(
        source,
        cache=cache_folder(cache),
        max_bad=max_bad,
        max_pixels=max_pixels,
        threads=threads or thread_count(),
        pixels=pixels,
        progress=progress,
    )
    return _scan(source, seen)


def _scan(source: Source, seen: Survey) -> Scan:
    good = seen.good
    return Scan(
        path=source.path,
        names=[source.names[row] for row in good],
        sizes=seen.sizes[good],
        hashes=seen.hashes[good],
        channels=seen.channels,
        labels=None if source.labels is None else source.labels[good],
        classes=source.classes,
        labelled_by=source.labelled_by,
        bad=[(source.names[row], reason) for row, reason in seen.bad],
        skipped=source.skipped,
        ignored=source.ignored,
        animated=int(seen.animated.sum()),
        notes=source.notes,
    )


def duplicates_across(a: _Hashed, b: _Hashed) -> list[tuple[str, str]]:
    """Names `(in a, in b)` of images that are in both, byte for byte: leaks, where b is what a is measured on.

    Args:
        a: `Scan` or `Dataset`.
        b: `Scan` or `Dataset`; each of its images occurs at most once.
    """
    known: dict[bytes, str] = {}
    for name, value in zip(a.names, a.hashes, strict=True):
        known.setdefault(value.tobytes(), name)
    pairs = ((known.get(value.tobytes()), name) for name, value in zip(b.names, b.hashes, strict=True))
    return [(first, second) for first, second in pairs if first is not None]


def cache_folder(cache: str | Path | None) -> Path:
    """`cache`, or the folder of the variable `NEARFAR_CACHE`, or `~/.cache/nearfar`."""
    return Path(cache or os.environ.get("NEARFAR_CACHE") or Path.home() / ".cache" / "nearfar")


def thread_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
