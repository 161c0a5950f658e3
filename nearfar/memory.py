"""Memories: embeddings of earlier steps, kept in buffers so that a checkpoint holds them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributed import gather
from .errors import UsageError
from .method import Batch
from .similarity import unit


class Queue(nn.Module):
    """The last `length` keys, oldest overwritten first (MoCo, He et al. 2020, section 3.2, https://arxiv.org/abs/1911.05722).

    Args:
        width: Width D of an embedding.
        length: Number K of embeddings kept; a multiple of the global batch.
        views: Numbers of the slow embeddings that are kept, of those there are; None: all.

    Starts with random unit vectors, drawn from torch's generator at construction.
    """

    keys: Tensor
    pointer: Tensor

    def __init__(self, *, width: int, length: int, views: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.views = views
        self.register_buffer("keys", unit(torch.randn(length, width)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def check_batch(self, batch: int) -> None:
        """Raises UsageError where the global batch does not divide the length."""
        length = len(self.keys)
        if length % batch:
            fitting = max(length // batch, 1) * batch
            raise UsageError(
                f"a queue of {length} is no multiple of the batch of {batch}",
                where="queue",
                mend=f"--queue {fitting}, or another --batch",
            )

    def rows(self) -> Tensor:
        """The keys `[K, D]`, as they are before this step adds its own, in place, after its gradient."""
        return self.keys

    def remember(self, slow: list[Tensor], batch: Batch) -> None:
        """Puts the unit keys of all processes in place of the oldest."""
        for keys in slow if self.views is None else [slow[view] for view in self.views]:
            rows = gather(unit(keys.detach())).to(self.keys.dtype)
            places = (self.pointer + torch.arange(len(rows), device=rows.device)) % len(self.keys)  # nothing waits
            self.keys.index_copy_(0, places, rows)
            self.pointer.copy_((self.pointer + len(rows)) % len(self.keys))
