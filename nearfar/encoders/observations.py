"""One step of a sequence as a vector: an observation that is a vector or a picture -> z."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import UsageError

CHANNELS = (32, 64, 64)  # of the convolutions; further ones have as many as the last
SMALLEST_SIDE = 6  # pixels: below this a picture is no longer halved, so that places are told apart


class Observations(nn.Module):
    """View `[B, T, ...]`, NaN at padding -> (z `[B, T, width]`, valid `[B, T]` bool); each step by itself, no norm.

    Vectors: one hidden layer. Pictures: convolutions of stride 2 until the shorter side has at most 6 pixels, then a
    linear layer of all that is left, which still tells where something is.

    Args:
        shape: Of one observation: `(F,)` or F, or `(C, h, w)`.
        width: Width of z.
        hidden: Width of the hidden layer.

    Raises:
        UsageError: Another shape.

    Example:
        >>> import torch
        >>> z, valid = Observations((3, 16, 16), width=8)(torch.zeros(2, 5, 3, 16, 16))
        >>> list(z.shape), bool(valid.all())
        ([2, 5, 8], True)
    """

    def __init__(self, shape: int | Sequence[int], *, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if len(self.shape) not in (1, 3) or min(self.shape) < 1 or min(width, hidden) < 1:
            raise UsageError(
                f"observations of shape {list(self.shape)} to vectors of {width}",
                where="Observations",
                mend="vectors [F] or pictures [C, h, w]",
            )
        self.width = width
        self.net = _vectors(self.shape[0], hidden, width) if len(self.shape) == 1 else _pictures(self.shape, width)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """z of each step, and which steps are not padding."""
        if view.ndim < 3 or tuple(view.shape[2:]) != self.shape:
            raise UsageError(
                f"a view of shape {list(view.shape)}, observations are {list(self.shape)}",
                where="Observations",
                mend="[B, T, ...] with observations of that shape",
            )
        valid = ~view.flatten(2)[..., 0].isnan()
        steps = view.masked_fill(~valid.view(*valid.shape, *[1] * len(self.shape)), 0)
        return self.net(steps.flatten(0, 1)).unflatten(0, valid.shape), valid

    def describe(self) -> str:
        """In words."""
        kind = "vectors" if len(self.shape) == 1 else "pictures"
        return f"{kind} of {' x '.join(map(str, self.shape))} to {self.width}"


def _vectors(features: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, width))


def _pictures(shape: tuple[int, ...], width: int) -> nn.Sequential:
    before, height, breadth = shape
    layers: list[nn.Module] = []
    while min(height, breadth) > SMALLEST_SIDE or not layers:
        after = CHANNELS[min(len(layers) // 2, len(CHANNELS) - 1)]
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        before, height, breadth = after, -(-height // 2), -(-breadth // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * height * breadth, width))
