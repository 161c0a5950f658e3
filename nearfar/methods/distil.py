"""Distillation: a student learns the answers of a finished classifier on images without labels.

Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020,
https://arxiv.org/abs/2006.10029, eq. 2; after Hinton et al., Distilling the Knowledge in a Neural Network, 2015,
https://arxiv.org/abs/1503.02531, section 2.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..losses import divergence
from ..method import Extract, Method, Teacher
from ..views import View, Views


def distil(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    classes: int = 1000,
    teacher: tuple[nn.Module, nn.Module] | None = None,
    temperature: float = 1.0,
) -> Method:
    """Gives every image the shares of the classes that a finished network gives it; labels are not looked at.

        loss_i = t^2 * sum over classes c of p_c ( log p_c - log q_c )
        p = the teacher's softmax(s / t),  q = softmax(z_i . w / t)

    This is `t^2 (H(p, q) - H(p))`: the cross entropy that the paper has, less what no student can change, so it ends
    at 0, and its gradient is that of the cross entropy times t^2. The factor keeps gradients of one size when t
    changes; the paper's eq. 2 has none. Views are crop and mirror alone; `--view-flip 0` where a mirrored image is
    another class.

    Args:
        encoder: The student: name in `encoders.ENCODERS`, `timm:NAME`, or a module; the teacher's or a smaller one.
        size: Side of a view, pixels.
        channels: Channels of an image.
        classes: Number of classes that the teacher tells apart.
        teacher: Encoder and classifier of a finished run of `finetune`, `rfs` or this (`--teacher RUN`). It stays as it
            is, in evaluation mode, and sees the same view as the student.
        temperature: t, > 0. The paper's is 1, and 0.1 where the student is as large as the teacher.

    The paper's recipe: the optimiser of the pretraining (see `simclr_v2`), for 400 epochs.

    Differs from the paper: the factor t^2 and the constant, as above; views are resampled bilinearly, and pixels are
    normalised. Labels, which the paper may mix in (eq. 3), are left out.

    Relations: `rfs` with a teacher learns answers and labels of the same images, half each.

    Example:
        >>> from nearfar import extract, methods
        >>> big = methods.finetune(encoder="resnet18", size=32, classes=10)
        >>> teacher = (big.encoder, nn.Sequential(big.extract.head, big.extract.pair.classes))
        >>> method = methods.distil(encoder="small", size=32, classes=10, teacher=teacher)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    view = View(size=size, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    answers = extract.KnownClasses(net.width, classes, turns=False, distil=temperature if teacher else None, own=0.0)
    return Method(
        views=Views(view),
        encoder=net,
        extract=Extract(head=extract.Head(nn.Identity()), pair=answers),
        similarity=similarity.dot,
        loss=partial(divergence, temperature=temperature),
        teacher=Teacher(net=teacher) if teacher else None,
    )
