"""CPC on text: the sentences that follow are told from others by those so far.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, https://arxiv.org/abs/1807.03748.
Loss: eq. 4; score: eq. 3; text: section 3.3.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .. import similarity
from ..encoders.recurrent import Representation
from ..encoders.sentence import build_sentences
from ..errors import UsageError
from ..extract.predict import Predict, ZAndContext
from ..losses import infonce
from ..method import Extract, Method
from ..views.text import sentences as tokens_of_sentences


def cpc_text(
    *,
    encoder: str | nn.Module = "sentence",
    size: int = 64,
    vocabulary: int = 257,
    sentences: int = 8,
    steps: int = 3,
    representation: Representation | None = None,
) -> Method:
    """Tells the sentence k ahead from all other sentences of the batch, by a GRU over the sentences so far.

        z_s = mean over tokens of ReLU(convolution),  c_s = GRU(z_1 ... z_s),  s_k(z' | c) = z' . W_k c
        loss = mean over k, then s, of -log( exp s_k(z_s+k | c_s) / sum over all z' of exp s_k(z' | c_s) )

    Args:
        encoder: Name in `encoders.sentence.SENTENCE_ENCODERS` (`sentence`, `sentence-small`), or a `Recurrent` over
            cells that take tokens `[B, S, L]`.
        size: Tokens of a sentence at most; the data are cut there.
        vocabulary: Number of tokens, padding included; 257 for bytes.
        sentences: Sentences of a sample, which follow each other in a document; the data are read so.
        steps: Sentences ahead that are predicted, 1 to so many.
        representation: What `evaluate` and `embed` see of a sample; the loss is the same. "context": the mean of its
            contexts; "cells": that of its z; "last": its last context. None: as the encoder has it, "context" by name.

    Differs from the paper: no vocabulary of another model is mapped in; every sentence of the batch is compared, those
    of the same document too; the mean over steps, not the sum.

    Raises:
        UsageError: No more sentences than steps, or an encoder of something else.

    Relations: `cpc_audio` predicts frames of sound, `cpc_sequence` steps of an environment, `cpc` rows of patches.

    Example:
        >>> method = cpc_text(encoder="sentence-small", sentences=4)
        >>> type(method.encoder).__name__
        'Recurrent'
    """
    if size < 1 or sentences <= steps:
        raise UsageError(
            f"{steps} steps in {sentences} sentences of {size} tokens",
            where="sentences",
            mend=f"sentences {steps + 1} or more, or fewer steps; sizes of 1 or more",
        )
    net = build_sentences(encoder, vocabulary=vocabulary)
    pair = Predict(width=net.cell_width, context=net.context_width, steps=steps, valid=count_sentences)
    return Method(
        views=tokens_of_sentences,
        encoder=net.represented(representation),
        extract=Extract(head=ZAndContext(), pair=pair),
        similarity=similarity.dot,
        loss=partial(infonce, temperature=1.0),
    )


def count_sentences(sizes: Tensor) -> Tensor:
    """How many sentences each sample has, from their tokens: int `[B, S]` -> `[B]`."""
    return (sizes > 0).sum(1)
