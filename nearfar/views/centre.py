"""The transform of evaluation and use: nothing random in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import UsageError
from .draw import plain
from .render import Rendering, normalisation_faults, render


@dataclass(frozen=True)
class CentreCrop:
    """The largest centred square of the image, resized with antialiasing, normalised.

    Args:
        size: Side of the result, pixels.
        mean: Mean of each channel of values in [0, 1], or None: ImageNet's for 3 channels, otherwise 0.5.
        std: Standard deviation of each channel, or None: ImageNet's for 3 channels, otherwise 0.25.

    Raises:
        UsageError: A value out of its range; the message names all of them.

    Example:
        >>> import torch
        >>> images = torch.zeros(2, 3, 40, 48, dtype=torch.uint8)
        >>> CentreCrop(32)(images, [[40, 48], [20, 48]]).shape
        torch.Size([2, 3, 32, 32])
    """

    size: int
    mean: tuple[float, ...] | None = field(default=None, kw_only=True)
    std: tuple[float, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        faults = [] if isinstance(self.size, int) and self.size >= 1 else [f"size={self.size!r}: a whole number >= 1"]
        faults += normalisation_faults(self.mean, self.std)
        if faults:
            raise UsageError("; ".join(faults), where="CentreCrop", mend="change these arguments")

    def __call__(self, images: Tensor | NDArray[np.uint8], sizes: ArrayLike) -> Tensor:
        """float32 `[B, C, size, size]`.

        Args:
            images: uint8 `[B, C, H, W]` on the CPU; each fills the top left corner of its canvas.
            sizes: Valid height and width, pixels, `[B, 2]`.
        """
        sizes = np.asarray(sizes, dtype=np.int64)
        side = sizes.min(axis=1, keepdims=True)
        corner = np.rint((sizes - side) / 2).astype(np.int64)
        boxes = np.hstack([corner, side, side]).astype(np.int32)
        return render(images, Rendering(plain(boxes), self.size, self.mean, self.std))[0]

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON holds them, for the run folder."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> CentreCrop:
        """The inverse of `to_dict`.

        Raises:
            UsageError: A setting is missing, unknown or out of its range.
        """
        names = {f.name for f in fields(cls)}
        if set(settings) != names:
            raise UsageError(
                f"a centre crop has the settings {sorted(names)}, found {sorted(settings)}",
                where="input transform",
                mend="use the settings that the run was saved with",
            )
        mean, std = (None if settings[name] is None else tuple(settings[name]) for name in ("mean", "std"))
        return cls(settings["size"], mean=mean, std=std)
