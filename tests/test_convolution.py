"""The convolution with a weight gradient of its own, against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.encoders.convolution import Convolution, weight_gradient

CASES = [
    ((1, 1), (1, 1), (0, 0)), ((3, 3), (1, 1), (1, 1)), ((3, 3), (2, 2), (1, 1)),
    ((2, 2), (2, 2), (0, 0)), ((5, 5), (3, 3), (2, 2)), ((3, 2), (1, 2), (0, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
@pytest.mark.parametrize("sides", [(4, 4), (5, 7)])
def test_the_weight_gradient_is_autograds(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], sides: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, *sides, dtype=torch.float64)
    weight = torch.randn(4, 6, *kernel, dtype=torch.float64, requires_grad=True)
    output = torch.conv2d(x, weight, None, stride, padding)
    grad = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, weight, grad)
    torch.testing.assert_close(weight_gradient(x, grad, kernel, stride, padding), expected, atol=1e-12, rtol=1e-12)


def gradients(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of the input, gradient of the weight, in bfloat16 autocast."""
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(x)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    of_x, of_weight = torch.autograd.grad((output.float() * weights).sum(), (x, conv.weight))
    return output, of_x, of_weight


@pytest.mark.parametrize(("side", "stride"), [(4, 1), (8, 2), (7, 1)])
def test_small_maps_give_what_torch_gives(side: int, stride: int) -> None:
    torch.manual_seed(0)
    ours, theirs = (cls(96, 96, 3, stride, 1, bias=False) for cls in (Convolution, nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 96, side, side).to(memory_format=torch.channels_last)
    (output, of_x, of_weight), (expected, x_grad, weight_grad) = gradients(ours, x), gradients(theirs, x)
    assert torch.equal(output, expected)
    assert torch.equal(of_x, x_grad)
    assert of_weight.dtype == torch.float32
    # Both are rounded to bfloat16 at the end: 2^-8 of the value.
    torch.testing.assert_close(of_weight, weight_grad, rtol=2**-7, atol=2e-2 * float(weight_grad.std()))


def names(conv: nn.Conv2d, x: Tensor) -> set[str]:
    """Names of the functions in the graph of an output."""
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(x)
    found, left = set(), [output.grad_fn]
    while left:
        node = left.pop()
        if node is not None:
            found.add(node.name())
            left += [before for before, _ in node.next_functions]
    return found


def test_only_small_wide_maps_take_the_products() -> None:
    wide, narrow = Convolution(96, 96, 3, 1, 1, bias=False), Convolution(16, 16, 3, 1, 1, bias=False)
    grouped = Convolution(256, 256, 3, 1, 1, bias=False, groups=2)
    assert any("ByPlaces" in name for name in names(wide, torch.randn(2, 96, 7, 7)))
    for conv, side in ((wide, 8), (narrow, 4), (grouped, 4)):
        assert not any("ByPlaces" in name for name in names(conv, torch.randn(2, conv.in_channels, side, side)))
    assert wide(torch.randn(2, 96, 4, 4)).dtype == torch.float32  # without autocast nothing is rounded


def test_a_frozen_weight_passes_the_gradient_on() -> None:
    conv = Convolution(96, 96, 3, 1, 1, bias=False).requires_grad_(False)
    x = torch.randn(2, 96, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        conv(x).float().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
