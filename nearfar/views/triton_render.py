"""Views on an NVIDIA GPU, from images that are there: four launches a view at most, whatever was drawn.

The draw is the CPU's, made of addressed numbers, and goes over in one small copy (96 bytes a sample); no image comes
back. Values agree with the CPU's to 2e-5 of the normalised range, and a batch gives the same bits each time.

What a view needs at least, of a crop as large as itself and with bf16 output, is to be read and written once; at 4.8
TB/s of memory (H200):

    view     read      written   at best         planes between launches, all operations on
    32 px      3 kB      6 kB    520 M views/s      74 kB
    96 px     28 kB     55 kB     58 M views/s     664 kB
    224 px   151 kB    301 kB     11 M views/s     3.6 MB

With the planes it is nine times the traffic where every sample has contrast and blur and nothing stays in the cache (50
MB): 0.85 us at 224 px. There also are 30 M operations on numbers, 1 us at 33 T a second, and 9 M reads of what is in
the cache, 1.3 us at 32 a clock on each of 132 multiprocessors: of 4 to 16 pixels a value where a crop is not shrunk,
and of 46 for the blur. So 0.5 to 1 M views/s are to be expected at 224 px, a hundred times what an encoder takes in.

**Unmeasured on a GPU as of now**: the kernels are tested in triton's interpreter and compiled for compute capability
8.0 and 9.0. The tile is chosen by its size, not by the clock.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import triton_kernel
from .draw import NEUTRAL, Draw

TILE = 32  # side: 8 pixels a thread; it divides 32, 96 and 224
SCRATCH = 1 << 28
"""Bytes of each set of planes at most: a batch that needs more goes in parts."""


def fill(
    output: Tensor,
    images: Tensor,
    draw: Draw,
    *,
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    radius: int,
    threshold: float,
) -> None:
    """Carries out a draw into `output [B, C, S, S]`, contiguous or channels last, float32 or bfloat16.

    Args:
        output: Where the views go.
        images: uint8 `[B, C, H, W]`, contiguous, on the device of the output.
        draw: Of these images; its crops have sides >= 1, and its images lie in the canvas.
        mean: Of each channel.
        scale: One over the standard deviation of each channel.
        radius: Reach of the blur, pixels.
        threshold: Where solarisation begins.
    """
    each = SCRATCH // (4 * output.shape[1:].numel()) or 1
    for begin in range(0, len(output), each):
        part = slice(begin, begin + each)
        drawn = Draw._make(field[part] for field in draw)
        table = _table(drawn, mean, scale, images.device)
        with torch.cuda.device_of(images):
            _launch(output[part], images[part], table, radius, threshold)


class _Table(NamedTuple):
    whole: Tensor
    real: Tensor
    channel: Tensor
    contrasted: int  # samples with a contrast
    blurred: int  # samples with a blur


def _table(draw: Draw, mean: NDArray[np.float32], scale: NDArray[np.float32], device: torch.device) -> _Table:
    """What the kernels read of a draw, on the device. Its columns are told in `triton_tile`."""
    count, coloured = len(draw.boxes), len(mean) == 3
    order = draw.order.astype(np.int64)
    factors = np.take_along_axis(draw.factors, order, 1)
    idle = (factors == NEUTRAL[order]) | ((order >= 2) & (not coloured))
    # Grey is a saturation of 0, and what does nothing a brightness of 1.
    grey = draw.grey & coloured
    operations = np.column_stack([np.where(idle, 0, order), np.where(grey, 2, 0)])
    factors = np.column_stack([np.where(idle, 1, factors), np.where(grey, 0, 1)])
    contrast = operations == 1
    pause = np.where(contrast.any(1), contrast.argmax(1), operations.shape[1])
    chosen = [np.flatnonzero(mask) for mask in (contrast.any(1), draw.sigma > 0)]
    lists = [np.pad(samples, (0, count - len(samples))) for samples in chosen]
    whole = np.column_stack(
        [draw.boxes, draw.valid, draw.flip + 2 * draw.reflect, draw.solarise, *lists, pause, operations]
    )
    # Rows of 32 bytes: what follows is aligned whatever the batch, so that one compilation serves all.
    real = np.column_stack([draw.sigma, factors, np.zeros((count, 2))])
    parts = [whole.astype(np.int32), *(part.astype(np.float32).view(np.int32) for part in (real, mean, scale))]
    packed = torch.from_numpy(np.concatenate([part.ravel() for part in parts]))
    if device.type == "cuda":  # from pinned memory the copy does not wait for the GPU
        packed = packed.pin_memory().to(device, non_blocking=True)
    whole, real, channel = packed.split([whole.size, real.size, 2 * len(mean)])
    return _Table(whole, real.view(torch.float32), channel.view(torch.float32), *map(len, chosen))


def _launch(output: Tensor, images: Tensor, table: _Table, radius: int, threshold: float) -> None:
    """The launches of a batch whose planes fit."""
    count, channels, size, _ = output.shape
    tile = min(TILE, 1 << (size - 1).bit_length())
    tiles, groups = (-(-size // tile)) ** 2, 1 if channels == 3 else channels
    between = count if table.contrasted or table.blurred else 0
    scratch, across = (
        torch.empty((rows, channels, size, size), dtype=torch.float32, device=output.device)
        for rows in (between, between if table.blurred else 0)
    )
    sums = scratch.new_empty((count, groups, tiles))
    shared = (table.whole, table.real, table.channel, output, scratch, threshold)
    last = output.stride(1) == 1 and channels > 1
    constants = {"SIZE": size, "TILE": tile, "CHANNELS": channels, "CHANNELS_LAST": last}
    begun, contrasted, blurred = triton_kernel.begun, triton_kernel.contrasted, triton_kernel.blurred
    begun[(count * groups * tiles,)](*shared, sums, images, *images.shape[2:], **constants)
    if table.contrasted:
        power, grid = 1 << (tiles - 1).bit_length(), (table.contrasted * groups * tiles,)
        contrasted[grid](*shared, sums, TILES=tiles, POWER=power, **constants)
    if table.blurred:
        run = partial(blurred[(table.blurred * channels * tiles,)], *shared, across)
        run(RADIUS=min(radius, size - 1), DOWN=False, **constants)
        run(RADIUS=min(radius, size - 1), DOWN=True, **constants)
