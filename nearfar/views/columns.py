"""Views that are columns of the data: several pictures of each sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import UsageError
from .view import View

if TYPE_CHECKING:
    from ..method import Batch


@dataclass(frozen=True, init=False)
class ColumnViews:
    """One view of each of several pictures of a sample, each with a draw of its own.

    Args:
        named: View of each column, in order. `image` is what the data set itself holds.

    Raises:
        UsageError: On a batch that lacks a column.

    Example:
        >>> views = ColumnViews(image=View(size=32), image2=View(size=32))
        >>> views.names
        ('image', 'image2')
    """

    names: tuple[str, ...]
    views: tuple[View, ...]

    def __init__(self, **named: View) -> None:
        object.__setattr__(self, "names", tuple(named))
        object.__setattr__(self, "views", tuple(named.values()))

    def changed(self, **fields: Any) -> ColumnViews:
        """The same with other fields in every view."""
        changed = (replace(view, **fields) for view in self.views)
        return ColumnViews(**dict(zip(self.names, changed, strict=True)))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """The views of a batch, in the order of the columns."""
        made = []
        for number, (name, view) in enumerate(zip(self.names, self.views, strict=True)):
            column = _column(batch, name)
            draw = view.draw(column.ids, column.sizes, seed=batch.seed, epoch=batch.epoch, view=number)
            made.append(view.apply(column.inputs, draw))
        return made


def _column(batch: Batch, name: str) -> Batch:
    if name in batch.columns:
        return batch.of(name)
    if name != "image":
        raise UsageError(
            f"the data have no column {name!r}",
            where="columns",
            mend=f"one of {', '.join(['image', *batch.columns])}",
        )
    return batch
