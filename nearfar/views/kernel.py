"""The CPU engine: one view of one image from uint8 to float32 in a single pass, in buffers that stay in the cache.

All compiled functions are in this one file on purpose: see `compiled`.

Constants are float32, because a Python float would turn the arithmetic into float64.
"""

from __future__ import annotations

from math import exp

import numpy as np

from ..compiled import compiled, inlined

f32 = np.float32
ZERO, ONE, TWO, FOUR, SIX, SIXTH, TINY = f32(0), f32(1), f32(2), f32(4), f32(6), f32(1 / 6), f32(1e-20)
RED, GREEN, BLUE = f32(0.2989), f32(0.587), f32(0.114)
UNIT = f32(1 / 255)
LANES = 16  # float32 in a widest register, to which memory is aligned
NEGLIGIBLE = 1e-9  # blur weights below this are left out


@inlined
def _clamp(value):
    return min(max(value, ZERO), ONE)


@inlined
def _taps(length, flip, first, weights):
    """Weights of an antialiased bilinear resampling of `length` pixels to `len(first)`.

    Output i lies at c = s (i + 1/2), s the length over the size, and pixel j has weight
    max(0, 1 - |j + 1/2 - c| / max(s, 1)), normalised to sum 1. Fills `first[output]` with the first pixel and
    `weights[tap, output]`, zero for pixels that do not exist; returns the number of taps in use.
    """
    size = first.shape[0]
    scale = length / size
    reach = max(scale, 1.0)
    used = 0
    for i in range(size):
        centre = scale * (i + 0.5)
        low = max(int(centre - reach + 0.5), 0)
        count = min(int(centre + reach + 0.5), length) - low
        total = 0.0
        for tap in range(count):
            total += max(0.0, 1.0 - abs(low + tap + 0.5 - centre) / reach)
        output = size - 1 - i if flip else i
        for tap in range(weights.shape[0]):
            weight = max(0.0, 1.0 - abs(low + tap + 0.5 - centre) / reach)
            weights[tap, output] = f32(weight / total) if tap < count else ZERO
        first[output] = low
        used = max(used, count)
    return used


@inlined
def _seen(index, size):
    """The index that a mirror at both edge pixels shows; never one beyond them, wherever a box lies."""
    index = abs(index)
    return max(min(index, 2 * (size - 1) - index), 0)


@inlined
def _resample(image, valid, box, flip, reflect, planes, first, weights, row, rows):
    """Crop, antialiased resize and mirror: uint8 `[C, H, W]` to `[0, 1]`. Across first, then down.

    Pixels beyond `valid`, height and width of the image, are 0, or with `reflect` those that it mirrors at its edges;
    their memory is not read.
    first: uint32 `[2, S]`, unsigned so that no index is checked for being negative; weights: `[2, taps, S]`; row: one
    source row and room for the taps; rows: `[H, S]`.
    """
    top, left, height, width = box[0], box[1], box[2], box[3]
    taps_down = _taps(height, False, first[0], weights[0])
    taps_across = _taps(width, flip, first[1], weights[1])
    size = planes.shape[2]
    at, near, far = first[1], weights[1, 0], weights[1, 1]
    begin = min(max(-left, 0), width)
    end = max(min(valid[1] - left, width), begin)
    row[:begin] = ZERO
    row[end : width + max(taps_across, 2)] = ZERO
    inside, beside = row[begin:end], row[1:]
    for channel in range(image.shape[0]):
        for y in range(height):
            target = rows[y]
            line = top + y
            if reflect:
                line = _seen(line, valid[0])
            elif line < 0 or line >= valid[0]:
                target[:] = ZERO
                continue
            source = image[channel, line, left + begin : left + end]
            for x in range(end - begin):
                inside[x] = f32(source[x]) * UNIT
            if reflect:
                for x in range(begin):
                    row[x] = f32(image[channel, line, _seen(left + x, valid[1])]) * UNIT
                for x in range(end, width):
                    row[x] = f32(image[channel, line, _seen(left + x, valid[1])]) * UNIT
            for x in range(size):
                target[x] = near[x] * row[at[x]] + far[x] * beside[at[x]]
            for tap in range(2, taps_across):
                weight, shifted = weights[1, tap], row[tap:]
                for x in range(size):
                    target[x] += weight[x] * shifted[at[x]]
        for y in range(size):
            target, start = planes[channel, y], int(first[0, y])
            share, other = weights[0, 0, y], weights[0, 1, y]
            source_row, next_row = rows[start], rows[min(start + 1, height - 1)]
            for x in range(size):
                target[x] = share * source_row[x] + other * next_row[x]
            for tap in range(2, taps_down):
                share = weights[0, tap, y]
                if share != ZERO:
                    source_row = rows[start + tap]
                    for x in range(size):
                        target[x] += share * source_row[x]


