"""Barlow Twins' loss: what feature i says in one view, feature i says in the other, and no other feature does.

Shapes: N samples, D features.

Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021,
https://arxiv.org/abs/2103.03230. Loss: eq. 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import total, world
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .arguments import check_pairs


def correlation(
    pairs: Pairs, similarity: Similarity, *, redundancy: float = 0.0051, scale: float = 1.0, eps: float = 1e-5
) -> Tensor:
    """How far the correlations between the features of two views are from the identity.

        loss = scale * ( sum over i of (1 - C_ii)^2 + redundancy * sum over i != j of C_ij^2 ),    C = A^T B / N

    A and B: anchors and their positives, each feature less its mean and over its standard deviation. Means, deviations
    and C are those of the samples of all processes; gradients are those of the loss times the number of processes, as
    `infonce`'s are. It is no mean over anchors: features are compared, not samples.

    C is never made where one process has fewer samples than there are features: N x N numbers serve, not D x D.

    Args:
        pairs: With a positive of each anchor, `[N, D]`. Others play no part.
        similarity: Its two maps are applied; there are no scores, so its curve plays no part. The paper's is `dot`.
        redundancy: The paper's lambda; 0.0051 is the released code's.
        scale: Factor of the whole.
        eps: Added to the variance, as batch norm does.

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: Pairs without positives, or of another shape.

    Example:
        >>> from nearfar import similarity
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> told = [Pairs(z, z[:0], positive=other) for other in (z, z.flip(1))]
        >>> [round(correlation(pairs, similarity.dot, redundancy=0.01).item(), 4) for pairs in told]  # C = I, and D
        [0.0, 2.02]
    """
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        sides = torch.cat(both_sides(pairs, similarity), dim=-1)
        moved, count = centred(sides)
        variance = total(moved.square().sum(dim=0)) / count
        first, second = (moved * torch.rsqrt(variance + eps)).chunk(2, dim=-1)
        own = total((first * second).sum(dim=0)) / count
        return scale * ((1 - own).square().sum() + redundancy * off_diagonal(first, second, count))


def both_sides(pairs: Pairs, similarity: Similarity) -> tuple[Tensor, Tensor]:
    """Anchors and positives, mapped, `[N, D]`, fp32 or fp64.

    Raises:
        UsageError: Pairs without positives row by row, or with leading dimensions.
    """
    check_pairs(pairs)
    if pairs.positive is None or pairs.anchor.ndim != 2:
        raise UsageError(
            f"anchors of shape {list(pairs.anchor.shape)}" + " without positives" * (pairs.positive is None),
            where="pairs",
            mend="anchors [N, D] with positives row by row (extract.own_view)",
        )
    dtype = torch.float64 if torch.float64 in (pairs.anchor.dtype, pairs.positive.dtype) else torch.float32
    return similarity.anchor(pairs.anchor.to(dtype)), similarity.other(pairs.positive.to(dtype))


def centred(z: Tensor) -> tuple[Tensor, Tensor]:
    """`z [N, D]` less its mean over the rows of all processes, and how many rows these have, 0-d."""
    sums = total(torch.cat([z.sum(dim=0), z.new_full((1,), len(z))]))
    count = sums[-1].detach().clamp(min=1)
    return z - sums[:-1] / count, count


def off_diagonal(a: Tensor, b: Tensor, count: Tensor) -> Tensor:
    """Sum over i != j of `(A^T B / count)_ij^2`, A and B `[N, D]` the rows of all processes.

    Fewer rows than features: `sum over i, j of (A^T B)_ij^2 = sum over n, m of (A A^T)_nm (B B^T)_nm`, N x N numbers.
    """
    if world() == 1 and len(a) < a.shape[1]:
        everything = ((a @ a.mT) * (b @ b.mT)).sum()
        return (everything - (a * b).sum(dim=0).square().sum()) / count**2
    return total(a.mT @ b / count).square().fill_diagonal_(0).sum()
