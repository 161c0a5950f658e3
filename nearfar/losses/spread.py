"""InvaSpread's second half: no embedding may be taken for another's.

Ye et al., Unsupervised Embedding Learning via Invariant and Spreading Instance Feature, CVPR 2019,
https://arxiv.org/abs/1904.03436. Loss: eq. 2 to 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import gather, gather_with_gradient, shares, total, world
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .arguments import check_pairs, checked_temperature


def spread(pairs: Pairs, similarity: Similarity, *, temperature: float = 0.1) -> Tensor:
    """Mean over anchors of what it costs that each negative has a share of the scores.

        loss_i = -sum over n in N_i of log(1 - P_in),    P_in = exp s_in / sum over P_i and N_i of exp s_ij

    s: similarity / temperature. P_i: others with the anchor's key; N_i: the rest; equal slots are in neither. Anchors
    without a positive take no part in the mean; where none takes part the loss is 0. The sum that is left without n is
    computed as such where P_in is the largest share, so `1 - P_in` is exact also where P_in is near 1.

    The value is the mean over the anchors of all processes; with `pairs.gather` the others of all are compared.
    Gradients are those of that mean times the number of processes, as `infonce`'s are. Holds N x M numbers, several
    times: for batches, 64 MiB each at 4096 x 4096, not for banks.

    Args:
        pairs: Who is compared with whom, `[N, D]` and `[M, D]`, by keys.
        similarity: See `nearfar.similarity`.
        temperature: Divides the scores, > 0.

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: temperature <= 0, shapes that do not fit, pairs without keys or with positives row by row.

    Example:
        >>> from nearfar import similarity
        >>> z, key, slot = torch.ones(4, 8), torch.tensor([0, 1, 0, 1]), torch.arange(4)
        >>> pairs = Pairs(z, z, key, key, anchor_slot=slot, other_slot=slot)
        >>> round(spread(pairs, similarity.cosine).item(), 4)  # all alike: -2 log(1 - 1/3)
        0.8109
    """
    degrees = checked_temperature(temperature)
    check_pairs(pairs)
    if pairs.anchor.ndim != 2 or pairs.positive is not None:
        raise UsageError(
            f"anchors of shape {list(pairs.anchor.shape)}" + " and positives" * (pairs.positive is not None),
            where="pairs",
            mend="embeddings [N, D] and [M, D], positives by keys",
        )
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        other, key, slot = _others(pairs)
        scores = similarity.anchor(pairs.anchor.to(other.dtype)) @ similarity.other(other).mT
        scores = (scores if similarity.curve is None else similarity.curve.value(scores)) / degrees
        assert pairs.anchor_key is not None
        same = pairs.anchor_key[:, None] == key
        if pairs.anchor_slot is not None and slot is not None:
            out = pairs.anchor_slot[:, None] == slot
            scores = scores.masked_fill(out, torch.finfo(scores.dtype).min)
            positive, negative = same & ~out, ~(same | out)
        else:
            positive, negative = same, ~same
        takes_part = positive.any(dim=1)
        rows = -torch.where(negative & takes_part[:, None], _log_rest(scores), 0).sum(dim=1)
        summed, count = total(torch.stack([rows.sum(), takes_part.sum().to(rows)])).unbind()
        return summed / count.clamp(min=1)


def _log_rest(scores: Tensor) -> Tensor:
    """`log(1 - softmax)` of each row, `[N, M]`."""
    whole, top = scores.logsumexp(dim=1, keepdim=True), scores.argmax(dim=1, keepdim=True)
    # Every share but the largest is at most a half, where log1p has no cancellation.
    share = (scores - whole).exp().scatter(1, top, 0.0)
    rest = scores.scatter(1, top, torch.finfo(scores.dtype).min).logsumexp(dim=1, keepdim=True)
    return torch.log1p(-share).scatter(1, top, rest - whole)


def _others(pairs: Pairs) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The others with their keys and slots, from all processes, fp32 or fp64."""
    dtype = torch.float64 if torch.float64 in (pairs.anchor.dtype, pairs.other.dtype) else torch.float32
    other, key, slot = pairs.other.to(dtype), pairs.other_key, pairs.other_slot
    if not pairs.gather or world() == 1:
        return other, key, slot
    count = shares(len(other), other.device)
    key, slot = (None if numbers is None else gather(numbers, count) for numbers in (key, slot))
    return gather_with_gradient(other, count), key, slot
