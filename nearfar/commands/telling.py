"""Commands that tell what there is."""

from __future__ import annotations

from .app import app


@app.command
def methods(name: str | None = None, /) -> None:
    """List the methods with their five parts, or everything about one.

    Parameters
    ----------
    name
        Method to describe.
    """
    from ..describe import method_table, one_method

    print(method_table() if name is None else one_method(name))


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
