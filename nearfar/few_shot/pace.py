"""How long heads will take: said where it is long, for some answer in microseconds and some in seconds an episode."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..console import duration

LONG, PAUSE = 60.0, 10.0
"""Seconds: estimates from `LONG` on are said after the first block; what runs on is said every `PAUSE`."""
SOON = 5.0
"""Seconds after which a head is heard of for the first time, and that have to be left."""


class Pace:
    """Says at times, for `evaluate_episodes`, what share of the episodes is done and how long the rest will take.

    Args:
        what: Features and shots, as a person calls them.
        say: Called with messages.
        clock: Seconds.
    """

    def __init__(self, what: str, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.say, self.clock = what, say, clock
        self.start = self.said = 0.0
        self.blocks = 0

    def __call__(self, head: str, done: int, total: int) -> None:
        """`done` of `total` episodes of a head; 0 of them when it begins."""
        now = self.clock()
        if done == 0:
            self.start, self.said, self.blocks = now, now + SOON - PAUSE, 0
            return
        self.blocks += 1
        left = (now - self.start) * (total - done) / done
        first = self.blocks == 1 and left >= LONG
        if left < SOON or (now - self.said < PAUSE and not first):
            return
        self.said = now
        advice = "; fewer --episodes take less" if first else ""
        share = f"{100 * done / total:.0f} % of {total:,} episodes"
        self.say(f"{self.what}, {head}: {share}, about {duration(left)} left{advice}")
