"""Sound: decoded once to mono int16 at one rate, all recordings end to end in one file that is mapped, not read."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError, UsageError
from .dataset import Dataset
from .inputs import Ragged
from .scan import cache_folder
from .sound_decode import BadSound, decode_sound, rate_of
from .sound_files import UNSUPPORTED, open_sounds
from .source import Item, Source
from .survey import Progress, check_bad, digest, writing

_VERSION = 1  # of decoding and of the layout; another number makes all stores stale
_SOUND, _INDEX = "sound.s16", "index.npz"
SHORTEST_PIECE = 0.01  # seconds


@dataclass(frozen=True)
class Recordings:
    """Decoded sounds, readable ones only.

    Args:
        flat: int16 `[total]`, one after the other.
        lengths: Samples of each, int64 `[N]`.
        hashes: Hash of each encoded sound, uint8 `[N, 16]`.
        rows: Number of each in the source, int64 `[N]`.
        bad: Row in the source, and reason.
        rate: Samples a second, Hz.
    """

    flat: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray
    rows: np.ndarray
    bad: list[tuple[int, str]]
    rate: int


def load_sound(
    path: str | Path,
    *,
    rate: int | None = None,
    seconds: float = 20.0,
    labels: bool | None = None,
    label: str = "label",
    max_bad: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Sounds of any source, decoded once into the cache and mapped from there.

    Channels are averaged, the rate is changed by `scipy.signal.resample_poly`, floating point outside of [-1, 1] is
    cut. Silence is sound. A recording longer than `seconds` becomes as few equal pieces as that allows, called
    `a.wav [20-40 s]`; each is a sample with the label of the whole. `split` keeps all pieces of one on one side.

    Args:
        path: A folder of `.wav`, `.flac` or `.ogg` files (a subfolder a class, or none), a manifest (`.csv`, `.tsv`,
            `.jsonl`) with the columns path, label and split, or Parquet with a column `audio` of encoded bytes.
            `list.csv:train`: one part.
        rate: Samples a second, Hz, 1,000 or more; None: the most frequent rate of the data, of equals the lowest.
        seconds: Longest piece.
        labels: True: labels are needed; False: none are taken; None: taken where they are evident.
        label: Column of a manifest or of Parquet that holds the labels, such as `speaker`.
        max_bad: Bad sounds that are accepted; None: up to 100 or 1 %, and less than half.
        cache: Folder of the decoded sounds; None: `NEARFAR_CACHE`, or `~/.cache/nearfar`. It may be deleted.
        progress: Called with the number of sounds done, and of all.

    Raises:
        DataError: Nothing to read, too much that is bad, no labels where they are needed.
        DeviceError: The package soundfile is missing, or no space for the decoded sounds.
        UsageError: A rate or length that makes no sense.
    """
    if rate is not None and not 1000 <= rate <= 768_000:
        raise UsageError(f"a rate of {rate} Hz", where="rate", mend="samples a second, such as 16000, or None")
    if not seconds >= SHORTEST_PIECE:
        raise UsageError(f"pieces of {seconds} s", where="seconds", mend=f"{SHORTEST_PIECE} seconds or more")
    source = open_sounds(path, labels=labels, label=label)
    store = _open_or_build(source, rate, max_bad, cache_folder(cache), progress)
    pieces = _pieces(source, store, round(seconds * store.rate))
    return Dataset(
        inputs=Ragged(store.flat, pieces.starts, pieces.lengths, channel=True),
        sizes=pieces.lengths[:, None],
        ids=np.arange(len(pieces.names)),
        names=pieces.names,
        hashes=pieces.hashes,
        groups=store.hashes[pieces.owners],
        labels=None if source.labels is None else source.labels[store.rows[pieces.owners]],
        classes=source.classes,
        bad=[(source.names[row], reason) for row, reason in store.bad],
        kind="sound",
        rate=store.rate,
    )


@dataclass(frozen=True)
class _Pieces:
    starts: np.ndarray
    lengths: np.ndarray
    owners: np.ndarray
    names: list[str]
    hashes: np.ndarray


