"""Residual networks of CPC: norm and ReLU before each convolution, layer norm, three of the four stages.

He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, https://arxiv.org/abs/1603.05027, figure 4 (e).
The deep third stage: Henaff et al., ICML 2020, appendix A, https://arxiv.org/abs/1905.09272.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .layer_norm import ChannelNorm
from .resnet import convolution

STAGES = {
    50: ((3, 64, 256), (4, 128, 512), (6, 256, 1024)),
    101: ((3, 64, 256), (4, 128, 512), (23, 256, 1024)),
    161: ((3, 64, 256), (4, 128, 512), (46, 512, 4096)),
}
"""Depth -> blocks, channels of the 3x3 and channels of the map of each stage."""

SMALL = 32  # pixels: views up to this side get the stem for small images


class PreActivation(nn.Module):
    """`y = relu(norm(x))`, then `shortcut + 1x1(relu(norm(3x3(relu(norm(1x1(y)))))))`.

    The shortcut is x, or where shapes differ a 1x1 convolution of y. The last convolution starts at 0, so that the
    block starts as its shortcut.
    """

    def __init__(self, width_in: int, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(width_in), convolution(width_in, inside, 1)
        self.norm2, self.conv2 = ChannelNorm(inside), convolution(inside, inside, 3, stride)
        self.norm3, self.conv3 = ChannelNorm(inside), convolution(inside, width, 1)
        self.downsample = None if width_in == width and stride == 1 else convolution(width_in, width, 1, stride)
        nn.init.zeros_(self.conv3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width_in, h, w] -> [B, width, h / stride, w / stride]`."""
        y = F.relu(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.conv2(F.relu(self.norm2(self.conv1(y))))
        return shortcut + self.conv3(F.relu(self.norm3(y)))


class ResNetV2(nn.Module):
    """View `[B, channels, size, size]` -> three maps, strides 1, 2, 4 after the stem; ReLU and norm end the last.

    Args:
        depth: 50, 101 or 161: layers that the whole network would have; it ends after the third stage.
        channels: Channels of a view.
        size: Side of a view, pixels. Up to 32: 3x3 stem with stride 1, no max-pool. Above: 7x7 with stride 2 and
            max-pool.
        factor: Multiplies the channels of all layers.
    """

    def __init__(self, depth: int, *, channels: int, size: int, factor: int = 1) -> None:
        super().__init__()
        self.stem = "small" if size <= SMALL else "large"
        before, stages = 64 * factor, []
        self.conv1 = convolution(channels, before, 3) if self.stem == "small" else convolution(channels, before, 7, 2)
        self.maxpool = nn.Identity() if self.stem == "small" else nn.MaxPool2d(3, 2, 1)
        for number, (layers, inside, width) in enumerate(STAGES[depth]):
            blocks = []
            for layer in range(layers):
                stride = 2 if number > 0 and layer == 0 else 1
                blocks.append(PreActivation(before, inside * factor, width * factor, stride))
                before = width * factor
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.norm, self.width = ChannelNorm(before), before
        self.name = f"cpc-resnet{depth}" + (f"-x{factor}" if factor > 1 else "")

    def forward(self, view: Tensor) -> list[Tensor]:
        """Maps after each of the three stages."""
        first = self.layer1(self.maxpool(self.conv1(view)))
        second = self.layer2(first)
        return [first, second, F.relu(self.norm(self.layer3(second)))]

    def describe(self) -> str:
        """One line for people: name, stem, width, parameters."""
        stem = "3x3 stem, stride 1, no max-pool" if self.stem == "small" else "7x7 stem, stride 2, max-pool"
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}: {stem}, layer norm, width {self.width}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()
