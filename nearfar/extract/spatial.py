"""Maps compared cell by cell: the cells of an image, and what each asks, answers and holds.

Shapes: B images, L cells of a map, C channels, W width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..method import Batch, Memory, Pairs
from .classes import known_labels
from .pairs import same_label
from .prototypes import Prototypes


class SpatialPairs(nn.Module):
    """Image means against one learned vector a class; maps of queries, keys and values against all of the batch (SCL).

    The second comparison holds for each image the flat `[L, 3, W]` that `losses.aligned_infonce` takes: queries, keys
    and values of its cells, each by a map of its own, `linear(C, C) -> ReLU -> linear(C, W)` without bias.

    Args:
        channels: Channels C of a cell.
        classes: Number of classes.
        width: Width W of queries, keys and values.
        weights: Of the two comparisons; one with weight 0 is left out.
    """

    def __init__(self, channels: int, classes: int, *, width: int, weights: tuple[float, float]) -> None:
        super().__init__()
        self.weights = weights
        self.classes = Prototypes(channels, classes) if weights[0] else None
        self.maps = nn.ModuleList(_map(channels, width) for _ in range(3)) if weights[1] else None

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """One comparison with the classes, one of maps with maps, of those there are.

        Raises:
            UsageError: The batch has no labels, or one beyond the number of classes; or images of a single cell.
        """
        if online[0].shape[1] == 1:
            raise UsageError(
                "the encoder gives one vector an image, this method needs a map",
                where="encoder",
                mend="--encoder resnet12, conv4-pool, or another that ends in a map",
            )
        pairs = []
        if self.classes is not None:
            means = torch.cat([cells.mean(1) for cells in online])
            key = known_labels(batch, len(self.classes.weight)).repeat(len(online))
            pairs.append(self.classes.against(means, key, weight=self.weights[0]))
        if self.maps is not None:
            triples = [torch.stack([part(cells) for part in self.maps], dim=2).flatten(1) for cells in online]
            pairs.append(replace(same_label(triples, slow, batch, memory)[0], weight=self.weights[1]))
        return pairs


def _map(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels, bias=False), nn.ReLU(inplace=True), nn.Linear(channels, width, bias=False)
    )
