"""Encoders from elsewhere: any `nn.Module`, and any network of timm."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DeviceError, UsageError


class Foreign(nn.Module):
    """A module whose output is a tensor or a list of them, as an encoder: its output as a list, its width measured.

    Args:
        net: View `[B, channels, size, size]` -> `[B, C]`, `[B, T, C]` (tokens) or `[B, C, h, w]`, or a list of these,
            deepest last. It is used as it is, not copied.
        channels: Channels of a view.
        size: Side of a view, pixels.
        name: What messages call it.

    Raises:
        UsageError: The module can't take such a view, or its output is none of the above.
    """

    def __init__(self, net: nn.Module, *, channels: int, size: int, name: str = "") -> None:
        super().__init__()
        self.net = net
        self.name = name or type(net).__name__
        last = self._try(channels, size)[-1]
        self.width = last.shape[2 if last.ndim == 3 else 1]

    def forward(self, view: Tensor) -> list[Tensor]:
        """What the module returns, as a list."""
        return _listed(self.net(view))

    def describe(self) -> str:
        """One line for people: name, width, parameters."""
        millions = sum(p.numel() for p in self.net.parameters()) / 1e6
        return f"{self.name}: width {self.width}, {millions:.1f} M parameters"

    def _try(self, channels: int, size: int) -> list[Tensor]:
        """Output for two empty views, of a copy in evaluation mode: neither its state nor torch's generator moves."""
        net = copy.deepcopy(self.net).eval()
        first = next(net.parameters(), torch.empty(0))
        view = torch.zeros(2, channels, size, size, device=first.device, dtype=first.dtype)
        asked = f"a view of shape [B, {channels}, {size}, {size}]"
        devices = [first.device] if first.device.type == "cuda" else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                maps = _listed(net(view))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise UsageError(
                f"{self.name} can't take {asked}: {error}", where="encoder", mend="another size, channels or encoder"
            ) from error
        if not maps or any(not isinstance(m, Tensor) or m.ndim not in (2, 3, 4) or len(m) != 2 for m in maps):
            shapes = [list(m.shape) if isinstance(m, Tensor) else type(m).__name__ for m in maps]
            raise UsageError(
                f"{self.name} returns {shapes} for two views",
                where="encoder",
                mend="an encoder returns [B, C], [B, T, C] or [B, C, h, w], or a list of these",
            )
        return maps


def _listed(output: Tensor | list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    return list(output) if isinstance(output, (list, tuple)) else [output]


class Timm(nn.Module):
    """A timm network as a list: its last (at most 4) maps `[B, C, h, w]`, then its own pooled vector `[B, C]`."""

    net: Any  # timm's networks share an interface, but no class

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, view: Tensor) -> list[Tensor]:
        """Maps, then the vector; networks that can't give maps give the vector alone."""
        if not hasattr(self.net, "forward_intermediates"):
            return [self.net(view)]
        count = min(4, len(self.net.feature_info))
        last, maps = self.net.forward_intermediates(view, indices=count, output_fmt="NCHW")
        return [*maps, self.net.forward_head(last)]


def timm_encoder(name: str, *, channels: int, size: int) -> Foreign:
    """An untrained network of timm, without its classifier.

    Raises:
        DeviceError: timm is not installed, or its torchvision does not fit torch.
        UsageError: timm has no such network, or it can't take such a view.
    """
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError, OSError) as error:
        raise _import_error(error) from error
    if name not in timm.list_models():
        near = timm.list_models(f"*{name.split('_')[0][:8]}*")[:8]
        raise UsageError(f"timm has no network {name!r}", where="encoder", mend=f"one of timm.list_models(): {near}")
    options = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    try:
        net = timm.create_model(name, img_size=size, **options)
    except TypeError:  # convolutional networks take any size and have no such argument
        net = timm.create_model(name, **options)
    return Foreign(Timm(net), channels=channels, size=size, name=f"timm:{name}")


def _import_error(error: Exception) -> DeviceError:
    """What to do about a timm that can't be imported; mostly it is a torchvision for another torch."""
    if isinstance(error, ModuleNotFoundError) and error.name == "timm":
        return DeviceError("timm is not installed", where="encoder timm:...", mend='pip install "nearfar[timm]"')
    if "torchvision" not in str(error):
        return DeviceError(f"timm can't be imported: {error}", where="encoder timm:...", mend="pip install -U timm")
    release, _, build = torch.__version__.partition("+")
    minor = int(release.split(".")[1])
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    missing = isinstance(error, ModuleNotFoundError) and error.name == "torchvision"
    fault = "is not installed" if missing else f"was built for another torch than {torch.__version__} ({error})"
    return DeviceError(
        f"timm needs torchvision, and torchvision {fault}",
        where="encoder timm:...",
        mend=f'pip install --force-reinstall --no-deps "torchvision==0.{minor + 15}.*"{index}',
    )
