"""YADIM: AMDIM's views and network, and of its comparisons only that of the last maps.

Falcon & Cho, A Framework For Contrastive Self-Supervised Learning, 2020, https://arxiv.org/abs/2009.00104. Specified
here from its abstract and notes on it; no code of it was released.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, similarity
from ..encoders.patches import PatchGrid
from ..extract.scales import LastMap, across_views
from ..losses import infonce
from ..losses.penalty import penalised
from ..method import Extract, Method
from ..views import Views
from .amdim import amdim_view


def yadim(
    *,
    encoder: str | nn.Module = "amdim",
    size: int = 128,
    channels: int = 3,
    width: int | None = None,
    pool: bool = False,
    patchify: bool = False,
    clip: float = 20.0,
    penalty: float | None = None,
    denominator: Literal["all", "negatives"] = "all",
    flip: float = 0.5,
) -> Method:
    """Tells from the last map of a view which one of the other view is of the same image.

        loss_i = -mean over p in P_i of log( exp s_ip / sum over j of exp s_ij )
        s_ij = c tanh( a_i . b_j / (c sqrt D) )

    a and b: embeddings of the two views; P_i: those of the same image, a single one where the last map is one vector.
    The mean of both orders of the two views.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module. The last map of AMDIM's networks is one vector
            an image; of another's last map every cell is compared with every cell.
        size: Side of a view, pixels; 32, 64 or 128 for AMDIM's networks.
        channels: Channels of an image.
        width: Width of an embedding; None: the encoder's.
        pool: One embedding a view in any case, the mean of the last map.
        patchify: The encoder sees CPC's overlapping patches, each a quarter of the view and 8 px at least, half a patch
            apart, and its last map is their grid. For encoders that take views so small, AMDIM's don't.
        clip: Largest score c; 0: the plain dot product `a_i . b_j`, as in the paper.
        penalty: Of the mean square of the scores before the clip, >= 0. None: 0.05 as `amdim`, with `clip=0` none.
        denominator: "all", or "negatives" as the paper prints it; this loss can be below 0.
        flip: Probability of mirroring.

    The five parts by what is known of the paper. Views: those of CPC and AMDIM one after the other (mirrored, moved or
    cropped, jitter, grey, normalised), drawn anew for each view, the flip too; CPC's patches by `patchify`. Encoder:
    AMDIM's. Extraction: the last maps alone. Similarity: the dot product. Loss: noise-contrastive.

    Differs from the paper: scores are divided by sqrt(D), clipped and penalised as AMDIM's, since dot products of a
    thousand normed values are in the hundreds; the positive is in the denominator; where the last map has several cells
    their logs are averaged. What AMDIM's view differs in, see `amdim`.

    Relations: `amdim` compares maps of three depths; with `extract.every_view`, cosines and a temperature, `simclr`.

    Example:
        >>> from nearfar import methods
        >>> method = methods.yadim(encoder="small", size=32, pool=True)
    """
    patch = max(size // 4, 8)
    net = encoders.build(encoder, channels=channels, size=patch if patchify else size)
    net = PatchGrid(net, patch=patch, stride=-(-patch // 2)) if patchify else net
    view, default = amdim_view(size, flip=flip), 0.05 if clip else 0.0
    contrast = partial(infonce, temperature=1.0, denominator=denominator)
    return Method(
        views=Views(view, view),
        encoder=net,
        extract=Extract(head=LastMap(net.width, width=width, pool=pool), pair=across_views),
        similarity=similarity.clipped_dot(clip) if clip else similarity.dot,
        loss=partial(penalised, loss=contrast, penalty=default if penalty is None else penalty),
    )
