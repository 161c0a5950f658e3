"""What is random in a view, drawn for a batch at once: plain arrays that any engine can carry out."""

from __future__ import annotations

import itertools
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled

exactly = partial(compiled, fastmath=False)
"""Each operation is rounded as it is written, so that another processor draws the same."""

ATTEMPTS = 10
ORDERS = np.array(list(itertools.permutations(range(4))), np.int8)  # all 24, in lexicographic order
NEUTRAL = np.array([1, 1, 1, 0], np.float32)
HUE = 3

# Which of a sample's uniform numbers decides what. Positions are for ever: a new one goes to the end.
AREA, RATIO = 0, ATTEMPTS  # one for each attempt
TOP, LEFT, FLIP, JITTER, ORDER, FACTORS = range(20, 26)  # four factors
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


@exactly
def between(uniform: float, low: float, high: float) -> float:
    """A number in [0, 1), stretched to [low, high)."""
    return low + (high - low) * uniform


@exactly
def crops(
    uniform: NDArray[np.float64],
    sizes: NDArray[np.int64],
    scale: NDArray[np.float64],
    ratio: NDArray[np.float64],
    pad: float,
    probability: float,
) -> NDArray[np.int32]:
    """Random resized crops: area uniform, log of width / height uniform, position uniform among those that fit.

    The first of ten attempts that fits is taken; where none does, the largest centred crop whose ratio is allowed, as
    torchvision's RandomResizedCrop does. Differs from it: a side is never below one pixel.

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
    boxes = np.empty((len(sizes), 4), np.int32)
    widest, narrowest = np.log(ratio[1]), np.log(ratio[0])
    for row in range(len(sizes)):
        draw, height, width = uniform[row], sizes[row, 0], sizes[row, 1]
        if draw[CROP] >= probability:
            boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3] = 0, 0, height, width
            continue
        margin_y, margin_x = np.rint(pad * height), np.rint(pad * width)
        full_height, full_width = height + 2 * margin_y, width + 2 * margin_x
        for attempt in range(ATTEMPTS):
            area = height * width * between(draw[AREA + attempt], scale[0], scale[1]) * (1 + 2 * pad) ** 2
            aspect = np.exp(between(draw[RATIO + attempt], narrowest, widest))
            crop_width, crop_height = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
            if 1 <= crop_width <= full_width and 1 <= crop_height <= full_height:
                top = np.floor(draw[TOP] * (full_height - crop_height + 1))
                left = np.floor(draw[LEFT] * (full_width - crop_width + 1))
                break
        else:
            crop_height = min(max(np.rint(full_width / ratio[0]), 1), full_height)
            crop_width = min(max(np.rint(full_height * ratio[1]), 1), full_width)
            top, left = (full_height - crop_height) // 2, (full_width - crop_width) // 2
        boxes[row, 0], boxes[row, 1] = top - margin_y, left - margin_x
        boxes[row, 2], boxes[row, 3] = crop_height, crop_width
    return boxes


@exactly
def colours(uniform: NDArray[np.float64], jitter: NDArray[np.float64], probability: float) -> NDArray[np.float32]:
    """Factors of the four colour operations, float32 `[B, 4]`, neutral where no jitter is applied.

    Brightness, contrast, saturation uniform in `[max(0, 1 - j), 1 + j]`, hue uniform in `[-j, j]` turns.

    Args:
        uniform: Numbers in [0, 1), `[B, SLOTS]`.
        jitter: The four j, >= 0.
        probability: Of any jitter.
    """
    factors = np.empty((len(uniform), 4), np.float32)
    for row in range(len(uniform)):
        for operation in range(4):
            j, hue = jitter[operation], operation == HUE
            low, high = (-j, j) if hue else (max(1 - j, 0), 1 + j)
            drawn = between(uniform[row, FACTORS + operation], low, high)
            factors[row, operation] = drawn if uniform[row, JITTER] < probability else NEUTRAL[operation]
    return factors
