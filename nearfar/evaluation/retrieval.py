"""Does a search by look-alike bring back the same class?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import UsageError
from ..similarity import unit
from .protocol import Score, labelled, wilson

ELEMENTS = 2**23
"""Similarities that are ranked at once: 32 MiB."""


def retrieval(x: ArrayLike | Tensor, y: ArrayLike | Tensor, *, at: Sequence[int] = (1, 5, 10)) -> dict[str, Score]:
    """Each image searches all others by cosine: `{"recall@1": ..., "recall@5": ..., "recall@10": ..., "map": ...}`.

    recall@k: share of queries with at least one image of their class among the k nearest.
    mAP: mean over queries of `1/R * sum over relevant images of (relevant so far) / (rank)`, over the whole ranking.

    Memory is that of a tile of rows; time grows with N^2 log N, so give at most some ten thousand images.

    Args:
        x: Features `[N, D]`.
        y: Labels int `[N]`, >= 0. A query whose class has no other image has no right answer and is left out.
        at: The k of recall@k, each >= 1.

    Raises:
        UsageError: No class has two images.

    Source: recall@k as in Jégou et al., Product Quantization for Nearest Neighbor Search, 2011, section V; average
    precision as in Manning et al., Introduction to Information Retrieval, 2008, section 8.4.
    """
    x, y = labelled(x, y, "retrieval")
    if not at or min(at) < 1:
        raise UsageError(f"recall at {list(at)}", where="at", mend="whole numbers from 1 on")
    unit_x, hits, precisions = unit(x), [], []
    rows = max(1, ELEMENTS // len(x))
    for top in range(0, len(x), rows):
        scores = unit_x[top : top + rows] @ unit_x.T
        scores.diagonal(top).fill_(-torch.inf)  # the query itself, last in its ranking
        ranking = scores.argsort(dim=1, descending=True, stable=True)[:, :-1]
        relevant = y[ranking] == y[top : top + rows, None]
        relevant = relevant[relevant.any(dim=1)]
        hits.append(torch.stack([relevant[:, :k].any(dim=1) for k in at]).cpu())
        rank = torch.arange(1, relevant.shape[1] + 1, device=x.device)
        precision = relevant.cumsum(dim=1).double() / rank
        precisions.append(((precision * relevant).sum(dim=1) / relevant.sum(dim=1)).cpu())
    found, average = torch.cat(hits, dim=1), torch.cat(precisions)
    n = found.shape[1]
    if n == 0:
        raise UsageError("no class has two samples", where="retrieval_y", mend="give at least two samples of a class")
    alone = len(x) - n
    left_out = (
        f", {alone} quer{'y' if alone == 1 else 'ies'} without another image of the class left out" if alone else ""
    )
    protocol = f"{n} queries against all {len(x) - 1} others, cosine{left_out}"
    scores = {}
    for k, hit in zip(at, found, strict=True):
        low, high = wilson(int(hit.sum()), n)
        text = f"share of queries with their class among the {k} nearest; {protocol}; 95 % Wilson interval over queries"
        scores[f"recall@{k}"] = Score(float(hit.double().mean()), low, high, text)
    scores["map"] = Score(
        float(average.mean()), None, None, f"mean average precision over the whole ranking; {protocol}"
    )
    return scores
