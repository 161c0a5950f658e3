"""Sounds of a folder, a manifest or Parquet files, listed with their labels; none is decoded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from . import manifest
from .folder import RUN_FILE, Listing
from .folder import _classes as folder_classes
from .manifest import read_manifest
from .parquet import read_parquet
from .source import LABEL, Source, check_label, file_blocks, numbered, quick_key

SUFFIXES = frozenset([".wav", ".wave", ".flac", ".ogg", ".oga", ".opus"])
UNSUPPORTED = frozenset([".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff"])
"""Listed as bad instead of passed over."""
COLUMN = "audio"
_KINDS = "a folder of .wav, .flac or .ogg files, a CSV or JSONL manifest of them, or Parquet with a column 'audio'"


def open_sounds(path: str | Path, *, labels: bool | None = None, label: str = LABEL) -> Source:
    """The sounds that `path` stands for; see `nearfar.data.sound.load_sound`.

    Raises:
        DataError: Nothing there, nothing readable, no labels or one class where labels are needed.
    """
    source = _read(os.fspath(path), labels, label)
    check_label(source, label)
    if labels is False:
        return replace(source, labels=None, classes=None, labelled_by="")
    if labels and len(source.classes or ()) < 2:
        found = f"only one class, {source.classes}" if source.classes else f"no labels {label!r}"
        raise DataError(
            found, where=source.path, mend="one folder a class, or a manifest or Parquet with a column of labels"
        )
    return source


def _read(text: str, labels: bool | None, label: str) -> Source:
    path, part = Path(text), None
    if not path.exists() and ":" in text:
        head, _, part = text.rpartition(":")
        path = Path(head)
    if not path.exists():
        raise DataError("nothing there", where=text, mend=f"sounds are {_KINDS}")
    if path.suffix.lower() in manifest.SUFFIXES and path.is_file():
        return read_manifest(path, part=part, label=label)
    found = _walk(path) if path.is_dir() else None
    if found is not None and found.images and part is None:
        return _folder(path, found, labels)
    files = sorted(file for suffix in ("*.parquet", "*.pq") for file in path.glob(suffix) if file.name[0] != ".")
    files = files if found is not None else [path] * (path.suffix.lower() in (".parquet", ".pq"))
    if part is not None and not (found is not None and files and part == "all"):
        raise DataError(f"no part ':{part}' here", where=path, mend="manifests have parts, folders of Parquet ':all'")
    if files:
        return read_parquet(path, files, all_parts=part is not None, column=COLUMN, label=label)
    if found is not None:
        raise _nothing_found(path, found)
    raise DataError(f"no sounds in a file of this kind ({path.suffix or 'no suffix'})", where=path, mend=_KINDS)


def _nothing_found(root: Path, found: Listing) -> DataError:
    there = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in found.ignored.most_common(8))
    links = f"; {len(found.skipped)} links were not followed" if found.skipped else ""
    what = f"no sounds in the folder; found {there or 'nothing'}{links}"
    return DataError(what, where=root, mend=f"sounds are {_KINDS}")


def _folder(root: Path, found: Listing, labels: bool | None) -> Source:
    """Files of all subfolders, by name."""
    found.images.sort()
    names = [name for name, _, _ in found.images]
    owners, notes = folder_classes(names, deep=bool(labels))
    numbers, classes = numbered(owners) if owners else (None, None)
    return Source(
        path=str(root),
        names=names,
        key=quick_key(root, found.images),
        blocks=file_blocks([root / name for name in names]),
        labels=numbers,
        classes=classes,
        labelled_by="folder names" if owners else "",
        skipped=sorted(found.skipped),
        ignored=dict(found.ignored),
        notes=notes,
    )


def _walk(root: Path) -> Listing:
    """Sounds below a folder. Hidden files and folders, runs of nearfar and links are passed over."""
    if (root / RUN_FILE).exists():
        raise DataError("this is a run of nearfar, not data", where=root, mend="name the folder of the sounds")
    found = Listing()
    for place, folders, files in os.walk(root):
        here = Path(place)
        folders[:] = [name for name in folders if name[0] != "." and not (here / name / RUN_FILE).exists()]
        for name in (name for name in files if name[0] != "."):
            file, suffix = here / name, Path(name).suffix.lower()
            shown = file.relative_to(root).as_posix()
            if suffix not in SUFFIXES and suffix not in UNSUPPORTED:
                found.ignored[suffix] += 1
            elif file.is_symlink():
                found.skipped.append((shown, "link"))
            else:
                facts = file.stat()
                found.images.append((shown, facts.st_size, facts.st_mtime_ns))
    return found
