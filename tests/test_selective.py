"""Selective kernels: two streams and their mixing, ResNet-D's stem and shortcuts, names."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nearfar.encoders import build, pooled
from nearfar.encoders.layer_norm import layer_norms
from nearfar.encoders.norm import BatchNorm, split_batch_norm
from nearfar.encoders.resnet import LAYERS, Basic, Bottleneck
from nearfar.encoders.selective import SelectiveKernel


def drawn(module: nn.Module) -> nn.Module:
    """With norms that are not where they begin."""
    for m in module.modules():
        if isinstance(m, BatchNorm):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
    return module.double()


@pytest.mark.parametrize("stride", [1, 2])
def test_two_streams_are_mixed_channel_by_channel(stride: int) -> None:
    """Nested loops over images and channels."""
    kernel = drawn(SelectiveKernel(6, 4, stride))
    x = torch.randn(5, 6, 7, 7, dtype=torch.float64)
    conv, norm, _ = kernel.streams
    streams = F.relu(F.batch_norm(F.conv2d(x, conv.weight, None, stride, 1), None, None, norm.weight, norm.bias, True))
    narrow, inside, _, wide = kernel.scores
    told = (streams[:, :4] + streams[:, 4:]).mean((2, 3))
    seen = F.relu(F.batch_norm(told @ narrow.weight[..., 0, 0].T, None, None, inside.weight, inside.bias, True))
    scores = seen @ wide.weight[..., 0, 0].T
    found = kernel(x)
    assert found.shape == (5, 4, -(-7 // stride), -(-7 // stride))
    for image in range(5):
        for channel in range(4):
            one, two = scores[image, channel], scores[image, channel + 4]
            share = 1 / (1 + torch.exp(two - one))
            expected = share * streams[image, channel] + (1 - share) * streams[image, channel + 4]
            torch.testing.assert_close(found[image, channel], expected, rtol=1e-10, atol=1e-12)
    assert scores.std() > 0.1  # so that the mixing was tested


def test_without_scores_the_result_is_the_mean_of_the_streams() -> None:
    kernel = drawn(SelectiveKernel(6, 4, 1)).eval()
    nn.init.zeros_(kernel.scores[-1].weight)
    x = torch.randn(3, 6, 5, 5, dtype=torch.float64)
    first, second = kernel.streams(x).chunk(2, dim=1)
    torch.testing.assert_close(kernel(x), (first + second) / 2, rtol=1e-10, atol=1e-12)


def test_the_mixing_is_never_narrower_than_32() -> None:
    inside = {width: SelectiveKernel(8, width, 1).scores[0].out_channels for width in (64, 512, 1024)}
    assert inside == {64: 32, 512: 32, 1024: 64}


def parameters(depth: int, channels: int, size: int, factor: int) -> int:
    """Number of weights, layer by layer."""

    def layer(before: int, after: int, kernel: int) -> int:
        return before * after * kernel**2 + 2 * after

    def selective(before: int, width: int) -> int:
        inside = max(width // 16, 32)
        return layer(before, 2 * width, 3) + layer(width, inside, 1) + inside * 2 * width

    before, half = 64 * factor, 32 * factor
    deep = layer(channels, half, 3) + layer(half, half, 3) + layer(half, before, 3)
    total = layer(channels, before, 3) if size <= 64 else deep
    for stage, blocks in enumerate(LAYERS[depth]):
        width = 64 * factor * 2**stage
        for _ in range(blocks):
            after = width if depth < 50 else 4 * width
            if depth < 50:
                total += selective(before, width) + layer(width, width, 3)
            else:
                total += layer(before, width, 1) + selective(width, width) + layer(width, after, 1)
            total += layer(before, after, 1) if before != after else 0
            before = after
    return total


@pytest.mark.parametrize("name", ["resnet18-sk", "resnet50-sk", "resnet101-sk", "resnet152-sk"])
@pytest.mark.parametrize(("size", "channels", "factor"), [(224, 3, 1), (32, 1, 2)])
def test_numbers_of_weights(name: str, size: int, channels: int, factor: int) -> None:
    with torch.device("meta"):
        net = build(name + (f"-x{factor}" if factor > 1 else ""), channels=channels, size=size)
    depth = int(name.removeprefix("resnet").removesuffix("-sk"))
    assert sum(p.numel() for p in net.parameters()) == parameters(depth, channels, size, factor)


def test_the_largest_of_the_paper_has_795_million_weights() -> None:
    with torch.device("meta"):
        net = build("resnet152-sk-x3", channels=3, size=224)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == 795
    assert net.describe().startswith("resnet152-sk-x3: stem of three 3x3, stride 2, max-pool, width 6144")


@pytest.mark.parametrize(
    ("size", "stem", "sides"),
    [
        (32, "small", (32, 16, 8, 4)),
        (33, "small", (33, 17, 9, 5)),
        (65, "deep", (17, 9, 5, 3)),
        (96, "deep", (24, 12, 6, 3)),
    ],
)
def test_maps_are_those_of_a_resnet(size: int, stem: str, sides: tuple[int, ...]) -> None:
    net, plain = (build(name, channels=3, size=size) for name in ("resnet18-sk", "resnet18"))
    view = torch.randn(2, 3, size, size)
    shapes = [[list(m.shape) for m in one(view)] for one in (net, plain)]
    assert shapes[0] == shapes[1] and tuple(shape[-1] for shape in shapes[0]) == sides
    assert net.stem == stem and net.width == plain.width == 512


def test_every_block_has_one_and_begins_as_its_shortcut() -> None:
    net = build("resnet50-sk", channels=3, size=32)
    blocks = [m for m in net.modules() if isinstance(m, (Basic, Bottleneck))]
    assert len(blocks) == len([m for m in net.modules() if isinstance(m, SelectiveKernel)]) == 16
    for block in blocks:
        x = torch.randn(2, block.conv1.in_channels, 4, 4)
        assert torch.equal(block(x), block.downsample(x).relu())


def test_shortcuts_average_before_they_shrink() -> None:
    net = build("resnet18-sk", channels=3, size=32).eval().double()
    down = net.layer2[0].downsample
    x = torch.randn(2, 64, 6, 6, dtype=torch.float64)
    mean = torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)
    expected = F.conv2d(mean, down[1].weight) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(down(x), expected, rtol=1e-10, atol=1e-12)
    assert isinstance(net.layer1[0].downsample, nn.Identity)


def test_every_weight_gets_a_gradient() -> None:
    net = drawn(build("resnet18-sk", channels=1, size=16))
    pooled(net(torch.randn(4, 1, 16, 16, dtype=torch.float64))).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_memory_format_and_half_precision() -> None:
    net = drawn(build("resnet18-sk", channels=3, size=16)).eval()
    view = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = net(view)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    maps = last(view.contiguous(memory_format=torch.channels_last))
    assert maps[0].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(expected, maps, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net.float()(view.float())
    assert half[0].dtype == torch.bfloat16
    assert F.cosine_similarity(half[-1].flatten().double(), expected[-1].flatten(), dim=0) > 0.99


def test_other_norms_take_the_place_of_batch_norm() -> None:
    net = build("resnet18-sk", channels=3, size=16)
    norms = len([m for m in net.modules() if isinstance(m, BatchNorm)])
    assert norms == 1 + 8 * 3 + 3  # stem; two in the kernel and one behind it in each block; three shortcuts
    split_batch_norm(net, 2)
    assert pooled(net(torch.randn(4, 3, 16, 16))).shape == (4, 512)
    assert not [m for m in layer_norms(net).modules() if isinstance(m, BatchNorm)]
