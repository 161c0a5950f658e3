"""Barlow Twins: the features of two views are to be one to one the same, and otherwise unrelated. No negatives.

Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021,
https://arxiv.org/abs/2103.03230. Loss: eq. 1. Released code: https://github.com/facebookresearch/barlowtwins.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import correlation
from ..method import Extract, Method
from ..views import asymmetric


def barlow_twins(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    hidden: tuple[int, ...] = (8192, 8192),
    width: int = 8192,
    redundancy: float = 0.0051,
    scale: float = 0.024,
) -> Method:
    """Makes the correlations between the features of two views the identity.

        loss = sum over i of (1 - C_ii)^2 + redundancy * sum over i != j of C_ij^2

    C_ij: correlation, over the batch, of feature i of the first view with feature j of the second.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        hidden: Widths of the hidden layers of the head.
        width: Width of the embedding; the method wants it large.
        redundancy: Weight of the correlations that are to be 0, > 0.
        scale: Factor of the loss, which grows with the width. For the weights under LARS it is none; norms, which LARS
            doesn't adapt, have in released code 0.024 of the others' learning rate, and here this instead.

    For 32 px: `encoder="resnet18", hidden=(2048, 2048), width=2048, scale=0.1`. The paper's optimiser is LARS,
    `--optimizer lars --lr 0.2 --weight-decay 1e-6`, with batches of 2048.
    Differs from the paper: see `scale`; views as `views.asymmetric` tells.

    Relations: `vicreg` asks the same of each view by itself, in three terms.

    Example:
        >>> from nearfar import methods
        >>> method = methods.barlow_twins(encoder="small", size=32, hidden=(512, 512), width=512)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    return Method(
        views=asymmetric(size),
        encoder=net,
        extract=Extract(
            head=extract.mlp(net.width, *hidden, width, norm=True, bias=False), pair=extract.own_view, apart=True
        ),
        similarity=similarity.dot,
        loss=partial(correlation, redundancy=redundancy, scale=scale),
    )
