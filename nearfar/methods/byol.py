"""BYOL: one network learns to tell what a slow copy of itself says of another view. There are no negatives.

Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, https://arxiv.org/abs/2006.07733. Loss: eq. 2; teacher: eq. 1;
views: appendix B.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import attract
from ..method import Extract, Method, Teacher
from ..schedules import Cosine
from ..views import asymmetric


def byol(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    hidden: int = 4096,
    width: int = 256,
    decay: float = 0.996,
) -> Method:
    """Draws the prediction from one view to the slow copy's embedding of the other, both ways.

        loss = |q(z_1) - z'_2|^2 + |q(z_2) - z'_1|^2,    all of length 1, q the predictor, z' the slow copy's

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        hidden: Width of the hidden layer of head and predictor.
        width: Width of the embedding that is compared.
        decay: Of the slow copy at the beginning, in [0, 1]; it rises to 1 as half a cosine. The paper's for 1000
            epochs; 0.99 for 100 to 300.

    For 32 px: `encoder="resnet18", hidden=2048, decay=0.99`. The paper's optimiser is LARS, `--lr 0.2` for 1000 epochs,
    0.45 for 100.
    Differs from the paper: no bias before a batch norm; views as `views.asymmetric` tells.

    Relations: `simsiam` has no slow copy; `moco_v3` has the same networks and negatives.

    Example:
        >>> from nearfar import methods
        >>> method = methods.byol(encoder="small", size=32, hidden=512, decay=0.99)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    predictor = extract.layers(width, hidden, width, norm=True, bias=False)
    return Method(
        views=asymmetric(size),
        encoder=net,
        extract=Extract(
            head=extract.mlp(net.width, hidden, width, norm=True, bias=False),
            pair=extract.Predicted(predictor),
            apart=True,
        ),
        similarity=similarity.cosine,
        loss=partial(attract, best=1.0, scale=2.0),
        teacher=Teacher(decay=Cosine(decay, 1.0)),
    )
