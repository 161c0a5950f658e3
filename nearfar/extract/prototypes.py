"""Learned vectors, one a class: a classifier, told in pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..method import Pairs


class Prototypes(nn.Module):
    """One learned vector a class. With `similarity.dot`, temperature 1 and a bias `infonce` against them is the softmax
    cross entropy of a linear layer; with `similarity.cosine` and no bias it is a cosine classifier.

    Args:
        width: Width D of the vectors.
        count: Number C of classes.
        bias: A learned offset of each class; it is one more coordinate of the vectors, beside a 1 on the anchors' side.

    Starts as torch's linear layer does: uniform in `[-1 / sqrt(D), 1 / sqrt(D)]`.
    """

    def __init__(self, width: int, count: int, *, bias: bool = True) -> None:
        super().__init__()
        reach = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(count, width).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(count).uniform_(-reach, reach)) if bias else None

    def against(
        self, anchor: Tensor, key: Tensor | None = None, *, target: Tensor | None = None, weight: float = 1.0
    ) -> Pairs:
        """Each anchor against all prototypes.

        Args:
            anchor: `[N, D]`.
            key: Class of each, int64 `[N]`; or None where there is a `target`.
            target: Share of each class, `[N, C]`.
            weight: Of this comparison.
        """
        other = self.weight
        if self.bias is not None:
            anchor = torch.cat([anchor, torch.ones_like(anchor[:, :1])], dim=1)
            other = torch.cat([other, self.bias[:, None]], dim=1)
        classes = None if key is None else torch.arange(len(other), device=anchor.device)
        return Pairs(anchor, other, key, classes, target=target, weight=weight, gather=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Scores `[N, C]`, before any similarity: `W z + b`."""
        return nn.functional.linear(vectors, self.weight, self.bias)
