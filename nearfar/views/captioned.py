"""Views of captioned images: a square of the image, the text as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..randomness import uniforms
from .view import View

if TYPE_CHECKING:
    from ..method import Batch

SIDE, TOP, LEFT, SLOTS = range(4)  # which of a sample's uniform numbers decides what


@dataclass(frozen=True)
class Captioned:
    """A square of every image, float32 `[B, C, size, size]`, and its tokens, int64 `[B, 1, L]`.

    The square has the share `view.scale` of the area of the largest one and lies at a random place, so `scale=(1, 1)`
    is CLIP's crop. Its place is drawn with view number 1, all else with 0. L is that of the longest text of the batch:
    what is padding in all of them is left out.

    Args:
        view: What is done to the image; its ratio is 1, and it has no margin.
        column: Column of the batch that holds the tokens.

    Raises:
        UsageError: A view with another ratio, or with a margin.

    Source: Radford et al. 2021, section 2.3, https://arxiv.org/abs/2103.00020.

    Example:
        >>> Captioned(View(size=32, ratio=(1.0, 1.0))).changed(flip=0.0).view.flip
        0.0
    """

    view: View
    column: str = "text"

    def __post_init__(self) -> None:
        if tuple(self.view.ratio) != (1, 1) or self.view.pad:
            raise UsageError(
                f"ratio {self.view.ratio}, pad {self.view.pad:g}",
                where="view",
                mend="captioned images are cropped to squares: leave out view_ratio and view_pad",
            )

    @property
    def views(self) -> tuple[View, ...]:
        """The view of the image."""
        return (self.view,)

    def changed(self, **fields: Any) -> Captioned:
        """The same with other fields of the view."""
        return replace(self, view=replace(self.view, **fields))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """Image and text of each sample."""
        draw = self.view.draw(batch.ids, batch.sizes, seed=batch.seed, epoch=batch.epoch, view=0)
        uniform = uniforms(batch.seed, batch.epoch, batch.ids, 1, SLOTS)
        boxes = squares(uniform, batch.sizes.numpy(), self.view.scale)
        text = batch.of(self.column)
        tokens = text.inputs[..., : int(text.sizes.max())].long()
        return [self.view.apply(batch.inputs, draw._replace(boxes=boxes)), tokens]


def squares(uniform: NDArray[np.float64], sizes: NDArray[np.int64], scale: tuple[float, float]) -> NDArray[np.int32]:
    """Squares inside of images: area and place are uniform.

    Args:
        uniform: Numbers in [0, 1), `[B, 3]`.
        sizes: Height and width of each image, `[B, 2]`, >= 1.
        scale: Smallest and largest share of the area of the largest square, in (0, 1].

    Returns:
        Top, left, height and width, pixels, `[B, 4]`.
    """
    low, high = scale
    share = np.sqrt(low + (high - low) * uniform[:, SIDE])
    side = np.rint(sizes.min(1) * share).clip(min=1).astype(np.int64)
    top, left = (np.floor(uniform[:, at] * (sizes[:, n] - side + 1)) for n, at in enumerate((TOP, LEFT)))
    return np.stack([top, left, side, side], axis=1).astype(np.int32)
