"""Who meets whom where a sample is an image and a text: every image meets every text of the batch."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..method import Batch, Memory, Pairs


def both_ways(
    online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None, *, same_text: bool = False
) -> list[Pairs]:
    """Each image looks for its text, and each text for its image; the mean of both (CLIP).

    Args:
        online: Embeddings of images and texts, `[B, D]` each.
        slow, memory: Not used.
        batch: Whose ids are the keys.
        same_text: Whether equal texts are positives of each other's images; otherwise they are negatives, as in the
            paper, and the loss can't reach 0 where a batch has a text twice.
    """
    image, text = online
    key = text_keys(batch).to(image.device) if same_text else batch.ids
    return [Pairs(image, text, key, key, weight=0.5), Pairs(text, image, key, key, weight=0.5)]


def each_with_each(
    online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None, *, same_text: bool = False
) -> list[Pairs]:
    """Each image meets each text once (SigLIP); arguments as of `both_ways`."""
    there, _ = both_ways(online, slow, batch, memory, same_text=same_text)
    return [replace(there, weight=1.0)]


def text_keys(batch: Batch, column: str = "text") -> Tensor:
    """A number for each text, equal where its tokens are, on all processes: int64 `[B]`, the hash of its tokens.

    Args:
        batch: With tokens `[B, 1, L]` in a column.
        column: Its name.
    """
    text = batch.of(column)
    rows = zip(text.inputs[:, 0].numpy().astype(np.int64), text.sizes[:, 0].tolist(), strict=True)
    digests = [hashlib.blake2b(row[:size].tobytes(), digest_size=8).digest() for row, size in rows]
    return torch.from_numpy(np.frombuffer(b"".join(digests), np.int64).copy())
