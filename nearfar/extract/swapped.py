"""Each view of an image is told the shares that its other large views have of learned prototypes.

Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (SwAV), NeurIPS 2020,
https://arxiv.org/abs/2006.09882, section 3. Views with shares are large crops, the others small ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..method import Pairs
from .prototypes import Prototypes


class LatePrototypes(nn.Module):
    """Learned vectors, in no class's name, whose gradient is zero in the first part of the run.

    They stay in the graph all the time, so that every process has a gradient of each, as DDP expects.

    Args:
        width: Width D of a vector.
        count: Number K of them, >= 2.
        freeze: Share of the run in which they stay as they are, in [0, 1].

    Raises:
        UsageError: A value out of its range.

    Example:
        >>> prototypes = LatePrototypes(4, 8, freeze=0.5)
        >>> prototypes().sum().backward()
        >>> prototypes.vectors.weight.grad.abs().max()
        tensor(0.)
    """

    progress: Tensor

    def __init__(self, width: int, count: int, *, freeze: float = 0.0) -> None:
        super().__init__()
        if count < 2 or not 0 <= freeze <= 1:
            raise UsageError(
                f"{count} prototypes, frozen for {freeze} of the run",
                where="prototypes, freeze",
                mend="two prototypes or more, and a share in [0, 1]",
            )
        self.vectors, self.freeze = Prototypes(width, count, bias=False), freeze
        self.register_buffer("progress", torch.zeros(()))

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Tells how far the run is, in [0, 1]."""
        self.progress.fill_(progress)

    def forward(self) -> Tensor:
        """The vectors `[K, D]`, of any length."""
        weight = self.vectors.weight
        return torch.where(self.progress < self.freeze, weight.detach(), weight)


def swapped(online: list[Tensor], shares: list[Tensor], prototypes: Tensor) -> list[Pairs]:
    """Every view against the prototypes, with the mean of the other large views' shares as its target.

    With L large views of V and H the cross entropy, the sum of the comparisons is the mean over ordered pairs

        1 / (L (V - 1)) * sum over large s, and v != s, of H(shares of s, softmax of v)

    since H is linear in its first argument: V comparisons in place of L (V - 1), which are 14 for two large and six
    small views.

    Args:
        online: Embeddings `[B, D]` of all V views, the large ones first.
        shares: Of the L large views, `[B, K]`, rows that sum to 1.
        prototypes: `[K, D]`.
    """
    large, views = len(shares), len(online)
    everyone = torch.stack(shares).mean(dim=0)
    pairs = []
    for view, z in enumerate(online):
        others = [share for number, share in enumerate(shares) if number != view]
        target = everyone if len(others) == large else torch.stack(others).mean(dim=0)
        weight = len(others) / (large * (views - 1))
        pairs.append(Pairs(z, prototypes, target=target, weight=weight, gather=False))
    return pairs
