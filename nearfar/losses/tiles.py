"""Scores of all anchors with all others, one tile at a time, so that no N x M matrix is ever held.

Shapes: E independent comparisons (episodes), N anchors, M others, D width; a tile is `[e, r, c]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..similarity import Curve
from .cpu_kernels import fill_masks

TILE = 256
"""Side of a square tile on a CPU: its three arrays fit a cache of 2 MB. Of 256 to 768 it was the fastest at all N."""
TILE_BOUNDED = 512
"""The same for bounded scores, of which a pass over a tile reads and writes one array. Of 192 to 768 the fastest."""
TILE_ACCELERATOR = 4096
"""Side elsewhere: starting a kernel costs as much as some million scores."""

Index = tuple[slice, slice]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: mapped embeddings `[E, N, D]`, their keys and slots `[E, N]`."""

    vectors: Tensor
    key: Tensor | None
    slot: Tensor | None

    @cached_property
    def numbers(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Keys and slots as a kernel reads them."""
        return _array(self.key), _array(self.slot)


@dataclass(frozen=True)
class Score:
    """From dot products to scores: `curve(dot) / temperature`."""

    temperature: float
    curve: Curve | None
    bounded: bool = False  # whether fp32 bears exp(score) of all scores, and their sums, as they are

    def of(self, dots: Tensor) -> Tensor:
        """Scores of dot products: the curve, over the temperature."""
        return (dots if self.curve is None else self.curve.value(dots)) / self.temperature


@dataclass(frozen=True)
class Tile:
    """Scores of some rows with some columns; masks are None where they would be 0 everywhere."""

    rows: Index
    columns: Index
    scores: Tensor
    dots: Tensor  # before the curve; where there is none, the scores
    positive: Tensor | None  # 1 or 0, of the dtype of the scores: products with it cost less than masking
    kept: Tensor | None  # the same: 0 where equal slots leave a pair out

    @property
    def left_out(self) -> Tensor | None:
        """Pairs that are left out, bool; None where there are none."""
        return None if self.kept is None else self.kept == 0

    @cached_property
    def arrays(self) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Scores and masks as a kernel reads and writes them."""
        return _array(self.scores), _array(self.positive), _array(self.kept)

    @property
    def corner(self) -> tuple[int, int, int]:
        """Episode, row and column of the first score."""
        return self.rows[0].start, self.rows[1].start, self.columns[1].start

    def turned(self) -> Tile:
        """The same pairs seen from the other side, where the score is symmetric."""
        return Tile(
            self.columns,
            self.rows,
            self.scores.mT,
            self.dots.mT,
            _turned(self.positive),
            _turned(self.kept),
        )


Visit = tuple[Tile, bool]
"""A tile, and whether it also stands for its mirror image across the diagonal."""


def tiles(rows: Side, columns: Side, score: Score, *, triangle: bool = False) -> Iterator[Tile]:
    """All tiles of `rows` x `columns`. The memory of a tile is used again for the next.

    Args:
        triangle: `rows` and `columns` are the same, with symmetric scores: only tiles on and above the diagonal.
    """
    (episodes, n, _), m = rows.vectors.shape, columns.vectors.shape[1]
    if 0 in (episodes, n, m):
        return
    side = _side(rows, columns, score)
    r = min(n, side)
    c = min(m, max(side * side // r, 1))
    e = min(episodes, max(side * side // (r * c), 1))
    down, across = _slices(n, r), _slices(m, c)
    meet_key = _may_meet(rows.key, columns.key, down, across)
    meet_slot = _may_meet(rows.slot, columns.slot, down, across)
    memory = rows.vectors.new_empty(3, e * r * c)  # new memory for each tile took as long as its dot products
    for some in _slices(episodes, e):
        for a in range(len(down)):
            for b in range(a if triangle else 0, len(across)):
                i, j = (some, down[a]), (some, across[b])
                one, other = rows.vectors[i], columns.vectors[j]
                shape = (one.shape[0], one.shape[1], other.shape[1])
                scores, positive, kept = memory[:, : math.prod(shape)].view(3, *shape).unbind()
                dots = _multiply(one, other, score, scores)
                positive, kept = positive if meet_key(a, b) else None, kept if meet_slot(a, b) else None
                tile = Tile(i, j, dots if score.curve is None else score.of(dots), dots, positive, kept)
                _fill_masks(tile, rows, columns)
                yield tile


class Meeting:
    """All tiles of `rows` x `columns`, as often as they are asked for; a single one is kept from one pass to the next.

    Where both are the same object only tiles on and above the diagonal are visited.
    """

    def __init__(self, rows: Side, columns: Side, score: Score) -> None:
        self.rows, self.columns, self.score = rows, columns, score
        self.triangle = columns is rows
        (episodes, n, _), m, side = rows.vectors.shape, columns.vectors.shape[1], _side(rows, columns, score)
        self._single = n <= side and 0 < episodes * n * m <= side**2
        self._kept: list[Tile] = []

    def __iter__(self) -> Iterator[Visit]:
        if self._single and not self._kept:
            self._kept = list(tiles(self.rows, self.columns, self.score))
        for tile in self._kept or tiles(self.rows, self.columns, self.score, triangle=self.triangle):
            yield tile, self.triangle and tile.rows != tile.columns


def _side(rows: Side, columns: Side, score: Score) -> int:
    if rows.vectors.device.type != "cpu":
        return TILE_ACCELERATOR
    (episodes, n, _), m, side = rows.vectors.shape, columns.vectors.shape[1], TILE_BOUNDED if score.bounded else TILE
    # The products of a tile that is kept are computed once.
    return side if episodes * n * m > (2 * side) ** 2 else 2 * side


def own_tile(anchors: Tensor, positive: Tensor, score: Score) -> Tile:
    """The positives that are given row by row, as one tile of a single column `[E, N, 1]`."""
    dots = (anchors * positive).sum(-1, keepdim=True)
    everything = (slice(None), slice(None))
    return Tile(everything, everything, score.of(dots), dots, torch.ones_like(dots), None)


def _multiply(a: Tensor, b: Tensor, score: Score, memory: Tensor) -> Tensor:
    """Dot products `[e, r, c]` in the given memory; where there is no curve they are the scores."""
    scale = 1 / score.temperature if score.curve is None else 1.0
    return torch.baddbmm(memory, a, b.mT, beta=0, alpha=scale, out=memory)


def _may_meet(
    row: Tensor | None, column: Tensor | None, down: list[slice], across: list[slice]
) -> Callable[[int, int], bool]:
    """Whether tile (a, b) may hold equal numbers. Comparing all keys costs a third of all dot products (D 128).

    Numbers are replaced by the place of their first appearance among the columns. Batches list their views in one
    order, so neighbours then have neighbouring numbers, and the ranges of most blocks are apart.
    """
    if row is None or column is None:
        return lambda a, b: False
    if len(down) == len(across) == 1:
        return lambda a, b: True
    distinct, inverse = torch.cat([column, row], dim=1).unique(return_inverse=True)
    place = torch.arange(inverse.shape[1], device=inverse.device).expand_as(inverse)
    first = place.new_full(distinct.shape, inverse.shape[1])
    first = first.scatter_reduce(0, inverse.flatten(), place.flatten(), "amin")[inverse]
    columns, rows = first.split([column.shape[1], row.shape[1]], dim=1)
    ends = [torch.stack(x[:, s].aminmax()) for x, some in ((rows, down), (columns, across)) for s in some]
    ranges = torch.stack(ends).tolist()

    def meet(a: int, b: int) -> bool:
        (low, high), (lowest, highest) = ranges[a], ranges[len(down) + b]
        return low <= highest and lowest <= high

    return meet


def _fill_masks(tile: Tile, rows: Side, columns: Side) -> None:
    """On a CPU by a kernel: torch takes ten times as long to compare integers into a mask of floating point."""
    if tile.positive is None and tile.kept is None:
        return
    if rows.vectors.device.type == "cpu":
        fill_masks(*tile.arrays[1:], *rows.numbers, *columns.numbers, *tile.corner)
        return
    sides = ((torch.ne, tile.kept, rows.slot, columns.slot), (torch.eq, tile.positive, rows.key, columns.key))
    for how, mask, mine, theirs in sides:
        if mask is not None and mine is not None and theirs is not None:
            how(mine[tile.rows].unsqueeze(-1), theirs[tile.columns].unsqueeze(-2), out=mask)
    if tile.positive is not None and tile.kept is not None:
        tile.positive.mul_(tile.kept)


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.numpy()


def _turned(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.mT


def _slices(length: int, step: int) -> list[slice]:
    return [slice(k, min(k + step, length)) for k in range(0, length, step)]
