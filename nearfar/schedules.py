"""Numbers that change with the progress of a run, which is steps done over all steps, in [0, 1].

Pure functions of progress, so that a run that is resumed has the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` as half a cosine: `end + (start - end) * (1 + cos(pi * progress)) / 2`.

    Args:
        start: Value at the beginning.
        end: Value at the end.

    Example:
        >>> [round(Cosine(0.99, 1.0)(progress), 4) for progress in (0.0, 0.5, 1.0)]
        [0.99, 0.995, 1.0]
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        """The value at a progress in [0, 1]."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2

    def __str__(self) -> str:
        return f"{self.start:g} to {self.end:g} as half a cosine"


@dataclass(frozen=True)
class Ramp:
    """From `start` to `end` in a straight line over the first `until` of the run, then `end`.

    Args:
        start: Value at the beginning.
        end: Value from `until` on.
        until: Share of the run, in [0, 1]; 0: `end` from the beginning.

    Example:
        >>> [round(Ramp(0.04, 0.07, until=0.5)(progress), 4) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.04, 0.055, 0.07, 0.07]
    """

    start: float
    end: float
    until: float

    def __call__(self, progress: float) -> float:
        """The value at a progress in [0, 1]."""
        if progress >= self.until:
            return self.end
        return self.start + (self.end - self.start) * progress / self.until

    def __str__(self) -> str:
        return f"{self.start:g} to {self.end:g} over {self.until:g} of the run"
