"""DINO: a network learns to give every crop of an image the answers that a slow copy of itself gives large ones.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, https://arxiv.org/abs/2104.14294.
Loss: eq. 1 and 3; centre: eq. 4; views, head and schedules: section 3.1.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..encoders.norm import BatchNorm
from ..losses import cross_entropy
from ..method import Extract, Method, Teacher
from ..schedules import Cosine, Ramp
from ..views import multi_crop


def dino(
    *,
    encoder: str | nn.Module = "vit-small",
    size: int = 224,
    channels: int = 3,
    crops: int | None = None,
    small: int | None = None,
    least: float | None = None,
    hidden: int = 2048,
    width: int = 256,
    norm: bool = False,
    prototypes: int = 65536,
    temperature: float = 0.1,
    target_temperature: float = 0.07,
    ramp: float = 0.0375,
    decay: float = 0.996,
    centre: float = 0.9,
    freeze: float = 0.01,
) -> Method:
    """Predicts the slow copy's shares of the prototypes for a large view from each other view of the image.

        loss = mean over large views s, and views v != s, of -sum over k of p'_sk log softmax_k(z_v . c / t)
        p'_s = softmax((z'_s . c' - centre) / t'),    all vectors of length 1, z' and c' the slow copy's

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module; one that takes small views too.
        size: Side of the two large views, pixels.
        channels: Channels of an image.
        crops: Number of small views. None: 8, below 64 px 4.
        small: Their side, pixels. None: 96 for 224, in that proportion; about half of `size` below
            64 px.
        least: Smallest share of the image's area in a large crop, and largest in a small one. None: 0.4, the paper's
            for a ViT (0.14 for a ResNet-50), without small views 0.08.
        hidden: Width of the two hidden layers of the head.
        width: Width of the embedding.
        norm: Batch norm before each GELU of the head; without it the embeddings of very small convolutional networks
            are nearly alike at the beginning.
        prototypes: Number of prototypes.
        temperature: Divides the cosines of the prediction, > 0.
        target_temperature: Divides those of the target, > 0; it begins at 0.04.
        ramp: Share of the run in which it gets there: 30 of 800 epochs.
        decay: Of the slow copy at the beginning, in [0, 1]; it rises to 1 as half a cosine.
        centre: Share of the old centre that stays in a step, in [0, 1].
        freeze: Share of the run in which the prototypes stay as they are: one of 100 epochs.

    For 32 px: `encoder="resnet18", norm=True, prototypes=4096, decay=0.99`, for runs of some thousand steps
    `target_temperature=0.04, crops=0` besides. The paper's optimiser is the default:
    `--optimizer adamw --lr 0.0005 --clip 3 --weight-decay 0.04 --final-decay 0.4`.
    Differs from the paper: views are resampled bilinearly; the learning rate ends at 0; the prototypes' length is
    under weight decay, which changes no cosine, also while they are frozen.

    Relations: `swav` has codes of its own in place of the slow copy's answers; `byol` has no prototypes.

    Example:
        >>> from nearfar import methods
        >>> method = methods.dino(encoder="small", size=32, hidden=512, prototypes=4096, decay=0.99)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    number = (4 if size < 64 else 8) if crops is None else crops
    if least is None:
        least = 0.4 if number else 0.08
    return Method(
        views=multi_crop(
            size,
            crops=number,
            small=small,
            multiple=getattr(net, "patch", 1),
            least=least,
            jitter=(0.4, 0.4, 0.2, 0.1),
            blur=(1.0, 0.1, 0.5),
            solarise=0.2,
        ),
        encoder=net,
        extract=Extract(
            head=_head(net.width, hidden, width, norm=norm),
            pair=extract.Distilled(
                width,
                prototypes,
                temperature=Ramp(min(0.04, target_temperature), target_temperature, until=ramp),
                momentum=centre,
                freeze=freeze,
            ),
        ),
        similarity=similarity.cosine,
        loss=partial(cross_entropy, temperature=temperature),
        teacher=Teacher(decay=Cosine(decay, 1.0), views=(0, 1)),
    )


def _head(width_in: int, hidden: int, width: int, *, norm: bool) -> extract.Head:
    """Three layers, GELU between them; weights begin with a deviation of 0.02, biases at 0."""
    linears = nn.Linear(width_in, hidden, not norm), nn.Linear(hidden, hidden, not norm), nn.Linear(hidden, width)
    for linear in linears:
        nn.init.trunc_normal_(linear.weight, std=0.02)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    first, second = ([linear, *[BatchNorm(hidden)] * norm, nn.GELU()] for linear in linears[:2])
    return extract.Head(nn.Sequential(*first, *second, linears[2]))
