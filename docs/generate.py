"""Writes docs/methods.md from the docstrings of the methods and their five parts: `make docs`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from nearfar.describe import FIVE, brief, example, first_line, parts
from nearfar.method import Method
from nearfar.methods import METHODS, USUAL

PAGE = Path(__file__).with_name("methods.md")

HEAD = """# Methods

<!-- Made by docs/generate.py from the docstrings: change those, then `make docs`. -->

Every method with its five parts, as the functions in `nearfar.methods` have them without an argument: the settings of
the papers. `nearfar train` brings the encoder (`--encoder`), the size of the images, and other defaults where a method
names them below. In the table, views are their number and side in pixels; `beside` is what a method has or needs beside
the five parts. [Your own](own_method.md) is one file; [a part swapped](ablation.md#in-one-line) is one line.
"""

LABELS = r"For 32 px|Differs from [^:]*|Relations|The (?:paper|code|recipe)[^:]*|The paper's optimisers?[^:]*"
"""What begins a paragraph of a docstring that has a subject of its own."""


def page() -> str:
    """All of docs/methods.md."""
    head = f"| method | {' | '.join(FIVE)} | beside |\n|{'---|' * (len(FIVE) + 2)}"
    rows = [f"| [`{name}`](#{name}) | {' | '.join(map(_cell, brief(name).values()))} |" for name in METHODS]
    return "\n\n".join([HEAD.strip(), "\n".join([head, *rows]), *(section(*one) for one in METHODS.items())]) + "\n"


def section(name: str, function: Callable[..., Method]) -> str:
    """A method: what its paper says in a line, the docstring with the parts before the arguments, its source."""
    usual = ", ".join(f"`--{key.replace('_', '-')} {value}`" for key, value in USUAL.get(name, {}).items())
    source = inspect.getdoc(inspect.getmodule(function)) or ""
    headline, _, references = source.partition("\n\n")
    return "\n\n".join(
        [
            f"## {name}",
            f"**{_prose(headline)}**",
            first_line(function),
            *_paragraphs(function),
            *([f"**`nearfar train` has** {usual}."] if usual else []),
            f"**Source.** {_prose(references)}",
        ]
    )


def _paragraphs(function: Callable[..., Method]) -> Iterator[str]:
    """The docstring after its first line, as Markdown."""
    text = (inspect.getdoc(function) or "").partition("\n\n")[2]
    text = re.sub(rf"(?<=\n)(?=(?:{LABELS}):)", "\n", text)
    for block in re.split(r"\n{2,}", text):
        kind, _, rest = block.partition("\n")
        if kind == "Args:":
            yield _parts(function)
            yield _arguments(function, rest)
        elif kind == "Raises:":
            yield "\n".join(f"**Raises** `{name}`: {_prose(told)}" for name, told in _entries(rest))
        elif kind == "Example:":
            yield f"```python\n{inspect.cleandoc(rest)}\n```"
        else:
            yield block if block.startswith("    ") else _labelled(_prose(block, names=True))


def _labelled(text: str) -> str:
    """A paragraph with its subject in bold."""
    return re.sub(rf"^({LABELS}):", r"**\1:**", text)


def _parts(function: Callable[..., Method]) -> str:
    rows = [f"| {part} | {_cell(text)} |" for part, text in parts(example(function)).items()]
    return "\n".join(["| part | |", "|---|---|", *rows])


def _arguments(function: Callable[..., Method], text: str) -> str:
    """The table of arguments. One that the docstring lacks is a KeyError."""
    told = dict(_entries(text))
    rows = [
        f"| `{name}` | `{_cell(_default(one.default))}` | {_cell(_prose(told[name]))} |"
        for name, one in inspect.signature(function).parameters.items()
    ]
    return "\n".join(["| argument | default | |", "|---|---|---|", *rows])


def _default(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Names and meanings of a section of a docstring; several names may share one."""
    for entry in re.split(r"\n(?=    \S)", text):
        names, _, meaning = entry.strip().partition(":")
        for name in names.split(", "):
            yield name, " ".join(meaning.split())


def _prose(text: str, *, names: bool = False) -> str:
    """Text that Markdown leaves as it is; with `names`, other methods are links."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            pieces[number] = re.sub(r"(?<!\S)(https://[^\s,;]*[^\s,;.])", r"<\1>", re.sub(r"([*<|])", r"\\\1", piece))
        elif names and piece.strip("`") in METHODS:
            pieces[number] = f"[{piece}](#{piece.strip('`')})"
    return "".join(pieces)


def _cell(text: str) -> str:
    """Text for a cell of a table."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
