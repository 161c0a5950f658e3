"""From settings to data and method: what training, preview and a stored run have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..console import counting
from ..data import Dataset, Scan, load, scan
from ..errors import UsageError
from ..method import Method
from ..methods import METHODS
from ..randomness import address
from ..settings import TrainSettings, check_signature, parse, read_yaml, unknown, yaml_lines
from ..views import View

Built = TypeVar("Built")


def check(settings: Mapping[str, object], config: str | Path | None = None) -> TrainSettings:
    """Settings of a file and of the caller, who comes first, all checked; one UsageError tells everything wrong."""
    stored = read_yaml(config) if config else {}
    places = yaml_lines(config) if config else {}
    where = {name: place for name, place in places.items() if name not in settings} or "settings"
    checked = parse({**stored, **settings}, where=where, methods=METHODS)
    check_signature(View, checked.view, where="view", reserved=("size",))
    return checked


def build_method(
    settings: TrainSettings,
    size: int,
    channels: int,
    *,
    classes: int | None,
    teacher: tuple[nn.Module, nn.Module] | None = None,
) -> Method:
    """The method that the settings name.

    Args:
        settings: Of the training.
        size: Side of a view, pixels.
        channels: Channels of an image.
        classes: Number of classes, for methods that have a vector for each; None: no labels.
        teacher: Encoder and classifier of an earlier run, for methods that have a teacher.

    Raises:
        UsageError: An unknown method, or settings that it can't take.
    """
    if settings.method not in METHODS:
        raise unknown(
            "method", settings.method, METHODS, where="the run's settings: register it in nearfar.METHODS first"
        )
    function = METHODS[settings.method]
    given = {
        "encoder": settings.encoder,
        "size": size,
        "channels": channels,
        "classes": classes or 1,
        "teacher": teacher,
    }
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


def read(data: str | Path, settings: TrainSettings, say: Callable[[str], None]) -> tuple[Dataset, Scan, int]:
    """The data, what was found in it, and the side of a view in pixels."""
    found = scan(data, labels=settings.labels, max_bad=settings.max_bad)
    size = settings.size or (found.longest if found.longest <= 64 else 224)
    progress = counting("decoded", say)
    dataset = load(data, size=store_size(size), labels=settings.labels, max_bad=settings.max_bad, progress=progress)
    return dataset, found, size


def initial(seed: int, build: Callable[[], Built]) -> Built:
    """`build()` with torch's generator set from the seed alone, so that every process has the same initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, 0x1A17))
        return build()


def store_size(view: int) -> int:
    """Longer side of stored images for a view: a third more, so that a crop of three quarters needs no enlarging."""
    return view if view <= 64 else -(-view * 4 // 3 // 8) * 8
