"""What the losses check before they start."""

from __future__ import annotations

import math

from torch import Tensor

from ..errors import UsageError
from ..method import Pairs
from .rows import Rule

POSITIVES = ("mean_log", "log_sum")
DENOMINATORS = ("all", "own_and_negatives", "negatives")


def checked_rule(positives: str, denominator: str) -> Rule:
    """The rule, or UsageError."""
    for name, value, choices in (("positives", positives, POSITIVES), ("denominator", denominator, DENOMINATORS)):
        if value not in choices:
            raise UsageError(f"{value!r} is unknown", where=name, mend=f"one of {', '.join(choices)}")
    if (positives, denominator) == ("log_sum", "own_and_negatives"):
        raise UsageError(
            "log_sum puts all positives into one sum, own_and_negatives gives each a denominator of its own",
            where="positives, denominator",
            mend="positives='mean_log', or denominator='all'",
        )
    return Rule(positives, denominator)


def checked_temperature(temperature: float | Tensor) -> float:
    """Its value, or UsageError."""
    if isinstance(temperature, Tensor) and temperature.ndim:
        raise UsageError(
            f"a temperature of shape {list(temperature.shape)}", where="temperature", mend="a number or a 0-d tensor"
        )
    value = temperature.item() if isinstance(temperature, Tensor) else float(temperature)
    if not (0 < value < math.inf):
        raise UsageError(f"a temperature of {value:g}", where="temperature", mend="a number > 0, for cosines 0.05 to 1")
    return value


def check_pairs(pairs: Pairs) -> None:
    """UsageError where shapes do not fit or no pair can be a positive."""
    anchor, other = pairs.anchor.shape, pairs.other.shape
    if len(anchor) < 2 or len(anchor) != len(other) or anchor[:-2] != other[:-2] or anchor[-1] != other[-1]:
        raise _misfit("other", other, f"[..., M, {anchor[-1] if anchor else 'D'}] beside an anchor of {list(anchor)}")
    if pairs.positive is not None and pairs.positive.shape != anchor:
        raise _misfit("positive", pairs.positive.shape, f"{list(anchor)}, as the anchor's")
    for kind in ("key", "slot"):
        mine, theirs = getattr(pairs, f"anchor_{kind}"), getattr(pairs, f"other_{kind}")
        if (mine is None) != (theirs is None):
            raise UsageError(
                f"one side has a {kind}, the other none", where=f"anchor_{kind}, other_{kind}", mend="both or none"
            )
        for name, numbers, side in (("anchor", mine, anchor), ("other", theirs, other)):
            if numbers is not None and numbers.shape != side[:-1]:
                raise _misfit(f"{name}_{kind}", numbers.shape, f"{list(side[:-1])}")
    if pairs.anchor_key is None and pairs.positive is None:
        raise UsageError(
            "no pair can be a positive", where="pairs", mend="give anchor_key and other_key, or positive, or both"
        )


def _misfit(name: str, found: tuple[int, ...], wanted: str) -> UsageError:
    return UsageError(f"shape {list(found)} does not fit", where=f"pairs.{name}", mend=f"shape {wanted}")
