"""Hinge over keyed pairs: every negative is to score less than the positives by a margin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..distributed import total, world
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity, identity
from .arguments import check_pairs


def hinge(pairs: Pairs, similarity: Similarity, *, margin: float) -> Tensor:
    """Sum over the negatives of what each lacks in distance from the positives.

        loss_i = sum over n in N_i of max(0, s_in - s_i+ + margin),    s_i+ = mean over p in P_i of s_ip

    P_i: others with the anchor's key, and `pairs.positive[i]`; N_i: the rest; equal slots are in neither. Where
    several are positive their mean score counts, which for a score that is a plain dot product is that of their mean.
    Anchors without a positive take no part; where none takes part the loss is 0. At the kink the slope is 0.

    The value is the mean over the anchors of all processes; gradients are those of it times the number of processes,
    as `infonce`'s are. Holds N x M numbers: for few others (classes, supports of an episode).

    Args:
        pairs: Who is compared with whom.
        similarity: See `nearfar.similarity`.
        margin: Asked for between positives and negatives, in units of the score, >= 0.

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: A margin that is no number >= 0, shapes that do not fit, others to be gathered from processes.

    Example:
        >>> from nearfar import similarity
        >>> classes, means = torch.arange(3), torch.eye(3)
        >>> query = torch.tensor([[1.0, 0.8, 0.0]])
        >>> pairs = Pairs(query, means, classes[:1], classes, gather=False)
        >>> round(hinge(pairs, similarity.dot, margin=0.5).item(), 4)  # 0.8 - 1 + 0.5; the third is far enough
        0.3
    """
    if not 0 <= margin < math.inf:
        raise UsageError(f"a margin of {margin}", where="margin", mend="a number >= 0, for cosines 0.1 to 0.7")
    check_pairs(pairs)
    if pairs.gather and world() > 1:
        raise UsageError(
            "hinge compares within its process", where="pairs.gather", mend="Pairs(..., gather=False), or infonce"
        )
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        rows, takes_part = _rows(pairs, similarity, margin)
        summed, count = total(torch.stack([rows.sum(), takes_part.sum().to(rows)])).unbind()
        return summed / count.clamp(min=1)


def _rows(pairs: Pairs, similarity: Similarity, margin: float) -> tuple[Tensor, Tensor]:
    """Loss of each anchor, 0 where it takes no part, and whether it does, `[..., N]`."""
    dtype = torch.float64 if torch.float64 in (pairs.anchor.dtype, pairs.other.dtype) else torch.float32
    curve = identity if similarity.curve is None else similarity.curve.value
    anchor = similarity.anchor(pairs.anchor.to(dtype))
    scores = curve(anchor @ similarity.other(pairs.other.to(dtype)).mT)
    same, out = (_equal(pairs.anchor_key, pairs.other_key, scores), _equal(pairs.anchor_slot, pairs.other_slot, scores))
    positive = (same & ~out).to(dtype)
    own, count = (positive * scores).sum(-1), positive.sum(-1)
    if pairs.positive is not None:
        own, count = own + curve((anchor * similarity.other(pairs.positive.to(dtype))).sum(-1)), count + 1
    lacking = torch.relu(scores - (own / count.clamp(min=1)).unsqueeze(-1) + margin)
    takes_part = count > 0
    return (lacking * ~(same | out)).sum(-1) * takes_part, takes_part


def _equal(mine: Tensor | None, theirs: Tensor | None, scores: Tensor) -> Tensor:
    if mine is None or theirs is None:
        return torch.zeros_like(scores, dtype=torch.bool)
    return mine.unsqueeze(-1) == theirs.unsqueeze(-2)
