"""The slow twin of `nearfar.views`: written from the definitions, in float64, pixel by pixel where it matters."""

from __future__ import annotations

import colorsys
import math

import numpy as np


def smooth(count: int, channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour with a little noise, uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    phase, pace = random.uniform(0, 6, (2, count, channels, 2, 1, 1))
    waves = np.sin(pace[:, :, 0] * 2 * y + phase[:, :, 0]) + np.cos(pace[:, :, 1] * 2 * x + phase[:, :, 1])
    return np.clip(128 + 70 * waves + random.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


def triangle_matrix(length: int, size: int) -> np.ndarray:
    """Antialiased bilinear resampling as a dense matrix `[size, length]`."""
    scale = length / size
    reach = max(scale, 1.0)
    matrix = np.zeros((size, length))
    for i in range(size):
        for j in range(length):
            distance = abs((j + 0.5) - scale * (i + 0.5))
            matrix[i, j] = max(0.0, 1.0 - distance / reach)
        matrix[i] /= matrix[i].sum()
    return matrix


def crop_resize(image: np.ndarray, box, size: int) -> np.ndarray:
    """uint8 `[C, H, W]` -> `[C, size, size]` in [0, 1]."""
    top, left, height, width = (int(v) for v in box)
    part = image[:, top : top + height, left : left + width] / 255.0
    return triangle_matrix(height, size) @ part @ triangle_matrix(width, size).T


def grey_of(pixels: np.ndarray) -> np.ndarray:
    """`[C, S, S]` -> `[S, S]`."""
    if len(pixels) == 1:
        return pixels[0]
    return 0.2989 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]


def blend(pixels: np.ndarray, other, factor: float) -> np.ndarray:
    return np.clip(factor * pixels + (1 - factor) * other, 0, 1)


def turn_hue(pixels: np.ndarray, turns: float) -> np.ndarray:
    """Through HSV and back, one pixel at a time, by the standard library."""
    out = np.empty_like(pixels)
    for y, x in np.ndindex(pixels.shape[1:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixels[:, y, x])
        out[:, y, x] = colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)
    return out


def jitter(pixels: np.ndarray, order, factors) -> np.ndarray:
    coloured = len(pixels) == 3
    for operation in order:
        factor = float(factors[operation])
        if operation == 0:
            pixels = blend(pixels, 0.0, factor)
        elif operation == 1:
            pixels = blend(pixels, grey_of(pixels).mean(), factor)
        elif operation == 2 and coloured:
            pixels = blend(pixels, grey_of(pixels), factor)
        elif operation == 3 and coloured:
            pixels = turn_hue(pixels, factor)
    return pixels


def blur(pixels: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    """Two-dimensional Gaussian sum over reflected neighbours."""
    size = pixels.shape[1]
    radius = min(radius, size - 1)
    offsets = range(-radius, radius + 1)
    bell = np.array([math.exp(-(j**2) / (2 * sigma**2)) for j in offsets])
    bell /= bell.sum()
    padded = np.pad(pixels, ((0, 0), (radius, radius), (radius, radius)), mode="reflect") if radius else pixels
    out = np.zeros_like(pixels)
    for i, down in enumerate(bell):
        for j, across in enumerate(bell):
            out += down * across * padded[:, i : i + size, j : j + size]
    return out


def view(image: np.ndarray, draw, b: int, *, size, radius, threshold, mean, std) -> np.ndarray:
    """Sample b of a draw carried out on its image: `[C, size, size]`."""
    pixels = crop_resize(image, draw.boxes[b], size)
    if draw.flip[b]:
        pixels = pixels[:, :, ::-1]
    if len(pixels) in (1, 3):
        pixels = jitter(pixels, draw.order[b], draw.factors[b])
    if draw.grey[b] and len(pixels) == 3:
        pixels = np.stack([grey_of(pixels)] * 3)
    if draw.sigma[b] > 0:
        pixels = blur(pixels, float(draw.sigma[b]), radius)
    if draw.solarise[b]:
        pixels = np.where(pixels >= threshold, 1 - pixels, pixels)
    mean, std = np.reshape(mean, (-1, 1, 1)), np.reshape(std, (-1, 1, 1))
    return (pixels - mean) / std


def crop_box(uniform, height: int, width: int, scale, ratio) -> tuple[int, int, int, int]:
    """Random resized crop, attempt by attempt; `uniform(kind, attempt)` gives the numbers."""
    for attempt in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform("area", attempt))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * uniform("ratio", attempt))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(uniform("top", 0) * (height - h + 1)), int(uniform("left", 0) * (width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w, h = max(1, round(height * ratio[1])), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w
