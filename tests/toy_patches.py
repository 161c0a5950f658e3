"""A toy set for methods that hide patches: what is seen of an image tells what the rest of it looks like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from toy import SIDE, stripes

from nearfar.data import Dataset

PATCH = 4
SIGNS = [[[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]], [[1, 1], [1, -1]]]


def textures(count: int = 192, *, seed: int = 0) -> Dataset:
    """Classes 0-3: four textures, the same in every patch; colours of the image, noise of each pixel say nothing."""
    rng = np.random.default_rng(seed)
    data = stripes(count, seed=seed)
    texture = np.kron(np.tile(SIGNS, (1, SIDE // PATCH, SIDE // PATCH)), np.ones((1, 2, 2)))[data.labels]
    colours, noise = rng.uniform(0.1, 0.9, (count, 3, 1, 1)), rng.normal(0, 0.2, (count, 3, SIDE, SIDE))
    images = (colours + 0.08 * texture[:, None] + noise).clip(0, 1)
    return replace(data, inputs=(images * 255).round().astype(np.uint8))
