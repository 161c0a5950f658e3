"""Quarter turns: the same view four times, for methods that ask which way is up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .view import View, Views

if TYPE_CHECKING:
    from ..method import Batch


@dataclass(frozen=True)
class Turns:
    """One view of every image, turned by 0, 90, 180 and 270 degrees: four tensors that differ in nothing else.

    Args:
        view: What is turned.

    Example:
        >>> len(Turns(View(size=32)).views)
        1
    """

    view: View

    @property
    def views(self) -> tuple[View, ...]:
        """The view that is turned."""
        return (self.view,)

    def changed(self, **fields: object) -> Turns:
        """The same with other fields of the view."""
        return Turns(replace(self.view, **fields))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """Four tensors `[B, C, size, size]`."""
        upright = Views(self.view)(batch)[0]
        return [torch.rot90(upright, turns, (2, 3)).contiguous() for turns in range(4)]
