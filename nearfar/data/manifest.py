"""A list of files with labels: CSV (`,`, `;` or tab) or JSON lines, columns `path[,label][,split]`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .names import original_name, safe_name
from .source import Source, file_blocks, numbered, problems_error, quick_key

SUFFIXES = frozenset([".csv", ".tsv", ".jsonl", ".ndjson"])
_MEND = "a manifest has the columns path, label (optional) and split (optional), paths relative to the manifest"


@dataclass(frozen=True)
class Row:
    """One line of a manifest."""

    line: int
    path: str
    label: str
    split: str


def read_manifest(path: Path, *, part: str | None) -> Source:
    """The files that a manifest lists, in its order; all its problems are told at once, by line.

    Args:
        path: The manifest.
        part: Only rows whose `split` is this; None: all.

    Raises:
        DataError: Unknown file, a file listed twice, two labels for one file, an unlabelled row among labelled ones.
    """
    lines = _json_rows(path) if path.suffix in (".jsonl", ".ndjson") else _csv_rows(path)
    try:
        rows = [row for row in lines if part is None or row.split == part]
    except (csv.Error, UnicodeError) as problem:
        raise DataError(f"cannot be read: {problem}", where=path, mend=_MEND) from None
    if not rows:
        which = f" of split {part!r}" if part else ""
        raise DataError(f"the manifest lists no image{which}", where=path, mend=_MEND)
    files, problems = _files(rows, path.parent)
    labelled = any(row.label for row in rows)
    problems += [f"line {row.line}: no label, others have one" for row in rows if labelled and not row.label]
    if problems:
        raise problems_error(sorted(problems, key=_line), path, _MEND)
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
        labelled_by=f"column label of {safe_name(path.name)}" if labelled else "",
    )


def _line(problem: str) -> int:
    return int(problem.split(":")[0].removeprefix("line "))


def _files(rows: list[Row], base: Path) -> tuple[list[Path], list[str]]:
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
        elif other is not row:
            problems.append(f"line {row.line}: '{safe_name(row.path)}' again, first in line {other.line}")
        files.append(file)
    return files, problems


def _csv_rows(path: Path) -> Iterator[Row]:
    # surrogateescape: names of files are bytes, and not all of them are UTF-8
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        head = stream.readline()
        stream.seek(0)
        reader = csv.reader(stream, delimiter=max(",;\t", key=head.count), strict=True)
        columns = [name.strip().lower() for name in next(reader, [])]
        if "path" not in columns:
            raise DataError(f"no column 'path' among {columns}", where=f"{path}:1", mend=_MEND)
        line = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(columns):
                text = f"line {line}: {len(values)} fields, the header has {len(columns)}"
                raise problems_error([text], path, 'write a field that holds the separator as "a;b"')
            if values:
                row = dict(zip(columns, values, strict=True))
                yield Row(line, row["path"], row.get("label", "").strip(), row.get("split", "").strip())
            line = reader.line_num + 1


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        for number, text in enumerate(stream, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as problem:
                raise problems_error([f"line {number}: not JSON, {problem}"], path, _MEND) from None
            if not isinstance(row, dict) or not isinstance(row.get("path"), str):
                raise problems_error([f'line {number}: not an object with a "path"'], path, _MEND)
            label, split = row.get("label"), row.get("split")
            yield Row(
                number, row["path"], "" if label is None else str(label).strip(), "" if split is None else str(split)
            )
