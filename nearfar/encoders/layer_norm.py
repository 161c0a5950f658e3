"""Layer norm over channels, for networks that must not learn from what batch norm tells.

Ba, Kiros, Hinton, Layer Normalization, 2016, https://arxiv.org/abs/1607.06450, eq. 4. In the place of batch norm for
CPC: Henaff et al., ICML 2020, https://arxiv.org/abs/1905.09272, section 3.1.
"""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UsageError
from .norm import BatchNorm

Module = TypeVar("Module", bound=nn.Module)
PLAIN = (BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class ChannelNorm(nn.Module):
    """`y = weight * (x - mean) / sqrt(var + eps) + bias`, mean and var over the channels of each place by itself.

    Nothing crosses places or samples. Half precision inputs have their statistics in fp32.

    Args:
        width: Channels C of the input `[B, C]` or `[B, C, ...]`.
        eps: Added to the variance.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        norm = nn.LayerNorm(width)
        self.weight, self.bias, self.width, self.eps = norm.weight, norm.bias, width, eps

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, ...]` -> the same shape."""
        return F.layer_norm(x.movedim(1, -1), (self.width,), self.weight, self.bias, self.eps).movedim(-1, 1)

    def extra_repr(self) -> str:
        """Its width."""
        return str(self.width)


def layer_norms(net: Module) -> Module:
    """Puts `ChannelNorm`, with the same weights, in the place of every batch norm of a network; returns the network.

    Args:
        net: Changed in place.

    Raises:
        UsageError: A batch norm that does more than that, as timm's, which holds the activation too.

    Example:
        >>> layer_norms(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)))[1]
        ChannelNorm(8)
    """
    for name, norm in list(net.named_modules()):
        if not isinstance(norm, _BatchNorm) or not name:
            continue
        if type(norm) not in PLAIN:
            raise UsageError(
                f"{type(norm).__name__} can't give way to layer norm",
                where=f"batch norm {name!r}",
                mend="an encoder without batch norm, or with that of torch",
            )
        instead = ChannelNorm(norm.num_features, eps=norm.eps)
        instead.weight, instead.bias = norm.weight, norm.bias
        parent, _, own = name.rpartition(".")
        setattr(net.get_submodule(parent), own, instead)
    return net
