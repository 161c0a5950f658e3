"""What every kind of data becomes before anything is decoded: names, labels and a stream of encoded images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..errors import DataError
from .pixels import BadImage

LABEL = "label"
"""Name of the column of labels where none is given."""
BLOCK = 256
"""Images handed out at once: enough to keep all threads busy, few enough to hold in memory."""

Item: TypeAlias = "Path | bytes | np.ndarray | BadImage"
"""A file, an encoded image, uint8 pixels `[h, w, C]`, or what is already known to be bad."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A list of images, none of them read.

    Args:
        path: As the user named it.
        names: One name an image; a sample's number is its place here.
        key: Changes when a file, its size or its time of change does.
        blocks: `start -> iterator` of lists of at most `BLOCK` items, from number `start` on.
        labels: int64 `[N]`, or None.
        classes: Names of the classes, by label, or None.
        labelled_by: Where the labels come from, in words.
        skipped: Name and reason of links and folders that were not entered.
        ignored: Number of files that are no images, by suffix.
        notes: Remarks for the summary.
        array: uint8 `[N, C, S, S]` on the disk that can be used as it is, or None.
        column: Which images, where each sample has several.
        texts: Caption of each image, None where it has none; None: not asked for.
    """

    path: str
    names: list[str]
    key: str
    blocks: Callable[[int], Iterator[list[Item]]]
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    labelled_by: str = ""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    array: np.ndarray | None = None
    column: str = "image"
    texts: list[str | None] | None = None


def file_blocks(paths: Sequence[Item]) -> Callable[[int], Iterator[list[Item]]]:
    """The `blocks` of a list of files, or of what else is an item."""

    def blocks(start: int) -> Iterator[list[Item]]:
        for first in range(start, len(paths), BLOCK):
            yield list(paths[first : first + BLOCK])

    return blocks


def quick_key(root: Path, files: Iterable[tuple[str, int, int]]) -> str:
    """Hash of a root and of name, size and time of change of each file; none is opened."""
    digest = hashlib.blake2b(str(root.resolve()).encode("utf-8", "surrogateescape"), digest_size=16)
    for name, size, time in files:
        digest.update(f"\n{name}\0{size}\0{time}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def numbered(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Labels int64 `[N]` and their sorted classes: by number where all are whole numbers, by letter otherwise.

    Example:
        >>> numbered(["10", "9", "10"])
        (array([1, 0, 1]), ['9', '10'])
    """
    different = set(values)
    whole = all(re.fullmatch(r"-?\d{1,18}", value) for value in different)
    classes = sorted(different, key=int) if whole else sorted(different)
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[value] for value in values], np.int64), classes


def no_label_note(label: str, columns: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """A remark where a table without such a column has others that may hold labels."""
    others = sorted(set(columns) - set(known))
    return (f"no column {label}; labels may be in {', '.join(others)}: --label NAME",) if others else ()


def check_label(source: Source, label: str) -> None:
    """Raises DataError where a column of labels is asked for, of data that have none."""
    if label != LABEL and not source.labelled_by.startswith("column"):
        raise DataError(
            f"no column {label!r}: only manifests and Parquet have columns of labels", where=source.path,
            mend="leave --label out; classes are folders, or come with arrays",
        )  # fmt: skip


def caption(value: object) -> str | None:
    """A text without blanks around it; None where there is none, or no text."""
    return value.strip() or None if isinstance(value, str) else None


def problems_error(problems: list[str], where: object, mend: str) -> DataError:
    """One error for all the problems of a file, the first ten in words."""
    rest = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DataError(f"{count}: {'; '.join(problems[:10])}{rest}", where=where, mend=mend)
