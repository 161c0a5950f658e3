"""An image as a grid of overlapping patches, each seen by itself.

Shapes: B images, P = rows * columns patches, C channels, p side of a patch, D width.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, section 3.2,
https://arxiv.org/abs/1807.03748.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .pooled import pooled

LUMINANCE, IMAGENET_STD = (0.2989, 0.587, 0.114), (0.229, 0.224, 0.225)


def grid_rows(size: int, patch: int, stride: int) -> int:
    """Rows of the grid of patches of an image, `floor((size - patch) / stride) + 1`.

    Raises:
        UsageError: Patches that don't fit the image, or a stride below 1.

    Example:
        >>> grid_rows(256, 64, 32), grid_rows(260, 80, 36), grid_rows(32, 8, 4)
        (7, 6, 7)
    """
    if not 1 <= patch <= size or stride < 1:
        raise UsageError(
            f"patches of {patch} px every {stride} px in an image of {size} px",
            where="patch, stride",
            mend="1 <= patch <= size, stride >= 1",
        )
    return (size - patch) // stride + 1


def cut(images: Tensor, *, patch: int, stride: int) -> Tensor:
    """Patches row by row, `[B, C, H, W] -> [B, P, C, p, p]`; what is left at the right and below is not seen."""
    patches = images.unfold(2, patch, stride).unfold(3, patch, stride)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def frame(patches: Tensor, *, patch: int) -> Tensor:
    """Patches `[..., q, q]` in the middle of zeros, `[..., p, p]`; an odd row more is below, an odd column right."""
    before = (patch - patches.shape[-1]) // 2
    after = patch - patches.shape[-1] - before
    return F.pad(patches, (before, after, before, after))


class PatchGrid(nn.Module):
    """Image `[B, C, H, W]`, or its patches `[B, P, C, p, p]` -> a list with one map `[B, D, rows, columns]`.

    Every patch goes through the network as an image of its own, and its last map is averaged. So no cell knows of
    another patch, unless the network has batch norm (see `layer_norms`).

    Args:
        net: Encoder with `width`, patch -> list of maps.
        patch: Side p of a patch, pixels.
        stride: From one patch to the next, pixels.
        crop: Side of the middle of a patch that is seen, the rest is zero, as training sees it; None: all. For images;
            ready patches are taken as they are, from square images.
        grey: Images of 3 channels lose their colour first: the weights are those of the grey value, of pixels
            normalised by ImageNet's standard deviations.
    """

    def __init__(self, net: nn.Module, *, patch: int, stride: int, crop: int | None = None, grey: bool = False) -> None:
        super().__init__()
        self.net, self.patch, self.stride, self.crop, self.grey = net, patch, stride, crop or patch, grey
        self.width = int(net.width)  # pyright: ignore[reportArgumentType]
        self.name = f"{getattr(net, 'name', type(net).__name__)} on patches"

    def forward(self, view: Tensor) -> list[Tensor]:
        """The grid of z."""
        rows = math.isqrt(view.shape[1])
        patches = view
        if view.ndim == 4:
            rows = grid_rows(view.shape[2], self.patch, self.stride)
            margin, inner = (self.patch - self.crop) // 2, self.crop
            patches = cut(view, patch=self.patch, stride=self.stride)
            patches = frame(patches[..., margin : margin + inner, margin : margin + inner], patch=self.patch)
        if self.grey and patches.shape[2] == 3:
            patches = _grey(patches)
        z = pooled(self.net(patches.flatten(0, 1))).unflatten(0, patches.shape[:2])
        return [z.mT.unflatten(2, (rows, -1))]

    def describe(self) -> str:
        """One line for people."""
        inner = getattr(self.net, "describe", lambda: type(self.net).__name__)()
        return f"patches of {self.patch} px every {self.stride} px, each through {inner}"


def _grey(patches: Tensor) -> Tensor:
    """One value in all three channels. `sum w s (x - m) / s` is a function of the grey value `sum w x` alone."""
    weights = patches.new_tensor([w * s for w, s in zip(LUMINANCE, IMAGENET_STD, strict=True)])
    weights = weights / weights.sum()
    return (patches * weights[:, None, None]).sum(2, keepdim=True).expand_as(patches)
