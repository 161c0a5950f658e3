"""NNCLR: in place of a view stands the image that was most like it lately; it must find the other view.

Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations,
ICCV 2021, https://arxiv.org/abs/2104.14548. Loss: section 3.2.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import infonce
from ..memory import Queue
from ..method import Extract, Method
from ..views import asymmetric


def nnclr(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    hidden: int = 2048,
    predictor: int = 4096,
    width: int = 256,
    queue: int = 65536,
    temperature: float = 0.1,
) -> Method:
    """Matches the nearest neighbour of a view, among earlier embeddings, with the other view, among the batch.

        loss_i = -log( exp(n(z_i).q(z'_i) / t) / sum over k of exp(n(z_i).q(z'_k) / t) ),  n(z): row of the queue
        nearest to z, q: the predictor; mean of both directions

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        hidden: Width of the two hidden layers of the head.
        predictor: Width of the predictor's hidden layer.
        width: Width of the embedding that is compared.
        queue: Number of embeddings kept, of the first view; a multiple of the global batch.
        temperature: Divides the cosine, > 0.

    For 32 px: `encoder="resnet18", queue=16384, temperature=0.2`.
    Differs from the paper: widths, queue and views are those of solo-learn's runs (https://github.com/vturrisi/solo-learn).

    Relations: `simclr` compares the view itself; `moco` takes its negatives from the queue, here they are the batch's.

    Example:
        >>> from nearfar import methods
        >>> method = methods.nnclr(encoder="small", size=32, hidden=512, predictor=512, queue=4096)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    return Method(
        views=asymmetric(size),
        encoder=net,
        extract=Extract(
            head=extract.mlp(net.width, hidden, hidden, width, norm=True, last="scale"),
            pair=extract.Neighbours(extract.layers(width, predictor, width, norm=True)),
            apart=True,
        ),
        similarity=similarity.cosine,
        loss=partial(infonce, temperature=temperature),
        memory=Queue(width=width, length=queue, views=(0,)),
    )
