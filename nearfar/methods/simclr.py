"""SimCLR: the other images of the batch are the negatives.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
https://arxiv.org/abs/2002.05709. Loss: eq. 1. Views: appendix A; small images: appendix B.9.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import infonce
from ..method import Extract, Method
from ..views import View, Views


def simclr(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    strength: float | None = None,
    hidden: tuple[int, ...] = (2048,),
    width: int = 128,
    temperature: float | None = None,
) -> Method:
    """Pulls two views of an image together, pushes all other images of the batch away.

        loss_i = -log( exp(s_ip / t) / sum over k != i of exp(s_ik / t) ),  s cosine, p the other view of i

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        strength: Strength of the colour jitter, >= 0; 0 leaves colours alone. None: 1; below 64 px 0.5 (B.9). Below
            64 px there is no blur.
        hidden: Widths of the hidden layers of the head.
        width: Width of the embedding that is compared.
        temperature: Divides the cosine, > 0. None: 0.1; below 64 px 0.5 (B.9).

    Differs from the paper: views are resampled bilinearly, not bicubically, and pixels are normalised. The loss is the
    mean over the 2N anchors; the released code adds the two half-losses, twice that.

    Relations: `supcon` takes labels for positives; `moco` keeps old embeddings as negatives.

    Example:
        >>> from dataclasses import replace
        >>> from nearfar import methods, similarity
        >>> ablation = replace(methods.simclr(encoder="small", size=28, channels=1), similarity=similarity.dot)
    """
    small = size < 64
    net = encoders.build(encoder, channels=channels, size=size)
    s = strength if strength is not None else 0.5 if small else 1.0
    jitter = (0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
    view = View(size=size, jitter=jitter, jitter_p=0.8 * (s > 0), grey_p=0.2 * (s > 0), blur_p=0.0 if small else 0.5)
    return Method(
        views=Views(view, view),
        encoder=net,
        extract=Extract(head=extract.mlp(net.width, *hidden, width, norm=True, last="scale"), pair=extract.every_view),
        similarity=similarity.cosine,
        loss=partial(infonce, temperature=temperature if temperature is not None else 0.5 if small else 0.1),
    )
