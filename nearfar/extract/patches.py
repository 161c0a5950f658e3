"""Episodes compared cell by cell: every place of the last map must be told by itself."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ..episode import Shape
from ..errors import UsageError
from ..method import Batch, Memory, Pairs
from ..views.patchmix import Mix, PatchMix, RandomBlock
from .classes import known_labels
from .prototypes import Prototypes


class Patches(nn.Module):
    """Pairs of infoPatch: each cell of each image with the training classes, each cell of the queries with the supports
    of their episode. Cells inside the box of PatchMix have the class of the image they come from.

    Args:
        shape: Of the episodes.
        width: Width D of an embedding.
        classes: Number C of training classes.
        weights: Of the comparison with the classes and of that with the supports, >= 0. At 0 there is none, nor the
            vectors it needs.
        level: What a query's cell meets: "prototype", the mean of each class's supports, over their cells too, or
            "instance", the mean of each support's cells, all of a class being positives.
        mix: The one that mixed the queries, or None.
        block: Blanks a cell of the supports before they are averaged, or None.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        width: int,
        classes: int,
        weights: tuple[float, float] = (1.0, 0.5),
        level: Literal["prototype", "instance"] = "prototype",
        mix: PatchMix | None = None,
        block: RandomBlock | None = None,
    ) -> None:
        super().__init__()
        if min(weights) < 0 or not any(weights) or level not in ("prototype", "instance"):
            raise UsageError(
                f"weights {weights} and level {level!r}",
                where="Patches",
                mend="weights of 0 or more, one of them above 0; level 'prototype' or 'instance'",
            )
        self.shape, self.weights, self.level, self.mix, self.block = shape, weights, level, mix, block
        self.classes = Prototypes(width, classes) if weights[0] else None

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """Of the one view, `[T * images, h * w, D]`: classes, then supports, those of the two that have a weight.

        Raises:
            UsageError: The batch has no labels, one beyond the number of classes, or the cells are no square grid.
        """
        cells, grid = online[0], _grid(online[0].shape[1])
        mix = None if self.mix is None else self.mix.draw(batch)
        pairs = []
        if self.classes is not None:
            own, asked = self.shape.parted(known_labels(batch, len(self.classes.weight)))
            key = torch.cat([own[..., None].expand(*own.shape, cells.shape[1]), _spread(asked, mix, grid)], dim=1)
            pairs.append(self.classes.against(cells.flatten(0, 1), key.flatten(), weight=self.weights[0]))
        if self.weights[1]:
            pairs.append(self._with_supports(cells, batch, mix, grid))
        return pairs

    def _with_supports(self, cells: Tensor, batch: Batch, mix: Mix | None, grid: tuple[int, int]) -> Pairs:
        support, query = self.shape.parted(cells)
        support_key, query_key = self.shape.keys(len(query), cells.device)
        other = (support if self.block is None else self.block.maps(support, batch)).mean(2)
        if self.level == "prototype":
            by_class = (self.shape.ways, self.shape.shots)
            other, support_key = other.unflatten(1, by_class).mean(2), support_key.unflatten(1, by_class)[..., 0]
        key = _spread(query_key, mix, grid).flatten(1)
        return Pairs(query.flatten(1, 2), other, key, support_key, weight=self.weights[1], gather=False)


def _spread(keys: Tensor, mix: Mix | None, grid: tuple[int, int]) -> Tensor:
    """The key of every cell of the queries, `[T, Q] -> [T, Q, h * w]`."""
    if mix is None:
        return keys[..., None].expand(*keys.shape, math.prod(grid))
    return mix.cells(keys, grid=grid).flatten(2)


def _grid(cells: int) -> tuple[int, int]:
    """Height and width; views are square, and so are the maps of convolutions."""
    side = math.isqrt(cells)
    if side**2 != cells:
        raise UsageError(
            f"the {cells} embeddings of an image are no square grid of cells",
            where="encoder",
            mend="an encoder whose last output is a map, or patches=False",
        )
    return side, side
