"""A context that runs along time: every step's z told apart, and what the steps so far amount to.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, section 2.2,
https://arxiv.org/abs/1807.03748.
"""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import UsageError

Kind = Literal["gru", "lstm"]
Representation = Literal["context", "cells", "last"]
KINDS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """View -> `[z [B, T, D], c [B, T, H], representation [B, H or D]]`; c of a step has seen the steps up to it.

        z = cells(x),    c_t = g(z_1 ... z_t),    representation = mean of c over the valid steps

    Steps of padding are zero in z and c and take no part in the representation, which is zero where no step is valid.
    Padding comes last, so no valid step has seen any. The recurrence runs in fp32 (fp64) whatever the autocast.

    Args:
        cells: View -> (z `[B, T, D]`, valid `[B, T]` bool: False at padding), a step at a time or causal itself.
        width: Width D of z.
        context: Width H of c.
        kind: "gru" (Cho et al. 2014) or "lstm" (Hochreiter & Schmidhuber 1997); one layer.
        representation: What evaluation sees: the mean of c ("context"), of z ("cells"), or c of the last valid step.

    Raises:
        UsageError: An unknown kind or representation, a width < 1.

    Example:
        >>> import torch
        >>> from nearfar.encoders.observations import Observations
        >>> net = Recurrent(Observations((3,), width=8), width=8, context=16)
        >>> [list(found.shape) for found in net(torch.zeros(2, 5, 3))]
        [[2, 5, 8], [2, 5, 16], [2, 16]]
    """

    def __init__(
        self,
        cells: nn.Module,
        *,
        width: int,
        context: int = 256,
        kind: Kind = "gru",
        representation: Representation = "context",
    ) -> None:
        super().__init__()
        _check(kind, representation)
        if min(width, context) < 1:
            raise UsageError(f"widths {width} and {context}", where="Recurrent", mend="1 or more each")
        self.cells, self.recurrence = cells, KINDS[kind](width, context, batch_first=True)
        self.kind, self.representation = kind, representation
        self.cell_width, self.context_width = width, context

    @property
    def width(self) -> int:
        """Width of the representation."""
        return self.cell_width if self.representation == "cells" else self.context_width

    def represented(self, representation: Representation | None) -> Recurrent:
        """The same network, its weights shared, with another representation; None: itself.

        Raises:
            UsageError: An unknown representation.
        """
        if representation is None:
            return self
        _check(self.kind, representation)
        other = copy.copy(self)
        other.representation = representation
        return other

    def forward(self, view: Tensor) -> list[Tensor]:
        """z and c of every step, and the representation."""
        z, valid = self.cells(view)
        z = (z if z.dtype == torch.float64 else z.float()).masked_fill(~valid[..., None], 0)
        with torch.autocast(z.device.type, enabled=False):
            c = self.recurrence(z)[0].masked_fill(~valid[..., None], 0)
            return [z, c, self._represented(z, c, valid)]

    def _represented(self, z: Tensor, c: Tensor, valid: Tensor) -> Tensor:
        """Mean over valid steps, or the last of them; both are zero where there is none."""
        if self.representation == "last":
            steps = torch.arange(valid.shape[1], device=valid.device)
            last = (steps * valid).amax(1)
            return c[torch.arange(len(c), device=c.device), last]
        cells = z if self.representation == "cells" else c
        return cells.sum(1) / valid.sum(1, keepdim=True).clamp_min(1)

    def describe(self) -> str:
        """One line for people: cells, context, representation, parameters."""
        cells = getattr(self.cells, "describe", lambda: type(self.cells).__name__)()
        told = {"context": "mean context", "cells": "mean cell", "last": "last context"}[self.representation]
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        recurrence = f"{self.kind.upper()} {self.context_width}"
        return f"{cells}; {recurrence}, {told} of width {self.width}, {millions:.1f} M parameters"

    def extra_repr(self) -> str:
        """What `describe` says."""
        return self.describe()


def _check(kind: str, representation: str) -> None:
    if kind not in KINDS or representation not in get_args(Representation):
        raise UsageError(
            f"kind {kind!r}, representation {representation!r}",
            where="Recurrent",
            mend=f"kind: {', '.join(KINDS)}; representation: {', '.join(get_args(Representation))}",
        )
