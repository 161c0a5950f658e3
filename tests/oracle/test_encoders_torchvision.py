"""Our ResNets against torchvision's with the same weights, and real timm networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.encoders import build, pooled
from nearfar.errors import UsageError

pytestmark = pytest.mark.oracle


def randomise(net: nn.Module) -> None:
    """Weights of norms and running statistics too, so that none of them can be mixed up."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.rand(tensor.shape, generator=generator)
        if tensor.ndim == 1:
            tensor.copy_(0.5 + noise)
        else:
            tensor.copy_((noise - 0.5) * (12 / tensor[0].numel()) ** 0.5)


@pytest.mark.parametrize(
    "depth", [18, 34, 50, pytest.param(101, marks=pytest.mark.slow), pytest.param(152, marks=pytest.mark.slow)]
)
def test_resnet_equals_torchvisions(depth):
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    theirs = models.get_model(f"resnet{depth}", weights=None)
    ours = build(f"resnet{depth}", channels=3, size=72)
    randomise(theirs)
    weights = {name: t for name, t in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.load_state_dict(weights)  # strict: the names are the same
    assert list(ours.state_dict()) == list(weights)
    view, seen = torch.randn(2, 3, 72, 72), []
    for number in range(1, 5):
        getattr(theirs, f"layer{number}").register_forward_hook(lambda module, inputs, output: seen.append(output))
    for training in (True, False):
        seen.clear()
        theirs.train(training)(view)
        for a, b in zip(ours.train(training)(view), seen, strict=True):
            assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    for name, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, theirs.state_dict()[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize(
    ("name", "channels", "size", "count"),
    [
        ("resnet18", 1, 64, 5),
        ("vit_tiny_patch16_224", 3, 64, 5),
        ("convnext_atto", 3, 64, 5),
        ("levit_128s", 3, 224, 4),
    ],
)
def test_timm_networks(name, channels, size, count):
    pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    net = build(f"timm:{name}", channels=channels, size=size)
    view = torch.randn(2, channels, size, size)
    maps = net.eval()(view)
    assert torch.allclose(maps[-1], net.net.net(view), rtol=1e-5, atol=1e-6)
    assert len(maps) == count and all(m.ndim == 4 for m in maps[:-1])
    assert pooled(maps).shape == (2, net.width)
    assert net.width == net.net.net.num_features


def test_timm_network_and_view_that_do_not_fit():
    pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    with pytest.raises(UsageError, match="did you mean|timm has no network"):
        build("timm:resnet_18", channels=3, size=64)
