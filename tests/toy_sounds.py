"""A toy set of sounds: four pitches under noise of any loudness that says nothing."""

from __future__ import annotations

import numpy as np

from nearfar.data import Dataset
from nearfar.data.inputs import Ragged
from nearfar.encoders.recurrent import Recurrent
from nearfar.encoders.sound import Frames, SoundCells

RATE, WINDOW = 1000, 160
TOY_FRAMES = Frames((8, 4), (4, 2))
"""A frame every 8 samples sees 20."""


def toy_sounds(count: int = 192, *, seed: int = 0) -> Dataset:
    """Classes 0-3: tones of 60, 75, 90 and 105 Hz; phase, loudness, noise and length are drawn anew."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    lengths = rng.integers(120, 240, count)
    sounds = []
    for label, length in zip(labels, lengths, strict=True):
        time = np.arange(length) / RATE
        tone = np.sin(2 * np.pi * ((60 + 15 * label) * time + rng.uniform()))
        noise = rng.normal(0, rng.uniform(0.5, 1.1), length)
        loudness = 10 ** rng.uniform(-1.0, 0.0)
        sounds.append(np.clip(loudness * 0.25 * (tone + noise) * 32768, -32768, 32767).astype(np.int16))
    return Dataset(
        inputs=Ragged(np.concatenate(sounds), np.cumsum(lengths) - lengths, lengths, channel=True),
        sizes=lengths[:, None],
        ids=np.arange(count),
        names=[f"tone/{number}.wav" for number in range(count)],
        hashes=rng.integers(256, size=(count, 16), dtype=np.uint8),
        labels=labels.astype(np.int64),
        classes=["60 Hz", "75 Hz", "90 Hz", "105 Hz"],
        kind="sound",
        rate=RATE,
    )


def toy_ears(*, width: int = 16, context: int = 24) -> Recurrent:
    """An encoder of sound for the toy."""
    return Recurrent(SoundCells(width=width, frames=TOY_FRAMES), width=width, context=context)
