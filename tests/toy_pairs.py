"""Toy pairs: a picture of one shape in one colour, and its name."""

from __future__ import annotations

import numpy as np

from nearfar.data import Column, Dataset
from nearfar.data.tokens import Tokenizer

SIDE, LENGTH = 16, 24
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230), "grey": (130, 130, 130)}
SHAPES = ("square", "bar", "pole", "frame")
PLACES = ("left", "middle", "right")


def toy_pairs(count: int = 96, *, seed: int = 0) -> Dataset:
    """Images `[N, 3, 16, 16]` of a shape in a colour at a place, and text such as "red bar left"; 48 captions, in turn.

    Background, brightness and noise are drawn anew and are in no caption. The labels are the shapes.
    """
    rng = np.random.default_rng(seed)
    names = [f"{c} {s} {p}" for c in COLOURS for s in SHAPES for p in PLACES]
    order = rng.permutation(np.arange(count) % len(names))
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for image, name in zip(images, order, strict=True):
        image[:] = _drawn(*names[name].split(), rng)
    captions = [names[name] for name in order]
    tokenizer = Tokenizer()
    tokens, lengths = tokenizer(captions, length=LENGTH)
    return Dataset(
        inputs=images,
        sizes=np.full((count, 2), SIDE),
        ids=np.arange(count),
        names=[f"{number:04d}.png" for number in range(count)],
        hashes=rng.integers(256, size=(count, 16), dtype=np.uint8),
        labels=np.array([SHAPES.index(caption.split()[1]) for caption in captions]),
        classes=list(SHAPES),
        columns={"text": Column(tokens[:, None], lengths[:, None], "text")},
        tokenizer=tokenizer,
    )


def _drawn(colour: str, shape: str, place: str, rng: np.random.Generator) -> np.ndarray:
    canvas = np.full((3, SIDE, SIDE), rng.integers(0, 40), np.float64)
    left, top = {"left": 1, "middle": 5, "right": 9}[place], int(rng.integers(4, 7))
    mask = np.zeros((SIDE, SIDE), bool)
    if shape == "square":
        mask[top : top + 6, left : left + 6] = True
    elif shape == "bar":
        mask[top + 2 : top + 4, left : left + 6] = True
    elif shape == "pole":
        mask[top - 3 : top + 8, left + 2 : left + 4] = True
    else:
        mask[top : top + 6, left : left + 6] = True
        mask[top + 2 : top + 4, left + 2 : left + 4] = False
    canvas[:, mask] = np.array(COLOURS[colour])[:, None] * rng.uniform(0.8, 1.1)
    return (canvas + rng.normal(0, 6, canvas.shape)).clip(0, 255).round().astype(np.uint8)
