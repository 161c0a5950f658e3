"""A folder of image files: flat, nested, by class, or all of it mixed."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from .formats import SUFFIXES, sniff, unsupported
from .source import Source, caption, file_blocks, numbered, quick_key

RUN_FILE = "nearfar-run.json"
"""A folder that holds this file is a run of nearfar; its pictures are never data."""

PARTS = frozenset(
    ["train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "unlabelled", "unlabeled"]
)
"""Names that say which part of a data set, not which class."""


@dataclass
class Listing:
    """What a walk through a folder found."""

    images: list[tuple[str, int, int]] = field(default_factory=list)  # name, size in bytes, time of change in ns
    skipped: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    visited: set[str] = field(default_factory=set)


def read_folder(root: Path, *, labels: bool | None, follow_links: bool, text: bool = False) -> Source | None:
    """The images of a folder and its subfolders, sorted by name; None where there are none.

    Hidden files and folders and runs of nearfar are passed over. Class folders give labels where that is evident: every
    image lies in a subfolder of the first level, and in none deeper. With `labels=True` deeper ones count too. With
    `text` each image has its caption in a `.txt` of the same name beside it, in UTF-8.
    """
    found = list_folder(root, follow_links=follow_links)
    if not found.images:
        if found.ignored:
            return None
        raise nothing_found(root, found)
    found.images.sort()
    names = [name for name, _, _ in found.images]
    folders, notes = _classes(names, deep=bool(labels))
    numbers, classes = numbered(folders) if folders else (None, None)
    return Source(
        path=str(root),
        names=names,
        key=quick_key(root, found.images),
        blocks=file_blocks([root / name for name in names]),
        labels=numbers,
        classes=classes,
        labelled_by="folder names" if folders else "",
        skipped=sorted(found.skipped),
        ignored={suffix: count for suffix, count in found.ignored.items() if not (text and suffix == ".txt")},
        notes=notes,
        texts=[_caption_of(root / name) for name in names] if text else None,
    )


def _caption_of(image: Path) -> str | None:
    try:
        return caption(image.with_suffix(".txt").read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeError):
        return None


def nothing_found(root: Path, found: Listing) -> DataError:
    """The error of a folder without images; it says what is there instead."""
    there = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in found.ignored.most_common(8))
    links = f"; {len(found.skipped)} links or folders were not entered" if found.skipped else ""
    mend = "images are files such as .jpg, .png, .tif, .webp, .gif or .bmp; name a folder that holds some"
    if found.ignored.keys() & {".wav", ".flac", ".ogg", ".txt"}:
        mend += ", or a method for sound (cpc_audio) or text (cpc_text)"
    return DataError(f"no images in the folder; found {there or 'nothing'}{links}", where=root, mend=mend)


def list_folder(root: Path, *, follow_links: bool = False) -> Listing:
    """Walks through a folder without opening a file that has a suffix. Each real folder is entered once."""
    if (root / RUN_FILE).exists():
        raise DataError("this is a run of nearfar, not data", where=root, mend="name the folder of the images")
    found = Listing()
    top = os.path.realpath(root)
    found.visited.add(top)
    waiting = [(str(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as problem:
            if not prefix:
                raise DataError(f"cannot read the folder: {problem.strerror}", where=root) from None
            found.skipped.append((prefix.rstrip("/"), f"unreadable folder ({problem.strerror})"))
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith(".") or not _may_enter(entry, name, top, follow_links, found):
                continue
            if entry.is_dir():
                waiting.append((entry.path, name + "/"))
            else:
                _take(entry, name, found)
    return found


def _may_enter(entry: os.DirEntry[str], name: str, top: str, follow_links: bool, found: Listing) -> bool:
    """Whether a file or folder counts; where not, why not is listed."""
    real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
    inside = real == top or real.startswith(top + os.sep)
    reason = ""
    if entry.is_symlink() and not os.path.exists(real):
        reason = "broken link"
    elif entry.is_symlink() and not inside and not follow_links:
        reason = "link out of the folder; follow_links=True takes it"
    elif entry.is_dir():
        real = os.path.realpath(real)
        if os.path.exists(os.path.join(real, RUN_FILE)):
            reason = "run of nearfar"
        elif real in found.visited or (entry.is_symlink() and inside):
            reason = "link to a folder that is read anyway"
        else:
            found.visited.add(real)
    if reason:
        found.skipped.append((name, reason))
    return not reason


def _take(entry: os.DirEntry[str], name: str, found: Listing) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES or (not suffix and _is_image(entry.path)):
        try:
            facts = entry.stat()
        except OSError as problem:
            found.skipped.append((name, f"unreadable ({problem.strerror})"))
            return
        found.images.append((name, facts.st_size, facts.st_mtime_ns))
    else:
        found.ignored[suffix] += 1


def _is_image(path: str) -> bool:
    """For files without a suffix."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(32)
    except OSError:
        return False
    return bool(sniff(head) or unsupported(head))


def _classes(names: list[str], *, deep: bool) -> tuple[list[str] | None, tuple[str, ...]]:
    """Class of each image by its folder, or None; and what has to be said about it."""
    parts = [name.split("/") for name in names]
    first = sorted({part[0] for part in parts if len(part) > 1})
    if {name.lower() for name in first} & PARTS:
        shown = ", ".join(name for name in first if name.lower() in PARTS)
        return None, (f"no labels taken: {shown} are parts of a data set; name one of them to leave the others out",)
    if any(len(part) < 2 for part in parts) or (len(first) < 2 and not deep):
        return None, ()
    if not deep and any(len(part) > 2 for part in parts):
        return None, ("no labels taken: folders are nested; labels=True takes the first level",)
    return [part[0] for part in parts], ()
