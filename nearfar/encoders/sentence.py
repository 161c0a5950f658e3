"""Encoders of sentences: a convolution over the words of each, their mean, then a context over the sentences.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, section 3.3,
https://arxiv.org/abs/1807.03748.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .recurrent import Recurrent


class SentenceCells(nn.Module):
    """Tokens `[B, S, L]` -> (z `[B, S, width]`, valid `[B, S]` bool), each sentence by itself.

        z_s = mean over the tokens t of sentence s of ReLU( (w * e)_t ),    e_t = embedding of token t

    Token 0 is padding: its embedding is zero and stays so, it is no part of the mean, and a sentence of nothing else is
    not valid and has z = 0. So more of it changes nothing.

    Args:
        vocabulary: Number of tokens, padding included, >= 2.
        width: Width of z.
        embedding: Width of a token.
        kernel: Tokens that the convolution sees at once, odd.

    Raises:
        UsageError: An argument out of its range.

    Example:
        >>> z, valid = SentenceCells(vocabulary=257, width=8, embedding=4)(torch.tensor([[[5, 7, 0], [0, 0, 0]]]))
        >>> z.shape, valid.tolist()
        (torch.Size([1, 2, 8]), [[True, False]])
    """

    def __init__(self, *, vocabulary: int, width: int = 2400, embedding: int = 620, kernel: int = 5) -> None:
        super().__init__()
        if min(vocabulary - 1, width, embedding, kernel) < 1 or kernel % 2 == 0:
            raise UsageError(
                f"vocabulary {vocabulary}, width {width}, embedding {embedding}, kernel {kernel}",
                where="SentenceCells",
                mend="2 tokens or more, widths of 1 or more, an odd kernel",
            )
        self.width, self.vocabulary = width, vocabulary
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=0)
        self.convolution = nn.Conv1d(embedding, width, kernel, padding=kernel // 2)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """z of each sentence, and which are there."""
        if view.ndim != 3 or view.is_floating_point():
            raise UsageError(
                f"a view of text is whole numbers [B, S, L], got {view.dtype} {list(view.shape)}",
                where="encoder",
                mend="views.text.sentences; for images another encoder",
            )
        valid = (view != 0).any(2)
        tokens = view[valid]  # [n, L]: what is padding altogether costs nothing
        there = (tokens != 0)[:, None]
        found = F.relu(self.convolution(self.embedding(tokens).mT))
        found = found if found.dtype == torch.float64 else found.float()
        z = found.new_zeros(*valid.shape, self.width)
        z[valid] = (found * there).sum(2) / there.sum(2)
        return z, valid

    def describe(self) -> str:
        """In words."""
        return (
            f"{self.vocabulary:,} tokens of width {self.embedding.embedding_dim}, "
            f"convolution over {self.convolution.kernel_size[0]}, mean of width {self.width}"
        )


def sentence_encoder(*, vocabulary: int, width: int, embedding: int, context: int, kernel: int = 5) -> Recurrent:
    """Sentences and a GRU over them.

    Args:
        vocabulary: Number of tokens, padding included.
        width: Width of a sentence.
        embedding: Width of a token.
        context: Width of the GRU.
        kernel: Tokens that the convolution sees at once, odd.
    """
    cells = SentenceCells(vocabulary=vocabulary, width=width, embedding=embedding, kernel=kernel)
    return Recurrent(cells, width=width, context=context)


SENTENCE_ENCODERS: dict[str, Callable[..., Recurrent]] = {
    "sentence": partial(sentence_encoder, width=2400, embedding=620, context=2400),
    "sentence-small": partial(sentence_encoder, width=256, embedding=128, context=256),
}
"""Name -> function of `vocabulary`. `sentence` has the paper's widths (620 is a choice); `small`: minutes on a CPU."""


def build_sentences(spec: str | nn.Module, *, vocabulary: int) -> Recurrent:
    """An encoder of sentences by name, or a `Recurrent` over cells of text, as it is.

    Raises:
        UsageError: An unknown name, or an encoder of something else.
    """
    if isinstance(spec, Recurrent):
        return spec
    if isinstance(spec, nn.Module) or spec not in SENTENCE_ENCODERS:
        near = difflib.get_close_matches(str(spec), SENTENCE_ENCODERS, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        found = type(spec).__name__ if isinstance(spec, nn.Module) else repr(spec)
        raise UsageError(
            f"{found} is no encoder of sentences",
            where="encoder",
            mend=f"{meant}there are {', '.join(SENTENCE_ENCODERS)}, and any Recurrent over cells of text",
        )
    return SENTENCE_ENCODERS[spec](vocabulary=vocabulary)
