"""RFS, the transfer baseline of few-shot learning: plain classification, then the classifier is thrown away.

Tian et al., Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?, ECCV 2020,
https://arxiv.org/abs/2003.11539. Loss: eq. 3; distillation: eq. 5, after Furlanello et al., Born-Again Neural Networks,
ICML 2018, https://arxiv.org/abs/1805.04770. Quarter turns: Gidaris et al., ICCV 2019, https://arxiv.org/abs/1906.05186.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import divergence, infonce
from ..method import Extract, Method, Teacher
from ..views import Turns, Views, random_crop


def rfs(
    *,
    encoder: str | nn.Module = "resnet12",
    size: int = 84,
    channels: int = 3,
    classes: int = 64,
    turns: bool = False,
    teacher: tuple[nn.Module, nn.Module] | None = None,
    distil: float = 4.0,
    flip: float = 0.5,
) -> Method:
    """Classifies the training classes: the embedding of an image is pulled to the vector of its class.

        loss_i = -log( exp(z_i . w_y) / sum over classes c of exp(z_i . w_c) )            without a teacher
        loss_i = loss_i / 2 + t^2 / 2 * KL( teacher's softmax(s / t) || softmax(z_i . w / t) )       with one

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        classes: Number of training classes.
        turns: Each image four times, turned by 0, 90, 180, 270 degrees, and which one as a second question.
        teacher: Encoder and classifier of an earlier run (`--teacher runs/x`), whose answers are learned too. None: the
            first generation.
        distil: Temperature t of these answers, > 0.
        flip: Probability of mirroring; 0 where a mirrored image is another class.

    The paper's recipe: `--batch 64 --epochs 100 --lr 0.2 --warmup-epochs 0 --milestones 60,80` (its learning rate of
    0.05 for a batch of 64 is 0.2 for 256), SGD 0.9, weight decay 5e-4, the last checkpoint; then logistic regression
    on unit features in each episode.

    Differs from the paper: pixels are normalised by ImageNet's statistics. Quarter turns are not in it; here every
    turned copy keeps its class, as in Mangla et al. 2020 (https://arxiv.org/abs/1907.12087).

    Relations: `similarity.cosine` in place of the dot product makes a cosine classifier; `supcon` pulls images of a
    class to each other instead.

    Example:
        >>> from nearfar import methods
        >>> method = methods.rfs(encoder="conv4", size=32, classes=64)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    margin = 1 / 8 if size < 64 else 8 / 84
    view = random_crop(size, pad=margin, flip=flip, jitter=(0.4, 0.4, 0.4, 0.0), jitter_p=1.0, grey_p=0.0, blur_p=0.0)
    classify = partial(infonce, temperature=1.0)
    known = extract.KnownClasses(
        net.width, classes, turns=turns, distil=distil if teacher else None, own=0.5 if teacher else 1.0
    )
    return Method(
        views=Turns(view) if turns else Views(view),
        encoder=net,
        extract=Extract(head=extract.Head(nn.Identity()), pair=known, labels=True),
        similarity=similarity.dot,
        loss=(classify, *[classify] * turns, *[partial(divergence, temperature=distil)] * bool(teacher)),
        teacher=Teacher(net=teacher) if teacher else None,
    )
