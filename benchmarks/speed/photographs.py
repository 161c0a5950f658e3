"""Pieces of two photographs that come with scikit-learn: pixels and JPEG files as pictures have them, not noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def photographs(count: int, height: int, width: int) -> list[Image.Image]:
    """Pieces of the photographs (427 x 640), as large as chance has it, mirrored or not, resized; always the same."""
    random, photos = np.random.default_rng(0), load_sample_images().images
    pieces = []
    for number in range(count):
        whole = Image.fromarray(photos[number % len(photos)])
        share = random.uniform(0.6, 1.0) * min(whole.width / width, whole.height / height)
        across, down = share * width, share * height
        left, top = random.uniform(0, (whole.width - across, whole.height - down))
        piece = whole.resize((width, height), Image.Resampling.LANCZOS, box=(left, top, left + across, top + down))
        pieces.append(piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else piece)
    return pieces


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    """uint8 `[B, 3, H, W]`."""
    return np.ascontiguousarray(np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2))


def write_jpegs(folder: Path, count: int, *, height: int = 375, width: int = 500, noise: float = 0.0) -> int:
    """JPEG files of quality 90 in two class folders, 4:2:0 as most are; their bytes in all.

    Args:
        folder: Where the class folders are made.
        count: Files.
        height: Rows.
        width: Columns.
        noise: Standard deviation, levels of 255, of what is added to each pixel: the photographs are smaller than a
            camera's, and enlarged they hold less than its files do.
    """
    total, random = 0, np.random.default_rng(1)
    for number, picture in enumerate(photographs(count, height, width)):
        path = folder / f"class{number % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if noise:
            noisy = np.asarray(picture) + noise * random.standard_normal((height, width, 3), dtype=np.float32)
            picture = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
        picture.save(path, quality=90)
        total += path.stat().st_size
    return total
