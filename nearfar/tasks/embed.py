"""`nearfar embed`: a vector for every image, in a file that other tools open."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from ..console import counting
from ..data import Dataset
from ..evaluation import stored_features, thumbnail, write_embeddings
from .encoder import Encoder, load_encoder


def embed(
    run: str | Path, data: str | Path, *, out: str | Path, device: str = "auto", say: Callable[[str], None] = print
) -> Path:
    """Writes one row an image: id, path, label, thumbnail, position on a map, nearest neighbours, vector, status.

    Memory does not grow with the vectors: they wait in the folder `OUT.part`, from which the same call goes on where
    this one was stopped.

    Args:
        run: Run folder.
        data: Images, as for `train`. An image that can't be read keeps its row, with the reason as its status.
        out: Parquet file to write.
        device: As in `train`.
        say: Called with messages.

    Returns:
        The file.
    """
    encoder, path = load_encoder(run, device=device).first(), Path(out)
    dataset = encoder.load(data)
    unreadable = len(dataset.bad)
    ids = [*dataset.ids.tolist(), *range(len(dataset), len(dataset) + unreadable)]
    with stored_features(
        encoder.vectors,
        dataset,
        encoder.transform,
        path.with_name(path.name + ".part"),
        key=_key(encoder, dataset),
        more=unreadable,
        device=encoder.device.device,
        progress=counting("embedded", say),
    ) as vectors:
        write_embeddings(
            path,
            vectors,
            names=[*dataset.names, *(name for name, _ in dataset.bad)],
            ids=ids,
            status=["ok"] * len(dataset) + [reason for _, reason in dataset.bad],
            labels=None if dataset.labels is None else [*dataset.labels.tolist(), *[-1] * unreadable],
            classes=dataset.classes,
            thumbnails=None if dataset.kind != "images" else lambda row: _small(dataset, row),
        )
        told = f", {unreadable} unreadable" if unreadable else ""
        say(f"wrote {out}: {len(dataset):,} vectors of {vectors.shape[1]}{told}")
    return path


def _key(encoder: Encoder, dataset: Dataset) -> str:
    """Hash of all that the vectors depend on."""
    transform = json.dumps(encoder.transform.to_dict(), sort_keys=True)
    told = hashlib.blake2b(f"{encoder.device} {dataset.fingerprint} {transform}".encode(), digest_size=16)
    told.update((encoder.run / "encoder.safetensors").read_bytes())
    return told.hexdigest()


def _small(dataset: Dataset, row: int) -> bytes | None:
    """A small picture of an image; None for those that can't be read, which come last."""
    return thumbnail(dataset.inputs[row], dataset.sizes[row]) if row < len(dataset) else None
