"""Linear classification of frozen features: multinomial logistic regression, solved to the optimum."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ..errors import UsageError
from ..randomness import permutation
from .protocol import Score, accuracy, labelled, same_width

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
ROWS = {"cpu": 512}
"""Rows that a pass looks at together: on a CPU as many as stay in its cache between the two products of a pass."""
MOST_ROWS = 65536
ROUNDS = 4
"""Most descents, each with the curvature at the end of the one before and a tenth of its tolerance."""
ITERATIONS = 2000
SWEEP = 1e-4
"""Tolerance while the penalty is chosen. At 1e-3 the weakest, stopped early, was chosen falsely on digits."""


@dataclass(frozen=True)
class Axes:
    """Principal axes of features.

    Args:
        mean: float64 `[D]`.
        basis: Orthonormal columns, float64 `[D, R]`, R = min(N, D). The optimal weights lie in their span.
        variance: Of the features along each, float64 `[R]`.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Linear:
    """A linear classifier: `argmax(x @ weight.T + bias)`.

    Args:
        weight: float64 `[K, D]`.
        bias: float64 `[K]`.
        loss: Value of the objective at the optimum.
        converged: False where the solver stopped at its limit of iterations.
    """

    weight: Tensor
    bias: Tensor
    loss: float
    converged: bool

    @classmethod
    def zero(cls, classes: int, axes: Axes) -> Linear:
        """The classifier that finds all classes alike."""
        return cls(axes.mean.new_zeros(classes, len(axes.mean)), axes.mean.new_zeros(classes), math.log(classes), False)

    def logits(self, x: Tensor) -> Tensor:
        """Scores of the classes `[N, K]`, in the precision of `x`."""
        return x @ self.weight.T.to(x) + self.bias.to(x)

    def predict(self, x: Tensor) -> Tensor:
        """Classes int64 `[N]`."""
        return self.logits(x).argmax(dim=1)


def fit_linear(
    x: Tensor,
    y: Tensor,
    *,
    penalty: float,
    classes: int,
    tolerance: float = 1e-5,
    axes: Axes | None = None,
    start: Linear | None = None,
) -> Linear:
    """The minimum of `mean over i of -log softmax(W x_i + b)[y_i] + penalty / 2 * |W|^2`; the bias is free.

    Scikit-learn's `LogisticRegression` with `C = 1 / (penalty * N)` for three classes or more. L-BFGS, so that the
    answer depends neither on a learning rate nor on an order. It works along the principal axes of the features, each
    scaled by the root of the curvature expected there, which leaves the optimum where it is and takes a third of the
    iterations (6,000 x 800 features, 10 classes, penalty 0.01: 70 against scikit-learn's 207). Where a weak penalty
    lets classes part, and the curvature falls below a quarter of what was expected, it goes on from there more exactly.

    Args:
        x: Features `[N, D]`, float64, so that the answer does not depend on the machine; or float32, in half the time,
            for a tolerance of 1e-4 and above. All that is not a product with x is float64 in any case.
        y: Labels int64 `[N]` in [0, classes).
        penalty: > 0.
        classes: K >= 2.
        tolerance: Largest slope along one scaled axis at the end; the loss is then about
            `tolerance^2 * K * D / 2` above the optimum, at most. Up to twice that was seen at the weakest penalty.
        axes: `principal_axes(x)`, where it is known already.
        start: Where to begin; None: at zero.
    """
    axes = axes or principal_axes(x)
    found = Linear.zero(classes, axes) if start is None else start
    expected = _curvature(found, x)
    least = min(tolerance, SWEEP) if x.dtype == torch.float32 else 0.0  # below it slopes are rounding
    for part in range(ROUNDS):
        bound = max(tolerance / 10**part, least)
        found = _descend(x, y, found, expected, penalty=penalty, tolerance=bound, axes=axes)
        expected, before = _curvature(found, x), expected
        if expected > before / 4:
            break
    return found


def _curvature(fit: Linear, x: Tensor) -> float:
    """Mean of `p (1 - p)` over samples and classes."""
    chances = torch.softmax(fit.logits(x).double(), dim=1)
    return float((chances * (1 - chances)).mean())


