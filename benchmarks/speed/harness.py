"""How contenders are timed: they take turns in one process, and are compared turn by turn.

A turn of a contender is followed by a turn of the next, so that what else the machine does falls on all alike; the
ratio is taken within each round, and its median and range over rounds are told.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from typing import Any, TypeVar

OURS = "nearfar"
TURN = 0.2
"""Seconds that a turn lasts at least."""
Clock = Callable[[], float]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """What a topic is told.

    Args:
        threads: Cores and threads of every contender; loader workers too.
        repeats: Rounds.
        smoke: Tiny sizes, to see that everything runs; the numbers say nothing.
    """

    threads: int = 1
    repeats: int = 5
    smoke: bool = False

    @property
    def clock(self) -> Clock:
        """Of work inside this process: processor time of one thread, wall clock of several."""
        return time.process_time if self.threads == 1 else time.perf_counter

    @property
    def measured(self) -> str:
        """The name of that clock."""
        return "processor time" if self.threads == 1 else "wall clock"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: contenders that do the same work.

    Args:
        name: What is done.
        unit: What a cost is: "us a view", "MiB".
        costs: Contender -> function that takes a turn and returns its cost. `OURS` is one of them.
        measured: How: by which clock.
        agreement: Contender or quantity -> (difference, largest allowed), checked before anything is timed.
        targets: Peer -> how many times nearfar's cost its cost is to be, at least.
        most: Largest cost of nearfar that is asked for.
        work: What a unit needs at least: "flops", "bytes".
        warm_up: Whether the first turn of each is left out.
    """

    name: str
    unit: str
    costs: Mapping[str, Callable[[], float]]
    measured: str
    agreement: Callable[[], dict[str, tuple[float, float]]] = dict
    targets: Mapping[str, float] = field(default_factory=dict)
    most: float | None = None
    work: Mapping[str, float] = field(default_factory=dict)
    warm_up: bool = True


class Disagreement(AssertionError):
    """Contenders whose answers differ: their times can't be compared."""


@dataclass
class Turn:
    """Cost of a call: as many calls a turn as last `TURN` seconds, found in the first two turns.

    Args:
        call: The work.
        units: Units of work in a call.
        clock: Seconds.
        wait: Called after the calls, before the clock is read: a GPU works on after a call has returned.
        scale: Units of cost a second: 1e6 for microseconds.
    """

    call: Callable[[], object]
    units: float
    clock: Clock
    scale: float = 1.0
    wait: Callable[[], object] = lambda: None
    calls: int = 0

    def __call__(self) -> float:
        """Takes a turn; the cost of a unit. The very first is two calls: one compiles and fills caches, one tells."""
        if not self.calls:
            self.seconds(1)
            once = self.seconds(1)
            self.calls = max(math.ceil(TURN / max(once, 1e-6)), 1)
            return self.scale * once / self.units
        return self.scale * self.seconds(self.calls) / self.calls / self.units

    def seconds(self, calls: int) -> float:
        """Of so many calls."""
        start = self.clock()
        for _ in range(calls):
            self.call()
        self.wait()
        return self.clock() - start


def measure(topic: str, settings: Settings) -> list[dict[str, Any]]:
    """The rows of a topic; runs in a process of its own."""
    rows = import_module(f"benchmarks.speed.{topic}").rows(settings)
    return [{"threads": settings.threads} | row for row in measured(rows, settings.repeats)]


def measured(
    rows: Iterable[Row], repeats: int, after: Callable[[list[dict[str, Any]]], None] = lambda found: None
) -> list[dict[str, Any]]:
    """Each row raced and told, one after the other; contenders that disagree are not timed, and the record says so.

    `after` is called after each row with all so far.
    """
    found = []
    for row in rows:
        try:
            found.append(race(row, repeats))
        except Disagreement as problem:
            found.append({"row": row.name, "disagreement": str(problem)})
        print(told(found[-1]), flush=True)
        after(found)
    return found


def told(row: dict[str, Any]) -> str:
    """A row in a line."""
    if "disagreement" in row:
        return f"NOT TIMED: {row['disagreement']}"
    medians = ", ".join(f"{name} {value:g}" for name, value in row["medians"].items())
    ratios = ", ".join(f"{r['ratio']:g} ({r['low']:g} to {r['high']:g}) of {n}" for n, r in row["ratios"].items())
    return f"{row['row']}: {medians} {row['unit']}; ratio {ratios or 'none'}"


def race(row: Row, repeats: int) -> dict[str, Any]:
    """Checks that the contenders agree, then lets them take turns, the order reversed from round to round.

    Raises:
        Disagreement: Answers that differ by more than is allowed.
    """
    agreement = row.agreement()
    wrong = {name: pair for name, pair in agreement.items() if not pair[0] <= pair[1]}
    if wrong:
        raise Disagreement(f"{row.name}: differences and what is allowed: {wrong}")
    costs: dict[str, list[float]] = {name: [] for name in row.costs}
    for take in row.costs.values() if row.warm_up else ():
        take()
    for number in range(repeats):
        for name in list(row.costs)[:: -1 if number % 2 else 1]:
            costs[name].append(row.costs[name]())
    return {
        "row": row.name,
        "unit": row.unit,
        "measured": row.measured,
        "medians": {name: short(median(spent)) for name, spent in costs.items()},
        "ratios": {
            name: compared(spent, costs[OURS], row.targets.get(name)) for name, spent in costs.items() if name != OURS
        },
        **({} if row.most is None else {"most": row.most, "reached": median(costs[OURS]) <= row.most}),
        **({"work": dict(row.work)} if row.work else {}),
        "agreement": {name: {"difference": short(a), "allowed": b} for name, (a, b) in agreement.items()},
    }


def compared(theirs: Sequence[float], ours: Sequence[float], target: float | None = None) -> dict[str, Any]:
    """How many times our cost theirs is: median and range of the ratios of each round; above 1 ours is lower."""
    ratios = [a / max(b, 1e-12) for a, b in zip(theirs, ours, strict=True)]
    told: dict[str, Any] = {"ratio": short(median(ratios)), "low": short(min(ratios)), "high": short(max(ratios))}
    return told if target is None else told | {"target": target, "reached": median(ratios) >= target}


def short(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def there(package: str) -> bool:
    """Whether a peer is installed; its rows are left out where it is not, and the record says so."""
    return importlib.util.find_spec(package) is not None


def installed_of(contenders: Mapping[str, tuple[str, Callable[[], Result]]]) -> dict[str, Result]:
    """Makes those contenders whose package is installed: name -> (package, maker)."""
    return {name: make() for name, (package, make) in contenders.items() if there(package)}
