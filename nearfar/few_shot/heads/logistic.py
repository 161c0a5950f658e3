"""Multinomial logistic regression at its optimum."""

from __future__ import annotations

from torch import Tensor

from ...errors import UsageError
from .newton import solve
from .supports import exact, membership, only_present, products


def logistic(
    support: Tensor, labels: Tensor, query: Tensor, *, ways: int, C: float = 1.0, normalise: bool = True
) -> Tensor:
    """Logits of the minimum over W, b of `C sum_i -log softmax(W s_i + b)[y_i] + |W|^2 / 2`; b is free.

    Scikit-learn's `LogisticRegression(C=C)` for three classes or more, at a tolerance of 1e-9 rather than its default
    1e-4, which is not converged for a few shots. For two classes scikit-learn fits the binary model, which needs twice
    the C for the same optimum. Solved in float64, whatever the precision of the features.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`.
        ways: Classes of an episode.
        C: > 0; weight of the likelihood. Every support counts alike, so C means more where there are more shots.
        normalise: Divides each feature by its length; a zero vector stays zero.

    Returns:
        `[T, Q, ways]`: log-probabilities up to a constant for each query; -inf for a class without support, which has
        no part in the softmax.

    Raises:
        UsageError: Shapes or labels that don't belong together, or `C` <= 0.

    Source: Tian et al., Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?, 2020, section 3.2,
    https://arxiv.org/abs/2003.11539; there the supports are augmented copies as well.

    Example:
        >>> import torch
        >>> support, labels = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> logistic(support, labels, torch.tensor([[[1.0, 1.0]]]), ways=2).softmax(-1).tolist()
        [[[0.5, 0.5]]]
    """
    if not C > 0:
        raise UsageError(f"C={C}", where="logistic", mend="a C above 0")
    members = membership(support, labels, query, ways)
    gram, cross = products(support, query, normalise=normalise)
    coefficients, offset = solve(exact(gram), exact(members), C=C)
    scores = (coefficients @ exact(cross).transpose(1, 2) + offset).transpose(1, 2)
    return only_present(scores.to(cross), members)
