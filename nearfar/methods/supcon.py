"""SupCon: the other images of the same class are positives too.

Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, https://arxiv.org/abs/2004.11362. Loss: eq. 2 (L_out) and
eq. 3 (L_in). Views for small images: the settings of its CIFAR experiments.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, extract, similarity
from ..losses import infonce
from ..method import Extract, Method
from ..views import View, Views


def supcon(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    hidden: tuple[int, ...] = (2048,),
    width: int = 128,
    temperature: float = 0.1,
    positives: Literal["mean_log", "log_sum"] = "mean_log",
) -> Method:
    """Pulls all images of a class together, pushes the other classes away.

        loss_i = -1/|P_i| * sum over p in P_i of log( exp(s_ip / t) / sum over k != i of exp(s_ik / t) )

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        hidden: Widths of the hidden layers of the head.
        width: Width of the embedding that is compared.
        temperature: Divides the cosine, > 0.
        positives: "mean_log" is L_out (eq. 2), "log_sum" L_in (eq. 3), whose sum over the positives is inside the log.

    Differs from the paper: the colour jitter of its CIFAR experiments at every size (AutoAugment for ImageNet there);
    the released code multiplies the loss by temperature / 0.07.

    Relations: without labels, every image its own class, this is `simclr`'s loss.

    Example:
        >>> from nearfar import methods
        >>> method = methods.supcon(encoder="small", size=32, positives="log_sum")
    """
    net = encoders.build(encoder, channels=channels, size=size)
    view = View(size=size, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.0)
    return Method(
        views=Views(view, view),
        encoder=net,
        extract=Extract(head=extract.mlp(net.width, *hidden, width), pair=extract.same_label, labels=True),
        similarity=similarity.cosine,
        loss=partial(infonce, temperature=temperature, positives=positives),
    )
