"""CPC v2: patches are predicted in four directions, and every patch is changed by itself.

Henaff et al., Data-Efficient Image Recognition with Contrastive Predictive Coding, ICML 2020,
https://arxiv.org/abs/1905.09272. Loss: eq. 1; architecture and pseudo-code: appendix A.
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


def cpc_v2(
    *,
    encoder: str | nn.Module = "cpc-resnet161",
    size: int = 260,
    channels: int = 3,
    patch: int | None = None,
    stride: int | None = None,
    first: int | None = None,
    steps: int | None = None,
    directions: int = 4,
    target: int = 64,
    temperature: float = 10.0,
    hidden: int = 256,
) -> Method:
    """Tells patches ahead, in each of four directions, from all patches of the batch.

        s_dk(z' | c) = (A_d z') . (W_dk c_d) / t,    c_d of a cell = context_d(the rows up to its own, d quarter turns)
        loss = mean over d, k and cells of -log( exp s_dk(z k rows on | c_d) / sum over all z' of exp s_dk(z' | c_d) )

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module, which is copied. It sees patches, and its
            batch norms become layer norms: through batch norm one patch tells of another.
        size: Side of a view, pixels.
        channels: Channels of an image.
        patch: Side of a patch, pixels. None: 80/260 of the view; up to 64 px a quarter of it, 8 at least.
        stride: From one patch to the next, pixels. None: the largest with six patches to a side, 36 at 260 px; up to
            64 px half a patch.
        first: Nearest row that is predicted, >= 1. None: the first without a pixel in common, ceil(patch / stride).
        steps: Number of rows that are predicted. None: 3, or as many as the grid has. The paper's pseudo-code predicts
            one, its text several.
        directions: Directions, 1 to 4.
        target: Width of targets and predictions.
        temperature: Divides the scores, > 0; the paper multiplies the predictions by 0.1.
        hidden: Channels inside the context networks.

    Differs from the paper: the mean over steps and directions, not the sum; of the changes to a patch the colours
    (brightness, contrast, saturation, hue, grey), not AutoAugment, elastic and histogram operations; A and W have no
    bias. Small images: patches of 8 px every 4 px in 32 px, the first step is then 2.

    The paper's recipe: Adam, learning rate 4e-4, beta 0.8 and 0.999, batch 512, 200 epochs, weights averaged.

    Relations: `cpc` predicts downwards alone, from grey patches.

    Example:
        >>> from nearfar import methods
        >>> method = methods.cpc_v2(encoder="small", size=32, hidden=64, directions=1)
    """
    small = size <= 64
    patch = patch or (max(size // 4, 8) if small else round(size * 80 / 260))
    stride = stride or (-(-patch // 2) if small else max((size - patch) // 5, 1))
    rows, first = grid_rows(size, patch, stride), first or -(-patch // stride)
    last = first + steps - 1 if steps else min(first + 2, rows - 1)
    net = layer_norms(encoders.build(copy.deepcopy(encoder), channels=channels, size=patch))
    share = (260 / 300) ** 2
    view = View(
        size=size, scale=(share, share), ratio=(1.0, 1.0), jitter=(0.125, 0.5, 0.5, 0.2), grey_p=0.25, blur_p=0.0
    )
    contexts = [Causal(net.width, hidden=hidden) for _ in range(directions)]
    pair = Predict(
        width=net.width, context=net.width, steps=last, first=first, grid=(rows, rows),
        directions=directions, target=target,
    )  # fmt: skip
    return Method(
        views=PatchViews(view=view, patch=patch, stride=stride),
        encoder=PatchGrid(net, patch=patch, stride=stride),
        extract=Extract(head=GridContexts(contexts), pair=pair),
        similarity=similarity.dot,
        loss=partial(infonce, temperature=temperature),
    )
