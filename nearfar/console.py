"""What a person sees while training: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS, PROBE_SECONDS = 30.0, 10.0
"""Seconds between plain lines where there is no terminal: of any row, of one with the end of an epoch."""

PROBES = {"knn": "kNN", "match": "match", "one_shot": "1-shot"}
"""Measures of the probe at the end of an epoch, and what they are called."""


class Line:
    """Shows rows of metrics; `say` prints a message above the line."""

    def __init__(self, total: int) -> None:
        self.total, self.console = total, Console(stderr=False)
        self.live: Live | None = None
        self.shown = -PLAIN_SECONDS
        self.known: dict[str, float] = {}

    @contextmanager
    def open(self) -> Iterator[Line]:
        """Live while inside."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(console=self.console, refresh_per_second=4, transient=False) as self.live:
            yield self
        self.live = None

    def say(self, message: str) -> None:
        """Prints a message."""
        self.console.print(Text(message), soft_wrap=True)
        sys.stdout.flush()

    def report(self, row: dict[str, float]) -> None:
        """Shows a row; numbers that a row lacks are shown as they were."""
        self.known |= row
        text = describe(self.known, self.total)
        pause = PROBE_SECONDS if PROBES.keys() & row.keys() else PLAIN_SECONDS
        if self.live is not None:
            self.live.update(Text(text))
        elif time.monotonic() - self.shown >= pause or row["step"] == self.total:
            self.shown = time.monotonic()
            self.say(text)


def counting(what: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """`(done, total)` -> a message every ten seconds, for work that is over at once in most cases."""
    said = time.monotonic()

    def count(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= 10:
            said = time.monotonic()
            say(f"{what} {done:,} of {total:,}")

    return count


def describe(row: dict[str, float], total: int) -> str:
    """One line: step, loss beside chance, spread, rank, kNN, speed, time left."""
    parts = [f"step {row['step']:,.0f}/{total:,}", f"loss {row['loss']:.3f}"]
    if "chance" in row:
        parts[-1] += f" (chance {row['chance']:.2f})"
    if "std" in row:
        light = "" if row["std"] > 0.2 else " LOW"
        parts += [f"std {row['std']:.2f}{light}", f"rank {row['rank']:.0f}"]
    for name, called in PROBES.items():
        if name in row:
            parts.append(f"{called} {row[name]:.1%} (chance {row[name + '_chance']:.1%})")
    parts.append(f"{row['images_per_second']:,.0f} images/s")
    if row["data_wait"] > 0.2:
        parts.append(f"data wait {row['data_wait']:.0%}")
    return "  ".join([*parts, f"{duration(row['seconds_left'])} left"])


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds.

    Example:
        >>> duration(59), duration(61), duration(3700)
        ('59 s', '1 min 01 s', '1 h 01 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
