"""Every class four times, once for each quarter turn: how Omniglot is used since Santoro et al. 2016."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from ..data import Dataset

SUFFIXES = ("", "/rot90", "/rot180", "/rot270")


def with_rotations(dataset: Dataset) -> Dataset:
    """Four times the classes: each image as it is, and turned counter-clockwise by 90, 180 and 270 degrees.

    Image i turned by q quarters has place `i + q N`, class `c + q C` called `NAME/rot90` and so on, and id `4 id + q`:
    no two are alike, also between parts of one data set that are turned one by one.

    Args:
        dataset: N images with labels of C classes, all square and of one size. The result is held in memory.

    Raises:
        DataError: No labels, or images that are not square or not of one size.

    Example:
        >>> from nearfar.data import load
        >>> turned = with_rotations(load("digits:test", size=28))
        >>> len(turned), turned.classes[9:12]
        (4000, ['9', '0/rot90', '1/rot90'])
    """
    if dataset.labels is None or dataset.classes is None:
        raise DataError("no labels", where="with_rotations", mend="classes are what is multiplied: load labelled data")
    side = dataset.inputs.shape[-1]
    other = np.flatnonzero((dataset.sizes != side).any(axis=1))
    if len(other):
        first = "{} x {}".format(*dataset.sizes[other[0]])
        what = f"{len(other)} of {len(dataset)} images are not {side} x {side}, such as {first}"
        raise DataError(what, where="with_rotations", mend="square images, and load(size=) no larger than the smallest")
    images, quarters = np.asarray(dataset.inputs), range(4)
    return replace(
        dataset,
        inputs=np.concatenate([np.rot90(images, quarter, axes=(2, 3)) for quarter in quarters]),
        sizes=np.tile(dataset.sizes, (4, 1)),
        ids=np.concatenate([4 * dataset.ids + quarter for quarter in quarters]),
        names=[name + suffix for suffix in SUFFIXES for name in dataset.names],
        groups=None,
        hashes=np.concatenate([dataset.hashes, *(_turned(dataset.hashes, suffix) for suffix in SUFFIXES[1:])]),
        labels=np.concatenate([dataset.labels + quarter * len(dataset.classes) for quarter in quarters]),
        classes=[name + suffix for suffix in SUFFIXES for name in dataset.classes],
    )


def _turned(hashes: np.ndarray, suffix: str) -> np.ndarray:
    """Hashes of turned images, of those of the images and the turn."""
    turned = [hashlib.blake2b(value.tobytes() + suffix.encode(), digest_size=16).digest() for value in hashes]
    return np.frombuffer(b"".join(turned), np.uint8).reshape(-1, 16)
