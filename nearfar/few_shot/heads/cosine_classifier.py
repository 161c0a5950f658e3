"""A cosine classifier fine-tuned on the supports."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UsageError
from .supports import SHORTEST, exact, membership, only_present, products

MOMENTUM, DECAY = 0.9, 0.001
"""Of the gradient and of the weights: the paper's. As there, a gradient enters the momentum with 1 - MOMENTUM."""


def cosine_classifier(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    steps: int = 100,
    learning_rate: float = 0.01,
    scale: float = 2.0,
) -> Tensor:
    """Logits `scale * cos(w_c, q)`, the w_c trained by gradient descent on the cross entropy of the supports.

    Differs from Baseline++: each w_c begins at the mean of its normalised supports (imprinting) and not at random, each
    step sees all supports and not 4 of them, and there is no learned length of a class. So the result is one number,
    the same each time. The weights stay sums of supports, and the steps are taken on their coefficients.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`.
        ways: Classes of an episode.
        steps: >= 0; with 0 it is the cosine to the class mean of normalised features.
        learning_rate: >= 0.
        scale: > 0, of the cosine in the softmax.

    Returns:
        `[T, Q, ways]`: log-probabilities up to a constant for each query; -inf for a class without support, which has
        no part in the softmax; 0 for a class whose supports have mean 0, which stays there.

    Raises:
        UsageError: Shapes or labels that don't belong together, or a setting out of range.

    Source: Chen et al., A Closer Look at Few-shot Classification, 2019, section 3.3, https://arxiv.org/abs/1904.04232.
    Imprinting: Qi et al., 2018, https://arxiv.org/abs/1712.07136.

    Example:
        >>> support, labels = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> cosine_classifier(support, labels, torch.tensor([[[1.0, 1.0]]]), ways=2).softmax(-1).tolist()
        [[[0.5, 0.5]]]
    """
    if steps < 0 or learning_rate < 0 or not scale > 0:
        found = f"steps={steps}, learning_rate={learning_rate}, scale={scale}"
        raise UsageError(found, where="cosine_classifier", mend="steps and learning_rate >= 0, scale > 0")
    members = membership(support, labels, query, ways)
    gram, cross = products(support, query, normalise=True)
    gram, cross, belongs = exact(gram), exact(cross), exact(members)
    weight = belongs / belongs.sum(dim=2, keepdim=True).clamp(min=1)
    absent = ~members.any(dim=2, keepdim=True).to(gram.device)
    momentum = None
    for _ in range(steps):
        cosine, shrink = _cosines(weight, gram, gram)
        chances = (scale * cosine).masked_fill(absent, -torch.inf).softmax(dim=1)
        error = scale / labels.shape[1] * (chances - belongs)
        slope = shrink * (error - (error * cosine).sum(dim=2, keepdim=True) * shrink * weight) + DECAY * weight
        momentum = slope if momentum is None else MOMENTUM * momentum + (1 - MOMENTUM) * slope
        weight = weight - learning_rate * momentum
    scores = scale * _cosines(weight, gram, cross)[0].transpose(1, 2)
    return only_present(scores.to(support), members)


def _cosines(weight: Tensor, gram: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of the sums `weight @ supports` `[T, ways, S]` with rows of unit length, and the sums' `1 / length`.

    `across` holds the products of those rows with the supports, `[T, rows, S]`. Both are 0 for a sum that is zero.
    """
    length = (weight * (weight @ gram)).sum(dim=2, keepdim=True).clamp(min=0).sqrt()
    shrink = torch.where(length > SHORTEST, 1 / length.clamp(min=SHORTEST), 0)
    return shrink * (weight @ across.transpose(1, 2)), shrink
