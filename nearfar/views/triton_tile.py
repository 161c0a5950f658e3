"""What is done to a tile of a view on an NVIDIA GPU: resampling and colours, the arithmetic of `kernel`.

A tile is a float32 `[T, T]` for each of red, green and blue. Of three channels they go together; of any other number
each goes alone, and is all three.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

HERE = find_spec("triton") is not None
if HERE:
    import triton  # pyright: ignore[reportMissingImports]
    import triton.language as tl  # pyright: ignore[reportMissingImports]


def jit(function: Any) -> Any:
    """A kernel; the function as it is where there is no triton, and nothing here is called."""
    return triton.jit(function) if HERE else function


def constant(value: int | float) -> Any:
    """A number that kernels may read."""
    return tl.constexpr(value) if HERE else value


# What was drawn: columns of `whole`, int32 `[B, 16]`. Row k of CONTRASTED and of BLURRED holds the k-th such sample.
TOP, LEFT, HEIGHT, WIDTH = constant(0), constant(1), constant(2), constant(3)
VALID_HEIGHT, VALID_WIDTH, FLIP, SOLARISE = constant(4), constant(5), constant(6), constant(7)
CONTRASTED, BLURRED, PAUSE, OPERATIONS = constant(8), constant(9), constant(10), constant(11)
WHOLE = constant(16)
# Columns of `real`, float32 `[B, 8]`, two of them spare.
SIGMA, FACTORS = constant(0), constant(1)
REAL = constant(8)

STEPS = constant(5)  # of colour: the four of the jitter in their order, then grey
CONTRAST, SATURATION, HUE = constant(1), constant(2), constant(3)
RED, GREEN, BLUE = constant(0.2989), constant(0.587), constant(0.114)
TINY = constant(1e-20)
DEVIATIONS = constant(6.44)  # further out, the weights of a blur are below 1e-9


@jit
def place(SIZE: tl.constexpr, TILE: tl.constexpr):
    """What a program owns: number of the view or plane; rows `[T, 1]`, columns `[1, T]`; which pixels are in the view.

    The others repeat its last row and column, so that no arithmetic meets what does not exist.
    """
    across = (SIZE + TILE - 1) // TILE
    group, tile = tl.program_id(0) // (across * across), tl.program_id(0) % (across * across)
    y = (tile // across) * TILE + tl.arange(0, TILE)[:, None]
    x = (tile % across) * TILE + tl.arange(0, TILE)[None, :]
    return group, tl.minimum(y, SIZE - 1), tl.minimum(x, SIZE - 1), (y < SIZE) & (x < SIZE)


@jit
def _first(i, length, SIZE: tl.constexpr):
    """First pixel of a crop's side that may have a weight in output i."""
    begin = (2 * i + 1) * length + SIZE - 2 * tl.maximum(length, SIZE)
    return tl.maximum(begin, 0) // (2 * SIZE)


@jit
def _taps(length, SIZE: tl.constexpr):
    """Most pixels of a crop's side that have a weight in one output."""
    return (2 * tl.maximum(length, SIZE) + SIZE - 1) // SIZE


@jit
def _weight(i, pixel, length, SIZE: tl.constexpr):
    """`max(0, 2 max(L, S) - |(2 j + 1) S - (2 i + 1) L|)` of pixel j in output i, L the length and S the size.

    That is the triangle of antialiased bilinear resampling times a factor, which `_total` has too. As a whole number it
    loses no digits far from the corner.
    """
    above = 2 * tl.maximum(length, SIZE) - tl.abs((2 * pixel + 1) * SIZE - (2 * i + 1) * length)
    return tl.where(pixel < length, tl.maximum(above, 0), 0).to(tl.float32)


@jit
def _total(i, length, SIZE: tl.constexpr):
    """Sum of the weights of output i."""
    first = _first(i, length, SIZE)
    total = _weight(i, first, length, SIZE)
    for tap in range(1, _taps(length, SIZE)):
        total += _weight(i, first + tap, length, SIZE)
    return total


@jit
def _mirrored(i, length, reflect):
    """Pixel i, or where it lies beyond the image and that reflects, the one that is seen there."""
    inner = tl.where(i < 0, -i, tl.where(i >= length, 2 * (length - 1) - i, i))
    return tl.where(reflect, inner, i)


