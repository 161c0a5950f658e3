"""Fine-tuning: a pretrained encoder and the first layers of its head learn classes from few labels.

Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020,
https://arxiv.org/abs/2006.10029. Section 2, "fine-tuning": from the middle of the head.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..errors import UsageError
from ..losses import infonce
from ..method import Extract, Method
from ..views import View, Views


def finetune(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    classes: int = 1000,
    init_head: tuple[int, ...] | None = None,
    keep: int = 1,
) -> Method:
    """Classifies labelled images; encoder and the kept layers of the head begin as a finished run left them.

        loss_i = -log( exp(h_i . w_y) / sum over classes c of exp(h_i . w_c) ),  h the last kept layer of the head

    All weights are trained, also those that were there before; the classifier is new. Views are crop and mirror alone;
    `--view-flip 0` where a mirrored image is another class.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module; that of the run it begins with.
        size: Side of a view, pixels.
        channels: Channels of an image.
        classes: Number of classes.
        init_head: Widths of the hidden layers of the head it begins with; None: it begins with nothing, and new layers
            are as wide as the encoder.
        keep: Layers of the head that stay, each linear, batch norm, ReLU; 0: the classifier sits on the encoder. The
            paper's choice is 1 for 1 % and 10 % of the labels, 0 for all of them.

    The paper's recipe: `--init RUN --label-share 0.01 --optimizer lars --lr 0.04 --batch 1024 --weight-decay 0
    --warmup-epochs 0 --epochs 60` (its learning rate of 0.005 sqrt(1024) = 0.16 is 0.04 for 256; a tenth of it and
    less for the largest networks), 30 epochs for 10 % and for all. Without `--init` all weights are new: the baseline.

    Differs from the paper: views are resampled bilinearly, and pixels are normalised. The learning rate falls as half
    a cosine. What the run is later used for (`embed`, `classify`) are the features of the encoder, not the kept layer.

    Relations: `rfs` is plain classification with other views; `distil` learns what this has learned, without labels.

    Raises:
        UsageError: `keep` is below 0, or there are fewer such layers.

    Example:
        >>> from nearfar import methods
        >>> method = methods.finetune(encoder="small", size=32, classes=10, keep=2)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    there = (net.width,) * max(keep, 0) if init_head is None else init_head
    if not 0 <= keep <= len(there):
        mend = f"--keep {len(there)}" if keep > 0 else "--keep 0, or the number of layers that stay"
        layers = f"of the {len(there)} that are linear, batch norm, ReLU at its beginning" if keep > 0 else "of a head"
        raise UsageError(f"{keep} layers {layers} can't be kept", where="keep", mend=mend)
    widths = there[:keep]
    kept = extract.layers(net.width, *widths, classes, norm=True)[:-1]  # the classifier takes the place of the last
    view = View(size=size, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    known = extract.KnownClasses((net.width, *widths)[-1], classes, turns=False, distil=None, own=1.0)
    return Method(
        views=Views(view),
        encoder=net,
        extract=Extract(head=extract.Head(kept), pair=known, labels=True),
        similarity=similarity.dot,
        loss=partial(infonce, temperature=1.0),
    )
