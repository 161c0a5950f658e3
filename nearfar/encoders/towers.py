"""One network for each view: what methods have that compare different kinds of things (CMC, CLIP)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .pooled import pooled


class Towers(nn.Module):
    """Networks by name, in the order of the views: view i goes through network i.

    Args:
        nets: Encoders or heads. One network under several names is shared by these views.

    Called with a list of views it gives what evaluation takes for their representation: that of each, side by side
    (Tian et al., Contrastive Multiview Coding, 2019, section 4.1, https://arxiv.org/abs/1906.05849).

    Example:
        >>> import torch
        >>> from nearfar import encoders
        >>> light, colour = (encoders.build("small", channels=channels, size=32) for channels in (1, 2))
        >>> towers = Towers(L=light, ab=colour)
        >>> towers([torch.zeros(2, 1, 32, 32), torch.zeros(2, 2, 32, 32)])[-1].shape
        torch.Size([2, 512])
    """

    def __init__(self, **nets: nn.Module) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(nets)

    @property
    def names(self) -> list[str]:
        """In the order of the views."""
        return list(self.nets)

    @property
    def width(self) -> int:
        """Width of all representations side by side."""
        return sum(int(getattr(net, "width", 0)) for net in self.nets.values())

    def __getitem__(self, name: str) -> nn.Module:
        return self.nets[name]

    def describe(self) -> str:
        """The networks in words."""
        told = [
            f"{name}: {getattr(net, 'describe', lambda net=net: type(net).__name__)()}"
            for name, net in self.nets.items()
        ]
        return "; ".join(told)

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """Views -> one vector a sample."""
        nets = self.nets.values()
        return [torch.cat([pooled(net(view)).float() for net, view in zip(nets, views, strict=True)], dim=1)]


def tower(net: nn.Module, view: int) -> nn.Module:
    """The network that a view goes through."""
    return net[net.names[view]] if isinstance(net, Towers) else net