@inlined
def _brightness(planes, factor):
    """`clamp(factor x)`."""
    values = planes.reshape(-1)
    for i in range(values.shape[0]):
        values[i] = _clamp(values[i] * factor)


@inlined
def _contrast(planes, factor):
    """`clamp(factor x + (1 - factor) m)`, m the mean of the grey image, summed by rows to lose no digits."""
    channels, height, width = planes.shape
    total = 0.0
    for y in range(height):
        part = ZERO
        if channels == 3:
            red, green, blue = planes[0, y], planes[1, y], planes[2, y]
            for x in range(width):
                part += RED * red[x] + GREEN * green[x] + BLUE * blue[x]
        else:
            grey = planes[0, y]
            for x in range(width):
                part += grey[x]
        total += part
    shift = f32(total / (height * width)) * (ONE - factor)
    values = planes.reshape(-1)
    for i in range(values.shape[0]):
        values[i] = _clamp(values[i] * factor + shift)


@inlined
def _saturation(planes, factor):
    """`clamp(factor x + (1 - factor) g)`, g the grey value of the pixel; factor 0 gives the grey image."""
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    rest = ONE - factor
    for i in range(red.shape[0]):
        shift = rest * (RED * red[i] + GREEN * green[i] + BLUE * blue[i])
        red[i] = _clamp(red[i] * factor + shift)
        green[i] = _clamp(green[i] * factor + shift)
        blue[i] = _clamp(blue[i] * factor + shift)


@inlined
def _sextant(value, chroma, position):
    """`V - C clamp(min(k, 4 - k))` with k the position modulo 6: a channel of the colour with hue position / 6."""
    k = position - SIX * np.floor(position * SIXTH)
    return value - chroma * _clamp(min(k, FOUR - k))


@inlined
def _hue(planes, turns):
    """Turns the hue of HSV. With V the largest channel and C = V S the spread, channel n is `_sextant(V, C, n + 6 H)`,

    n = 5, 3, 1 for red, green, blue. Grey pixels have C = 0 and stay.
    """
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    turn = SIX * turns
    for i in range(red.shape[0]):
        r, g, b = red[i], green[i], blue[i]
        value = max(max(r, g), b)
        chroma = value - min(min(r, g), b)
        inverse = ONE / max(chroma, TINY)
        sixths = (
            (g - b) * inverse if value == r else (TWO + (b - r) * inverse if value == g else FOUR + (r - g) * inverse)
        )
        sixths += turn
        red[i] = _sextant(value, chroma, f32(5) + sixths)
        green[i] = _sextant(value, chroma, f32(3) + sixths)
        blue[i] = _sextant(value, chroma, f32(1) + sixths)


@inlined
def _jitter(planes, order, factors):
    """The four colour operations in the order drawn. Of one channel, saturation and hue have nothing to change."""
    coloured = planes.shape[0] == 3
    for operation in order:
        factor = factors[operation]
        if operation == 0 and factor != ONE:
            _brightness(planes, factor)
        elif operation == 1 and factor != ONE:
            _contrast(planes, factor)
        elif operation == 2 and factor != ONE and coloured:
            _saturation(planes, factor)
        elif operation == 3 and factor != ZERO and coloured:
            _hue(planes, factor)


