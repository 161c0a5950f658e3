"""Views of patches: an image is cropped as a whole, then every patch of it is changed by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..encoders.patches import cut, frame, grid_rows
from ..errors import UsageError
from .view import View

if TYPE_CHECKING:
    from ..method import Batch


@dataclass(frozen=True, kw_only=True)
class PatchViews:
    """One view of every image as patches, float32 `[B, P, C, patch, patch]`.

    Crop, margin and mirroring are of the image, drawn with view number 0. Colours, grey, blur and the place of the
    window are drawn for each patch, with view number 1 and as many samples as there are patches; so no two patches of
    an image are changed alike. Between the two, pixels are rounded to 1/255.

    Args:
        view: The image's crop, and what is done to its patches; `size` is the side that is cut into patches.
        patch: Side of a patch, pixels.
        stride: From one patch to the next, pixels.
        crop: Side of the window that is kept of each patch, at a random place, in the middle of zeros; None: all.

    Raises:
        UsageError: Patches that don't fit the view, or a window that doesn't fit the patch.

    Example:
        >>> views = PatchViews(view=View(size=32), patch=8, stride=4)
        >>> views.rows
        7
    """

    view: View
    patch: int
    stride: int
    crop: int | None = None

    def __post_init__(self) -> None:
        grid_rows(self.view.size, self.patch, self.stride)
        if self.crop is not None and not 1 <= self.crop <= self.patch:
            raise UsageError(
                f"a window of {self.crop} px in a patch of {self.patch} px", where="crop", mend="1 <= crop <= patch"
            )

    @property
    def rows(self) -> int:
        """Rows, and columns, of the grid of patches."""
        return grid_rows(self.view.size, self.patch, self.stride)

    @property
    def views(self) -> tuple[View, ...]:
        """The view, as it changes a whole image."""
        return (self.view,)

    def changed(self, **fields: Any) -> PatchViews:
        """The same with other fields of the view."""
        return replace(self, view=replace(self.view, **fields))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """A list of one, `[B, P, C, patch, patch]`."""
        draw = self.view.draw(batch.ids, batch.sizes, seed=batch.seed, epoch=batch.epoch, view=0)
        patches = cut(
            self._whole(batch.inputs.shape[1]).apply(batch.inputs, draw), patch=self.patch, stride=self.stride
        )
        count = patches.shape[1]
        pixels = (patches.flatten(0, 1) * 255).round().to(torch.uint8)
        ids = (batch.ids.cpu()[:, None] * count + torch.arange(count)).flatten()
        each, sizes = self._each(), torch.full((len(ids), 2), self.patch)
        changed = each.apply(pixels, each.draw(ids, sizes, seed=batch.seed, epoch=batch.epoch, view=1))
        return [frame(changed, patch=self.patch).unflatten(0, (-1, count))]

    def _whole(self, channels: int) -> View:
        """Crop and mirroring alone; values stay in [0, 1]."""
        still = {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0, "solarise_p": 0.0}
        return replace(self.view, mean=(0.0,) * channels, std=(1.0,) * channels, **still)

    def _each(self) -> View:
        """What is done to a patch: a window of it, moved without resampling, and the colours."""
        crop = self.crop or self.patch
        share = (crop / self.patch) ** 2
        return replace(self.view, size=crop, scale=(share, share), ratio=(1.0, 1.0), pad=0.0, flip=0.0)
