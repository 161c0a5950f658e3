"""VICReg: two views agree, and within each the features vary, every one by itself. No negatives.

Bardes, Ponce & LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, ICLR 2022,
https://arxiv.org/abs/2105.04906. Loss: eq. 6. Released code: https://github.com/facebookresearch/vicreg.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, extract, similarity
from ..losses import variance_covariance
from ..method import Extract, Method
from ..views import asymmetric


def vicreg(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    hidden: tuple[int, ...] = (8192, 8192),
    width: int = 8192,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    form: Literal["code", "paper"] = "code",
) -> Method:
    """Draws the embeddings of two views together while every feature keeps its variance and no two go together.

        loss = invariance * |z - z'|^2 + variance * sum of max(0, 1 - std_j) + covariance * sum over i != j of C_ij^2

    Means over samples and features; the last two of both views. `losses.variance_covariance` has them in full.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        hidden: Widths of the hidden layers of the head.
        width: Width of the embedding; the method wants it large.
        invariance: Weight of the distance, >= 0.
        variance: Weight of the missing standard deviations, >= 0.
        covariance: Weight of the squares of covariances, >= 0.
        form: What the weights belong to. "code": terms as the released code has them, with which the results were
            published. "paper": as printed, the distance not over the width, the deviations of both views added.

    For 32 px: `encoder="resnet18", hidden=(2048, 2048), width=2048`. The paper's optimiser is LARS,
    `--optimizer lars --lr 0.2 --weight-decay 1e-6`, with batches of 2048; 0.3 for 100 epochs. With SGD the loss needs a
    small step: on toy images it was no number after nine steps at `--lr 0.12`, and fell at 0.01.
    Differs from the paper: no bias before a batch norm; views as `views.asymmetric` tells.

    Relations: `barlow_twins` has one matrix between the views in place of one for each.

    Example:
        >>> from nearfar import methods
        >>> method = methods.vicreg(encoder="small", size=32, hidden=(512, 512), width=512)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    return Method(
        views=asymmetric(size),
        encoder=net,
        extract=Extract(
            head=extract.mlp(net.width, *hidden, width, norm=True, bias=False), pair=extract.own_view, apart=True
        ),
        similarity=similarity.dot,
        loss=partial(variance_covariance, **weights, form=form),
    )
