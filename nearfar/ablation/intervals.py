"""Means over seeds, paired differences, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from ..evaluation.protocol import student_interval

LEVEL = 0.05
BETTER, WORSE, NO_EVIDENCE = "better", "worse", "no evidence"


@dataclass(frozen=True)
class Mean:
    """A mean over n seeds with its 95 % interval `mean ± t(0.975, n - 1) s / sqrt(n)`; of one seed there is none."""

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of at least one value.

        Example:
            >>> Mean.of([0.5])
            Mean(mean=0.5, low=None, high=None, seeds=1)
        """
        low, high = student_interval(values) if len(values) > 1 else (None, None)
        return cls(float(np.mean(values)), low, high, len(values))

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{100 * self.mean:.1f}"
        return f"{100 * self.mean:.1f} ± {50 * (self.high - self.low):.1f}"


@dataclass(frozen=True)
class Comparison:
    """A variant against the base, paired seed by seed.

    Args:
        difference: Mean of the differences, variant less base, with its interval.
        p: Of the paired t test; None: one seed.
        adjusted: The same after Holm, over all comparisons of the part.
        verdict: "better" or "worse" where `adjusted` is below 0.05, otherwise "no evidence".
    """

    difference: Mean
    p: float | None
    adjusted: float | None = None
    verdict: str = NO_EVIDENCE


def compare(variant: Sequence[float], base: Sequence[float]) -> Comparison:
    """Differences of the same seeds in the same order; the verdict waits for `judge`.

    Example:
        >>> compare([0.5, 0.6], [0.4, 0.5]).difference.mean
        0.1
    """
    differences = np.round(np.subtract(variant, base), 12)  # what is equal but for rounding has no spread
    return Comparison(Mean.of(differences.tolist()), p_value(differences))


def p_value(differences: np.ndarray) -> float | None:
    """Two-sided p of the t test of a mean of 0; None for one value. Without any spread: 1 at 0, else 0."""
    if len(differences) < 2:
        return None
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if deviation < 1e-12:
        return float(abs(mean) < 1e-12)
    return float(2 * student.sf(abs(mean) / deviation * math.sqrt(len(differences)), len(differences) - 1))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: the k-th smallest of m times `m - k + 1`, never below the one before, at most 1.

    Below 0.05 each, all of them together are wrong with a probability of 0.05 at most, however they depend on each
    other.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.

    Example:
        >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def judge(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with adjusted p values and verdicts: those of one part, of all measures, together."""
    tested = [place for place, one in enumerate(comparisons) if one.p is not None]
    adjusted = holm([comparisons[place].p or 0.0 for place in tested])
    judged = list(comparisons)
    for place, value in zip(tested, adjusted, strict=True):
        one = comparisons[place]
        found = BETTER if one.difference.mean > 0 else WORSE
        judged[place] = Comparison(one.difference, one.p, value, found if value < LEVEL else NO_EVIDENCE)
    return judged
