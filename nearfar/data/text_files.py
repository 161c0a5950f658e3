"""Text of files, piece by piece: lines of `.txt`, rows of CSV, JSON lines and Parquet."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..errors import DataError
from .names import safe_name
from .source import numbered, problems_error

TABLES = frozenset([".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq"])
TEXT_COLUMNS = ("text", "sentence")
KINDS = (
    "a .txt, a sentence a line with an empty line after each document; or .csv, .tsv, .jsonl or .parquet with a column "
    "'text' (or 'sentence'), optionally 'label', 'label_name' and 'split'; or a folder of such files"
)
_WHOLE_FIELD = 2**31 - 1  # characters; csv takes 131,072 without it


@dataclass
class Pieces:
    """Lines or rows in their order.

    Args:
        texts: What each says; invalid UTF-8 is replaced by U+FFFD.
        names: File and line (of text) or row (of tables), from 1.
        documents: Number of the document that each belongs to, rising. A row is a document; lines are one up to an
            empty line.
        labels: int64 of each, or None.
        classes: Names of the classes, or None.
        bad: Name and reason of rows without text.
    """

    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    bad: list[tuple[str, str]] = field(default_factory=list)


def read_pieces(path: str | Path, *, labels: bool | None = None) -> Pieces:
    """All pieces of the text that `path` stands for; see `nearfar.data.text.load_text`.

    Raises:
        DataError: Nothing there, nothing to read, a damaged file, labels that are missing or contradict each other.
    """
    file, part = Path(path), None
    if not file.exists() and ":" in str(path):
        head, _, part = str(path).rpartition(":")
        file = Path(head)
    if not file.exists():
        raise DataError("nothing there", where=path, mend=f"text is {KINDS}")
    files = _files(file) if file.is_dir() else [file]
    if part is not None and (len(files) > 1 or files[0].suffix.lower() == ".txt"):
        raise DataError(f"no part {part!r} here", where=file, mend="one table with a column 'split' has parts")
    pieces, rows = Pieces(), []
    for one in files:
        name = one.relative_to(file).as_posix() if file.is_dir() else one.name
        if one.suffix.lower() == ".txt":
            _add_lines(pieces, one, name)
        elif one.suffix.lower() in TABLES:
            rows += _add_rows(pieces, one, name, part)
        else:
            raise DataError(f"a file of a kind that is not read ({one.suffix or 'no suffix'})", where=one, mend=KINDS)
    if not pieces.texts:
        where = f" of split {part!r}" if part else ""
        raise DataError(f"no text{where}", where=path, mend=f"text is {KINDS}")
    if labels is not False and len(rows) == len(pieces.texts):
        pieces.labels, pieces.classes = _classes(rows, pieces.names, path)
    if labels and len(pieces.classes or ()) < 2:
        found = f"only one class, {pieces.classes}" if pieces.classes else "no labels"
        raise DataError(found, where=path, mend="a column 'label' with two classes or more")
    return pieces


def _files(folder: Path) -> list[Path]:
    """The files of a folder and its subfolders, by name, without hidden ones."""
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in TABLES | {".txt"}
        and file.is_file()
        and not any(part[0] == "." for part in file.relative_to(folder).parts)
    ]
    if not found:
        raise DataError("no text in the folder", where=folder, mend=f"text is {KINDS}")
    return found


def _add_lines(pieces: Pieces, file: Path, name: str) -> None:
    """Lines that are not blank; a blank one ends a document, and so does the file."""
    document, blank = (pieces.documents[-1] if pieces.documents else -1), True
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                document += blank
                pieces.texts.append(line.strip())
                pieces.names.append(f"{name}:{number}")
                pieces.documents.append(document)
            blank = not line.strip()


def _add_rows(pieces: Pieces, file: Path, name: str, part: str | None) -> list[tuple[str, str]]:
    """Rows of a table, each a document. Returns label and name of the class of each, "" where there is none."""
    suffix = file.suffix.lower()
    read = _parquet_rows if suffix in (".parquet", ".pq") else _csv_rows if suffix in (".csv", ".tsv") else _json_rows
    document, values, column = (pieces.documents[-1] if pieces.documents else -1), [], ""
    for number, row in read(file):
        column = column or _text_column(row, file)
        if part is not None and str(row.get("split") or "").strip() != part:
            continue
        if not isinstance(row.get(column), str):
            kind = "no text" if row.get(column) is None else f"a {type(row[column]).__name__} in place of text"
            pieces.bad.append((f"{name}:{number}", kind))
            continue
        document += 1
        pieces.texts.append(row[column])
        pieces.names.append(f"{name}:{number}")
        pieces.documents.append(document)
        label, called = (row.get(key) for key in ("label", "label_name"))
        values.append(tuple("" if value is None else str(value).strip() for value in (label, called)))
    return values


def _text_column(row: dict[str, Any], file: Path) -> str:
    found = next((name for name in TEXT_COLUMNS if name in row), None)
    if found is None:
        raise DataError(f"no column 'text' among {list(row)}", where=file, mend=f"text is {KINDS}")
    return found


def _open(file: Path) -> TextIO:
    """A text file in UTF-8, or in UTF-16 where it begins with its mark."""
    with file.open("rb") as stream:
        wide = stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return file.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="")


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open(file) as stream:
        header = stream.readline()
        stream.seek(0)
        limit = csv.field_size_limit(_WHOLE_FIELD)
        try:
            separator = max(",;\t", key=header.count)
            for number, row in enumerate(csv.DictReader(stream, delimiter=separator, restkey="", restval=None), 1):
                if "" in row or None in row.values():
                    what = f"row {number}: {'more' if '' in row else 'fewer'} fields than the header has"
                    raise problems_error([what], file, 'write a field that holds the separator as "a;b"')
                yield number, row
        except csv.Error as problem:
            raise DataError(f"cannot be read: {problem}", where=file, mend=KINDS) from None
        finally:
            csv.field_size_limit(limit)


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (json.JSONDecodeError, RecursionError) as problem:
                    raise problems_error([f"line {number}: not JSON, {problem}"], file, KINDS) from None
                if not isinstance(row, dict):
                    raise problems_error([f"line {number}: not an object"], file, KINDS)
                yield number, row


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        reader = pq.ParquetFile(file)
        wanted = [name for name in (*TEXT_COLUMNS, "label", "label_name", "split") if name in reader.schema_arrow.names]
        if not set(wanted) & set(TEXT_COLUMNS):
            _text_column(dict.fromkeys(reader.schema_arrow.names), file)
        number = 0
        for batch in reader.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise DataError(f"not a whole Parquet file: {problem}", where=file, mend="fetch or write it again") from None


def _classes(
    rows: list[tuple[str, str]], names: list[str], path: str | Path
) -> tuple[np.ndarray | None, list[str] | None]:
    """Classes are sorted by `label` and called by `label_name`, where there is one."""
    values = [label or called for label, called in rows]
    if not any(values):
        return None, None
    missing = [
        f"{safe_name(name)}: no label, others have one" for name, value in zip(names, values, strict=True) if not value
    ]
    if missing:
        raise problems_error(missing, path, "labels for all, or labels=False")
    labels, classes = numbered(values)
    known: dict[int, str] = {}
    for name, number, (label, called) in zip(names, labels.tolist(), rows, strict=True):
        if called and known.setdefault(number, called) != called:
            what = (
                f"{safe_name(name)}: label {label} is called {safe_name(called)!r}, {safe_name(known[number])!r} before"
            )
            raise DataError(what, where=path, mend="one name for each label")
    return labels, [known.get(number, label) for number, label in enumerate(classes)]
