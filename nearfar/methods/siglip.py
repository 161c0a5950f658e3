"""SigLIP: CLIP with a loss that tells each pair of an image and a text by itself.

Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023, https://arxiv.org/abs/2303.15343. Loss: eq. 1.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, similarity
from ..encoders.text_transformer import build_text
from ..extract.captions import each_with_each
from ..losses.learned import LearnedSigmoid
from ..method import Extract, Method
from ..views.captioned import Captioned
from .clip import heads, square_crop


def siglip(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    vocabulary: int = 257,
    text: str | nn.Module = "small",
    length: int = 77,
    width: int = 512,
    scale: float = 10.0,
    bias: float = -10.0,
    same_text: bool = False,
) -> Method:
    """Tells for each image and each caption of the batch whether they belong together.

        loss = mean over images i of sum over captions j of log(1 + exp(-z_ij (t <x_i, y_j> + b)))

    z_ij = 1 for a pair and -1 otherwise, x and y unit embeddings, t = exp(learned) and b learned.

    Args:
        encoder: Of images: name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        vocabulary: Number of tokens, padding included.
        text: Encoder of text, as of `clip`.
        length: Tokens of the longest caption.
        width: Of the common space.
        scale: t to begin with, > 0.
        bias: b to begin with: the many negatives of the first steps then weigh little.
        same_text: Whether equal captions are positives of each other's images; otherwise negatives, as in the paper.

    Differs from the paper: the towers and the crop are those of `clip` here; the paper's are vision transformers.

    Relations: `clip` has a softmax over the batch in place of single answers.

    Example:
        >>> from nearfar import methods
        >>> method = methods.siglip(encoder="small", size=32, text="small", width=128)
    """
    image_net = encoders.build(encoder, channels=channels, size=size)
    text_net = build_text(text, vocabulary=vocabulary, length=length)
    return Method(
        views=Captioned(square_crop(size)),
        encoder=encoders.Towers(image=image_net, text=text_net),
        extract=Extract(head=heads(image_net, text_net, width), pair=partial(each_with_each, same_text=same_text)),
        similarity=similarity.cosine,
        loss=LearnedSigmoid(scale, bias=bias),
    )
