"""Ridge regression on one-hot classes, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UsageError
from .supports import exact, membership, only_present, products


def ridge(
    support: Tensor, labels: Tensor, query: Tensor, *, ways: int, penalty: float = 1.0, normalise: bool = True
) -> Tensor:
    """Scores `Q W` of `W = S^T (S S^T + penalty I)^-1 Y`, the minimum of `|S W - Y|^2 + penalty |W|^2`.

    Differs from R2D2: no learned scale or offset, which would not change the answer. There the penalty is learned, or
    fixed at 50 for features of great length. Beside features of length 1 that would leave little but the sum over the
    supports of a class; 1 gives the penalty the weight of one support.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`.
        ways: Classes of an episode.
        penalty: > 0, in squared lengths of the features.
        normalise: Divides each feature by its length; a zero vector stays zero.

    Returns:
        `[T, Q, ways]`, regression on one-hot classes and no log-probabilities; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together, or `penalty` <= 0.

    Source: Bertinetto et al., Meta-learning with differentiable closed-form solvers, 2019, section 3.2,
    https://arxiv.org/abs/1805.08136.

    Example:
        >>> support, labels = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> ridge(support, labels, torch.tensor([[[3.0, 0.0]]]), ways=2).tolist()
        [[[0.5, 0.0]]]
    """
    if not penalty > 0:
        raise UsageError(f"penalty={penalty}", where="ridge", mend="a penalty above 0")
    members = membership(support, labels, query, ways)
    gram, cross = products(support, query, normalise=normalise)
    damped = exact(gram)
    damped.diagonal(dim1=1, dim2=2).add_(penalty)
    weights = torch.linalg.solve(damped, exact(members.transpose(1, 2)))
    return only_present(cross @ weights.to(cross), members)
