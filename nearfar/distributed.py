"""What a loss needs of the other processes. Without a process group there is one process, and nothing is sent.

Starting processes, averaging gradients (DDP) and sharding (FSDP2) are the work of torchrun and torch.distributed. Every
process must make the same calls in the same order: one that calls alone waits for ever.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _started() else 0


def world() -> int:
    """Number of processes, >= 1."""
    return dist.get_world_size() if _started() else 1


def shares(rows: int, device: torch.device) -> list[int]:
    """How many rows each process holds; `rows` is what this one holds, `device` where its tensors are."""
    if world() == 1:
        return [rows]
    counts = [torch.empty(1, dtype=torch.int64, device=device) for _ in range(world())]
    dist.all_gather(counts, torch.tensor([rows], device=device))
    return [int(count) for count in counts]


def gather(tensor: Tensor, rows: list[int] | None = None) -> Tensor:
    """The tensors of all processes, one after the other along the first axis, in the order of their ranks. No gradient.

    Args:
        tensor: `[n, ...]`; `n` may differ between processes, the other axes may not.
        rows: `shares(n, device)` where the caller has it already; None: asked for here.

    Example:
        >>> import torch
        >>> gather(torch.arange(3))  # a single process
        tensor([0, 1, 2])
    """
    tensor = tensor.detach()
    if world() == 1:
        return tensor
    rows = shares(len(tensor), tensor.device) if rows is None else rows
    longest = max(rows)
    mine = tensor.contiguous()
    if len(mine) < longest:
        mine = torch.cat([mine, mine.new_zeros(longest - len(mine), *mine.shape[1:])])
    everyone = [torch.empty_like(mine) for _ in rows]
    dist.all_gather(everyone, mine)
    return torch.cat([part[:n] for part, n in zip(everyone, rows, strict=True)])


def total(tensor: Tensor) -> Tensor:
    """Sum over all processes, elementwise, the same on each of them. It carries gradients.

    The backward pass sums the arriving gradients over the processes: each receives the gradient of the *sum* of all
    processes' losses. DDP then averages, which makes it the gradient of their mean.

    Args:
        tensor: Any shape, the same on every process.
    """
    return tensor if world() == 1 else _Total.apply(tensor)  # pyright: ignore[reportReturnType]


def gather_with_gradient(tensor: Tensor, rows: list[int]) -> Tensor:
    """As `gather`, and gradients come back as `total` brings them: each process fills in its own rows of a sum.

    Args:
        tensor: `[n, ...]`.
        rows: `shares(n, device)`.
    """
    whole = tensor.new_zeros(sum(rows), *tensor.shape[1:])
    start = sum(rows[: rank()])
    return total(torch.cat([whole[:start], tensor, whole[start + rows[rank()] :]]))


def mean_value(tensor: Tensor) -> Tensor:
    """Mean over all processes, elementwise; for numbers that are shown, so without gradient."""
    return total(tensor.detach()) / world()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(tensor: Tensor) -> Tensor:
    copy = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(copy)
    return copy


def _started() -> bool:
    return dist.is_available() and dist.is_initialized()
