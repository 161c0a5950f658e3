"""Tables for people: the methods with their five parts, the settings with their meaning."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import cast

import torch
from pydantic.fields import FieldInfo
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from .extract import Head
from .method import Loss, Method, Teacher
from .method_file import register
from .methods import LEARNS_FROM, METHODS
from .settings import TrainSettings, unknown
from .signatures import RESERVED
from .similarity import Similarity
from .views import View, Views

WIDTHS = {
    "method": 12, "views, px": 12, "encoder": 13, "extraction": 16, "similarity": 15, "loss": 16, "beside": 10,
}  # fmt: skip
"""Columns of the table of methods, together 100 characters with the spaces between."""

FIVE = ("views", "encoder", "extraction", "similarity", "loss")


def example(function: Callable[..., Method]) -> Method:
    """A method with its own defaults, without weights: on torch's meta device the largest network costs nothing."""
    with torch.device("meta"):
        return function()


def parts(method: Method) -> dict[str, str]:
    """The five parts of a method, each in a few words, and episodes, teacher and memory where it has them."""
    net = method.encoder
    named = {
        "views": described_views(method),
        "encoder": getattr(net, "describe", lambda: type(net).__name__)(),
        "extraction": f"{_head(method.extract.head)} -> {_pair(method)}",
        "similarity": _similarities(method),
        "loss": " + ".join(map(_loss, _several(method.loss))),
    }
    if method.episode is not None:
        shape = method.episode
        named["episodes"] = f"{shape.tasks} x {shape.ways} ways, {shape.shots} shots, {shape.queries} queries"
    if method.teacher is not None:
        named["teacher"] = _teacher(method.teacher)
    if method.memory is not None:
        named["memory"] = type(method.memory).__name__
    return named


def brief(name: str) -> dict[str, str]:
    """The five parts of a method by name alone, and under `beside` what else it has or needs."""
    function = METHODS[name]
    method = example(function)
    beside = {
        ", ".join(LEARNS_FROM.get(name, ())): True,
        "labels": method.extract.labels and method.episode is None,
        "episodes": method.episode is not None,
        "earlier run": "teacher" in inspect.signature(function).parameters,
        "slow copy": method.teacher is not None and method.teacher.net is None,
        type(method.memory).__name__.lower(): method.memory is not None,
    }
    cells = (
        _brief_views(method),
        str(inspect.signature(function).parameters["encoder"].default),
        _pair(method),
        _similarities(method),
        " + ".join(_name(loss) for loss in _several(method.loss)),
    )
    return dict(zip(FIVE, cells, strict=True)) | {
        "beside": ", ".join(one for one, has in beside.items() if one and has)
    }


def _several(part: object) -> tuple:
    return part if isinstance(part, tuple) else (part,)


def _name(part: object) -> str:
    """Of a function, a bound one or a module."""
    function = getattr(part, "func", part)
    return getattr(function, "__name__", type(function).__name__).strip("_")


def _pair(method: Method) -> str:
    return _name(method.extract.pair)


def _similarities(method: Method) -> str:
    return ", ".join(map(similarity_name, _several(method.similarity)))


def _head(head: nn.Module) -> str:
    """Widths of the layers, of a head that has no others."""
    if not isinstance(head, Head):
        return type(head).__name__
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    widths = [str(layer.out_features) for layer in linear]
    return {0: "average", 1: "linear"}.get(len(linear), "mlp") + (f" {' - '.join(widths)}" if widths else "")


def _teacher(teacher: Teacher) -> str:
    if teacher.net is None:
        return f"slow copy, {teacher.decay}"
    return "an earlier run" if any(True for _ in teacher.net[0].parameters()) else type(teacher.net[0]).__name__


def described_views(method: Method) -> str:
    """How many views, and what is set of each; equal ones are told once."""
    views = getattr(method.views, "views", None)
    if views is None:
        return getattr(method.views, "__name__", None) or _of_class(method.views)
    told = _counted(_settings(view) if isinstance(view, View) else _of_class(view) for view in views)
    return told if isinstance(method.views, Views) else f"{type(method.views).__name__}: {told}"


def _counted(told: Iterable[str]) -> str:
    """Neighbours that are alike with their number."""
    counted = [(one, len(list(same))) for one, same in groupby(told)]
    return "; ".join(one if len(counted) > 1 and count == 1 else f"{count} x {one}" for one, count in counted)


