"""The last pass of a tiled loss: from the slope at each score to the gradients of both sides.

The factor 1/temperature of a dot product in its score is left to the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rows import Rule, mutual_slopes, one_exponential, slopes
from .tiles import Score, Side, Tile, own_tile, tiles


def add_gradients(
    rows: Side,
    columns: Side,
    score: Score,
    rule: Rule,
    *,
    numbers: Tensor,
    into_rows: Tensor | None = None,
    into_columns: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """Adds what the losses of `rows` do to both sides.

    Args:
        rows, columns: Anchors and others.
        score: From dot products to scores.
        rule: Which loss.
        numbers: `Rows.numbers` of the rows.
        into_rows: Receives `slopes @ columns`.
        into_columns: Receives `slopes^T @ rows`.
        into_scores: 0-d, receives the sum of slope times score: the temperature's gradient, times -temperature.
    """
    for tile in tiles(rows, columns, score):
        slope = slopes(tile, numbers[tile.rows], rule)
        if into_scores is not None:
            into_scores += (slope * tile.scores).sum()
        slope = _before_curve(slope, tile, score)
        if into_rows is not None:
            into_rows[tile.rows].baddbmm_(slope, columns.vectors[tile.columns])
        if into_columns is not None:
            into_columns[tile.columns].baddbmm_(slope.mT, rows.vectors[tile.rows])


def add_symmetric_gradients(
    rows: Side,
    columns: Side,
    score: Score,
    rule: Rule,
    *,
    numbers: Tensor,
    column_numbers: Tensor,
    bounded: bool,
    kept: list[Tile],
    into_rows: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """As `add_gradients`, where both sides are the same embeddings with symmetric scores: both roles at once.

    `columns` are all embeddings, `rows` those of this process; where they are the same object half the tiles do.
    `bounded`: as in `Statistics`; `kept`: the tiles, where they were kept: a single one, or none.
    """
    triangle, once = columns is rows, bounded and one_exponential(rule)
    for tile in kept or tiles(rows, columns, score, triangle=triangle):
        mirrored = triangle and tile.rows != tile.columns
        if once:
            slope = mutual_slopes(tile, numbers[tile.rows], column_numbers[tile.columns], rule)
        else:
            slope = slopes(tile, numbers[tile.rows], rule)
            slope = slope + slopes(tile.turned(), column_numbers[tile.columns], rule).mT
        if into_scores is not None:
            # A tile that is not mirrored meets each of its pairs again, from the other end.
            into_scores += (slope * tile.scores).sum() * (1.0 if mirrored else 0.5)
        slope = _before_curve(slope, tile, score)
        if into_rows is not None:
            into_rows[tile.rows].baddbmm_(slope, columns.vectors[tile.columns])
            if mirrored:
                into_rows[tile.columns].baddbmm_(slope.mT, rows.vectors[tile.rows])


class Pull:
    """Gradients of the rows alone, collected with the statistics, so that dot products are computed once:

        gradient_i = exp(-level_i) sum_j exp(s_ij) other_j - 1/|P_i| sum over P_i of other_j

    For bounded scores without a curve, and a rule with `one_exponential`.

    Args:
        rows: Anchors.
        columns: Others; nothing reaches them.
        rule: Which loss.
    """

    def __init__(self, rows: Side, columns: Side, rule: Rule) -> None:
        self.rows, self.columns, self.rule = rows, columns, rule
        self.pushed, self.pulled = torch.zeros_like(rows.vectors), torch.zeros_like(rows.vectors)

    def add(self, tile: Tile) -> None:
        """Adds a tile; its shares are not the same afterwards."""
        others, (share, positive) = self.columns.vectors[tile.columns], tile.shares
        if tile.positive is not None and positive is not None:
            self.pulled[tile.rows].baddbmm_(tile.positive, others)
            if self.rule.denominator == "all":
                share += positive
        self.pushed[tile.rows].baddbmm_(share, others)

    def gradients(self, numbers: Tensor) -> Tensor:
        """`[E, N, D]`; `numbers` are those of all rows."""
        return (-numbers[..., :1]).exp() * self.pushed - numbers[..., 3:] * self.pulled


def add_own_gradients(
    anchors: Tensor,
    positive: Tensor,
    score: Score,
    rule: Rule,
    *,
    numbers: Tensor,
    into_anchors: Tensor | None = None,
    into_positive: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """As `add_gradients`, for the positives that are given row by row."""
    tile = own_tile(anchors, positive, score)
    slope = slopes(tile, numbers, rule)
    if into_scores is not None:
        into_scores += (slope * tile.scores).sum()
    slope = _before_curve(slope, tile, score)
    if into_anchors is not None:
        into_anchors.addcmul_(slope, positive)
    if into_positive is not None:
        into_positive.addcmul_(slope, anchors)


def _before_curve(slope: Tensor, tile: Tile, score: Score) -> Tensor:
    return slope if score.curve is None else slope * score.curve.slope(tile.dots)
