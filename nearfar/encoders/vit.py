"""Vision transformers: an image as tokens of patches. Patches that are not a number are not looked at.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, https://arxiv.org/abs/2010.11929. Leaving patches out:
He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, https://arxiv.org/abs/2111.06377, section 3.

Shapes: B images, P = rows * columns patches, p side of a patch, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .patches import cut
from .transformer import Block, xavier


def side_of_patch(size: int) -> int:
    """Side of the patches of a view, pixels: 16 from 160 px on, an eighth of the view below, or what is nearest.

    It divides the size, is at least 2, and no more than twice or less than half of that.

    Args:
        size: Side of a view, pixels.

    Raises:
        UsageError: There is no such side.

    Example:
        >>> [side_of_patch(size) for size in (224, 96, 84, 64, 32, 28)]
        [16, 12, 12, 8, 4, 4]
    """
    wanted = 16.0 if size >= 160 else max(size / 8, 2.0)
    fit = [side for side in range(2, size + 1) if size % side == 0 and wanted / 2 <= side <= wanted * 2]
    if not fit:
        raise UsageError(
            f"views of {size} px don't fall into equal patches of about {wanted:.0f} px",
            where="size",
            mend=f"--size {8 * max(round(size / 8), 1)}",
        )
    return min(fit, key=lambda side: abs(side - wanted))


def sincos(rows: int, columns: int, width: int, *, like: Tensor) -> Tensor:
    """Positions of a grid, fixed, row by row, `[rows * columns, width]`, each of squared length width / 2.

        [sin(r f), cos(r f), sin(c f), cos(c f)],    f_k = 10000^(-k / (width / 4)),    k = 0 ... width / 4 - 1

    Args:
        rows: Rows r, from 0.
        columns: Columns c, from 0.
        width: A multiple of 4.
        like: Whose device and dtype the result has.

    Source: Vaswani et al. 2017, section 3.5, for each axis; so in MoCo v3 and MAE.
    """
    each = width // 4
    numbers = torch.arange(max(rows, columns, each), device=like.device, dtype=like.dtype)
    frequencies = 10000.0 ** -(numbers[:each] / each)
    down, across = (numbers[:count, None] * frequencies for count in (rows, columns))
    by_row, by_column = (torch.cat([angle.sin(), angle.cos()], dim=1) for angle in (down, across))
    return torch.cat([by_row.repeat_interleave(columns, 0), by_column.repeat(rows, 1)], dim=1)


class ViT(nn.Module):
    """View `[B, channels, h, w]` -> a list with one map `[B, D, h / p, w / p]`, the state of each patch.

        x_0 = W patch + position,    x_n = block_n(x_(n-1)),    map = norm(x_last)

    Any view whose sides are multiples of p fits, whatever size it was built for. `patches` is the layer W: with
    `net.patches.requires_grad_(False)` it stays random (MoCo v3).

    **Hidden patches.** A patch of a view may be not a number, as many in each image. Attention and layers then run on
    the others alone, and the map is not a number where there was nothing to see.

    Args:
        width: D of factor 1.
        layers: Blocks.
        heads: Attention heads of factor 1, a divisor of the width.
        channels: Channels of a view.
        size: Side of the views that it is built for, pixels. It decides the side of the patches.
        factor: Multiplies width and heads, so that heads stay as wide: `vit-tiny-x2` is `vit-small`.
        patch: Side p of a patch, pixels; None: `side_of_patch(size)`.

    Raises:
        UsageError: Numbers that don't fit each other.

    Differs from the papers: no class token, the representation is the mean over all patches; positions are fixed, as
    in MoCo v3 and MAE, not learned; a linear layer on cut patches, which is their convolution.

    Example:
        >>> net = ViT(32, 2, 2, channels=3, size=32)
        >>> net(torch.zeros(5, 3, 32, 32))[-1].shape, net(torch.zeros(5, 3, 16, 16))[-1].shape
        (torch.Size([5, 32, 8, 8]), torch.Size([5, 32, 4, 4]))
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        channels: int,
        size: int,
        factor: int = 1,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        check_shape("ViT", width=width, layers=layers, heads=heads)
        self.width, self.heads = width * factor, heads * factor
        self.patch = side_of_patch(size) if patch is None else patch
        if self.patch < 1 or size % self.patch:
            raise UsageError(f"views of {size} px in patches of {self.patch} px", where="ViT", mend="a divisor of it")
        self.patches = nn.Linear(channels * self.patch**2, self.width)
        nn.init.xavier_uniform_(self.patches.weight)
        nn.init.zeros_(self.patches.bias)
        blocks = (Block(self.width, heads=self.heads, causal=False) for _ in range(layers))
        self.blocks = nn.Sequential(*map(xavier, blocks))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, view: Tensor) -> list[Tensor]:
        """The map, not a number where the view is.

        Raises:
            UsageError: A view that is no grid of patches, or that hides more of one image than of another.
        """
        rows, columns = view.shape[2] // self.patch, view.shape[3] // self.patch
        if view.shape[2] % self.patch or view.shape[3] % self.patch:
            raise UsageError(
                f"views of {view.shape[2]} x {view.shape[3]} px in patches of {self.patch} px",
                where="encoder",
                mend=f"sides that are multiples of {self.patch}",
            )
        patches = cut(view, patch=self.patch, stride=self.patch).flatten(2)
        positions = sincos(rows, columns, self.width, like=self.norm.weight)
        seen = _seen(view[:, 0, :: self.patch, :: self.patch].flatten(1))
        if seen is None:
            states = self.norm(self.blocks(self.patches(patches) + positions))
        else:
            tokens = self.patches(_take(patches, seen)) + positions[seen]
            found = self.norm(self.blocks(tokens))
            nothing = found.new_full((len(view), rows * columns, self.width), math.nan)
            states = nothing.scatter(1, seen[..., None].expand_as(found), found)
        return [states.mT.unflatten(2, (rows, columns))]

    def describe(self) -> str:
        """One line for people: patches, depth, width, parameters."""
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        shape = f"{len(self.blocks)} layers, width {self.width}, {self.heads} heads"
        return f"vit: patches of {self.patch} px, {shape}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()


def check_shape(where: str, *, width: int, layers: int, heads: int) -> None:
    """UsageError where a transformer on a grid can't have this shape."""
    if min(width, layers, heads) < 1 or width % heads or width % 4:
        raise UsageError(
            f"width {width}, {layers} layers, {heads} heads",
            where=where,
            mend="1 or more of each, and a width that is a multiple of the heads and of 4",
        )


def _seen(corners: Tensor) -> Tensor | None:
    """Numbers of the patches that are there, rising, `[B, seen]`; None: all. `corners [B, P]`: a pixel of each."""
    hidden = corners.isnan()
    counts = hidden.sum(1)
    least, most = torch.stack([counts.min(), counts.max()]).tolist()  # how many tokens there are is a matter of shape
    if not most:
        return None
    if least < most or most == hidden.shape[1]:
        raise UsageError(
            f"{least} to {most} of {hidden.shape[1]} patches of an image are hidden",
            where="view",
            mend="as many in each image, and not all",
        )
    return hidden.byte().argsort(dim=1, stable=True)[:, : hidden.shape[1] - most]


def _take(patches: Tensor, places: Tensor) -> Tensor:
    """Rows of each image, `[B, P, D]` and `[B, n]` -> `[B, n, D]`."""
    return patches.gather(1, places[..., None].expand(-1, -1, patches.shape[2]))
