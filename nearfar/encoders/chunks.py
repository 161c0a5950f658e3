"""Encoding a batch in chunks, each computed again in the backward pass: the memory of one chunk, the loss of the batch.

Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021, https://arxiv.org/abs/2101.06983.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import UsageError


def encode_in_chunks(encoder: nn.Module, view: Tensor, chunk: int | None) -> list[Tensor]:
    """`encoder(view)`, with at most `chunk` samples inside the encoder at once.

    The second computation sees the same random numbers and the same autocast as the first, and leaves buffers (running
    statistics) alone. Where the encoder has batch norm, its statistics are those of a chunk.

    Args:
        encoder: View `[B, ...]` -> list of feature maps.
        view: `[B, ...]`.
        chunk: Samples at once, >= 1, or None: all.

    Raises:
        UsageError: `chunk` < 1.
    """
    if chunk is not None and chunk < 1:
        raise UsageError(f"chunk is {chunk}", where="chunk", mend="1 or more samples at once, or None for all")
    if chunk is None or len(view) <= chunk:
        return encoder(view)
    if torch.is_grad_enabled():
        contexts = (contextlib.nullcontext(), _BuffersKept(encoder))
        parts = [
            checkpoint(encoder, part, use_reentrant=False, context_fn=lambda: contexts) for part in view.split(chunk)
        ]
    else:
        parts = [encoder(part) for part in view.split(chunk)]
    return [torch.cat(maps) for maps in zip(*parts, strict=True)]


class _BuffersKept:
    """Inside, the module works on copies of its buffers; can be entered again, for a second backward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = [m for m in module.modules() if m._buffers]
        self.kept: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self.kept = [dict(m._buffers) for m in self.modules]
        for m, buffers in zip(self.modules, self.kept, strict=True):
            m._buffers.update({name: b if b is None else b.clone() for name, b in buffers.items()})

    def __exit__(self, *error: object) -> None:
        for m, buffers in zip(self.modules, self.kept, strict=True):
            m._buffers.update(buffers)
