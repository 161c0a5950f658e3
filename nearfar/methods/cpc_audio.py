"""CPC on sound: frames that are to come are told from others by what was heard so far.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, https://arxiv.org/abs/1807.03748.
Loss: eq. 4; score: eq. 3; sound: section 3.1.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, similarity
from ..encoders.recurrent import Recurrent, Representation
from ..encoders.sound import SoundCells
from ..errors import UsageError
from ..extract.predict import Predict, ZAndContext
from ..losses import infonce
from ..method import Extract, Method
from ..views.sound import SoundWindows

Negatives = Literal["batch", "label", "sample"]
WITHIN: dict[str, Literal["sample", "label"] | None] = {"batch": None, "label": "label", "sample": "sample"}
"""What `extract.predict.Predict` calls them."""


def cpc_audio(
    *,
    encoder: str | nn.Module = "sound",
    size: int = 20480,
    channels: int = 1,
    first: int = 1,
    steps: int = 12,
    negatives: Negatives = "batch",
    gain: float = 0.0,
    representation: Representation | None = None,
) -> Method:
    """Tells the frame k steps ahead from other frames of the batch, by a GRU over the frames so far.

        z_t = convolutions(samples around t),  c_t = GRU(z_1 ... z_t),  s_k(z' | c) = z' . W_k c
        loss = mean over k, then t, of -log( exp s_k(z_t+k | c_t) / sum over all z' of exp s_k(z' | c_t) )

    Args:
        encoder: Name in `encoders.ENCODERS` (`sound`, `sound-8k`, `sound-small`, `sound-8k-small`), or a `Recurrent`
            over `SoundCells`.
        size: Samples of a window. The paper's 20,480 are 1.28 s at 16 kHz; at 8 kHz 10,240 are as long.
        channels: Of the sound: 1.
        first: Nearest frame ahead that is predicted, >= 1. A frame sees more samples than lie between two, 465 and 160
            of `sound`; from 3 on, `ceil(465 / 160)`, a target shares no sample with the frames that it is told from.
        steps: Furthest frame ahead that is predicted; 12 of 10 ms.
        negatives: Frames that the right one is told from: "batch": all of the batch; "label": those of the same label,
            for data with the speaker as label (batches are shuffled whole: of many speakers most are alone in theirs,
            and have the frames of their own window); "sample": those of the same window.
        gain: Windows are made louder or softer by up to so many decibels.
        representation: What `evaluate` and `embed` see of a sample; the loss is the same. "context": the mean of its
            contexts; "cells": that of its z; "last": its last context. None: as the encoder has it, "context" by name.

    Differs from the paper: see `encoders.sound.SoundCells`; every frame of the batch is compared, the paper draws some;
    the mean over steps, not the sum.

    The paper's recipe: Adam, learning rate 2e-4, 64 windows a batch.

    Raises:
        UsageError: A window with no more frames than steps, or an encoder of something else.

    Relations: `cpc` predicts rows of patches of an image.

    Example:
        >>> from nearfar import methods
        >>> method = methods.cpc_audio(encoder="sound-8k-small", size=4096)
    """
    net = encoders.build(encoder, channels=channels, size=size)
    if not isinstance(net, Recurrent) or not isinstance(net.cells, SoundCells):
        raise UsageError(f"{encoder!r} is no encoder of sound", where="encoder", mend="for example sound-small")
    frames = net.cells.frames
    if (found := frames.count(size)) <= steps:
        raise UsageError(
            f"a window of {size} samples has {found} frames, {steps} steps are to be predicted",
            where="size",
            mend=f"{frames.receptive_field + steps * frames.hop} samples or more, or fewer steps",
        )
    if negatives not in WITHIN:
        raise UsageError(f"negatives {negatives!r}", where="negatives", mend=f"one of {', '.join(WITHIN)}")
    pair = Predict(
        width=net.cell_width,
        context=net.context_width,
        first=first,
        steps=steps,
        valid=frames.valid,
        within=WITHIN[negatives],
    )
    return Method(
        views=SoundWindows(size, gain=gain),
        encoder=net.represented(representation),
        extract=Extract(head=ZAndContext(), pair=pair, labels=negatives == "label"),
        similarity=similarity.dot,
        loss=partial(infonce, temperature=1.0),
    )
