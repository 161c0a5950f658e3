"""The four convolutions that few-shot learning is measured with since its beginning.

Vinyals et al., Matching Networks, NeurIPS 2016, https://arxiv.org/abs/1606.04080, section 4.1; Snell, Swersky & Zemel,
Prototypical Networks, NeurIPS 2017, https://arxiv.org/abs/1703.05175, section 3.1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .norm import BatchNorm
from .resnet import convolution

WIDTH, BLOCKS = 64, 4


class Conv4(nn.Module):
    """View `[B, channels, size, size]` -> the maps of four blocks of 64 channels, `pool(relu(norm(3x3(x))))` each.

    Flattened (as in both papers), every block halves the side, rounded down, and the list ends with a vector of all
    values of the last map: of width 64 at 28 px, 256 at 32 px, 1600 at 84 px. Pooled (as in RFS,
    https://arxiv.org/abs/2003.11539), the fourth block keeps the side and the width is 64 at any size.

    Args:
        flat: True: flattened.
        channels: Channels of a view.
        size: Side of a view, pixels, >= 16 (pooled: >= 8). A flattened network runs on views of other sizes too, but
            its vectors then have another width.
        factor: Multiplies the channels of all layers.

    Raises:
        UsageError: Views too small.

    Convolutions have no bias, for the norm behind takes it away again; among the paper codes some have one.
    """

    def __init__(self, flat: bool, *, channels: int, size: int, factor: int = 1) -> None:
        super().__init__()
        self.flat, self.pools = flat, BLOCKS if flat else BLOCKS - 1
        self.name = ("conv4" if flat else "conv4-pool") + (f"-x{factor}" if factor > 1 else "")
        side, width = size >> self.pools, WIDTH * factor
        if side < 1:
            raise UsageError(
                f"{self.name} can't take {channels} channels of {size} x {size} pixels",
                where="encoder",
                mend=f"views of at least {1 << self.pools} pixels" + (", or conv4-pool" if flat else ""),
            )
        before = [channels, *[width] * (BLOCKS - 1)]
        self.convs = nn.ModuleList(convolution(width_in, width, 3) for width_in in before)
        self.norms = nn.ModuleList(BatchNorm(width) for _ in before)
        self.width = width * side**2 if flat else width

    def forward(self, view: Tensor) -> list[Tensor]:
        """Maps after each of the four blocks, and flattened the vector of the last."""
        maps, x = [], view
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            # ReLU after the pool: the same result from a quarter of the values.
            x = F.relu(F.max_pool2d(x, 2) if number < self.pools else x, inplace=True)
            maps.append(x)
        return [*maps, x.flatten(1)] if self.flat else maps

    def describe(self) -> str:
        """One line for people: name, what becomes of the last map, width, parameters."""
        last = "last map flattened" if self.flat else "last map averaged, no fourth max-pool"
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}: four 3x3 convolutions, {last}, width {self.width}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()
