"""What a variant costs: weights and multiplications, counted before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..method import Batch, Contrast, Method


@dataclass(frozen=True)
class Cost:
    """Of a method.

    Args:
        encoder: Weights of the encoder: what is kept.
        trained: Weights that are trained: encoder, head, prediction, similarity.
        flops: Floating-point operations of a forward pass of one image, all its views, encoder and heads; a
            multiplication and an addition are two. Comparisons (similarity and loss) are not in it.
    """

    encoder: int
    trained: int
    flops: int


def cost(method: Method, batch: Batch) -> Cost:
    """Counted on a few images.

    Example:
        >>> import torch
        >>> from nearfar import methods
        >>> images = Batch(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.full((2, 2), 28), torch.arange(2))
        >>> cost(methods.simclr(encoder="small", size=28, channels=1), images).encoder
        1225824
    """
    with torch.random.fork_rng(devices=[]):
        model = Contrast(method)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            online, slow = model.embed(batch)
            model.pair(online, slow, batch, model.memory)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    encoder = sum(p.numel() for p in model.encoder.parameters())
    return Cost(encoder, trained, counter.get_total_flops() // len(batch.ids))
