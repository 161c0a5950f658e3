"""Images as a person has them in Python: paths, Pillow images, arrays. All become what an encoder reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..data import BadImage, Dataset, decode
from ..data.formats import SUFFIXES
from ..data.names import safe_name
from ..data.pixels import fit, pillow_to_uint8, with_channels
from ..errors import DataError, UsageError
from ..evaluation.features import features
from ..method import Batch
from .blocks import check_features

if TYPE_CHECKING:
    from ..tasks.encoder import Encoder

KINDS = "a folder, a list of paths or Pillow images, or uint8 arrays [N, h, w, C] or [N, C, h, w]"


def open_images(images: Any, encoder: Encoder, *, labels: bool | None = False) -> Dataset | Pictures:
    """Whatever stands for images, ready to be encoded.

    Args:
        images: A `Dataset`; a path or name that `nearfar.load` reads; one image, as a path or a Pillow image; or many,
            see `Pictures`.
        encoder: What will read them.
        labels: True where the source has to have labels, False where none are taken, None where they are if evident.

    Raises:
        UsageError: Nothing, or something else.
        DataError: No data, or none with labels.
    """
    from ..tasks.opening import store_size  # the tasks import this package

    if isinstance(images, Dataset):
        return images
    if isinstance(images, str | Path):
        if Path(images).suffix.lower() not in SUFFIXES:
            return encoder.load(images, labels=labels)
        images = [images]
    elif isinstance(images, Image.Image):
        images = [images]
    _check_stack(images)
    items = list(images) if isinstance(images, Iterable) else []
    if not items:
        raise UsageError(f"no images: {images!r}"[:200], where="images", mend=f"give {KINDS}")
    return Pictures(items, encoder.channels, store_size(encoder.crop.size))


def check_one_labelling(images: Any, shown: Dataset | Pictures, *, given: bool) -> None:
    """Raises UsageError where labels are given for a folder (or another source) that has its own."""
    if given and not isinstance(images, Dataset) and isinstance(shown, Dataset) and shown.classes is not None:
        raise UsageError(
            f"labels are given, and {images} has its own, {', '.join(map(safe_name, shown.classes[:3]))}, ...",
            where="labels",
            mend="leave out the labels, or give a list of paths",
        )


def own_labels(shown: Dataset | Pictures) -> np.ndarray:
    """The labels that came with the images, as text.

    Raises:
        UsageError: None did.
    """
    if isinstance(shown, Pictures) or shown.labels is None or shown.classes is None:
        raise UsageError("no labels", where="labels", mend="give one an image, or a folder with one folder a class")
    return np.array(shown.classes)[shown.labels]


def encoded(shown: Dataset | Pictures, encoder: Encoder) -> Tensor:
    """Features, float64 `[N, D]` on the CPU.

    Raises:
        DataError: The encoder gives NaN or infinity.
    """
    found = features(encoder.vectors, shown, encoder.transform, device=encoder.device.device).double()
    check_features(found)
    return found


@dataclass(frozen=True)
class Pictures:
    """A list of images, decoded when they are asked for; what `evaluation.features` reads.

    Args:
        items: Paths, Pillow images, or uint8 arrays `[h, w]`, `[h, w, C]` or `[C, h, w]`; mixed as you like.
        channels: 1 or 3.
        side: Larger images are shrunk to this longer side, pixels.
    """

    items: Sequence[Any]
    channels: int
    side: int

    def __len__(self) -> int:
        return len(self.items)

    @property
    def bad(self) -> list[tuple[str, str]]:
        """None: an image that can't be read raises when it is asked for."""
        return []

    @property
    def names(self) -> list[str]:
        """Paths where there are any, numbers elsewhere."""
        return [str(one) if isinstance(one, str | Path) else str(number) for number, one in enumerate(self.items)]

    def batch(self, indices: np.ndarray, /) -> Batch:
        """The images of these places, each in the top left corner of a common canvas."""
        arrays = [self._decoded(int(place)) for place in indices]
        sizes = np.array([array.shape[1:] for array in arrays], np.int64)
        canvas = np.zeros((len(arrays), self.channels, *sizes.max(axis=0)), np.uint8)
        for row, array in zip(canvas, arrays, strict=True):
            row[:, : array.shape[1], : array.shape[2]] = array
        return Batch(torch.from_numpy(canvas), torch.from_numpy(sizes), torch.from_numpy(np.asarray(indices)))

    def _decoded(self, place: int) -> np.ndarray:
        """uint8 `[channels, h, w]`."""
        item = self.items[place]
        if isinstance(item, str | Path):
            try:
                return decode(Path(item), channels=self.channels, long_side=self.side)
            except BadImage as problem:
                raise DataError(problem.what, where=safe_name(str(item)), mend="leave this image out") from problem
        if isinstance(item, Image.Image):
            upright = ImageOps.exif_transpose(item)
            array = pillow_to_uint8(upright, bits=16, channels=self.channels, background=255)
        else:
            array = with_channels(_pixels(np.asarray(item), place), self.channels)
        return np.ascontiguousarray(fit(array, self.side).transpose(2, 0, 1))


def _check_stack(images: Any) -> None:
    """Raises UsageError for an array that is no batch of images, or may be one image as well as many."""
    if not isinstance(images, np.ndarray | Tensor) or images.ndim == 4:
        return
    shape = list(images.shape)
    what = f"an array {str(images.dtype).removeprefix('torch.')} {shape}"
    if len(shape) == 3 and 0 not in shape:
        if shape[0] != 3 and shape[2] not in (1, 3, 4):
            return  # grey images [N, h, w], or one [1, h, w]
        mend = "for one image give x[None], for many grey ones x[..., None], which is [N, h, w, 1]"
        raise UsageError(f"{what} may be one image or many grey ones", where="images", mend=mend)
    mend = "for one grey image give x[None, ..., None]" if len(shape) == 2 else f"give {KINDS}"
    raise UsageError(f"{what} is no batch of images", where="images", mend=mend)


def _pixels(array: np.ndarray, place: int) -> np.ndarray:
    """uint8 `[h, w, 1 or 3]`."""
    if array.dtype == np.uint8 and array.ndim == 2 and array.size:
        return array[..., None]
    if array.dtype == np.uint8 and array.ndim == 3 and array.size:
        first, last = array.shape[0] in (1, 3), array.shape[2] in (1, 3)
        if first != last:
            return array if last else array.transpose(1, 2, 0)
    raise UsageError(
        f"image {place} is {array.dtype} {list(array.shape)}",
        where="images",
        mend=f"give {KINDS}, with 1 or 3 channels C",
    )
