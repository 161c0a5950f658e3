"""One Parquet file with a row for every image: vector, place on a map, look-alikes, thumbnail, and what went wrong.

Any Parquet reader opens it, and `embedding-atlas embeddings.parquet --image image --x x --y y --neighbors neighbors`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from ..data.names import safe_name
from ..errors import UsageError
from ..runs.atomic import disk_errors, replace
from ..similarity import unit
from .knn import nearest

OK = "ok"
ROWS = 1024
"""Rows of a row group: what is in memory at once of thumbnails, and of vectors when they are written."""
BLOCK = 8192
"""Rows of vectors that are in memory at once where they are added up."""


def write_embeddings(
    path: Path | str,
    vectors: ArrayLike | Tensor,
    *,
    names: Sequence[str],
    ids: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    status: Sequence[str] | None = None,
    thumbnails: Callable[[int], bytes | None] | None = None,
    neighbours: int = 10,
) -> Path:
    """Writes the file whole or not at all, row i for image i, whatever became of it.

    Columns: `id` int64, `path` string (written by `safe_name`), `label` (string; int64 without `classes`; absent
    without `labels`), `image` {bytes, path} (absent without `thumbnails`), `x`, `y` float32, `neighbors` {ids,
    distances}, `vector` fixed-size list of float32, `status` string. In the row of an image that could not be embedded
    `x`, `y`, `neighbors` and `vector` are null.
    `x`, `y`: first two principal components of the unit vectors. `neighbors`: nearest others by cosine, exact,
    distance `1 - cosine`.

    Args:
        path: Where to.
        vectors: `[N, D]`, a row for every image; rows with a status other than "ok" are not read.
        names: Path of each image.
        ids: Number of each image, all different; None: 0 to N - 1.
        labels: Class of each image; below 0: none.
        classes: Names of the classes.
        status: "ok", or in words what is wrong with the image; None: all are ok.
        thumbnails: Row -> encoded image, or None for that row (see `thumbnail`).
        neighbours: Look-alikes of each image; 0: none, which spares the N x N search.

    Returns:
        The path.

    Raises:
        UsageError: Lengths differ, ids repeat, or an ok row holds NaN or infinity.
        DeviceError: The disk refuses.
    """
    path, rows = Path(path), _rows(vectors)
    n = len(names)
    numbers = np.arange(n, dtype=np.int64) if ids is None else np.asarray(ids, dtype=np.int64)
    states = [OK] * n if status is None else list(status)
    _check(rows, n, numbers, states, labels)
    good = np.array([state == OK for state in states], dtype=bool)
    x = _readable(rows, good)
    columns = {"id": pa.array(numbers), "path": pa.array([safe_name(name) for name in names], pa.string())}
    if labels is not None:
        columns["label"] = _labels(labels, classes)
    places = _spread_out(plane(x), good)
    columns |= {"x": pa.array(places[:, 0], mask=~good), "y": pa.array(places[:, 1], mask=~good)}
    columns["neighbors"] = _neighbours(x, numbers[good], good, neighbours)
    columns["status"] = pa.array(list(map(valid_text, states)), pa.string())
    with disk_errors(path):
        replace(path, lambda part: _write(part, pa.table(columns), rows, good, thumbnails))
    return path


def thumbnail(image: NDArray[np.uint8], size: Sequence[int] | None = None, *, side: int = 64) -> bytes:
    """A PNG of at most `side` pixels a side.

    Args:
        image: uint8 `[C, H, W]`; of two channels the first is shown, of four or more the first three.
        size: Height and width of the valid part in the top left corner; None: all.
        side: Pixels.
    """
    height, width = image.shape[1:] if size is None else (int(size[0]), int(size[1]))
    shown = np.asarray(image)[: 3 if len(image) >= 3 else 1, :height, :width].transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(shown.squeeze(2) if shown.shape[2] == 1 else shown))
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def valid_text(text: str) -> str:
    r"""The text as UTF-8 can hold it: a byte that is not UTF-8, to Python a lone surrogate, becomes `\udcNN`."""
    return text.encode("utf-8", "backslashreplace").decode()


def plane(x: Tensor) -> NDArray[np.float32]:
    """First two principal components of the unit vectors, `[N, 2]`; the largest loading of each axis is positive.

    Sums go over blocks of rows, so `x` may be mapped from the disk.
    """
    coordinates = np.zeros((len(x), 2), dtype=np.float32)
    if len(x) > 1:
        total, spread = x.new_zeros(x.shape[1], dtype=torch.float64), x.new_zeros(x.shape[1], x.shape[1]).double()
        for part in x.split(BLOCK):
            total += unit(part).sum(dim=0, dtype=torch.float64)
        mean = (total / len(x)).to(x)
        for part in x.split(BLOCK):
            centred = unit(part) - mean
            spread += (centred.T @ centred).double()
        axes = torch.linalg.eigh(spread).eigenvectors[:, -2:].flip(1)
        axes = (axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()).to(x)
        coordinates[:, : axes.shape[1]] = torch.cat([(unit(part) - mean) @ axes for part in x.split(BLOCK)]).cpu()
    return coordinates


def _check(
    rows: NDArray[np.generic], n: int, ids: NDArray[np.int64], states: list[str], labels: Sequence[int] | None
) -> None:
    lengths = {"vectors": len(rows), "names": n, "ids": len(ids), "status": len(states)}
    lengths |= {} if labels is None else {"labels": len(labels)}
    if len(set(lengths.values())) > 1:
        raise UsageError(
            f"lengths differ: {lengths}", where="write_embeddings", mend="give one of each for every image"
        )
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UsageError(f"vectors must be [N, D], not {list(rows.shape)}", where="vectors")
    if len(np.unique(ids)) != n:
        raise UsageError(f"{n - len(np.unique(ids))} ids are there more than once", where="ids")


def _readable(rows: NDArray[np.float32], good: NDArray[np.bool_]) -> Tensor:
    """The rows of good images; where these come first no copy, so that what is mapped from the disk stays there.

    Raises:
        UsageError: One of them holds NaN or infinity.
    """
    count = int(good.sum())
    x = torch.from_numpy(rows[:count] if good[:count].all() and rows.flags.writeable else rows[good])
    bad = sum(int((~torch.isfinite(part)).any(dim=1).sum()) for part in x.split(BLOCK))
    if bad:
        raise UsageError(f"{bad} of {count} rows hold NaN or infinity", where="vectors", mend="leave these rows out")
    return x


def _labels(labels: Sequence[int], classes: Sequence[str] | None) -> pa.Array:
    if classes is None:
        return pa.array([int(label) if label >= 0 else None for label in labels], pa.int64())
    return pa.array([valid_text(classes[label]) if label >= 0 else None for label in labels], pa.string())


def _rows(vectors: ArrayLike | Tensor) -> NDArray[np.float32]:
    values = vectors.detach().cpu() if isinstance(vectors, Tensor) else vectors
    return np.asarray(values).astype(np.float32, copy=False)


def _spread_out(values: NDArray[np.float32], good: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The rows of good images at their places among all images, zeros between."""
    out = np.zeros((len(good), values.shape[1]), dtype=np.float32)
    out[good] = values
    return out


