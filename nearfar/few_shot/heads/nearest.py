"""The nearest support."""

from __future__ import annotations

import torch
from torch import Tensor

from .supports import membership, products


def nearest(support: Tensor, labels: Tensor, query: Tensor, *, ways: int) -> Tensor:
    """Scores by the nearest support of a class: `max over i with y_i = c of cos(q, s_i)`.

    The class of the nearest support wins, as in infoPatch's test rule; with one shot it is `centroid` by cosine.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`.
        ways: Classes of an episode.

    Returns:
        `[T, Q, ways]`, in [-1, 1]; the cosine with a zero vector is 0; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together.

    Source: Liu et al., Learning a Few-shot Embedding Model with Contrastive Learning, 2021,
    https://ojs.aaai.org/index.php/AAAI/article/view/17047.

    Example:
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]), torch.tensor([[0, 1, 1]])
        >>> nearest(support, labels, torch.tensor([[[2.0, 0.0]]]), ways=2).round(decimals=2).tolist()
        [[[1.0, 0.7099999785423279]]]
    """
    membership(support, labels, query, ways)
    _, cosines = products(support, query, normalise=True)
    scores = cosines.new_full((*cosines.shape[:2], ways), -torch.inf)
    return scores.scatter_reduce_(2, labels[:, None, :].expand_as(cosines), cosines, "amax")
