"""MAE: three quarters of an image are hidden, and their pixels told from the rest. Nothing is contrasted.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, https://arxiv.org/abs/2111.06377, section 3.
Settings: appendix A.1 and released code, https://github.com/facebookresearch/mae.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from .. import encoders, extract, similarity
from ..encoders.vit import ViT
from ..errors import UsageError
from ..losses import attract
from ..method import Extract, Method, Teacher
from ..views import Masked, View

HEAD = 32  # width of an attention head of the decoder


def mae(
    *,
    encoder: str | nn.Module = "vit-base",
    size: int = 224,
    channels: int = 3,
    masked: float = 0.75,
    layers: int | None = None,
    width: int | None = None,
) -> Method:
    """Tells the pixels of hidden patches from the patches that are seen.

        loss = mean over hidden patches i and their n values of (d_i - x_i)^2

    d: what the decoder says of the encoder's states of the visible patches. x: the pixels of the patch, less their
    mean, over their standard deviation.

    Args:
        encoder: Name of a ViT in `encoders.ENCODERS`, or a `ViT`.
        size: Side of a view, pixels.
        channels: Channels of an image.
        masked: Share of the patches that is hidden, in (0, 1).
        layers: Blocks of the decoder; None: 8, below 64 px 2.
        width: Of the decoder, a multiple of 32, the width of its attention heads; None: 512, below 64 px 128.

    For 32 px: `encoder="vit-mini"`, patches of 4 px, so that 16 of 64 are seen. The paper's optimiser is AdamW,
    `--lr 0.00015 --weight-decay 0.05` for batches of 4096 and 800 epochs or more. Few images need small batches, for
    many steps: on 4,750 digits (`--batch 64 --lr 0.008`) the loss left that of saying nothing after some 500 steps.
    Differs from the paper: no class token, the representation is the mean over the patches; AdamW's second beta is
    0.999, not 0.95; views are resampled bilinearly.

    Relations: the target comes from the image itself, as in no other method here; `byol` predicts what a network says
    of another view, and hides nothing.

    Example:
        >>> from nearfar import methods
        >>> method = methods.mae(encoder="vit-mini", size=32)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    if not isinstance(net, ViT):
        raise UsageError(
            f"{getattr(net, 'name', type(net).__name__)} can't leave out the patches that are hidden",
            where="encoder",
            mend="a ViT: vit-mini, vit-tiny, vit-small or vit-base",
        )
    pixels, small = channels * net.patch**2, size < 64
    width = (128 if small else 512) if width is None else width
    layers = (2 if small else 8) if layers is None else layers
    view = View(size=size, scale=(0.2, 1.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    return Method(
        views=Masked(view=view, patch=net.patch, share=masked),
        encoder=net,
        extract=Extract(
            head=extract.PatchDecoder(net.width, pixels, width=width, layers=layers, heads=max(width // HEAD, 1)),
            pair=partial(extract.hidden_pixels, share=masked),
            views=(0,),
        ),
        similarity=similarity.negative_distance,
        loss=partial(attract, best=0.0, scale=1 / pixels),
        teacher=Teacher(net=(extract.PatchPixels(net.patch), extract.Cells()), views=(1,)),
    )
