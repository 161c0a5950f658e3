"""AMDIM's residual network: no padding, so that each place of a map sees its own part of the view and nothing else.

Bachman, Hjelm & Buchwalter, Learning Representations by Maximizing Mutual Information Across Views, NeurIPS 2019,
https://arxiv.org/abs/1906.00910, section 3.5; sizes of its layers: its released code.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .convolution import Convolution

# Beyond the stem: kernel and stride of each stage but the last, and by how much each doubles the width.
STAGES = {
    32: ((4, 2, 2), (2, 2, 2), (3, 1, 1), (3, 1, 1)),
    64: ((4, 2, 2), (4, 2, 2), (2, 2, 2), (3, 1, 1), (3, 1, 1)),
    128: ((4, 2, 2), (4, 2, 2), (2, 2, 2), (3, 1, 1), (3, 1, 1)),
}
STEMS = {32: "3x3 stem", 64: "3x3 stem", 128: "5x5 stem, stride 2"}
GIVEN = 4  # the last maps: 7x7, 5x5, 3x3, 1x1


class Block(nn.Module):
    """`y = 1x1(relu(kxk(x))) + average over k x k of x`, without padding; channels that x lacks are 0 in the average.

    The 1x1 starts at 0, so that the block starts as its average.

    Args:
        width_in: Channels of the input.
        width: Channels of the output, >= `width_in`.
        kernel: Side k of the window.
        stride: Of the window.
    """

    def __init__(self, width_in: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.missing = kernel, stride, width - width_in
        self.conv1 = Convolution(width_in, width, kernel, stride, bias=False)
        self.conv2 = Convolution(width, width, 1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Output map of one input map."""
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        mean = x if self.kernel == 1 else F.avg_pool2d(x, self.kernel, self.stride)
        return y + (F.pad(mean, (0, 0, 0, 0, 0, self.missing)) if self.missing else mean)


class AmdimNet(nn.Module):
    """View `[B, channels, size, size]` -> maps of sides 7, 5, 3, 1, all of `.width` channels.

    Sides of all maps: 30, 30, 14, 7, 5, 3, 1 of 32 pixels; 62, 30, 14, 7, 5, 3, 1 of 64; 64, 62, 30, 14, 7, 5, 3, 1 of
    128. A cell of 7x7 sees 8, 16 or 35 pixels, its neighbour 4, 8 or 16 further on. There is no norm in it, so that
    chunks (`Contrast(chunk=...)`) have exactly the gradient of the whole batch.

    Args:
        base: Channels of the first map (ndf); each of the first stages doubles them, to 4 or (from 64 pixels) 8 times.
        depth: Blocks of a stage, the first with the stage's window, the others 1x1; the last stage has a single one.
        channels: Channels of a view.
        size: Side of a view, pixels: 32, 64 or 128.
        factor: Multiplies the channels of all layers.

    Raises:
        UsageError: Views of another size.

    Of the paper: 320 channels, 10 blocks at 32 and 128 pixels, 192 and 8 at 64. At 32 pixels 320, 10 have 154 million
    parameters and take 5.6 billion multiplications a view; 64, 2 have 2.7 million and take 88 million.

    Differs from the released code: it ends with a batch norm. Here that is in the head (`extract.Scales`), which has
    the whole batch before it, not a chunk; maps between stages aren't returned.

    Example:
        >>> import torch
        >>> net = AmdimNet(8, 2, channels=3, size=32)
        >>> [list(found.shape) for found in net(torch.zeros(2, 3, 32, 32))]
        [[2, 32, 7, 7], [2, 32, 5, 5], [2, 32, 3, 3], [2, 32, 1, 1]]
    """

    def __init__(self, base: int, depth: int, *, channels: int, size: int, factor: int = 1) -> None:
        super().__init__()
        self.name = f"amdim {base}/{depth}" + (f"-x{factor}" if factor > 1 else "")
        if size not in STAGES:
            nearest = min(STAGES, key=lambda side: abs(side - size))
            raise UsageError(
                f"{self.name} can't take views of {size} pixels: without padding its maps would not fit",
                where="encoder",
                mend=f"size {nearest} (--size {nearest}; of patches --patch {nearest}); "
                f"there are {', '.join(map(str, STAGES))}",
            )
        self.size, width = size, base * factor
        layers: list[nn.Module] = []
        if size == 128:  # the one padding there is; mirrored pixels, so that the border is no edge
            layers += [nn.Conv2d(channels, width, 5, 2, padding=2, padding_mode="reflect"), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(width if layers else channels, width, 3), nn.ReLU(inplace=True)]
        if size == 32:
            layers.append(Block(width, width, 1, 1))
        self.stem, stages = nn.Sequential(*layers), []
        for kernel, stride, wider in STAGES[size]:
            blocks = [Block(width, width * wider, kernel, stride)]
            width *= wider
            stages.append(nn.Sequential(*blocks, *(Block(width, width, 1, 1) for _ in range(depth - 1))))
        self.stages = nn.ModuleList([*stages, Block(width, width, 3, 1)])
        self.width = width

    def forward(self, view: Tensor) -> list[Tensor]:
        """The last four maps: encoding in chunks keeps what is returned, and the wide maps before them cost most."""
        maps = [self.stem(view)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[-GIVEN:]

    def describe(self) -> str:
        """One line for people: name, stem, width, parameters."""
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}: {STEMS[self.size]}, no padding, width {self.width}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()
