"""SwAV: images are shared out among prototypes, and one view is asked which ones another view of its image got.

Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020,
https://arxiv.org/abs/2006.09882. Loss: eq. 1 and 2, over crops: eq. 6; codes: eq. 3 to 5.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import cross_entropy
from ..method import Extract, Method
from ..views import multi_crop


def swav(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    crops: int | None = None,
    small: int | None = None,
    least: float | None = None,
    hidden: int = 2048,
    width: int = 128,
    prototypes: int = 3000,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    queue: int = 0,
    wait: float = 0.075,
    freeze: float = 0.0025,
) -> Method:
    """Predicts the code of a large view, its shares of the prototypes, from each other view of the image.

        loss = mean over large views s, and views v != s, of -sum over k of q_sk log softmax_k(z_v . c / t)

    where the codes q share out the batch evenly, by three turns of Sinkhorn and Knopp on exp(z . c / epsilon).

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of the two large views, pixels.
        channels: Channels of an image.
        crops: Number of small views. None: 6, below 64 px 4.
        small: Their side, pixels. None: 96 for 224, in that proportion; about half of `size` below
            64 px.
        least: Smallest share of the image's area in a large crop, and largest in a small one. None: 0.14, below 64 px
            0.4, without small views 0.08.
        hidden: Width of the hidden layer of the head.
        width: Width of the embedding.
        prototypes: Number of prototypes; about ten for each class one may expect.
        temperature: Divides the cosines of the prediction, > 0.
        epsilon: Divides those of the codes, at least 0.025; the smaller, the nearer are codes to 0 and 1.
        queue: Earlier embeddings of each large view that are shared out with the batch, a multiple of it; the paper's
            3840 for batches of 256. 0: none, for batches larger than the number of prototypes.
        wait: Share of the run before the queue is used: 15 of 200 epochs.
        freeze: Share of the run in which the prototypes stay as they are: one of 400 epochs.

    For 32 px: `encoder="resnet18", prototypes=300`; for runs of some thousand steps `prototypes=100, epsilon=0.03,
    crops=0`, sharper codes of fewer prototypes. The paper's optimiser is LARS with momentum, `--optimizer lars`,
    `--lr 0.3 --weight-decay 1e-6` for batches of 4096, `--lr 0.6` for 256.
    Differs from the paper: no bias before a batch norm; the gradient of a prototype has no part along it, which its
    renewed length of 1 would take back; the queue is filled from the first step on, and shared by all processes; LARS
    leaves out biases and norms.

    Relations: `dino` has the answers of a slow copy in place of the codes; `supcon` has classes.

    Example:
        >>> from nearfar import methods
        >>> method = methods.swav(encoder="small", size=32, hidden=512, prototypes=300)
    """
    net, tiny = encoders.build(encoder, channels=channels, size=size), size < 64
    number = (4 if tiny else 6) if crops is None else crops
    if least is None:
        least = (0.4 if tiny else 0.14) if number else 0.08
    return Method(
        views=multi_crop(size, crops=number, small=small, multiple=getattr(net, "patch", 1), least=least),
        encoder=net,
        extract=Extract(
            head=extract.mlp(net.width, hidden, width, norm=True),
            pair=extract.Assigned(width, prototypes, epsilon=epsilon, freeze=freeze, wait=wait),
        ),
        similarity=similarity.cosine,
        loss=partial(cross_entropy, temperature=temperature),
        memory=extract.Queues(width=width, length=queue) if queue else None,
    )
