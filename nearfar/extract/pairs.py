"""Who meets whom: from the embeddings of all views to `Pairs`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError
from ..method import Batch, Memory, Pairs


def every_view(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """Every embedding meets every other of the batch; those of the same image are positives (NT-Xent)."""
    return [_all_with_all(online, batch, batch.ids)]


def same_label(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """Every embedding meets every other of the batch; those of the same class are positives (SupCon).

    Raises:
        UsageError: The batch has no labels.
    """
    if batch.labels is None:
        raise UsageError(
            "this method learns from labels and the data has none",
            where="labels",
            mend="one folder a class, or a column of labels (--label NAME); or choose --method simclr",
        )
    return [_all_with_all(online, batch, batch.labels)]


def own_key(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """Each query meets the teacher's embedding of its own image, and the memory as negatives (MoCo)."""
    assert memory is not None, "own_key needs a memory"
    rows = memory.rows()
    return [
        Pairs(anchor=q, other=rows, positive=k, gather=False, other_unit=True)
        for q, k in zip(online, slow, strict=True)
    ]


def _all_with_all(embeddings: list[Tensor], batch: Batch, key: Tensor) -> Pairs:
    """One comparison of all views with all views; slots number (image, view), so they are unique over processes."""
    views = len(embeddings)
    together = torch.cat(embeddings)
    keys = torch.cat([key] * views)
    first = batch.ids * views
    slots = torch.cat([first, *(first + view for view in range(1, views))])
    return Pairs(anchor=together, other=together, anchor_key=keys, other_key=keys, anchor_slot=slots, other_slot=slots)
