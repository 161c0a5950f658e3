"""Carries out a draw: checks what it is given, and shares the samples out among threads."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from . import kernel
from .draw import Draw

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS_A_TASK = 1 << 16  # of views: some 0.6 ms, which hides the 20 us of handing out a task and still levels the load


def normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of values in [0, 1]. None: ImageNet's of 3 channels, else 0.5, 0.25.

    Raises:
        UsageError: Given for another number of channels.
    """
    mean = mean if mean is not None else IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = std if std is not None else IMAGENET_STD if channels == 3 else (0.25,) * channels
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UsageError(
                f"{name} has {len(values)} values, the images have {channels} channels",
                where=name,
                mend=f"give {channels} values, or None for the default",
            )
    return tuple(mean), tuple(std)


def normalisation_faults(mean: Sequence[float] | None, std: Sequence[float] | None) -> list[str]:
    """What is wrong with a mean and a standard deviation, whatever the number of channels."""
    faults = []
    if mean is not None and not (len(mean) and all(np.isfinite(m) for m in mean)):
        faults.append(f"mean={mean!r}: one finite number a channel, or None")
    if std is not None and not (len(std) and all(np.isfinite(s) and s > 0 for s in std)):
        faults.append(f"std={std!r}: one number above 0 a channel, or None")
    if mean is not None and std is not None and len(mean) != len(std):
        faults.append(f"mean has {len(mean)} values and std {len(std)}: give as many of both")
    return faults


def render(
    images: Tensor | NDArray[np.uint8],
    draw: Draw,
    *,
    size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    radius: int = 1,
    threshold: float = 0.5,
    channels_last: bool = False,
) -> Tensor:
    """Views of a batch, float32 `[B, C, size, size]`, on as many threads as torch uses (`torch.set_num_threads`).

    Args:
        images: uint8 `[B, C, H, W]` on the CPU.
        draw: What to do to each image.
        size: Side of a view, pixels.
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel.
        radius: Reach of the blur, pixels; its kernel has `2 radius + 1` taps.
        threshold: Where solarisation begins, in [0, 1].
        channels_last: Memory layout of the result.

    Raises:
        UsageError: Images of another kind, or a draw that does not fit them.
    """
    array = _checked(images, draw)
    count, channels = array.shape[:2]
    mean, std = normalisation(mean, std, channels)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    views = torch.empty((count, channels, size, size), dtype=torch.float32, memory_format=layout)
    output = (views.permute(0, 2, 3, 1) if channels_last else views).reshape(count, channels * size * size).numpy()
    shift, scale = np.array(mean, np.float32), (1 / np.array(std)).astype(np.float32)

    samples = max(PIXELS_A_TASK // size**2, 1)

    def work(begin: int) -> None:
        end = min(begin + samples, count)
        limit = np.float32(threshold)
        kernel.views(array, draw, size, radius, limit, shift, scale, channels_last, begin, end, output)

    begins, threads = range(0, count, samples), torch.get_num_threads()
    if threads == 1 or len(begins) <= 1:
        for begin in begins:
            work(begin)
    else:
        for _ in _pool(threads, os.getpid()).map(work, begins):
            pass
    return views


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process; a forked process starts its own, since threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="nearfar-views")


def _checked(images: Tensor | NDArray[np.uint8], draw: Draw) -> NDArray[np.uint8]:
    """The images as a contiguous array; the compiled code reads memory without looking."""
    if isinstance(images, Tensor) and images.device.type != "cpu":
        raise UsageError(
            f"views are made on the CPU and these images are on {images.device}",
            where="images",
            mend="pass images.cpu() and move the views instead",
        )
    array = np.ascontiguousarray(images)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise UsageError(
            f"images must be uint8 [B, C, H, W], these are {array.dtype} {list(array.shape)}",
            where="images",
            mend="pass the pixels as stored, 0 to 255, as a batch",
        )
    sound = (draw.boxes[:, 2:] >= 1) & (draw.valid >= 0) & (draw.valid <= array.shape[2:])
    if any(len(field) != len(array) for field in draw) or not sound.all():
        raise UsageError(
            f"the draw is of {len(draw.boxes)} samples, or its images leave the {list(array.shape)} canvas",
            where="draw",
            mend="draw with the ids and sizes of the batch that the images came from",
        )
    return array
