"""MoCo v3: a slow copy of the network makes the keys, of this batch alone; for residual networks and transformers.

Chen, Xie & He, An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021,
https://arxiv.org/abs/2104.02057. Loss: eq. 1 and algorithm 1; the frozen patch embedding: section 4.2.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..encoders.vit import ViT
from ..losses import infonce
from ..method import Extract, Method, Teacher
from ..schedules import Cosine
from ..views import asymmetric


def moco_v3(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    hidden: int = 4096,
    width: int = 256,
    temperature: float | None = None,
    decay: float = 0.99,
) -> Method:
    """Matches the prediction from a view with the slow copy's key of the other view, among the keys of the batch.

        loss = ctr(q_1, k_2) + ctr(q_2, k_1),    ctr = -2 t log( exp(q_i.k_i / t) / sum over j of exp(q_i.k_j / t) )

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module. Of a `ViT` the patch embedding stays as it was
            drawn.
        size: Side of a view, pixels.
        channels: Channels of an image.
        hidden: Width of the hidden layers of head and predictor.
        width: Width of the embedding that is compared.
        temperature: t divides the cosine, > 0. None: 1; for a `ViT` 0.2.
        decay: Of the slow copy at the beginning, in [0, 1]; it rises to 1 as half a cosine. 0.996 for 1000 epochs.

    For 32 px: `encoder="resnet18", hidden=2048, temperature=0.2`. The paper's optimisers: LARS with `--lr 0.6` for 100
    epochs and 0.3 for 300; for a `ViT` AdamW, `--lr 0.00015 --weight-decay 0.1`.
    Differs from the paper: a `ViT` has no class token.

    Relations: `byol` has no negatives; `moco` keeps the keys of earlier batches.

    Example:
        >>> from nearfar import methods
        >>> method = methods.moco_v3(encoder="small", size=32, hidden=512)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    transformer = isinstance(net, ViT)
    if isinstance(net, ViT):
        net.patches.requires_grad_(False)
    t = temperature if temperature is not None else 0.2 if transformer else 1.0
    inner = (hidden, hidden) if transformer else (hidden,)
    predictor = extract.layers(width, hidden, width, norm=True, last="plain" if transformer else "none", bias=False)
    return Method(
        views=asymmetric(size, least=0.08 if transformer else 0.2),
        encoder=net,
        extract=Extract(
            head=extract.mlp(net.width, *inner, width, norm=True, last="plain"),
            pair=extract.Predicted(predictor, among=True, weight=2 * t),
            apart=True,
        ),
        similarity=similarity.cosine,
        loss=partial(infonce, temperature=t),
        teacher=Teacher(decay=Cosine(decay, 1.0)),
    )
