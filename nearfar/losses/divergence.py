"""Losses against given shares: learning from the answers of another network, or of this one to another view."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import total
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .arguments import checked_temperature


def cross_entropy(pairs: Pairs, similarity: Similarity, *, temperature: float = 0.1) -> Tensor:
    """Cross entropy of the shares that the scores give with those in `pairs.target` (SwAV, DINO).

        loss_i = -sum over j of target_ij log softmax_j(s_ij / t)

    It is the log of the number of others where all scores are alike, whatever the target. The value is the mean over
    the anchors of all processes; gradients are those of it times the number of processes, as `infonce`'s are. Holds
    N x M numbers: for few others (classes, prototypes).

    Args:
        pairs: With a `target` `[..., N, M]` whose rows are >= 0 and sum to 1.
        similarity: See `nearfar.similarity`.
        temperature: Divides the scores, > 0.

    Raises:
        UsageError: No target, or one of another shape.

    Example:
        >>> from nearfar import similarity
        >>> pairs = Pairs(torch.zeros(2, 3), torch.eye(3), target=torch.eye(3)[:2], gather=False)
        >>> round(cross_entropy(pairs, similarity.dot).item(), 4)  # log 3
        1.0986
    """
    target, logs = _shares(pairs, similarity, checked_temperature(temperature))
    return _mean(-(target * logs).sum(dim=-1))


def divergence(pairs: Pairs, similarity: Similarity, *, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the shares that the scores give from those in `pairs.target`.

        loss_i = t^2 * sum over j of target_ij ( log target_ij - log softmax_j(s_ij / t) )

    `cross_entropy` less the entropy of the target, times t^2, which keeps the size of the gradient when the temperature
    changes (Hinton et al. 2015, section 2, https://arxiv.org/abs/1503.02531). Mean and gradients are as there.

    Args:
        pairs: With a `target` `[..., N, M]` whose rows are >= 0 and sum to 1, made at the same temperature.
        similarity: See `nearfar.similarity`.
        temperature: Divides the scores, > 0.

    Raises:
        UsageError: No target, or one of another shape.

    Example:
        >>> from nearfar import similarity
        >>> z = torch.eye(2)
        >>> pairs = Pairs(z, z, target=torch.softmax(z / 4, dim=1), gather=False)
        >>> abs(divergence(pairs, similarity.dot, temperature=4.0).item()) < 1e-6
        True
    """
    degrees = checked_temperature(temperature)
    target, logs = _shares(pairs, similarity, degrees)
    return degrees**2 * _mean((torch.xlogy(target, target) - target * logs).sum(dim=-1))


def _shares(pairs: Pairs, similarity: Similarity, degrees: float) -> tuple[Tensor, Tensor]:
    """The target, and the logs of the shares that the scores give, `[..., N, M]` each."""
    target, shape = pairs.target, (*pairs.anchor.shape[:-1], pairs.other.shape[-2])
    if target is None or target.shape != shape:
        found = "none" if target is None else list(target.shape)
        raise UsageError(f"target: {found}", where="pairs.target", mend=f"shares of shape {list(shape)}")
    scores = similarity.anchor(pairs.anchor) @ similarity.other(pairs.other).mT
    scores = scores if similarity.curve is None else similarity.curve.value(scores)
    return target, torch.log_softmax(scores / degrees, dim=-1)


def _mean(rows: Tensor) -> Tensor:
    """Mean over the anchors of all processes."""
    summed, count = total(torch.stack([rows.sum(), rows.new_full((), rows.numel())])).unbind()
    return summed / count.clamp(min=1)
