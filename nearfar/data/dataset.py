"""Decoded images with their ids, labels and names: what training, evaluation and embedding read."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UsageError
from .decode import MAX_PIXELS
from .inputs import Column, Inputs, chosen
from .names import safe_name
from .scan import cache_folder, thread_count
from .source import LABEL
from .sources import open_source
from .store import Plan, Store, open_or_build
from .survey import Progress, survey

if TYPE_CHECKING:
    from ..method import Batch
    from .tokens import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Decoded samples. Made by `load` and its like.

    Args:
        inputs: One canvas a sample, `[N, ...]`, of which each sample fills the beginning:
            images: uint8 `[N, C, S, S]`, mapped from the disk; sound: int16 `[N, 1, samples]`; text: tokens, int
            `[N, S, L]` of S consecutive sentences, 0 where there is none; sequences: float32 `[N, T, ...]`.
        sizes: How much is filled, int64: height and width of images `[N, 2]`; samples of sound or steps of sequences
            `[N, 1]`; tokens of each sentence `[N, S]`.
        ids: Number of each sample, int64 `[N]`; a subset keeps those of the whole.
        names: Name of each sample.
        hashes: Hash of each encoded image, uint8 `[N, 16]`.
        labels: int64 `[N]`, or None.
        classes: Names of the classes, by label, or None.
        bad: Name and reason of samples that are not here because they cannot be read.
        kind: "images", "sound", "text" or "sequences".
        columns: What else belongs to each sample, by name: `image2`, `text`.
        rate: Samples of sound a second, Hz.
        tokenizer: What made tokens of text.
        groups: Hash of what a sample is a part of, its document, recording or image, uint8 `[N, 16]`; None: of nothing
            larger. `split` keeps a group on one side.
    """

    inputs: Inputs
    sizes: np.ndarray
    ids: np.ndarray
    names: list[str]
    hashes: np.ndarray
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    bad: list[tuple[str, str]] = field(default_factory=list)
    kind: str = "images"
    columns: dict[str, Column] = field(default_factory=dict)
    rate: int | None = None
    tokenizer: Tokenizer | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all names, contents and labels, in order; 32 hexadecimal digits.

        Columns count by `hashes`, which their loader makes of all that belongs to a sample.
        """
        total = hashlib.blake2b(digest_size=16)
        for name, value in zip(self.names, self.hashes, strict=True):
            total.update(name.encode("utf-8", "surrogateescape") + b"\0" + value.tobytes())
        if self.labels is not None:
            total.update(self.labels.tobytes())
        return total.hexdigest()

    def batch(self, indices: ArrayLike, *, seed: int = 0, epoch: int = 0) -> Batch:
        """Samples by their place in this data set, as tensors; `ids` are those of the whole.

        Args:
            indices: Places, int `[B]`.
            seed: Seed of the run, passed on.
            epoch: Epoch, passed on.
        """
        import torch

        from ..method import Batch

        places = np.asarray(indices, np.int64)
        return Batch(
            inputs=torch.from_numpy(np.asarray(self.inputs[places])),
            sizes=torch.from_numpy(self.sizes[places]),
            ids=torch.from_numpy(self.ids[places]),
            labels=None if self.labels is None else torch.from_numpy(self.labels[places]),
            seed=seed,
            epoch=epoch,
            columns={
                name: (torch.from_numpy(np.asarray(c.inputs[places])), torch.from_numpy(c.sizes[places]))
                for name, c in self.columns.items()
            },
        )

    def subset(self, indices: ArrayLike) -> Dataset:
        """The samples at these places, in this order; ids are kept and no pixel is copied.

        Args:
            indices: Places in this data set, int `[n]`.
        """
        places = np.asarray(indices, np.int64)
        return replace(
            self,
            inputs=chosen(self.inputs, places),
            sizes=self.sizes[places],
            ids=self.ids[places],
            names=[self.names[place] for place in places],
            hashes=self.hashes[places],
            labels=None if self.labels is None else self.labels[places],
            columns={n: Column(chosen(c.inputs, places), c.sizes[places], c.kind) for n, c in self.columns.items()},
            groups=None if self.groups is None else self.groups[places],
        )

    def split(self, fraction: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Places of two parts, in order: the rest, and the held-out `fraction`, of each class where there are labels.

        Who is held out depends on the content of a sample and the seed alone, so exact duplicates of one class stay on
        one side, and a file that is added moves no other but at the edge. Samples of one group (`groups`) stay together
        as duplicates do: of a class that is one group alone nothing is held out.

        Args:
            fraction: Held-out share, 0 to 1; rounded to whole samples, duplicates of the last one added, unless nothing
                of the class would be left.
            seed: Another seed holds out others.

        Raises:
            UsageError: A fraction outside of [0, 1].
        """
        if not 0 <= fraction <= 1:
            raise UsageError(f"a fraction of {fraction}", where="fraction", mend="a number from 0 to 1")
        salt = str(seed).encode()[:16]
        whole = self.hashes if self.groups is None else self.groups
        keys = np.array([hashlib.blake2b(value.tobytes(), digest_size=8, salt=salt).hexdigest() for value in whole])
        labels = np.zeros(len(self), np.int64) if self.labels is None else self.labels
        held = np.zeros(len(self), bool)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            count = round(fraction * len(members))
            if count:
                last = np.sort(keys[members])[count - 1]
                upto = keys[members] <= last
                held[members] = keys[members] < last if upto.all() and count < len(members) else upto
        return np.flatnonzero(~held), np.flatnonzero(held)

    def write_bad_files(self, path: str | Path) -> None:
        """Writes `bad` as CSV with the columns path and reason; names are written by `safe_name`."""
        with Path(path).open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(("path", "reason"))
            table.writerows((safe_name(name), reason) for name, reason in self.bad)


