"""One view: a description of the random changes, drawn by `draw` and carried out by `apply`.

Semantics of each operation are those of torchvision.transforms.v2.functional on images in [0, 1], to 5e-6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import UsageError
from ..randomness import uniforms
from .draw import BLUR, FLIP, GREY, ORDER, ORDERS, SIGMA, SLOTS, SOLARISE, Draw, colours, crops
from .render import Rendering, normalisation_faults, render

if TYPE_CHECKING:
    from ..method import Batch


@dataclass(frozen=True, kw_only=True)
class View:
    """Crop, mirror, colour jitter, grey, blur, solarise, normalise, in this order, drawn anew for each sample.

    Args:
        size: Side of the view, pixels.
        scale: Smallest and largest share of the image's area in the crop, in (0, 1]; of the area with the margin.
        ratio: Smallest and largest width / height of the crop, > 0.
        pad: Margin put around the image before the crop: its share of the height above and below, of the width
            at the sides, in [0, 1], rounded to whole pixels.
        reflect: Whether the margin mirrors the image (edge pixels not repeated, `pad` at most 0.5) or is black.
        crop_p: Probability of the crop; otherwise the whole image is taken.
        flip: Probability of mirroring left to right.
        jitter: Half-ranges of brightness, contrast, saturation (factor in `[max(0, 1 - j), 1 + j]`) and hue (turns in
            `[-j, j]`, at most 0.5). The four are applied in random order, values cut to [0, 1] after each.
        jitter_p: Probability of the jitter.
        grey_p: Probability that the colours give way to the grey value 0.2989 R + 0.587 G + 0.114 B.
        blur_p: Probability of the Gaussian blur; its kernel is about size / 10 wide (23 at 224, 3 at 32).
        sigma: Smallest and largest standard deviation of the blur, pixels of the view, > 0.
        solarise_p: Probability that values at or above the threshold are inverted.
        threshold: Of the solarisation, in [0, 1].
        mean: Mean of each channel of values in [0, 1], or None: ImageNet's for 3 channels, otherwise 0.5.
        std: Standard deviation of each channel, or None: ImageNet's for 3 channels, otherwise 0.25.

    Images may have any number of channels; jitter and grey need 1 or 3, and of 1 only brightness and contrast change.

    Raises:
        UsageError: A value out of its range; the message names all of them.

    The defaults are those of SimCLR (Chen et al. 2020, appendix A, https://arxiv.org/abs/2002.05709) at strength 1.
    Differs from its released code: brightness is multiplied, not added, and the blur is drawn for each sample, not
    for the batch. Differs from torchvision: the crop is never below one pixel, the blur reaches less than the size.

    Example:
        >>> import torch
        >>> view = View(size=32, blur_p=0.0)
        >>> images = torch.randint(256, (2, 3, 40, 48), dtype=torch.uint8)
        >>> draw = view.draw([10, 11], [[40, 48], [40, 48]], seed=0, epoch=0, view=0)
        >>> view.apply(images, draw).shape
        torch.Size([2, 3, 32, 32])
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: float = 0.0
    reflect: bool = False
    crop_p: float = 1.0
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise_p: float = 0.0
    threshold: float = 0.5
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        faults = [*self._faults(), *normalisation_faults(self.mean, self.std)]
        if faults:
            raise UsageError("; ".join(faults), where="View", mend="change these arguments")

    def _faults(self) -> list[str]:
        faults = [] if isinstance(self.size, int) and self.size >= 1 else [f"size={self.size!r}: a whole number >= 1"]
        for name, most in (("scale", 1.0), ("ratio", float("inf")), ("sigma", float("inf"))):
            pair = getattr(self, name)
            if len(pair) != 2 or not (all(map(isfinite, pair)) and 0 < pair[0] <= pair[1] <= most):
                limit = "" if most > 1 else " and at most 1"
                faults.append(f"{name}={pair!r}: smallest and largest value, above 0{limit}")
        if len(self.jitter) != 4 or not (all(0 <= j < float("inf") for j in self.jitter) and self.jitter[3] <= 0.5):
            faults.append(f"jitter={self.jitter!r}: brightness, contrast, saturation, hue, each >= 0, hue at most 0.5")
        for name in ("pad", "crop_p", "flip", "jitter_p", "grey_p", "blur_p", "solarise_p", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                faults.append(f"{name}={getattr(self, name)!r}: between 0 and 1")
        if self.reflect and self.pad > 0.5:
            faults.append(f"pad={self.pad!r} with reflect: at most 0.5, an image has no more to mirror")
        return faults

    @property
    def blur_radius(self) -> int:
        """Reach of the blur on either side, pixels: half of size / 10, at least 1."""
        return max(self.size // 20, 1)

    def draw(self, ids: ArrayLike, sizes: ArrayLike, *, seed: int, epoch: int, view: int) -> Draw:
        """All that is random in this view of a batch, a pure function of the arguments, row by row.

        Args:
            ids: Number of each sample in its data set, `[B]`.
            sizes: Valid height and width of each image, pixels, `[B, 2]`, >= 1.
            seed: Seed of the run.
            epoch: Epoch, from 0.
            view: Number of the view, from 0; other numbers give independent draws.
        """
        sizes = np.asarray(sizes, dtype=np.int64)
        if sizes.ndim != 2 or sizes.shape != (len(np.asarray(ids)), 2) or (sizes < 1).any():
            raise UsageError(
                f"sizes must be a height and a width >= 1 for each id, got shape {list(sizes.shape)}",
                where="sizes",
                mend="pass the sizes of the batch, [B, 2]",
            )
        uniform = uniforms(seed, epoch, ids, view, SLOTS)
        scale, ratio, jitter = (np.array(one, np.float64) for one in (self.scale, self.ratio, self.jitter))
        low, high = self.sigma
        sigma = np.where(uniform[:, BLUR] < self.blur_p, low + (high - low) * uniform[:, SIGMA], 0.0)
        return Draw(
            boxes=crops(uniform, sizes, scale, ratio, float(self.pad), float(self.crop_p)),
            flip=uniform[:, FLIP] < self.flip,
            order=ORDERS[(uniform[:, ORDER] * len(ORDERS)).astype(np.int64)],
            factors=colours(uniform, jitter, float(self.jitter_p)),
            grey=uniform[:, GREY] < self.grey_p,
            sigma=sigma.astype(np.float32),
            solarise=uniform[:, SOLARISE] < self.solarise_p,
            valid=sizes.astype(np.int32),
            reflect=np.full(len(sizes), self.reflect),
        )

    def apply(
        self,
        images: Tensor | NDArray[np.uint8],
        draw: Draw,
        *,
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Carries out a draw where the images are: `[B, C, size, size]`.

        Args:
            images: uint8 `[B, C, H, W]`, on the CPU or an NVIDIA GPU (`views.render.views_on`).
            draw: From `draw`, for these images.
            channels_last: Memory layout of the result.
            dtype: Type of the result; values are computed in float32.

        Raises:
            UsageError: Images that are not uint8 batches, or colour changes of neither 1 nor 3 channels.
        """
        return render(images, self.rendering(draw, images), channels_last=channels_last, dtype=dtype)[0]

    def rendering(self, draw: Draw, images: Tensor | NDArray[np.uint8]) -> Rendering:
        """What `apply` hands over to be carried out. Raises as it does."""
        self._check_colour(images.shape[1] if images.ndim == 4 else 3)
        return Rendering(draw, self.size, self.mean, self.std, self.blur_radius, self.threshold)

    def _check_colour(self, channels: int) -> None:
        used = [name for name in ("jitter_p", "grey_p") if getattr(self, name) > 0]
        if used and channels not in (1, 3):
            raise UsageError(
                f"colour jitter and grey need 1 or 3 channels, these images have {channels}",
                where="View",
                mend="pass " + ", ".join(f"{name}=0" for name in used),
            )


def random_crop(size: int, *, pad: float, **settings: Any) -> View:
    """The view of supervised and few-shot training: a margin, a crop as large as the image, mirroring.

    On images of `size` x `size` pixels it is torchvision's `RandomCrop(size, padding=pad * size)` and
    `RandomHorizontalFlip()`: no pixel is resampled. Square images of another size are cropped likewise, then resized;
    of oblong ones the crop is a square of the same area, or where that does not fit the largest one, centred.

    Args:
        size: Side of the view, pixels.
        pad: As in `View`; 1/8 for 4 of 32 pixels.
        settings: As in `View`; the margin is black, and jitter, grey and blur are off unless given.

    Raises:
        UsageError: A value out of its range.

    Example:
        >>> view = random_crop(32, pad=1 / 8)
        >>> view.scale, view.jitter_p
        ((0.64, 0.64), 0.0)
        >>> view.draw([0, 1], [[32, 32]] * 2, seed=0, epoch=0, view=0).boxes.tolist()
        [[-3, 3, 32, 32], [-4, 1, 32, 32]]
    """
    share = 1 / (1 + 2 * max(pad, 0.0)) ** 2  # of a margin below 0 View complains
    plainly: dict[str, Any] = {"jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0}
    return View(size=size, pad=pad, scale=(share, share), ratio=(1.0, 1.0), **(plainly | settings))


@dataclass(frozen=True, init=False, repr=False)
class Views:
    """The first part of a method: a list of views of every image, `Batch -> list` of float32 `[B, C, size, size]`.

    View i is drawn with view number i, so equal descriptions give different views. Of images on a GPU the views are
    made there, channels last and in the type of the ambient autocast.

    Example:
        >>> Views(View(size=32), View(size=32)).views[0].size
        32
    """

    views: tuple[View, ...]

    def __init__(self, *views: View) -> None:
        object.__setattr__(self, "views", views)

    def changed(self, **fields: object) -> Views:
        """The same with other fields in every view; another `scale` only in the largest, small crops keep theirs.

        Example:
            >>> views = Views(View(size=32), View(size=16, scale=(0.05, 0.4))).changed(scale=(0.5, 1.0), flip=0.0)
            >>> [(view.scale, view.flip) for view in views.views]
            [((0.5, 1.0), 0.0), ((0.05, 0.4), 0.0)]
        """
        large = max((view.size for view in self.views), default=0)
        kept = {name: value for name, value in fields.items() if name != "scale"}
        return Views(*(replace(view, **(fields if view.size == large else kept)) for view in self.views))

    def __call__(self, batch: Batch) -> list[Tensor]:
        """The views of a batch, in order."""
        draws = [
            view.draw(batch.ids, batch.sizes, seed=batch.seed, epoch=batch.epoch, view=number)
            for number, view in enumerate(self.views)
        ]
        renderings = [view.rendering(draw, batch.inputs) for view, draw in zip(self.views, draws, strict=True)]
        return render(batch.inputs, *renderings, **_wanted_on(batch.inputs.device))

    def __repr__(self) -> str:
        return f"Views({', '.join(map(repr, self.views))})"


def _wanted_on(device: torch.device) -> dict[str, Any]:
    """Layout and type that a convolution on a GPU would turn its input into before it begins."""
    if device.type != "cuda":
        return {}
    autocast = torch.is_autocast_enabled(device.type)
    return {"channels_last": True, "dtype": torch.get_autocast_dtype(device.type) if autocast else torch.float32}
