"""Heads: from the encoder's feature maps to the embedding that is compared."""

from __future__ import annotations

from typing import Literal

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


def layers(
    width_in: int,
    *widths: int,
    norm: bool = False,
    last: Literal["none", "scale", "plain"] = "none",
    bias: bool = True,
) -> nn.Sequential:
    """Linear layers with ReLU between them, `[B, width_in] -> [B, widths[-1]]`: heads, predictors.

    Args:
        width_in: Width of what comes in.
        widths: Widths of the layers.
        norm: Batch norm with scale and offset before each ReLU.
        last: Batch norm after the last layer: none, with scale alone, or plain, with neither scale nor offset.
        bias: Of the last layer, where no norm comes after it. Layers before a norm have none.
    """
    found: list[nn.Module] = []
    for number, (before, after) in enumerate(zip((width_in, *widths), widths, strict=False)):
        if number == len(widths) - 1:
            found.append(nn.Linear(before, after, bias=bias and last == "none"))
            if last != "none":
                found.append(BatchNorm(after, scale=last == "scale", offset=False))
        else:
            found.append(nn.Linear(before, after, bias=not norm))
            found += [BatchNorm(after)] * norm + [nn.ReLU(inplace=True)]
    return nn.Sequential(*found)


def mlp(
    width_in: int,
    *widths: int,
    norm: bool = False,
    last: Literal["none", "scale", "plain"] = "none",
    bias: bool = True,
) -> Head:
    """`layers` on the pooled last map.

    SimCLR's released code has `norm=True, last="scale"`; its paper leaves the norms out.
    """
    return Head(layers(width_in, *widths, norm=norm, last=last, bias=bias))
