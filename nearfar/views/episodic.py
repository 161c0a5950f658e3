"""Views of episodes, where supports are looked at more often than queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..episode import Shape
from .view import View, Views

if TYPE_CHECKING:
    from ..method import Batch


@dataclass(frozen=True, kw_only=True)
class SupportViews:
    """One view of every image of a batch of episodes, then further views of the supports alone.

    Args:
        episode: Shape of an episode.
        every: View of all images.
        supports: Further views of the supports, each `[T * S, C, size, size]`, episode by episode.

    View i is drawn with view number i, so equal descriptions give different views.

    Example:
        >>> shape = Shape(ways=5, shots=1, queries=15)
        >>> len(SupportViews(episode=shape, every=View(size=32), supports=(View(size=32),)).views)
        2
    """

    episode: Shape
    every: View
    supports: tuple[View, ...]

    @property
    def views(self) -> tuple[View, ...]:
        """All views, that of every image first."""
        return (self.every, *self.supports)

    def changed(self, **fields: object) -> SupportViews:
        """The same with other fields of every view."""
        supports = tuple(replace(view, **fields) for view in self.supports)
        return replace(self, every=replace(self.every, **fields), supports=supports)

    def __call__(self, batch: Batch) -> list[Tensor]:
        """The views of a batch: `[B, C, size, size]`, then as many as there are supports."""
        made = Views(self.every)(batch)
        rows = self.episode.parted(torch.arange(len(batch.ids)))[0].flatten()
        images, ids, sizes = batch.inputs[rows], batch.ids[rows], batch.sizes[rows]
        for number, view in enumerate(self.supports, 1):
            draw = view.draw(ids, sizes, seed=batch.seed, epoch=batch.epoch, view=number)
            made.append(view.apply(images, draw))
        return made
