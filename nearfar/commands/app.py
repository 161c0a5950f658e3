"""The application that all commands are entered in."""

from __future__ import annotations

from cyclopts import App

from .. import __version__

app = App(
    name="nearfar",
    help="Learn embeddings without labels, see how good they are, and use them. Errors are one line; --debug shows "
    "where they come from.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def named(flags: dict[str, str]) -> dict[str, str]:
    """Free flags as keyword arguments."""
    return {name.replace("-", "_"): value for name, value in flags.items()}
