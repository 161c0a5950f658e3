"""Views and losses on one GPU, for `benchmarks.gpu`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import losses, views
from benchmarks.speed.harness import OURS, Row, Turn, there
from benchmarks.speed.photographs import photographs
from nearfar import methods
from nearfar.method import Batch
from nearfar.views.render import views_on

SIZES = tuple(4**n for n in range(6, 11))
"""Rows of the loss: 4,096 to a million."""
LARGEST = {"plain torch": 65536, "lightly": 16384}
"""Rows above which a peer is left out: a matrix of scores of 65,536 is 17 GB, of which autograd keeps some."""
VIEWS_DIFFER, LOSSES_DIFFER = 1e-3, {"highest": 1e-4, "high": 1e-2}
"""Largest differences: of normalised pixels to the CPU's, and relative to the gradient of the plain loss in fp64."""
MOST = 0.01
"""Share of all seconds that a step of the loss may take; a size that takes longer is left out."""


@dataclass(frozen=True)
class Place:
    """Where and how long.

    Args:
        device: "cuda" or "cpu".
        smoke: Tiny sizes.
        seconds: From the start of the process to its end.
        began: When that was.
        data: Folder that holds cifar10/.
    """

    device: str
    smoke: bool
    seconds: float
    began: float
    data: Path

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.perf_counter() - self.began)

    @property
    def workers(self) -> int:
        """Loader workers: a core each."""
        return 1 if self.smoke else len(os.sched_getaffinity(0))

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def turns(self, works: dict[str, Callable[[], object]], units: int, scale: float) -> dict[str, Callable[[], float]]:
        """A turn each."""
        turn: dict[str, Any] = {"units": units, "scale": scale, "clock": time.perf_counter, "wait": self.wait}
        return {name: Turn(work, **turn) for name, work in works.items()}


def views_rows(place: Place) -> Iterator[Row]:
    """Microseconds a view; where the GPU can't make them, the CPU does and copies them."""
    for size, (side, _) in views.CASES.items():
        count = 4 if place.smoke else 1024 if size < 64 else 256
        task = views.Task((photographs(min(count, 64), side, side) * 16)[:count], size)
        made = methods.simclr(encoder="small", size=size).views
        here = task.batch
        lying = replace(here, inputs=here.inputs.to(views_on(torch.device(place.device))))
        view = views.view_of(task)
        draws = [view.draw(here.ids, here.sizes, seed=0, epoch=0, view=number) for number in range(2)]
        works: dict[str, Callable[[], object]] = {
            OURS: partial(on, place.device, made, lying),
            f"{OURS}, drawn before": lambda view=view, x=lying.inputs, draws=draws: [view.apply(x, d) for d in draws],
            f"{OURS}, made on the CPU": partial(on, place.device, made, here),
        }
        if there("kornia"):
            works["kornia"] = views.kornia(task, place.device)
        yield Row(
            name=f"views, {side} px to {size} px",
            unit="us a view",
            costs=place.turns(works, task.count, 1e6),
            measured=f"wall clock; nearfar's on {lying.inputs.device}",
            agreement=lambda a=lying, b=here, made=made: {
                "views on the CPU": (difference(made(a), made(b)), VIEWS_DIFFER)
            },
            work={"bytes": 3 * side**2 + 4 * 3 * size**2},
        )


def on(device: str, made: Callable[[Batch], list[Tensor]], batch: Batch) -> list[Tensor]:
    """Views that are where the network is."""
    return [view.to(device, non_blocking=True) for view in made(batch)]


def difference(some: list[Tensor], others: list[Tensor]) -> float:
    """Largest."""
    return max(float((a.cpu() - b.cpu()).abs().max()) for a, b in zip(some, others, strict=True))


def losses_rows(place: Place) -> Iterator[Row]:
    """Milliseconds of value and gradient, then their memory; sizes for which no time is left are left out."""
    for precision in LOSSES_DIFFER:
        for count in (64, 128) if place.smoke else SIZES:
            torch.set_float32_matmul_precision(precision)
            work = loss_works(place, count)
            work[OURS]()  # compiles
            place.wait()
            start = time.perf_counter()
            work[OURS]()
            place.wait()
            once = time.perf_counter() - start
            if once > MOST * place.seconds:
                print(f"NT-Xent, N = {count:,}, {precision}: left out, {once:.0f} s a step")
                break
            about: dict[str, Any] = (
                {"agreement": partial(loss_agreement, place, count, precision)} if count <= 4096 else {}
            )
            flops = {"flops": 6 * count**2 * losses.WIDTH, "bytes": 8 * count * losses.WIDTH}
            name = f"NT-Xent, N = {count:,}, {precision}"
            yield Row(name=name, unit="ms", costs=place.turns(work, 1, 1e3), measured="wall clock", work=flops, **about)
            if place.device == "cuda" and precision == "highest":
                costs = {who: partial(allocated, one) for who, one in work.items()}
                yield Row(name=f"{name}: memory", unit="MiB", costs=costs, measured="torch's allocator", warm_up=False)
    torch.set_float32_matmul_precision("highest")


def loss_works(place: Place, count: int) -> dict[str, partial[object]]:
    """Steps on the device."""
    embeddings = on_device(place, count, torch.float32)
    makers: dict[str, Callable[[], losses.Loss]] = {OURS: losses.nearfar, "plain torch": lambda: losses.plain}
    if there("lightly"):
        makers["lightly"] = losses.lightly
    fitting = {name: make for name, make in makers.items() if count <= LARGEST.get(name, count)}
    return {name: partial(losses.step, make(), *embeddings) for name, make in fitting.items()}


def on_device(place: Place, count: int, dtype: torch.dtype) -> list[Tensor]:
    """Leaves of a graph there."""
    return [view.detach().to(place.device, dtype).requires_grad_() for view in losses.views(count)]


def loss_agreement(place: Place, count: int, precision: str) -> dict[str, tuple[float, float]]:
    """Of the gradient, against the plain loss in fp64."""
    found = []
    for loss, dtype in ((losses.nearfar(), torch.float32), (losses.plain, torch.float64)):
        embeddings = on_device(place, count, dtype)
        losses.step(loss, *embeddings)
        found.append(torch.cat([view.grad for view in embeddings if view.grad is not None]).double())
    ours, exact = found
    return {"gradient, plain torch in fp64": (float((ours - exact).norm() / exact.norm()), LOSSES_DIFFER[precision])}


def allocated(work: partial[object]) -> float:
    """MiB that it takes at most, beside what was there."""
    for embedding in work.args[1:]:  # gradients of the call before
        embedding.grad = None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**20
