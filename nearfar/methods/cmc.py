"""CMC: views of a scene, each through an encoder of its own, must find each other in memory banks.

Tian et al., Contrastive Multiview Coding, 2019, https://arxiv.org/abs/1906.05849. Released code:
https://github.com/HobbitLong/CMC.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from .. import encoders, extract, similarity
from ..bank import Bank
from ..encoders import Towers
from ..errors import UsageError
from ..extract.banks import bank_rows, core_view, full_graph
from ..losses import infonce
from ..losses.nce import NCE
from ..method import Extract, Method
from ..views import View
from ..views.channels import LightAndColour
from ..views.columns import ColumnViews

WIDTH = 128  # of an embedding


def cmc(
    *,
    encoder: str | nn.Module = "resnet50",
    size: int = 224,
    channels: int | tuple[int, ...] = 3,
    samples: int = 1,
    columns: tuple[str, ...] = (),
    graph: Literal["core", "full"] = "full",
    loss: Literal["nce", "softmax"] = "nce",
    negatives: int | None = 4096,
    temperature: float = 0.07,
    decay: float = 0.5,
    shared: bool = False,
) -> Method:
    """Matches the lightness of an image with its colour, or several pictures of a sample with each other.

        loss = sum over directions i -> j of NCE or softmax of <v_i, u_j> / t, u_j: rows of the bank of view j

    Args:
        encoder: Name in `encoders.ENCODERS` or `timm:NAME`; `Towers` with a network for each view, in order; with
            `shared` any module.
        size: Side of a view, pixels.
        channels: Channels of an image; of each column where they differ.
        samples: Number of samples in the data set, those that are held out counted in.
        columns: Two or more pictures of each sample, `image` and others by name. None named: L and ab of an image.
        graph: "full": every view with every other; "core": the first with each of the others.
        loss: "nce", as in the paper, or "softmax".
        negatives: Rows that each sample draws, 16384 in released code; None: all, for "softmax".
        temperature: Divides the cosine, > 0.
        decay: Share of a bank's old row that stays, in [0, 1].
        shared: One encoder and head for all columns, where these are of one kind.

    For 32 px: `encoder="small", loss="softmax", negatives=None, temperature=0.1`.
    Differs from the paper: crops of at least 0.08 of the area from 64 px on (as for its ResNets), of 0.2 below;
    encoders that are whole, where its AlexNet is one cut into halves. Several columns are cropped each by itself.

    Relations: `simclr` has one encoder for two crops of an image, and takes its negatives from the batch.

    Example:
        >>> from nearfar import methods
        >>> method = methods.cmc(encoder="small", size=32, samples=50_000, loss="softmax", negatives=None)
    """
    _check(columns, channels, loss, negatives, shared)
    names = columns or ("L", "ab")
    depths = channels if isinstance(channels, tuple) else (channels,) * len(names) if columns else (1, 2)
    net, head = _networks(encoder, names, depths, size, shared)
    view = View(size=size, scale=(0.08 if size >= 64 else 0.2, 1.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    directions = full_graph(len(names)) if graph == "full" else core_view(len(names))
    softmax = partial(infonce, temperature=temperature)
    terms = softmax if loss == "softmax" else tuple(NCE(temperature=temperature) for _ in directions)
    return Method(
        views=ColumnViews(**dict.fromkeys(names, view)) if columns else LightAndColour(view),
        encoder=net,
        extract=Extract(head=head, pair=partial(bank_rows, directions=directions, negatives=negatives)),
        similarity=similarity.cosine,
        loss=terms,
        memory=Bank(samples=samples, width=WIDTH, views=len(names), decay=decay),
    )


def _networks(
    encoder: str | nn.Module, names: tuple[str, ...], depths: tuple[int, ...], size: int, shared: bool
) -> tuple[nn.Module, nn.Module]:
    """Encoder and head: `Towers`, or one of each."""
    if shared:
        net = encoders.build(encoder, channels=depths[0], size=size)
        return net, extract.linear(net.width, WIDTH)
    lone = isinstance(encoder, nn.Module) and not isinstance(encoder, Towers)
    given = list(encoder.nets.values()) if isinstance(encoder, Towers) else [encoder] * len(names)
    if lone or len(given) != len(names):
        wanted = f"a name, or Towers({', '.join(f'{name}=...' for name in names)})"
        raise UsageError(f"{len(names)} views need as many encoders", where="encoder", mend=wanted)
    nets = [encoders.build(net, channels=depth, size=size) for net, depth in zip(given, depths, strict=True)]
    heads = [extract.linear(net.width, WIDTH) for net in nets]
    return Towers(**dict(zip(names, nets, strict=True))), Towers(**dict(zip(names, heads, strict=True)))


def _check(
    columns: tuple[str, ...], channels: int | tuple[int, ...], loss: str, negatives: int | None, shared: bool
) -> None:
    """UsageError where they contradict each other."""
    depths = channels if isinstance(channels, tuple) else ()
    faults = {
        "L and ab are of 3 channels; name two or more columns to compare others": not columns and channels != 3,
        "columns: two or more different ones": bool(columns) and not len(set(columns)) == len(columns) >= 2,
        "channels: a number for all columns, or one for each": bool(depths) and len(depths) != len(columns),
        "shared: for columns of one number of channels": shared and (not columns or len(set(depths)) > 1),
        "negatives: 1 or more, or none with loss='softmax'": loss == "nce" if negatives is None else negatives < 1,
    }
    told = "; ".join(fault for fault, there in faults.items() if there)
    if told:
        raise UsageError(told, where="cmc", mend="change these arguments")
