"""Noise-contrastive estimation: is a pair of data, or of noise? One yes-or-no question for each pair.

Gutmann & Hyvarinen, Noise-contrastive estimation, AISTATS 2010, https://proceedings.mlr.press/v9/gutmann10a.html; as
Wu et al. 2018 use it, section 3.2, https://arxiv.org/abs/1805.01978, and Tian et al. 2019,
https://arxiv.org/abs/1906.05849.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import gather, total, world
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity, identity
from .arguments import check_pairs, checked_temperature


class NCE(nn.Module):
    """Sum, over a positive and K drawn others, of what it costs to tell them apart; mean over anchors.

        P(j)   = exp(s_j / t) / Z                     share of row j among all n
        h(j)   = P(j) / (P(j) + K / n)                probability that j is the positive, not one of K drawn
        loss_i = -log h(i) - sum over the K drawn j of log(1 - h(j))

    Z is estimated once, `n * mean of exp(s / t)` over all anchors, positives and drawn others of the first batch, and
    stays: it is a buffer, part of the state of a run. With it h is `sigmoid(s / t - log mean - log K)`: n cancels, and
    no logarithm needs an epsilon, which released code has. What is computed without gradients before the first batch
    has a Z of its own, that is not kept.

    The value is the mean over the anchors of all processes; gradients are those of it times the number of processes,
    as `infonce`'s are. It is no softmax: 0 is perfect, `log(K + 1) + K log((K + 1) / K)` is what equal scores cost.

    Args:
        temperature: t, > 0.

    Raises:
        UsageError: temperature <= 0.

    It is what InstDisc and CMC were published with; `infonce` takes the same pairs.

    Example:
        >>> import torch
        >>> from nearfar import similarity
        >>> from nearfar.method import Pairs
        >>> pairs = Pairs(torch.ones(2, 1, 4), torch.ones(2, 16, 4), positive=torch.ones(2, 1, 4), gather=False)
        >>> round(NCE()(pairs, similarity.cosine).item(), 4)  # log 17 + 16 log(17 / 16)
        3.8032
    """

    log_mean: Tensor
    estimated: Tensor

    def __init__(self, *, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)
        self.register_buffer("log_mean", torch.zeros(()))  # log(Z / n)
        self.register_buffer("estimated", torch.tensor(False))

    def forward(self, pairs: Pairs, similarity: Similarity) -> Tensor:
        """The loss, 0-d, fp32, or fp64 where the inputs are.

        Args:
            pairs: Anchors `[..., N, D]` with their positives row by row; `other [..., K, D]` are the drawn ones.
            similarity: See `nearfar.similarity`.

        Raises:
            UsageError: Pairs with keys, without positives, without others, or with others of other processes.
        """
        _check(pairs)
        with torch.autocast(pairs.anchor.device.type, enabled=False):
            scores = _scores(pairs, similarity) / self.temperature
            log_odds = scores - self._log_mean(scores) - math.log(pairs.other.shape[-2])
            rows = F.softplus(-log_odds[..., 0]) + F.softplus(log_odds[..., 1:]).sum(-1)
            summed, count = total(torch.stack([rows.sum(), rows.new_full((), rows.numel())])).unbind()
            return summed / count.clamp(min=1)

    def _log_mean(self, scores: Tensor) -> Tensor:
        """Log of the mean of exp(score) over all processes: that of the first batch, once there was one."""
        if bool(self.estimated):
            return self.log_mean
        log_count = scores.new_full((), math.log(scores.numel()))
        parts = gather(torch.stack([scores.flatten().logsumexp(0), log_count])[None])
        log_mean = parts[:, 0].logsumexp(0) - parts[:, 1].logsumexp(0)
        if torch.is_grad_enabled():
            self.log_mean.copy_(log_mean)
            self.estimated.fill_(True)
        return log_mean


def _scores(pairs: Pairs, similarity: Similarity) -> Tensor:
    """Scores of the positive, then of the others, `[..., N, 1 + K]`."""
    assert pairs.positive is not None
    given = (pairs.anchor, pairs.positive, pairs.other)
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32
    anchor = similarity.anchor(pairs.anchor.to(dtype))
    own = (anchor * similarity.other(pairs.positive.to(dtype))).sum(-1, keepdim=True)
    others = anchor @ similarity.other(pairs.other.to(dtype)).mT
    curve = identity if similarity.curve is None else similarity.curve.value
    return curve(torch.cat([own, others], dim=-1))


def _check(pairs: Pairs) -> None:
    check_pairs(pairs)
    faults = {
        "no positives row by row": pairs.positive is None,
        "keys or slots": pairs.anchor_key is not None or pairs.anchor_slot is not None,
        "no others": pairs.other.shape[-2] == 0,
        "others to be gathered from processes": pairs.gather and world() > 1,
    }
    if any(faults.values()):
        raise UsageError(
            "nce was given " + ", ".join(fault for fault, there in faults.items() if there),
            where="pairs",
            mend="Pairs(anchor, drawn, positive=own, gather=False), or infonce",
        )
