"""AMDIM: the vector of a view finds the cells of the other view's maps.

Bachman, Hjelm & Buchwalter, Learning Representations by Maximizing Mutual Information Across Views, NeurIPS 2019,
https://arxiv.org/abs/1906.00910. Loss: section 3.2 and 3.4; network: section 3.5; numbers: its released code.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, similarity
from ..extract.scales import Scales, across_scales
from ..losses import infonce
from ..losses.penalty import penalised
from ..method import Extract, Method
from ..views import View, random_crop
from ..views.shared import SharedFlip


def amdim(
    *,
    encoder: str | nn.Module = "amdim",
    size: int = 128,
    channels: int = 3,
    scales: tuple[int, ...] | None = None,
    width: int | None = None,
    clip: float = 20.0,
    penalty: float = 0.05,
    denominator: Literal["own_and_negatives", "all", "negatives"] = "own_and_negatives",
    flip: float = 0.5,
) -> Method:
    """Tells from the vector of a view which cells of the other view's maps are of the same image.

        loss(a -> B) = mean over images i and cells l of -log( exp s_il / (exp s_il + sum over j != i, m of exp s_jm) )
        s_jm = c tanh( a_i . b_jm / (c sqrt D) )
        total = loss(1 -> 5) + loss(1 -> 7) + loss(5 -> 5) + 0.05 * mean square of each's scores before the clip

    1, 5 and 7 are the maps of so many cells to a side, of 5 -> 5 the source is one random cell an image; the mean of
    both orders of the two views.

    Args:
        encoder: "amdim", "amdim-small", or any other that has maps.
        size: Side of a view, pixels; 32, 64 or 128 for AMDIM's networks.
        channels: Channels of an image.
        scales: Sides of the maps whose cells are compared, in cells, the source of the third term first. None: 5, 7, or
            where the encoder hasn't these its two deepest.
        width: Width of an embedding; None: the encoder's.
        clip: Largest score c, > 0.
        penalty: Of the mean square of the scores before the clip, >= 0.
        denominator: See `losses.infonce`; "negatives" is what Falcon & Cho 2020 print.
        flip: Probability of mirroring, which both views share.

    Adam at 2e-4 and weight decay 1e-5 in its code: `--optimizer adamw`. One GPU bears large batches with `--chunk`.

    Differs from the released code: views are resampled bilinearly, not bicubically; both views share the statistics of
    a norm, which at the end is part of the head, not of the encoder; its latest state has a penalty of 0.04; AdamW's
    betas are 0.9, 0.999.

    Relations: `yadim` compares the last maps alone; with every cell as a negative of every other, `simclr`.

    Example:
        >>> from nearfar import methods
        >>> method = methods.amdim(encoder="small", size=32)  # compares its maps of 4 and 8 cells to a side
    """
    net = encoders.build(encoder, channels=channels, size=size)
    head = Scales(net, channels=channels, size=size, sides=scales, width=width)
    view = amdim_view(size, flip=flip)
    return Method(
        views=SharedFlip(view, view),
        encoder=net,
        extract=Extract(head=head, pair=partial(across_scales, cells=head.cells)),
        similarity=similarity.clipped_dot(clip),
        loss=partial(penalised, loss=partial(infonce, temperature=1.0, denominator=denominator), penalty=penalty),
    )


def amdim_view(size: int, *, flip: float) -> View:
    """AMDIM's view: below 64 pixels (CIFAR) mostly moved by up to an eighth, otherwise a crop; jitter, grey."""
    hue = 0.1 if size >= 128 else 0.2
    colours = {"jitter": (0.4, 0.4, 0.4, hue), "jitter_p": 0.8, "grey_p": 0.25, "blur_p": 0.0, "flip": flip}
    if size < 64:
        return random_crop(size, pad=1 / 8, reflect=True, crop_p=0.8, **colours)
    return View(size=size, scale=(0.3, 1.0), ratio=(0.7, 1.4), **colours)
