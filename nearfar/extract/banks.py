"""Who meets whom, where embeddings are compared with a memory bank.

Tian et al., Contrastive Multiview Coding, 2019, https://arxiv.org/abs/1906.05849.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..bank import Bank
from ..method import Batch, Memory, Pairs

Directions = tuple[tuple[int, int], ...]
"""Numbers of views: the one whose embeddings look, and the one whose rows they look among."""


def core_view(views: int) -> Directions:
    """View 0 with each of the others, both ways: 2 (M - 1) directions.

    Example:
        >>> core_view(3)
        ((0, 1), (1, 0), (0, 2), (2, 0))
    """
    return tuple(pair for other in range(1, views) for pair in ((0, other), (other, 0)))


def full_graph(views: int) -> Directions:
    """Every view with every other, both ways: M (M - 1) directions.

    Example:
        >>> len(full_graph(4)), full_graph(2) == core_view(2)
        (12, True)
    """
    return tuple(pair for i in range(views) for j in range(i + 1, views) for pair in ((i, j), (j, i)))


def bank_rows(
    online: list[Tensor],
    slow: list[Tensor],
    batch: Batch,
    memory: Memory | None,
    *,
    directions: Directions,
    negatives: int | None = None,
) -> list[Pairs]:
    """Embeddings of view i look for their sample's row of view j, one comparison for each direction (i, j).

    The loss is the sum over directions. One draw of rows serves all of them. Drawn rows are copied for every anchor,
    `B * negatives * D` numbers a direction; all rows are used where they lie, which on a CPU is faster up to some
    100,000 of them: 4096 drawn of 50,000 took three times as long as all.

    Args:
        online: Embeddings of each view, `[B, D]`.
        slow: Not used.
        batch: The batch; ids say which rows are whose.
        memory: A `Bank` with rows for each view.
        directions: `core_view(M)`, `full_graph(M)`; ((0, 0),) where a single view looks among its own rows.
        negatives: Rows that each sample draws, >= 1, with replacement, its own among them; None: all others.

    Raises:
        UsageError: A sample without a row.
    """
    assert isinstance(memory, Bank), "bank_rows needs a bank"
    places = memory.places(batch)
    if negatives is None:
        numbers = torch.arange(len(memory.rows()), device=places.device)
        return [Pairs(online[i], memory.rows(j), places, numbers, gather=False, other_unit=True) for i, j in directions]
    drawn = memory.draw(batch, negatives)

    def taken(view: int, numbers: Tensor) -> Tensor:  # index_select took half the time of [...]
        return memory.rows(view).index_select(0, numbers.flatten()).unflatten(0, numbers.shape)

    return [
        Pairs(online[i].unsqueeze(1), taken(j, drawn), positive=taken(j, places[:, None]), gather=False)
        for i, j in directions
    ]
