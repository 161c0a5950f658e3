"""Linear classification of frozen features: multinomial logistic regression, solved to the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from torch import Tensor

from ..errors import UsageError
from ..randomness import permutation
from .protocol import Score, accuracy, labelled, same_width

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
ROWS = 8192
"""Rows that are in float64 at once."""


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
    start: Linear | None = None,
    tolerance: float = 1e-6,
    iterations: int = 2000,
) -> Linear:
    """The minimum of `mean over i of -log softmax(W x_i + b)[y_i] + penalty / 2 * |W|^2`; the bias is free.

    Scikit-learn's `LogisticRegression` with `C = 1 / (penalty * N)` for three classes or more. L-BFGS in float64, with
    the data where they are, so that the answer depends neither on the machine nor on a learning rate or an order.
    With fewer images than dimensions it is solved in their span, where the optimum lies, and is the same.

    Args:
        x: Features float32 `[N, D]`.
        y: Labels int64 `[N]` in [0, classes).
        penalty: > 0.
        classes: K >= 2.
        start: Where to begin; None: at zero.
        tolerance: Largest slope along one weight at the optimum.
        iterations: Limit.
    """
    n, width = x.shape
    if n < width:
        basis = torch.linalg.qr(x.T.double()).Q  # orthonormal, so |W| is the same in its coordinates
        start = start and Linear(start.weight @ basis, start.bias, start.loss, start.converged)
        settings = {"penalty": penalty, "classes": classes, "tolerance": tolerance, "iterations": iterations}
        inner = fit_linear(x.double() @ basis, y, start=start, **settings)
        return Linear(inner.weight @ basis.T, inner.bias, inner.loss, inner.converged)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).to(x.device).view(classes, width + 1)
        weight, bias = both[:, :-1], both[:, -1]
        loss, slope = x.new_zeros((), dtype=torch.float64), torch.zeros_like(both)
        for part, truth in zip(x.split(ROWS), y.split(ROWS), strict=True):
            part = part.double()
            logs = torch.log_softmax(part @ weight.T + bias, dim=1)
            own = logs.gather(1, truth[:, None])
            error = logs.exp().scatter_add_(1, truth[:, None], torch.full_like(own, -1.0))
            loss -= own.sum()
            slope[:, :-1] += error.T @ part
            slope[:, -1] += error.sum(dim=0)
        slope /= n
        slope[:, :-1] += penalty * weight
        value = float(loss) / n + penalty / 2 * float(weight.square().sum())
        return value, slope.flatten().cpu().numpy()

    begin = np.zeros(classes * (width + 1))
    if start is not None:
        begin = torch.cat([start.weight, start.bias[:, None]], dim=1).flatten().cpu().numpy()
    options = {"maxiter": iterations, "maxfun": 2 * iterations, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)
    both = torch.from_numpy(found.x).to(x.device).view(classes, width + 1)
    return Linear(both[:, :-1], both[:, -1], float(found.fun), bool(found.nit < iterations))


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
    train_x, test_x = standardise(train_x, test_x.to(train_x.device))
    classes = count_classes(train_y)
    out = held_out(train_y, validation, seed)
    fixed = len(penalties) == 1 or not bool(out.any())
    penalty, chosen = (penalties[0], "") if fixed else _choose(train_x, train_y, classes, penalties, out)
    final = fit_linear(train_x, train_y, penalty=penalty, classes=classes)
    tried = ", ".join(f"{p:g}" for p in penalties)
    how = (
        "fixed"
        if fixed
        else f"of {tried} chosen on {int(out.sum())} of them held out (seed {seed}), then fitted to all"
    )
    protocol = (
        f"multinomial logistic regression (L-BFGS to the optimum) on {len(train_x)} training images, frozen "
        f"standardised features, no augmentation; penalty {how}"
    )
    chosen = f"penalty {penalty:g}{chosen}{'' if final.converged else ', stopped before the optimum'}"
    return accuracy(final.predict(test_x), test_y, protocol, chosen=chosen)


def count_classes(y: Tensor) -> int:
    """Largest label + 1. Raises UsageError where only one class is there."""
    if len(y.unique()) < 2:
        raise UsageError("one class only: there is nothing to tell apart", where="train_y")
    return int(y.max()) + 1


def _choose(x: Tensor, y: Tensor, classes: int, penalties: Sequence[float], out: Tensor) -> tuple[float, str]:
    """The penalty with the best held-out accuracy, the larger among equals, and a word where it is the last tried."""
    penalties = sorted(penalties, reverse=True)
    fit, results = None, []
    for penalty in penalties:  # each starts from the one before: neighbours along the path lie close
        fit = fit_linear(x[~out], y[~out], penalty=penalty, classes=classes, start=fit, tolerance=1e-4)
        results.append(float((fit.predict(x[out]) == y[out]).double().mean()))
    best = max(range(len(penalties)), key=lambda i: (results[i], -i))
    return penalties[best], ", at the edge of those tried" if best in (0, len(penalties) - 1) else ""
