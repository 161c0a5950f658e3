"""Scores of all anchors with all others, one tile at a time, so that no N x M matrix is ever held.

Shapes: E independent comparisons (episodes), N anchors, M others, D width; a tile is `[e, r, c]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..similarity import Curve

TILE = 256
"""Side of a square tile on a CPU: its three arrays fit a cache of 2 MB. Of 256 to 768 it was the fastest at all N."""
TILE_ACCELERATOR = 4096
"""Side elsewhere: starting a kernel costs as much as some million scores."""

Index = tuple[slice, slice]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: mapped embeddings `[E, N, D]`, their keys and slots `[E, N]`."""

    vectors: Tensor
    key: Tensor | None
    slot: Tensor | None


@dataclass(frozen=True)
class Score:
    """From dot products to scores: `curve(dot) / temperature`."""

    temperature: float
    curve: Curve | None

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
    spare: tuple[Tensor, ...]  # three more: new memory for each tile took as long as its dot products

    @property
    def left_out(self) -> Tensor | None:
        """Pairs that are left out, bool; None where there are none."""
        return None if self.kept is None else self.kept == 0

    @cached_property
    def shares(self) -> tuple[Tensor, Tensor | None]:
        """`exp(score)` of the negatives, 0 elsewhere, and of the positives where there may be some. For bounded scores.

        Both are in the memory of the tile.
        """
        share = torch.exp(self.scores, out=self.spare[0])
        if self.kept is not None:
            share *= self.kept
        if self.positive is None:
            return share, None
        positive = torch.mul(share, self.positive, out=self.spare[1])
        return share.sub_(positive), positive

    def turned(self) -> Tile:
        """The same pairs seen from the other side, where the score is symmetric."""
        return Tile(
            self.columns,
            self.rows,
            self.scores.mT,
            self.dots.mT,
            _turned(self.positive),
            _turned(self.kept),
            tuple(memory.mT for memory in self.spare),
        )


def tiles(rows: Side, columns: Side, score: Score, *, triangle: bool = False) -> Iterator[Tile]:
    """All tiles of `rows` x `columns`. The memory of a tile is used again for the next.

    Args:
        triangle: `rows` and `columns` are the same, with symmetric scores: only tiles on and above the diagonal.
    """
    (episodes, n, _), m = rows.vectors.shape, columns.vectors.shape[1]
    if 0 in (episodes, n, m):
        return
    side = _side(rows, columns)
    r = min(n, side)
    c = min(m, max(side * side // r, 1))
    e = min(episodes, max(side * side // (r * c), 1))
    down, across = _slices(n, r), _slices(m, c)
    meet_key = _may_meet(rows.key, columns.key, down, across)
    meet_slot = _may_meet(rows.slot, columns.slot, down, across)
    keys, slots = _numbers(rows.key, columns.key, rows.vectors), _numbers(rows.slot, columns.slot, rows.vectors)
    memory = rows.vectors.new_empty(6, e * r * c)
    for some in _slices(episodes, e):
        for a in range(len(down)):
            for b in range(a if triangle else 0, len(across)):
                i, j = (some, down[a]), (some, across[b])
                one, other = rows.vectors[i], columns.vectors[j]
                shape = (one.shape[0], one.shape[1], other.shape[1])
                scores, positive, kept, *spare = memory[:, : math.prod(shape)].view(6, *shape).unbind()
                dots = _multiply(one, other, score, scores)
                positive = _compare(torch.eq, keys, i, j, positive) if meet_key(a, b) else None
                kept = _compare(torch.ne, slots, i, j, kept) if meet_slot(a, b) else None
                if positive is not None and kept is not None:
                    positive *= kept
                yield Tile(i, j, dots if score.curve is None else score.of(dots), dots, positive, kept, tuple(spare))


def fits_a_tile(rows: Side, columns: Side) -> bool:
    """Whether there is a single tile, which may be kept from one pass to the next."""
    (episodes, n, _), m, side = rows.vectors.shape, columns.vectors.shape[1], _side(rows, columns)
    return n <= side and 0 < episodes * n * m <= side**2


def _side(rows: Side, columns: Side) -> int:
    if rows.vectors.device.type != "cpu":
        return TILE_ACCELERATOR
    (episodes, n, _), m, alone = rows.vectors.shape, columns.vectors.shape[1], 2 * TILE
    return TILE if episodes * n * m > alone**2 else alone  # the products of a tile that is kept are computed once


def own_tile(anchors: Tensor, positive: Tensor, score: Score) -> Tile:
    """The positives that are given row by row, as one tile of a single column `[E, N, 1]`."""
    dots = (anchors * positive).sum(-1, keepdim=True)
    everything = (slice(None), slice(None))
    return Tile(
        everything,
        everything,
        score.of(dots),
        dots,
        torch.ones_like(dots),
        None,
        dots.new_empty(3, *dots.shape).unbind(),
    )


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


def _numbers(row: Tensor | None, column: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Keys or slots as floating point on a CPU: comparing integers into a mask takes ten times as long.

    Those that floating point does not hold exactly are counted through.
    """
    if row is None or column is None or like.device.type != "cpu":
        return None if row is None or column is None else (row, column)
    both = torch.cat([column, row], dim=1)
    least, most = both.aminmax()
    if max(-int(least), int(most)) >= 1 / torch.finfo(like.dtype).eps:
        both = both.unique(return_inverse=True)[1]
    columns, rows = both.to(like.dtype).split([column.shape[1], row.shape[1]], dim=1)
    return rows, columns


def _compare(
    how: Callable[..., Tensor], numbers: tuple[Tensor, Tensor] | None, i: Index, j: Index, memory: Tensor
) -> Tensor:
    assert numbers is not None
    return how(numbers[0][i].unsqueeze(-1), numbers[1][j].unsqueeze(-2), out=memory)


def _turned(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.mT


def _slices(length: int, step: int) -> list[slice]:
    return [slice(k, min(k + step, length)) for k in range(0, length, step)]
