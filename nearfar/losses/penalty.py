"""A contrast, and beside it a penalty on large scores.

Bachman, Hjelm & Buchwalter, Learning Representations by Maximizing Mutual Information Across Views, NeurIPS 2019,
https://arxiv.org/abs/1906.00910, section 3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..distributed import total, world
from ..errors import UsageError
from ..method import Loss, Pairs
from ..similarity import Similarity


def penalised(pairs: Pairs, similarity: Similarity, *, loss: Loss, penalty: float) -> Tensor:
    """`loss + penalty * mean over all pairs of s_ij^2`, the scores before curve and temperature.

    AMDIM's soft clip has no slope where scores are far beyond the limit; the penalty keeps them from going there.

    Args:
        pairs: Who is compared with whom, by keys.
        similarity: See `nearfar.similarity`.
        loss: `(Pairs, Similarity) -> scalar`.
        penalty: Of the mean square, >= 0; 0 leaves it out.

    Raises:
        UsageError: A penalty that is no number >= 0, or pairs as `mean_square` doesn't take them.

    Example:
        >>> from functools import partial
        >>> from nearfar import losses, similarity
        >>> z, ids = torch.eye(2), torch.arange(2)
        >>> contrast = partial(losses.infonce, temperature=1.0)
        >>> both = penalised(Pairs(z, z, ids, ids), similarity.dot, loss=contrast, penalty=0.1)
        >>> round((both - contrast(Pairs(z, z, ids, ids), similarity.dot)).item(), 4)  # half of the four scores are 1
        0.05
    """
    if not 0 <= penalty < math.inf:
        raise UsageError(f"a penalty of {penalty}", where="penalty", mend="a number >= 0; AMDIM's is 0.05")
    contrast = loss(pairs, similarity)
    return contrast + penalty * mean_square(pairs, similarity) if penalty else contrast


def mean_square(pairs: Pairs, similarity: Similarity) -> Tensor:
    """Mean over anchors i and others j of `(f(a_i) . g(b_j))^2`, without the N x M scores.

        sum_ij (f_i . g_j)^2 = sum_de (F^T F)_de (G^T G)_de,    F [N, D], G [M, D] the mapped sides

    N + M times D^2 multiplications and D^2 numbers, which is also what processes send each other. The value is the
    mean over the anchors of all of them, and gradients are those of it times their number, as `infonce`'s are.

    Args:
        pairs: Who is compared with whom; keys play no part.
        similarity: See `nearfar.similarity`; its curve plays no part.

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: Pairs that leave some scores out (slots), or that have positives of their own.
    """
    if pairs.anchor_slot is not None or pairs.positive is not None:
        raise UsageError(
            "the penalty is over all scores of all anchors, these pairs leave some out or add some",
            where="pairs",
            mend="penalty=0, or pairs with keys alone (extract.across_views)",
        )
    dtype = torch.float64 if torch.float64 in (pairs.anchor.dtype, pairs.other.dtype) else torch.float32
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        anchor, other = similarity.anchor(pairs.anchor.to(dtype)), similarity.other(pairs.other.to(dtype))
        count = anchor.new_tensor([anchor.shape[:-1].numel(), other.shape[-2]])
        squares, against = anchor.mT @ anchor, other.mT @ other
        if pairs.gather and world() > 1:
            squares, against, count = total(squares), total(against), total(count)
            return (squares * against).sum() / count.prod().clamp(min=1)
        own = (squares * against).sum() / count[1].clamp(min=1)
        return total(own) / total(count[0]).clamp(min=1)
