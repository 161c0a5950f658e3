"""Views that are parts of an image: its lightness L and its colour ab.

Tian et al., Contrastive Multiview Coding, 2019, https://arxiv.org/abs/1906.05849.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from . import lab_kernel
from .view import View

if TYPE_CHECKING:
    from ..method import Batch

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear RGB with the primaries of sRGB -> CIE XYZ."""
WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of the white D65, seen under 2 degrees."""
MEAN, STD = (50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)
"""Middle and half-width of the range that L, a and b have over all colours of sRGB; CMC's released code has them."""
BLACK, FULL = (0.0,) * 3, (1.0,) * 3


def lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] -> CIE Lab, `[..., 3, H, W]`: L in [0, 100], a in [-86.2, 98.3], b in [-107.9, 94.5].

        linear  = c / 12.92                        where c <= 0.04045, else ((c + 0.055) / 1.055)^2.4
        f(t)    = t^(1/3)                          where t > 0.008856, else 7.787 t + 16 / 116
        L, a, b = 116 f(Y) - 16, 500 (f(X) - f(Y)), 200 (f(Y) - f(Z)),     X, Y, Z over those of the white

    The constants are those of scikit-image, which CMC's released code uses.

    Example:
        >>> lab(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).flatten().round(decimals=2)
        tensor([53.2400, 80.0900, 67.2000])
    """
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4, rgb / 12.92)
    red, green, blue = linear.unbind(-3)
    x, y, z = (_f((r * red + g * green + b * blue) / white) for (r, g, b), white in zip(TO_XYZ, WHITE, strict=True))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def _f(t: Tensor) -> Tensor:
    return torch.where(t > 0.008856, t.clamp(min=0.008856) ** (1 / 3), 7.787 * t + 16 / 116)


def _split(rgb: Tensor) -> list[Tensor]:
    """As `LightAndColour.split`, by the kernel."""
    parts = [rgb.new_empty(len(rgb), channels, *rgb.shape[2:]) for channels in (1, 2)]
    factors = np.array([116, 500, 200]) / STD, (np.array([-16, 0, 0]) - MEAN) / STD
    constants = (x.astype(np.float32) for x in (np.array(TO_XYZ) / np.array(WHITE)[:, None], *factors))
    lab_kernel.split(rgb.contiguous().numpy(), *constants, *(part.numpy() for part in parts))
    return parts


@dataclass(frozen=True)
class LightAndColour:
    """One augmented view of every colour image, as two: its lightness L `[B, 1, H, W]`, its colour ab `[B, 2, H, W]`.

    Both are of the same crop. They are scaled so that the range of sRGB becomes [-1, 1].

    Args:
        view: What is done to the image before it is split; it has no mean and std of its own.

    Raises:
        UsageError: A view with a mean or std.

    Example:
        >>> views = LightAndColour(View(size=32, jitter_p=0.0, grey_p=0.0, blur_p=0.0))
        >>> [part.shape for part in views.split(torch.rand(4, 3, 32, 32))]
        [torch.Size([4, 1, 32, 32]), torch.Size([4, 2, 32, 32])]
    """

    view: View

    def __post_init__(self) -> None:
        if self.view.mean not in (None, BLACK) or self.view.std not in (None, FULL):
            raise UsageError(
                "a mean or std of RGB has no use where L, a and b are normalised",
                where="view",
                mend="leave out mean and std",
            )
        object.__setattr__(self, "view", replace(self.view, mean=BLACK, std=FULL))

    @property
    def views(self) -> tuple[View, ...]:
        """The view before it is split; its mean is 0, its std 1."""
        return (self.view,)

    def changed(self, **fields: Any) -> LightAndColour:
        """The same with other fields of the view."""
        return LightAndColour(replace(self.view, **fields))

    def split(self, rgb: Tensor) -> list[Tensor]:
        """L and ab of images in [0, 1], float `[B, 3, H, W]`, on any device.

        Raises:
            UsageError: Images without three channels.
        """
        if rgb.shape[-3] != 3:
            raise UsageError(
                f"images of {rgb.shape[-3]} channels have no lightness and colour to tell apart",
                where="images",
                mend="colour images, --channels 3",
            )
        if rgb.device.type == "cpu" and rgb.dtype == torch.float32 and rgb.ndim == 4 and not rgb.requires_grad:
            return _split(rgb)
        mean, std = (rgb.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        scaled = (lab(rgb) - mean) / std
        return [scaled[..., :1, :, :].contiguous(), scaled[..., 1:, :, :].contiguous()]

    def __call__(self, batch: Batch) -> list[Tensor]:
        """L and ab of a batch."""
        draw = self.view.draw(batch.ids, batch.sizes, seed=batch.seed, epoch=batch.epoch, view=0)
        return self.split(self.view.apply(batch.inputs, draw))
