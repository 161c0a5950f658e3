"""Encoders of sound: strided convolutions over the waveform, a frame every so many samples, then a context.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, section 3.1,
https://arxiv.org/abs/1807.03748; layer norm in the place of batch norm: Riviere et al., Unsupervised Pretraining
Transfers Well Across Languages, ICASSP 2020, https://arxiv.org/abs/2002.02848.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .layer_norm import ChannelNorm
from .recurrent import Recurrent


@dataclass(frozen=True)
class Frames:
    """How samples become frames: convolutions without padding, one after the other.

    Args:
        kernels: Width of each.
        strides: Step of each.

    Example:
        >>> LONG.receptive_field, LONG.hop, LONG.count(20480)
        (465, 160, 126)
        >>> SHORT.receptive_field, SHORT.hop
        (225, 80)
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return prod(self.strides)

    @property
    def receptive_field(self) -> int:
        """Samples that a frame sees."""
        field = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            field = (field - 1) * stride + kernel
        return field

    def count(self, samples: int) -> int:
        """Frames of so many samples: `(samples - receptive_field) // hop + 1`, or 0 where they are too few."""
        return max((samples - self.receptive_field) // self.hop + 1, 0)

    def valid(self, sizes: Tensor) -> Tensor:
        """The same for the sizes of a batch, int64 `[B, 1] -> [B]`, but one frame at least of any sound."""
        samples = sizes[:, 0]
        count = (samples - self.receptive_field).div(self.hop, rounding_mode="floor") + 1
        return torch.maximum(count, (samples > 0).long())


LONG = Frames((10, 8, 4, 4, 4), (5, 4, 2, 2, 2))
"""The paper's, for 16 kHz: a frame every 10 ms sees 29 ms."""

SHORT = Frames((10, 8, 4, 4), (5, 4, 2, 2))
"""The same times for 8 kHz: a frame every 10 ms sees 28 ms."""


class SoundCells(nn.Module):
    """Frames of sound: convolution, layer norm over the channels of each frame, ReLU, for each layer; no padding.

    A frame that would see padding is not valid. A sound shorter than the receptive field has one frame all the same:
    itself, followed by zeros.

    Args:
        width: Channels of all layers.
        frames: Kernels and strides.

    Differs from the paper: layer norm, since batch norm tells one frame of others; no padding (126 frames of 20,480
    samples where the paper counts 128).

    Example:
        >>> z, valid = SoundCells(width=8)(torch.ones(3, 2, 20480))
        >>> z.shape, valid.shape
        (torch.Size([3, 126, 8]), torch.Size([3, 126]))
    """

    def __init__(self, *, width: int = 512, frames: Frames = LONG) -> None:
        super().__init__()
        self.width, self.frames = width, frames
        layers: list[nn.Module] = []
        before = 1
        for kernel, stride in zip(frames.kernels, frames.strides, strict=True):
            convolution = nn.Conv1d(before, width, kernel, stride)
            if convolution.bias is not None:  # torch's are louder than speech: all frames would begin alike
                nn.init.zeros_(convolution.bias)
            layers += [convolution, ChannelNorm(width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 2, samples]` -> z `[B, T, width]`, valid bool `[B, T]`."""
        if view.ndim != 3 or view.shape[1] != 2:
            raise UsageError(
                f"a view of sound is [B, 2, samples], got {list(view.shape)}",
                where="encoder",
                mend="views.sound.SoundWindows or Waveform; for images another encoder",
            )
        sound, there = view[:, :1], view[:, 1:]
        missing = max(self.frames.receptive_field - view.shape[2], 0)
        z = self.layers(F.pad(sound * there, (0, missing))).mT
        valid = self.frames.valid(there.sum(2).long())
        return z, torch.arange(z.shape[1], device=z.device) < valid[:, None]

    def describe(self) -> str:
        """One line for people: layers, width, receptive field, hop."""
        frames = self.frames
        return (
            f"{len(frames.kernels)} convolutions of width {self.width}, "
            f"frames of {frames.receptive_field} samples every {frames.hop}"
        )


def sound_encoder(
    *, width: int, context: int, frames: Frames, channels: int = 1, size: int | None = None, factor: int = 1
) -> Recurrent:
    """Frames and a GRU over them.

    Args:
        width: Channels of a frame.
        context: Width of the GRU.
        frames: Kernels and strides.
        channels: Of the sound: 1.
        size: Samples of a window, or None; too short a window is refused.
        factor: Everything is so many times as wide.

    Raises:
        UsageError: More than one channel, or a window without a frame.
    """
    if channels != 1 or (size is not None and frames.count(size) < 1):
        raise UsageError(
            f"{channels} channels, windows of {size} samples",
            where="encoder of sound",
            mend=f"mono sound (cpc_audio), {frames.receptive_field} samples or more; for images another --encoder",
        )
    return Recurrent(SoundCells(width=width * factor, frames=frames), width=width * factor, context=context * factor)


SOUND_ENCODERS = {
    "sound": partial(sound_encoder, width=512, context=256, frames=LONG),
    "sound-8k": partial(sound_encoder, width=512, context=256, frames=SHORT),
    "sound-small": partial(sound_encoder, width=64, context=64, frames=LONG),
    "sound-8k-small": partial(sound_encoder, width=64, context=64, frames=SHORT),
}
"""Name -> function of `channels`, `size` and `factor`. `8k`: for sound of 8 kHz; `small`: for minutes on a CPU."""
