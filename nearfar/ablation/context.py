"""What a swap of one part may ask of the method it changes, and of the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..errors import UsageError
from ..method import Batch, Contrast, Loss, Method, Pairs


@dataclass(frozen=True)
class Context:
    """What stays the same for all variants of a study.

    Args:
        build: Name of an encoder -> the base method with that one.
        encoder: Name of the encoder that the method has.
        size: Side of a view, pixels.
        channels: Channels of an image.
        batch: A few training images, to try a variant on.
        temperature: Divides the scores of a similarity, in units of their size (see `swaps.measure`).
    """

    build: Callable[[str], Method]
    encoder: str
    size: int
    channels: int
    batch: Batch
    temperature: float = 0.5


@torch.no_grad()
def compared(method: Method, batch: Batch) -> list[Pairs]:
    """What a method compares in a batch. Neither its weights nor torch's generator move."""
    with torch.random.fork_rng(devices=[]):
        model = Contrast(method)
        return model.pair(*model.embed(batch), batch, model.memory)


def width(method: Method, batch: Batch) -> int:
    """Width D of what a method compares."""
    return compared(method, batch)[0].anchor.shape[-1]


def most_positives(method: Method, batch: Batch) -> int:
    """Largest number of positives that an anchor has."""
    most = 0
    for pairs in compared(method, batch):
        count = torch.zeros(pairs.anchor.shape[:-1], dtype=torch.int64)
        if pairs.anchor_key is not None and pairs.other_key is not None:
            positive = pairs.anchor_key[..., :, None] == pairs.other_key[..., None, :]
            if pairs.anchor_slot is not None and pairs.other_slot is not None:
                positive &= pairs.anchor_slot[..., :, None] != pairs.other_slot[..., None, :]
            count = positive.sum(-1)
        most = max(most, int(count.max()) + (pairs.positive is not None))
    return most


def keyword(loss: Loss | tuple[Loss, ...], name: str) -> Any:
    """A keyword argument of a loss, or of the loss inside it.

    Raises:
        UsageError: It takes none of that name.
    """
    if isinstance(loss, partial):
        inner = loss.keywords.get("loss")
        parameter = inspect.signature(loss.func).parameters.get(name)
        if parameter is not None:
            return loss.keywords.get(name, parameter.default)
        if inner is not None:
            return keyword(inner, name)
    raise UsageError(f"its loss has no {name}", where="loss", mend="a base with losses.infonce")


def with_keywords(loss: Loss | tuple[Loss, ...], **changes: Any) -> partial:
    """The same loss with other keyword arguments, wherever in it they are taken.

    Raises:
        UsageError: They are taken nowhere.

    Example:
        >>> from nearfar import losses
        >>> with_keywords(partial(losses.infonce, temperature=0.5), temperature=0.1).keywords
        {'temperature': 0.1}
    """
    for name in changes:
        keyword(loss, name)
    assert isinstance(loss, partial)  # or keyword would have raised
    taken = inspect.signature(loss.func).parameters
    here = {name: value for name, value in changes.items() if name in taken}
    rest = {name: value for name, value in changes.items() if name not in taken}
    inner = {"loss": with_keywords(loss.keywords["loss"], **rest)} if rest else {}
    return partial(loss.func, *loss.args, **{**loss.keywords, **here, **inner})
