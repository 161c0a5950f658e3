"""The nearest of earlier embeddings stands in for a view.

Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations,
ICCV 2021, https://arxiv.org/abs/2104.14548.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..method import Batch, Memory, Pairs
from ..similarity import unit

BLOCK = 2**23
"""Scores that are held at once: 32 MiB."""


class Neighbours(nn.Module):
    """The row of the memory that is nearest to `z_i` looks for `predictor(z_j)` among those of the batch, both ways.

    Neighbours carry no gradient. Each way has the weight 1/2, so that the loss is their mean.

    Args:
        predictor: `[B, D] -> [B, D]`, one view at a time.
    """

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """Two comparisons for two views."""
        assert memory is not None, "Neighbours needs a memory"
        rows, ids = memory.rows(), batch.ids
        near = [nearest(z, rows) for z in online]
        predicted = [self.predictor(z) for z in online]
        return [
            Pairs(near[i], predicted[j], anchor_key=ids, other_key=ids, weight=0.5)
            for i in range(len(near))
            for j in range(len(predicted))
            if i != j
        ]


@torch.no_grad()
def nearest(z: Tensor, rows: Tensor) -> Tensor:
    """For each embedding the row with the largest cosine; of equal ones the first.

    Args:
        z: `[B, D]`.
        rows: Unit vectors, `[K, D]`.

    Example:
        >>> nearest(torch.tensor([[3.0, 1.0]]), torch.eye(2))
        tensor([[1., 0.]])
    """
    parts = unit(z).to(rows.dtype).split(max(BLOCK // len(rows), 1))
    return rows[torch.cat([(part @ rows.T).argmax(dim=1) for part in parts])].to(z.dtype)