def load(
    path: str | Path,
    *,
    size: int,
    channels: int | None = None,
    labels: bool | None = None,
    cache: str | Path | None = None,
    max_bad: int | None = None,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    follow_links: bool = False,
    progress: Progress | None = None,
    label: str = LABEL,
) -> Dataset:
    """Images of any source, decoded once into the cache and mapped from there.

    Args:
        path: A folder of images, a manifest (`.csv`, `.tsv`, `.jsonl`) with the columns path, label and split, a
            Parquet file or a folder of them, `.npy`, `.npz`, or `digits`. `digits:train`, `list.csv:train`: one part.
        size: Largest side of the canvas, in pixels. Larger images are shrunk, smaller ones kept; where all are smaller,
            the canvas is as large as the largest side of them.
        channels: 1 (grey) or 3 (colour); None: 1 where all images are grey, else 3.
        labels: True: labels are needed; False: none are taken; None: taken where they are evident.
        cache: Folder of the decoded images; None: `NEARFAR_CACHE`, or `~/.cache/nearfar`. It may be deleted.
        max_bad: Bad images that are accepted; None: up to 100 or 1 %, and less than half.
        max_pixels: Largest height times width of an image.
        threads: Threads that decode; None: one a core.
        follow_links: Whether symbolic links out of a folder are followed.
        progress: Called with the number of images done, and of all.
        label: Column of a manifest or of Parquet that holds the labels, such as `fine_label`.

    Raises:
        DataError: Nothing to read, too much that is bad, no labels where they are needed.
        IntegrityError: A file that would run code if it were read.
        DeviceError: No space for the decoded images.
        UsageError: A size or number of channels that makes no sense.

    Example:
        >>> digits = load("digits:test", size=28)
        >>> len(digits), digits.inputs.shape, digits.batch([0, 1]).inputs.dtype
        (1000, (1000, 1, 28, 28), torch.uint8)
    """
    if size < 1:
        raise UsageError(f"a size of {size}", where="size", mend="a number of pixels from 1 on, such as 224")
    if channels not in (None, 1, 3):
        raise UsageError(
            f"{channels} channels", where="channels", mend="1 (grey), 3 (colour) or None (as the data are)"
        )
    source = open_source(path, labels=labels, follow_links=follow_links, label=label)
    folder, threads = cache_folder(cache), threads or thread_count()
    seen = survey(source, cache=folder, max_bad=max_bad, max_pixels=max_pixels, threads=threads)
    channels, side = channels or seen.channels, min(size, int(seen.sizes.max()))
    if source.array is not None and source.array.shape[1:] == (channels, side, side):
        store = Store(source.array, seen.sizes, seen.hashes, np.arange(len(seen.sizes)), [])
    else:
        plan = Plan(side=side, channels=channels, max_bad=max_bad, max_pixels=max_pixels, threads=threads)
        store = open_or_build(source, plan, cache=folder, progress=progress)
    return Dataset(
        inputs=store.images,
        sizes=np.array(store.sizes),
        ids=np.arange(len(store.rows)),
        names=[source.names[row] for row in store.rows],
        hashes=np.array(store.hashes),
        labels=None if source.labels is None else source.labels[store.rows],
        classes=source.classes,
        bad=[(source.names[row], reason) for row, reason in store.bad],
    )
