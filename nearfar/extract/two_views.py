"""Who meets whom, where two views of an image each have a part of their own."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..errors import UsageError
from ..method import Batch, Memory, Pairs
from .pairs import every_view


def own_view(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """The first view's embedding with the second's as its positive; there are no others (Barlow Twins, VICReg).

    Raises:
        UsageError: More or less than two views.
    """
    first, second = _two(online)
    return [Pairs(first, second[:0], positive=second, gather=False)]


def every_and_own_view(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """`every_view` and `own_view`, for a loss of its own each (DCLW).

    Raises:
        UsageError: More or less than two views.
    """
    return [*every_view(online, slow, batch, memory), *own_view(online, slow, batch, memory)]


def every_still_view(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """`every_view` with others that carry no gradient, twice, for a loss each (InvaSpread as it was released)."""
    (pairs,) = every_view(online, slow, batch, memory)
    still = replace(pairs, other=pairs.other.detach())
    return [still, still]


def among_clean(online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
    """The second view looks for its image among the first views, and those look at each other (InvaSpread's paper).

    The first view is the image as it is. An embedding and itself are of one key: what a loss does with positives it
    does with that pair.

    Raises:
        UsageError: More or less than two views.
    """
    clean, augmented = _two(online)
    return [Pairs(one, clean, anchor_key=batch.ids, other_key=batch.ids) for one in (augmented, clean)]


def _two(online: list[Tensor]) -> list[Tensor]:
    if len(online) != 2:
        raise UsageError(f"{len(online)} views", where="views", mend="two views, Views(one, other)")
    return online
