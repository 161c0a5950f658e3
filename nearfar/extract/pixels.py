"""What is hidden is told from what is seen: pixels as targets, a decoder that predicts them.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, https://arxiv.org/abs/2111.06377, section 3.

Shapes: B images, P patches, p side of a patch, C channels, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..encoders.patches import cut
from ..encoders.transformer import Block, xavier
from ..encoders.vit import check_shape, sincos
from ..method import Batch, Memory, Pairs
from ..views.masked import hidden_patches


class PatchPixels(nn.Module):
    """Image `[B, C, h, w]` -> a list with `[B, P, C p p]`, the pixels of each patch; a network without weights.

        (x - mean) / sqrt(var + 1e-6),    mean and var (over n - 1) those of all values of the patch

    Args:
        patch: Side p, pixels.

    Source: He et al. 2022, section 3, "reconstruction target"; the two numbers are those of the released code.
    """

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, view: Tensor) -> list[Tensor]:
        """The patches, row by row."""
        pixels = cut(view, patch=self.patch, stride=self.patch).flatten(2)
        var, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
        return [(pixels - mean) * torch.rsqrt(var + 1e-6)]


class PatchDecoder(nn.Module):
    """A map that is not a number where nothing was seen -> pixels of all patches `[B, P, pixels]`.

        x_0 = (A state, or where nothing was seen the mask token) + position,    pixels = W norm(blocks(x_0))

    Args:
        width_in: Channels of the map.
        pixels: Values of a patch, C p p.
        width: D of the decoder.
        layers: Its blocks.
        heads: Its attention heads.

    Raises:
        UsageError: Numbers that don't fit each other.
    """

    def __init__(self, width_in: int, pixels: int, *, width: int, layers: int, heads: int) -> None:
        super().__init__()
        check_shape("decoder", width=width, layers=layers, heads=heads)
        self.width = width
        self.embed, self.pixels = nn.Linear(width_in, width), nn.Linear(width, pixels)
        for layer in (self.embed, self.pixels):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.mask = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.mask, std=0.02)
        self.blocks = nn.Sequential(*(xavier(Block(width, heads=heads, causal=False)) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Pixels of all patches, row by row."""
        rows, columns = maps[-1].shape[2:]
        states = maps[-1].flatten(2).mT
        hidden = states[..., :1].isnan()
        known = self.embed(states.masked_fill(hidden, 0))  # filled first: 0 * NaN would be in the weights' gradient
        tokens = torch.where(hidden, self.mask.to(known.dtype), known)
        tokens = tokens + sincos(rows, columns, self.width, like=self.norm.weight)
        return self.pixels(self.norm(self.blocks(tokens)))


def hidden_pixels(
    online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None, *, share: float
) -> list[Pairs]:
    """Each hidden patch: what was predicted of it with what it is. The places are those that `Masked` drew.

    Args:
        online: Predictions `[B, P, pixels]` of the masked view.
        slow: Pixels of the whole view, likewise.
        batch: Addresses the draw.
        memory: None.
        share: As `Masked` has it.
    """
    predicted, real = online[0], slow[0]
    places = hidden_patches(batch, patches=predicted.shape[1], share=share).to(predicted.device)[..., None]
    anchor, positive = (x.gather(1, places.expand(-1, -1, x.shape[2])).flatten(0, 1) for x in (predicted, real))
    return [Pairs(anchor, positive[:0], positive=positive, gather=False)]
