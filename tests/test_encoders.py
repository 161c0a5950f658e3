"""Encoders: shapes, initial state, names, and modules from elsewhere."""

from __future__ import annotations

import copy
import subprocess
import sys
import types

import pytest
import torch
from torch import Tensor, nn

from nearfar.encoders import ENCODERS, build, pooled
from nearfar.encoders.foreign import Foreign
from nearfar.encoders.norm import BatchNorm
from nearfar.encoders.resnet import Basic, Bottleneck
from nearfar.errors import DeviceError, UsageError


def parameters(depth: int, channels: int, kernel: int, factor: int) -> int:
    """Number of weights counted from table 1 of the paper, layer by layer."""
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    before = 64 * factor
    total = channels * before * kernel**2 + 2 * before
    for stage, blocks in enumerate(counts):
        width = 64 * factor * 2**stage
        for _ in range(blocks):
            after = width if depth < 50 else 4 * width
            shapes = [(before, width, 3), (width, width, 3)]
            if depth >= 50:
                shapes = [(before, width, 1), (width, width, 3), (width, after, 1)]
            if before != after:
                shapes.append((before, after, 1))
            total += sum(a * b * k * k + 2 * b for a, b, k in shapes)
            before = after
    return total


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize(("size", "kernel", "channels", "factor"), [(65, 7, 3, 1), (64, 3, 1, 2)])
def test_resnets_have_the_papers_number_of_weights(depth, size, kernel, channels, factor):
    with torch.device("meta"):
        net = build(f"resnet{depth}" + ("-x2" if factor == 2 else ""), channels=channels, size=size)
    assert sum(p.numel() for p in net.parameters()) == parameters(depth, channels, kernel, factor)


@pytest.mark.parametrize(
    ("name", "channels", "size", "stem", "sides", "widths"),
    [
        ("resnet18", 3, 32, "small", (32, 16, 8, 4), (64, 128, 256, 512)),
        ("resnet18", 3, 96, "large", (24, 12, 6, 3), (64, 128, 256, 512)),
        ("resnet50", 1, 8, "small", (8, 4, 2, 1), (256, 512, 1024, 2048)),
        ("resnet18-x2", 4, 16, "small", (16, 8, 4, 2), (128, 256, 512, 1024)),
        ("small", 1, 28, "small", (14, 7, 4, 4), (32, 64, 128, 256)),
        ("small", 3, 8, "small", (4, 2, 1, 1), (32, 64, 128, 256)),
        ("small-x2", 5, 65, "small", (33, 17, 9, 9), (64, 128, 256, 512)),
    ],
)
def test_four_maps_and_width(name, channels, size, stem, sides, widths):
    net = build(name, channels=channels, size=size)
    maps = net(torch.randn(2, channels, size, size))
    assert [list(m.shape) for m in maps] == [[2, w, s, s] for w, s in zip(widths, sides, strict=True)]
    assert net.width == widths[-1] and net.stem == stem
    assert name in net.describe() and net.describe() in repr(net) and f"width {net.width}" in net.describe()
    assert pooled(maps).shape == (2, net.width)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "small"])
def test_blocks_start_as_their_shortcut(name):
    net = build(name, channels=3, size=32)
    blocks = [m for m in net.modules() if isinstance(m, (Basic, Bottleneck))]
    assert len(blocks) == {"resnet18": 8, "resnet50": 16, "small": 4}[name]
    for block in blocks:
        x = torch.randn(2, block.conv1.in_channels, 4, 4)
        assert torch.equal(block(x), block.downsample(x).relu())


def test_initial_weights_are_hes():
    net = build("resnet18", channels=3, size=32)
    for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        expected = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert conv.bias is None and conv.weight.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("name", ["resnet18", "small"])
def test_every_weight_gets_a_gradient(name):
    net = build(name, channels=1, size=28)
    for m in net.modules():
        if isinstance(m, BatchNorm):
            nn.init.ones_(m.weight)
    pooled(net(torch.randn(4, 1, 28, 28))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", ["resnet18", "small"])
def test_memory_format_does_not_change_the_result(name):
    net = build(name, channels=3, size=32).double().eval()
    view = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    maps = last(view.contiguous(memory_format=torch.channels_last))
    assert maps[0].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(net(view), maps, strict=True))


def test_pooled():
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert pooled([torch.zeros(1), maps]).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]
    tokens = torch.arange(12.0).reshape(2, 2, 3)
    assert pooled([tokens]).tolist() == [[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]]
    assert torch.equal(pooled([maps[:, :, 0, 0]]), maps[:, :, 0, 0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet5O", "did you mean 'resnet50'"),
        ("smal", "did you mean 'small'"),
        ("resnet50x2", "did you mean 'resnet50'.*-x2"),
        ("resnet50-x0", "did you mean 'resnet50'"),
        ("vit", "there are small, resnet18, resnet34"),
        ("", "no encoder ''"),
    ],
)
def test_unknown_names_list_what_there_is(name, words):
    with pytest.raises(UsageError, match=words):
        build(name, channels=3, size=32)


