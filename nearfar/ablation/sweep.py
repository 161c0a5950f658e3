"""Each similarity gets the temperature that suits it, chosen without a look at the test part."""

from __future__ import annotations

from dataclasses import dataclass

from .cells import SWEEP_SEED, VALIDATION

TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Tried for each similarity, in units of the size that its scores have."""
PROTOCOL = (
    f"temperatures: for each similarity {', '.join(map(str, TEMPERATURES))} times the size of its scores, one training "
    f"each with a seed of its own ({SWEEP_SEED}) on {1 - VALIDATION:.0%} of the training part; chosen by kNN on the "
    "rest of it"
)
COLLAPSED = "training collapsed at every temperature tried (try a lower --lr, in a study of its own)"
"""Why a similarity is left out that `choose` finds no temperature for."""


@dataclass(frozen=True)
class Sweep:
    """What was tried for a similarity.

    Args:
        tried: (temperature in units of its scores, kNN on the validation part; None: it collapsed).
        chosen: The best, the larger among equals.
        edge: True where that is the smallest or largest tried, so that a better one may lie beyond.
    """

    tried: tuple[tuple[float, float | None], ...]
    chosen: float
    edge: bool


def choose(tried: list[tuple[float, float | None]]) -> Sweep | None:
    """The best of those that did not collapse; None where all did.

    Example:
        >>> choose([(0.1, 0.5), (0.2, 0.7), (0.5, 0.7), (1.0, None)])
        Sweep(tried=((0.1, 0.5), (0.2, 0.7), (0.5, 0.7), (1.0, None)), chosen=0.5, edge=False)
    """
    whole = [(value, temperature) for temperature, value in tried if value is not None]
    if not whole:
        return None
    _, chosen = max(whole)
    return Sweep(tuple(tried), chosen, chosen in (tried[0][0], tried[-1][0]))
