"""What DCLW has beside DCL: positives that are far count more, near ones less.

Yeh et al., Decoupled Contrastive Learning, ECCV 2022, https://arxiv.org/abs/2110.06848.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..distributed import gather, total
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .arguments import check_pairs, checked_temperature


def reweighted(pairs: Pairs, similarity: Similarity, *, sigma: float = 0.5, temperature: float = 0.1) -> Tensor:
    """The difference that weights of mean 1 on the pull of the positives make.

        loss_i = (1 - w_i) s_i / t,    w_i = 2 - exp(s_i / sigma) / mean over k of exp(s_k / sigma)

    Beside a loss whose pull is `-s_i / t` (`infonce`) it makes that `-w_i s_i / t`. The weights carry no gradient. The
    value is the mean over the anchors of all processes, as is that in w; gradients are those of it times the number of
    processes, as `infonce`'s are.

    Args:
        pairs: With a positive of each anchor, `[..., N, D]`. Others play no part.
        similarity: See `nearfar.similarity`.
        sigma: Width of the weights, in units of the similarity, > 0; the larger, the more alike they are.
        temperature: Divides the scores, > 0; that of the loss beside it.

    Raises:
        UsageError: sigma or temperature <= 0, or pairs without positives.

    Example:
        >>> from nearfar import similarity
        >>> z, far = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # a perfect pair and one without relation
        >>> pairs = Pairs(z, z[:0], positive=far)
        >>> round(reweighted(pairs, similarity.cosine, temperature=1.0).item(), 4)  # (2 / (1 + exp(-2)) - 1) / 2
        0.3808
    """
    degrees = checked_temperature(temperature)
    if not 0 < sigma < math.inf:
        raise UsageError(f"a sigma of {sigma}", where="sigma", mend="a number > 0; the paper's is 0.5")
    check_pairs(pairs)
    if pairs.positive is None:
        raise UsageError("no positives row by row", where="pairs.positive", mend="positives [..., N, D]")
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        dtype = torch.float64 if torch.float64 in (pairs.anchor.dtype, pairs.positive.dtype) else torch.float32
        scores = similarity.anchor(pairs.anchor.to(dtype)) * similarity.other(pairs.positive.to(dtype))
        scores = scores.sum(dim=-1).flatten()
        scores = scores if similarity.curve is None else similarity.curve.value(scores)
        logs = gather(scores) / sigma
        less = (scores.detach() / sigma - logs.logsumexp(dim=0) + math.log(max(len(logs), 1))).exp() - 1  # 1 - w
        summed, count = total(torch.stack([(less * scores).sum(), scores.new_full((), len(scores))])).unbind()
        return summed / (degrees * count.clamp(min=1))
