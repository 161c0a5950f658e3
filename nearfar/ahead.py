"""One thing ahead: while something is worked on, a thread makes what comes next."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

import torch

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Numbers in order -> what is made of each, `ahead(number)`; a context, after which nothing of it runs any more.

    Where torch has one thread, on a CPU, everything is made when it is asked for, in the thread that asks: another one
    would take its time from the work. With more threads, or an accelerator that works meanwhile, a thread of its own
    makes the next while this one is worked on, and never more than that. What goes wrong there is raised by
    `ahead(number)` of what it was for, as it is.

    Args:
        make: Number -> what is made of it.
        total: Nothing is made from this number on.
        device: Where the work is done.

    Example:
        >>> with Ahead(lambda number: number**2, total=4, device=torch.device("cpu")) as ahead:
        ...     [ahead(number) for number in range(4)]
        [0, 1, 4, 9]
    """

    def __init__(self, make: Callable[[int], Made], *, total: int, device: torch.device) -> None:
        self.make, self.total = make, total
        aside = device.type != "cpu" or torch.get_num_threads() > 1
        numbered = device.type == "cuda" and device.index is not None
        known = partial(torch.cuda.set_device, device) if numbered else None  # to each thread by itself
        self.thread = ThreadPoolExecutor(1, "nearfar-ahead", initializer=known) if aside else None
        self.next: Future[Made] | None = None

    def __enter__(self) -> Ahead[Made]:
        return self

    def __exit__(self, *_: object) -> None:
        if self.thread is not None:
            self.thread.shutdown(cancel_futures=True)

    def __call__(self, number: int) -> Made:
        """What is made of a number; that of the next is begun."""
        if self.thread is None:
            return self.make(number)
        begun, self.next = self.next or self.thread.submit(self.make, number), None
        made = begun.result()
        self.next = self.thread.submit(self.make, number + 1) if number + 1 < self.total else None
        return made
