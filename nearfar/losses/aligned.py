"""InfoNCE between maps: the cells of one image are laid over those of the other by attention before they are compared.

Shapes: N anchors, M others, L cells of a map, W width.

Ouali, Hudelot, Tami, Spatial Contrastive Learning for Few-Shot Classification, 2021, https://arxiv.org/abs/2012.13831.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..distributed import gather, gather_with_gradient, shares, total, world
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .arguments import check_pairs, checked_temperature

BLOCK = 2**21
"""Most numbers of one kind in a block: 8 MB in fp32. On a CPU larger blocks measured slower, by half at 2**23."""


def aligned_infonce(pairs: Pairs, similarity: Similarity, *, width: int, temperature: float = 0.1) -> Tensor:
    """Mean over anchors of the mean over their positives of the negative log share that each has of the scores.

        s(a, b) = mean over l of ( f(v_a[l], v_b|a[l]) + f(v_b[l], v_a|b[l]) )
        v_b|a   = softmax(q_a k_b^T / sqrt W) v_b                             b laid over the cells of a
        loss_i  = mean over p in P_i of ( log( sum over j of exp(s_ij / t) ) - s_ip / t )

    f: the similarity of two cells. P_i: others with the anchor's key; equal slots take no part. Anchors without a
    positive take no part in the mean; where none takes part the loss is 0.

    The value is the mean over the anchors of all processes; gradients are those of it times the number of processes,
    as `infonce`'s are. The N x M scores are held; what lies between maps and scores, L^2 + L W numbers a pair, is
    computed for some anchors at a time, and again in the backward pass.

    Args:
        pairs: Anchors and others as flat `[L, 3, W]`: query, key and value of each cell, `[N, L * 3 * W]`.
        similarity: Of two cells. See `nearfar.similarity`.
        width: W.
        temperature: Divides the scores, > 0. With cosines they lie in [-2, 2].

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: temperature <= 0, shapes that do not fit, pairs without keys or with positives row by row.

    Example:
        >>> from nearfar import similarity
        >>> maps = torch.ones(4, 9 * 3 * 8)  # four images of 3 x 3 cells
        >>> key, slot = torch.tensor([0, 0, 1, 1]), torch.arange(4)
        >>> pairs = Pairs(maps, maps, key, key, anchor_slot=slot, other_slot=slot)
        >>> round(aligned_infonce(pairs, similarity.cosine, width=8).item(), 4)  # all alike: log 3
        1.0986
    """
    degrees = checked_temperature(temperature)
    check_pairs(pairs)
    if pairs.anchor.ndim != 2 or pairs.positive is not None or pairs.anchor.shape[1] % (3 * width):
        raise UsageError(
            f"anchors of shape {list(pairs.anchor.shape)}" + " and positives" * (pairs.positive is not None),
            where="pairs",
            mend=f"maps as [N, L * 3 * {width}], positives by keys",
        )
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        anchor, other, key, slot = _sides(pairs, width)
        scores = _scores(anchor, other, similarity) / degrees
        assert pairs.anchor_key is not None and key is not None
        positive = pairs.anchor_key[:, None] == key
        if pairs.anchor_slot is not None and slot is not None:
            out = pairs.anchor_slot[:, None] == slot
            positive, scores = positive & ~out, scores.masked_fill(out, torch.finfo(scores.dtype).min)
        count = positive.sum(1)
        logs = scores - scores.logsumexp(1, keepdim=True)
        rows = -(torch.where(positive, logs, 0).sum(1) / count.clamp(min=1))
        summed, anchors = total(torch.stack([rows.sum(), (count > 0).sum().to(rows)])).unbind()
        return summed / anchors.clamp(min=1)


def _sides(pairs: Pairs, width: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Anchors and others `[N, L, 3, W]`, the others with their keys and slots from all processes."""
    dtype = torch.float64 if torch.float64 in (pairs.anchor.dtype, pairs.other.dtype) else torch.float32
    anchor = pairs.anchor.to(dtype).unflatten(1, (-1, 3, width))
    if not pairs.gather or world() == 1:
        other = anchor if pairs.other is pairs.anchor else pairs.other.to(dtype).unflatten(1, (-1, 3, width))
        return anchor, other, pairs.other_key, pairs.other_slot
    count = shares(len(pairs.other), pairs.other.device)
    key, slot = (None if t is None else gather(t, count) for t in (pairs.other_key, pairs.other_slot))
    other = gather_with_gradient(pairs.other.to(dtype), count)
    return anchor, other.unflatten(1, (-1, 3, width)), key, slot


def _scores(anchor: Tensor, other: Tensor, similarity: Similarity) -> Tensor:
    """Scores `[N, M]`. Where both sides are the same, so are both directions."""
    there = _laid_over(anchor, other, similarity)
    return there + (there if other is anchor else _laid_over(other, anchor, similarity)).mT


def _laid_over(below: Tensor, above: Tensor, similarity: Similarity) -> Tensor:
    """Mean similarity of the cells of each map with those of each other laid over it, `[n, L, 3, W] -> [n, m]`."""
    (cells, _, width), grad = below.shape[1:], torch.is_grad_enabled()
    rows = max(BLOCK // max(len(above) * cells * max(cells, width), 1), 1)
    parts = [
        checkpoint(_block, some, above, similarity, use_reentrant=False, preserve_rng_state=False)
        if grad
        else _block(some, above, similarity)
        for some in below.split(rows)
    ]
    return torch.cat(parts)


def _block(below: Tensor, above: Tensor, similarity: Similarity) -> Tensor:
    # One product for each of the m maps above: the cells of all n below are its rows.
    query, _, own = below.flatten(0, 1).unbind(1)
    _, key, value = above.unbind(2)
    attention = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1)  # [m, n L, L]
    cells = (similarity.anchor(own) * similarity.other(attention @ value)).sum(-1)
    cells = cells if similarity.curve is None else similarity.curve.value(cells)
    return cells.unflatten(1, (len(below), -1)).mean(-1).mT
