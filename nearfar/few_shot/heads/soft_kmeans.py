"""Soft k-means from the class means: each query moves the means by as much as it seems to belong to them."""

from __future__ import annotations

import torch
from torch import Tensor

from .supports import membership
from .transductive import averaging, cosines, floor, products


def soft_kmeans(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    temperature: float = 5.0,
    rounds: int = 30,
    centre: Tensor | None = None,
) -> Tensor:
    """Log-probabilities of the classes, up to a constant for each query: `-temperature * |q - m_c|^2 + ...`.

    `p_ic = softmax over c of -temperature * |q_i - m_c|^2`; `m_c = (sum of its supports + sum over i of p_ic q_i) /
    (its shots + sum over i of p_ic)`, again and again. Assumes nothing of how the queries spread over the classes,
    though means of few queries are drawn towards the middle of large ones.

    Works on products of features only: `m_c` is known by its weights on the images of the episode. 30 rounds then cost
    less than one product of all images in 640 dimensions.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`, all queries of an episode.
        ways: Classes of an episode.
        temperature: Factor of the squared distance, > 0; 5 or 20 in EASY, by data set.
        rounds: >= 0; with 0 it is `centroid`.
        centre: Mean feature of the training classes `[D]`, subtracted before all features get length 1; None: nothing
            is subtracted.

    Returns:
        `[T, Q, ways]`; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together.

    Source: Ren et al., Meta-Learning for Semi-Supervised Few-Shot Classification, 2018, section 3.1,
    https://arxiv.org/abs/1803.00676; with temperature, rounds and sphere as in Bendou et al., EASY: Ensemble
    Augmented-Shot Y-shaped Learning, 2022, https://arxiv.org/abs/2201.09699.

    Example:
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> soft_kmeans(support, labels, torch.tensor([[[3.0, 1.0], [1.0, 4.0]]]), ways=2).argmax(-1).tolist()
        [[0, 1]]
    """
    member, shots = membership(support, labels, query, ways), support.shape[1]
    gram, absent = cosines(support, query, centre), floor(member)
    belongs = torch.cat([member, member.new_zeros(len(member), ways, query.shape[1])], dim=2)
    for left in range(rounds, -1, -1):
        inner, square = products(averaging(belongs), gram)
        scores = temperature * (2 * inner[..., shots:] - square) + absent
        if left:
            belongs[..., shots:] = torch.softmax(scores, dim=1)
    return scores.transpose(1, 2)
