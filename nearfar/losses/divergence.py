"""Divergence from given shares: learning from another network's answers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import total
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .arguments import checked_temperature


def divergence(pairs: Pairs, similarity: Similarity, *, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the shares that the scores give from those in `pairs.target`.

        loss_i = t^2 * sum over j of target_ij ( log target_ij - log softmax_j(s_ij / t) )

    The factor t^2 keeps the size of the gradient when the temperature changes (Hinton et al. 2015, section 2,
    https://arxiv.org/abs/1503.02531). The value is the mean over the anchors of all processes; gradients are those of
    it times the number of processes, as `infonce`'s are. Holds N x M numbers: for few others (classes, prototypes).

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
    target, shape = pairs.target, (*pairs.anchor.shape[:-1], pairs.other.shape[-2])
    if target is None or target.shape != shape:
        found = "none" if target is None else list(target.shape)
        raise UsageError(f"target: {found}", where="pairs.target", mend=f"shares of shape {list(shape)}")
    scores = similarity.anchor(pairs.anchor) @ similarity.other(pairs.other).mT
    scores = scores if similarity.curve is None else similarity.curve.value(scores)
    logs = torch.log_softmax(scores / degrees, dim=-1)
    rows = (torch.xlogy(target, target) - target * logs).sum(dim=-1)
    summed, count = total(torch.stack([rows.sum(), rows.new_tensor(rows.numel())])).unbind()
    return degrees**2 * summed / count.clamp(min=1)
