"""Encoding in chunks against encoding at once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nearfar.encoders.chunks import encode_in_chunks
from nearfar.encoders.norm import BatchNorm
from nearfar.errors import UsageError


class Maps(nn.Module):
    """Two maps; `norm` between them."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Conv2d(2, 4, 3), norm, nn.Conv2d(4, 3, 2)
        self.batches: list[int] = []

    def forward(self, view: Tensor) -> list[Tensor]:
        self.batches.append(len(view))
        first = self.norm(self.first(view)).tanh()
        return [first, self.second(first)]


def views(dtype=torch.float64) -> Tensor:
    return torch.randn(7, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=dtype)


def coupled(maps: list[Tensor]) -> Tensor:
    """A loss in which every sample meets every other."""
    flat = torch.cat([m.flatten(1).double() for m in maps], 1)
    return torch.logsumexp(flat @ flat.T / 10, 1).sum()


def value_and_gradients(net: nn.Module, view: Tensor, chunk: int | None) -> list[Tensor]:
    view = view.clone().requires_grad_()
    loss = coupled(encode_in_chunks(net, view, chunk))
    return [loss, *torch.autograd.grad(loss, [view, *net.parameters()])]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("chunk", [1, 3, 7])
@pytest.mark.parametrize("norm", [nn.Identity(), nn.GroupNorm(2, 4)])
def test_loss_and_gradients_are_those_of_the_whole_batch(norm, chunk, dtype, tolerance):
    net = Maps(copy.deepcopy(norm)).to(dtype)
    whole = value_and_gradients(net, views(dtype), None)
    net.batches.clear()
    for a, b in zip(whole, value_and_gradients(net, views(dtype), chunk), strict=True):
        assert (a - b).abs().max() <= tolerance * a.abs().max()
    expected = {1: [1] * 7, 3: [3, 3, 1], 7: [7]}[chunk]
    assert net.batches[: len(expected)] == expected
    assert len(net.batches) == len(expected) * (1 if chunk == 7 else 2)  # nothing but inputs is kept between the two


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4), BatchNorm(4), BatchNorm(4, groups=2), nn.BatchNorm2d(4, momentum=None)]
)
def test_running_statistics_see_each_chunk_once(norm):
    net = Maps(norm).double()
    twin = copy.deepcopy(net)
    for part in views().split(3):
        twin(part)
    value_and_gradients(net, views(), 3)
    for (name, a), b in zip(net.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert net.norm.num_batches_tracked.item() == 3


def test_buffers_are_the_same_objects_afterwards():
    net = Maps(BatchNorm(4)).double()
    before = [id(b) for b in net.buffers()]
    value_and_gradients(net, views(), 3)
    assert [id(b) for b in net.buffers()] == before


def test_the_second_computation_is_in_the_same_precision():
    net = Maps(nn.GroupNorm(2, 4))
    seen = []
    net.first.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    def run(chunk: int | None) -> list[Tensor]:
        view = views(torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            maps = encode_in_chunks(net, view, chunk)
        loss = coupled(maps)
        return [loss, *torch.autograd.grad(loss, [view, *net.parameters()])]  # outside of autocast, as in training

    whole, chunked = run(None), run(3)
    assert set(seen) == {torch.bfloat16} and len(seen) == 7
    assert torch.equal(whole[0], chunked[0])
    for a, b in zip(whole, chunked, strict=True):
        assert (a - b).abs().max() <= 2e-2 * a.abs().max()  # sums of bf16 in another order


def test_dropout_is_the_same_in_both_computations():
    net = Maps(nn.Dropout(0.5)).double()

    def twin() -> list[Tensor]:
        torch.manual_seed(5)
        view = views().requires_grad_()
        maps = [torch.cat(m) for m in zip(*[net(part) for part in view.split(3)], strict=True)]
        loss = coupled(maps)
        return [loss, *torch.autograd.grad(loss, [view, *net.parameters()])]

    expected, state = twin(), torch.get_rng_state()
    torch.manual_seed(5)
    for a, b in zip(expected, value_and_gradients(net, views(), 3), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_second_backward_pass_is_allowed():
    net = Maps(BatchNorm(4)).double()
    loss = coupled(encode_in_chunks(net, views(), 3))
    statistics = net.norm.running_mean.clone()
    one = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    two = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(net.norm.running_mean, statistics)


def test_without_gradient_chunks_are_computed_once():
    net = Maps(nn.Identity()).double()
    with torch.no_grad():
        maps = encode_in_chunks(net, views(), 3)
    assert net.batches == [3, 3, 1] and [len(m) for m in maps] == [7, 7]
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(maps, net(views()), strict=True))


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(UsageError, match="chunk is 0"):
        encode_in_chunks(Maps(nn.Identity()).double(), views(), 0)