def _neighbours(x: Tensor, ids: NDArray[np.int64], good: NDArray[np.bool_], count: int) -> pa.Array:
    """Column {ids, distances}: null for images that are not good, empty lists where there is no other image."""
    count = max(0, min(count, len(x) - 1))
    found = list(nearest(x, x, count, exclude_self=True)) if count else []
    scores = np.concatenate([s.cpu().numpy() for s, _ in found]) if found else np.zeros((len(x), 0), np.float32)
    at = np.concatenate([i.cpu().numpy() for _, i in found]) if found else np.zeros((len(x), 0), np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(good * count)]).astype(np.int32))
    lists = {
        "ids": pa.ListArray.from_arrays(offsets, pa.array(ids[at].ravel(), pa.int64())),
        "distances": pa.ListArray.from_arrays(offsets, pa.array((1 - scores).clip(0).astype(np.float32).ravel())),
    }
    return pa.StructArray.from_arrays(list(lists.values()), names=list(lists), mask=pa.array(~good))


def _write(
    path: Path,
    table: pa.Table,
    rows: NDArray[np.float32],
    good: NDArray[np.bool_],
    thumbnails: Callable[[int], bytes | None] | None,
) -> None:
    """Row group after row group; vectors and thumbnails are in memory for one group at a time."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = list(table.schema)
    fields.insert(-1, pa.field("vector", pa.list_(pa.float32(), rows.shape[1])))
    if thumbnails is not None:
        fields.insert(table.schema.get_field_index("x"), pa.field("image", image))
    with pq.ParquetWriter(path, pa.schema(fields), compression="zstd") as writer:
        for start in range(0, max(1, len(table)), ROWS):
            part, there = table.slice(start, ROWS), good[start : start + ROWS]
            columns = {name: part.column(name) for name in part.column_names}
            flat = pa.array(np.where(there[:, None], rows[start : start + ROWS], 0).astype(np.float32).ravel())
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1], mask=pa.array(~there))
            if thumbnails is not None:
                encoded = [thumbnails(row) for row in range(start, start + len(part))]
                paths = part.column("path").to_pylist()
                cells = [{"bytes": e, "path": p} if e else None for e, p in zip(encoded, paths, strict=True)]
                columns["image"] = pa.array(cells, image)
            writer.write_table(pa.table({field.name: columns[field.name] for field in fields}, pa.schema(fields)))
