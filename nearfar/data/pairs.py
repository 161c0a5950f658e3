"""Samples of several parts: an image and its caption, two images of one thing, or both."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..errors import MissingColumn, UsageError
from .dataset import Dataset
from .decode import MAX_PIXELS
from .inputs import Column, Inputs, chosen
from .scan import cache_folder, thread_count
from .source import LABEL, Source
from .sources import open_columns
from .store import Plan, Store, open_or_build
from .survey import Progress, check_bad, survey
from .tokens import Tokenizer, build_tokenizer

TEXT = "text"
"""Name of the column of captions; all others are images."""


def load_pairs(
    path: str | Path,
    *,
    size: int,
    columns: tuple[str, ...] = ("image", TEXT),
    channels: int | None = None,
    length: int = 64,
    tokenizer: str | Tokenizer = "bytes",
    labels: bool | None = None,
    max_bad: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    label: str = LABEL,
) -> Dataset:
    """Samples with all their parts: the first image as inputs, the others as columns. Images are decoded once.

    A sample of which one part is bad or missing is left out as a whole, and listed. Hashes are of all parts together,
    so the fingerprint changes with any of them; `split` keeps all samples with the same first image on one side.

    Args:
        path: Parquet (a file or a folder) with a column of encoded images for each image of `columns`, and `text` or
            `caption`; a manifest (`.csv`, `.tsv`, `.jsonl`) with `path` for "image", `path2` for "image2" and so on,
            and `text` or `caption`; a folder of images, each with a `.txt` of the same name; or one that holds a folder
            for each column of images, in which the same names belong together. Labels as in `load`.
        size: Largest side of the canvas of an image, pixels.
        columns: Parts of a sample, two or more: names of images, and "text".
        channels: 1 (grey) or 3 (colour), of all images; None: 1 where all are grey, else 3.
        length: Tokens of a caption at most; the rest is cut off.
        tokenizer: Makes tokens of captions; by name, see `build_tokenizer`, or one that is there already.
        labels: True: labels are needed; False: none are taken; None: taken where they are evident.
        max_bad: Bad samples that are accepted; None: up to 100 or 1 %, and less than half.
        cache: Folder of the decoded images; None: `NEARFAR_CACHE`, or `~/.cache/nearfar`.
        progress: Called with the number of images done, and of all, for each image column in turn.
        label: Column that holds the labels.

    Raises:
        DataError: Nothing to read, a part that is not there, too much that is bad.
        DeviceError: No space for the decoded images.
        UsageError: Columns, a size or channels that make no sense.
    """
    images = _image_columns(columns, size, channels)
    sources = open_columns(path, images, labels=labels, text=TEXT in columns, label=label)
    first = sources[0]
    stores = _decoded(sources, size, channels, max_bad=max_bad, cache=cache_folder(cache), progress=progress)
    bad = _bad(first, dict(zip(images, stores, strict=True)))
    check_bad([(first.names[row], reason) for row, reason in bad.items()], len(first.names), max_bad, first.path)
    rows = np.setdiff1d(np.arange(len(first.names)), list(bad))
    places = [np.searchsorted(store.rows, rows) for store in stores]
    texts = None if first.texts is None else [first.texts[row] or "" for row in rows]
    parts = {
        name: Column(_chosen(store.images, at), np.asarray(store.sizes[at]))
        for name, store, at in zip(images, stores, places, strict=True)
    }
    inputs, others = parts[images[0]], {name: parts[name] for name in images[1:]}
    made = None
    if texts is not None:
        made = build_tokenizer(tokenizer, texts)
        tokens, lengths = made(texts, length=length)
        others[TEXT] = Column(tokens[:, None], lengths[:, None], TEXT)
    return Dataset(
        inputs=inputs.inputs,
        sizes=inputs.sizes,
        ids=np.arange(len(rows)),
        names=[first.names[row] for row in rows],
        hashes=_hashes([store.hashes[at] for store, at in zip(stores, places, strict=True)], texts),
        labels=None if first.labels is None else first.labels[rows],
        classes=first.classes,
        bad=[(first.names[row], reason) for row, reason in sorted(bad.items())],
        columns=others,
        tokenizer=made,
        groups=np.array(stores[0].hashes[places[0]]),
    )


def has_images(path: str | Path, columns: tuple[str, ...]) -> bool:
    """Whether data has all these columns of images; of one that is there nothing is decoded yet.

    Raises:
        DataError: One is there, but has faults, such as files that are missing.
    """
    try:
        open_columns(path, columns, labels=False)
    except MissingColumn:
        return False
    return True


def has_captions(path: str | Path) -> bool:
    """Whether data has captions; no image is decoded.

    Raises:
        DataError: As `load_pairs`, for faults that have nothing to do with captions.
    """
    try:
        open_columns(path, ["image"], labels=False, text=True)
    except MissingColumn:
        return False
    return True


def _image_columns(columns: tuple[str, ...], size: int, channels: int | None) -> list[str]:
    """The names of the images."""
    images = [name for name in columns if name != TEXT]
    if len(set(columns)) < max(len(columns), 2) or not images:
        raise UsageError(
            f"the columns {', '.join(columns) or 'none'}",
            where="columns",
            mend="two or more, all different, one of them an image: image,text or image,image2",
        )
    if size < 1 or channels not in (None, 1, 3):
        raise UsageError(
            f"size={size}, channels={channels}", where="load_pairs", mend="size >= 1, channels 1, 3 or None"
        )
    return images


def _decoded(
    sources: list[Source],
    size: int,
    channels: int | None,
    *,
    max_bad: int | None,
    cache: Path,
    progress: Progress | None,
) -> list[Store]:
    """The decoded images of each column, all with the same channels."""
    common = {"max_bad": max_bad, "max_pixels": MAX_PIXELS, "threads": thread_count()}
    seen = [survey(source, cache=cache, **common) for source in sources]
    channels = channels or max(one.channels for one in seen)
    return [
        open_or_build(
            source,
            Plan(side=min(size, int(found.sizes.max())), channels=channels, **common),
            cache=cache,
            progress=progress,
        )
        for source, found in zip(sources, seen, strict=True)
    ]


def _bad(first: Source, stores: dict[str, Store]) -> dict[int, str]:
    """Row and reason of each sample of which a part can't be used; the first reason counts."""
    bad: dict[int, str] = {}
    for name, store in stores.items():
        for row, reason in store.bad:
            bad.setdefault(row, f"{name}: {reason}")
    for row, text in enumerate(first.texts or ()):
        if text is None:
            bad.setdefault(row, "text: missing, empty or not UTF-8")
    return bad


def _chosen(images: np.ndarray, places: np.ndarray) -> Inputs:
    return images if len(places) == len(images) else chosen(images, places)


def _hashes(images: list[np.ndarray], texts: list[str] | None) -> np.ndarray:
    """One hash a sample of all its parts, uint8 `[N, 16]`."""
    whole = [b"".join(part.tobytes() for part in parts) for parts in zip(*images, strict=True)]
    if texts is not None:
        whole = [a + b.encode("utf-8", "surrogateescape") for a, b in zip(whole, texts, strict=True)]
    digests = b"".join(hashlib.blake2b(one, digest_size=16).digest() for one in whole)
    return np.frombuffer(digests, np.uint8).reshape(-1, 16).copy()
