"""Views of sound: a window of each recording for training, all of it for evaluation.

A view is float32 `[B, 2, samples]`: the sound in [-1, 1], and 1 where there is sound, 0 where it is padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import UsageError
from ..randomness import uniforms

if TYPE_CHECKING:
    from ..method import Batch

FULL_SCALE = 32768.0


@dataclass(frozen=True)
class SoundWindows:
    """One view: as many samples of each recording, from a place that is drawn anew for each.

    A recording that is shorter than the window begins at 0 and is padded with zeros.

    Args:
        samples: Length of the window, >= 1.
        gain: The window is made louder or softer by up to so many decibels, >= 0; 0: left as it is.

    Raises:
        UsageError: A value out of its range.

    Example:
        >>> import torch
        >>> from nearfar.method import Batch
        >>> sound = torch.ones(2, 1, 500, dtype=torch.int16)
        >>> batch = Batch(inputs=sound, sizes=torch.tensor([[500], [200]]), ids=torch.arange(2))
        >>> view = SoundWindows(300)(batch)[0]
        >>> view.shape, view[:, 1].sum(1).tolist()
        (torch.Size([2, 2, 300]), [300.0, 200.0])
    """

    samples: int
    gain: float = 0.0

    def __post_init__(self) -> None:
        faults = [] if isinstance(self.samples, int) and self.samples >= 1 else [f"samples={self.samples!r}: from 1 on"]
        faults += [] if 0 <= self.gain < 100 else [f"gain={self.gain!r}: decibels, from 0 to below 100"]
        if faults:
            raise UsageError("; ".join(faults), where="SoundWindows", mend="change these arguments")

    def __call__(self, batch: Batch) -> list[Tensor]:
        """A list of one, float32 `[B, 2, samples]`.

        Raises:
            UsageError: A batch that is no sound.
        """
        lengths = _lengths(batch.inputs, batch.sizes)
        place, loudness = uniforms(batch.seed, batch.epoch, batch.ids.cpu().numpy(), 0, 2).T
        spare = np.maximum(lengths - self.samples, 0)
        starts = np.floor(place * (spare + 1)).astype(np.int64)
        window = np.zeros((len(lengths), 2, self.samples), np.float32)
        for row, sound, start, length in zip(window, batch.inputs[:, 0].numpy(), starts, lengths, strict=True):
            part = sound[start : min(start + self.samples, length)]
            row[0, : len(part)], row[1, : len(part)] = part / np.float32(FULL_SCALE), 1
        if self.gain:
            factor = 10 ** (self.gain * (2 * loudness - 1) / 20)
            window[:, 0] = np.clip(window[:, 0] * factor[:, None], -1, 1)
        return [torch.from_numpy(window)]


@dataclass(frozen=True)
class Waveform:
    """The transform of evaluation and use: all of each recording, nothing random.

    Args:
        rate: Samples a second, Hz, of the sound that the encoder was trained on.

    Raises:
        UsageError: A rate below 1.

    Example:
        >>> import torch
        >>> Waveform(8000)(torch.ones(2, 1, 500, dtype=torch.int16), [[500], [200]]).shape
        torch.Size([2, 2, 500])
    """

    rate: int

    def __post_init__(self) -> None:
        if not (isinstance(self.rate, int) and self.rate >= 1):
            raise UsageError(f"a rate of {self.rate!r} Hz", where="Waveform", mend="samples a second, from 1 on")

    def __call__(self, inputs: Tensor, sizes: ArrayLike) -> Tensor:
        """float32 `[B, 2, samples]`.

        Args:
            inputs: int16 `[B, 1, samples]` on the CPU, each at the beginning of its canvas.
            sizes: Samples of each, `[B, 1]`.
        """
        there = torch.arange(inputs.shape[-1]) < torch.from_numpy(_lengths(inputs, sizes))[:, None]
        return torch.stack([inputs[:, 0] / FULL_SCALE * there, there.float()], dim=1)

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON holds them, for the run folder."""
        return {"kind": "waveform", "rate": self.rate}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Waveform:
        """The inverse of `to_dict`.

        Raises:
            UsageError: A setting is missing, unknown or out of its range.
        """
        if set(settings) != {"kind", "rate"} or settings["kind"] != "waveform":
            raise UsageError(
                f"a waveform has the settings kind and rate, found {sorted(settings)}",
                where="input transform",
                mend="use the settings that the run was saved with",
            )
        return cls(settings["rate"])


def _lengths(inputs: Tensor, sizes: ArrayLike) -> np.ndarray:
    """Samples of each recording, int64 `[B]`."""
    lengths = np.asarray(sizes, np.int64)
    if inputs.ndim != 3 or inputs.shape[1] != 1 or inputs.dtype != torch.int16 or lengths.shape != (len(inputs), 1):
        raise UsageError(
            f"sound is int16 [B, 1, samples] with sizes [B, 1], got {inputs.dtype} {list(inputs.shape)} with "
            f"{list(lengths.shape)}",
            where="inputs",
            mend="data of the kind sound: nearfar.data.sound.load_sound",
        )
    return lengths[:, 0]
