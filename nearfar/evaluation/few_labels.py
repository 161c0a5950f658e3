"""Classification from a handful of labels a class, drawn again and again: what an encoder saves in labelling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import UsageError
from ..randomness import address, uniforms
from ..similarity import unit
from .linear import count_classes, fit_linear
from .protocol import Score, labelled, same_width, student_interval

STRENGTH = 10.0
"""C of scikit-learn's LogisticRegression: penalty = 1 / (C * number of labelled images).

Measured on CIFAR-10 with features of whitened patches and with raw pixels, 1 to 50 labels a class: of 1, 10, 100 and
1000 no other is better for both; up to 10 labels a class all four lie within each other's intervals.
"""
LABEL_DRAWS = 101  # first word of the address, so that no draw of labels shares its numbers with an augmentation


def draw_labels(y: Tensor, per_class: int, *, draw: int, seed: int) -> Tensor:
    """Positions of the images whose labels are seen in draw number `draw`: `per_class` of each class, int64, sorted.

    A function of (seed, draw, position) alone: the same for every encoder, and the draw of 5 contains the draw of 1.
    A class with fewer images gives all it has.
    """
    rank = uniforms(address(LABEL_DRAWS, seed), draw, np.arange(len(y)), view=0, slots=1)[:, 0]
    order = np.lexsort((rank, y.cpu().numpy()))
    ordered = y.cpu().numpy()[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)  # place of each image within its class
    return torch.from_numpy(np.sort(order[place < per_class])).to(y.device)


def few_labels(
    train_x: ArrayLike | Tensor,
    train_y: ArrayLike | Tensor,
    test_x: ArrayLike | Tensor,
    test_y: ArrayLike | Tensor,
    *,
    per_class: Sequence[int] = (1, 5, 10),
    repeats: int = 20,
    seed: int = 0,
) -> dict[int, Score]:
    """Accuracy on all test images with `per_class` labels a class, mean over random draws of the labelled images.

    Classifier: multinomial logistic regression on unit features, with one fixed penalty (C = 10) for every encoder and
    every number of labels, because a handful of labels leaves none to choose a penalty with.
    `Score.draws` holds the accuracy of each draw: the draws are the same for every encoder, so compare two encoders
    with `paired_difference`.

    Args:
        train_x: Features `[N, D]` of the pool the labelled images are drawn from.
        train_y: Labels int `[N]`, >= 0.
        test_x: Features `[M, D]`.
        test_y: Labels int `[M]`.
        per_class: Labels a class, each >= 1.
        repeats: Draws, >= 1; the interval needs 2 or more.
        seed: Of the draws.

    Raises:
        UsageError: Numbers below 1, fewer than two classes, or shapes that don't fit.

    Source: the penalised logistic regression on unit features is that of Tian et al., Rethinking Few-Shot Image
    Classification, 2020, section 3.1, https://arxiv.org/abs/2003.11539.
    """
    train_x, train_y = labelled(train_x, train_y, "train")
    test_x, test_y = labelled(test_x, test_y, "test")
    same_width(train_x, test_x)
    if repeats < 1 or min(per_class, default=0) < 1:
        raise UsageError(
            f"per_class {tuple(per_class)}, repeats {repeats}", where="few_labels", mend="all must be >= 1"
        )
    classes = count_classes(train_y)
    train_x, test_x, test_y = unit(train_x), unit(test_x.to(train_x.device)), test_y.to(train_x.device)
    scores = {}
    for count in per_class:
        values = []
        for draw in range(repeats):
            seen = draw_labels(train_y, count, draw=draw, seed=seed)
            fit = fit_linear(train_x[seen].double(), train_y[seen], penalty=1 / (STRENGTH * len(seen)), classes=classes)
            values.append(float((fit.predict(test_x) == test_y).double().mean()))
        low, high = student_interval(values) if repeats > 1 else (None, None)
        scores[count] = Score(
            float(np.mean(values)), low, high, _protocol(train_y, count, repeats, seed, len(test_y)), tuple(values)
        )
    return scores


def _protocol(y: Tensor, count: int, repeats: int, seed: int, tests: int) -> str:
    fewer = int((y.unique(return_counts=True)[1] < count).sum())
    said = (
        f" ({fewer} class{'es have' if fewer > 1 else ' has'} fewer and give{'' if fewer > 1 else 's'} all)"
        if fewer
        else ""
    )
    return (
        f"logistic regression (C = {STRENGTH:g} fixed) on unit features of {count} labelled "
        f"sample{'s' if count > 1 else ''} a class{said}, drawn from {len(y)} training samples; "
        f"{_repeated(repeats)} (seed {seed}); {tests} test samples"
    )


def _repeated(repeats: int) -> str:
    return f"mean of {repeats} draws, 95 % interval mean ± t s / sqrt({repeats})" if repeats > 1 else "one draw"
