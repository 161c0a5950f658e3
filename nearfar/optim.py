"""Optimisers, the learning rate's schedule, and optimiser state by parameter name.

Every optimiser leaves tensors of at most one dimension (biases, norms, a learned temperature) out of weight decay.
"""

# torch's own optimisers are made of torch._foreach_*, but it does not list them as exported.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from .errors import IntegrityError, UsageError


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling: every tensor moves in proportion to its own norm.

        g <- g + weight_decay * w
        g <- g * trust * |w| / |g|       (left alone where either norm is 0)
        v <- momentum * v + g
        w <- w - lr * v

    The learning rate is outside the momentum buffer, as in `torch.optim.SGD`, MoCo v3, Barlow Twins and VICReg; in
    SimCLR's released code it is inside. The two differ while the learning rate changes. Groups with `adapt=False`
    leave out the second line, and are then plain momentum SGD.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate, >= 0.
        momentum: In [0, 1).
        weight_decay: >= 0.
        trust: Trust coefficient.
        adapt: Whether the step follows the tensor's norm.

    Differs from the paper: there the weight decay is added to the norm of the gradient, not to the gradient.

    You et al., Large Batch Training of Convolutional Networks, 2017, https://arxiv.org/abs/1708.03888, algorithm 1.
    """

    def __init__(
        self, params, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3, adapt=True
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One step, from the gradients that are there; returns the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._step(group, weights, [p.grad for p in weights])
        return loss

    def _step(self, group: dict, weights: list[Tensor], gradients: list[Tensor]) -> None:
        changes = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        if group["adapt"]:
            size, slope = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(changes))
            ratio = torch.where((size > 0) & (slope > 0), group["trust"] * size / slope, 1.0)
            torch._foreach_mul_(changes, list(ratio.unbind()))
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, changes)
        torch._foreach_add_(weights, buffers, alpha=-group["lr"])


KEYS = {SGD: ("momentum_buffer",), LARS: ("momentum_buffer",), AdamW: ("step", "exp_avg", "exp_avg_sq")}
NAMES = ("sgd", "adamw", "lars")
UNTOUCHED = "none"  # key of a parameter that has had no gradient yet


def build(model: nn.Module, *, name: str, lr: float, weight_decay: float, momentum: float = 0.9) -> Optimizer:
    """An optimiser of everything in a model that requires a gradient.

    Groups, in the order of `model.named_parameters()`: tensors of two and more dimensions with weight decay, then the
    others without (and, for LARS, without adaptation); then likewise what is in modules with `constant_lr = True`
    (SimSiam's predictor), whose learning rate does not follow the schedule. A group says `decayed` and `constant`.
    SGD and AdamW are torch's, fused, which was 3 and 6 times as fast as its other two forms on a CPU core.

    Args:
        model: Anything with parameters.
        name: sgd (momentum, not Nesterov's), adamw (betas 0.9 and 0.999), lars (trust coefficient 0.001).
        lr: Learning rate, >= 0.
        weight_decay: >= 0; for AdamW decoupled from the gradient.
        momentum: In [0, 1); AdamW has its own.

    Raises:
        UsageError: An unknown name, a value out of range, or nothing to train.

    Example:
        >>> from torch import nn
        >>> optimizer = build(nn.Linear(2, 3), name="lars", lr=0.3, weight_decay=1e-6)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [1e-06, 0.0]
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"no optimiser {name!r}", where="optimiser", mend=f"{meant}there are {', '.join(NAMES)}")
    ranges = {"lr": (lr, math.inf), "weight_decay": (weight_decay, math.inf), "momentum": (momentum, 1.0)}
    for key, (value, end) in ranges.items():
        if not 0 <= value < end:
            raise UsageError(f"{key} is {value}", where=key, mend=f"a number from 0{' to below 1' if end == 1 else ''}")
    trained = [p for p in model.parameters() if p.requires_grad]
    steady = {p for m in model.modules() if getattr(m, "constant_lr", False) for p in m.parameters()}
    if not trained:
        raise UsageError(
            "nothing to train: no parameter requires a gradient", where="optimiser", mend="unfreeze a part"
        )
    groups = []
    for constant in (False, True):
        for decayed in (True, False):
            some = [p for p in trained if (p in steady) == constant and (p.ndim > 1) == decayed]
            decay = weight_decay if decayed else 0.0
            groups.append({"params": some, "weight_decay": decay, "decayed": decayed, "constant": constant})
    groups = [group for group in groups if group["params"]]
    if name == "lars":
        groups = [group | {"adapt": group["decayed"]} for group in groups]
        return LARS(groups, lr=lr, momentum=momentum)
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=momentum, fused=True)
    return AdamW(groups, lr=lr, fused=True)


