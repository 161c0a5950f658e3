"""Parquet files with one encoded image a row, as the Hugging Face hub and many pipelines write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, MissingColumn
from .folder import PARTS
from .names import safe_name
from .pixels import BadImage
from .source import BLOCK, LABEL, Item, Source, caption, no_label_note, numbered, quick_key

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGE_COLUMNS = ("image", "img")
TEXT_COLUMNS = ("text", "caption")
NAME_COLUMNS = ("filename", "file_name", "path", "name")
KNOWN_COLUMNS = (*IMAGE_COLUMNS, "image2", "audio", "split", *TEXT_COLUMNS, *NAME_COLUMNS)
_MEND = (
    "needed: a column 'image' of encoded bytes (or a struct with 'bytes'); optional: 'label', 'label_name', 'filename'"
)


def read_parquet(
    path: Path,
    files: list[Path],
    *,
    all_parts: bool = False,
    column: str = "image",
    text: bool = False,
    label: str = LABEL,
) -> Source:
    """The rows of one or several Parquet files, in the order of their names.

    Args:
        path: As the user named it.
        files: The files.
        all_parts: Whether files of several parts, such as train and test, are taken as one set.
        column: Which images; "image" may also be called "img".
        text: Whether captions are read too, from a column "text" or "caption".
        label: Name of the column of labels; another than this must be there.

    Raises:
        DataError: A file that is cut short, no such column, a wrong type, missing or contradictory labels, several
            parts that were not asked for.
    """
    files = sorted(files)
    if not all_parts:
        _refuse_mixed_parts(path, files)
    readers = [_open(file) for file in files]
    wanted = IMAGE_COLUMNS if column == "image" else (column,)
    columns = [_image_column(reader, file, wanted) for reader, file in zip(readers, files, strict=True)]
    names = _names(readers, files)
    labels, classes = _labels(readers, path, label)
    tag = "" if column == "image" else f"\0{column}"  # each column has decoded images of its own
    facts = [(file.name + tag, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    if not names:
        raise DataError("no rows", where=path, mend=_MEND)

    def blocks(start: int) -> Iterator[list[Item]]:
        for file, own in zip(files, columns, strict=True):
            rows = _open(file).metadata.num_rows
            if start < rows:
                yield from _file_blocks(file, own, start)
            start = max(0, start - rows)

    return Source(
        path=str(path) + (":all" if all_parts else ""),
        names=names,
        key=quick_key(path, facts),
        blocks=blocks,
        labels=labels,
        classes=classes,
        labelled_by=f"column {label}" if labels is not None else "",
        notes=() if labels is not None else no_label_note(label, _shared(readers), KNOWN_COLUMNS),
        column=column,
        texts=_texts(readers, path) if text else None,
    )


def _refuse_mixed_parts(path: Path, files: list[Path]) -> None:
    parts = sorted({word for file in files if (word := file.stem.lower().replace("_", "-").split("-")[0]) in PARTS})
    if len(parts) > 1:
        raise DataError(
            f"the folder holds the parts {' and '.join(parts)} of a data set",
            where=path,
            mend=f"name one, such as {path / files[0].name}, or take all of them together: {path}:all",
        )


def _open(file: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as problem:
        raise DataError(f"not a whole Parquet file: {problem}", where=file, mend="fetch or write it again") from None


def _image_column(reader: pq.ParquetFile, file: Path, wanted: tuple[str, ...]) -> str:
    import pyarrow as pa

    schema = reader.schema_arrow
    name = next((name for name in wanted if name in schema.names), None)
    if name is None:
        mend = (
            _MEND if wanted == IMAGE_COLUMNS else f"a column {wanted[0]!r} of encoded bytes, or a struct with 'bytes'"
        )
        raise MissingColumn(f"no column '{wanted[0]}' among {schema.names}", where=file, mend=mend)
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"column '{name}' is {kind}, not encoded images", where=file, mend=_MEND)
    return name


def _column(readers: list[pq.ParquetFile], name: str) -> list:
    import pyarrow as pa

    try:
        return [value for reader in readers for value in reader.read(columns=[name]).column(0).to_pylist()]
    except (pa.ArrowException, OSError) as problem:
        raise DataError(f"column '{name}' is damaged: {problem}", mend="fetch or write the file again") from None


def _shared(readers: list[pq.ParquetFile]) -> set[str]:
    """Names of the columns that all files have."""
    return set.intersection(*(set(reader.schema_arrow.names) for reader in readers))


def _texts(readers: list[pq.ParquetFile], path: Path) -> list[str | None]:
    shared = _shared(readers)
    column = next((name for name in TEXT_COLUMNS if name in shared), None)
    if column is None:
        raise MissingColumn(f"no column 'text' among {sorted(shared)}", where=path, mend="a column 'text' or 'caption'")
    return [caption(value) for value in _column(readers, column)]


def _names(readers: list[pq.ParquetFile], files: list[Path]) -> list[str]:
    shared = _shared(readers)
    column = next((name for name in NAME_COLUMNS if name in shared), None)
    if column is not None:
        names = _column(readers, column)
        if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return names
    return [
        f"{file.name}:{row}"
        for reader, file in zip(readers, files, strict=True)
        for row in range(reader.metadata.num_rows)
    ]


def _labels(readers: list[pq.ParquetFile], path: Path, label: str) -> tuple[np.ndarray | None, list[str] | None]:
    """Classes are sorted by `label`; where there is a `label_name` for it, that is what they are called."""
    shared, called_by = _shared(readers), f"{label}_name"
    column = next((name for name in (label, called_by) if name in shared), None)
    if column is None and label != LABEL:
        found = f"no column {label!r} among {sorted(shared)}"
        raise DataError(found, where=path, mend="the name of the column of labels")
    if column is None:
        return None, None
    values = _column(readers, column)
    wrong = next((row for row, value in enumerate(values) if not isinstance(value, str | int)), None)
    if wrong is not None:
        raise DataError(f"row {wrong}: label {values[wrong]!r} is no whole number or text", where=path, mend=_MEND)
    labels, classes = numbered([str(value) for value in values])
    known = _hub_names(readers[0], column)
    if known and all(name.isdigit() and int(name) < len(known) for name in classes):
        classes = [known[int(name)] for name in classes]
    if column == label and called_by in shared:
        called: dict[int, str] = {}
        for row, (number, name) in enumerate(zip(labels.tolist(), _column(readers, called_by), strict=True)):
            if called.setdefault(number, str(name)) != str(name):
                text = f"row {row}: label {classes[number]} is called '{safe_name(str(name))}'"
                raise DataError(f"{text} and '{safe_name(called[number])}' before", where=path, mend=_MEND)
        classes = [called[number] for number in range(len(classes))]
    return labels, classes


def _hub_names(reader: pq.ParquetFile, column: str) -> list[str]:
    """Names of the classes as the Hugging Face hub writes them into the schema, or an empty list."""
    try:
        info = json.loads((reader.schema_arrow.metadata or {})[b"huggingface"])
        names = info["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _file_blocks(file: Path, column: str, start: int) -> Iterator[list[Item]]:
    import pyarrow as pa

    reader = _open(file)
    try:
        for group in range(reader.num_row_groups):
            rows = reader.metadata.row_group(group).num_rows
            skip, start = min(start, rows), max(0, start - rows)
            if skip == rows:
                continue
            for batch in reader.iter_batches(batch_size=BLOCK, row_groups=[group], columns=[column]):
                if skip < len(batch):
                    yield _items(batch.column(0).slice(skip))
                skip = max(0, skip - len(batch))
    except (pa.ArrowException, OSError) as problem:
        raise DataError(f"the file is damaged: {problem}", where=file, mend="fetch or write it again") from None


def _items(column: pa.Array) -> list[Item]:
    values = (value.get("bytes") if isinstance(value, dict) else value for value in column.to_pylist())
    return [BadImage("empty", "no bytes in the row") if value is None else value for value in values]
