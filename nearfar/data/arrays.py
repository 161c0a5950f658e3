"""Images in NumPy files: `.npy`, and `.npz` with its labels. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError, IntegrityError
from .pixels import BadImage, over, real_to_uint8, whole_to_uint8
from .source import BLOCK, Item, Source, numbered, quick_key

IMAGE_KEYS, LABEL_KEYS = ("images", "x", "data"), ("labels", "y")
_SHAPES = "[N, H, W], [N, H, W, C] or [N, C, H, W] with C of 1, 3 or 4"


def read_array(path: Path) -> Source:
    """Images `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` of a `.npy` or `.npz` file.

    uint8 is taken as it is, bool and deeper whole numbers are scaled by their bit depth, floating point by 255 where
    all values are in [0, 1] and from the smallest to the largest otherwise. Images with NaN are listed as bad.

    Raises:
        IntegrityError: An array of Python objects, or a pickle.
        DataError: Another shape, type or missing key.
    """
    images, values = _load(path)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(f"an array of shape {list(images.shape)}", where=path, mend=f"images are {_SHAPES}")
    order = _order(images, path)
    labels, classes = _labels(values, len(images), path)
    convert = _conversion(images, path)
    facts = path.stat()
    return Source(
        path=str(path),
        names=[f"{number:0{len(str(len(images) - 1))}d}" for number in range(len(images))],
        key=quick_key(path, [(path.name, facts.st_size, facts.st_mtime_ns)]),
        blocks=array_blocks(images, order, convert),
        labels=labels,
        classes=classes,
        labelled_by="the array of labels" if labels is not None else "",
        array=_as_it_is(images, order),
    )


def array_blocks(
    images: np.ndarray, order: tuple[int, ...], convert: Callable[[np.ndarray], np.ndarray]
) -> Callable[[int], Iterator[list[Item]]]:
    """The `blocks` of an array.

    Args:
        images: `[N, ...]`.
        order: Axes of one image that make it `[h, w, C]`; two: `[h, w]`.
        convert: One image, any type -> the same in uint8.
    """

    def one(image: np.ndarray) -> Item:
        try:
            pixels = convert(np.asarray(image)).transpose(order)
        except BadImage as bad:
            return bad
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return over(pixels, 255) if pixels.shape[2] == 4 else pixels

    def blocks(start: int) -> Iterator[list[Item]]:
        for first in range(start, len(images), BLOCK):
            yield [one(image) for image in images[first : first + BLOCK]]

    return blocks


def _load(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        if path.suffix == ".npy":
            images, labels = np.load(path, mmap_mode="r", allow_pickle=False), None
        else:
            images, labels = _unzip(path)
    except ValueError as problem:
        if "pickle" in str(problem) or "Python objects" in str(problem):
            raise IntegrityError(
                "the file holds Python objects, and reading those can run code",
                where=path,
                mend="save plain numbers: np.save(path, array.astype(np.uint8))",
            ) from None
        raise DataError(f"not a whole array: {problem}", where=path, mend="write it again with np.save") from None
    except (OSError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"not a whole array: {problem}", where=path, mend="write it again with np.save") from None
    return images, labels


def _unzip(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        name = next((key for key in IMAGE_KEYS if key in archive), None)
        if name is None:
            raise DataError(
                f"no key {', '.join(IMAGE_KEYS)} among {archive.files}", where=path, mend="np.savez(images=)"
            )
        label = next((key for key in LABEL_KEYS if key in archive), None)
        return archive[name], archive[label] if label else None


def _order(images: np.ndarray, path: Path) -> tuple[int, ...]:
    if images.ndim == 3:
        return (0, 1)
    first, last = images.shape[1] in (1, 3, 4), images.shape[3] in (1, 3, 4)
    if first == last:
        raise DataError(
            f"which axis holds the colours of {list(images.shape)}?", where=path, mend=f"images are {_SHAPES}"
        )
    return (1, 2, 0) if first else (0, 1, 2)


def _labels(values: np.ndarray | None, count: int, path: Path) -> tuple[np.ndarray | None, list[str] | None]:
    if values is None:
        return None, None
    if values.shape != (count,):
        raise DataError(f"{count} images, labels of shape {list(values.shape)}", where=path, mend="one label an image")
    if values.dtype.kind not in "biuUS":
        raise DataError(f"labels of type {values.dtype}", where=path, mend="labels are whole numbers or text")
    text = values.astype(np.str_) if values.dtype.kind != "b" else values.astype(np.int64).astype(np.str_)
    return numbered(text.tolist())


def _conversion(images: np.ndarray, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """One rule for the whole array, so that brightness stays comparable between its images."""
    kind = images.dtype
    if kind == np.uint8:
        return np.asarray
    if kind == np.bool_:
        return lambda image: image.astype(np.uint8) * np.uint8(255)
    if kind.kind not in "iuf":
        raise DataError(f"an array of type {kind}", where=path, mend="images are uint8, uint16 or floating point")
    low, high = _range(images)
    if kind.kind in "iu":
        bits = 16 if kind == np.uint16 or high > 255 else 8
        if low < 0 or high > 65535:
            raise DataError(
                f"values from {low:g} to {high:g}", where=path, mend="scale them to uint8, uint16 or [0, 1]"
            )
        return lambda image: whole_to_uint8(image, bits)
    shift, scale = (0.0, 1.0) if low >= 0 and high <= 1 else (low, 1 / (high - low or 1.0))
    return lambda image: real_to_uint8(np.clip((image.astype(np.float64) - shift) * scale, 0, 1))


def _range(images: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value."""
    low, high = np.inf, -np.inf
    for first in range(0, len(images), BLOCK):
        part = np.asarray(images[first : first + BLOCK])
        part = part[np.isfinite(part)]
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high


def _as_it_is(images: np.ndarray, order: tuple[int, ...]) -> np.ndarray | None:
    """uint8 `[N, C, S, S]` over the same memory as a mapped file, or None where a store has to be made."""
    if not isinstance(images, np.memmap) or images.dtype != np.uint8 or not images.flags["C_CONTIGUOUS"]:
        return None
    planes = images[:, None] if order == (0, 1) else images
    if order == (0, 1, 2) or planes.shape[2] != planes.shape[3] or planes.shape[1] not in (1, 3):
        return None
    return planes
