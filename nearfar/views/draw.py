"""What is random in a view, drawn for a batch at once: plain arrays that any engine can carry out."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ATTEMPTS = 10
ORDERS = np.array(list(itertools.permutations(range(4))), np.int8)  # all 24, in lexicographic order
NEUTRAL = np.array([1, 1, 1, 0], np.float32)

# Which of a sample's uniform numbers decides what. Positions are for ever: a new one goes to the end.
AREA = slice(0, ATTEMPTS)
RATIO = slice(ATTEMPTS, 2 * ATTEMPTS)
TOP, LEFT, FLIP, JITTER, ORDER = range(20, 25)
FACTORS = slice(25, 29)
GREY, BLUR, SIGMA, SOLARISE, CROP, SLOTS = range(29, 35)


class Draw(NamedTuple):
    """All that is random in one view of B images. No field depends on the device or the engine that carries it out.

    Attributes:
        boxes: Crop in pixels of the input, int32 `[B, 4]`: top, left, height, width; sides >= 1. It reaches beyond the
            image where the view has a margin: top and left may be negative.
        flip: True where the crop is mirrored left to right, bool `[B]`.
        order: Colour operations in the order of their application, int8 `[B, 4]`, a permutation of
            0 brightness, 1 contrast, 2 saturation, 3 hue.
        factors: Of brightness, contrast, saturation (>= 0, 1: unchanged), hue (turns in [-0.5, 0.5], 0: unchanged),
            float32 `[B, 4]`, in this order whatever `order` says. No jitter: 1, 1, 1, 0.
        grey: True where the colours are replaced by their grey value, bool `[B]`.
        sigma: Standard deviation of the Gaussian blur in output pixels, float32 `[B]`; 0: no blur.
        solarise: True where values at or above the threshold are inverted, bool `[B]`.
        valid: Height and width of the image, int32 `[B, 2]`.
        reflect: What a crop takes from beyond the image: True, the image mirrored at its edge pixels, which are not
            repeated; False, black. Bool `[B]`.
    """

    boxes: NDArray[np.int32]
    flip: NDArray[np.bool_]
    order: NDArray[np.int8]
    factors: NDArray[np.float32]
    grey: NDArray[np.bool_]
    sigma: NDArray[np.float32]
    solarise: NDArray[np.bool_]
    valid: NDArray[np.int32]
    reflect: NDArray[np.bool_]


def plain(boxes: NDArray[np.int32]) -> Draw:
    """A draw that crops and does nothing else.

    Args:
        boxes: Top, left, height, width, int32 `[B, 4]`, inside the image.
    """
    count = len(boxes)
    off = np.zeros(count, np.bool_)
    order = np.tile(ORDERS[0], (count, 1))
    valid = boxes[:, :2] + boxes[:, 2:]
    return Draw(boxes, off, order, np.tile(NEUTRAL, (count, 1)), off, np.zeros(count, np.float32), off, valid, off)


def crops(
    uniform: NDArray[np.float64],
    sizes: NDArray[np.int64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    pad: float = 0.0,
    probability: float = 1.0,
) -> NDArray[np.int32]:
    """Random resized crops: area uniform, log of width / height uniform, position uniform among those that fit.

    Ten attempts are drawn at once and the first that fits is taken; where none does, the largest centred crop whose
    ratio is allowed, as torchvision's RandomResizedCrop does. Differs from it: a side is never below one pixel.

    Args:
        uniform: Numbers in [0, 1), `[B, SLOTS]`.
        sizes: Valid height and width, int64 `[B, 2]`, >= 1.
        scale: Smallest and largest share of the image's area, in (0, 1].
        ratio: Smallest and largest width / height, > 0.
        pad: Margin around the image, as a share of its height above and below and of its width at the sides, >= 0,
            rounded to whole pixels. Area is that of the image with its margin, before rounding, so that a crop of
            `1 / (1 + 2 pad)^2` of it is exactly as large as a square image.
        probability: Of a crop; otherwise the whole image is taken.

    Source: Szegedy et al. 2015, section 6, https://arxiv.org/abs/1409.4842.
    """
    margin = np.rint(pad * sizes).astype(np.int64)
    full_height, full_width = (sizes + 2 * margin).T
    area = sizes.prod(1)[:, None] * _between(uniform[:, AREA], *scale) * (1 + 2 * pad) ** 2
    aspect = np.exp(_between(np.ascontiguousarray(uniform[:, RATIO]), *np.log(ratio)))
    widths, heights = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (widths >= 1) & (heights >= 1) & (widths <= full_width[:, None]) & (heights <= full_height[:, None])
    rows, first, found = np.arange(len(sizes)), fits.argmax(1), fits.any(1)

    central_height = np.clip(np.rint(full_width / ratio[0]), 1, full_height)
    central_width = np.clip(np.rint(full_height * ratio[1]), 1, full_width)
    height = np.where(found, heights[rows, first], central_height)
    width = np.where(found, widths[rows, first], central_width)
    top = np.where(found, np.floor(uniform[:, TOP] * (full_height - height + 1)), (full_height - height) // 2)
    left = np.where(found, np.floor(uniform[:, LEFT] * (full_width - width + 1)), (full_width - width) // 2)
    boxes = np.stack([top - margin[:, 0], left - margin[:, 1], height, width], axis=1)
    whole = np.hstack([np.zeros_like(sizes), sizes])
    return np.where(uniform[:, CROP, None] < probability, boxes, whole).astype(np.int32)


def colours(uniform: NDArray[np.float64], jitter: tuple[float, ...], probability: float) -> NDArray[np.float32]:
    """Factors of the four colour operations, float32 `[B, 4]`, neutral where no jitter is applied.

    Brightness, contrast, saturation uniform in `[max(0, 1 - j), 1 + j]`, hue uniform in `[-j, j]` turns.
    """
    half = np.array(jitter)
    low, high = np.append(np.maximum(1 - half[:3], 0), -half[3]), np.append(1 + half[:3], half[3])
    factors = (low + (high - low) * uniform[:, FACTORS]).astype(np.float32)
    return np.where(uniform[:, JITTER, None] < probability, factors, NEUTRAL)


def _between(uniform: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * uniform