def _descend(
    x: Tensor, y: Tensor, begin: Linear, curvature: float, *, penalty: float, tolerance: float, axes: Axes
) -> Linear:
    """L-BFGS from a classifier, in units that a curvature gives."""
    classes, basis = len(begin.bias), axes.basis.to(x)
    scale = (curvature * axes.variance + penalty).rsqrt()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).to(x.device).view(classes, -1)
        inner, bias = both[:, :-1] * scale, both[:, -1]
        loss, slope, error_sum = _loss_and_slope(x, y, inner.to(x) @ basis.T, bias, axes.mean)
        slope = torch.cat([(slope.to(x) @ basis + penalty * inner) * scale, error_sum[:, None]], dim=1)
        return loss + penalty / 2 * float(inner.square().sum()), slope.flatten().cpu().numpy()

    shifted = begin.bias + begin.weight @ axes.mean
    both = torch.cat([begin.weight @ axes.basis / scale, shifted[:, None]], dim=1)
    options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
    with _scipy_libraries().limit(limits=1, user_api="blas"):
        found = minimize(objective, both.flatten().cpu().numpy(), jac=True, method="L-BFGS-B", options=options)
    both = torch.from_numpy(found.x).to(x.device).view(classes, -1)
    weight = (both[:, :-1] * scale) @ axes.basis.T
    return Linear(weight, both[:, -1] - weight @ axes.mean, float(found.fun), bool(found.nit < ITERATIONS))


@functools.cache
def _scipy_libraries() -> ThreadpoolController:
    """Where its BLAS is held to one thread: others wait for work on the cores that torch's threads need.

    With two threads that took a probe of 5,000 images from 0.4 to 1.2 s.
    """
    return ThreadpoolController()


def _loss_and_slope(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, mean: Tensor) -> tuple[float, Tensor, Tensor]:
    """Mean cross-entropy of `weight (x - mean) + bias`, its slopes along weight `[K, D]` and bias `[K]`, float64.

    Scores are `[K, rows]`: products and softmax of few classes take half the time that `[rows, K]` does.
    """
    loss, slope, errors = bias.new_zeros(()), torch.zeros_like(weight, dtype=bias.dtype), torch.zeros_like(bias)
    offset, rows = (bias - weight.to(bias) @ mean).to(x)[:, None], ROWS.get(x.device.type, MOST_ROWS)
    for part, truth in zip(x.split(rows), y.split(rows), strict=True):
        logs = torch.log_softmax(torch.addmm(offset, weight, part.T), dim=0)
        own = logs.gather(0, truth[None])
        error = logs.exp_().scatter_add_(0, truth[None], torch.full_like(own, -1.0))
        loss -= own.sum()
        slope += error @ part
        errors += error.sum(dim=1)
    slope -= torch.outer(errors, mean)
    return float(loss) / len(x), slope / len(x), errors / len(x)


def principal_axes(x: Tensor) -> Axes:
    """Mean, principal axes and variances of features `[N, D]`; of their span where images are fewer than D."""
    mean, (n, width) = x.mean(dim=0, dtype=torch.float64), x.shape
    inner = x - mean.to(x)
    span = torch.linalg.qr(inner.T.double()).Q if n < width else None
    inner = inner if span is None else inner @ span.to(x)
    variance, rotation = torch.linalg.eigh((inner.T @ inner).double() / n)
    return Axes(mean, rotation if span is None else span @ rotation, variance.clamp_min(0))


def standardise(train_x: Tensor, *others: Tensor) -> list[Tensor]:
    """`(x - mean) / deviation` with the statistics of the training features; a constant feature becomes 0."""
    mean, deviation = train_x.mean(dim=0), train_x.std(dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.inf)
    return [(x - mean) / deviation for x in (train_x, *others)]


def held_out(y: Tensor, share: float, seed: int) -> Tensor:
    """True for `round(share * count)` images of each class, at least one image of a class staying out; bool `[N]`."""
    order = torch.from_numpy(permutation(seed, 0, len(y))).to(y.device)
    chosen = torch.zeros_like(y, dtype=torch.bool)
    for label in y.unique():
        members = order[y[order] == label]
        chosen[members[: min(round(share * len(members)), len(members) - 1)]] = True
    return chosen


