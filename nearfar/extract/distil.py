"""Self-distillation: each view is asked for the shares of prototypes that a slow copy gives the large views.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers (DINO), ICCV 2021,
https://arxiv.org/abs/2104.14294, section 3.1.

Shapes: B samples, K prototypes, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..distributed import total
from ..errors import UsageError
from ..method import Batch, Memory, Pairs
from ..schedules import Ramp
from ..similarity import unit
from .swapped import LatePrototypes, swapped


class Distilled(nn.Module):
    """Each view against the prototypes, with the slow copy's answers to the other large views as its target.

        target = softmax((cos(z', c') - centre) / t),    z' and c' the slow embedding and prototypes
        centre <- momentum * centre + (1 - momentum) * mean of cos(z', c'),    after use, over all processes

    The centre keeps one prototype from taking all, the low temperature keeps the shares from becoming all alike.
    Cosines are what the paper's weight-normalised last layer with its length held at 1 gives. The slow prototypes
    begin as the trained ones and follow them as the teacher follows the network. One comparison for each view.

    Args:
        width: Width D of an embedding.
        count: Number K of prototypes.
        temperature: Of the target, > 0, by progress.
        momentum: Of the centre, in [0, 1].
        freeze: Share of the run in which the trained prototypes stay as they are, in [0, 1].

    Raises:
        UsageError: A value out of its range.
    """

    slow: Tensor
    centre: Tensor
    temperature: Tensor

    def __init__(
        self, width: int, count: int, *, temperature: Ramp, momentum: float = 0.9, freeze: float = 0.0
    ) -> None:
        super().__init__()
        if min(temperature.start, temperature.end) <= 0 or not 0 <= momentum <= 1:
            raise UsageError(
                f"a temperature of {temperature}, a centre with momentum {momentum}",
                where="temperature, momentum",
                mend="temperatures > 0, and a momentum in [0, 1]",
            )
        self.prototypes, self.ramp, self.momentum = LatePrototypes(width, count, freeze=freeze), temperature, momentum
        self.register_buffer("slow", self.prototypes.vectors.weight.detach().clone())
        self.register_buffer("centre", torch.zeros(count))
        self.register_buffer("temperature", torch.tensor(temperature(0.0)))
        self.mean: Tensor | None = None  # of this step's answers, until the step is done

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """One comparison for each view, with the weights of the mean over pairs of views."""
        with torch.no_grad():
            scores = torch.stack([unit(z) @ unit(self.slow).mT for z in slow])
            targets = torch.softmax((scores - self.centre) / self.temperature, dim=-1)
            count = scores.new_full((1,), scores.shape[:2].numel())
            sums = total(torch.cat([scores.sum(dim=(0, 1)), count]))
            self.mean = sums[:-1] / sums[-1]
        return swapped(online, list(targets), self.prototypes())

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Moves the centre and the temperature, after a step."""
        if self.mean is not None:
            self.centre.lerp_(self.mean, 1 - self.momentum)
            self.mean = None
        self.temperature.fill_(self.ramp(progress))

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Moves the slow prototypes: `slow <- decay * slow + (1 - decay) * trained`."""
        self.slow.lerp_(self.prototypes.vectors.weight, 1 - decay)
