"""Views that share a draw: what is the same in all of them says nothing about which is which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from .view import View

if TYPE_CHECKING:
    from ..method import Batch


@dataclass(frozen=True, init=False)
class SharedFlip:
    """Views of every image that are all mirrored or all not; view i is otherwise drawn with view number i.

    Where maps are compared cell by cell, a mirrored view beside one that isn't would have left and right changed.

    Args:
        views: The views; the probability of mirroring is that of the first.

    Example:
        >>> SharedFlip(View(size=32), View(size=32)).changed(flip=0.0).views[1].flip
        0.0
    """

    views: tuple[View, ...]

    def __init__(self, *views: View) -> None:
        object.__setattr__(self, "views", views)

    def changed(self, **fields: object) -> SharedFlip:
        """The same with other fields in every view."""
        return SharedFlip(*(replace(view, **fields) for view in self.views))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """The views of a batch, in order."""
        where = {"seed": batch.seed, "epoch": batch.epoch}
        draws = [view.draw(batch.ids, batch.sizes, **where, view=number) for number, view in enumerate(self.views)]
        return [
            view.apply(batch.inputs, draw._replace(flip=draws[0].flip))
            for view, draw in zip(self.views, draws, strict=True)
        ]
