"""What a healthy run looks like, in numbers, measured on the embeddings of a step.

Shapes: N images, or of embeddings of cells N samples with L cells each; D width.
"""

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

    Of cells `[N, L, D]` the deviations are those from the same cell of the other samples, so that padding and the
    place of a cell, which an encoder tells whatever it is shown, don't count.

    Source: Chen & He, Exploring Simple Siamese Representation Learning, 2021, section 4.1, https://arxiv.org/abs/2011.10566.
    """
    return float(_deviations(z).square().mean(dim=0).sqrt().mean() * z.shape[-1] ** 0.5)


def effective_rank(z: Tensor) -> float:
    """`exp(-sum p log p)`, p the singular values of the centred unit embeddings over their sum; in [1, min(N, D)].

    Source: Roy & Vetterli, The effective rank, 2007. Differs: embeddings are centred, those of cells `[N, L, D]` cell
    by cell, so that a common offset, which every untrained network has, doesn't count as structure.
    """
    deviations = _deviations(z).double()
    wide = deviations.shape[0] < deviations.shape[1]  # the smaller of the two products: at D = 8,192 17 times as fast
    product = deviations @ deviations.T if wide else deviations.T @ deviations
    values = torch.linalg.eigvalsh(product).clamp_min(0).sqrt()
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
    if len(z) < 2:
        return 0.0
    product = unit(z).double() @ unit(z).double().T
    length = product.diagonal()
    near = (-2 * (length[:, None] + length - 2 * product).clamp_min(0)).exp()
    return float(((near.sum() - near.trace()) / (len(z) * (len(z) - 1))).log())


def _deviations(z: Tensor) -> Tensor:
    """Unit embeddings `[N, D]` less their mean; of `[N, L, D]` less that of the same cell, zeros left out: padding."""
    if z.dim() == 2:
        return unit(z) - unit(z).mean(dim=0)
    there = _there(z)[..., None]
    mean = (unit(z) * there).sum(dim=0) / there.sum(dim=0).clamp_min(1)
    several = there & (there.sum(dim=0) > 1)  # a cell without others is no measure of how they differ
    return (unit(z) - mean)[(several if several.any() else there)[..., 0]]


def _there(z: Tensor) -> Tensor:
    """Which cells are not padding; all of them where nothing else is left."""
    there = z.any(dim=-1)
    return there if there.any() else ~there


def _some_cells(z: Tensor, most: int) -> Tensor:
    """At most `most` cells of `[N, L, D]`: up to 16 of a sample, evenly, of as many samples as that allows, evenly."""
    cells = min(z.shape[1], 16, most)
    samples = min(len(z), most // cells)
    rows, columns = (torch.arange(n) * whole // n for n, whole in ((samples, len(z)), (cells, z.shape[1])))
    return z[rows[:, None].to(z.device), columns.to(z.device)]


@torch.no_grad()
def measure(online: list[Tensor], slow: list[Tensor], *, most: int = 512) -> dict[str, float]:
    """All four, on at most `most` embeddings of the step; of cells `[B, L, D]` the alignment is that of their means.

    A method with a single view has no alignment.
    """
    # On the CPU: singular values and pairwise distances are not there on every device.
    first, last = (
        (z.flatten(1, -2).mean(1) if z.dim() > 2 else z).float().cpu() for z in (online[0][:most], slow[-1][:most])
    )
    each, apart = first, first
    if online[0].dim() > 2:
        each = _some_cells(online[0].flatten(1, -2), most).float().cpu()
        apart = each[_there(each)]
    row = {"std": spread(each), "rank": effective_rank(each), "uniformity": uniformity(apart)}
    if online[0].shape == slow[-1].shape and not torch.equal(first, last):
        row["alignment"] = alignment(first, last)
    return row


@dataclass
class Health:
    """Stops a run that can't come to anything: one whose embeddings have been alike for `steps` steps.

    Some begin so and recover: MoCo on few images, until keys have taken the place of the queue's random vectors (on
    3,600 digits the spread fell to 0.02 within 14 steps and was 0.22 after 70).
    """

    steps: int = 100
    since: int | None = field(default=None, init=False)

    def check(self, step: int, row: dict[str, float]) -> None:
        """Raises HealthError where all embeddings have become alike, and stayed so."""
        if row["std"] >= COLLAPSED_STD:
            self.since = None
            return
        self.since = step if self.since is None else self.since
        if step - self.since >= self.steps:
            raise HealthError(
                f"collapse: all embeddings are alike (std {row['std']:.4f} of 1, effective rank {row['rank']:.1f})"
                f" since step {self.since}",
                where=f"step {step}",
                mend="a lower --lr is the first thing to try; then a longer --warmup-epochs, a larger --batch",
            )
