"""A toy set that a method must learn: four patterns under colours, phases and noise that say nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.data import Dataset
from nearfar.encoders.norm import BatchNorm

SIDE = 16


def stripes(count: int = 192, *, seed: int = 0) -> Dataset:
    """Classes 0-3: upright, level, chequers, slanting; colours, phases and noise are drawn anew."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    y, x = np.mgrid[:SIDE, :SIDE]
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        across, down, slant = (np.sin(2 * np.pi * (line / 5 + rng.uniform())) for line in (x, y, (x + y) * 0.7))
        wave = 0.5 + 0.5 * (across, down, across * down, slant)[label]
        one, two = rng.uniform(0, 1, (2, 3, 1, 1))
        noisy = one * wave + two * (1 - wave) + rng.normal(0, 0.05, (3, SIDE, SIDE))
        image[:] = (noisy.clip(0, 1) * 255).round()
    return Dataset(
        inputs=images,
        sizes=np.full((count, 2), SIDE),
        ids=np.arange(count),
        names=[f"stripes/{number}.png" for number in range(count)],
        hashes=rng.integers(256, size=(count, 16), dtype=np.uint8),
        labels=labels.astype(np.int64),
        classes=["upright", "level", "chequers", "slanting"],
    )


class Tiny(nn.Module):
    """A net of three layers. Without batch norm chunks and processes can be compared exactly."""

    width = 32

    def __init__(self, channels: int = 3, *, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, 16, 2), (16, 32, 2), (32, 32, 1)):
            norm = BatchNorm(after) if batch_norm else nn.GroupNorm(4, after)
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), norm, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, view: Tensor) -> list[Tensor]:
        return [self.layers(view)]


def knn_accuracy(features: Tensor, labels: np.ndarray, *, k: int = 5) -> float:
    """Leave-one-out nearest neighbours by cosine, majority of k: slow and obvious."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    scores = unit @ unit.T
    scores.fill_diagonal_(-2)
    right = 0
    for row, label in zip(scores, labels, strict=True):
        votes = np.bincount(labels[row.topk(k).indices.numpy()], minlength=labels.max() + 1)
        right += int(votes.argmax() == label)
    return right / len(labels)
