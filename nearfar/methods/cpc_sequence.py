"""CPC on sequences of observations: the steps ahead are predicted from those so far.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, https://arxiv.org/abs/1807.03748.
Loss: eq. 4; score: eq. 3; observations of agents: section 3.4.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor

from .. import similarity
from ..encoders.observations import Observations
from ..encoders.recurrent import KINDS, Kind, Recurrent, Representation
from ..errors import UsageError
from ..extract.predict import Predict, ZAndContext
from ..losses import infonce
from ..method import Extract, Method
from ..views.sequences import Windows


def cpc_sequence(
    *,
    encoder: str | Recurrent = "gru",
    size: int = 64,
    channels: int | tuple[int, ...] = 1,
    steps: int = 8,
    first: int = 1,
    width: int = 64,
    context: int = 128,
    representation: Representation | None = None,
) -> Method:
    """Tells the step k ahead from all steps of the batch, by what has been seen up to now.

        z_t = cells(x_t),  c_t = g(z_1 ... z_t),  s_k(z' | c) = z' . W_k c
        loss = mean over k, then steps t, of -log( exp s_k(z_t+k | c_t) / sum over all z' of exp s_k(z' | c_t) )

    Args:
        encoder: The recurrence, "gru" or "lstm", or an `encoders.recurrent.Recurrent` of your own.
        size: Steps of a window; shorter sequences take part as far as they go.
        channels: Numbers in an observation, or its shape `(C, h, w)` where it is a picture.
        steps: Farthest step that is predicted.
        first: Nearest step that is predicted, >= 1. Observations of m stacked frames have frames in common with the
            next m - 1, so m is the least that makes sense.
        width: Width of z.
        context: Width of c.
        representation: What `evaluate` and `embed` see of a sample; the loss is the same. "context": the mean of its
            contexts; "cells": that of its z; "last": its last context. None: as the encoder has it, "context" by name.

    Differs from the paper: there it helps an agent's own objective (`examples/rl_auxiliary.py` does that); here it
    stands alone. The mean over steps, not the sum; every step of the batch is compared, without drawing some.

    Relations: `cpc` predicts rows of a grid of patches.

    Example:
        >>> from nearfar import methods
        >>> method = methods.cpc_sequence(channels=6, size=32)
    """
    if not 1 <= first <= steps < size:
        raise UsageError(
            f"steps {first} to {steps} ahead in windows of {size}",
            where="steps",
            mend="first >= 1, steps >= first, and a window (size) longer than steps",
        )
    net = _net(encoder, channels, width, context)
    pair = Predict(
        width=net.cell_width, context=net.context_width, steps=steps, first=first, valid=partial(_seen, most=size)
    )
    return Method(
        views=Windows(size),
        encoder=net.represented(representation),
        extract=Extract(head=ZAndContext(), pair=pair),
        similarity=similarity.dot,
        loss=partial(infonce, temperature=1.0),
    )


def _net(encoder: str | Recurrent, channels: int | tuple[int, ...], width: int, context: int) -> Recurrent:
    if isinstance(encoder, Recurrent):
        return encoder
    if encoder not in KINDS:
        raise UsageError(f"no encoder {encoder!r} for sequences", where="encoder", mend=f"one of {', '.join(KINDS)}")
    return Recurrent(Observations(channels, width=width), width=width, context=context, kind=cast(Kind, encoder))


def _seen(sizes: Tensor, *, most: int) -> Tensor:
    """Steps of each window that are not padding."""
    return sizes[:, 0].clamp_max(most)
