"""Decoded once: uint8 pixels in memory-mapped `.npy` files. A build that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, DeviceError
from .decode import decode, read
from .pixels import BadImage, fit, with_channels
from .source import Item, Source
from .survey import Progress, array_digest, check_bad, digest, writing

_VERSION = 2  # of decoding and of the layout; another number makes all stores stale
_JOURNAL, _INDEX = "journal.json", "index.json"
JOURNAL_SECONDS = 5.0
"""How often a build notes how far it is; each time it waits for the disk."""
_SPARE = 64 * 2**20  # bytes that must stay free on the disk


@dataclass(frozen=True)
class Store:
    """Decoded images, readable ones only.

    Args:
        images: uint8 `[N, C, S, S]`, each in the top left corner of its canvas.
        sizes: Height and width of the valid part, int64 `[N, 2]`.
        hashes: Hash of each encoded image, uint8 `[N, 16]`.
        rows: Number of each in the source, int64 `[N]`.
        bad: Row in the source, and reason.
    """

    images: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray
    rows: np.ndarray
    bad: list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be built, and how much may go wrong.

    Args:
        side: Side of the canvas, in pixels.
        channels: 1 or 3.
        max_bad: As in `load`.
        max_pixels: Largest height times width of an image.
        threads: Threads that decode.
    """

    side: int
    channels: int
    max_bad: int | None
    max_pixels: int
    threads: int


def open_or_build(source: Source, plan: Plan, *, cache: Path, progress: Progress | None = None) -> Store:
    """The store of a source, built where there is none. One process builds, others that want the same wait.

    Raises:
        DataError: Too many bad images.
        DeviceError: No space, or no permission to write.
    """
    from filelock import FileLock

    settings = f"{source.key} {plan.side} {plan.channels} {plan.max_pixels} {_VERSION}"
    folder = cache / "stores" / hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()
    shape = (len(source.names), plan.channels, plan.side, plan.side)
    store = _open(folder, shape)  # before any lock: a cache that can only be read serves as well
    if store is None:
        with writing(cache):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_suffix(".lock")).acquire()
        with lock:
            store = _open(folder, shape) or _build(source, plan, folder, shape, progress)
    check_bad([(source.names[row], reason) for row, reason in store.bad], shape[0], plan.max_bad, source.path)
    return store


def _layout(shape: tuple[int, ...]) -> dict[str, tuple[type, tuple[int, ...]]]:
    total = shape[0]
    return {
        "images": (np.uint8, shape),
        "sizes": (np.int64, (total, 2)),
        "hashes": (np.uint8, (total, 16)),
        "rows": (np.int64, (total,)),
    }


def _map(folder: Path, shape: tuple[int, ...], mode: str) -> dict[str, np.memmap]:
    """The arrays of a store, mapped.

    Raises:
        ValueError: A file does not have the shape and type that it should.
    """
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode) for name in _layout(shape)}
    if any((arrays[name].dtype, arrays[name].shape) != (kind, size) for name, (kind, size) in _layout(shape).items()):
        raise ValueError("another layout")
    return arrays


def _open(folder: Path, shape: tuple[int, ...]) -> Store | None:
    try:
        index = json.loads((folder / _INDEX).read_text())
        arrays = _map(folder, shape, "r")
        filled, bad = int(index["filled"]), [(int(row), str(reason)) for row, reason in index["bad"]]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    # the arrays have a row for every image of the source; rows of bad ones are left over at the end, as holes
    return Store(**{name: array[:filled] for name, array in arrays.items()}, bad=bad)


def _build(source: Source, plan: Plan, folder: Path, shape: tuple[int, ...], progress: Progress | None) -> Store:
    """Fills a folder of another name, block by block, and renames it when it is whole."""
    shutil.rmtree(folder, ignore_errors=True)
    building = folder.with_suffix(".building")
    arrays, state = _resume(building, shape)
    _check_space(building, arrays["images"].nbytes, state["filled"] / shape[0])
    saved = time.monotonic()
    with ThreadPoolExecutor(plan.threads) as pool:
        for items in source.blocks(state["done"]):
            results = pool.map(lambda item: _decode(item, plan), items)
            _write_block(arrays, state, results)
            _check_block(source, plan, building, state)
            if time.monotonic() - saved >= JOURNAL_SECONDS:
                _save(arrays, building / _JOURNAL, state)
                saved = time.monotonic()
            if progress is not None:
                progress(state["done"], shape[0])
    _save(arrays, building / _INDEX, state)
    with writing(folder.parent):
        building.rename(folder)
    store = _open(folder, shape)
    assert store is not None, "a finished build can be opened"
    return store


def _check_block(source: Source, plan: Plan, building: Path, state: dict) -> None:
    if not state["bad"]:
        return
    try:
        named = [(source.names[row], reason) for row, reason in state["bad"]]
        check_bad(named, len(source.names), plan.max_bad, source.path)
    except DataError:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _save(arrays: dict[str, np.memmap], path: Path, state: dict) -> None:
    """Pixels first, then the file that says they are there."""
    with writing(path.parent):
        for array in arrays.values():
            array.flush()
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state))
        temporary.replace(path)


def _resume(building: Path, shape: tuple[int, ...]) -> tuple[dict[str, np.memmap], dict]:
    """The arrays and the journal of a build that was killed, or new ones."""
    try:
        state = json.loads((building / _JOURNAL).read_text())
        return _map(building, shape, "r+"), {key: state[key] for key in ("done", "filled", "bad")}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        shutil.rmtree(building, ignore_errors=True)
    with writing(building):
        building.mkdir(parents=True)
        for name, (kind, size) in _layout(shape).items():
            np.lib.format.open_memmap(building / f"{name}.npy", mode="w+", dtype=kind, shape=size).flush()
    return _map(building, shape, "r+"), {"done": 0, "filled": 0, "bad": []}


def _check_space(building: Path, size: int, share_done: float) -> None:
    needed, free = int(size * (1 - share_done)) + _SPARE, shutil.disk_usage(building).free
    if free < needed:
        raise DeviceError(
            f"the decoded images need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=building.parent,
            mend="name a folder on a larger disk with cache= or the variable NEARFAR_CACHE, or take a smaller size",
        )


def _decode(item: Item, plan: Plan) -> tuple[np.ndarray, bytes] | BadImage:
    """Pixels uint8 `[C, h, w]` and hash of one image."""
    try:
        if isinstance(item, BadImage):
            raise item
        if isinstance(item, np.ndarray):
            pixels = fit(with_channels(item, plan.channels), plan.side).transpose(2, 0, 1)
            return pixels, array_digest(item)
        data = read(item)
        pixels = decode(data, channels=plan.channels, long_side=plan.side, max_pixels=plan.max_pixels)
        return pixels, digest(data)
    except BadImage as bad:
        return bad


def _write_block(
    arrays: Mapping[str, np.ndarray], state: dict, results: Iterator[tuple[np.ndarray, bytes] | BadImage]
) -> None:
    """Good images go side by side, in order; the journal says how many are there."""
    for result in results:
        row, place = state["done"], state["filled"]
        state["done"] += 1
        if isinstance(result, BadImage):
            state["bad"].append([row, result.what])
            continue
        pixels, value = result
        _, height, width = pixels.shape
        canvas = arrays["images"][place]
        canvas[:, :height, :width] = pixels
        canvas[:, height:] = canvas[:, :height, width:] = 0  # a build that was killed may have left a larger image here
        arrays["sizes"][place], arrays["rows"][place] = (height, width), row
        arrays["hashes"][place] = np.frombuffer(value, np.uint8)
        state["filled"] += 1
