"""MoCo: a slow copy of the encoder makes the keys, a queue of old keys gives many negatives.

v1: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020,
https://arxiv.org/abs/1911.05722. Loss: eq. 1; teacher: eq. 2.
v2: Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020, https://arxiv.org/abs/2003.04297.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, extract, similarity
from ..encoders.norm import split_batch_norm
from ..losses import infonce
from ..memory import Queue
from ..method import Extract, Method, Teacher
from ..views import View, Views


def moco(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    version: Literal[1, 2] = 2,
    queue: int = 65536,
    decay: float = 0.999,
    temperature: float | None = None,
    groups: int = 8,
) -> Method:
    """Matches an image with the slow copy's view of it, among the keys of many earlier batches.

        loss = -log( exp(q.k / t) / (exp(q.k / t) + sum over the queue of exp(q.k_j / t)) )

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        version: 1: linear head, strong jitter, no blur. 2: a hidden layer in the head, SimCLR's kind of views.
        queue: Number of keys kept, a multiple of the global batch.
        decay: Of the slow copy, in [0, 1]; 0.99 suits runs of few steps.
        temperature: Divides the cosine, > 0. None: 0.07 for version 1, 0.2 for version 2.
        groups: Parts of the batch that have batch statistics of their own, a divisor of the batch. It keeps the keys
            from giving themselves away through their batch statistics; the paper shuffles keys among GPUs to that end.

    Differs from the paper: see `groups`; below 64 px there is no blur.

    Relations: `simclr` takes its negatives from the batch.

    Example:
        >>> from nearfar import methods
        >>> method = methods.moco(encoder="small", size=32, queue=4096, decay=0.99)
    """
    net = split_batch_norm(encoders.build(encoder, channels=channels, size=size), groups)
    if version == 1:
        view = View(size=size, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, blur_p=0.0)
        head, default = extract.linear(net.width, 128), 0.07
    else:
        view = View(size=size, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.5 if size >= 64 else 0.0)
        head, default = extract.mlp(net.width, net.width, 128), 0.2
    return Method(
        views=Views(view, view),
        encoder=net,
        extract=Extract(head=head, pair=extract.own_key, views=(0,)),
        similarity=similarity.cosine,
        loss=partial(infonce, temperature=default if temperature is None else temperature),
        teacher=Teacher(decay=decay, views=(1,)),
        memory=Queue(width=128, length=queue),
    )
