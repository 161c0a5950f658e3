"""Residual networks whose 3x3 convolutions come in two streams, mixed by what is in the image.

Li et al., Selective Kernel Networks, CVPR 2019, https://arxiv.org/abs/1903.06586, section 3.1, in the form of
Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners (SimCLR v2), NeurIPS 2020,
https://arxiv.org/abs/2006.10029. Stem and shortcuts, ResNet-D: He et al., Bag of Tricks for Image Classification, CVPR
2019, https://arxiv.org/abs/1812.01187, section 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .norm import BatchNorm
from .resnet import Basic, Bottleneck, ResNet, convolution

RATIO, LEAST = 16, 32  # the mixing sees the channels over RATIO numbers, but at least LEAST


class SelectiveKernel(nn.Module):
    """`m * u_1 + (1 - m) * u_2`: two streams u of a 3x3 convolution, with weights m for each channel of each image.

        u_1, u_2 = relu(norm(3x3(x)))                      one convolution to twice the channels, cut in two
        m        = softmax over the streams of 1x1(relu(norm(1x1(mean over places of u_1 + u_2))))

    With equal scores of the two streams the result is their mean.

    Args:
        width_in: Channels of the input.
        width: Channels of the output.
        stride: Of the 3x3.

    Differs from Li et al.: both streams are 3x3, as in SimCLR v2, where theirs see 3x3 and 5x5.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        inside = max(width // RATIO, LEAST)
        self.streams = nn.Sequential(
            convolution(width_in, 2 * width, 3, stride), BatchNorm(2 * width), nn.ReLU(inplace=True)
        )
        self.scores = nn.Sequential(
            convolution(width, inside, 1), BatchNorm(inside), nn.ReLU(inplace=True), convolution(inside, 2 * width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width_in, h, w] -> [B, width, h / stride, w / stride]`, nothing below 0."""
        streams = self.streams(x)
        told = streams.mean((2, 3), keepdim=True).unflatten(1, (2, -1)).sum(1)
        weights = torch.softmax(self.scores(told).unflatten(1, (2, -1)), dim=1)
        first, second = streams.chunk(2, dim=1)
        return torch.lerp(second, first, weights[:, 0].to(streams.dtype))


def selective_resnet(depth: int, *, channels: int, size: int, factor: int = 1) -> ResNet:
    """A `ResNet` with selective kernels, the ResNet-D stem, and shortcuts that average before they shrink.

    In each block the 3x3 with its norm (of two, the first) gives way to `SelectiveKernel`, which leaves nothing to do
    for the ReLU behind it. A large stem is three 3x3, the first with stride 2, the first two half as wide. A shortcut
    with a stride is the average over 2x2, then a 1x1 without stride.

    Args:
        depth: 18, 34, 50, 101 or 152.
        channels: Channels of a view.
        size: Side of a view, pixels; decides the stem as in `ResNet`. That for small images stays as it is.
        factor: Multiplies the channels of all layers.

    Differs from SimCLR v2's released code: there the shortcut of the first stage, which has no stride, is averaged over
    2x2 too, and blocks of two 3x3 (18 and 34 layers) have no selective kernels.

    Example:
        >>> net = selective_resnet(18, channels=3, size=32)
        >>> net.name, [list(found.shape) for found in net(torch.zeros(2, 3, 32, 32))][-1]
        ('resnet18-sk', [2, 512, 4, 4])
    """
    net = ResNet(depth, channels=channels, size=size, factor=factor)
    if net.stem == "large":
        net.stem = "deep"
        net.add_module("conv1", _deep_stem(channels, 64 * factor))
    for block in net.modules():
        if isinstance(block, Bottleneck):
            block.add_module("conv2", _instead_of(block.conv2))
            block.add_module("bn2", nn.Identity())
        elif isinstance(block, Basic):
            block.add_module("conv1", _instead_of(block.conv1))
            block.add_module("bn1", nn.Identity())
        if isinstance(block, Basic | Bottleneck) and isinstance(block.downsample, nn.Sequential):
            block.downsample = _averaged(block.downsample)
    net.name = net.name.replace(f"resnet{depth}", f"resnet{depth}-sk")
    return net


def _deep_stem(channels: int, width: int) -> nn.Sequential:
    """Three 3x3, the first with stride 2; norm and ReLU of the last are the network's."""
    half = width // 2
    first = (convolution(channels, half, 3, 2), BatchNorm(half), nn.ReLU(inplace=True))
    second = (convolution(half, half, 3), BatchNorm(half), nn.ReLU(inplace=True))
    return nn.Sequential(*first, *second, convolution(half, width, 3))


def _instead_of(conv: nn.Conv2d) -> SelectiveKernel:
    return SelectiveKernel(conv.in_channels, conv.out_channels, conv.stride[0])


def _averaged(shortcut: nn.Sequential) -> nn.Sequential:
    """The shortcut with the mean over 2x2 in the place of its stride."""
    conv, norm = shortcut.children()
    assert isinstance(conv, nn.Conv2d)
    if conv.stride[0] == 1:
        return shortcut
    mean = nn.AvgPool2d(2, conv.stride[0], ceil_mode=True)  # an odd side has the size of the other branch
    return nn.Sequential(mean, convolution(conv.in_channels, conv.out_channels, 1), norm)
