"""Commands that tell what there is."""

from __future__ import annotations

from pathlib import Path

from .app import app


@app.command
def methods(name: str | None = None, /) -> None:
    """List the methods with their five parts, or everything about one.

    Parameters
    ----------
    name
        Method to describe: a name of the list, or the file of your own, mine.py.
    """
    from ..describe import method_table, one_method

    print(method_table() if name is None else one_method(name))


@app.command
def new_method(name: str, /, *, out: Path = Path(".")) -> None:
    """Begin a method of your own: writes NAME.py, which works and says what each part may be, and its test.

    Parameters
    ----------
    name
        Of the method, a Python name.
    out
        Folder to write into.
    """
    from ..tasks import new_method

    new_method(name, out=out)


@app.command
def settings() -> None:
    """List every setting of train: its type, default and meaning."""
    from ..describe import setting_table

    print(setting_table())


@app.command
def doctor() -> None:
    """Check the installation, the device and the disk, and say how to mend what is wrong."""
    from ..doctor import as_text, checks

    found = checks()
    print(as_text(found))
    if not all(check.ok for check in found):
        raise SystemExit(4)
