"""Harder episodes: queries that show a piece of another query, supports with a piece blanked.

Liu et al., Learning a Few-shot Embedding Model with Contrastive Learning (infoPatch), AAAI 2021,
https://ojs.aaai.org/index.php/AAAI/article/view/17047. The box is that of Yun et al., CutMix, ICCV 2019,
https://arxiv.org/abs/1905.04899, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from ..episode import Shape
from ..errors import UsageError
from ..randomness import uniforms
from .view import View, Views

if TYPE_CHECKING:
    from ..method import Batch

# Beside the numbers of views, so that these draws are independent of every view's.
MIX, BLOCK = 2**32, 2**32 + 1
# Which of a query's uniform numbers decides what. Positions are for ever: a new one goes to the end.
LAM, CENTRE, APPLY, ORDER, SLOTS = 0, slice(1, 3), 3, 4, 5


class Mix(NamedTuple):
    """What PatchMix does to the Q queries of T episodes: inside its box a query shows its partner.

    Attributes:
        boxes: Top, left, bottom, right in pixels of the view, the last two outside the box, int64 `[T, Q, 4]`.
        partner: Number of a query of the same episode, a permutation in each, int64 `[T, Q]`. It may be the query's
            own number, or another image of its class.
        side: Side of the view, pixels.
    """

    boxes: Tensor
    partner: Tensor
    side: int

    def cells(self, keys: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """Keys of the cells of the mixed queries: corners of the boxes scaled to the grid and rounded to cells.

        Args:
            keys: Of the queries (class, class within the episode), `[T, Q]`.
            grid: Height and width of the last map, cells.

        Returns:
            `[T, Q, height, width]`: the partner's key inside the box, the query's own outside.
        """
        scale = torch.tensor([*grid, *grid], dtype=torch.float64) / self.side
        inside = _inside((self.boxes * scale).round().to(keys.device), grid)
        return torch.where(inside, self.partners(keys)[..., None, None], keys[..., None, None])

    def partners(self, rows: Tensor) -> Tensor:
        """Rows `[T, Q, ...]` of the partners."""
        return rows[torch.arange(len(rows), device=rows.device)[:, None], self.partner.to(rows.device)]


@dataclass(frozen=True, kw_only=True)
class PatchMix:
    """Pastes into each query the same region of another query of its episode; supports stay as they are.

        lam ~ Beta(alpha, alpha);  a square of side sqrt(1 - lam) * side, centred at any pixel, cut at the border

    Views and pairs each ask for the draw of a batch, and get the same: it is a pure function of (seed, epoch, ids of
    the episode's queries), whatever else is in the batch.

    Args:
        shape: Of the episodes.
        side: Of a view, pixels.
        box: "episode": one box for all queries of an episode; "image": each its own.
        probability: That a box is drawn at all, in [0, 1].
        alpha: Of the Beta distribution of lam, > 0; 1: uniform.

    Raises:
        UsageError: A value out of its range.

    Example:
        >>> from nearfar.method import Batch
        >>> mix = PatchMix(shape=Shape(ways=2, shots=1, queries=2), side=8)
        >>> draw = mix.draw(Batch(torch.empty(0), torch.empty(0), ids=torch.arange(6)))
        >>> draw.cells(torch.tensor([[0, 0, 1, 1]]), grid=(4, 4)).shape
        torch.Size([1, 4, 4, 4])
    """

    shape: Shape
    side: int
    box: Literal["episode", "image"] = "episode"
    probability: float = 1.0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check("box", self.box, ("episode", "image"))
        if not 0 <= self.probability <= 1 or not 0 < self.alpha < float("inf"):
            found = f"probability={self.probability!r}, alpha={self.alpha!r}"
            raise UsageError(found, where="PatchMix", mend="a probability between 0 and 1, alpha above 0")

    def draw(self, batch: Batch) -> Mix:
        """The draw of a batch of whole episodes, on the CPU."""
        _, ids = self.shape.parted(batch.ids.cpu())
        uniform = uniforms(batch.seed, batch.epoch, ids.flatten(), MIX, SLOTS).reshape(*ids.shape, SLOTS)
        partner = uniform[..., ORDER].argsort(axis=1)
        if self.box == "episode":
            uniform = np.repeat(uniform[:, :1], ids.shape[1], axis=1)
        lam = betaincinv(self.alpha, self.alpha, uniform[..., LAM, None])
        half = (self.side * np.sqrt(1 - lam)).astype(np.int64) // 2 * (uniform[..., APPLY, None] < self.probability)
        centre = (self.side * uniform[..., CENTRE]).astype(np.int64)
        boxes = np.concatenate([centre - half, centre + half], axis=-1).clip(0, self.side)
        return Mix(torch.from_numpy(boxes), torch.from_numpy(partner), self.side)

    def pixels(self, view: Tensor, mix: Mix) -> Tensor:
        """A view of all images `[T * images, C, side, side]` with its queries mixed; the layout in memory is kept."""
        mixed = view.clone()
        _, query = self.shape.parted(mixed)
        inside = _inside(mix.boxes.to(view.device), (mix.side, mix.side))
        query.copy_(torch.where(inside[:, :, None], mix.partners(query), query))
        return mixed


@dataclass(frozen=True, kw_only=True)
class RandomBlock:
    """Blanks one cell of the supports in training: of their last map, or of their pixels.

    Args:
        shape: Of the episodes.
        where: "map": one cell of the last map is 0; "pixels": one of `parts` x `parts` pieces of the view is 0, the
            mean colour.
        per: "batch": the same cell in all supports of a step; "image": each its own. Neither depends on what else is
            in the batch.
        parts: Pieces to a side, >= 2, where pixels are blanked.

    Raises:
        UsageError: A value out of its range.

    The released code blanks maps, the paper speaks of images, and of no size: 4 pieces to a side are our choice.
    """

    shape: Shape
    where: Literal["map", "pixels"] = "map"
    per: Literal["batch", "image"] = "batch"
    parts: int = 4

    def __post_init__(self) -> None:
        _check("where", self.where, ("map", "pixels"))
        _check("per", self.per, ("batch", "image"))
        if self.parts < 2:
            raise UsageError(f"parts={self.parts}", where="RandomBlock", mend="2 or more pieces to a side")

    def draw(self, batch: Batch, count: int) -> Tensor:
        """The cell of each support out of `count`, int64 `[T, N * K]`, on the CPU."""
        support, _ = self.shape.parted(batch.ids.cpu())
        ids = torch.zeros_like(support) if self.per == "batch" else support
        uniform = uniforms(batch.seed, batch.epoch, ids.flatten(), BLOCK, 1)
        return torch.from_numpy((count * uniform).astype(np.int64)).reshape(support.shape)

    def maps(self, support: Tensor, batch: Batch) -> Tensor:
        """Cells of the supports `[T, N * K, L, D]`, one of them 0; a map of one cell stays as it is."""
        count = support.shape[2]
        if self.where != "map" or count == 1:
            return support
        blocked = self.draw(batch, count)[..., None] == torch.arange(count)
        return support.masked_fill(blocked[..., None].to(support.device), 0)

    def pixels(self, view: Tensor, batch: Batch) -> Tensor:
        """A view of all images `[T * images, C, side, side]`, one piece of each support 0."""
        if self.where != "pixels":
            return view
        cell = self.draw(batch, self.parts**2)
        row, column, sides = cell // self.parts, cell % self.parts, view.shape[-2:]
        scale = torch.tensor([*sides, *sides], dtype=torch.float64) / self.parts
        boxes = (torch.stack([row, column, row + 1, column + 1], dim=-1) * scale).round()
        blocked = view.clone()
        self.shape.parted(blocked)[0].masked_fill_(_inside(boxes.to(view.device), sides)[:, :, None], 0)
        return blocked


@dataclass(frozen=True, kw_only=True)
class MixedViews:
    """One view of every image of the episodes, then PatchMix on the queries and the random block on the supports.

    Args:
        view: What comes first.
        mix: None: queries stay as they are.
        block: None: supports stay as they are.

    Example:
        >>> MixedViews(view=View(size=32)).changed(flip=0.0).views[0].flip
        0.0
    """

    view: View
    mix: PatchMix | None = None
    block: RandomBlock | None = None

    @property
    def views(self) -> tuple[View, ...]:
        """The one view."""
        return (self.view,)

    def changed(self, **fields: object) -> MixedViews:
        """The same with other fields of the view."""
        return replace(self, view=replace(self.view, **fields))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """One tensor `[T * images, C, size, size]`."""
        made = Views(self.view)(batch)[0]
        if self.mix is not None:
            made = self.mix.pixels(made, self.mix.draw(batch))
        return [made if self.block is None else self.block.pixels(made, batch)]


def _inside(boxes: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Where the boxes `[..., 4]` are, bool `[..., height, width]`."""
    top, left, bottom, right = boxes.unsqueeze(-1).unbind(-2)
    y, x = (torch.arange(side, device=boxes.device) for side in sides)
    return ((top <= y) & (y < bottom)).unsqueeze(-1) & ((left <= x) & (x < right)).unsqueeze(-2)


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{value!r} is unknown", where=name, mend=f"one of {', '.join(choices)}")
