"""Which kind of data a path is, and what is asked of its labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError, MissingColumn
from . import manifest
from .arrays import read_array
from .column_folders import column_folders, read_column_folders
from .digits import read_digits
from .folder import list_folder, nothing_found, read_folder
from .manifest import read_manifest
from .parquet import read_parquet
from .source import LABEL, Source, check_label

_KINDS = "a folder of images, a CSV or JSONL manifest, Parquet, .npy, .npz, or the word digits"


def open_source(
    path: str | Path,
    *,
    labels: bool | None = None,
    follow_links: bool = False,
    column: str = "image",
    text: bool = False,
    label: str = LABEL,
) -> Source:
    """The images that `path` stands for; see `nearfar.data.load` for its kinds.

    Args:
        path: Folder, file, or `digits`. `:part` after `digits` or a manifest takes one part of it, `:all` after a
            folder of Parquet files all of them together, whatever parts they are.
        labels: True: labels are needed; False: none are taken; None: taken where they are evident.
        follow_links: Whether symbolic links out of the folder are followed.
        column: Which images, where each sample has several: "image", "image2"; of Parquet and manifests.
        text: Whether captions are read too: of Parquet, manifests and folders with a `.txt` for each image.
        label: Name of the column of labels, of Parquet and manifests.

    Raises:
        DataError: Nothing there, nothing readable, no labels or one class where labels are needed, no such column.
    """
    source = _read(os.fspath(path), labels, follow_links, column, text, label)
    check_label(source, label)
    if column != source.column:
        raise MissingColumn(
            f"no images {column!r}, one for each sample",
            where=source.path,
            mend=f"a folder {column}/ beside image/, a column {column} in Parquet or a manifest",
        )
    if text and not any(one is not None for one in source.texts or ()):
        raise MissingColumn(
            "no captions", where=source.path, mend="a column text in Parquet or a manifest, or a .txt beside each image"
        )
    return _labelled(source, labels)


def open_columns(
    path: str | Path, images: Sequence[str], *, labels: bool | None = None, text: bool = False, label: str = LABEL
) -> list[Source]:
    """A source for each of several images of a sample, row i of all of them the same sample.

    Args:
        path: As `open_source` has it, or a folder that holds one for each column, by name.
        images: Names of the columns.
        labels: As in `open_source`; the first column's.
        text: Whether captions are read too, beside the first column's images.
        label: As in `open_source`.

    Raises:
        DataError: As `open_source`, and columns of different lengths.
    """
    folders = column_folders(Path(path), images)
    if folders:
        first, *others = read_column_folders(folders, images, labels=labels, text=text)
        check_label(first, label)
        return [_labelled(first, labels), *others]
    sources = [
        open_source(path, labels=labels, column=name, text=text and not number, label=label)
        for number, name in enumerate(images)
    ]
    if any(len(one.names) != len(sources[0].names) for one in sources):
        what = f"images with several captions each, and {', '.join(images)} are asked for"
        raise DataError(what, where=sources[0].path, mend="text among the columns, or a list without captions")
    return sources


def _labelled(source: Source, labels: bool | None) -> Source:
    """The source with its labels, as they are asked for."""
    if labels is False:
        return replace(source, labels=None, classes=None, labelled_by="")
    if labels and source.classes is None:
        raise DataError(
            "; ".join(["no labels", *source.notes]),
            where=source.path,
            mend="one folder a class, or a manifest or Parquet with a column label (--label NAME: called otherwise)",
        )
    if labels and len(source.classes or ()) < 2:
        raise DataError(
            f"only one class, {source.classes}", where=source.path, mend="labels tell something from two classes on"
        )
    return source


def _read(name: str, labels: bool | None, follow_links: bool, column: str, text: bool, label: str) -> Source:
    path, part = Path(name), None
    if not os.path.exists(name) and ":" in name:
        head, _, part = name.rpartition(":")
        path = Path(head)
    if str(path) == "digits" and not os.path.exists(path):
        return read_digits(part)
    if not os.path.exists(path):
        raise DataError("nothing there", where=name, mend=f"data are {_KINDS}")
    if path.is_dir():
        return _read_directory(path, part, labels, follow_links, column, text, label)
    suffix = path.suffix.lower()
    if suffix in manifest.SUFFIXES:
        return read_manifest(path, part=part, column=column, text=text, label=label)
    if part is not None:
        raise _no_part(part, path)
    if suffix in (".parquet", ".pq"):
        return read_parquet(path, [path], column=column, text=text, label=label)
    if suffix in (".npy", ".npz"):
        return read_array(path)
    raise DataError(
        f"a file of a kind that is not read ({suffix or 'no suffix'})", where=path, mend=f"data are {_KINDS}"
    )


def _read_directory(
    path: Path, part: str | None, labels: bool | None, follow_links: bool, column: str, text: bool, label: str
) -> Source:
    source = read_folder(path, labels=labels, follow_links=follow_links, text=text)
    files = [file for pattern in ("*.parquet", "*.pq") for file in path.glob(pattern) if file.name[0] != "."]
    if part is not None and (source is not None or part != "all"):
        raise _no_part(part, path)
    if source is not None:
        return source
    if files:
        return read_parquet(path, files, all_parts=part is not None, column=column, text=text, label=label)
    raise nothing_found(path, list_folder(path, follow_links=follow_links))


def _no_part(part: str, path: Path) -> DataError:
    return DataError(
        f"no part ':{part}' here",
        where=path,
        mend="name it alone; digits and manifests have parts, a folder of Parquet files has ':all'",
    )
