"""A method in a file of one's own: `--method mine.py`, or `mine.py:NAME` where the function has another name."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from .errors import UsageError
from .method import Method
from .methods import LEARNS_FROM, METHODS, USUAL
from .signatures import nearest


def register(name: str) -> str:
    """The name in `METHODS`. The method of a file is entered there, under the full path and the function's name.

    The file is run for it, each time anew. Beside the function it may hold `LEARNS_FROM` and `USUAL`, what
    `nearfar.methods` has of its methods under those names. Names that are none of a file are given back as they are.

    Args:
        name: `simclr`, `mine.py`, `mine.py:NAME`.

    Raises:
        UsageError: No such file, no such function in it, or it can't be run.
    """
    file = method_file(name)
    if file is None:
        return name
    path, function = file
    module = _run(path, function)
    found: Callable[..., Method] | None = getattr(module, function, None)
    if not callable(found):
        there = [one for one, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        what = f"it has no function {function}{nearest(function, there)}"
        raise UsageError(what, where=path, mend=f"--method {path.name}:{there[0] if there else 'NAME'}")
    known = f"{path}:{function}"
    METHODS[known] = found
    LEARNS_FROM[known] = getattr(module, "LEARNS_FROM", ("image",))
    USUAL[known] = getattr(module, "USUAL", {})
    return known


def method_file(name: str) -> tuple[Path, str] | None:
    """Full path of the file and name of the function; None for the name of a method."""
    path, found, function = name.rpartition(".py:")
    if not found and not name.endswith(".py"):
        return None
    file = Path(f"{path}.py" if found else name).expanduser().resolve()
    return file, function if found else file.stem


def fingerprint(name: str) -> str | None:
    """Hash of a method's file, so that a run can tell when its method has changed; None for nearfar's own."""
    file = method_file(name)
    return None if file is None else hashlib.sha256(file[0].read_bytes()).hexdigest()[:32]


def _run(path: Path, function: str) -> ModuleType:
    """The file as a module, called by its full path, so that it hides no other."""
    if not path.is_file():
        mend = (
            f"give the path of the file with the method; for a run that it made, put it back there, or in Python set "
            f"nearfar.METHODS['{path}:{function}'] to the function first"
        )
        raise UsageError("the method's file is not there", where=path, mend=mend)
    spec = importlib.util.spec_from_file_location(str(path), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[str(path)] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        what = f"the method's file can't be run: {type(error).__name__}: {error}"
        raise UsageError(what, where=f"{path}:{line}", mend=f"`python {path}` shows all of it") from error
    return module
