"""Tables for people: the methods with their five parts, the settings with their meaning."""

from __future__ import annotations

import inspect
import re
from typing import Any, cast

from pydantic.fields import FieldInfo

from .method import Loss, Method
from .methods import LEARNS_FROM, METHODS, USUAL
from .settings import TrainSettings, unknown
from .signatures import RESERVED
from .similarity import Similarity
from .views import View, Views


def parts(method: Method) -> dict[str, str]:
    """The five parts of a method, each in a few words, and teacher and memory where it has them."""
    pair = getattr(method.extract.pair, "func", method.extract.pair)
    extract = getattr(pair, "__name__", type(pair).__name__)
    measures = method.similarity if isinstance(method.similarity, tuple) else (method.similarity,)
    losses = method.loss if isinstance(method.loss, tuple) else (method.loss,)
    named = {
        "views": described_views(method),
        "encoder": type(method.encoder).__name__,
        "extraction": f"{type(method.extract.head).__name__} -> {extract}",
        "similarity": ", ".join(map(similarity_name, measures)),
        "loss": " + ".join(map(_loss, losses)),
    }
    if method.episode is not None:
        shape = method.episode
        named["episodes"] = f"{shape.tasks} x {shape.ways} ways, {shape.shots} shots, {shape.queries} queries"
    if method.teacher is not None:
        named["teacher"] = "an earlier run" if method.teacher.net else f"slow copy, {method.teacher.decay}"
    if method.memory is not None:
        named["memory"] = type(method.memory).__name__
    return named


def described_views(method: Method) -> str:
    """How many views, and what is set of each; equal ones are told once."""
    views = getattr(method.views, "views", None)
    if views is None:
        return getattr(method.views, "__name__", None) or _of_class(method.views)
    if not all(isinstance(view, View) for view in views):
        return "; ".join(_of_class(view) for view in views)
    told = [_settings(view) for view in views]
    if not isinstance(method.views, Views):
        return f"{type(method.views).__name__}: {'; '.join(told)}"
    return f"{len(told)} x {told[0]}" if len(set(told)) == 1 else "; ".join(told)


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
    """A paragraph a method: what it does, its five parts."""
    blocks = []
    for name, function in METHODS.items():
        method = function(**_example(name))
        head = (inspect.getdoc(function) or "").split("\n")[0]
        rows = [f"  {part:11} {text}" for part, text in parts(method).items() if part != "encoder"]
        blocks.append("\n".join([f"{name}: {head}", *rows]))
    return "\n\n".join(
        [
            *blocks,
            "Images: views of 32 px; probabilities in brackets. nearfar methods NAME tells all about one.",
        ]
    )


def _example(name: str) -> dict[str, Any]:
    """Arguments under which a method shows its parts: images of 32 px, or what else it learns from as it is."""
    pictures = LEARNS_FROM.get(name, ("image",))[0] == "image"
    return {"encoder": "small", "size": 32} if pictures else {"encoder": USUAL[name]["encoder"]}


def one_method(name: str) -> str:
    """The docstring of a method, with its keyword arguments as flags.

    Raises:
        UsageError: No method of that name.
    """
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
    return "\n".join([name, "", inspect.getdoc(function) or "", "", told, *flags, "", "Source:", module])


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
