"""DCL: SimCLR with the positive left out of the sum that it is compared with.

Yeh et al., Decoupled Contrastive Learning, ECCV 2022, https://arxiv.org/abs/2110.06848.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import nn

from .. import extract
from ..losses import infonce, reweighted
from ..method import Method
from .simclr import simclr


def dcl(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int = 3,
    strength: float | None = None,
    hidden: tuple[int, ...] = (2048,),
    width: int = 128,
    temperature: float = 0.1,
    sigma: float | None = None,
) -> Method:
    """Pulls two views of an image together, pushes all other images of the batch away, neither slowing the other.

        loss_i = -w_i s_ip / t + log( sum over the negatives of exp(s_in / t) ),  s cosine, p the other view of i

    In `simclr` an easy positive takes the gradient off the negatives, the more so the smaller the batch. This loss
    has no such factor, and no lower end: it can be below 0.

    Args:
        encoder: Name in `encoders.ENCODERS`, `timm:NAME`, or a module.
        size: Side of a view, pixels.
        channels: Channels of an image.
        strength: Strength of the colour jitter, as in `simclr`.
        hidden: Widths of the hidden layers of the head.
        width: Width of the embedding that is compared.
        temperature: Divides the cosine, > 0.
        sigma: None: w is 1, DCL. A number > 0, 0.5 in released code: DCLW, where far positives weigh more,
            `w_i = 2 - exp(s_ip / sigma) / mean over k of exp(s_kp / sigma)`.

    Differs from the paper: what `simclr` differs in; the weights w carry no gradient.

    Relations: `simclr` in all but the loss, which is `infonce` with `denominator="negatives"`.

    Example:
        >>> from nearfar import methods
        >>> method = methods.dcl(encoder="small", size=32, sigma=0.5)
    """
    base = simclr(
        encoder=encoder, size=size, channels=channels, strength=strength, hidden=hidden, width=width,
        temperature=temperature,
    )  # fmt: skip
    contrast = partial(infonce, temperature=temperature, denominator="negatives")
    if sigma is None:
        return replace(base, loss=contrast)
    return replace(
        base,
        extract=replace(base.extract, pair=extract.every_and_own_view),
        loss=(contrast, partial(reweighted, sigma=sigma, temperature=temperature)),
    )
