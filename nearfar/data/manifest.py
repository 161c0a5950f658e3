"""A list of files with labels: CSV (`,`, `;` or tab) or JSON lines, columns `path[,label][,split]`.

Lists of pairs have `path2`, `path3` beside it for further images, and `text` or `caption`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, MissingColumn
from .names import original_name, safe_name
from .source import LABEL, Source, caption, file_blocks, numbered, problems_error, quick_key

SUFFIXES = frozenset([".csv", ".tsv", ".jsonl", ".ndjson"])
TEXT_COLUMNS = ("text", "caption")
_MEND = "a manifest has the columns path, label (optional) and split (optional), paths relative to the manifest"


@dataclass(frozen=True)
class Row:
    """One line of a manifest."""

    line: int
    path: str
    label: str
    split: str
    text: str | None


def read_manifest(
    path: Path, *, part: str | None, column: str = "image", text: bool = False, label: str = "label"
) -> Source:
    """The files that a manifest lists, in its order; all its problems are told at once, by line.

    Args:
        path: The manifest.
        part: Only rows whose `split` is this; None: all.
        column: Which images: "image" are those of `path`, "image2" of `path2`, and so on; "depth" those of `depth`.
        text: Whether captions are asked for, of a column `text` or `caption`. A file may be listed with several;
            without them it is taken once.
        label: Name of the column of labels; another than this must be there.

    Raises:
        DataError: Unknown file, a file listed twice, two labels for one file, an unlabelled row among labelled ones, no
            such column.
    """
    wanted = column.lower()
    named = ("path" + wanted.removeprefix("image"), wanted)
    read = _json_rows if path.suffix in (".jsonl", ".ndjson") else _csv_rows
    lines = read(path, named, text, label)
    try:
        listed = list(lines)
        rows = [row for row in listed if part is None or row.split == part]
    except (csv.Error, UnicodeError) as problem:
        raise DataError(f"cannot be read: {problem}", where=path, mend=_MEND) from None
    if not rows:
        splits = ", ".join(sorted({row.split for row in listed if row.split})) or "none"
        what = f"no row of split {part!r}; there are: {splits}" if part else "the manifest lists no file"
        raise DataError(what, where=path, mend=_MEND)
    captioned = any(row.text is not None for row in rows)
    files, problems = _files(rows, path.parent, again=text or captioned or column != "image")
    labelled = any(row.label for row in rows)
    problems += [f"line {row.line}: no label, others have one" for row in rows if labelled and not row.label]
    if problems:
        missing = any("no file" in problem for problem in problems)
        mend = "remove these rows, or put the files there; paths are relative to the manifest" if missing else _MEND
        raise problems_error(sorted(problems, key=_line), path, mend)
    if captioned and not text and column == "image":
        once: dict[Path, Row] = {}
        for file, row in zip(files, rows, strict=True):
            once.setdefault(file, row)
        files, rows = list(once), list(once.values())
    facts = [file.stat() for file in files]
    names = [row.path for row in rows]
    labels, classes = numbered([row.label for row in rows]) if labelled else (None, None)
    return Source(
        path=str(path) + (f":{part}" if part else ""),
        names=names,
        key=quick_key(path, ((n, fact.st_size, fact.st_mtime_ns) for n, fact in zip(names, facts, strict=True))),
        blocks=file_blocks(files),
        labels=labels,
        classes=classes,
        labelled_by=f"column {label} of {safe_name(path.name)}" if labelled else "",
        column=column,
        texts=[row.text for row in rows] if text else None,
    )


def _line(problem: str) -> int:
    return int(problem.split(":")[0].removeprefix("line "))


def _files(rows: list[Row], base: Path, *, again: bool) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    problems: list[str] = []
    seen: dict[Path, Row] = {}
    for row in rows:
        spellings = (row.path, original_name(row.path), row.path.replace("\\", "/"))
        file = next((base / name for name in spellings if name and os.path.isfile(base / name)), None)
        if file is None:
            problems.append(f"line {row.line}: no file '{safe_name(row.path)}'")
            continue
        other = seen.setdefault(file, row)
        if other is not row and other.label != row.label:
            text = f"two labels for '{safe_name(row.path)}', '{safe_name(row.label)}' here"
            problems.append(f"line {row.line}: {text} and '{safe_name(other.label)}' in line {other.line}")
        elif other is not row and not again:
            problems.append(f"line {row.line}: '{safe_name(row.path)}' again, first in line {other.line}")
        files.append(file)
    return files, problems


def _csv_rows(path: Path, names: tuple[str, str], text: bool, label: str) -> Iterator[Row]:
    # surrogateescape: names of files are bytes, and not all of them are UTF-8
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        head = stream.readline()
        stream.seek(0)
        reader = csv.reader(stream, delimiter=max(",;\t", key=head.count), strict=True)
        columns = [name.strip().lower() for name in next(reader, [])]
        told = next((name for name in TEXT_COLUMNS if name in columns), "text" if text else None)
        named = next((name for name in names if name in columns), names[0])
        if named not in columns:
            raise _no_images(names, columns, path)
        if told is not None and told not in columns:
            raise MissingColumn(f"no column {told!r} among {columns}", where=f"{path}:1", mend=_MEND)
        if label != LABEL and label.lower() not in columns:
            raise _no_labels(label, columns, path)
        line = reader.line_num + 1
        for values in _whole(reader, path):
            if values and len(values) != len(columns):
                problem = f"line {line}: {len(values)} fields, the header has {len(columns)}"
                raise problems_error([problem], path, 'write a field that holds the separator as "a;b"')
            if values:
                row = dict(zip(columns, values, strict=True))
                own, split = row.get(label.lower(), "").strip(), row.get("split", "").strip()
                yield Row(line, row[named], own, split, caption(row[told]) if told else None)
            line = reader.line_num + 1


def _whole(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    """The rows; a quote that is never closed is told by the line where it opens."""
    line = 1
    try:
        for values in reader:
            line = getattr(reader, "line_num", line)
            yield values
    except csv.Error as problem:
        mend = "close the quote that opens there, or write a quote within a field twice"
        raise problems_error([f"line {line + 1}: {problem}"], path, mend) from None


def _json_rows(path: Path, names: tuple[str, str], text: bool, label: str) -> Iterator[Row]:
    columns: set[str] = set()
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as problem:
                raise problems_error([f"line {number}: not JSON, {problem}"], path, _MEND) from None
            fields = {key.lower(): value for key, value in row.items()} if isinstance(row, dict) else {}
            columns |= set(fields)
            named = next((name for name in names if name in fields), names[0])
            if not isinstance(fields.get(named), str):
                if number == 1 and fields and named not in fields:
                    raise _no_images(names, sorted(fields), path)
                raise problems_error([f'line {number}: not an object with a "{named}"'], path, _MEND)
            own, split = ("" if fields.get(key) is None else str(fields[key]) for key in (label.lower(), "split"))
            told = next((fields[name] for name in TEXT_COLUMNS if name in fields), None)
            yield Row(number, fields[named], own.strip(), split, caption(told))
    if label != LABEL and label.lower() not in columns:
        raise _no_labels(label, sorted(columns), path)


def _no_images(names: tuple[str, str], columns: list[str], path: Path) -> MissingColumn:
    """`names` are ways to write one column."""
    if not columns or any("\udc80" <= sign <= "\udcff" or sign == "\0" for sign in "".join(columns)):
        return MissingColumn("no table of text" if columns else "an empty file", where=path, mend=_MEND)
    if names[0] == "path":
        return MissingColumn(f"no column 'path' among {columns}", where=path, mend=_MEND)
    mend = "names of columns that are there; image is path, image2 is path2: --columns image,image2"
    return MissingColumn(f"no column {' or '.join(map(repr, names))} among {columns}", where=path, mend=mend)


def _no_labels(label: str, columns: list[str], path: Path) -> DataError:
    return DataError(f"no column {label!r} among {columns}", where=path, mend="the name of the column of labels")
