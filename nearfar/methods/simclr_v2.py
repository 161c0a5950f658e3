"""SimCLR v2: a deeper head, the first layer of which is kept when labels come.

Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020,
https://arxiv.org/abs/2006.10029. Head: section 2, "self-supervised pretraining". The loss is SimCLR's, eq. 1.
"""

from __future__ import annotations

from torch import nn

from .. import encoders
from ..errors import UsageError
from ..method import Method
from .simclr import simclr


def simclr_v2(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    strength: float | None = None,
    depth: int = 3,
    width: int = 128,
    temperature: float | None = None,
) -> Method:
    """SimCLR with a head of three layers, whose hidden ones are as wide as the encoder.

        loss_i = -log( exp(s_ip / t) / sum over k != i of exp(s_ik / t) ),  s cosine, p the other view of i

    Each hidden layer is linear, batch norm, ReLU. `finetune` goes on from the middle of this head, `distil` brings the
    result into a smaller network.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module. The paper's large ones have selective kernels.
        size: Side of a view, pixels.
        channels: Channels of an image.
        strength: Strength of the colour jitter, >= 0; 0 leaves colours alone. None: 1; below 64 px 0.5. Below 64 px
            there is no blur.
        depth: Layers of the head, >= 1; SimCLR has 2.
        width: Width of the embedding that is compared.
        temperature: Divides the cosine, > 0. None: 0.1; below 64 px 0.5.

    The paper's recipe: `--optimizer lars --lr 0.4 --batch 4096 --weight-decay 1e-4 --epochs 800 --warmup-epochs 40`
    (its learning rate of 0.1 sqrt(4096) = 6.4 is 0.4 for 256).

    Differs from the paper: views are resampled bilinearly, not bicubically, and pixels are normalised. The loss is the
    mean over the 2N anchors; the released code adds the two half-losses, twice that. The variant with a memory of
    embeddings is left out.

    Relations: `simclr` is this with `depth=2`, but for the width of its hidden layer; `moco` has a memory.

    Raises:
        UsageError: `depth` is below 1.

    Example:
        >>> from nearfar import methods
        >>> head = methods.simclr_v2(encoder="small", size=32).extract.head
        >>> [layer.out_features for layer in head.layers[::3]]
        [256, 256, 128]
    """
    if depth < 1:
        raise UsageError(f"a head of {depth} layers", where="depth", mend="--depth 3, or any number from 1 on")
    net = encoders.build(encoder, channels=channels, size=size)
    return simclr(
        encoder=net,
        size=size,
        channels=channels,
        strength=strength,
        hidden=(net.width,) * (depth - 1),
        width=width,
        temperature=temperature,
    )