def _pieces(source: Source, store: Recordings, longest: int) -> _Pieces:
    """Where each sample is in the flat array. The hash of a piece is that of its recording and of where it is in it."""
    counts = -(-store.lengths // longest)
    owners = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    lengths, parts = store.lengths[owners], counts[owners]
    begins, ends = lengths * numbers // parts, lengths * (numbers + 1) // parts
    starts = (np.cumsum(store.lengths) - store.lengths)[owners] + begins
    names = [source.names[store.rows[owner]] for owner in owners]
    hashes = store.hashes[owners]
    for i in np.flatnonzero(parts > 1):
        first, last = (round(float(edge) / store.rate, 3) for edge in (begins[i], ends[i]))
        names[i] = f"{names[i]} [{first:.8g}-{last:.8g} s]"
        hashes[i] = np.frombuffer(digest(hashes[i].tobytes() + f"{begins[i]} {ends[i]}".encode()), np.uint8)
    return _Pieces(starts, ends - begins, owners, names, hashes)


def _open_or_build(
    source: Source, rate: int | None, max_bad: int | None, cache: Path, progress: Progress | None
) -> Recordings:
    """The store of a source. One process builds, others that want the same wait; what was killed begins anew."""
    from filelock import FileLock

    settings = f"{source.key} {rate} {_VERSION}"
    folder = cache / "sounds" / hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()
    store = _open(folder)  # before any lock: a cache that can only be read serves as well
    if store is None:
        with writing(cache):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_suffix(".lock")).acquire()
        with lock:
            store = _open(folder) or _build(source, rate, max_bad, folder, progress)
    check_bad(_named(source, store.bad), len(source.names), max_bad, source.path)
    return store


def _named(source: Source, bad: list[tuple[int, str]]) -> list[tuple[str, str]]:
    return [(source.names[row], reason) for row, reason in bad]


def _open(folder: Path) -> Recordings | None:
    try:
        with (folder / _INDEX).open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            bad = [(int(row), str(reason)) for row, reason in json.loads(kept["bad"].tobytes())]
            lengths, rate = kept["lengths"], int(kept["rate"])
            flat = np.memmap(folder / _SOUND, np.int16, "r") if len(lengths) else np.zeros(0, np.int16)
            found = Recordings(flat, lengths, kept["hashes"], kept["rows"], bad, rate)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if len(found.flat) == found.lengths.sum() else None


def _build(
    source: Source, rate: int | None, max_bad: int | None, folder: Path, progress: Progress | None
) -> Recordings:
    """Fills a folder of another name and renames it when it is whole."""
    building = folder.with_suffix(".building")
    for old in (folder, building):
        shutil.rmtree(old, ignore_errors=True)
    with writing(building):
        building.mkdir()
    chosen = rate or _frequent_rate(source)
    good: list[tuple[int, int, bytes]] = []
    bad: list[tuple[int, str]] = []
    with writing(building), (building / _SOUND).open("wb") as stream:
        for row, item in enumerate(item for block in source.blocks(0) for item in block):
            try:
                length, value = _append(stream, item, chosen)
                good.append((row, length, value))
            except DataError as problem:
                bad.append((row, problem.what))
                check_bad(_named(source, bad), len(source.names), max_bad, source.path)
            if progress is not None:
                progress(row + 1, len(source.names))
    with writing(building):
        told = np.frombuffer(json.dumps(bad).encode(), np.uint8)
        rows, lengths = (np.array([one[field] for one in good], np.int64) for field in (0, 1))
        hashes = np.frombuffer(b"".join(value for *_, value in good), np.uint8).reshape(-1, 16)
        np.savez(building / _INDEX, rows=rows, lengths=lengths, hashes=hashes, bad=told, rate=np.array(chosen))
        building.rename(folder)
    store = _open(folder)
    assert store is not None, "a finished build can be opened"
    return store


def _frequent_rate(source: Source) -> int:
    """What most sounds have, of equals the lowest, so that as little as possible is invented."""
    counts: Counter[int] = Counter()
    for block in source.blocks(0):
        for item in block:
            try:
                counts[rate_of(_encoded(item))] += 1
            except DataError:
                continue  # told when it is decoded
    return min(counts, key=lambda rate: (-counts[rate], rate), default=16_000)


def _append(stream: BinaryIO, item: Item, rate: int) -> tuple[int, bytes]:
    """Writes the samples of a sound; their number, and the hash of the encoded sound. Of a bad one nothing stays."""
    encoded, start, count = _encoded(item), stream.tell(), 0
    try:
        for block in decode_sound(encoded, rate=rate):
            stream.write(block.tobytes())
            count += len(block)
    except BadSound:
        stream.seek(start)
        stream.truncate()
        raise
    if isinstance(encoded, bytes):
        return count, digest(encoded)
    with encoded.open("rb") as file:
        return count, hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def _encoded(item: Item) -> Path | bytes:
    """A file or bytes that a decoder may see.

    Raises:
        DataError: What is already known to be bad.
    """
    if isinstance(item, DataError):
        raise item
    assert isinstance(item, Path | bytes), "sounds are encoded"
    if isinstance(item, Path) and item.suffix.lower() in UNSUPPORTED:
        raise BadSound("unsupported format", item.suffix.lower())
    return item
