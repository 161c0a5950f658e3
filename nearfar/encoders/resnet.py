"""Residual networks of 18 to 152 layers, for large and small images, in any width.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, https://arxiv.org/abs/1512.03385, table 1.
Wide ones and the stem for small images: Chen et al., SimCLR, ICML 2020, https://arxiv.org/abs/2002.05709.
"""

from __future__ import annotations

from torch import Tensor, nn

from .convolution import Convolution
from .norm import BatchNorm

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SMALL = 64  # pixels: views up to this side get the stem for small images
STEMS = {
    "small": "3x3 stem, stride 1, no max-pool",
    "large": "7x7 stem, stride 2, max-pool",
    "deep": "stem of three 3x3, stride 2, max-pool",
}


def convolution(width_in: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps the side (divided by the stride); He initialisation over outputs."""
    conv = Convolution(width_in, width, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class Basic(nn.Module):
    """`relu(shortcut(x) + norm(3x3(relu(norm(3x3(x))))))`, `[B, width_in, h, w] -> [B, width, h/stride, w/stride]`.

    The last norm starts with weight 0, so that the block starts as its shortcut (Goyal et al. 2017, section 5.1,
    https://arxiv.org/abs/1706.02677).
    """

    expansion = 1

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(width_in, width, 3, stride), BatchNorm(width)
        self.conv2, self.bn2 = convolution(width, width, 3), BatchNorm(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(width_in, width, stride)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Output map of one input map."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)).add_(self.downsample(x)))


class Bottleneck(nn.Module):
    """As `Basic` with 1x1, 3x3, 1x1, the last four times as wide.

    Differs from the paper: the stride is in the 3x3, not in the first 1x1, as in torchvision and SimCLR.
    """

    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(width_in, width, 1), BatchNorm(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), BatchNorm(width)
        self.conv3, self.bn3 = convolution(width, 4 * width, 1), BatchNorm(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(width_in, 4 * width, stride)
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Output map of one input map."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)).add_(self.downsample(x)))


def shortcut(width_in: int, width: int, stride: int) -> nn.Module:
    """The input itself, or where shapes differ a 1x1 convolution with norm."""
    if width_in == width and stride == 1:
        return nn.Identity()
    return nn.Sequential(convolution(width_in, width, 1, stride), BatchNorm(width))


class ResNet(nn.Module):
    """View `[B, channels, size, size]` -> four maps, strides 1, 2, 4, 8 after the stem.

    Modules are named as in torchvision, so its weights fit (without `fc`) where the stem is the large one and the
    factor 1: `net.load_state_dict(weights, strict=False)`.

    Args:
        depth: 18, 34, 50, 101 or 152.
        channels: Channels of a view.
        size: Side of a view, pixels. Up to 64: 3x3 stem with stride 1, no max-pool. Above: 7x7 with stride 2 and
            max-pool. A network runs on any size; this chooses its stem.
        factor: Multiplies the channels of all layers, as in SimCLR; torchvision's `wide_resnet` widens only the 3x3.
    """

    def __init__(self, depth: int, *, channels: int, size: int, factor: int = 1) -> None:
        super().__init__()
        self.stem = "small" if size <= SMALL else "large"
        width = 64 * factor
        self.conv1 = convolution(channels, width, 3) if self.stem == "small" else convolution(channels, width, 7, 2)
        self.bn1, self.relu = BatchNorm(width), nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if self.stem == "small" else nn.MaxPool2d(3, 2, 1)
        block, before, stages = Basic if depth < 50 else Bottleneck, width, []
        for number, layers in enumerate(LAYERS[depth]):
            blocks = []
            for layer in range(layers):
                blocks.append(block(before, width << number, 2 if number > 0 and layer == 0 else 1))
                before = (width << number) * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.width = before
        self.name = f"resnet{depth}" + (f"-x{factor}" if factor > 1 else "")

    def forward(self, view: Tensor) -> list[Tensor]:
        """Maps after each of the four stages."""
        first = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(view)))))
        second = self.layer2(first)
        third = self.layer3(second)
        return [first, second, third, self.layer4(third)]

    def describe(self) -> str:
        """One line for people: name, stem, width, parameters."""
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}: {STEMS[self.stem]}, width {self.width}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()
