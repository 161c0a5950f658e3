"""Views with patches hidden: what a network does not see is not a number.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, https://arxiv.org/abs/2111.06377, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..randomness import uniforms
from .view import View

if TYPE_CHECKING:
    from ..method import Batch

HIDDEN = 2**32 + 3  # beside the numbers of views and of other draws, so that this one is independent of them


def hidden_patches(batch: Batch, *, patches: int, share: float) -> Tensor:
    """Which patches of each image are hidden: numbers in rising order, int64 `[B, hidden]`, on the CPU.

    A pure function of seed, epoch and id: the patches with the smallest of as many uniform numbers.

    Args:
        batch: Its images; the draw is addressed by its seed, epoch and ids.
        patches: Patches of an image, numbered row by row.
        share: Share that is hidden, in (0, 1), rounded to whole patches.

    Raises:
        UsageError: Nothing would be hidden, or nothing left.

    Example:
        >>> from nearfar.method import Batch
        >>> batch = Batch(torch.zeros(2, 3, 8, 8), torch.full((2, 2), 8), torch.arange(2))
        >>> hidden_patches(batch, patches=196, share=0.75).shape
        torch.Size([2, 147])
    """
    count = _hidden(patches, share)
    drawn = uniforms(batch.seed, batch.epoch, batch.ids.cpu(), HIDDEN, patches)
    return torch.from_numpy(np.sort(drawn.argsort(axis=1, kind="stable")[:, :count], axis=1))


def _hidden(patches: int, share: float) -> int:
    """How many that is."""
    count = round(patches * share)
    if not 0 < count < patches:
        raise UsageError(
            f"{count} of {patches} patches hidden", where="masked", mend="a share that hides some and leaves some"
        )
    return count


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Two views of one crop of every image, `[B, C, size, size]`: with patches that are not a number, and whole.

    Args:
        view: The view that patches are hidden of.
        patch: Side of a patch, pixels, a divisor of the view's.
        share: Share of the patches that is hidden, in (0, 1).

    Raises:
        UsageError: Patches that don't fit the view, or a share that hides none or all of them.

    Example:
        >>> Masked(view=View(size=32), patch=4, share=0.75).grid
        8
    """

    view: View
    patch: int
    share: float

    def __post_init__(self) -> None:
        if not 1 <= self.patch <= self.view.size or self.view.size % self.patch:
            raise UsageError(
                f"patches of {self.patch} px in views of {self.view.size} px",
                where="patch",
                mend="a divisor of the view's side",
            )
        _hidden(self.grid**2, self.share)

    @property
    def grid(self) -> int:
        """Rows, and columns, of patches."""
        return self.view.size // self.patch

    @property
    def views(self) -> tuple[View, ...]:
        """The view before anything is hidden."""
        return (self.view,)

    def changed(self, **fields: Any) -> Masked:
        """The same with other fields of the view."""
        return replace(self, view=replace(self.view, **fields))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """The masked view, then the whole one."""
        draw = self.view.draw(batch.ids, batch.sizes, seed=batch.seed, epoch=batch.epoch, view=0)
        whole = self.view.apply(batch.inputs, draw)
        hidden = torch.zeros(len(whole), self.grid**2, dtype=torch.bool)
        hidden.scatter_(1, hidden_patches(batch, patches=self.grid**2, share=self.share), True)
        pixels = hidden.unflatten(1, (1, self.grid, self.grid))
        pixels = pixels.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return [whole.masked_fill(pixels, math.nan), whole]
