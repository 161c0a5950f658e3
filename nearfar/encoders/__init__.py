"""The second part: encoders. View `[B, C, h, w]` -> list of feature maps, deepest last, of `.width` channels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import partial

from torch import nn

from ..errors import UsageError
from .amdim import AmdimNet
from .conv4 import Conv4
from .foreign import Foreign, timm_encoder
from .patches import PatchGrid as PatchGrid
from .pooled import pooled as pooled
from .recurrent import Recurrent as Recurrent
from .resnet import ResNet
from .resnet12 import FORMS, ResNet12
from .resnet_v2 import STAGES, ResNetV2
from .selective import selective_resnet
from .small import Small
from .sound import SOUND_ENCODERS
from .towers import Towers as Towers
from .vit import ViT as ViT

Named = ResNet | Small | ResNet12 | Conv4 | AmdimNet | ResNetV2 | Recurrent | ViT
ENCODERS: dict[str, Callable[..., Named]] = {
    "small": Small,
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
    "resnet152": partial(ResNet, 152),
    **{f"resnet{depth}-sk": partial(selective_resnet, depth) for depth in (18, 50, 101, 152)},
    "conv4": partial(Conv4, True),
    "conv4-pool": partial(Conv4, False),
    **{form: partial(ResNet12, form) for form in FORMS},
    "amdim": partial(AmdimNet, 320, 10),
    "amdim-small": partial(AmdimNet, 64, 2),
    **{f"cpc-resnet{depth}": partial(ResNetV2, depth) for depth in STAGES},
    "vit-mini": partial(ViT, 128, 6, 4),
    "vit-tiny": partial(ViT, 192, 12, 3),
    "vit-small": partial(ViT, 384, 12, 6),
    "vit-base": partial(ViT, 768, 12, 12),
    **SOUND_ENCODERS,
}
"""Name -> function of `channels`, `size` and `factor`. `NAME-x2` is the same with twice the channels."""

SMALLEST = 8  # pixels: three halvings leave one position; some encoders need more


Net = Named | Foreign
"""What `build` gives: a module with `width`."""


def build(spec: str | nn.Module, *, channels: int, size: int) -> Net:
    """An encoder by name, or any module as one.

    Args:
        spec: Name in `ENCODERS`; with `-x2`, `-x3`, ... all layers are so many times as wide; `timm:NAME` is a network
            of timm, untrained; an `nn.Module` is used as it is, and may return one tensor or a list.
        channels: Channels of a view, >= 1.
        size: Side of a view, pixels, >= 8.

    Raises:
        UsageError: An unknown name, or a view that the encoder can't take.
        DeviceError: timm is missing or broken.

    Example:
        >>> build("small", channels=1, size=28).width
        256
    """
    if isinstance(spec, Net):
        return spec
    if isinstance(spec, nn.Module):
        return Foreign(spec, channels=channels, size=size)
    if channels < 1 or size < SMALLEST:
        raise UsageError(
            f"an encoder can't take {channels} channels of {size} x {size} pixels",
            where=f"encoder {spec!r}",
            mend=f"views of at least {SMALLEST} pixels and one channel",
        )
    if spec.startswith("timm:"):
        return timm_encoder(spec.removeprefix("timm:"), channels=channels, size=size)
    name, wider, factor = spec.partition("-x")
    if name not in ENCODERS or (wider and not re.fullmatch("[1-9][0-9]?", factor)):
        near = difflib.get_close_matches(name, ENCODERS, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"no encoder {spec!r}",
            where="encoder",
            mend=f"{meant}there are {', '.join(ENCODERS)}, each with -x2, -x3, ... for more width, and timm:NAME",
        )
    return ENCODERS[name](channels=channels, size=size, factor=int(factor or 1))
