"""The fourth part: similarity. Both sides are mapped so that the score is a dot product: `s = curve(f(a) . g(b))`.

So one tiled loss serves them all. One with weights is an `nn.Module` with the same four attributes (`Bilinear`).
Falcon & Cho 2020 (https://arxiv.org/abs/2009.00104) is where the measures are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Curve:
    """An elementwise map of the scores and its slope: `value(s)` and `slope(s)`, both `[...] -> [...]`."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


class Similarity(Protocol):
    """What a loss asks of a similarity.

    `anchor` and `other` map `[..., D] -> [..., D']`; the score is the dot product of the two results.
    `curve` is applied to every score, or None. A `bound` > 0 says |score| <= bound, so that the log-sum-exp needs no
    running maximum; None or 0 say nothing of the size.
    """

    @property
    def anchor(self) -> Callable[[Tensor], Tensor]: ...
    @property
    def other(self) -> Callable[[Tensor], Tensor]: ...
    @property
    def curve(self) -> Curve | None: ...
    @property
    def bound(self) -> float | None: ...


@dataclass(frozen=True)
class Mapped:
    """A similarity without weights."""

    anchor: Callable[[Tensor], Tensor]
    other: Callable[[Tensor], Tensor]
    curve: Curve | None = None
    bound: float | None = None
    name: str = ""


TINY = 1e-12
"""Length below which a vector counts as that long where it is made unit."""


def unit(x: Tensor) -> Tensor:
    """`x / max(|x|, 1e-12)` along the last axis; a zero vector stays zero. No second derivatives."""
    return _Unit.apply(x)  # pyright: ignore[reportReturnType]


class _Unit(torch.autograd.Function):
    """`F.normalize` with its gradient in closed form, `(g - u (u . g)) / |x|`: less than half the time."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=TINY)
        found = x / length
        ctx.save_for_backward(found, length)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor) -> Tensor:
        found, length = ctx.saved_tensors
        along = (found * upstream).sum(-1, keepdim=True).mul_(length > TINY)  # a shorter vector is not made unit
        return torch.addcmul(upstream, found, along, value=-1).div_(length)


def identity(x: Tensor) -> Tensor:
    """`x`."""
    return x


def _scaled(x: Tensor) -> Tensor:
    return x / x.shape[-1] ** 0.5


def _distance_anchor(x: Tensor) -> Tensor:
    return torch.cat([2 * x, -x.pow(2).sum(-1, keepdim=True), torch.ones_like(x[..., :1])], dim=-1)


def _distance_other(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1]), -x.pow(2).sum(-1, keepdim=True)], dim=-1)


def _clip_value(s: Tensor, limit: float) -> Tensor:
    return limit * torch.tanh(s / limit)


def _clip_slope(s: Tensor, limit: float) -> Tensor:
    return 1 - torch.tanh(s / limit).pow(2)


cosine = Mapped(unit, unit, bound=1.0)
"""`<a, b> / (|a| |b|)`, in [-1, 1]."""

dot = Mapped(identity, identity)
"""`<a, b>`."""

scaled_dot = Mapped(_scaled, identity)
"""`<a, b> / sqrt(D)`."""

negative_distance = Mapped(_distance_anchor, _distance_other)
"""`-|a - b|^2`, as a dot product of vectors with two more coordinates; <= 0 up to rounding."""


def clipped_dot(limit: float = 20.0) -> Mapped:
    """`limit * tanh(<a, b> / sqrt(D) / limit)`, |s| < limit: AMDIM's soft clip (Bachman et al. 2019, section 3.2)."""
    curve = Curve(partial(_clip_value, limit=limit), partial(_clip_slope, limit=limit))
    return Mapped(_scaled, identity, curve, bound=limit, name=f"clipped_dot({limit:g})")


class Bilinear(nn.Module):
    """`a^T W b` with a learned `W [D, D]`, as in CPC (van den Oord et al. 2018, eq. 3). W starts as the identity."""

    curve: Curve | None = None
    bound: float | None = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.map.weight)

    def anchor(self, x: Tensor) -> Tensor:
        """`W^T a`, `[..., D] -> [..., D]`."""
        return self.map(x)

    def other(self, x: Tensor) -> Tensor:
        """`b`, unchanged."""
        return x
