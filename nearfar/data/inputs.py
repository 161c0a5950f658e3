"""What a data set holds: arrays of which any rows can be taken without a copy of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

VALUES = 2**21
"""Padded values of sound and sequences that are taken at once: 6 sounds of 20 s at 16 kHz. A first layer of 64 channels
and stride 5 makes 107 MB of them, one of 512 channels 859 MB."""


@dataclass(frozen=True)
class Rows:
    """Some rows of an array, in any order, without a copy of them: `[i]`, `len`, `shape`, `dtype`, `np.asarray`."""

    whole: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.whole[self.rows[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.whole[self.rows], dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array of these rows."""
        return (len(self.rows), *self.whole.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """As of the whole."""
        return self.whole.dtype


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, laid end to end; those that are asked for are padded with zeros to the longest.

    Args:
        flat: `[total, ...]`, all rows one after the other; may be mapped from the disk.
        starts: Where each row begins, int64 `[N]`.
        lengths: Length of each row, int64 `[N]`.
        channel: Whether rows have a channel axis of one in front, `[1, length, ...]`, as sound has.
    """

    flat: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    channel: bool = False

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Any) -> np.ndarray:
        starts, lengths = np.atleast_1d(self.starts[index]), np.atleast_1d(self.lengths[index])
        padded = np.zeros((len(starts), int(lengths.max(initial=0)), *self.flat.shape[1:]), self.flat.dtype)
        for row, start, length in zip(padded, starts, lengths, strict=True):
            row[:length] = self.flat[start : start + length]
        padded = padded[:, None] if self.channel else padded
        return padded if np.ndim(self.starts[index]) else padded[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[np.arange(len(self))], dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of all rows, padded."""
        longest = int(self.lengths.max(initial=0))
        return (len(self), *(1,) * self.channel, longest, *self.flat.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """As of the rows."""
        return self.flat.dtype


Inputs = np.ndarray | Rows | Ragged


@dataclass(frozen=True)
class Column:
    """What else belongs to each sample: a second picture, its name.

    Args:
        inputs: `[N, ...]`, as the inputs of a data set of this kind.
        sizes: How much of each is filled, int64 `[N, n]`.
        kind: As of a data set.
    """

    inputs: Inputs
    sizes: np.ndarray
    kind: str = "images"


def chosen(inputs: Inputs, places: np.ndarray) -> Inputs:
    """Some of the rows, in this order, without a copy of what they hold."""
    if isinstance(inputs, Ragged):
        return Ragged(inputs.flat, inputs.starts[places], inputs.lengths[places], inputs.channel)
    return Rows(inputs.whole, inputs.rows[places]) if isinstance(inputs, Rows) else Rows(inputs, places)


def blocks(dataset: Sized, most: int, *, values: int = VALUES) -> Iterator[np.ndarray]:
    """Places of a data set in order, int64, in parts of one or more: what is read at once then fits into memory.

    A part has at most `most` samples. Where they differ in length (`inputs` is `Ragged`) and are padded to the longest
    of the part, samples times longest is at most `values` too, but for a part of one sample.

    Args:
        dataset: Has `len()`; where it has no `inputs`, or they are an array, all parts but the last are of `most`.
        most: Samples, >= 1.
        values: Numbers, padding included.

    Example:
        >>> [part.tolist() for part in blocks(range(5), 2)]
        [[0, 1], [2, 3], [4]]
    """
    inputs = getattr(dataset, "inputs", None)
    widths = np.zeros(len(dataset), np.int64)
    if isinstance(inputs, Ragged):
        widths = inputs.lengths * math.prod(inputs.flat.shape[1:])
    start = longest = 0
    for place, width in enumerate(widths.tolist()):
        longest = max(longest, width)
        count = place - start + 1
        if count > 1 and (count > most or count * longest > values):
            yield np.arange(start, place)
            start, longest = place, width
    if len(dataset):
        yield np.arange(start, len(dataset))