@jit
def resampled(image, box, width, area, y, x, SIZE: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr):
    """Crop, antialiased resize and mirror of a tile, values in [0, 1].

    image: its first plane; box: its row of `whole`; width, area: of a plane in memory. Pixels beyond the valid size are
    0, or those that the image mirrors; their memory is not read. Both directions in one go: where a crop is shrunk,
    four reads a pixel of it.
    """
    top, height, rows = tl.load(box + TOP), tl.load(box + HEIGHT), tl.load(box + VALID_HEIGHT)
    left, breadth, columns = tl.load(box + LEFT), tl.load(box + WIDTH), tl.load(box + VALID_WIDTH)
    flip = tl.load(box + FLIP)  # and in its second bit, whether what lies beyond the image is mirrored
    reflect = flip >= 2
    x = tl.where(flip % 2 != 0, SIZE - 1 - x, x)
    first_down, first_across = _first(y, height, SIZE), _first(x, breadth, SIZE)
    red = tl.zeros((TILE, TILE), tl.float32)
    green, blue = red, red
    for down in range(_taps(height, SIZE)):
        share, row = _weight(y, first_down + down, height, SIZE), top + first_down + down
        row = _mirrored(row, rows, reflect)
        reds = tl.zeros((TILE, TILE), tl.float32)
        greens, blues = reds, reds
        for across in range(_taps(breadth, SIZE)):
            weight, column = _weight(x, first_across + across, breadth, SIZE), left + first_across + across
            column = _mirrored(column, columns, reflect)
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            at = image + (row * width + column)
            reds += weight * tl.load(at, mask=inside, other=0).to(tl.float32)
            if CHANNELS == 3:
                greens += weight * tl.load(at + area, mask=inside, other=0).to(tl.float32)
                blues += weight * tl.load(at + 2 * area, mask=inside, other=0).to(tl.float32)
        red += share * reds
        if CHANNELS == 3:
            green += share * greens
            blue += share * blues
    scale = 1.0 / (255.0 * _total(y, height, SIZE) * _total(x, breadth, SIZE))
    red *= scale
    if CHANNELS == 3:
        green *= scale
        blue *= scale
    else:
        green, blue = red, red
    return red, green, blue


@jit
def _clamp(value):
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@jit
def grey(red, green, blue, CHANNELS: tl.constexpr):
    """The grey value of each pixel."""
    return RED * red + GREEN * green + BLUE * blue if CHANNELS == 3 else red


@jit
def _sextant(value, chroma, position):
    """`V - C clamp(min(k, 4 - k))` with k the position modulo 6: a channel of the colour with hue position / 6."""
    k = position - 6.0 * tl.floor(position * (1.0 / 6.0))
    return value - chroma * _clamp(tl.minimum(k, 4.0 - k))


@jit
def _turned(red, green, blue, turns):
    """The hue of HSV turned; grey pixels stay. The formula is told in `kernel`."""
    value = tl.maximum(tl.maximum(red, green), blue)
    chroma = value - tl.minimum(tl.minimum(red, green), blue)
    inverse = 1.0 / tl.maximum(chroma, TINY)
    sixths = tl.where(value == green, 2.0 + (blue - red) * inverse, 4.0 + (red - green) * inverse)
    sixths = tl.where(value == red, (green - blue) * inverse, sixths) + 6.0 * turns
    red, green = _sextant(value, chroma, 5.0 + sixths), _sextant(value, chroma, 3.0 + sixths)
    return red, green, _sextant(value, chroma, 1.0 + sixths)


@jit
def steps(red, green, blue, begin, end, mean, whole, real, CHANNELS: tl.constexpr):
    """Colour steps begin to end of a sample: `clamp(factor x + (1 - factor) other)`, or a turn of the hue.

    The other is 0 (brightness), the mean of the view's grey image (contrast) or the grey value (saturation).
    """
    for step in range(begin, end):
        operation, factor = tl.load(whole + OPERATIONS + step), tl.load(real + FACTORS + step)
        if operation == HUE:
            red, green, blue = _turned(red, green, blue, factor)
        else:
            other = tl.where(operation == SATURATION, grey(red, green, blue, CHANNELS), 0.0)
            other = (1.0 - factor) * tl.where(operation == CONTRAST, mean, other)
            red, green = _clamp(red * factor + other), _clamp(green * factor + other)
            blue = _clamp(blue * factor + other)
    return red, green, blue
