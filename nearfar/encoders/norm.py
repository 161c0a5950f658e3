"""Batch norm over all processes, or over parts of a batch.

Ioffe & Szegedy, Batch Normalization, ICML 2015, https://arxiv.org/abs/1502.03167, algorithm 1.
Parts: Hoffer et al., Train longer, generalize better, NeurIPS 2017, https://arxiv.org/abs/1705.08741, algorithm 1.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..distributed import total, world
from ..errors import UsageError

Module = TypeVar("Module", bound=torch.nn.Module)


class BatchNorm(_BatchNorm):
    """`y = weight * (x - mean) / sqrt(var + eps) + bias`, mean and var per channel over batch and positions.

    The statistics are those of the global batch: over all processes where there are several, on any device, so one
    training on 1, 2 or 4 processes has the same gradients. With one process and one part this is torch's own kernel.
    Half precision inputs have their statistics in fp32.

    With `groups` > 1 each part of the batch has its own statistics (ghost batch norm), and nothing crosses processes:
    every process makes `ceil(groups / processes)` parts of its own samples, so the global batch has `groups` of them.
    Parts are runs of samples; in a pass without gradient (a teacher's) they are every n-th sample. So a query and its
    key are not normalised in the same company, which is what shuffling keys among GPUs is for in MoCo.

    Args:
        width: Channels C of the input `[B, C]` or `[B, C, ...]`.
        groups: Parts of the global batch, >= 1; sizes differ by one where the batch is not a multiple.
        scale: False: no weight.
        offset: False: no bias.
        momentum: Weight of a step's statistics in the running ones; each of n parts moves them by `momentum / n`.
        eps: Added to the variance.

    Differs from the paper: running variances are kept by exponential average, not computed after training.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        width: int,
        *,
        groups: int = 1,
        scale: bool = True,
        offset: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(width, eps=eps, momentum=momentum)
        self.groups = groups
        if not scale:
            self.register_parameter("weight", None)
        if not offset:
            self.bias = None

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise UsageError(f"batch norm needs [B, C] or [B, C, ...], got {list(input.shape)}", where="BatchNorm")

    def forward(self, input: Tensor) -> Tensor:
        """`[B, C, ...]` -> the same shape and dtype."""
        if not self.training or (self.groups == 1 and world() == 1):
            return super().forward(input)
        self._check_input_dim(input)
        self.num_batches_tracked.add_(1)
        if self.groups == 1:
            return self._over_processes(input)
        parts = -(-self.groups // world())
        if torch.is_grad_enabled():
            return torch.cat([self._part(part, parts) for part in input.tensor_split(parts)])
        output = torch.empty_like(input)
        for number in range(parts):
            output[number::parts] = self._part(input[number::parts], parts)
        return output

    def _part(self, part: Tensor, parts: int) -> Tensor:
        momentum = self.momentum / parts
        return F.batch_norm(part, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps)

    def _over_processes(self, input: Tensor) -> Tensor:
        """Two sums over processes, of C numbers each: means first, then squares around the global mean."""
        x = input if input.dtype == torch.float64 else input.float()
        var, mean = torch.var_mean(x, [d for d in range(x.ndim) if d != 1], correction=0)
        own = x.numel() // x.shape[1]
        sums = total(torch.cat([mean * own, mean.new_full((1,), own)]))
        count = sums[-1].detach()
        centre = sums[:-1] / count
        var = total((var + (mean - centre).square()) * own) / count
        with torch.no_grad():
            self.running_mean.lerp_(centre.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
        scale = torch.rsqrt(var + self.eps)
        scale = scale if self.weight is None else self.weight * scale
        shift = -centre * scale if self.bias is None else self.bias - centre * scale
        over = (-1, *[1] * (x.ndim - 2))
        return (x * scale.view(over) + shift.view(over)).to(input.dtype)

    def extra_repr(self) -> str:
        """Adds the parts to torch's line."""
        return super().extra_repr() + (f", groups={self.groups}" if self.groups > 1 else "")


def split_batch_norm(module: Module, groups: int) -> Module:
    """Sets the number of parts in every batch norm of a module, and returns the module.

    Args:
        module: Changed in place.
        groups: Parts of the global batch, >= 1; 1: the whole batch.

    Raises:
        UsageError: `groups` < 1, or a batch norm that is not `nearfar.encoders.norm.BatchNorm`.
    """
    if groups < 1:
        raise UsageError(f"groups is {groups}", where="groups", mend="1 for statistics of the whole batch, 8 for MoCo")
    norms = {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}
    foreign = [name for name, norm in norms.items() if not isinstance(norm, BatchNorm)]
    if foreign and groups > 1:
        kind = type(norms[foreign[0]]).__name__
        raise UsageError(
            f"{kind} can't have statistics of its own for each of {groups} parts of a batch",
            where=f"batch norm {foreign[0]!r} and {len(foreign) - 1} more",
            mend="groups=1, an encoder without batch norm, or nearfar.encoders.norm.BatchNorm in its place",
        )
    for norm in norms.values():
        if isinstance(norm, BatchNorm):
            norm.groups = groups
    return module