def linear(
    train_x: ArrayLike | Tensor,
    train_y: ArrayLike | Tensor,
    test_x: ArrayLike | Tensor,
    test_y: ArrayLike | Tensor,
    *,
    penalties: Sequence[float] = PENALTIES,
    validation: float = 0.1,
    seed: int = 0,
) -> Score:
    """Accuracy of multinomial logistic regression on frozen, standardised features.

    The penalty is the one with the best accuracy on a held-out part of the training images, the same part for every
    encoder; then the classifier is fitted to all training images. The test images decide nothing.
    Differs from the linear evaluation of most papers, stochastic gradient descent on augmented images for 90 to 100
    epochs: no augmentation, no learning rate to tune, and the optimum is reached.

    Args:
        train_x: Features `[N, D]`.
        train_y: Labels int `[N]`, >= 0.
        test_x: Features `[M, D]`.
        test_y: Labels int `[M]`.
        penalties: Factors of `|W|^2 / 2` beside the mean loss, all > 0. The first is taken where no class has an image
            to hold out.
        validation: Share of the images of each class that are held out to choose the penalty, in (0, 1).
        seed: Of the held-out part.

    Raises:
        UsageError: Fewer than two classes, or shapes and values that don't fit.
    """
    train_x, train_y = labelled(train_x, train_y, "train")
    test_x, test_y = labelled(test_x, test_y, "test")
    same_width(train_x, test_x)
    if not penalties or min(penalties) <= 0:
        raise UsageError(f"penalties {list(penalties)}", where="penalties", mend="numbers above 0, one or more")
    train_x, test_x = standardise(train_x.double(), test_x.to(train_x.device).double())
    classes = count_classes(train_y)
    out = held_out(train_y, validation, seed)
    fixed = len(penalties) == 1 or not bool(out.any())
    choice = _Choice(penalties[0]) if fixed else _choose(train_x, train_y, classes, penalties, out)
    penalty = choice.penalty
    final = fit_linear(train_x, train_y, penalty=penalty, classes=classes, axes=choice.axes, start=choice.fit)
    tried = ", ".join(f"{p:g}" for p in penalties)
    how = (
        "fixed"
        if fixed
        else f"of {tried} chosen on {int(out.sum())} of them held out (seed {seed}), then fitted to all"
    )
    protocol = (
        f"multinomial logistic regression (L-BFGS to the optimum) on {len(train_x)} training samples, frozen "
        f"standardised features, no augmentation; penalty {how}"
    )
    chosen = f"penalty {penalty:g}{choice.remark}{'' if final.converged else ', stopped before the optimum'}"
    return accuracy(final.predict(test_x), test_y, protocol, chosen=chosen)


def count_classes(y: Tensor) -> int:
    """Largest label + 1. Raises UsageError where only one class is there."""
    if len(y.unique()) < 2:
        raise UsageError("one class only: there is nothing to tell apart", where="train_y")
    return int(y.max()) + 1


@dataclass(frozen=True)
class _Choice:
    """A penalty, and where the fit to all images may begin."""

    penalty: float
    remark: str = ""
    fit: Linear | None = None
    axes: Axes | None = None


def _choose(x: Tensor, y: Tensor, classes: int, penalties: Sequence[float], out: Tensor) -> _Choice:
    """The penalty with the best held-out accuracy, the larger among equals, and a word where it is the last tried."""
    penalties = sorted(penalties, reverse=True)
    seen, truth, fits, results = x[~out].float(), y[~out], [], []  # held to scores of few digits: float32 will do
    axes = principal_axes(seen)
    for penalty in penalties:  # each starts from the one before: neighbours along the path lie close
        begin = fits[-1] if fits else Linear.zero(classes, axes)
        curvature = _curvature(begin, seen)
        fits.append(_descend(seen, truth, begin, curvature, penalty=penalty, tolerance=SWEEP, axes=axes))
        results.append(float((fits[-1].predict(x[out]) == y[out]).double().mean()))
    best = max(range(len(penalties)), key=lambda i: (results[i], -i))
    remark = ", at the edge of those tried" if best in (0, len(penalties) - 1) else ""
    # Axes only scale the search, but those of fewer images than dimensions don't span what the others add.
    return _Choice(penalties[best], remark, fits[best], axes if len(seen) >= x.shape[1] else None)
