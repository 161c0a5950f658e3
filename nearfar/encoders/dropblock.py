"""DropBlock: dropout of squares of a feature map, since its neighbouring values say much the same.

Ghiasi, Lin & Le, DropBlock: A regularization method for convolutional networks, NeurIPS 2018,
https://arxiv.org/abs/1810.12890, algorithm 1 and equation 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError


class DropBlock(nn.Module):
    """`y = keep * x * (number of values / number kept)`, where `keep` is 0 in squares whose corners are drawn.

    In every channel of every sample each place where a whole square of side b fits is a corner with probability
    `gamma = rate / b^2 * h w / ((h - b + 1) (w - b + 1))`. A square larger than the map is cut to its shorter side; b
    equal to both sides drops whole channels. Where nothing is kept the result is 0. In evaluation mode `y = x`.

    The rate grows with the run: `advance(progress)` is called after each step, and the rate in force is
    `rate * min(progress / ramp, 1)`, so 0 in the first step. Progress is a buffer, saved with the weights.

    Args:
        rate: Share of values to drop at the end of the ramp, in [0, 1). Squares overlap, so a little less is dropped.
        size: Side b of a square, positions of the map, >= 1; 1 drops single values.
        ramp: Share of the run over which the rate grows, in [0, 1]; 0: the full rate from the start.

    Raises:
        UsageError: A value out of its range.

    The paper's ramp is the whole run, as here. Differs from the codes of MetaOptNet, RFS and infoPatch: they count
    forward passes, those of evaluation too, up to 40,000, in a number that is lost when a run is resumed.

    Example:
        >>> drop = DropBlock(rate=0.1, size=3)
        >>> drop.advance(0.5)
        >>> drop
        DropBlock(rate=0.1, size=3, ramp=1.0)
        >>> x = torch.ones(2, 8, 6, 6)
        >>> round(drop(x).mean().item(), 5), bool((drop.eval()(x) == x).all())
        (1.0, True)
    """

    progress: Tensor

    def __init__(self, *, rate: float = 0.1, size: int = 5, ramp: float = 1.0) -> None:
        super().__init__()
        faults = [] if 0 <= rate < 1 else [f"rate={rate!r}: at least 0 and below 1"]
        faults += [] if isinstance(size, int) and size >= 1 else [f"size={size!r}: a whole number >= 1"]
        faults += [] if 0 <= ramp <= 1 else [f"ramp={ramp!r}: between 0 and 1"]
        if faults:
            raise UsageError("; ".join(faults), where="DropBlock", mend="change these arguments")
        self.rate, self.size, self.ramp = rate, size, ramp
        self.register_buffer("progress", torch.zeros(()))

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Tells how far the run is: steps done over all steps, in [0, 1]."""
        self.progress.fill_(progress)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` -> the same shape and dtype."""
        if not self.training or self.rate == 0:
            return x
        if x.ndim != 4:
            raise UsageError(f"DropBlock needs maps [B, C, h, w], got {list(x.shape)}", where="DropBlock")
        with torch.no_grad():
            keep = self.keep(x)
            keep = keep * (keep.numel() / keep.sum().clamp(min=1))
        return (x * keep).to(x.dtype)  # fp32 up to here: a factor rounded to bf16 would be off alike in every value

    def keep(self, x: Tensor) -> Tensor:
        """1 where a value stays and 0 where it goes, fp32 `[B, C, h, w]`, drawn with torch's generator."""
        batch, channels, height, width = x.shape
        side = min(self.size, height, width)
        down, across = height - side + 1, width - side + 1
        # Drawn as [B, h, w, C], so that a seed gives the same squares in any memory format. Progress stays where it
        # is: reading it here would make the GPU wait in every step.
        draws = torch.rand(batch, down, across, channels, device=x.device).permute(0, 3, 1, 2)
        share = (self.progress.float() / self.ramp).clamp(max=1) if self.ramp else 1.0
        corners = (draws < share * (self.rate / side**2 * (height * width) / (down * across))).float()
        return 1 - F.max_pool2d(F.pad(corners, [side - 1] * 4), side, stride=1)

    def extra_repr(self) -> str:
        """The settings."""
        return f"rate={self.rate}, size={self.size}, ramp={self.ramp}"
