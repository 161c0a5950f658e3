"""Memory for views, used again as soon as nobody holds them: new pages cost a third of the time of a view."""

from __future__ import annotations

import sys
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT = 16
"""Requests after which memory that nobody asked for again is given up: two batches of eight views."""


class _Buffer:
    def __init__(self, count: int) -> None:
        self.array: NDArray[np.float32] = torch.empty(count).numpy()  # by torch: aligned for the widest registers
        self.alone = self._references()
        self.asked = 0

    @property
    def free(self) -> bool:
        """Whether no tensor is left. `torch.from_numpy` holds the array for as long as a view of its memory lives."""
        return self._references() == self.alone

    def _references(self) -> int:
        return sys.getrefcount(self.array)


class Buffers:
    """Float32 memory that comes back by itself.

    Example:
        >>> buffers = Buffers()
        >>> first = buffers.empty(6).view(2, 3)
        >>> second = buffers.empty(6)
        >>> place = first.data_ptr()
        >>> del first
        >>> buffers.empty(6).data_ptr() == place, second.data_ptr() == place
        (True, False)
    """

    def __init__(self) -> None:
        self._buffers: list[_Buffer] = []
        self._asked = 0
        self._lock = threading.Lock()

    def empty(self, count: int) -> Tensor:
        """A tensor of `count` numbers, uninitialised, whose memory no other tensor has."""
        with self._lock:
            self._asked += 1
            self._buffers = [b for b in self._buffers if self._asked - b.asked <= KEPT or not b.free]
            buffer = next((b for b in self._buffers if b.array.size == count and b.free), None)
            if buffer is None:
                buffer = _Buffer(count)
                self._buffers.append(buffer)
            buffer.asked = self._asked
            return torch.from_numpy(buffer.array)
