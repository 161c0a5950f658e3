"""CLIP: images and their captions, each kind through a tower of its own, meet in one space.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
https://arxiv.org/abs/2103.00020. Loss: figure 3.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..encoders.text_transformer import build_text
from ..extract.captions import both_ways
from ..losses.learned import LearnedTemperature
from ..method import Extract, Method
from ..views import View
from ..views.captioned import Captioned


def clip(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    vocabulary: int = 257,
    text: str | nn.Module = "small",
    length: int = 77,
    width: int = 512,
    temperature: float = 0.07,
    same_text: bool = False,
) -> Method:
    """Matches each image with its caption among those of the batch, and each caption with its image.

        loss = 1/2 mean over images i of -log( exp(t <x_i, y_i>) / sum over j of exp(t <x_i, y_j>) ) + 1/2 the same from
        the captions,    x, y unit embeddings,    t = min(exp(learned), 100)

    Args:
        encoder: Of images: name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        vocabulary: Number of tokens, padding included.
        text: Encoder of text: "small" (4 layers, 128 wide, for a few thousand captions), "clip" (12 layers, 512 wide,
            the paper's), `hf:NAME` for a network of transformers, or a module.
        length: Tokens of the longest caption.
        width: Of the common space.
        temperature: 1 / t to begin with, from 0.01 on.
        same_text: Whether equal captions are positives of each other's images; otherwise negatives, as in the paper.

    Differs from the paper: `text`; images are averaged over their cells, not pooled by attention. The only augmentation
    is the place of the largest square, which in square images is none: a small data set needs `--view-scale 0.5,1` or
    more. Captions made of class names are a weak stand-in for captions.

    Relations: `siglip` tells each pair by itself; `simclr` is the same loss between two views of an image.

    Example:
        >>> from nearfar import methods
        >>> method = methods.clip(encoder="small", size=32, text="small", width=128)
    """
    image_net = encoders.build(encoder, channels=channels, size=size)
    text_net = build_text(text, vocabulary=vocabulary, length=length)
    return Method(
        views=Captioned(square_crop(size)),
        encoder=encoders.Towers(image=image_net, text=text_net),
        extract=Extract(head=heads(image_net, text_net, width), pair=partial(both_ways, same_text=same_text)),
        similarity=similarity.cosine,
        loss=LearnedTemperature(temperature),
    )


def square_crop(size: int) -> View:
    """The largest square at a random place; not mirrored, for captions tell left from right."""
    return View(size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, grey_p=0.0, blur_p=0.0)


def heads(image: nn.Module, text: nn.Module, width: int) -> encoders.Towers:
    """A linear layer without bias for each tower, into the common space."""
    layers = [nn.Linear(int(net.width), width, bias=False) for net in (image, text)]  # pyright: ignore[reportArgumentType]
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return encoders.Towers(image=extract.Head(layers[0]), text=extract.Head(layers[1]))
