"""A number and everything one must know to believe it: interval, protocol, draws."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import t as student
from torch import Tensor

from ..errors import UsageError

Z95 = 1.959963984540054
"""Quantile 0.975 of the normal distribution."""


@dataclass(frozen=True)
class Score:
    """One result.

    Args:
        value: In [0, 1] (the adjusted Rand index may fall below 0).
        low: Lower end of the 95 % interval, or None where the protocol has none.
        high: Upper end, or None.
        protocol: How it was measured: split, classifier, settings, what the interval covers, how anything was chosen.
        draws: The single values behind a mean over random draws, in the order of the draws.
        chosen: What the protocol chose for these features (a penalty), where it chooses.
    """

    value: float
    low: float | None
    high: float | None
    protocol: str
    draws: tuple[float, ...] = ()
    chosen: str = ""

    def __str__(self) -> str:
        """Per cent, with the half width of the interval: `61.3 ± 1.0`."""
        if self.low is None or self.high is None:
            return f"{100 * self.value:.1f}"
        return f"{100 * self.value:.1f} ± {50 * (self.high - self.low):.1f}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self) | {"draws": list(self.draws)}


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences `a - b` with its 95 % interval; `draws` of them were paired."""

    mean: float
    low: float
    high: float
    draws: int

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of `right` out of `n` test images.

    `(p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`, `p = right / n`, z = 1.96.
    It covers the choice of test images, not the seed of training.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.

    Example:
        >>> [round(end, 3) for end in wilson(8, 10)]
        [0.49, 0.943]
    """
    p, z2 = right / n, Z95**2
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (p + z2 / (2 * n) - half) / (1 + z2 / n), (p + z2 / (2 * n) + half) / (1 + z2 / n)


def student_interval(values: ArrayLike) -> tuple[float, float]:
    """95 % interval of a mean over R draws: `mean ± t(0.975, R - 1) s / sqrt(R)`; R >= 2.

    It covers which labels were drawn, not the choice of test images and not the seed of training.
    """
    drawn = np.asarray(values, dtype=np.float64)
    half = float(student.ppf(0.975, len(drawn) - 1)) * float(drawn.std(ddof=1)) / math.sqrt(len(drawn))
    return float(drawn.mean()) - half, float(drawn.mean()) + half


def paired_difference(a: Score, b: Score) -> Difference:
    """Is `a` better than `b`? Mean and interval of the differences draw by draw.

    Both must come from the same draws (same labels, seed and number of repeats), as `few_labels` makes them: what is
    common to both, an easy or a hard draw, then cancels, and the interval is much narrower than that of either score.

    Raises:
        UsageError: The numbers of draws differ, or there are fewer than two.
    """
    if len(a.draws) != len(b.draws) or len(a.draws) < 2:
        raise UsageError(
            f"{len(a.draws)} draws against {len(b.draws)} can't be paired",
            where="paired_difference",
            mend="give two scores of few_labels with the same seed and repeats >= 2",
        )
    differences = np.subtract(a.draws, b.draws)
    low, high = student_interval(differences)
    return Difference(float(differences.mean()), low, high, len(differences))


def accuracy(predicted: Tensor, truth: Tensor, protocol: str, *, chosen: str = "") -> Score:
    """Share of right answers with Wilson's interval."""
    right = int((predicted.cpu() == truth.cpu()).sum())
    low, high = wilson(right, len(truth))
    protocol = f"{protocol}; {len(truth)} test images; 95 % Wilson interval over them"
    return Score(right / len(truth), low, high, protocol, chosen=chosen)


def matrix(x: ArrayLike | Tensor, name: str) -> Tensor:
    """Features as a float32 tensor `[N, D]`, on the device they are on.

    Raises:
        UsageError: Not a matrix, no rows, or values that are not finite.
    """
    x = torch.as_tensor(x).detach()
    x = x if x.dtype == torch.float32 else x.float()
    if x.ndim != 2 or 0 in x.shape:
        raise UsageError(f"features must be [N, D] with N, D >= 1, not {list(x.shape)}", where=name)
    # Any that is not finite spoils the sum, which takes a tenth of the time of a look at each. Large ones may, too.
    bad = 0 if bool(x.sum().isfinite()) else int((~torch.isfinite(x)).any(dim=1).sum())
    if bad:
        raise UsageError(f"{bad} of {len(x)} rows hold NaN or infinity", where=name, mend="leave these rows out")
    return x


def labelled(x: ArrayLike | Tensor, y: ArrayLike | Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Features `[N, D]` and labels int64 `[N]`, checked, on one device.

    Raises:
        UsageError: Lengths differ, or labels are not whole numbers >= 0.
    """
    x, y = matrix(x, f"{name}_x"), torch.as_tensor(y)
    if y.shape != (len(x),) or y.is_floating_point() or bool((y < 0).any()):
        raise UsageError(
            f"labels must be whole numbers >= 0, one a row: {list(y.shape)} {y.dtype} for {len(x)} rows",
            where=f"{name}_y",
            mend="leave out the rows without a label (-1)",
        )
    return x, y.to(x.device, torch.int64)


def same_width(train_x: Tensor, test_x: Tensor) -> None:
    """Raises UsageError where the two sets of features come from different encoders."""
    if train_x.shape[1] != test_x.shape[1]:
        raise UsageError(f"features of width {train_x.shape[1]} and {test_x.shape[1]}", where="train_x, test_x")
