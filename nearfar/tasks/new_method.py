"""`nearfar new-method`: a method of one's own to begin with, and its test."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from ..errors import UsageError
from ..methods import METHODS
from ..runs.atomic import disk_errors, write_text

TEMPLATES = {"{}.py": "method.py.j2", "test_{}.py": "test_method.py.j2"}


def new_method(name: str, *, out: str | Path = ".", say: Callable[[str], None] = print) -> Path:
    """Writes NAME.py, a small method that works, with what each of its five parts may be, and test_NAME.py.

    Args:
        name: Of the function and the file: letters, digits and `_`, as a Python name.
        out: Folder, made where it is missing.
        say: Called with what to do next.

    Returns:
        The method's file.

    Raises:
        UsageError: No such name can be given, it is taken, or a file is there already.
        DeviceError: The disk refuses.

    Example:
        >>> import tempfile
        >>> new_method("mine", out=tempfile.mkdtemp(), say=lambda told: None).name
        'mine.py'
    """
    _check(name)
    folder = Path(out)
    found = {folder / pattern.format(name): template for pattern, template in TEMPLATES.items()}
    for path in found:
        if path.exists():
            raise UsageError("this file is there already", where=path, mend="another name, or another --out")
    for path, template in found.items():
        text = files("nearfar.tasks").joinpath(template).read_text(encoding="utf-8")
        page = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(text)
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, page.render(name=name, title=name.replace("_", " ").capitalize()))
    method, test = found
    say(
        f"wrote {method} and {test}: change what is yours\nnext:\n"
        f"  python -m pytest --doctest-modules {method} {test}\n"
        f"  nearfar train PHOTOS --method {method}\n"
        f"  nearfar methods {method}"
    )
    return method


def _check(name: str) -> None:
    """Raises UsageError for a name that a Python file and its function can't have."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"{name!r} can't be the name of a function", where="name", mend="letters, digits and _")
    if name in METHODS:
        raise UsageError(f"{name} is a method of nearfar", where="name", mend=f"another name, such as my_{name}")
    if name in sys.stdlib_module_names or name in ("nearfar", "torch", "numpy"):
        raise UsageError(f"{name} is a module that Python finds first", where="name", mend=f"such as my_{name}")