@pytest.mark.parametrize(("channels", "size"), [(3, 7), (0, 32)])
@pytest.mark.parametrize("name", ENCODERS)
def test_views_too_small_are_refused(name, channels, size):
    with pytest.raises(UsageError, match=f"can't take {channels} channels of {size} x {size}"):
        build(name, channels=channels, size=size)


class Odd(nn.Module):
    """Draws random numbers and counts its calls in evaluation mode too."""

    def __init__(self, output) -> None:
        super().__init__()
        self.weight, self.output, self.norm = nn.Parameter(torch.ones(1)), output, nn.BatchNorm2d(3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, view: Tensor):
        self.calls += 1
        return self.output(self.norm(view) + torch.rand(1) * self.weight)


@pytest.mark.parametrize(
    ("output", "width", "count"),
    [
        (lambda v: v.flatten(1), 192, 1),
        (lambda v: v.flatten(2), 64, 1),
        (lambda v: v, 3, 1),
        (lambda v: [v, v[:, :2]], 2, 2),
        (lambda v: (v, v.mean((2, 3))), 3, 2),
    ],
)
def test_any_module_is_an_encoder_and_stays_as_it_was(output, width, count):
    module = Odd(output)
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    net = build(module, channels=3, size=8)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert module.training and module.norm.training
    maps = net(torch.randn(4, 3, 8, 8))
    assert net.width == width and len(maps) == count and isinstance(maps, list)
    assert module.calls.item() == 1  # the module itself, not a copy
    assert "Odd: width" in net.describe()


def test_encoders_of_ours_are_not_wrapped():
    for net in (build("small", channels=3, size=32), build(nn.Flatten(), channels=3, size=8)):
        assert build(net, channels=3, size=32) is net
    assert isinstance(net, Foreign)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Linear(5, 2), r"Linear can't take a view of shape \[B, 3, 8, 8\]"),
        (Odd(lambda v: {"features": v}), "returns .'dict'. for two views"),
        (Odd(lambda v: v.sum()), r"returns \[\[\]\] for two views"),
        (Odd(lambda v: v.flatten()), r"returns \[\[384\]\]"),
        (Odd(lambda v: []), r"returns \[\] for two views"),
    ],
)
def test_modules_that_are_no_encoders_are_refused(module, words):
    with pytest.raises(UsageError, match=words):
        build(module, channels=3, size=8)


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DeviceError, match=r'timm is not installed.*pip install "nearfar\[timm\]"'):
        build("timm:resnet18", channels=3, size=32)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ('RuntimeError("operator torchvision::nms does not exist")', "torchvision was built for another torch than"),
        ("ModuleNotFoundError(\"No module named 'torchvision'\", name='torchvision')", "torchvision is not installed"),
    ],
)
@pytest.mark.parametrize(("version", "index"), [("2.13.0+cpu", "whl/cpu"), ("2.14.1", "")])
def test_timm_with_a_torchvision_that_does_not_fit(monkeypatch, tmp_path, error, words, version, index):
    (tmp_path / "timm.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(DeviceError) as caught:
        build("timm:resnet18", channels=3, size=32)
    assert words in caught.value.what
    wanted = f'"torchvision==0.{int(version[2:4]) + 15}.*"'
    assert wanted in caught.value.mend and caught.value.mend.endswith(index or wanted)


def test_encoders_import_neither_torchvision_nor_timm():
    code = "import sys, nearfar.encoders; print([m for m in ('torchvision', 'timm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_timm_networks(monkeypatch):
    """A stand-in with timm's interface; the real one is in the oracle tests."""

    class Network(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, 6, 3, stride=2)

        feature_info = ("one",)

        def forward_intermediates(self, view: Tensor, indices: int, output_fmt: str):
            assert output_fmt == "NCHW" and indices == 1
            maps = [self.conv(view)]
            return maps[-1], maps

        def forward_head(self, last: Tensor) -> Tensor:
            return last.amax((2, 3))

    def create(name: str, *, pretrained: bool, num_classes: int, in_chans: int) -> Network:
        assert (pretrained, num_classes) == (False, 0)
        return Network(in_chans)

    fake = types.SimpleNamespace(list_models=lambda pattern="*": ["tiny"], create_model=create)
    monkeypatch.setitem(sys.modules, "timm", fake)
    net = build("timm:tiny", channels=2, size=9)
    assert [list(m.shape) for m in net(torch.randn(3, 2, 9, 9))] == [[3, 6, 4, 4], [3, 6]]
    assert net.width == 6 and net.describe().startswith("timm:tiny: width 6")
    with pytest.raises(UsageError, match="timm has no network 'tinny'"):
        build("timm:tinny", channels=2, size=9)
