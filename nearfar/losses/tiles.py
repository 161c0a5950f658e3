"""Scores of all anchors with all others, one tile at a time, so that no N x M matrix is ever held.

Shapes: E independent comparisons (episodes), N anchors, M others, D width; a tile is `[e, r, c]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..similarity import Curve

TILE = 512
"""Side of a square tile on a CPU: 512 to 1024 measured alike, and a tile of 512 still fits a cache of 2 MB."""
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
    left_out: Tensor | None  # bool

    def turned(self) -> Tile:
        """The same pairs seen from the other side, where the score is symmetric."""
        return Tile(
            self.columns, self.rows, self.scores.mT, self.dots.mT, _turned(self.positive), _turned(self.left_out)
        )


def tiles(rows: Side, columns: Side, score: Score, *, triangle: bool = False) -> Iterator[Tile]:
    """All tiles of `rows` x `columns`. The memory of a tile is used again for the next.

    Args:
        triangle: `rows` and `columns` are the same, with symmetric scores: only tiles on and above the diagonal.
    """
    (episodes, n, _), m = rows.vectors.shape, columns.vectors.shape[1]
    if 0 in (episodes, n, m):
        return
    side = TILE if rows.vectors.device.type == "cpu" else TILE_ACCELERATOR
    r = min(n, side)
    c = min(m, max(side * side // r, 1))
    e = min(episodes, max(side * side // (r * c), 1))
    down, across = _slices(n, r), _slices(m, c)
    meet_key = _may_meet(rows.key, columns.key, down, across)
    meet_slot = _may_meet(rows.slot, columns.slot, down, across)
    memory = rows.vectors.new_empty(e * r * c)
    for some in _slices(episodes, e):
        for a in range(len(down)):
            for b in range(a if triangle else 0, len(across)):
                i, j = (some, down[a]), (some, across[b])
                dots, scores = _scores(rows.vectors[i], columns.vectors[j], score, memory)
                same_key = _equal(rows.key, columns.key, i, j) if meet_key(a, b) else None
                left_out = _equal(rows.slot, columns.slot, i, j) if meet_slot(a, b) else None
                positive = None if same_key is None else same_key.to(scores.dtype)
                if positive is not None and left_out is not None:
                    positive.masked_fill_(left_out, 0)
                yield Tile(i, j, scores, dots, positive, left_out)


def own_tile(anchors: Tensor, positive: Tensor, score: Score) -> Tile:
    """The positives that are given row by row, as one tile of a single column `[E, N, 1]`."""
    dots = (anchors * positive).sum(-1, keepdim=True)
    everything = (slice(None), slice(None))
    return Tile(everything, everything, score.of(dots), dots, torch.ones_like(dots), None)


def _scores(a: Tensor, b: Tensor, score: Score, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Dot products `[e, r, c]` in the given memory, and scores: the same tensor where there is no curve."""
    dots = memory[: a.shape[0] * a.shape[1] * b.shape[1]].view(a.shape[0], a.shape[1], b.shape[1])
    scale = 1 / score.temperature if score.curve is None else 1.0
    torch.baddbmm(dots, a, b.mT, beta=0, alpha=scale, out=dots)
    return dots, dots if score.curve is None else score.of(dots)


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


def _equal(row: Tensor | None, column: Tensor | None, i: Index, j: Index) -> Tensor:
    assert row is not None and column is not None
    return row[i].unsqueeze(-1) == column[j].unsqueeze(-2)


def _turned(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.mT


def _slices(length: int, step: int) -> list[slice]:
    return [slice(k, min(k + step, length)) for k in range(0, length, step)]
