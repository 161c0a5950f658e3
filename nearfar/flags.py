"""How flags of the command line with several values are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from cyclopts import Parameter, Token


def parted(kind: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
    """Values with spaces or commas between them: `1 5`, `1,5` and `1, 5` are the same.

    Args:
        kind: `tuple[ITEM, ...]`.
        tokens: Words of the command line.
    """
    item = get_args(kind)[0]
    return tuple(item(word) for token in tokens for word in token.value.split(",") if word)


SEVERAL = Parameter(consume_multiple=True, converter=parted, negative="")
"""A flag that takes several values."""
