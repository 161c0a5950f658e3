"""Time and interruption: rates, when a checkpoint is due, and requests to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from .distributed import rank, world
from .plan import Plan


class Clock:
    """Seconds: images a second, the share spent waiting for data, what is left, and when a checkpoint is due.

    Data are batches and their views. What is made while a step runs is not waited for; what is left to make when it has
    ended is, and so is what is made between steps.
    """

    def __init__(self) -> None:
        self.start = self.saved = time.monotonic()
        self.waited, self.steps, self.last = 0.0, 0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        start = time.monotonic()
        yield
        self.waited += time.monotonic() - start
        self.steps += 1

    def rates(self, step: int, plan: Plan) -> dict[str, float]:
        """Rates since the last restart."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        rate = self.steps / seconds
        return {
            "images_per_second": round(rate * plan.batch, 1),
            "data_wait": round(self.waited / seconds, 4),
            "seconds_left": round((plan.total - step) / max(rate, 1e-9)),
        }

    def restart(self) -> None:
        """Rates are measured from here: what came before, a probe or a report, is no training."""
        self.start, self.waited, self.steps = time.monotonic(), 0.0, 0

    def due(self, minutes: float) -> bool:
        """True once every so many minutes; process 0 decides for all."""
        due = anywhere(rank() == 0 and time.monotonic() - self.saved >= minutes * 60)
        if due:
            self.saved = time.monotonic()
        return due


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM once: the step is finished and a checkpoint written. Ctrl-C twice: at once.

    What nobody has acted on at the end is a KeyboardInterrupt then.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where signals can't be handled
        old = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def anywhere(flag: bool) -> bool:
    """True on every process where it is true on one."""
    if world() == 1:
        return flag
    shared = torch.tensor([float(flag)])
    shared = shared.cuda() if dist.get_backend() == "nccl" else shared
    dist.all_reduce(shared)
    return bool(shared.item())
