"""Heads: from the encoder's feature maps to the embedding that is compared."""

from __future__ import annotations

from torch import Tensor, nn

from ..encoders import pooled
from ..encoders.norm import BatchNorm


class Head(nn.Module):
    """Global average of the last map, then `layers`: list of maps -> `[B, D]`."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Embeddings `[B, D]` of the maps of one view."""
        return self.layers(pooled(maps))


class Cells(nn.Module):
    """Every cell of the last map as an embedding, row by row; a head without weights.

    Args:
        pool: One embedding an image instead, the mean of all cells.
    """

    def __init__(self, *, pool: bool = False) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of one view -> `[B, h * w, D]`. Where the last is one vector an image, `[B, 1, D]`."""
        last = maps[-1]
        if self.pool or last.ndim == 2:
            return pooled(maps).unsqueeze(1)
        return last.flatten(2).mT if last.ndim == 4 else last


def linear(width_in: int, width: int) -> Head:
    """One linear layer with bias, `width_in -> width` (InstDisc, MoCo v1)."""
    return Head(nn.Linear(width_in, width))


def mlp(width_in: int, *widths: int, norm: bool = False) -> Head:
    """Linear layers with ReLU between them.

    Args:
        width_in: Width of the encoder's last map.
        widths: Widths of the layers, the last is the embedding's.
        norm: Batch norm after every layer: before each ReLU with scale and offset, after the last with scale only,
            and linear layers without bias but the norm's (SimCLR's released code; its paper leaves the norms out).
    """
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(zip((width_in, *widths), widths, strict=False)):
        last = number == len(widths) - 1
        layers.append(nn.Linear(before, after, bias=not norm))
        if norm:
            layers.append(BatchNorm(after, offset=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return Head(nn.Sequential(*layers))