def schedule(step: int, *, total: int, warmup: int, peak: float, final: float = 0.0) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine.

        step < warmup:  peak * (step + 1) / warmup
        else:           final + (peak - final) * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2

    Args:
        step: Step, from 0; from `total` on the rate is `final`.
        total: Steps of the whole run.
        warmup: Steps of warm-up, in [0, total].
        peak: Learning rate after warm-up.
        final: Learning rate at `total`.

    Raises:
        UsageError: More steps of warm-up than steps.

    Example:
        >>> [schedule(s, total=6, warmup=2, peak=1.0) for s in (0, 1, 2, 4, 6)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if not 0 <= warmup <= total:
        raise UsageError(f"{warmup} steps of warm-up in a run of {total}", where="warmup", mend="a shorter warm-up")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return final
    return final + (peak - final) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def staircase(step: int, *, drops: Sequence[int], warmup: int, peak: float, factor: float = 0.1) -> float:
    """Learning rate of a step: linear warm-up, then `peak * factor ^ (number of drops at or before the step)`.

    Args:
        step: Step, from 0.
        drops: Steps at which the rate drops.
        warmup: Steps of warm-up.
        peak: Rate after the warm-up.
        factor: Of a drop, in (0, 1].

    Example:
        >>> [round(staircase(step, drops=(2, 4), warmup=1, peak=1.0), 4) for step in range(5)]
        [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * factor ** sum(step >= drop for drop in drops)


@torch.no_grad()
def clip_each(optimizer: Optimizer, most: float) -> None:
    """Shrinks each parameter's gradient, by itself, to a norm of at most `most` (Caron et al. 2021, as DINO does).

    Args:
        optimizer: Whose parameters.
        most: Largest norm, > 0.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if gradients:
        ratios = most / torch.stack(torch._foreach_norm(gradients)).clamp(min=most)
        torch._foreach_mul_(gradients, list(ratios.unbind()))


def scaled_lr(base: float, batch: int) -> float:
    """`base * batch / 256`, `batch` over all processes (Goyal et al. 2017, https://arxiv.org/abs/1706.02677)."""
    return base * batch / 256


def named_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """All state of an optimiser from `build`, as `"<parameter>/<key>"`: the optimiser's own tensors, not copies.

    A parameter that has had no gradient yet is there as `"<parameter>/none"`, an empty tensor.
    """
    tensors = {}
    for name, parameter in _trained(model, optimizer).items():
        state = {key: value for key, value in optimizer.state.get(parameter, {}).items() if value is not None}
        tensors |= {f"{name}/{key}": value for key, value in (state or {UNTOUCHED: torch.empty(0)}).items()}
    return tensors


def load_named_state(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts copies of what `named_state` returned into an optimiser of the same kind, bit for bit.

    Raises:
        IntegrityError: A tensor that is missing, too many, or of another shape or type. The optimiser is as before.
    """
    trained, keys = _trained(model, optimizer), KEYS[type(optimizer)]
    expected = {}
    for name, parameter in trained.items():
        for key in (UNTOUCHED,) if f"{name}/{UNTOUCHED}" in tensors else keys:
            expected[f"{name}/{key}"] = (parameter, key)
    for name in [*expected, *tensors]:
        if name not in tensors or name not in expected:
            fault = "is missing" if name in expected else "belongs to no trained parameter of this model"
            raise IntegrityError(f"optimiser state {name!r} {fault}", where=name, mend=_RESTART)
    for name, (parameter, key) in expected.items():
        _check(name, tensors[name], parameter, key)
    order = {p: number for number, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    state: dict[int, dict[str, Tensor]] = {}
    for name, (parameter, key) in expected.items():
        if key != UNTOUCHED:
            # In the parameter's own layout: fused optimisers walk through memory, whatever the strides say.
            like = tensors[name] if key == "step" else parameter
            state.setdefault(order[parameter], {})[key] = torch.empty_like(like).copy_(tensors[name])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


_RESTART = "the checkpoint is damaged, or of another model or optimiser: take the one before it, or start again"


def _trained(model: nn.Module, optimizer: Optimizer) -> dict[str, nn.Parameter]:
    held = {p for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if p in held}


def _check(name: str, tensor: Tensor, parameter: nn.Parameter, key: str) -> None:
    shape = {"step": torch.Size(), UNTOUCHED: torch.Size([0])}.get(key, parameter.shape)
    dtype = torch.float32 if key in ("step", UNTOUCHED) else parameter.dtype
    if tensor.shape != shape or tensor.dtype != dtype:
        raise IntegrityError(
            f"optimiser state {name!r} is {tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}",
            where=name,
            mend=_RESTART,
        )
