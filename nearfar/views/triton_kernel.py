"""The kernels of views on an NVIDIA GPU: the arithmetic of `kernel`, tile by tile. `triton_render` launches them.

A program owns one tile of one sample's view. Contrast needs the mean of the whole view and a blur its neighbours, so
there are up to four launches, with the values between them in float32 planes `[B, C, S, S]`:

    begun       resampling, then the colour steps before contrast; all samples
    contrasted  contrast and the colour steps after it; the samples that have a contrast
    blurred     across, then down; the samples that have a blur

The last of these that a sample has writes its view: solarised, normalised, in the layout and type of the output. No
number has two writers and sums are added in a fixed order, so the same inputs give the same bits.

What is drawn comes as `whole`, int32 `[B, 16]`, and `real`, float32 `[B, 8]`; `channel` is float32 `[2, C]`: mean, and
one over the standard deviation.
"""

from __future__ import annotations

from .triton_tile import (
    BLURRED,
    CONTRASTED,
    DEVIATIONS,
    HERE,
    PAUSE,
    REAL,
    SIGMA,
    SOLARISE,
    STEPS,
    WHOLE,
    grey,
    jit,
    place,
    resampled,
    steps,
)

if HERE:
    import triton.language as tl  # pyright: ignore[reportMissingImports]


@jit
def _finish(
    value, box, sample, plane, y, x, there, threshold, channel, output,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Solarisation (`1 - x` where x >= threshold) and normalisation of a tile of a plane, into its place."""
    value = tl.where((tl.load(box + SOLARISE) != 0) & (value >= threshold), 1.0 - value, value)
    value = (value - tl.load(channel + plane)) * tl.load(channel + CHANNELS + plane)
    target = output + sample.to(tl.int64) * (CHANNELS * SIZE * SIZE)
    at = (y * SIZE + x) * CHANNELS + plane if CHANNELS_LAST else (plane * SIZE + y) * SIZE + x
    tl.store(target + at, value.to(output.dtype.element_ty), mask=there)


@jit
def _leave(
    red, green, blue, last, box, sample, plane, y, x, there, threshold, channel, output, scratch,
    SIZE: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """A tile, finished where this was the last of its launches, otherwise as it is for the next one."""
    if last:
        _finish(red, box, sample, plane, y, x, there, threshold, channel, output, SIZE, CHANNELS, CHANNELS_LAST)
        if CHANNELS == 3:
            _finish(green, box, sample, 1, y, x, there, threshold, channel, output, SIZE, CHANNELS, CHANNELS_LAST)
            _finish(blue, box, sample, 2, y, x, there, threshold, channel, output, SIZE, CHANNELS, CHANNELS_LAST)
    else:
        at = scratch + (sample.to(tl.int64) * CHANNELS + plane) * (SIZE * SIZE) + (y * SIZE + x)
        tl.store(at, red, mask=there)
        if CHANNELS == 3:
            tl.store(at + SIZE * SIZE, green, mask=there)
            tl.store(at + 2 * SIZE * SIZE, blue, mask=there)


@jit
def begun(
    whole, real, channel, output, scratch, threshold, sums, images, height, width,
    SIZE: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Grid: samples * groups of channels * tiles. Leaves in `sums [B, groups, tiles]` those of the grey image."""
    groups = 1 if CHANNELS == 3 else CHANNELS
    group, y, x, there = place(SIZE, TILE)
    sample, plane = group // groups, group % groups
    box, numbers = whole + sample * WHOLE, real + sample * REAL
    image = images + (sample.to(tl.int64) * CHANNELS + plane) * height * width
    red, green, blue = resampled(image, box, width, height * width, y, x, SIZE, TILE, CHANNELS)
    pause = tl.load(box + PAUSE)
    red, green, blue = steps(red, green, blue, 0, pause, 0.0, box, numbers, CHANNELS)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(there, grey(red, green, blue, CHANNELS), 0.0)))
    last = (pause == STEPS) & (tl.load(numbers + SIGMA) == 0.0)
    _leave(
        red, green, blue, last, box, sample, plane, y, x, there, threshold, channel, output, scratch,
        SIZE, CHANNELS, CHANNELS_LAST,
    )  # fmt: skip


@jit
def contrasted(
    whole, real, channel, output, scratch, threshold, sums,
    SIZE: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    TILES: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    """Grid: samples with a contrast * groups of channels * TILES. POWER: that of two which is at least TILES.

    The mean is that of the first group: of three channels the grey image, else the first channel.
    """
    groups = 1 if CHANNELS == 3 else CHANNELS
    group, y, x, there = place(SIZE, TILE)
    sample, plane = tl.load(whole + (group // groups) * WHOLE + CONTRASTED), group % groups
    box, numbers = whole + sample * WHOLE, real + sample * REAL
    tile = tl.arange(0, POWER)
    mean = tl.sum(tl.load(sums + sample * (groups * TILES) + tile, mask=tile < TILES, other=0.0)) / (SIZE * SIZE)
    at = scratch + (sample.to(tl.int64) * CHANNELS + plane) * (SIZE * SIZE) + (y * SIZE + x)
    red = tl.load(at, mask=there, other=0.0)
    green, blue = red, red
    if CHANNELS == 3:
        green = tl.load(at + SIZE * SIZE, mask=there, other=0.0)
        blue = tl.load(at + 2 * SIZE * SIZE, mask=there, other=0.0)
    red, green, blue = steps(red, green, blue, tl.load(box + PAUSE), STEPS, mean, box, numbers, CHANNELS)
    last = tl.load(numbers + SIGMA) == 0.0
    _leave(
        red, green, blue, last, box, sample, plane, y, x, there, threshold, channel, output, scratch,
        SIZE, CHANNELS, CHANNELS_LAST,
    )  # fmt: skip


@jit
def blurred(
    whole, real, channel, output, scratch, threshold, across,
    SIZE: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    RADIUS: tl.constexpr, DOWN: tl.constexpr,
):  # fmt: skip
    """Grid: samples with a blur * channels * tiles. From `scratch` to `across`, or DOWN, from there into the output.

    Gaussian weights as far as RADIUS, below the size, and normalised; reflected, edge pixels not repeated.
    """
    group, y, x, there = place(SIZE, TILE)
    sample, plane = tl.load(whole + (group // CHANNELS) * WHOLE + BLURRED), group % CHANNELS
    sigma = tl.load(real + sample * REAL + SIGMA)
    reach = tl.minimum(sigma * DEVIATIONS, RADIUS - 1.0).to(tl.int32) + 1
    start = (sample.to(tl.int64) * CHANNELS + plane) * (SIZE * SIZE)
    source = (across if DOWN else scratch) + start
    blur, total = tl.load(source + (y * SIZE + x)), 1.0
    for j in range(1, reach + 1):
        weight = tl.exp(-0.5 * (j / sigma) * (j / sigma))
        if DOWN:
            before, after = tl.abs(y - j) * SIZE + x, (SIZE - 1 - tl.abs(SIZE - 1 - y - j)) * SIZE + x
        else:
            before, after = y * SIZE + tl.abs(x - j), y * SIZE + (SIZE - 1 - tl.abs(SIZE - 1 - x - j))
        blur += weight * (tl.load(source + before) + tl.load(source + after))
        total += 2.0 * weight
    blur /= total
    if DOWN:
        box = whole + sample * WHOLE
        _finish(blur, box, sample, plane, y, x, there, threshold, channel, output, SIZE, CHANNELS, CHANNELS_LAST)
    else:
        tl.store(across + start + (y * SIZE + x), blur, mask=there)
