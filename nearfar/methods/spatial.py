"""SCL, spatial contrastive learning: classification, and beside it maps of one class that match cell by cell.

Ouali, Hudelot, Tami, Spatial Contrastive Learning for Few-Shot Classification, 2021, https://arxiv.org/abs/2012.13831.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..errors import UsageError
from ..losses import aligned_infonce, infonce
from ..method import Extract, Method
from ..views import View, Views, random_crop


def spatial(
    *,
    encoder: str | nn.Module = "resnet12",
    size: int = 84,
    channels: int = 3,
    classes: int = 64,
    width: int = 80,
    temperature: float = 0.1,
    class_weight: float = 1.0,
    spatial_weight: float = 1.0,
    flip: float = 0.5,
) -> Method:
    """Classifies the training classes, and pulls the maps of a class together, each laid over the other by attention.

        s(a, b)  = mean over cells l of ( cos(v_a[l], v_b|a[l]) + cos(v_b[l], v_a|b[l]) ),  in [-2, 2]
        v_b|a    = softmax(q_a k_b^T / sqrt(width)) v_b
        spatial  = supcon over s / t, both views of all images;  loss = cross entropy of both views + spatial

    Queries q, keys k and values v come from the cells of the last map, by a two-layer map each, without bias.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module; its last map must be a map.
        size: Side of a view, pixels.
        channels: Channels of an image.
        classes: Number of training classes.
        width: Width of queries, keys and values.
        temperature: Divides the scores, > 0.
        class_weight: Of the cross entropy, >= 0; 0 leaves it out. 0.5 for CIFAR-FS.
        spatial_weight: Of the spatial term, >= 0; 0 leaves it out. 0.5 for CIFAR-FS.
        flip: Probability of mirroring; 0 where a mirrored image is another class.

    The recipe of its code: `--batch 64 --epochs 90 --lr 0.2 --warmup-epochs 0 --milestones 60,80` (its learning rate of
    0.05 for a batch of 64 is 0.2 for 256), SGD 0.9, weight decay 5e-4, the last checkpoint.

    Differs from the paper: no contrast of pooled embeddings beside it and no distillation afterwards. Comparing two
    images takes cells^2 * width multiplications; they are done for some images at a time, so memory doesn't grow with
    the square of the batch but for the scores themselves.

    Relations: without the spatial term, `rfs` with a second view; with one cell and no attention, `supcon`.

    Example:
        >>> from nearfar import methods
        >>> method = methods.spatial(encoder="small", size=32, classes=10, width=16)
    """
    if not (class_weight >= 0 and spatial_weight >= 0 and class_weight + spatial_weight > 0):
        raise UsageError(
            f"class_weight={class_weight}, spatial_weight={spatial_weight}",
            where="spatial",
            mend="both >= 0 and one of them > 0",
        )
    net = encoders.build(encoder, channels=channels, size=size)
    jitter, margin = (0.4, 0.4, 0.4, 0.1), 1 / 8 if size < 64 else 8 / 84
    plain = random_crop(size, pad=margin, flip=flip, jitter=(0.4, 0.4, 0.4, 0.0), jitter_p=1.0, grey_p=0.0, blur_p=0.0)
    strong = View(size=size, scale=(0.2, 1.0), flip=flip, jitter=jitter, blur_p=0.0)
    terms = [
        (class_weight, similarity.dot, partial(infonce, temperature=1.0)),
        (spatial_weight, similarity.cosine, partial(aligned_infonce, width=width, temperature=temperature)),
    ]
    pair = extract.SpatialPairs(net.width, classes, width=width, weights=(class_weight, spatial_weight))
    return Method(
        views=Views(plain, strong),
        encoder=net,
        extract=Extract(head=extract.Cells(), pair=pair, labels=True),
        similarity=tuple(measure for weight, measure, _ in terms if weight),
        loss=tuple(loss for weight, _, loss in terms if weight),
    )
