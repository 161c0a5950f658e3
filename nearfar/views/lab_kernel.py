"""sRGB to normalised L and ab on a CPU: with torch's powers that took seven times as long as the view itself.

Powers are roots by Newton's method, which runs on whole vectors. A first guess divides the exponent in the bits of a
number; it is some percent off, and each step squares the error.
"""

from __future__ import annotations

import numpy as np

from ..compiled import compiled, inlined

f32, i32 = np.float32, np.int32
THIRD, TWO_THIRDS, THIRD_OF_ONE = f32(1 / 3), f32(2 / 3), i32(709_921_077)
FIFTH, FOUR_FIFTHS, FIFTH_OF_ONE = f32(0.2), f32(0.8), i32(851_900_000)
"""The last are the bits of 1 times 2/3 and 4/5, less what halves the largest error of the guess."""
DARK, BELOW, ADDED, SHARE = f32(0.04045), f32(1 / 12.92), f32(0.055), f32(1 / 1.055)
BLACKEST, SLOPE, OFFSET = f32(0.008856), f32(7.787), f32(16 / 116)


@inlined
def _nearer_fifth(root, x):
    square = root * root
    return FOUR_FIFTHS * root + FIFTH * x / (square * square)


@inlined
def _nearer_third(root, x):
    return TWO_THIRDS * root + THIRD * x / (root * root)


@inlined
def _linear(c):
    u = (c + ADDED) * SHARE
    root = i32(i32(f32(f32(u).view(i32)) * FIFTH) + FIFTH_OF_ONE).view(f32)
    root = _nearer_fifth(_nearer_fifth(_nearer_fifth(_nearer_fifth(root, u), u), u), u)
    power, straight = u * u * root * root, c * BELOW  # u^2.4; both are computed, since a branch would stop the vector
    return power if c > DARK else straight


@inlined
def _f(t):
    above = t if t > BLACKEST else BLACKEST
    root = i32(i32(f32(f32(above).view(i32)) * THIRD) + THIRD_OF_ONE).view(f32)
    root = _nearer_third(_nearer_third(_nearer_third(root, above), above), above)
    straight = SLOPE * t + OFFSET
    return root if t > BLACKEST else straight


@inlined
def _affine(more, less, scale, shift, into):
    for i in range(len(into)):
        into[i] = scale * (more[i] if less is None else more[i] - less[i]) + shift


@compiled
def split(rgb, matrix, scale, shift, light, colour):
    """Fills L `[B, 1, H, W]` and ab `[B, 2, H, W]` from RGB `[B, 3, H, W]` in [0, 1].

    A loop for each step and row, since a loop with many arrays does not run on whole vectors.

    Args:
        rgb: float32, contiguous.
        matrix: Linear RGB to XYZ over the white's, float32 `[3, 3]`.
        scale: Factors of f(Y), f(X) - f(Y) and f(Y) - f(Z), float32 `[3]`.
        shift: Added to them, float32 `[3]`.
        light: Receives L.
        colour: Receives ab.
    """
    width = rgb.shape[3]
    linear, root = np.empty((3, width), f32), np.empty((3, width), f32)
    for n in range(rgb.shape[0]):
        for row in range(rgb.shape[2]):
            for k in range(3):
                given, into = rgb[n, k, row], linear[k]
                for i in range(width):
                    into[i] = _linear(given[i])
            for k in range(3):
                red, green, blue, into = linear[0], linear[1], linear[2], root[k]
                of_red, of_green, of_blue = matrix[k, 0], matrix[k, 1], matrix[k, 2]
                for i in range(width):
                    into[i] = _f(of_red * red[i] + of_green * green[i] + of_blue * blue[i])
            _affine(root[1], None, scale[0], shift[0], light[n, 0, row])
            _affine(root[0], root[1], scale[1], shift[1], colour[n, 0, row])
            _affine(root[1], root[2], scale[2], shift[2], colour[n, 1, row])
