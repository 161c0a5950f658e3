"""The loss of methods without negatives: each anchor is drawn to its positive, and nothing is pushed away."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import total
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity


def attract(pairs: Pairs, similarity: Similarity, *, best: float = 1.0, scale: float = 1.0) -> Tensor:
    """How far the scores of the positives are from the best there is.

        loss_i = scale * (best - s(a_i, p_i))

    With cosines `best=1, scale=2` is `|a - p|^2` of unit vectors, in [0, 4] (BYOL, eq. 2), and `best=0` SimSiam's
    `-cos`. With `similarity.negative_distance` and `best=0` it is the squared distance. The value is the mean over the
    anchors of all processes; gradients are those of it times the number of processes, as `infonce`'s are.

    Args:
        pairs: With a positive of each anchor, `[..., N, D]`. Others play no part.
        similarity: See `nearfar.similarity`.
        best: What the score of a perfect pair is taken to be.
        scale: Factor.

    Raises:
        UsageError: Pairs without positives.

    Example:
        >>> from nearfar import similarity
        >>> z = torch.eye(2)
        >>> attract(Pairs(z, z[:0], positive=-z), similarity.cosine, scale=2.0)
        tensor(4.)
    """
    if pairs.positive is None:
        raise UsageError("no anchor has a positive", where="pairs.positive", mend="positives [..., N, D]")
    scores = (similarity.anchor(pairs.anchor) * similarity.other(pairs.positive)).sum(-1)
    scores = scores if similarity.curve is None else similarity.curve.value(scores)
    summed, count = total(torch.stack([(best - scores).sum(), scores.new_full((), scores.numel())])).unbind()
    return scale * summed / count.clamp(min=1)
