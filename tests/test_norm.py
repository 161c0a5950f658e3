"""Batch norm against torch's, against loops over parts, and on two processes against one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nearfar.encoders.chunks import encode_in_chunks
from nearfar.encoders.norm import BatchNorm, split_batch_norm
from nearfar.errors import UsageError


def images(count: int = 12, dtype=torch.float64) -> Tensor:
    return torch.randn(count, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 + 1


def randomised(norm: BatchNorm) -> BatchNorm:
    generator = torch.Generator().manual_seed(1)
    for p in norm.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return norm


def part_twin(x: Tensor, norm: BatchNorm) -> Tensor:
    """Channel by channel, over batch and positions of one part."""
    y = torch.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].flatten()
        mean = values.sum() / len(values)
        var = ((values - mean) ** 2).sum() / len(values)
        y[:, c] = norm.weight[c] * (x[:, c] - mean) / (var + norm.eps).sqrt() + norm.bias[c]
    return y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5, 3), (6, 4, 7)])
def test_one_process_and_one_part_is_torchs_own_bit_for_bit(training, shape):
    ours = BatchNorm(4)
    theirs = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](4)
    theirs.load_state_dict(ours.state_dict())
    for seed in range(2):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        outputs = [norm.train(training)(x) for norm in (ours, theirs)]
        assert torch.equal(*outputs)
        gradients = [torch.autograd.grad(y.square().sum() + y.sum(), x)[0] for y in outputs]
        assert torch.equal(*gradients)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert isinstance(ours, nn.modules.batchnorm._BatchNorm)


@pytest.mark.parametrize("count", [12, 11])
def test_parts_have_statistics_of_their_own(count):
    norm, x = randomised(BatchNorm(3, groups=3).double()), images(count).requires_grad_()
    starts = [0, 4, 8, count]
    twin = torch.cat([part_twin(x[a:b], norm) for a, b in zip(starts, starts[1:], strict=False)])
    y = norm(x)
    assert torch.allclose(y, twin, rtol=1e-12, atol=1e-12)
    one, two = (torch.autograd.grad(v.pow(3).sum(), x)[0] for v in (y, twin))
    assert torch.allclose(one, two, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(y, part_twin(x, norm), atol=1e-3)


def test_running_statistics_move_by_momentum_over_parts_for_each_part():
    norm, x = BatchNorm(3, groups=3, momentum=0.3).double(), images()
    mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for part in x.split(4):
        mean = 0.9 * mean + 0.1 * part.mean((0, 2, 3))
        var = 0.9 * var + 0.1 * part.transpose(0, 1).flatten(1).var(1)
    norm(x)
    assert torch.allclose(norm.running_mean, mean) and torch.allclose(norm.running_var, var)
    assert norm.num_batches_tracked.item() == 1


def test_evaluation_uses_running_statistics_whatever_the_parts():
    norm, x = randomised(BatchNorm(3, groups=3).double()), images()
    norm(x)
    norm.eval()
    y = norm(x)
    assert torch.equal(y, split_batch_norm(copy.deepcopy(norm), 1)(x))
    assert torch.allclose(y[:1], norm(x[:1]), rtol=1e-12)


def test_a_teachers_parts_are_not_the_trained_networks():
    norm, x = randomised(BatchNorm(3, groups=3).double()), images()
    with torch.no_grad():
        y = norm(x)
    for number in range(3):
        assert torch.allclose(y[number::3], part_twin(x[number::3], norm), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(y, norm(x), atol=1e-3)


def test_without_offset_there_is_no_bias():
    norm = BatchNorm(3, offset=False)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    y = norm(images(dtype=torch.float32)[:, :, 0, 0])
    assert y.mean(0).abs().max() < 1e-6
    assert torch.allclose(split_batch_norm(norm, 2)(y)[:6].mean(0), torch.zeros(3), atol=1e-6)


def test_statistics_of_half_precision_are_full_precision():
    x = images(dtype=torch.float32).bfloat16()
    y = BatchNorm(3)(x)
    z = BatchNorm(3, groups=2)(x)
    assert y.dtype == z.dtype == torch.bfloat16
    assert torch.equal(y, BatchNorm(3)(x.float()).bfloat16())
    assert torch.equal(z, BatchNorm(3, groups=2)(x.float()).bfloat16())


def test_channels_last_stays():
    x = images().contiguous(memory_format=torch.channels_last)
    for groups in (1, 3):
        assert BatchNorm(3, groups=groups).double()(x).is_contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            assert BatchNorm(3, groups=groups).double()(x).is_contiguous(memory_format=torch.channels_last)


def test_a_vector_is_refused():
    with pytest.raises(UsageError, match=r"got \[3\]"):
        BatchNorm(3)(torch.zeros(3))


def test_split_batch_norm_sets_all_and_names_what_it_cannot_split():
    net = nn.Sequential(BatchNorm(3), nn.Sequential(BatchNorm(4)))
    assert split_batch_norm(net, 4) is net
    assert [m.groups for m in net.modules() if isinstance(m, BatchNorm)] == [4, 4]
    assert "groups=4" in repr(net)
    assert split_batch_norm(nn.Sequential(nn.GroupNorm(1, 2)), 8) is not None
    foreign = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert split_batch_norm(foreign, 1) is foreign
    with pytest.raises(UsageError, match="BatchNorm2d can't .* batch norm '1'"):
        split_batch_norm(foreign, 2)
    with pytest.raises(UsageError, match="groups is 0"):
        split_batch_norm(net, 0)


def network(groups: int) -> nn.Sequential:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 4, 3), BatchNorm(4), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.Flatten(), nn.Linear(10, 6)]
    net = nn.Sequential(*layers, BatchNorm(6, offset=False), nn.Tanh(), nn.Linear(6, 2)).double()
    return split_batch_norm(net, groups)


def result(net: nn.Module, x: Tensor, whole: int, processes: int) -> dict[str, Tensor]:
    """Outputs of two passes; gradients of a mean over the whole batch; running statistics."""
    inner = net.module if isinstance(net, DistributedDataParallel) else net
    x = x.clone().requires_grad_()
    output = net(x)
    (output.pow(3).sum() / whole * processes).backward()
    with torch.no_grad():
        net(x + 1)
    found = {name: p.grad.clone() for name, p in inner.named_parameters()} | dict(inner.named_buffers())
    return found | {"output": output.detach(), "input": x.grad / processes}


class InChunks(nn.Module):
    """Chunks of the network's input; on one process made of the same samples as on two."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(net, AsList())

    def forward(self, x: Tensor) -> Tensor:
        return encode_in_chunks(self.net, x, 3 if dist.is_initialized() else 6)[0]


