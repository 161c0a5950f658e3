"""The last pass of a tiled loss: from the slope at each score to the gradients of both sides.

The factor 1/temperature of a dot product in its score is left to the caller.
"""

from __future__ import annotations

from torch import Tensor

from .rows import Rule, slopes
from .tiles import Meeting, Score, Tile, own_tile


def add_gradients(
    met: Meeting,
    rule: Rule,
    *,
    numbers: Tensor,
    into_rows: Tensor | None = None,
    into_columns: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """Adds what the losses of the rows do to both sides.

    Args:
        met: Anchors and others.
        rule: Which loss.
        numbers: `Rows.numbers` of the rows.
        into_rows: Receives `slopes @ columns`.
        into_columns: Receives `slopes^T @ rows`.
        into_scores: 0-d, receives the sum of slope times score: the temperature's gradient, times -temperature.
    """
    for tile, _ in met:
        slope = slopes(tile, numbers[tile.rows], rule)
        if into_scores is not None:
            into_scores += (slope * tile.scores).sum()
        slope = _before_curve(slope, tile, met.score)
        if into_rows is not None:
            into_rows[tile.rows].baddbmm_(slope, met.columns.vectors[tile.columns])
        if into_columns is not None:
            into_columns[tile.columns].baddbmm_(slope.mT, met.rows.vectors[tile.rows])


def add_symmetric_gradients(
    met: Meeting,
    rule: Rule,
    *,
    numbers: Tensor,
    column_numbers: Tensor,
    into_rows: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """As `add_gradients`, where both sides are the same embeddings with symmetric scores: both roles at once.

    The columns are all embeddings, the rows those of this process.
    """
    for tile, mirrored in met:
        slope = slopes(tile, numbers[tile.rows], rule)
        slope = slope + slopes(tile.turned(), column_numbers[tile.columns], rule).mT
        if into_scores is not None:
            # A tile that is not mirrored meets each of its pairs again, from the other end.
            into_scores += (slope * tile.scores).sum() * (1.0 if mirrored else 0.5)
        slope = _before_curve(slope, tile, met.score)
        if into_rows is not None:
            into_rows[tile.rows].baddbmm_(slope, met.columns.vectors[tile.columns])
            if mirrored:
                into_rows[tile.columns].baddbmm_(slope.mT, met.rows.vectors[tile.rows])


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
