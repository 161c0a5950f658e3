"""LaplacianShot: distances to class means, smoothed over a graph of the queries."""

from __future__ import annotations

import torch
from torch import Tensor

from .bd_cspn import rectified
from .supports import membership
from .transductive import cosines, floor, products, shift


def laplacian_shot(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    weight: float = 0.7,
    neighbours: int = 3,
    rounds: int = 20,
    centre: Tensor | None = None,
) -> Tensor:
    """Log-probabilities of the classes; queries that are neighbours like to have the same one.

    `a_ic = |q_i - m_c|^2` with shifted queries and mended means as in `bd_cspn`; `W_ij = 1` where j is among the
    nearest of the other queries to i. From `y_i = softmax(-a_i)`, `y_i <- softmax(-a_i + weight * sum over j of
    W_ij y_j)`, each round the minimum of an upper bound of `sum of y a - weight / 2 * sum of W_ij y_i . y_j` with an
    entropy barrier. Of queries that are equally near, the first are the neighbours. (A query that the shift puts
    next to zero has no direction; there rounding decides.)

    Differs from the published code: always all rounds, without a stop at a relative change of 1e-6; 3 neighbours are
    3 others, where the code counts the query itself as the first; weights of a mended mean sum to 1, where in the code
    means of uncertain classes are short, which on features without a centre (digits as they are, 5 shots) costs 10
    points.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`, all queries of an episode.
        ways: Classes of an episode.
        weight: Of the graph, >= 0, lambda in the paper, which chooses it on validation classes from 0.1 to 1.5.
        neighbours: Others that a query looks at, >= 0; at most all.
        rounds: >= 0.
        centre: Mean feature of the training classes `[D]`, subtracted before all features get length 1 (CL2N); None:
            nothing is subtracted.

    Returns:
        `[T, Q, ways]`; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together.

    Source: Ziko et al., Laplacian Regularized Few-Shot Learning, 2020, section 2, https://arxiv.org/abs/2006.15486.

    Example:
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> laplacian_shot(support, labels, torch.tensor([[[3.0, 1.0], [1.0, 4.0]]]), ways=2).argmax(-1).tolist()
        [[0, 1]]
    """
    member, shots = membership(support, labels, query, ways), support.shape[1]
    gram = shift(cosines(support, query, centre), shots)
    inner, square = products(rectified(gram, member), gram)
    asked = gram[:, shots:, shots:]
    length = asked.diagonal(dim1=1, dim2=2)
    near = 2 * inner[..., shots:] - square - length[:, None] + floor(member)
    linked = _neighbours(asked, length, neighbours)
    scores = near.log_softmax(dim=1)
    for _ in range(rounds if linked.shape[2] else 0):
        shared = _gathered(scores.exp(), linked)
        scores = (near + weight * shared).log_softmax(dim=1)
    return scores.transpose(1, 2)


def _neighbours(gram: Tensor, length: Tensor, count: int) -> Tensor:
    """Numbers of the nearest other queries `[T, Q, k]`, k = min(count, Q - 1), given products and squared lengths."""
    order = torch.arange(gram.shape[1], device=gram.device, dtype=gram.dtype) * (16 * torch.finfo(gram.dtype).eps)
    close = 2 * gram - length[:, None, :] - order  # rounding, which depends on the block, must not decide a tie
    close.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return close.topk(max(0, min(count, gram.shape[1] - 1)), dim=2).indices


def _gathered(shares: Tensor, linked: Tensor) -> Tensor:
    """Sum over the neighbours of each query of their shares: `[T, ways, Q]`, `[T, Q, k]` -> `[T, ways, Q]`."""
    (t, ways, _), (_, rows, k) = shares.shape, linked.shape
    found = shares.gather(2, linked.flatten(1)[:, None].expand(t, ways, rows * k))
    return found.view(t, ways, rows, k).sum(dim=3)
