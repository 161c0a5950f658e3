"""Probabilities and the word "unknown" from a handful of examples: both are learned from examples held out in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..similarity import unit

FOLDS = 5
"""Parts that the examples are held out in; a class with fewer examples has fewer."""
STEPS = 100
"""Halvings of the interval in which the temperature lies: far below the rounding of float64."""
SAME = 1e-10
"""Squared distance, in parts of the squared length, up to which two features are those of one image. An encoder gives a
copy of an image other last digits in a batch of another size: 1e-14 was measured in float32."""


@dataclass(frozen=True)
class HeldOut:
    """Examples answered by a classifier that has not seen them.

    Args:
        places: Which examples, int64 `[M]`; none of a class with one example, and of copies the first alone.
        scores: Scores of the classes, `[M, ways]`.
    """

    places: Tensor
    scores: Tensor


def hold_out(fit: Callable[[Tensor, Tensor, Tensor], Tensor], features: Tensor, labels: Tensor) -> HeldOut:
    """Answers for the examples, a fold at a time: different example r of its class is in fold `r mod FOLDS`.

    Copies leave with their example, so that none answers for itself. No class ever loses all its examples, and none
    with two different ones is left out. The classifiers that answer have seen up to a fifth of the examples less (half
    of two), so what is learned from them errs to the cautious side.

    Args:
        fit: `(support [S, D], labels [S], query [Q, D]) -> scores [Q, ways]`.
        features: `[N, D]`.
        labels: int64 `[N]`, every class of 0 to ways - 1 among them.
    """
    same = labels[:, None] == labels
    first = first_of(alike(features) & same)
    own = first == torch.arange(len(first))
    rank = torch.tril(same & own, diagonal=-1).sum(dim=1)[first]
    several = (same & own).sum(dim=1) > 1
    places, scores = [], []
    for fold in range(FOLDS):
        out = several & (rank % FOLDS == fold)
        if bool(out.any()):
            places.append((out & own).nonzero()[:, 0])
            scores.append(fit(features[~out], labels[~out], features[out & own]))
    if not places:
        return HeldOut(labels.new_zeros(0), features.new_zeros(0, int(labels.max()) + 1))
    return HeldOut(torch.cat(places), torch.cat(scores))


def temperature(scores: Tensor, labels: Tensor) -> float:
    """T > 0 that makes `softmax(scores / T)` most likely, for targets a little off 0 and 1.

    The target of the right class is `(M + 1) / (M + C)` and of each other one `1 / (M + C)`, M held-out examples, C
    classes: without that a handful of right answers would ask for T = 0, that is for certainty.
    `mean over i of logsumexp(b s_i) - b <t_i, s_i>` is convex in b = 1 / T, so its slope is halved down to its zero.

    Args:
        scores: `[M, C]`, finite, M >= 1.
        labels: int64 `[M]`.

    Sources: Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 9, https://arxiv.org/abs/1706.04599; the
    targets are those of Platt, Probabilistic Outputs for Support Vector Machines, 1999, for C classes instead of two.

    Example:
        >>> scores = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
        >>> round(temperature(scores, torch.tensor([0, 1, 0])), 3)  # p = (3 + 1) / (3 + 2), log(p / (1 - p)) = 2 / T
        1.443
    """
    scores = scores.double()
    count, classes = scores.shape
    spread = float((scores.amax(dim=1) - scores.amin(dim=1)).mean())
    if spread == 0:
        return 1.0
    target = torch.full_like(scores, 1 / (count + classes))
    target[torch.arange(count), labels] = (count + 1) / (count + classes)
    low, high = -7.0, 7.0  # log of the inverse temperature in units of the spread: from nearly even to nearly certain
    for _ in range(STEPS):
        middle = (low + high) / 2
        inverse = torch.tensor(middle, dtype=torch.float64).exp() / spread
        slope = ((torch.softmax(inverse * scores, dim=1) - target) * scores).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(spread / torch.tensor(low, dtype=torch.float64).exp())


def nearest(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Distance `1 - cosine` to the nearest example, `[Q]`, and its place, int64 `[Q]`."""
    found = (unit(query) @ unit(support).T).max(dim=1)
    return 1 - found.values, found.indices


def alike(features: Tensor) -> Tensor:
    """True for pairs of the same features, to rounding: an example given twice; bool `[N, N]`.

    Args:
        features: float64 `[N, D]`.
    """
    square = features.square().sum(dim=1)
    gap = torch.addmm(square[:, None] + square, features, features.T, alpha=-2)
    return (gap <= SAME * torch.maximum(square[:, None], square)).fill_diagonal_(True)


def first_of(pairs: Tensor) -> Tensor:
    """The first of those that each belongs with, int64 `[N]`, for bool pairs `[N, N]` with a diagonal of True."""
    first = pairs.to(torch.uint8).argmax(dim=1)
    while bool((first[first] != first).any()):  # a like b, b like c, but a not like c
        first = first[first]
    return first


def own_distances(features: Tensor, labels: Tensor) -> Tensor:
    """Distance of each example to the nearest different one, for those whose class has one; sorted, `[n]`.

    What an image of a known class is like, measured as a new image is: by its distance to the examples. Copies within
    a class count once.
    """
    copies, same = alike(features), labels[:, None] == labels
    own = first_of(copies & same) == torch.arange(len(labels))
    several = (same & own).sum(dim=1) > 1
    scores = (unit(features) @ unit(features).T).masked_fill_(copies, -torch.inf)
    return (1 - scores.amax(dim=1))[own & several].sort().values


def strangeness(distance: Tensor, own: Tensor) -> Tensor:
    """Conformal p-value `(1 + #{own >= distance}) / (n + 1)`, `[Q]`: share of known images that are as far away.

    An image of a known class gets a value of at most a with probability a, as far as it resembles the examples (it has
    one neighbour more than an example among the others has, so it is flagged a little more rarely).

    Args:
        distance: Of new images to their nearest example, `[Q]`.
        own: Sorted, `[n]`; see `own_distances`.

    Source: Laxhammar & Falkman, Conformal prediction for distribution-independent anomaly detection in streaming
    vessel data, 2010, https://doi.org/10.1145/1833280.1833287.

    Example:
        >>> strangeness(torch.tensor([0.0, 0.25, 0.9]), torch.tensor([0.1, 0.2, 0.3]))
        tensor([1.0000, 0.5000, 0.2500])
    """
    farther = len(own) - torch.searchsorted(own, distance)
    return (1 + farther) / (len(own) + 1)
