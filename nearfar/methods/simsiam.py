"""SimSiam: a view predicts the other one's embedding, which stands still meanwhile. Nothing else is needed.

Chen & He, Exploring Simple Siamese Representation Learning, CVPR 2021, https://arxiv.org/abs/2011.10566. Loss: eq. 1
to 4.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import attract
from ..method import Extract, Method
from ..views import View, Views


def simsiam(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    layers: int = 3,
    width: int = 2048,
    bottleneck: int = 512,
) -> Method:
    """Draws the prediction from one view to the embedding of the other, both ways, through one network.

        loss = -( cos(q(z_1), stop(z_2)) + cos(q(z_2), stop(z_1)) ) / 2,    q the predictor

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        layers: Of the head, >= 1.
        width: Width of the layers of the head and of the embedding that is compared.
        bottleneck: Width of the predictor's hidden layer.

    For 32 px: `encoder="resnet18", layers=2`. The paper's optimiser is SGD, `--lr 0.05`; the predictor's learning rate
    does not fall.
    Differs from the paper: weight decay leaves out biases and norms.

    Relations: `byol` has a slow copy besides.

    Example:
        >>> from nearfar import methods
        >>> method = methods.simsiam(encoder="small", size=32, layers=2, width=512, bottleneck=128)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    view = View(size=size, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.5 if size >= 64 else 0.0)
    predictor = extract.layers(width, bottleneck, width, norm=True)
    return Method(
        views=Views(view, view),
        encoder=net,
        extract=Extract(
            head=extract.mlp(net.width, *(width,) * layers, norm=True, last="plain"),
            pair=extract.Predicted(predictor, weight=0.5, constant_lr=True),
            apart=True,
        ),
        similarity=similarity.cosine,
        loss=partial(attract, best=0.0),
    )
