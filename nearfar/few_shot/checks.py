"""What a classifier is asked for, checked before it reads an image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..errors import UsageError
from ..signatures import unknown as unknown_name
from .heads import HEADS

UNKNOWN = "unknown"
"""The answer to an image that is like none of the examples."""


def check_head(name: str) -> None:
    """Raises UsageError for an unknown head, and one whose answer to an image depends on the images beside it."""
    fit = [one for one, head in HEADS.items() if not head.transductive and not head.needs_centre]
    if name not in HEADS:
        raise unknown_name("head", name, fit, where="head")
    if name not in fit:
        why = "needs the mean feature of other classes" if HEADS[name].needs_centre else "answers all images together"
        raise UsageError(f"{name} {why}", where="head", mend=f"one of {', '.join(fit)}")


def check_share(share: float | str | None, examples: int) -> None:
    """Raises UsageError where "unknown" can't be told from the `examples` of classes with two or more."""
    if share is None:
        return
    if share != "auto" and not (isinstance(share, float | int) and 0 < share < 1):
        raise UsageError(f"unknown={share!r}", where="unknown", mend='a share in (0, 1) such as 0.05, "auto", or None')
    needed = 2 if share == "auto" else max(2, math.ceil(1 / float(share)) - 1)
    if examples < needed:
        raise UsageError(
            f"unknown={share!r} needs at least {needed} different examples, of classes with two or more; there are "
            f"{examples}",
            where="unknown",
            mend="give more examples" + ("" if share == "auto" else ", or a larger share"),
        )


def check_names(classes: Iterable[Any], share: float | str | None) -> None:
    """Raises UsageError where a class has the name of the answer "unknown", and that may be given."""
    if share is not None and UNKNOWN in classes:
        mend = "give the class another name, such as other, or leave out `unknown`"
        raise UsageError(f'a class is called "{UNKNOWN}", and so is the answer', where="unknown", mend=mend)
