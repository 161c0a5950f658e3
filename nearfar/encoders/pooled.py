"""From feature maps to the representation that is evaluated."""

from __future__ import annotations

from torch import Tensor


def pooled(maps: list[Tensor]) -> Tensor:
    """The last map as one vector a sample: `[B, C, h, w]` and `[B, T, C]` (tokens) averaged, `[B, C]` as it is."""
    last = maps[-1]
    if last.ndim == 2:
        return last
    return last.mean(1) if last.ndim == 3 else last.mean((2, 3))
