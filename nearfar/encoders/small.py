"""A small residual network that learns within minutes on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from .norm import BatchNorm
from .resnet import Basic, convolution

WIDTHS, STRIDES = (32, 64, 128, 256), (1, 2, 2, 1)


class Small(nn.Module):
    """View `[B, channels, size, size]` -> four maps of 32, 64, 128, 256 channels and strides 2, 4, 8, 8.

    One basic block a stage. The stem halves the side at once: on a CPU samples seen count for more than resolution.

    Args:
        channels: Channels of a view.
        size: Side of a view, pixels; made for 28 to 64, runs on any. It changes nothing here.
        factor: Multiplies the channels of all layers.
    """

    stem = "small"

    def __init__(self, *, channels: int, size: int, factor: int = 1) -> None:
        super().__init__()
        widths = [width * factor for width in WIDTHS]
        self.conv1, self.bn1 = convolution(channels, widths[0], 3, 2), BatchNorm(widths[0])
        self.relu = nn.ReLU(inplace=True)
        before = [widths[0], *widths[:-1]]
        blocks = [Basic(*shape) for shape in zip(before, widths, STRIDES, strict=True)]
        self.layer1, self.layer2, self.layer3, self.layer4 = blocks
        self.width = widths[-1]
        self.name = "small" + (f"-x{factor}" if factor > 1 else "")

    def forward(self, view: Tensor) -> list[Tensor]:
        """Maps after each of the four blocks."""
        first = self.layer1(self.relu(self.bn1(self.conv1(view))))
        second = self.layer2(first)
        third = self.layer3(second)
        return [first, second, third, self.layer4(third)]

    def describe(self) -> str:
        """One line for people: name, stem, width, parameters."""
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return f"{self.name}: 3x3 stem, stride 2, no max-pool, width {self.width}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()