@inlined
def _bell(sigma, size, bell):
    """Fills `bell[j]` with the weight exp(-j^2 / (2 sigma^2)) of distance j, normalised; returns the reach."""
    reach = min(bell.shape[0], size) - 1
    total = 1.0
    for j in range(1, reach + 1):
        total += 2 * exp(-0.5 * (j / sigma) ** 2)
    for j in range(reach + 1):
        bell[j] = f32(exp(-0.5 * (j / sigma) ** 2) / total)
    while reach > 0 and bell[reach] < NEGLIGIBLE:
        reach -= 1
    return reach


@inlined
def _add_both(target, weight, one, other):
    """`target + weight (one + other)`, in place; arrays of one length, so that the loop has no index to check."""
    for x in range(target.shape[0]):
        target[x] += weight * (one[x] + other[x])


@inlined
def _blur(planes, sigma, bell, row, rows):
    """Gaussian blur, separable, reflected at the edges (edge pixels not repeated). Across first, then down."""
    size = planes.shape[2]
    reach = _bell(sigma, size, bell)
    for channel in range(planes.shape[0]):
        for y in range(size):
            source, target, middle = planes[channel, y], rows[y], row[reach : reach + size]
            for x in range(size):
                middle[x] = source[x]
            for x in range(reach):
                row[x], row[reach + size + x] = source[reach - x], source[size - 2 - x]
            for x in range(size):
                target[x] = bell[0] * middle[x]
            for j in range(1, reach + 1):
                _add_both(target, bell[j], row[reach - j : reach - j + size], row[reach + j : reach + j + size])
        for y in range(size):
            source, target = rows[y], planes[channel, y]
            for x in range(size):
                target[x] = bell[0] * source[x]
            for j in range(1, reach + 1):
                _add_both(target, bell[j], rows[_seen(y - j, size)], rows[_seen(y + j, size)])


@inlined
def _finish(planes, solarise, threshold, mean, scale, channels_last, output):
    """Solarisation (`1 - x` where x >= threshold), then `(x - mean) scale`, into `output [C * S * S]` in its layout."""
    channels, area = planes.shape[0], planes.shape[1] * planes.shape[2]
    for channel in range(channels):
        source, shift, factor = planes[channel].reshape(-1), mean[channel], scale[channel]
        start, step = (channel, channels) if channels_last else (channel * area, 1)
        for i in range(area):
            value = source[i]
            if solarise and value >= threshold:
                value = ONE - value
            output[start + i * step] = (value - shift) * factor


@compiled
def views(images, draw, size, radius, threshold, mean, scale, channels_last, begin, end, scratch, output):
    """Views of the images begin to end. Each depends on its own image and draw alone, so any split gives the same bits.

    images: uint8 `[B, C, H, W]`; draw: `Draw`; size: side S of a view; radius: of the blur's kernel; mean, scale:
    float32 `[C]`, scale one over the standard deviation; scratch: float32, `C * S * S`, LANES, and S times the larger
    of S and the longest side of a crop; output: float32 `[B, C * S * S]`, in memory as `[B, S, S, C]` if channels_last,
    otherwise `[B, C, S, S]`.
    """
    channels = images.shape[1]
    longest = 1
    for b in range(begin, end):
        longest = max(longest, draw.boxes[b, 2], draw.boxes[b, 3])
    most_taps = 2 * (longest // size + 1) + 2
    area, tallest = channels * size * size, max(longest, size)
    planes = scratch[:area].reshape(channels, size, size)
    after = (area + LANES - 1) // LANES * LANES
    rows = scratch[after : after + tallest * size].reshape(tallest, size)
    first = np.empty((2, size), np.uint32)
    weights = np.empty((2, most_taps, size), np.float32)
    bell = np.empty(radius + 1, np.float32)
    row = np.empty(max(longest + most_taps, size + 2 * radius), np.float32)
    for b in range(begin, end):
        _resample(
            images[b], draw.valid[b], draw.boxes[b], draw.flip[b], draw.reflect[b], planes, first, weights, row, rows
        )
        _jitter(planes, draw.order[b], draw.factors[b])
        if draw.grey[b] and channels == 3:
            _saturation(planes, ZERO)
        if draw.sigma[b] > ZERO:
            _blur(planes, draw.sigma[b], bell, row, rows)
        _finish(planes, draw.solarise[b], threshold, mean, scale, channels_last, output[b])
