"""Carries out a draw: checks what it is given, and makes the views on the GPU where the images are on one.

On the CPU the samples are shared out among threads.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..device import has_kernels
from ..errors import UsageError
from . import kernel
from .buffers import Buffers
from .draw import Draw

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS_A_TASK, TASKS_A_THREAD = (1 << 14, 1 << 16), 8
"""Pixels of views: 0.1 ms at least, which hides the 20 us of handing out a task, and 0.6 at most; between these so many
tasks a thread that none waits long for the last."""
_own = threading.local()


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


class Rendering(NamedTuple):
    """A view of a batch that is to be made.

    Args:
        draw: What to do to each image.
        size: Side of the view, pixels.
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel.
        radius: Reach of the blur, pixels; its kernel has `2 radius + 1` taps.
        threshold: Where solarisation begins, in [0, 1].
    """

    draw: Draw
    size: int
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    radius: int = 1
    threshold: float = 0.5


def render(
    images: Tensor | NDArray[np.uint8],
    *renderings: Rendering,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Views of a batch, each `[B, C, size, size]`, where the images are. On a CPU in one pass over the images.

    Args:
        images: uint8 `[B, C, H, W]`, on the CPU or on a GPU that `views_on` answers with.
        renderings: The views.
        channels_last: Memory layout of the result.
        dtype: Type of the result, to which values are rounded at the end.

    Raises:
        UsageError: Images of another kind or on another device, or a draw that does not fit them.
    """
    images = _checked(images, [one.draw for one in renderings])
    if isinstance(images, Tensor):
        return [_on_gpu(images, one, channels_last, dtype) for one in renderings]
    made = [_on_cpu(images, one, channels_last) for one in renderings]

    def work(begin: int, end: int) -> None:
        for _, fill in made:
            fill(begin, end)

    _share(len(images), max(sum(one.size**2 for one in renderings), 1), work)
    return [views.to(dtype) for views, _ in made]


def _on_gpu(images: Tensor, rendering: Rendering, channels_last: bool, dtype: torch.dtype) -> Tensor:
    from . import triton_render

    draw, size, mean, std, radius, threshold = rendering
    shift, scale = _arrays(mean, std, images.shape[1])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (*images.shape[:2], size, size)
    views = torch.empty(shape, dtype=dtype, device=images.device, memory_format=layout)
    triton_render.fill(views, images, draw, mean=shift, scale=scale, radius=radius, threshold=threshold)
    return views


def _on_cpu(
    images: NDArray[np.uint8], rendering: Rendering, channels_last: bool
) -> tuple[Tensor, Callable[[int, int], None]]:
    """The views, empty, and what fills some of them."""
    draw, size, mean, std, radius, threshold = rendering
    count, channels = images.shape[:2]
    shift, scale = _arrays(mean, std, channels)
    flat, limit = _buffers(os.getpid()).empty(count * channels * size**2), np.float32(threshold)
    shape = (count, channels, size, size)
    views = flat.view(count, size, size, channels).permute(0, 3, 1, 2) if channels_last else flat.view(shape)
    output = flat.view(count, channels * size**2).numpy()
    needed = channels * size**2 + kernel.LANES + size * max(size, int(draw.boxes[:, 2:].max(initial=1)))

    def fill(begin: int, end: int) -> None:
        own = _scratch(needed)
        kernel.views(images, draw, size, radius, limit, shift, scale, channels_last, begin, end, own, output)

    return views, fill


def _arrays(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is subtracted, and what is multiplied with then."""
    mean, std = normalisation(mean, std, channels)
    return np.array(mean, np.float32), (1 / np.array(std)).astype(np.float32)


def _share(count: int, pixels: int, work: Callable[[int, int], None]) -> None:
    """Does `work(begin, end)` for all samples, of so many pixels each, on as many threads as torch uses."""
    threads, (least, most) = torch.get_num_threads(), PIXELS_A_TASK
    each = max(min(max(count * pixels // (TASKS_A_THREAD * threads), least), most) // pixels, 1)
    begins = range(0, count, each)
    left = iter(begins)

    def take() -> None:
        for begin in left:  # each thread takes the next that is left
            work(begin, min(begin + each, count))

    others = [_pool(threads, os.getpid()).submit(take) for _ in range(min(threads, len(begins)) - 1)]
    take()
    for other in others:
        other.result()


def _scratch(count: int) -> NDArray[np.float32]:
    """This thread's own memory, which it keeps: new pages for each task took a tenth of the time of 32 and 96 px."""
    if len(getattr(_own, "scratch", ())) < count:
        _own.scratch = torch.empty(count).numpy()  # by torch: aligned for the widest registers
    return _own.scratch


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process; a forked process starts its own, since threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="nearfar-views")


@functools.cache
def _buffers(process: int) -> Buffers:
    """Those of this process: a lock that another thread held at a fork stays locked in the child."""
    return Buffers()


def views_on(device: torch.device) -> torch.device:
    """Where the views for a network on a device are made, and the images have to be.

    There, if it is an NVIDIA GPU from compute capability 8.0 on, and triton, a C compiler and Python's headers are here
    to build the kernels with; otherwise on the CPU. Ids and sizes are on the CPU in any case: views are drawn there.
    """
    return device if has_kernels(device) else torch.device("cpu")


def _checked(images: Tensor | NDArray[np.uint8], draws: Sequence[Draw]) -> NDArray[np.uint8] | Tensor:
    """The images, contiguous: an array of those on the CPU. Compiled code reads memory without looking."""
    device = images.device if isinstance(images, Tensor) else torch.device("cpu")
    if device.type != "cpu" and views_on(device) != device:
        raise UsageError(
            f"views can't be made on {device}, where these images are",
            where="images",
            mend="pass images.cpu() and move the views instead"
            + ("; GPUs need compute capability 8.0, triton and a C compiler" if device.type == "cuda" else ""),
        )
    array = images.contiguous() if isinstance(images, Tensor) and device.type != "cpu" else np.ascontiguousarray(images)
    kind, shape = str(array.dtype).removeprefix("torch."), list(array.shape)
    if kind != "uint8" or len(shape) != 4:
        raise UsageError(
            f"images must be uint8 [B, C, H, W], these are {kind} {shape}",
            where="images",
            mend="pass the pixels as stored, 0 to 255, as a batch",
        )
    for draw in draws:
        sound = (draw.boxes[:, 2:] >= 1) & (draw.valid >= 0) & (draw.valid <= shape[2:])
        if any(len(field) != shape[0] for field in draw) or not sound.all():
            raise UsageError(
                f"the draw is of {len(draw.boxes)} samples, or its images leave the {shape} canvas",
                where="draw",
                mend="draw with the ids and sizes of the batch that the images came from",
            )
    return array
