"""Keyed InfoNCE on a CPU: what is done to a tile of scores, in one pass over it where torch takes ten.

In place of `rows.row_statistics` and of `gradients`, with the same results to rounding. A tile of 256 x 256 is some 40
operations in torch, whose start alone took as long as half a product of D = 128.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import cpu_kernels
from .rows import Rows, Rule
from .tiles import Meeting, Score, Tile


def fits(vectors: Tensor, score: Score, rule: Rule) -> bool:
    """Whether the kernels compute this: fp32 on a CPU, bounded scores without a curve, and slopes of one exponential.

    That is `exp(score)` times a number of the row, less another number of the row on its positives.
    """
    return (
        vectors.device.type == "cpu"
        and vectors.dtype == torch.float32
        and score.bounded
        and score.curve is None
        and rule.positives == "mean_log"
        and rule.denominator != "own_and_negatives"
    )


def row_statistics(own: Tile | None, met: Meeting, rule: Rule, pull: Pull | None = None) -> Rows:
    """As `rows.row_statistics`: the losses of all rows and what their gradients need.

    Args:
        own: The rows' own positives.
        met: Anchors and others.
        rule: Which loss.
        pull: Where gradients are to be collected in the same pass, which uses the tiles up.
    """
    sums = np.zeros((4, *met.rows.vectors.shape[:2]), np.float32)
    if own is not None:
        cpu_kernels.add_sums(*own.arrays, sums, None, 0, 0, 0, None)
    shares = None if pull is None else _apart(rule)
    for tile, mirrored in met:
        cpu_kernels.add_sums(*tile.arrays, sums, sums if mirrored else None, *tile.corner, shares)
        if pull is not None:
            pull.add(tile)
    numbers = met.rows.vectors.new_empty(*met.rows.vectors.shape[:2], 4)
    return Rows(numbers.new_tensor(cpu_kernels.to_numbers(sums, numbers.numpy(), _apart(rule))), numbers)


def add_gradients(
    met: Meeting,
    rule: Rule,
    *,
    numbers: Tensor,
    column_numbers: Tensor | None = None,
    into_rows: Tensor | None = None,
    into_columns: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """As `gradients.add_gradients` and, with the columns' numbers, `add_symmetric_gradients`; tiles are used up."""
    mine, theirs = numbers.numpy(), None if column_numbers is None else column_numbers.numpy()
    for tile, mirrored in met:
        total = cpu_kernels.to_slopes(*tile.arrays, mine, theirs, *tile.corner, _apart(rule))
        if into_scores is not None:
            # A tile that is not mirrored meets each of its pairs again, from the other end.
            into_scores.add_(float(total) * (1.0 if mirrored or column_numbers is None else 0.5))
        if into_rows is not None:
            into_rows[tile.rows].baddbmm_(tile.scores, met.columns.vectors[tile.columns])
        other = into_rows if mirrored else into_columns
        if other is not None:
            other[tile.columns].baddbmm_(tile.scores.mT, met.rows.vectors[tile.rows])


class Pull:
    """Gradients of the rows alone, collected with the statistics, so that dot products are computed once:

        gradient_i = exp(-level_i) sum_j exp(s_ij) other_j - 1/|P_i| sum over P_i of other_j

    Args:
        met: Anchors and others; nothing reaches the latter.
    """

    def __init__(self, met: Meeting) -> None:
        self.columns = met.columns.vectors
        self.pushed, self.pulled = torch.zeros_like(met.rows.vectors), torch.zeros_like(met.rows.vectors)

    def add(self, tile: Tile) -> None:
        """Adds a tile whose scores are `exp(score)` or 0 by now."""
        others = self.columns[tile.columns]
        if tile.positive is not None:
            self.pulled[tile.rows].baddbmm_(tile.positive, others)
        self.pushed[tile.rows].baddbmm_(tile.scores, others)

    def gradients(self, numbers: Tensor) -> Tensor:
        """`[E, N, D]`; `numbers` are those of all rows."""
        return (-numbers[..., :1]).exp() * self.pushed - numbers[..., 3:] * self.pulled


def _apart(rule: Rule) -> np.float32:
    """1 where positives are not in the denominator."""
    return np.float32(rule.denominator == "negatives")