class AsList(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


CASES = {"equal": (6, 6), "unequal": (5, 7)}


def process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    x, found = images(), {}
    for name, sizes in CASES.items():
        net = DistributedDataParallel(network(1))
        found[name] = result(net, x.split(sizes)[rank], len(x), 2)
    found["parts"] = result(DistributedDataParallel(network(4)), x.split(6)[rank], len(x), 2)
    found["chunks"] = result(DistributedDataParallel(InChunks(network(1))), x.split(6)[rank], len(x), 2)
    half = BatchNorm(3)
    found["half"] = {"output": half(x.split(6)[rank].bfloat16()), "var": half.running_var}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()  # one that leaves while the other still talks to it may abort in gloo's threads
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.spawn(process, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for case, groups in (("equal", 1), ("unequal", 1), ("parts", 4)):
        alone = result(network(groups), images(), 12, 1)
        for name, expected in alone.items():
            if name in ("output", "input"):
                both = torch.cat([first[case][name], second[case][name]])
                assert torch.allclose(both, expected, rtol=1e-10, atol=1e-12), (case, name)
            elif case != "parts" or "running" not in name:  # there each process has seen its own parts
                for found in (first[case][name], second[case][name]):
                    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12), (case, name)
    order = [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]  # the first chunks of both, then the second chunks of both
    for name, expected in result(InChunks(network(1)), images()[order], 12, 1).items():
        if name not in ("output", "input"):
            assert torch.allclose(first["chunks"][name], expected, rtol=1e-10, atol=1e-12), name
            assert torch.allclose(second["chunks"][name], expected, rtol=1e-10, atol=1e-12), name
    half = torch.cat([first["half"]["output"], second["half"]["output"]])
    assert half.dtype == torch.bfloat16
    alone = BatchNorm(3)
    assert (half.float() - alone(images().bfloat16().float())).abs().max() < 2e-2  # the output is rounded to bf16
    assert torch.allclose(first["half"]["var"], alone.running_var, rtol=1e-6)  # its statistics are not
