"""Keyed InfoNCE by row statistics: why tiles are enough for every variant.

With scores s_ij, positives P_i (equal keys) and negatives N_i (the rest, left out pairs in neither), the slope of row
i's loss at s_ij depends on s_ij and on a few numbers of row i:

    positives  denominator        loss_i                         slope on P_i                      slope on N_i
    mean_log   all                L - mean_P s                   exp(s - L) - 1/|P|                exp(s - L)
    log_sum    all                L - Lp                         exp(s - L) - exp(s - Lp)          exp(s - L)
    mean_log   own_and_negatives  mean_P( logadd(s, Ln) - s )    exp(s - logadd(s, Ln))/|P| - 1/|P|    exp(s) A
    mean_log   negatives          Ln - mean_P s                  -1/|P|                            exp(s - Ln)
    log_sum    negatives          Ln - Lp                        -exp(s - Lp)                      exp(s - Ln)

Lp and Ln are the log-sum-exp over P_i and N_i, L over both, logadd(x, y) = log(exp x + exp y) and
A = mean_P exp(-logadd(s, Ln)). So one pass over the tiles collects the numbers (two where A is asked for), another
applies the slopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .tiles import Index, Tile, Visit


@dataclass(frozen=True)
class Rule:
    """Line of the table above: how positives are reduced, and what the denominator holds."""

    positives: str
    denominator: str


@dataclass(frozen=True)
class Rows:
    """What is known of the anchors after the first passes."""

    total: Tensor  # [2]: sum of losses, and how many anchors have one
    numbers: Tensor  # [E, N, 4]: level (exp(s - level) is the slope on N_i), Lp, Ln, 1/|P|


class LogSum:
    """Log-sum-exp of each row, filled a tile at a time.

    Args:
        like: A tensor of the dtype and device wanted, `[E, N, ...]`.
        bounded: Whether scores are summed as they are; otherwise less the running maximum of the row.
    """

    def __init__(self, like: Tensor, *, bounded: bool) -> None:
        lowest = torch.finfo(like.dtype).min
        self.bounded = bounded
        self.peak = like.new_full(like.shape[:2], 0.0 if bounded else lowest)
        self.sum = like.new_zeros(like.shape[:2])

    def add(self, rows: Index, scores: Tensor, without: Tensor | None) -> None:
        """Adds scores `[e, r, c]` to the rows, except where `without` holds, and moves their maxima."""
        scores = scores if without is None else scores.masked_fill(without, -math.inf)
        if self.bounded:
            self.sum[rows] += scores.exp().sum(-1)
            return
        before, peak = self.peak[rows].clone(), self.peak[rows]
        torch.maximum(before, scores.amax(-1), out=peak)
        self.sum[rows] *= (before - peak).exp_()
        self.sum[rows] += (scores - peak.unsqueeze(-1)).exp_().sum(-1)

    def value(self) -> Tensor:
        """`[E, N]`; -inf where nothing was added."""
        return self.peak + self.sum.log()


class Statistics:
    """Number of positives, sum of their scores, and log-sum-exp over positives and over negatives, of each row.

    Args:
        like: Anchors `[E, N, D]`.
        bounded: Whether fp32 bears `exp(score)` of all scores as they are; otherwise maxima run along.
    """

    def __init__(self, like: Tensor, *, bounded: bool) -> None:
        self.bounded = bounded
        self.positives, self.negatives = LogSum(like, bounded=bounded), LogSum(like, bounded=bounded)
        self.count, self.score = like.new_zeros(like.shape[:2]), like.new_zeros(like.shape[:2])

    def add(self, tile: Tile, *, mirrored: bool = False) -> None:
        """Adds a tile to its rows; a mirrored one also to its columns."""
        for part in (tile, tile.turned()) if mirrored else (tile,):
            self._add_rows(part)

    def _add_rows(self, tile: Tile) -> None:
        """Positives and negatives apart, each with a maximum of its own: either may be far above the other."""
        without = tile.left_out
        if tile.positive is not None:
            self.count[tile.rows] += tile.positive.sum(-1)
            self.score[tile.rows] += (tile.scores * tile.positive).sum(-1)
            positive = tile.positive > 0
            self.positives.add(tile.rows, tile.scores, ~positive)
            without = positive if without is None else positive | without
        self.negatives.add(tile.rows, tile.scores, without)


def row_statistics(found: Statistics, rule: Rule, *, visit: Callable[[], Iterable[Visit]]) -> Rows:
    """The losses of all anchors and the numbers their gradients need.

    Args:
        found: Statistics of all pairs.
        rule: Line of the table.
        visit: Starts another pass over all tiles, for the rule that needs one.
    """
    inverse = 1 / found.count.clamp(min=1)
    mean, ln = found.score * inverse, found.negatives.value()
    # A single positive's own score, not log(exp(score)): lp - mean below is then exactly 0, a tiny loss stays exact.
    lp = torch.where(found.count == 1, mean, found.positives.value())
    takes_part = found.count > 0
    if rule.denominator == "own_and_negatives":
        loss, level = _own_and_negatives(visit(), ln, inverse)
    elif rule.denominator == "all":
        loss, level = torch.logaddexp(torch.zeros_like(ln), ln - lp), torch.logaddexp(lp, ln)
        loss = loss + (lp - mean) if rule.positives == "mean_log" else loss
    else:
        loss, level = ln - (mean if rule.positives == "mean_log" else lp), ln
        takes_part = takes_part & (ln > -math.inf)
    never = level.new_full((), math.inf)  # exp(s - inf) = 0: no slope
    numbers = [torch.where(takes_part, level, never), torch.where(takes_part, lp, never), ln, inverse * takes_part]
    sums = (loss.masked_fill(~takes_part, 0).sum(), takes_part.sum().to(loss))
    return Rows(torch.stack(sums), torch.stack(numbers, dim=-1))


def _own_and_negatives(visit: Iterable[Visit], ln: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and level (-log A) of each row; a pass of its own: each positive is weighed against all negatives."""
    loss, reciprocals = torch.zeros_like(ln), LogSum(ln, bounded=False)
    for whole, mirrored in visit:
        for tile in (whole, whole.turned()) if mirrored else (whole,):
            if tile.positive is not None:
                below = torch.logaddexp(tile.scores, ln[tile.rows].unsqueeze(-1))
                zero = tile.scores.new_zeros(())
                one = torch.logaddexp(zero, ln[tile.rows].unsqueeze(-1) - tile.scores)
                loss[tile.rows] += (one * tile.positive).sum(-1)
                reciprocals.add(tile.rows, -below, tile.positive == 0)
    return loss * inverse, -reciprocals.value() - inverse.log()


def slopes(tile: Tile, numbers: Tensor, rule: Rule) -> Tensor:
    """Slope of the rows' losses at each score of the tile, `[e, r, c]`.

    Args:
        tile: Scores and masks.
        numbers: `Rows.numbers` of the tile's rows, `[e, r, 4]`.
        rule: Line of the table.
    """
    level, lp, ln, inverse = numbers.unsqueeze(-2).unbind(-1)
    slope = (tile.scores - level).exp_()
    if tile.positive is not None:
        if rule.denominator != "all":
            slope.masked_fill_(tile.positive > 0, 0)
        if rule.positives == "log_sum":
            pull = (tile.scores - lp).clamp_(max=0).exp_()  # above 0 only where no positive is: there it may overflow
        elif rule.denominator == "own_and_negatives":
            pull = torch.sigmoid(ln - tile.scores) * inverse
        else:
            pull = inverse
        slope.addcmul_(tile.positive, pull, value=-1)
    return slope if tile.left_out is None else slope.masked_fill_(tile.left_out, 0)
