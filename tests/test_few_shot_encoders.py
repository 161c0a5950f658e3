"""Conv-4, ResNet-12 and DropBlock against slow twins, their shapes, their ramp, and what a resumed run keeps."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from nearfar import methods
from nearfar.encoders import build, pooled
from nearfar.encoders.chunks import encode_in_chunks
from nearfar.encoders.conv4 import Conv4
from nearfar.encoders.dropblock import DropBlock
from nearfar.encoders.norm import BatchNorm
from nearfar.encoders.resnet12 import ResNet12
from nearfar.errors import UsageError
from nearfar.method import Contrast

WIDE, NARROW = (64, 160, 320, 640), (64, 128, 256, 512)
NAMES = ["resnet12", "resnet12-narrow", "resnet12-grid", "conv4", "conv4-pool"]


# Shapes, names, weights


@pytest.mark.parametrize(
    ("name", "channels", "size", "sides", "widths", "vector"),
    [
        ("resnet12", 3, 84, (42, 21, 10, 5), WIDE, None),
        ("resnet12", 3, 32, (16, 8, 4, 2), WIDE, None),
        ("resnet12", 1, 28, (14, 7, 3, 1), WIDE, None),
        ("resnet12-x2", 3, 16, (8, 4, 2, 1), tuple(2 * w for w in WIDE), None),
        ("resnet12-narrow", 64, 84, (42, 21, 10, 5), NARROW, None),
        ("resnet12-narrow-x3", 3, 32, (16, 8, 4, 2), tuple(3 * w for w in NARROW), None),
        ("resnet12-grid", 3, 84, (42, 21, 11, 11), NARROW, None),
        ("resnet12-grid", 3, 32, (16, 8, 4, 4), NARROW, None),
        ("resnet12-grid", 1, 28, (14, 7, 4, 4), NARROW, None),
        ("resnet12-grid", 1, 9, (5, 3, 2, 2), NARROW, None),
        ("conv4", 1, 28, (14, 7, 3, 1), (64,) * 4, 64),
        ("conv4", 3, 32, (16, 8, 4, 2), (64,) * 4, 256),
        ("conv4", 3, 84, (42, 21, 10, 5), (64,) * 4, 1600),
        ("conv4-x2", 3, 84, (42, 21, 10, 5), (128,) * 4, 3200),
        ("conv4-pool", 3, 84, (42, 21, 10, 10), (64,) * 4, None),
        ("conv4-pool", 3, 32, (16, 8, 4, 4), (64,) * 4, None),
        ("conv4-pool-x2", 1, 8, (4, 2, 1, 1), (128,) * 4, None),
    ],
)
def test_maps_and_width(name, channels, size, sides, widths, vector):
    with torch.device("meta"):
        net = build(name, channels=channels, size=size)
        maps = net(torch.zeros(2, channels, size, size))
    expected = [[2, w, s, s] for w, s in zip(widths, sides, strict=True)] + [[2, vector]] * (vector is not None)
    assert [list(m.shape) for m in maps] == expected
    assert net.width == (vector or widths[-1]) == pooled(maps).shape[1]
    assert net.describe().startswith(f"{name}: ") and net.describe() in repr(net)
    assert f"width {net.width}," in net.describe()


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("resnet12", 84, "wide, as in MetaOptNet and RFS, dropout and DropBlock of side 5, width 640, 12.4 M"),
        ("resnet12", 64, "DropBlock of side 2"),
        ("resnet12-narrow", 84, "narrow, as in TADAM and Meta-Baseline, no dropout, width 512, 8.0 M"),
        ("resnet12-grid", 84, "as in CAN and infoPatch, dropout and DropBlock of side 5, width 512, 8.0 M"),
        ("conv4", 28, "last map flattened, width 64, 0.1 M"),
        ("conv4-pool", 28, "last map averaged, no fourth max-pool, width 64, 0.1 M"),
    ],
)
def test_describe_tells_the_forms_apart(name, size, words):
    with torch.device("meta"):
        assert words in build(name, channels=3, size=size).describe()


@pytest.mark.parametrize(
    ("name", "least"),
    [("resnet12", 16), ("resnet12-narrow", 16), ("resnet12-grid", 8), ("conv4", 16), ("conv4-pool", 8)],
)
def test_smallest_view(name, least):
    with torch.device("meta"):
        assert pooled(build(name, channels=3, size=least)(torch.zeros(2, 3, least, least))).shape[0] == 2
        with pytest.raises(UsageError, match=f"can't take 3 channels of {least - 1} x {least - 1} pixels"):
            build(name, channels=3, size=least - 1)


def counted(name: str, channels: int, factor: int) -> int:
    """Number of weights of convolutions and norms, layer by layer."""
    if name.startswith("conv4"):
        before = [channels, *[64 * factor] * 3]
        return sum(9 * b * 64 * factor + 2 * 64 * factor for b in before)
    total, before = 0, channels
    for width in (factor * w for w in (WIDE if name == "resnet12" else NARROW)):
        total += 9 * before * width + 2 * 9 * width * width + before * width + 4 * 2 * width
        before = width
    return total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "factor"), [(3, 1), (64, 1), (1, 2)])
def test_number_of_weights(name, channels, factor):
    with torch.device("meta"):
        net = build(name + ("-x2" if factor == 2 else ""), channels=channels, size=84)
    assert sum(p.numel() for p in net.parameters()) == counted(name, channels, factor)


def test_number_of_weights_that_papers_report():
    assert counted("resnet12", 3, 1) == 12_424_320
    assert counted("resnet12-narrow", 3, 1) == 7_996_800
    assert counted("conv4", 3, 1) == 112_832


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_hes(name):
    net = build(name, channels=3, size=32)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            expected = (2 / (m.out_channels * m.kernel_size[0] ** 2)) ** 0.5
            assert m.bias is None
            assert m.weight.std().item() == pytest.approx(expected, rel=4 / math.sqrt(m.weight.numel()))
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            assert isinstance(m, BatchNorm) and m.weight.eq(1).all() and m.get_parameter("bias").eq(0).all()


def test_modules_are_named_as_in_rfs():
    with torch.device("meta"):
        names = set(build("resnet12", channels=3, size=84).state_dict())
    layers = [f"{part}{n}" for n in (1, 2, 3) for part in ("conv", "bn")] + ["downsample.0", "downsample.1"]
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {
        f"layer{n}.0.{layer}.{field}"
        for n in (1, 2, 3, 4)
        for layer in layers
        for field in (statistics if "bn" in layer or layer.endswith(".1") else ("weight",))
    }
    assert names == expected | {"layer3.0.drop.progress", "layer4.0.drop.progress"}


# Slow twins: activation before the pool, as papers have it, and norms from their definition


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    assert isinstance(norm, BatchNorm)
    mean, var = (x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))
    if not norm.training:
        mean, var = norm.running_mean, norm.running_var
    mean, var, weight, bias = (v.reshape(1, -1, 1, 1) for v in (mean, var, norm.weight, norm.bias))
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def max_of_squares(x: Tensor, ceil: bool = False) -> Tensor:
    """2x2 max-pool, one square at a time."""
    count = [math.ceil(s / 2) if ceil else s // 2 for s in x.shape[2:]]
    rows = [
        torch.stack([x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax((2, 3)) for j in range(count[1])], 2)
        for i in range(count[0])
    ]
    return torch.stack(rows, 2)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def twin(net: ResNet12 | Conv4, x: Tensor) -> list[Tensor]:
    """The network from its definition, in evaluation or without dropout."""
    maps = []
    if isinstance(net, Conv4):
        for number, (conv, norm) in enumerate(zip(net.convs, net.norms, strict=True)):
            assert isinstance(conv, nn.Conv2d)
            x = normed(F.conv2d(x, conv.weight, padding=1), norm).clamp(min=0)
            x = x if number == 3 and net.name == "conv4-pool" else max_of_squares(x)
            maps.append(x)
        return maps if net.name == "conv4-pool" else [*maps, x.reshape(len(x), -1)]
    grid = net.name == "resnet12-grid"
    for number in (1, 2, 3, 4):
        block = net.get_submodule(f"layer{number}.0")
        y = x
        for n in (1, 2, 3):
            y = normed(F.conv2d(y, block.get_parameter(f"conv{n}.weight"), padding=1), block.get_submodule(f"bn{n}"))
            y = leaky(y) if n < 3 else y
        y = y + normed(F.conv2d(x, block.get_parameter("downsample.0.weight")), block.get_submodule("downsample.1"))
        x = leaky(y) if grid and number == 4 else max_of_squares(leaky(y), ceil=grid)
        maps.append(x)
    return maps


def shaken(name: str, channels: int, size: int) -> ResNet12 | Conv4:
    """In float64, with norms that differ from channel to channel, some of them of negative weight."""
    net = build(name, channels=channels, size=size).double()
    assert isinstance(net, (ResNet12, Conv4))
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, BatchNorm):
                m.weight.copy_(torch.rand(m.weight.shape) * 1.5 - 0.4)
                m.get_parameter("bias").uniform_(-0.5, 0.5)
                m.running_mean.uniform_(-0.5, 0.5)
                m.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize(
    ("name", "size", "training"),
    [
        ("resnet12", 19, False),
        ("resnet12-narrow", 16, False),
        ("resnet12-narrow", 22, True),
        ("resnet12-grid", 13, False),
        ("conv4", 33, False),
        ("conv4", 28, True),
        ("conv4-pool", 13, True),
    ],
)
def test_networks_equal_the_slow_twin_and_so_do_gradients(name, size, training):
    net = shaken(name, 2, size).train(training)
    view = torch.randn(3, 2, size, size, dtype=torch.float64)
    results = []
    for forward in (net, lambda x: twin(net, x)):
        x = view.clone().requires_grad_()
        maps = forward(x)
        weights = torch.linspace(-1, 1, maps[-1].numel(), dtype=torch.float64).reshape(maps[-1].shape)
        gradients = torch.autograd.grad((maps[-1] * weights).sum(), [x, *net.parameters()])
        results.append([*maps, *gradients])
    for fast, slow in zip(*results, strict=True):
        scale = slow.abs().max().item() + 1e-9
        assert fast.shape == slow.shape and (fast - slow).abs().max().item() < 1e-9 * scale


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_gets_a_gradient(name):
    net = build(name, channels=1, size=16)
    for m in net.modules():
        if isinstance(m, DropBlock):
            m.advance(1.0)
    pooled(net(torch.randn(4, 1, 16, 16))).sin().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", ["resnet12-grid", "conv4"])
def test_memory_format_does_not_change_the_result(name):
    net = shaken(name, 3, 16)
    last = convert_conv2d_weight_memory_format(copy.deepcopy(net), torch.channels_last)
    view, results = torch.randn(2, 3, 16, 16, dtype=torch.float64), []
    for m in [*net.modules(), *last.modules()]:
        if isinstance(m, DropBlock):
            m.advance(1.0)
        if isinstance(m, nn.Dropout):
            m.eval()  # torch draws it in the order of memory
    for part, x in ((net, view), (last, view.contiguous(memory_format=torch.channels_last))):
        torch.manual_seed(3)
        results.append(part(x))
    assert results[1][0].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["resnet12", "conv4"])
def test_half_precision_training_step(name):
    net = convert_conv2d_weight_memory_format(build(name, channels=3, size=32), torch.channels_last)
    for m in net.modules():
        if isinstance(m, DropBlock):
            m.advance(1.0)
    with torch.autocast("cpu", torch.bfloat16):
        maps = net(torch.randn(4, 3, 32, 32))
    assert {m.dtype for m in maps} == {torch.bfloat16}
    pooled(maps).float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# DropBlock


def slow_dropblock(x: Tensor, draws: Tensor, share: float, rate: float, size: int) -> Tensor:
    """Algorithm 1 in plain loops; draws `[B, h - b + 1, w - b + 1, C]` are the uniform numbers of the corners."""
    batch, channels, height, width = x.shape
    side = min(size, height, width)
    gamma = share * rate / side**2 * height * width / ((height - side + 1) * (width - side + 1))
    keep = torch.ones_like(x)
    for b in range(batch):
        for c in range(channels):
            for i in range(height - side + 1):
                for j in range(width - side + 1):
                    if draws[b, i, j, c] < gamma:
                        for di in range(side):
                            for dj in range(side):
                                keep[b, c, i + di, j + dj] = 0
    kept = keep.sum().item()
    return x * keep * (keep.numel() / kept) if kept else x * 0


@pytest.mark.parametrize("shape", [(3, 4, 7, 7), (2, 3, 6, 9), (4, 5, 5, 5), (4, 8, 2, 2), (30, 4, 1, 1), (2, 2, 3, 8)])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_dropblock_equals_plain_loops(shape, size):
    x = torch.randn(shape, dtype=torch.float64)
    drop = DropBlock(rate=0.4, size=size, ramp=0.5)
    drop.advance(0.3)
    side = min(size, *shape[2:])
    torch.manual_seed(5)
    draws = torch.rand(shape[0], shape[2] - side + 1, shape[3] - side + 1, shape[1])
    torch.manual_seed(5)
    dropped = drop(x)
    expected = slow_dropblock(x, draws, 0.6, 0.4, size)
    assert 0 < (dropped == 0).sum() < x.numel()
    assert torch.equal(dropped == 0, expected == 0) and torch.allclose(dropped, expected, rtol=1e-6)


def test_dropblock_drops_about_its_rate_and_keeps_the_mean():
    x = torch.ones(60, 50, 10, 10)
    drop = DropBlock(rate=0.1, size=3)
    drop.advance(1.0)
    y = drop(x)
    # A value is kept where no square that covers it is drawn: up to 3 x 3 corners of the 8 x 8 for one in the middle.
    gamma = 0.1 / 9 * 100 / 64
    covers = torch.tensor([min(i, 7) - max(i - 2, 0) + 1 for i in range(10)], dtype=torch.float64)
    expected = 1 - ((1 - gamma) ** (covers[:, None] * covers[None, :])).mean().item()
    assert 0.08 < expected < 0.1
    assert (y == 0).double().mean().item() == pytest.approx(expected, abs=0.005)
    assert y.mean().item() == pytest.approx(1, abs=1e-5)


def test_dropblock_as_large_as_the_map_drops_whole_channels():
    """The case of 84 px: the last map is 5 x 5 and the square 5."""
    drop = DropBlock(rate=0.3, size=5, ramp=0)
    y = drop(torch.ones(40, 50, 5, 5))
    whole = y.amax((2, 3))
    assert torch.equal(whole, y.amin((2, 3)))
    assert (whole == 0).double().mean().item() == pytest.approx(0.3, abs=0.04)


def test_dropblock_of_nothing_kept_is_zero():
    drop = DropBlock(rate=0.999999, size=1, ramp=0)
    x = torch.ones(1, 1, 1, 1, requires_grad=True)
    y = drop(x)
    y.sum().backward()
    assert y.item() == 0 and x.grad is not None and x.grad.item() == 0


def test_dropblock_ramp():
    x = torch.ones(20, 50, 6, 6)
    drop, shares = DropBlock(rate=0.2, size=1, ramp=0.5), []
    for progress in (0.0, 0.125, 0.25, 0.5, 1.0):
        drop.advance(progress)
        shares.append((drop(x) == 0).double().mean().item())
    assert shares[0] == 0
    assert shares[1:] == [pytest.approx(share, abs=0.01) for share in (0.05, 0.1, 0.2, 0.2)]


def test_dropblock_does_nothing_in_evaluation():
    drop = DropBlock(rate=0.9, size=2, ramp=0)
    x, before = torch.randn(2, 3, 4, 4), torch.get_rng_state()
    assert drop(x).ne(x).any()
    torch.set_rng_state(before)
    assert drop.eval()(x) is x and torch.equal(before, torch.get_rng_state())


def test_dropblock_scale_is_not_rounded_to_half_precision():
    drop = DropBlock(rate=0.2, size=2)
    drop.advance(1.0)
    x = torch.randn(8, 16, 6, 6).bfloat16()
    torch.manual_seed(1)
    half = drop(x)
    torch.manual_seed(1)
    exact = drop(x.float())
    assert half.dtype == torch.bfloat16 and torch.equal(half, exact.bfloat16())


@pytest.mark.parametrize(
    "wrong", [{"rate": 1.0}, {"rate": -0.1}, {"size": 0}, {"size": 2.0}, {"ramp": 1.1}, {"ramp": float("nan")}]
)
def test_dropblock_names_what_is_wrong(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DropBlock(**wrong)
    with pytest.raises(UsageError, match="maps"):
        DropBlock()(torch.zeros(2, 3))


# The run: ramp, copy, resume, chunks


def blocks(net: nn.Module) -> list[DropBlock]:
    return [m for m in net.modules() if isinstance(m, DropBlock)]


def test_only_regularised_forms_have_drop():
    for name, dropouts, squares in (("resnet12", 2, [2, 2]), ("resnet12-grid", 2, [2, 2]), ("resnet12-narrow", 0, [])):
        net = build(name, channels=3, size=32)
        assert sum(isinstance(m, nn.Dropout) and m.p == 0.1 for m in net.modules()) == dropouts
        assert [d.size for d in blocks(net)] == squares and all(d.rate == 0.1 and d.ramp == 1 for d in blocks(net))
    assert [d.size for d in blocks(build("resnet12", channels=3, size=84))] == [5, 5]


@pytest.mark.parametrize("name", ["resnet12", "resnet12-grid"])
def test_every_block_drops_values_in_training_alone(name):
    net, view = build(name, channels=3, size=32), torch.randn(30, 3, 32, 32)
    for drop in blocks(net):
        drop.advance(1.0)
    dropped = [m.eq(0).double().mean().item() for m in net(view)]
    assert dropped == [pytest.approx(0.1, abs=0.025)] * 4
    with torch.no_grad():
        assert not any(m.eq(0).any() for m in net.eval()(view))


def test_the_ramp_goes_on_where_a_run_is_resumed():
    net = build("resnet12-grid", channels=1, size=16)
    for drop in blocks(net):
        drop.advance(0.75)
    stored = copy.deepcopy(net.state_dict())
    other = build("resnet12-grid", channels=1, size=16)
    other.load_state_dict(stored)
    assert [d.progress.item() for d in blocks(other)] == [0.75, 0.75]
    view, results = torch.randn(4, 1, 16, 16), []
    for part in (net, other, copy.deepcopy(other)):
        torch.manual_seed(2)
        results.append(part(view)[-1])
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_forward_passes_do_not_move_the_ramp():
    net = build("resnet12", channels=1, size=16)
    for training in (True, False):
        net.train(training)(torch.randn(2, 1, 16, 16))
    assert [d.progress.item() for d in blocks(net)] == [0, 0]


def test_a_run_moves_the_ramp():
    model = Contrast(methods.simclr(encoder="resnet12", size=16, channels=1))
    model.after_step(0.25)
    assert [d.progress.item() for d in blocks(model.encoder)] == [0.25, 0.25]


def test_chunks_draw_the_same_squares_in_both_computations():
    x = torch.ones(6, 4, 4, 4, requires_grad=True)
    y = encode_in_chunks(Squared(), x, 2)[-1]
    y.sum().backward()
    assert y.eq(0).any() and x.grad is not None and torch.equal(x.grad, 2 * y)  # x is 1: the gradient is 2 keep


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = DropBlock(rate=0.5, size=2, ramp=0)

    def forward(self, view: Tensor) -> list[Tensor]:
        return [self.drop(view * view)]
