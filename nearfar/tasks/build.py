"""From settings to data and method: what training, preview and a stored run have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..data import Dataset
from ..errors import UsageError
from ..method import Method
from ..method_file import register
from ..methods import METHODS, USUAL
from ..randomness import address
from ..settings import TrainSettings, check_signature, parse, read_yaml, unknown, yaml_lines
from ..views import View

Built = TypeVar("Built")


def check(settings: Mapping[str, object], config: str | Path | None = None) -> TrainSettings:
    """Settings of a file and of the caller, who comes first, all checked; one UsageError tells everything wrong."""
    stored = read_yaml(config) if config else {}
    places = yaml_lines(config) if config else {}
    where = {name: place for name, place in places.items() if name not in settings} or "settings"
    given = {**stored, **settings}
    if isinstance(given.get("method"), str):
        given["method"] = register(given["method"])
    checked = parse(_with_usual(given), where=where, methods=METHODS)
    check_signature(View, checked.view, where="view", reserved=("size",))
    return checked


def _with_usual(settings: dict[str, object]) -> dict[str, object]:
    """Settings with the method's own defaults; those of an optimiser go with it."""
    usual = USUAL.get(str(settings.get("method")), {})
    own = usual.get("optimizer", TrainSettings.model_fields["optimizer"].default)
    if settings.get("optimizer", own) != own:
        bound = ("lr", "weight_decay", "final_decay", "clip") if "optimizer" in usual else ("lr",)
        usual = {name: value for name, value in usual.items() if name not in bound}
    return usual | settings


@dataclass(frozen=True)
class Shape:
    """What a method has to know of the data, and of the run it begins with.

    Args:
        size: Side of a view in pixels, samples of a window of sound, tokens of a sentence, steps of a window.
        channels: Channels of an image, of each where a sample has several; shape of an observation.
        classes: Number of classes, for methods that have a vector for each; None: no labels.
        samples: Largest id of a sample and one, for methods that remember each.
        vocabulary: Number of tokens of text.
        init_head: Widths of the hidden layers of the head that training begins with; None: it begins with no head.
    """

    size: int
    channels: int | tuple[int, ...]
    classes: int | None = None
    samples: int | None = None
    vocabulary: int | None = None
    init_head: tuple[int, ...] | None = None

    @property
    def first(self) -> int:
        """Channels of the first image."""
        return self.channels[0] if isinstance(self.channels, tuple) else self.channels

    @classmethod
    def of(cls, dataset: Dataset, *, size: int, channels: int | tuple[int, ...]) -> Shape:
        """That of a data set."""
        vocabulary = dataset.tokenizer.vocabulary if dataset.tokenizer is not None else None
        return cls(size, channels, len(dataset.classes or ()) or None, int(dataset.ids.max()) + 1, vocabulary)


def build_method(
    settings: TrainSettings, shape: Shape, *, teacher: tuple[nn.Module, nn.Module] | None = None
) -> Method:
    """The method that the settings name.

    Args:
        settings: Of the training.
        shape: Of the data.
        teacher: Encoder and classifier of an earlier run, for methods that have a teacher.

    Raises:
        UsageError: An unknown method, or settings that it can't take.
    """
    if settings.method not in METHODS and register(settings.method) not in METHODS:
        raise unknown(
            "method", settings.method, METHODS, where="the run's settings: register it in nearfar.METHODS first"
        )
    function = METHODS[settings.method]
    given = {**vars(shape), "classes": shape.classes or 1, "encoder": settings.encoder, "teacher": teacher}
    taken = inspect.signature(function).parameters
    method = function(**{name: value for name, value in given.items() if name in taken}, **settings.method_settings)
    if not settings.view:
        return method
    change = getattr(method.views, "changed", None)
    if change is None:
        raise UsageError(
            f"the views of {settings.method} are its own", where="view", mend="leave out the settings view_..."
        )
    return replace(method, views=change(**check_signature(View, settings.view, where="view", reserved=("size",))))


def initial(seed: int, build: Callable[[], Built]) -> Built:
    """`build()` with torch's generator set from the seed alone, so that every process has the same initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, 0x1A17))
        return build()
