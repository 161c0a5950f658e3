"""One encoded sound in, mono int16 samples at the rate asked for out, a block at a time; or a short reason why not."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, DeviceError
from .formats import looks_like

if TYPE_CHECKING:
    import soundfile

BLOCK_SECONDS = 30
"""Sound in memory at once, so that a file of hours takes no more than one of a minute."""
_REACH = 10
"""Half the length of the filter of `scipy.signal.resample_poly`, samples of the lower of the two rates."""
_CLAIM = re.compile(r"data : (\d+) \(should be (\d+)\)")
_UNKNOWN = 0x7FFF_0000  # programs that write to a pipe claim 0, or as much as the field holds
_BEGINNINGS = (b"fLaC", b"OggS")
_RATES = range(1000, 768_001)  # Hz; others are damage, and would make hours of a few samples
_READ = 1 << 20  # samples of all channels, decoded at once


class BadSound(DataError):
    """One sound that cannot be used.

    Args:
        reason: `empty`, `no sound`, `no samples`, `truncated`, `damaged`, `unreadable`, `unsupported rate`,
            `not finite`.
        detail: More for a person, or empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


def decode_sound(item: Path | bytes, *, rate: int | None = None) -> Iterator[np.ndarray]:
    """int16 `[samples]`, block after block: the mean of all channels, resampled, values outside of [-1, 1] cut.

    Blocks overlap inside, so that the result is that of resampling the whole at once.

    Args:
        item: A WAV, FLAC or Ogg file, or its bytes.
        rate: Samples a second, Hz, >= 1; None: the sound's own.

    Raises:
        BadSound: What it is, and why it can't be used; perhaps after some blocks.
        DeviceError: The package soundfile is missing.
    """
    with _opened(item) as sound:
        claim = _CLAIM.search(sound.extra_info)
        if claim and int(claim[2]) < int(claim[1]) < _UNKNOWN:
            raise BadSound("truncated", f"{claim[2]} of {claim[1]} bytes")
        common = math.gcd(rate or sound.samplerate, sound.samplerate)
        up, down = (rate or sound.samplerate) // common, sound.samplerate // common
        count = 0
        for block in _resampled(_mono(sound), up, down, BLOCK_SECONDS * sound.samplerate):
            count += len(block)
            yield np.rint(np.clip(block * 32768, -32768, 32767)).astype(np.int16)
        if not count:
            raise BadSound("no samples")


def rate_of(item: Path | bytes) -> int:
    """Samples a second, from the header.

    Raises:
        BadSound: It has none that can be read.
        DeviceError: The package soundfile is missing.
    """
    with _opened(item) as sound:
        return sound.samplerate


@contextlib.contextmanager
def _opened(item: Path | bytes) -> Iterator[soundfile.SoundFile]:
    """The decoder of a sound, whose complaints become reasons. Only formats on our list ever reach it."""
    package = _soundfile()
    try:
        with item.open("rb") if isinstance(item, Path) else io.BytesIO(item) as stream:
            head = stream.read(512)
            if not head:
                raise BadSound("empty")
            wave = head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"
            if not (wave or head.startswith(_BEGINNINGS)):
                raise BadSound("no sound", f"looks like {looks_like(head)}")
            stream.seek(0)
            with package.SoundFile(stream) as sound:
                if sound.samplerate not in _RATES:
                    raise BadSound("unsupported rate", f"{sound.samplerate} Hz")
                yield sound
    except OSError as problem:
        raise BadSound("unreadable", problem.strerror or type(problem).__name__) from None
    except package.SoundFileError as problem:
        raise BadSound("damaged", str(getattr(problem, "error_string", problem)).removeprefix("Error : ")) from None


def _soundfile():  # the type is the module itself
    try:
        import soundfile
    except ModuleNotFoundError:
        raise DeviceError("soundfile is not installed", where="sound", mend='pip install "nearfar[audio]"') from None
    except OSError as problem:
        mend = "install the system's libsndfile, for example apt-get install libsndfile1"
        raise DeviceError(f"soundfile has no library to call: {problem}", where="sound", mend=mend) from None
    return soundfile


def _mono(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """float64 blocks, the mean of all channels.

    Raises:
        BadSound: `not finite`, or `truncated` where fewer samples come than the header says.
    """
    left = sound.frames
    while len(block := sound.read(max(_READ // sound.channels, 1), dtype="float64", always_2d=True)):
        if not np.isfinite(block).all():
            raise BadSound("not finite", "NaN or infinite values")
        left -= len(block)
        yield block.mean(axis=1)
    if 0 < left < 1 << 62:
        raise BadSound("truncated", f"{left} of {sound.frames} samples are missing")


def _resampled(parts: Iterator[np.ndarray], up: int, down: int, most: int) -> Iterator[np.ndarray]:
    """`resample_poly(all parts, up, down)` in blocks of about `most` samples of the input.

    A block begins and ends `margin` samples inside of what is resampled at once, which is beyond the filter's reach,
    and at a multiple of `down`, where a sample of the output falls on one of the input.
    """
    from scipy.signal import resample_poly

    if up == down:
        yield from parts
        return
    margin = down * math.ceil((_REACH * max(up, down) / up + 1) / down)
    step, kept, waiting, first = down * math.ceil((most + 2 * margin) / down), np.zeros(0), [], True
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) <= step:
            continue
        whole = np.concatenate([kept, *waiting])
        end = len(whole) // down * down
        yield resample_poly(whole[:end], up, down)[0 if first else margin // down * up : (end - margin) // down * up]
        kept, waiting, first = whole[end - 2 * margin :], [], False
    whole = np.concatenate([kept, *waiting])
    yield resample_poly(whole, up, down)[0 if first else margin // down * up :] if len(whole) else whole
