"""Encoders of text: a causal transformer over tokens, and the names under which methods know it.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, in the form of GPT-2 (Radford et al. 2019) that CLIP takes:
Radford et al., ICML 2021, https://arxiv.org/abs/2103.00020, section 2.4.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .transformer import Block, normal


class TextTransformer(nn.Module):
    """Tokens -> one vector a text: the last token's place, after the final layer norm.

        x_0 = token + position,    x_n = block_n(x_(n-1)),    feature = norm(x_last)[the last token that is not 0]

    Token 0 is padding and comes last, where no token before it looks: more of it changes nothing.

    Args:
        vocabulary: Number of tokens, padding included.
        length: Tokens of the longest text.
        width: Width of a place and of the feature.
        layers: Blocks.
        heads: Attention heads, a divisor of the width.

    Raises:
        UsageError: A number below 1, or heads that don't divide the width.

    Differs from the paper: the last token of the text stands for it, not an end marker; GELU, not its approximation
    `x * sigmoid(1.702 x)`, which is only in the released code.

    Example:
        >>> net = TextTransformer(vocabulary=257, length=16, width=32, layers=2, heads=2)
        >>> net(torch.tensor([[98, 99, 0], [33, 0, 0]]))[-1].shape
        torch.Size([2, 32])
    """

    def __init__(
        self, *, vocabulary: int, length: int = 77, width: int = 512, layers: int = 12, heads: int = 8
    ) -> None:
        super().__init__()
        if min(vocabulary - 1, length, width, layers, heads) < 1 or width % heads:
            raise UsageError(
                f"vocabulary {vocabulary}, length {length}, width {width}, {layers} layers, {heads} heads",
                where="TextTransformer",
                mend="1 or more of each, 2 tokens or more, and heads that divide the width",
            )
        self.width, self.length = width, length
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        blocks = (Block(width, heads=heads, causal=True) for _ in range(layers))
        self.blocks = nn.Sequential(*(normal(block, layers=layers) for block in blocks))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Tokens int64 `[B, L]` or `[B, 1, L]` -> `[feature [B, width]]`.

        Raises:
            UsageError: Several sentences a text, or more tokens than there are places.
        """
        tokens = one_sentence(tokens)
        if tokens.shape[1] > self.length:
            raise UsageError(
                f"a text of {tokens.shape[1]} tokens, and {self.length} places",
                where="text",
                mend=f"--length {tokens.shape[1]}",
            )
        x = self.blocks(self.tokens(tokens) + self.positions[: tokens.shape[1]])
        last = (torch.arange(tokens.shape[1], device=tokens.device) * (tokens != 0)).amax(1)
        return [self.norm(x[torch.arange(len(x), device=x.device), last])]

    def describe(self) -> str:
        """One line for people: depth, width, parameters."""
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"transformer of {len(self.blocks)} layers, width {self.width}, {millions:.1f} M parameters"


def one_sentence(tokens: Tensor) -> Tensor:
    """Tokens `[B, L]` or `[B, 1, L]` as `[B, L]`.

    Raises:
        UsageError: Several sentences a text.
    """
    if tokens.ndim == 3 and tokens.shape[1] == 1:
        return tokens[:, 0]
    if tokens.ndim != 2:
        raise UsageError(f"tokens of shape {list(tokens.shape)}", where="text", mend="one sentence a text, [B, 1, L]")
    return tokens


TEXT_ENCODERS: dict[str, Callable[..., TextTransformer]] = {
    "small": partial(TextTransformer, width=128, layers=4, heads=4),
    "clip": partial(TextTransformer, width=512, layers=12, heads=8),
}
"""Name -> function of `vocabulary` and `length`."""


def build_text(spec: str | nn.Module, *, vocabulary: int, length: int) -> nn.Module:
    """An encoder of text by name, or any module as one.

    Args:
        spec: Name in `TEXT_ENCODERS`; `hf:NAME` is a network of transformers, untrained, by the name of its
            configuration or a folder that holds one; a module is used as it is. It has `width`, and gives a list with
            one vector a text for tokens `[B, 1, L]`.
        vocabulary: Number of tokens, padding included.
        length: Tokens of the longest text.

    Raises:
        UsageError: An unknown name, or a module without `width`.
        DeviceError: transformers is missing.

    Example:
        >>> build_text("small", vocabulary=257, length=64).width
        128
    """
    if isinstance(spec, nn.Module):
        if not isinstance(getattr(spec, "width", None), int):
            raise UsageError(f"{type(spec).__name__} has no width", where="text", mend="an attribute `width: int`")
        return spec
    if spec.startswith("hf:"):
        from .hf_text import hf_text

        return hf_text(spec.removeprefix("hf:"), vocabulary=vocabulary, length=length)
    if spec not in TEXT_ENCODERS:
        near = difflib.get_close_matches(spec, TEXT_ENCODERS, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        names = ", ".join(TEXT_ENCODERS)
        raise UsageError(f"no encoder of text {spec!r}", where="text", mend=f"{meant}there are {names} and hf:NAME")
    return TEXT_ENCODERS[spec](vocabulary=vocabulary, length=length)
