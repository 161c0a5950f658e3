"""BD-CSPN: queries shifted onto the supports, class means mended by the queries that look like theirs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .supports import membership, only_present
from .transductive import averaging, cosines, floor, inverse_root, products, shift

SCALE = 10.0
"""Of the cosine in the weights of a mended mean; epsilon in the paper."""


def bd_cspn(support: Tensor, labels: Tensor, query: Tensor, *, ways: int, centre: Tensor | None = None) -> Tensor:
    """Cosine to mended class means.

    1. Features get length 1; queries are moved so that their mean is that of the supports.
    2. `w_ic` is the softmax over the classes of `10 cos(x_i, m_c)`; each query joins the class where it is largest,
       the first of several.
    3. `m'_c = mean of the members i of c, supports and queries, weighted by w_ic`.

    Assumes that the queries have about the classes of the supports in about the same shares: the shift is wrong by as
    much as that fails.

    Differs from the paper: the weights are those of the published implementations by Ziko et al. and Veilleux et al.,
    and all queries of a class take part, not only the most confident 8. Unlike there a support is a member of its own
    class even where another mean is nearer, and the weights are divided by their sum, not by the number of members;
    that changes no cosine, but see `laplacian_shot`.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`, all queries of an episode. A lone query is shifted onto the supports' mean: score it by
            `centroid`.
        ways: Classes of an episode.
        centre: Mean feature of the training classes `[D]`, subtracted first; None: nothing is subtracted.

    Returns:
        `[T, Q, ways]`, in [-1, 1]; the cosine with a zero vector is 0; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together.

    Source: Liu et al., Prototype Rectification for Few-Shot Learning, 2020,
    https://arxiv.org/abs/1911.10713.

    Example:
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> bd_cspn(support, labels, torch.tensor([[[3.0, 1.0], [1.0, 4.0]]]), ways=2).argmax(-1).tolist()
        [[0, 1]]
    """
    member, shots = membership(support, labels, query, ways), support.shape[1]
    gram = shift(cosines(support, query, centre), shots)
    return only_present(_cosines(rectified(gram, member), gram)[..., shots:].transpose(1, 2), member)


def rectified(gram: Tensor, member: Tensor) -> Tensor:
    """Steps 2 and 3 of `bd_cspn`: weights of the images in the mended means `[T, ways, S + Q]`, from products."""
    asked = gram.shape[1] - member.shape[2]
    sure = torch.softmax(SCALE * _cosines(averaging(F.pad(member, (0, asked))), gram) + floor(member), dim=1)
    # Rounding, which depends on the block, must not decide a tie: the first class has it.
    order = torch.arange(member.shape[1], device=member.device)[:, None]
    nearest = (sure[..., member.shape[2] :] - 256 * torch.finfo(sure.dtype).eps * order).argmax(dim=1)
    joined = (nearest[:, None, :] == order).to(member)
    return averaging(torch.cat([member, joined], dim=2) * sure)


def _cosines(weights: Tensor, gram: Tensor) -> Tensor:
    """Cosines of weighted means with the images, `[T, ways, S + Q]`."""
    inner, square = products(weights, gram)
    return inner * inverse_root(square) * inverse_root(gram.diagonal(dim1=1, dim2=2))[:, None]
