"""From JPEG files to pixels, and from pixels to batches of views: milliseconds an image, microseconds an image."""

# pyright: reportMissingImports=false

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.harness import OURS, Row, Settings, Turn, installed_of, there
from benchmarks.speed.photographs import photographs, pixels, write_jpegs
from benchmarks.speed.views import Each
from nearfar import methods
from nearfar.data import Dataset, load

SIDE, SHORT = 224, 168
"""Longer and shorter side of the decoded images, pixels; in the files they are 500 and 375, or a camera's."""
NOISE = 8.0
"""Of photographs of 12 megapixels, as a telephone takes them; their files are of 3.4 MB."""
TARGET = 3.0
LEVELS = 3.0
"""Mean difference of pixels, of 255: nearfar lets the decoder shrink, to twice the size or more; the peer resizes."""
BATCH = 256
PROTOCOL = (
    "JPEG files of 500 x 375 pixels (and of 4000 x 3000 with noise, as of a camera), quality 90, pieces of "
    "photographs, in the page cache, to uint8 pixels of 224 x 168. torchvision: ImageFolder, Pillow, Resize, on "
    "several threads in a DataLoader with a worker a thread; nearfar: `load` with an empty cache (looks at all, "
    "decodes, writes the store), then from the store. MoCo's batches: 32 px from memory, two views; lightly's "
    "transform in a DataLoader with a worker a thread, nearfar's `batch` and views. A turn is an epoch or several. "
    "Checked: mean difference of pixels."
)


def rows(settings: Settings) -> Iterator[Row]:
    """The first pass, later passes, the first pass over large photographs, then batches with views."""
    count = 8 if settings.smoke else 256
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder), count)
        yield from decode_rows(Path(folder), count, settings)
    if not settings.smoke:
        with tempfile.TemporaryDirectory() as folder:
            write_jpegs(Path(folder), count // 8, height=3000, width=4000, noise=NOISE)
            yield from islice(decode_rows(Path(folder), count // 8, settings, "12-megapixel JPEG files"), 1)
    yield moco_row(settings)


def decode_rows(folder: Path, count: int, settings: Settings, files: str = "JPEG files") -> Iterator[Row]:
    """The same peer twice: it decodes in every epoch."""
    peers = installed_of({"torchvision": ("torchvision", lambda: torchvision(folder))})
    works = {name: each if settings.threads == 1 else each.loaded(settings.threads) for name, each in peers.items()}
    with tempfile.TemporaryDirectory() as cache:
        stored = load(folder, size=SIDE, cache=cache, threads=settings.threads)
        ours = {
            "first pass": lambda: first_pass(folder, settings.threads),
            "later passes": lambda: [
                stored.batch(part) for part in np.array_split(np.arange(count), max(count // 64, 1))
            ],
        }
        for name, work in ours.items():
            yield Row(
                name=f"{files} to {SIDE} px, {name}",
                unit="ms an image",
                costs=turns({OURS: work} | works, count, scale=1e3),
                measured="wall clock",
                agreement=lambda: agreement(folder, stored),
                targets={"torchvision": TARGET} if name == "first pass" else {},
                work={"bytes": 3 * SIDE * SHORT},
            )


def turns(works: dict[str, Callable[[], object]], units: int, *, scale: float) -> dict[str, Callable[[], float]]:
    """By the wall clock: workers and disks don't show in processor time."""
    return {name: Turn(work, units=units, clock=time.perf_counter, scale=scale) for name, work in works.items()}


def first_pass(folder: Path, threads: int) -> Dataset:
    """All images, into a cache that is empty."""
    with tempfile.TemporaryDirectory() as cache:
        return load(folder, size=SIDE, cache=cache, threads=threads)


def torchvision(folder: Path) -> Each:
    """Its folder of images, and what brings them to the same size."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    images = ImageFolder(str(folder), v2.Compose([v2.Resize(SHORT), v2.PILToTensor()]))
    return Each(list(range(len(images))), lambda place: [images[place][0]])


def agreement(folder: Path, stored: Dataset) -> dict[str, tuple[float, float]]:
    """Mean difference of the first eight images."""
    if not there("torchvision"):
        return {}
    theirs = torch.stack([view for place in range(8) for view in torchvision(folder)[place]])
    ours = stored.batch(np.arange(8)).inputs[:, :, :SHORT]
    return {"pixels, torchvision": (float((ours.float() - theirs.float()).abs().mean()), LEVELS)}


def moco_row(settings: Settings) -> Row:
    """Batches with two views of each image."""
    count = 16 if settings.smoke else 2048
    pictures = photographs(count, 32, 32)
    batch = min(BATCH, count)
    data = dataset_of(pixels(pictures))
    views = methods.moco(encoder="small", size=32, queue=256).views

    def nearfar() -> None:
        for begin, end in pairwise(range(0, count + 1, batch)):
            views(data.batch(np.arange(begin, end)))

    def lightly() -> Callable[[], object]:
        from lightly.transforms import MoCoV2Transform

        each = Each(pictures, MoCoV2Transform(input_size=32, gaussian_blur=0.0))
        loader = each.loader(batch, settings.threads, persistent_workers=True)
        return lambda: [None for _ in loader]

    works = {OURS: nearfar} | installed_of({"lightly": ("lightly", lightly)})
    return Row(
        name=f"MoCo's batches of {batch}, 32 px",
        unit="us an image",
        costs=turns(works, count, scale=1e6),
        measured="wall clock",
        work={"bytes": 3 * 32**2 + 2 * 4 * 3 * 32**2},
    )


def dataset_of(images: np.ndarray) -> Dataset:
    """Images in memory as a data set."""
    count, _, height, width = images.shape
    return Dataset(
        inputs=images,
        sizes=np.tile([height, width], (count, 1)),
        ids=np.arange(count),
        names=[str(place) for place in range(count)],
        hashes=np.zeros((count, 16), np.uint8),
        labels=np.arange(count) % 10,
    )
