"""Log-mel statistics: what sound tells without any training, to compare a trained encoder with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError

WINDOW, HOP = 0.025, 0.010
"""Length of a frame and the way to the next, seconds."""
FLOOR = 1e-10
"""Least power of a band; the loudest frames have about 1e3."""


def log_mel(inputs: Tensor, sizes: Tensor, *, rate: int, bands: int = 40) -> Tensor:
    """Mean and standard deviation over time of log-mel frames, float32 `[B, 2 * bands]`.

        frame t:   x_t = hann * sound[t * hop : t * hop + window],   power p_k = |DFT(x_t)_k|^2
        band m:    log(max(sum over k of triangle_m(k) p_k, 1e-10))

    Frames of 25 ms every 10 ms; a sound shorter than a frame is one frame, followed by zeros. Triangles are evenly
    spaced from 0 Hz to half the rate on the mel scale `2595 log10(1 + f / 700)`, each 1 at its peak.

    Args:
        inputs: Sound int16 `[B, 1, samples]`, zero beyond its size.
        sizes: Samples of each, int64 `[B, 1]`.
        rate: Samples a second, Hz, >= 100.
        bands: Triangles, >= 1.

    Raises:
        UsageError: A rate or number of bands that makes no sense.

    Davis and Mermelstein, Comparison of Parametric Representations for Monosyllabic Word Recognition, 1980,
    https://doi.org/10.1109/TASSP.1980.1163420.

    Example:
        >>> log_mel(torch.ones(2, 1, 8000, dtype=torch.int16), torch.tensor([[8000], [300]]), rate=8000).shape
        torch.Size([2, 80])
    """
    if rate < 100 or bands < 1:
        raise UsageError(
            f"{bands} log-mel bands at {rate} Hz", where="log_mel", mend="the rate of the data, 1 band or more"
        )
    window, hop = round(WINDOW * rate), round(HOP * rate)
    points = 1 << (window - 1).bit_length()
    sound = F.pad(inputs[:, 0] / 32768, (0, max(window - inputs.shape[2], 0)))
    frames = sound.unfold(1, window, hop) * torch.hann_window(window)
    power = torch.fft.rfft(frames, n=points).abs().square()
    logs = (power @ triangles(rate, bands=bands, bins=points // 2 + 1)).clamp(min=FLOOR).log()
    count = ((sizes - window).div(hop, rounding_mode="floor") + 1).clamp(min=1)
    there = (torch.arange(logs.shape[1]) < count)[..., None]
    mean = (logs * there).sum(1) / count
    variance = ((logs - mean[:, None]).square() * there).sum(1) / count
    return torch.cat([mean, variance.sqrt()], dim=1)


def triangles(rate: int, *, bands: int, bins: int) -> Tensor:
    """Weights of the bands, float32 `[bins, bands]`; bin k is at `k * rate / 2 / (bins - 1)` Hz."""
    edges = 700 * (10 ** (torch.linspace(0, _mel(rate / 2), bands + 2, dtype=torch.float64) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, bins, dtype=torch.float64)[:, None]
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)).clamp(min=0).float()


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)
