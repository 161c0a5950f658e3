"""Which classes are for training, for choices and for the test: published splits, and those of one's own."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.names import safe_name
from ..errors import DataError, UsageError
from .rotations import with_rotations

if TYPE_CHECKING:
    from ..data import Dataset

PARTS = ("train", "val", "test")
SPLITS = ("cifar-fs", "fc100", "omniglot-vinyals", "mini-imagenet-ravi", "cub-closerlook")
"""Splits that come with the package, see docs/episodes.md."""

_FORM = 'a file {"name": ..., "train": [...], "val": [...], "test": [...]} with names of classes'


@dataclass(frozen=True)
class Split:
    """Names of the classes of each part; no class is in two.

    Args:
        name: What a result is said to be on.
        train: Classes that are trained on.
        val: Classes that choices are made on.
        test: Classes that nothing is chosen on.
        rotations: True: `part` gives every class four times, see `with_rotations`.
        source: Who published it.

    Raises:
        DataError: An empty part, a class named twice or in two parts, a name that is no text.
    """

    name: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    rotations: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        where = f"split {self.name!r}"
        owner: dict[str, str] = {}
        for part in PARTS:
            names = getattr(self, part)
            if not names or not all(isinstance(name, str) and name for name in names):
                raise DataError(f"part {part} is empty or holds what is no name", where=where, mend=_FORM)
            for name in names:
                if name in owner:
                    mend = "each class once, in one part"
                    raise DataError(f"class {name!r} in {owner[name]} and in {part}", where=where, mend=mend)
                owner[name] = part

    @cached_property
    def fingerprint(self) -> str:
        """Hash of name, classes in order and rotations; 32 hexadecimal digits."""
        content = [self.name, self.rotations, *(list(getattr(self, part)) for part in PARTS)]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    def part(self, dataset: Dataset, part: str) -> Dataset:
        """The images of the classes of one part, in their order in the data set; no pixel is copied, but by rotations.

        Labels are 0, 1, ... in the order of the split, ids and names those of the whole. Nothing of other classes is in
        it: neither images nor names nor labels.

        Args:
            dataset: Labelled images.
            part: `train`, `val` or `test`.

        Raises:
            UsageError: Another part.
            DataError: No labels, classes of this part that are not there, or two of one name.

        Example:
            >>> from nearfar.data import load
            >>> split = Split("odd-digits", ("1", "3", "5"), ("7",), ("9",))
            >>> split.part(load("digits:test", size=28), "train").classes
            ['1', '3', '5']
        """
        if part not in PARTS:
            raise UsageError(f"no part {part!r}", where=f"split {self.name!r}", mend=f"one of {', '.join(PARTS)}")
        wanted = getattr(self, part)
        if dataset.labels is None or dataset.classes is None:
            raise DataError("no labels", where=f"split {self.name!r}", mend="a split is by class: load labelled data")
        self._require(wanted, dataset.classes, part)
        number = np.full(len(dataset.classes), -1)
        number[[dataset.classes.index(name) for name in wanted]] = np.arange(len(wanted))
        labels = number[dataset.labels]
        empty = set(range(len(wanted))) - set(labels.tolist())
        if empty:
            raise _without(
                f"{part} classes have no image", [wanted[label] for label in sorted(empty)], self.name, dataset.classes
            )
        places = np.flatnonzero(labels >= 0)
        found = replace(dataset.subset(places), labels=labels[places], classes=list(wanted))
        return with_rotations(found) if self.rotations else found

    def kept_from(self, seen: Iterable[str]) -> list[str]:
        """Classes of validation and test that are among these names, turned ones by the name of the upright one."""
        upright = {name.split("/rot")[0] if self.rotations else name for name in seen}
        return [name for name in (*self.val, *self.test) if name in upright]

    def _require(self, wanted: tuple[str, ...], classes: list[str], part: str) -> None:
        there = Counter(classes)
        missing = [name for name in wanted if not there[name]]
        if missing:
            raise _without(f"of {len(wanted)} {part} classes are not in the data", missing, self.name, classes)
        twice = [name for name in wanted if there[name] > 1]
        if twice:
            raise _without("classes share their name with another", twice, self.name, classes)


def open_split(name_or_path: str | Path) -> Split:
    """A published split by its name, or one of one's own from a JSON file.

    Args:
        name_or_path: A name in `SPLITS`, or a `.json` file with the keys name, train, val, test, and where wanted
            rotations (false or true) and source.

    Raises:
        UsageError: Neither of them.
        DataError: A file that is no JSON object with these keys, or whose parts are empty or overlap.

    Example:
        >>> split = open_split("cifar-fs")
        >>> split.name, len(split.train), len(split.val), len(split.test)
        ('cifar-fs', 64, 16, 20)
    """
    text = str(name_or_path)
    if text in SPLITS:
        return _split(files("nearfar.episodes").joinpath("classes", f"{text}.json").read_text("utf-8"), text)
    path = Path(name_or_path)
    if path.is_file():
        try:
            return _split(path.read_text("utf-8"), path)
        except UnicodeDecodeError:
            raise DataError("not JSON: not UTF-8", where=path, mend=_FORM) from None
    close = difflib.get_close_matches(text, SPLITS, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"no split {text!r}", where="split", mend=f"{meant}One of {', '.join(SPLITS)}, or {_FORM}")


def _split(text: str, where: object) -> Split:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"not JSON: {problem}", where=where, mend=_FORM) from None
    keys = set(content) if isinstance(content, dict) else set()
    needed = {"name", *PARTS}
    if not needed <= keys <= needed | {"rotations", "source"}:
        raise DataError(f"the keys are {', '.join(sorted(keys)) or 'none'}", where=where, mend=_FORM)
    kinds: dict[str, Any] = {"name": str, "rotations": bool, "source": str} | dict.fromkeys(PARTS, list)
    wrong = [key for key in sorted(keys) if not isinstance(content[key], kinds[key])]
    if wrong or not content["name"]:
        raise DataError(f"{', '.join(wrong) or 'name'} is not of the right kind", where=where, mend=_FORM)
    parts = {part: tuple(content[part]) for part in PARTS}
    return Split(content["name"], **parts, rotations=content.get("rotations", False), source=content.get("source", ""))


def _without(what: str, names: list[str], split: str, classes: list[str]) -> DataError:
    there = ", ".join(map(safe_name, classes[:5])) + (", ..." if len(classes) > 5 else "")
    return DataError(
        f"{len(names)} {what}: {', '.join(_meant(name, classes) for name in names[:5])}"
        + (", ..." if len(names) > 5 else ""),
        where=f"split {split!r}",
        mend=f"give data of this split, whose classes are called as in it; those of the data are {there}",
    )


def _meant(name: str, classes: list[str]) -> str:
    """A name, and the one it may be a mistake for."""
    close = [] if name in classes else difflib.get_close_matches(name, classes, n=1)
    return safe_name(name) + (f" (did you mean {safe_name(close[0])}?)" if close else "")
