"""A toy set of sequences: how fast two numbers go round is the class; where, how wide and from where says nothing."""

from __future__ import annotations

import numpy as np

from nearfar.data import Dataset, Ragged
from nearfar.data.survey import digest

WIDTH, LONGEST = 4, 24
SPEEDS = (0.35, 0.8, 1.5, 2.4)


def toy_sequences(count: int = 192, seed: int = 0) -> Dataset:
    """Classes 0-3: radians a step, either way round. Lengths 16 to 24; two of the four numbers are noise alone."""
    rng = np.random.default_rng(seed)
    labels, lengths = np.arange(count) % len(SPEEDS), rng.integers(16, LONGEST + 1, count)
    parts = []
    for label, length in zip(labels, lengths, strict=True):
        angle = rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * SPEEDS[label] * np.arange(length)
        circle = rng.uniform(0.7, 1.3) * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.2, 2)
        noise = rng.normal(0, 0.2, (length, WIDTH - 2))
        parts.append(np.hstack([circle + rng.normal(0, 0.05, circle.shape), noise]).astype(np.float32))
    return Dataset(
        inputs=Ragged(np.concatenate(parts), np.cumsum(lengths) - lengths, lengths),
        sizes=lengths[:, None],
        ids=np.arange(count),
        names=[f"walks/{number}.npy" for number in range(count)],
        hashes=np.stack([np.frombuffer(digest(part.tobytes()), np.uint8) for part in parts]),
        labels=labels.astype(np.int64),
        classes=["slow", "steady", "quick", "fast"],
        kind="sequences",
    )
