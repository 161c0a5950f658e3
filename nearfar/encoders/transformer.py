"""The block that transformers of text and of images are made of, and two ways in which its weights begin.

Vaswani et al., Attention Is All You Need, NeurIPS 2017, https://arxiv.org/abs/1706.03762, with the norms before each
branch, as in GPT-2 (Radford et al. 2019) and ViT (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`.

    Args:
        width: Width of a place.
        heads: Attention heads, a divisor of the width.
        causal: True: a place attends to itself and to what is before it. False: to all places.
    """

    def __init__(self, width: int, *, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.query_key_value, self.mix, self.widen, self.narrow):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, width]` -> the same shape."""
        qkv = self.query_key_value(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # [3, B, heads, L, width / heads]
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.mix(seen.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norm_mlp(x))))


def normal(block: Block, *, layers: int) -> Block:
    """Normal weights, as in CLIP: the last layers of each branch begin the smaller the more blocks there are.

    So the sum of all branches begins as large as one.

    Args:
        block: Changed in place.
        layers: Number of blocks in the transformer.
    """
    width = block.mix.in_features
    deep = (2 * layers * width) ** -0.5
    for layer, std in ((block.query_key_value, width**-0.5), (block.mix, deep), (block.narrow, deep)):
        nn.init.normal_(layer.weight, std=std)
    nn.init.normal_(block.widen.weight, std=(2 * width) ** -0.5)
    return block


def xavier(block: Block) -> Block:
    """Uniform weights in `+-sqrt(6 / (inputs + outputs))`, query, key and value each as a matrix of its own.

    Source: Glorot & Bengio, AISTATS 2010, eq. 16; three matrices: Chen, Xie & He, MoCo v3, 2021,
    https://arxiv.org/abs/2104.02057.
    """
    for matrix in block.query_key_value.weight.detach().chunk(3):
        nn.init.xavier_uniform_(matrix)
    for layer in (block.mix, block.widen, block.narrow):
        nn.init.xavier_uniform_(layer.weight)
    return block
