"""What a healthy run looks like, in numbers, measured on the embeddings `[N, D]` of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import HealthError
from .similarity import unit

COLLAPSED_STD = 0.02
"""Below this share of the spread of random directions all embeddings are alike (cosine above 0.9996)."""


def spread(z: Tensor) -> float:
    """`sqrt(D) * mean over dimensions of std(z / |z|)`: about 1 for random directions, 0 where all are alike.

    Source: Chen & He, Exploring Simple Siamese Representation Learning, 2021, section 4.1, https://arxiv.org/abs/2011.10566.
    """
    return float(unit(z).std(dim=0, correction=0).mean() * z.shape[-1] ** 0.5)


def effective_rank(z: Tensor) -> float:
    """`exp(-sum p log p)`, p the singular values of the centred unit embeddings over their sum; in [1, min(N, D)].

    Source: Roy & Vetterli, The effective rank, 2007. Differs: embeddings are centred, so that a common offset, which
    every untrained network has, doesn't count as structure.
    """
    centred = unit(z) - unit(z).mean(dim=0)
    values = torch.linalg.svdvals(centred.double())
    p = values / values.sum().clamp_min(1e-30)
    return float(torch.exp(-(p * torch.log(p.clamp_min(1e-30))).sum()))


def alignment(a: Tensor, b: Tensor) -> float:
    """`mean |a - b|^2` over unit embeddings of two views of each image; 0 is perfect, 2 is no relation.

    Source: Wang & Isola, Understanding Contrastive Representation Learning, 2020, eq. 7, https://arxiv.org/abs/2005.10242.
    """
    return float((unit(a) - unit(b)).pow(2).sum(dim=-1).mean())


def uniformity(z: Tensor) -> float:
    """`log mean over pairs of exp(-2 |z_i - z_j|^2)`; about -4 where directions are spread out, 0 where all are alike.

    Source: Wang & Isola 2020, eq. 8.
    """
    return float(torch.pdist(unit(z)).pow(2).mul(-2).exp().mean().log()) if len(z) > 1 else 0.0


@torch.no_grad()
def measure(online: list[Tensor], slow: list[Tensor], *, most: int = 512) -> dict[str, float]:
    """All four, on at most `most` images of the step; embeddings of cells `[B, L, D]` are averaged first.

    A method with a single view has no alignment.
    """
    # On the CPU: singular values and pairwise distances are not there on every device.
    first, last = (
        (z.flatten(1, -2).mean(1) if z.dim() > 2 else z).float().cpu() for z in (online[0][:most], slow[-1][:most])
    )
    row = {"std": spread(first), "rank": effective_rank(first), "uniformity": uniformity(first)}
    if online[0].shape == slow[-1].shape and not torch.equal(first, last):
        row["alignment"] = alignment(first, last)
    return row


@dataclass
class Health:
    """Stops a run that can't come to anything. `patience` measurements in a row must agree."""

    patience: int = 2
    alike: int = field(default=0, init=False)

    def check(self, step: int, row: dict[str, float]) -> None:
        """Raises HealthError where all embeddings have become alike."""
        self.alike = self.alike + 1 if row["std"] < COLLAPSED_STD else 0
        if self.alike >= self.patience:
            raise HealthError(
                f"collapse: all embeddings are alike (std {row['std']:.4f} of 1, effective rank {row['rank']:.1f})",
                where=f"step {step}",
                mend="a lower --lr is the first thing to try; then a longer --warmup-epochs, a larger --batch",
            )
