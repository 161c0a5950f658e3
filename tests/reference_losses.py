"""The slow, obvious twin of the losses: the whole N x M matrix with masks, one anchor at a time, autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.method import Pairs
from nearfar.similarity import Similarity


def dense_infonce(
    pairs: Pairs,
    similarity: Similarity,
    *,
    temperature: float | Tensor = 0.1,
    positives: str = "mean_log",
    denominator: str = "all",
) -> Tensor:
    """Mean of the losses of all anchors that take part."""
    losses = []
    n, m = pairs.anchor.shape[-2], pairs.other.shape[-2]
    episodes = pairs.anchor.shape[:-2].numel()
    for e in range(episodes):
        anchor = similarity.anchor(pairs.anchor).reshape(episodes, n, -1)[e]
        other = similarity.other(pairs.other).reshape(episodes, m, -1)[e]
        scores = anchor @ other.T
        positive, usable = torch.zeros(n, m, dtype=torch.bool), torch.ones(n, m, dtype=torch.bool)
        if pairs.anchor_key is not None and pairs.other_key is not None:
            positive = pairs.anchor_key.reshape(episodes, n, 1)[e] == pairs.other_key.reshape(episodes, 1, m)[e]
        if pairs.anchor_slot is not None and pairs.other_slot is not None:
            usable = pairs.anchor_slot.reshape(episodes, n, 1)[e] != pairs.other_slot.reshape(episodes, 1, m)[e]
        if pairs.positive is not None:
            given = similarity.other(pairs.positive).reshape(episodes, n, -1)[e]
            scores = torch.cat([(anchor * given).sum(-1, keepdim=True), scores], dim=1)
            column = torch.ones(n, 1, dtype=torch.bool)
            positive, usable = torch.cat([column, positive], dim=1), torch.cat([column, usable], dim=1)
        scores = (scores if similarity.curve is None else similarity.curve.value(scores)) / temperature
        for i in range(n):
            p, q = scores[i][positive[i] & usable[i]], scores[i][~positive[i] & usable[i]]
            if len(p) and (len(q) or denominator != "negatives"):
                losses.append(_row(p, q, positives, denominator))
    return torch.stack(losses).mean() if losses else 0 * (pairs.anchor.sum() + pairs.other.sum())


def _row(p: Tensor, q: Tensor, positives: str, denominator: str) -> Tensor:
    """Loss of one anchor with positive scores p and negative scores q, as the paper's formula has it."""
    if denominator == "own_and_negatives":
        return torch.stack([torch.logsumexp(torch.cat([one[None], q]), 0) - one for one in p]).mean()
    below = torch.logsumexp(q if denominator == "negatives" else torch.cat([p, q]), 0)
    return below - (p.mean() if positives == "mean_log" else torch.logsumexp(p, 0))
