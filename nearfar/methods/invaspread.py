"""InvaSpread: views of an image find each other, and each other image is told apart by itself.

Ye et al., Unsupervised Embedding Learning via Invariant and Spreading Instance Feature, CVPR 2019,
https://arxiv.org/abs/1904.03436. Loss: eq. 6. Released code:
https://github.com/mangye16/Unsupervised_Embedding_Learning.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, extract, similarity
from ..errors import UsageError
from ..losses import infonce, spread
from ..method import Extract, Method
from ..views import View, Views


def invaspread(
    *,
    encoder: str | nn.Module = "resnet18",
    size: int = 224,
    channels: int = 3,
    width: int = 128,
    temperature: float = 0.1,
    form: Literal["code", "paper"] = "code",
) -> Method:
    """Pulls two views of an image together and makes sure that no other image is taken for it.

        loss_i = -log P_ip - sum over n of log(1 - P_in),    P_ij = exp(s_ij / t) / sum over k of exp(s_ik / t)

    s: cosines; p: the other view of image i; n: all views of the other images.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels; the paper's is 32, and 96 for STL-10.
        channels: Channels of an image.
        width: Width of the embedding that is compared.
        temperature: Divides the cosine, > 0.
        form: "code", of which the published results are: both views are augmented, each of the 2N embeddings looks
            among the 2N - 1 others, and those carry no gradient. "paper": the first view is the image as it is; the
            augmented one looks among the N clean ones, those are spread among each other, and all carry gradients.

    The paper's optimiser is SGD with batches of 128, `--lr 0.06` (0.03 for 128), `--weight-decay 5e-4`.
    Differs from the paper: the mean over the anchors where it prints the sum. Jitter comes before grey.

    Relations: `simclr` has the first term alone, others with gradients, and a hidden layer in the head.

    Example:
        >>> from nearfar import methods
        >>> method = methods.invaspread(encoder="small", size=32, form="paper")
        >>> [view.flip for view in method.views.views]
        [0.0, 0.5]
    """
    if form not in ("code", "paper"):
        raise UsageError(f"{form!r} is unknown", where="form", mend="code, paper")
    net = encoders.build(encoder, channels=channels, size=size)
    view = View(size=size, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, blur_p=0.0)
    clean = View(size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    return Method(
        views=Views(view if form == "code" else clean, view),
        encoder=net,
        extract=Extract(
            head=extract.linear(net.width, width),
            pair=extract.every_still_view if form == "code" else extract.among_clean,
        ),
        similarity=similarity.cosine,
        loss=(partial(infonce, temperature=temperature), partial(spread, temperature=temperature)),
    )
