"""Values for the keyword arguments of a function: read from text, checked against its annotations, all at once."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from .errors import UsageError

RESERVED = ("encoder", "size", "channels", "classes", "teacher", "samples", "vocabulary", "init_head")
"""Keyword arguments of a method that the trainer fills in from the settings and the data."""


def check_signature(
    function: Callable[..., object],
    values: Mapping[str, Any],
    *,
    where: str | Mapping[str, str],
    reserved: Iterable[str] = RESERVED,
) -> dict[str, Any]:
    """Keyword arguments for a function, converted to the types in its signature; text as on the command line is read.

    `"0.5"` becomes 0.5, `"2048,128"` (2048, 128), and `"none"` None, where the type allows it.

    Args:
        function: With annotated parameters.
        values: Name -> value.
        where: What they come from; or the place of each.
        reserved: Parameters that are filled in elsewhere.

    Raises:
        UsageError: One line for each unknown name, wrong type and missing value.

    Example:
        >>> def method(*, widths: tuple[int, ...] = (), temperature: float | None = None): ...
        >>> check_signature(method, {"widths": "2048,128", "temperature": "0.5"}, where="method")
        {'widths': (2048, 128), 'temperature': 0.5}
    """
    converted, problems = check(function, values, tuple(reserved))
    if problems:
        raise usage_error(problems, where)
    return converted


def check(
    function: Callable[..., object], values: Mapping[str, Any], reserved: Iterable[str], also: Iterable[str] = ()
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Converted values, and what is wrong with the others; `also` are names to suggest beside the function's."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = {name: p for name, p in inspect.signature(function).parameters.items() if name not in reserved}
    converted, problems = {}, []
    for name, value in values.items():
        if name in reserved:
            problems.append((name, "is a setting of the training, not of the method"))
            continue
        if name not in parameters:
            problems.append((name, f"unknown{nearest(name, [*parameters, *also])}"))
            continue
        annotation = hints.get(name, Any)
        try:
            adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
            converted[name] = adapter.validate_python(given(value, annotation))
        except ValueError:  # pydantic's is one
            problems.append((name, f"must be {spoken(annotation)}, not {value!r}"))
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    problems += [(name, f"is needed, {spoken(hints.get(name, Any))}") for name in needed if name not in values]
    return converted, problems


def given(value: Any, annotation: Any) -> Any:
    """Text as the type wants it: `none`, and lists at commas. A truth value is not taken for a number."""
    kinds = [typing.get_origin(arm) or arm for arm in _arms(annotation)]
    if isinstance(value, bool) and bool not in kinds and Any not in kinds:
        raise ValueError(f"must be {spoken(annotation)}")
    if isinstance(value, str) and NoneType in kinds and value.lower() == "none":
        return None
    if isinstance(value, str) and str not in kinds and (tuple in kinds or list in kinds):
        return [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    return value


def _arms(annotation: Any) -> list[Any]:
    """The types of a union, or the one type."""
    union = typing.get_origin(annotation) in (UnionType, typing.Union)
    return list(typing.get_args(annotation)) if union else [annotation]


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "name: value pairs",
    NoneType: "none",
}


def spoken(annotation: Any) -> str:
    """A type in words."""
    words = []
    for arm in _arms(annotation):
        arguments = typing.get_args(arm)
        if typing.get_origin(arm) is Literal:
            words += [repr(one) for one in arguments]
        elif typing.get_origin(arm) in (tuple, list):
            each = [spoken(one) for one in arguments if one is not ...]
            words.append(f"a list of {len(each)}: {', '.join(each)}" if len(each) > 1 else f"a list, each {each[0]}")
        else:
            kind = typing.get_origin(arm) or arm
            words.append(_WORDS.get(kind, getattr(kind, "__name__", str(kind))))
    return " or ".join(words)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?`, or nothing."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def usage_error(problems: list[tuple[str, str]], where: str | Mapping[str, str]) -> UsageError:
    """One error for all problems, a line each."""
    places = {} if isinstance(where, str) else where
    places = {key.removeprefix("method_settings."): place for key, place in places.items()}
    lines = [f"{key}: {text}" + (f" ({places[key]})" if key in places else "") for key, text in problems]
    what = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings are wrong:", *lines])
    return UsageError(what, where=where if isinstance(where, str) else "", mend="`nearfar settings` lists them all")


def unknown(kind: str, name: str, known: Iterable[str], *, where: str) -> UsageError:
    """The error for a name that is none of the known ones, with the nearest of them."""
    known = list(known)
    return UsageError(
        f"there is no {kind} {name!r}{nearest(name, known)}", where=where, mend=f"one of {', '.join(known)}"
    )
