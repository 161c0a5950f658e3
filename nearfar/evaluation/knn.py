"""Weighted k-nearest-neighbour classification, the quickest honest look at a representation, and exact search."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import UsageError
from ..similarity import TINY, unit
from .protocol import Score, accuracy, labelled, same_width

ROWS, COLUMNS = 1024, 32768
"""Size of one tile of similarities: 128 MiB."""
MOST_K = 200
GROUP = 8
"""Columns that stand far apart and are looked at as one, at first. Of 2 to 32 the fastest for k from 1 to 200."""


def nearest(queries: Tensor, bank: Tensor, k: int, *, exclude_self: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """The k most similar rows of `bank` for each query by cosine, best first, exact; at most ROWS queries at a time.

    Memory is that of one tile, not of N x M similarities; `queries` and `bank` may be mapped from the disk.

    Args:
        queries: `[N, D]`.
        bank: `[M, D]`.
        k: In [1, M], or in [1, M - 1] where rows leave themselves out.
        exclude_self: `queries` is `bank`, and row i is no neighbour of row i.

    Yields:
        Cosines float32 and indices int64 into `bank`, both `[rows, k]`, part after part in the order of the queries.
    """
    queries, bank, width = queries.detach(), bank.detach(), min(COLUMNS, len(bank))
    memory, others = bank.new_empty(min(ROWS, len(queries)) * width), bank.new_empty(width, bank.shape[1])
    for top in range(0, len(queries), ROWS):
        part = unit(queries[top : top + ROWS])
        scores, indices = part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64, device=part.device)
        for left in range(0, len(bank), COLUMNS):
            some = bank[left : left + COLUMNS]  # made unit here: a few percent of the product, and no second bank
            some = normalize(some, dim=1, eps=TINY, out=others[: len(some)])
            # In the memory of the tile before: new pages took a tenth of the time.
            tile = torch.mm(part, some.T, out=memory[: len(part) * len(some)].view(len(part), len(some)))
            if exclude_self:
                tile.diagonal(top - left).fill_(-torch.inf)
            best, at = largest(tile, min(k, tile.shape[1]))
            scores, indices = torch.cat([scores, best], 1), torch.cat([indices, at + left], 1)
            scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
            indices = indices.gather(1, order)
        yield scores, indices


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `scores.topk(k, dim=1)` gives, 1.5 to 3 times as fast: values and indices `[rows, k]`, the largest first.

    The k largest lie in the k groups whose own largest are the largest, so the others need not be searched.
    """
    width = scores.shape[1] // GROUP
    if width < 4 * k:
        values, places = scores.topk(k, dim=1)
        return values, places
    grouped = width * GROUP
    groups = scores[:, :grouped].unflatten(1, (GROUP, width)).amax(dim=1).topk(k, dim=1, sorted=False).indices
    members = (groups[:, None] + width * torch.arange(GROUP, device=scores.device)[:, None]).flatten(1)
    rest = torch.arange(grouped, scores.shape[1], device=scores.device).expand(len(scores), -1)
    candidates = torch.cat([members, rest], dim=1)
    values, places = scores.gather(1, candidates).topk(k, dim=1)
    return values, candidates.gather(1, places)


def usual_k(labels: Tensor) -> int:
    """How many vote where nobody says: 200 as in the paper, or as many as a class has on average where that is less.

    At temperature 0.1 far neighbours still count: where nearly all samples vote, the largest class wins.
    """
    return min(MOST_K, max(1, len(labels) // len(labels.unique())))


def predict_knn(
    train_x: ArrayLike | Tensor,
    train_y: ArrayLike | Tensor,
    test_x: ArrayLike | Tensor | None = None,
    *,
    k: int | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """Classes by the weighted vote of the k most similar training images, int64 `[M]` (see `knn`)."""
    train_x, train_y = labelled(train_x, train_y, "train")
    leave_one_out = test_x is None
    queries = train_x if test_x is None else torch.as_tensor(test_x).detach().to(train_x)
    same_width(train_x, queries)
    k = usual_k(train_y) if k is None else k
    k, classes = min(k, len(train_x) - leave_one_out), int(train_y.max()) + 1
    if k < 1 or temperature <= 0:
        raise UsageError(f"k = {k} neighbours, temperature {temperature}", where="knn", mend="k >= 1, temperature > 0")
    predicted = []
    for scores, indices in nearest(queries, train_x, k, exclude_self=leave_one_out):
        weights = ((scores - scores[:, :1]) / temperature).exp()  # a common factor changes no vote and can't overflow
        votes = scores.new_zeros(len(scores), classes).scatter_add_(1, train_y[indices], weights)
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted) if predicted else train_y[:0]


def knn(
    train_x: ArrayLike | Tensor,
    train_y: ArrayLike | Tensor,
    test_x: ArrayLike | Tensor | None = None,
    test_y: ArrayLike | Tensor | None = None,
    *,
    k: int | None = None,
    temperature: float = 0.1,
) -> Score:
    """Accuracy of the weighted kNN classifier; nothing is trained and nothing is chosen.

    `argmax over classes c of  sum over the k nearest i with y_i = c of exp(cos(x, x_i) / temperature)`

    Where no test images are given, each training image is classified by all others (leave one out): for use during
    training, without a look at the test images.

    Args:
        train_x: Features `[N, D]` of the training images under the evaluation transform, not under augmentation.
        train_y: Labels int `[N]`, >= 0.
        test_x: Features `[M, D]`, or None: leave one out.
        test_y: Labels int `[M]`, or None.
        k: Neighbours that vote; no more than there are. None: `usual_k`.
        temperature: > 0; small lets the nearest decide, large makes all votes equal. 0.07 in the paper.

    Raises:
        UsageError: Shapes that don't fit, or values that are not finite.

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018, section 3.4,
    https://arxiv.org/abs/1805.01978.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), np.array([0, 0, 1, 1])
        >>> knn(x, y, x, y, k=2).value
        1.0
    """
    if (test_x is None) != (test_y is None):
        raise UsageError("test_x and test_y belong together", where="knn", mend="give both, or neither")
    known = labelled(train_x, train_y, "train")[1]
    n = len(known) - (test_x is None)
    asked = usual_k(known) if k is None else k
    used = f"{asked}" if asked <= n else f"{n} (all there are, {asked} asked for)"
    used += f" (a class has no more on average, else {MOST_K})" * (k is None and asked < MOST_K)
    protocol = f"weighted kNN, k = {used}, temperature {temperature}, cosine, "
    if test_x is None or test_y is None:
        truth = torch.as_tensor(train_y)
        protocol += f"leave one out among {n + 1} training samples"
    else:
        _, truth = labelled(test_x, test_y, "test")
        protocol += f"{n} training samples, evaluation transform for both parts"
    return accuracy(predict_knn(train_x, train_y, test_x, k=k, temperature=temperature), truth, protocol)
