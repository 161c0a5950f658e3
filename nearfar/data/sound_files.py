"""Sounds of a folder, a manifest or Parquet files, listed with their labels; none is decoded."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from . import manifest
from .folder import RUN_FILE, Listing
from .folder import _classes as folder_classes
from .manifest import read_manifest
from .names import safe_name
from .parquet import read_parquet
from .source import Source, file_blocks, numbered, quick_key

SUFFIXES = frozenset([".wav", ".wave", ".flac", ".ogg", ".oga", ".opus"])
UNSUPPORTED = frozenset([".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff"])
"""Listed as bad instead of passed over."""
COLUMN = "audio"
_KINDS = "a folder of .wav, .flac or .ogg files, a CSV or JSONL manifest of them, or Parquet with a column 'audio'"


def open_sounds(path: str | Path, *, labels: bool | None = None, label: str = "label") -> Source:
    """The sounds that `path` stands for; see `nearfar.data.sound.load_sound`.

    Raises:
        DataError: Nothing there, nothing readable, no labels or one class where labels are needed.
    """
    source = _read(os.fspath(path), labels, label)
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
        return _manifest(path, part, label)
    found = _walk(path) if path.is_dir() else None
    if found is not None and found.images and part is None:
        return _folder(path, found, labels)
    files = sorted(file for suffix in ("*.parquet", "*.pq") for file in path.glob(suffix) if file.name[0] != ".")
    files = files if found is not None else [path] * (path.suffix.lower() in (".parquet", ".pq"))
    if part is not None and not (found is not None and files and part == "all"):
        raise DataError(f"no part ':{part}' here", where=path, mend="manifests have parts, folders of Parquet ':all'")
    if files:
        return _parquet(path, files, label, all_parts=part is not None)
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


def _manifest(path: Path, part: str | None, label: str) -> Source:
    source = read_manifest(path, part=part)
    if label == "label":
        return source
    column = dict(_manifest_column(path, label))
    values = [column.get(name, "") for name in source.names]
    if not all(values):
        where = f"'{safe_name(source.names[values.index('')])}'"
        raise DataError(f"no {label!r} of {where}", where=path, mend=f"a column {label!r} with a value in every row")
    numbers, classes = numbered(values)
    return replace(source, labels=numbers, classes=classes, labelled_by=f"column {label} of {safe_name(path.name)}")


def _manifest_column(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Path and value of every row that has both."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            rows = [json.loads(line) for line in stream if line.strip()]
        else:
            head = stream.readline()
            stream.seek(0)
            rows = list(csv.DictReader(stream, delimiter=max(",;\t", key=head.count)))
    for row in rows:
        fields = {str(key).strip().lower(): value for key, value in row.items()}
        if fields.get(name.lower()) is not None:
            yield fields["path"], str(fields[name.lower()]).strip()


def _parquet(path: Path, files: list[Path], label: str, *, all_parts: bool) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    readers = []
    for file in files:
        try:
            readers.append(pq.ParquetFile(file))
        except (pa.ArrowException, OSError) as problem:
            raise DataError(
                f"not a whole Parquet file: {problem}", where=file, mend="fetch or write it again"
            ) from None
        for name in (COLUMN, label)[: 1 if label == "label" else 2]:
            if name not in readers[-1].schema_arrow.names:
                text = f"no column {name!r} among {readers[-1].schema_arrow.names}"
                raise DataError(text, where=file, mend="needed: a column 'audio' of encoded bytes, and that of label=")
    source = read_parquet(path, files, all_parts=all_parts, column=COLUMN)
    if label == "label":
        return source
    values = [value for reader in readers for value in reader.read(columns=[label]).column(0).to_pylist()]
    wrong = next((row for row, value in enumerate(values) if not isinstance(value, str | int)), None)
    if wrong is not None:
        text = f"row {wrong}: {label} {values[wrong]!r} is no whole number or text"
        raise DataError(text, where=path, mend="labels are whole numbers or text")
    numbers, classes = numbered([str(value) for value in values])
    return replace(source, labels=numbers, classes=classes, labelled_by=f"column {label}")
