"""A context that looks upwards: convolutions whose row i sees rows 0 to i.

van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016, https://arxiv.org/abs/1606.05328, as CPC
uses it: Henaff et al., ICML 2020, appendix A, https://arxiv.org/abs/1905.09272.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CausalBlock(nn.Module):
    """`x + 1x1(relu(2x1(1x3(relu(1x1(x))))))`: the 1x3 sees the row, the 2x1 this one and that above.

    A row of zeros is above the first.

    Args:
        width: Channels of the input and the output.
        hidden: Channels inside.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, hidden, 1)
        self.across = nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(hidden, hidden, (2, 1))
        self.widen = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, h, w]` -> the same shape."""
        inside = self.across(F.relu(self.narrow(x)))
        inside = self.down(F.pad(inside, (0, 0, 1, 0)))
        return x + self.widen(F.relu(inside))


class Causal(nn.Module):
    """Blocks one after the other, then ReLU: `[B, width, h, w]` -> the same shape, row i from rows `i - blocks` to i.

    Args:
        width: Channels of a cell.
        hidden: Channels inside the blocks.
        blocks: Number of blocks, >= 1.
    """

    def __init__(self, width: int, *, hidden: int = 256, blocks: int = 5) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.Sequential(*(CausalBlock(width, hidden) for _ in range(blocks)))

    def forward(self, z: Tensor) -> Tensor:
        """Context of every cell."""
        return F.relu(self.blocks(z))
