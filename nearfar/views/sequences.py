"""Views of sequences: a window of steps for training, all steps for evaluation. Steps of padding are NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import UsageError
from ..randomness import uniforms

if TYPE_CHECKING:
    from ..method import Batch


@dataclass(frozen=True)
class Windows:
    """One view: consecutive steps of each sequence from a random one on, `[B, steps, ...]`.

    Where it starts depends on (seed, epoch, id) alone; shorter sequences are taken whole, at the beginning of the view.

    Args:
        steps: Length of the view, >= 1.

    Example:
        >>> from nearfar.method import Batch
        >>> count = torch.arange(6.0).view(1, 6, 1).repeat(2, 1, 1)
        >>> batch = Batch(count, torch.tensor([[6], [2]]), torch.arange(2))
        >>> Windows(3)(batch)[0].squeeze(2)
        tensor([[3., 4., 5.],
                [0., 1., nan]])
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"a window of {self.steps} steps", where="steps", mend="1 or more")

    def __call__(self, batch: Batch) -> list[Tensor]:
        """The view of a batch, float32."""
        sizes = batch.sizes[:, 0]
        share = uniforms(batch.seed, batch.epoch, batch.ids.numpy(), view=0, slots=1)[:, 0]
        room = (sizes - self.steps).clamp_min(0)
        start = (torch.from_numpy(share) * (room + 1)).long()
        return [_taken(batch.inputs, sizes, start, self.steps)]


@dataclass(frozen=True)
class Steps:
    """The transform of evaluation: every step of the sequence, `[B, T, ...]` for a longest of T."""

    def __call__(self, inputs: Tensor, sizes: ArrayLike) -> Tensor:
        """Sequences `[B, T, ...]` and their lengths `[B, 1]` -> view, float32."""
        lengths = torch.from_numpy(np.asarray(sizes, np.int64))[:, 0]
        return _taken(inputs, lengths, torch.zeros_like(lengths), inputs.shape[1])

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON holds them, for the run folder."""
        return {"kind": "steps"}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Steps:
        """The inverse of `to_dict`.

        Raises:
            UsageError: Another setting is there.
        """
        if dict(settings) != {"kind": "steps"}:
            raise UsageError(
                f"sequences are taken whole, found the settings {dict(settings)}",
                where="input transform",
                mend="use the settings that the run was saved with",
            )
        return cls()


def _taken(inputs: Tensor, sizes: Tensor, start: Tensor, steps: int) -> Tensor:
    """`steps` steps from `start` on, NaN where the sequence has ended; uint8 as a share of 255."""
    places = start[:, None] + torch.arange(steps)
    taken = inputs[torch.arange(len(inputs))[:, None], places.clamp_max(inputs.shape[1] - 1)]
    taken = taken.float() / 255 if taken.dtype == torch.uint8 else taken.float()
    there = places < sizes[:, None]
    return taken.masked_fill(~there.view(*there.shape, *[1] * (taken.ndim - 2)), torch.nan)
