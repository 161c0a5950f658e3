"""CPC on images: rows of a grid of patches are predicted from the rows above.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, https://arxiv.org/abs/1807.03748.
Loss: eq. 4; score: eq. 3; images: section 3.2.
"""

from __future__ import annotations

import copy
from functools import partial

from torch import nn

from .. import encoders, similarity
from ..encoders.causal import Causal
from ..encoders.layer_norm import layer_norms
from ..encoders.patches import PatchGrid, grid_rows
from ..extract.predict import GridContexts, Predict
from ..losses import infonce
from ..method import Extract, Method
from ..views import View
from ..views.patch_views import PatchViews


def cpc(
    *,
    encoder: str | nn.Module = "cpc-resnet101",
    size: int = 256,
    channels: int = 3,
    patch: int | None = None,
    stride: int | None = None,
    first: int | None = None,
    steps: int | None = None,
    crop: int | None = None,
    grey: bool = True,
    hidden: int = 256,
) -> Method:
    """Tells the patch k rows below from all patches of the batch, by what is seen in its column's rows above.

        z = encoder(patch),  c_ij = context(rows 0 to i of z),  s_k(z' | c) = z' . W_k c
        loss = mean over k, then cells ij, of -log( exp s_k(z_i+k,j | c_ij) / sum over all z' of exp s_k(z' | c_ij) )

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module, which is copied. It sees patches, and its
            batch norms become layer norms: through batch norm one patch tells of another.
        size: Side of a view, pixels.
        channels: Channels of an image.
        patch: Side of a patch, pixels. None: a quarter of the view (64 of 256, 8 of 32), which makes 7 x 7 patches;
            8 at least.
        stride: From one patch to the next, pixels. None: half a patch.
        first: Nearest row that is predicted, >= 1. None: the first without a pixel in common, ceil(patch / stride).
        steps: Number of rows that are predicted. None: 5, or as many as the grid has.
        crop: Side of the window of a patch that is kept at a random place, the rest is zero. None: 15/16 of the patch,
            a pixel less at least.
        grey: Colours are left out, in training and in use.
        hidden: Channels inside the context network.

    Differs from the paper: the mean over steps, not the sum; every patch of the batch is compared; layer norm in the
    encoder where the paper has none; no weights of the context are masked, it is causal by shifted rows (as in v2).

    The paper's recipe: Adam, learning rate 2e-4, batch 128. Its representation is the mean of z over the grid.

    Relations: `cpc_v2` predicts in four directions from patches that are changed more.

    Example:
        >>> from nearfar import methods
        >>> method = methods.cpc(encoder="small", size=32, hidden=64)
    """
    patch = patch or max(size // 4, 8)
    stride, crop = stride or -(-patch // 2), crop or patch - max(round(patch / 16), 1)
    rows, first = grid_rows(size, patch, stride), first or -(-patch // stride)
    last = first + steps - 1 if steps else min(first + 4, rows - 1)
    net = layer_norms(encoders.build(copy.deepcopy(encoder), channels=channels, size=patch))
    share = (256 / 300) ** 2
    view = View(size=size, scale=(share, share), ratio=(1.0, 1.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    pair = Predict(width=net.width, context=net.width, steps=last, first=first, grid=(rows, rows))
    return Method(
        views=PatchViews(view=view, patch=patch, stride=stride, crop=crop),
        encoder=PatchGrid(net, patch=patch, stride=stride, crop=crop, grey=grey),
        extract=Extract(head=GridContexts([Causal(net.width, hidden=hidden)]), pair=pair),
        similarity=similarity.dot,
        loss=partial(infonce, temperature=1.0),
    )