def _brief_views(method: Method) -> str:
    """Number and size of the views, or the name of another kind of views."""
    if not isinstance(method.views, Views):
        return _name(method.views)
    return ", ".join(f"{len(list(same))}x{size}" for size, same in groupby(view.size for view in method.views.views))


def _of_class(views: object) -> str:
    """Name of the class, and the numbers that it was given."""
    given = {name: value for name, value in vars(views).items() if isinstance(value, int | float | str)}
    return f"{type(views).__name__}({', '.join(f'{name}={_plain(value)}' for name, value in given.items())})"


def _settings(view: View) -> str:
    least, most = view.scale
    share = f"crop of {least:.3g} to {most:.3g} of the area" if least < most else f"crop of {most:.3g} of the area"
    if view.pad:
        share = (
            f"shift by up to {view.pad:.3g} of the side" if view.scale[0] == view.scale[1] else share + " and a margin"
        )
    parts = [f"{share}, {view.size} px"]
    chances = {
        "flip": view.flip,
        f"jitter {'/'.join(f'{j:g}' for j in view.jitter)}": view.jitter_p,
        "grey": view.grey_p,
        "blur": view.blur_p,
        "solarise": view.solarise_p,
    }
    return ", ".join(parts + [f"{name} ({chance:g})" for name, chance in chances.items() if chance])


def similarity_name(measure: Similarity) -> str:
    """Name of a similarity in `nearfar.similarity`."""
    from . import similarity

    names = [name for name, value in vars(similarity).items() if value is measure]
    return names[0] if names else getattr(measure, "name", "") or type(measure).__name__


def _loss(loss: Loss) -> str:
    arguments = ", ".join(f"{name}={_plain(value)}" for name, value in getattr(loss, "keywords", {}).items())
    function = getattr(loss, "func", loss)
    return f"{getattr(function, '__name__', type(function).__name__)}({arguments})"


def _plain(value: object) -> str:
    if callable(value):
        return _loss(cast(Loss, value))
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def method_table() -> str:
    """A line a method: what it does; then the table of the five parts of each."""
    heads = [f"{name:13} {first_line(function)}" for name, function in METHODS.items()]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for column, width in WIDTHS.items():
        table.add_column(column, width=width, overflow="fold")
    for name in METHODS:
        table.add_row(name, *brief(name).values())
    page = Console(file=io.StringIO(), width=100, color_system=None)
    page.print(table)
    told = (
        "With the papers' defaults. `nearfar methods NAME` tells all about one, `nearfar new-method NAME` begins yours."
    )
    lines = [line.rstrip() for line in cast(io.StringIO, page.file).getvalue().splitlines()]
    return "\n".join([*heads, "", *lines, "", told])


def first_line(function: Callable[..., Method]) -> str:
    """What a method does, in a sentence."""
    return (inspect.getdoc(function) or "").split("\n")[0]


def one_method(name: str) -> str:
    """The docstring of a method, its parts, and its keyword arguments as flags.

    Args:
        name: In `METHODS`, or a file of one's own, `mine.py`.

    Raises:
        UsageError: No method of that name.
    """
    name = register(name)
    if name not in METHODS:
        raise unknown("method", name, METHODS, where="methods")
    function = METHODS[name]
    flags = [
        f"  --{p.name.replace('_', '-'):14} {_type(p.annotation):28} default {p.default}"
        for p in inspect.signature(function).parameters.values()
        if p.name not in RESERVED
    ]
    module = inspect.getdoc(inspect.getmodule(function)) or ""
    told = "Flags, beside those of `nearfar settings`, which hold the encoder, the size and their own defaults:"
    table = [f"  {part:11} {text}" for part, text in parts(example(function)).items()]
    about = [name, "", inspect.getdoc(function) or "", "", "Parts, with these defaults:", *table, "", told, *flags]
    return "\n".join([*about, "", "Source:", module])


def setting_table() -> str:
    """A line a setting of `train`: flag, type, default, meaning."""
    rows = [
        (f"--{name.replace('_', '-')}", _type(field.annotation), _default(field), field.description or "")
        for name, field in TrainSettings.model_fields.items()
        if name != "method_settings"
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows)


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return "none" if default in ((), {}) else str(default)


def _type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", None) or str(annotation)
    text = str(annotation) if "|" in str(annotation) or "[" in str(annotation) else text
    return re.sub(r"typing\.|nn\.|torch\.nn\.modules\.module\.", "", text)
