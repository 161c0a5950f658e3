"""A MoCo step's loss: 256 queries, their keys, 65,536 older keys; milliseconds with the gradient and the new keys."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.speed.harness import OURS, Row, Settings, Turn, installed_of
from nearfar import extract, similarity
from nearfar.losses import infonce
from nearfar.memory import Queue
from nearfar.method import Batch

WIDTH, TEMPERATURE = 128, 0.2
TARGET = 4.0
DIFFERENCE = 1e-5
PROTOCOL = (
    "InfoNCE of 256 queries of 128 float32 with their keys and 65,536 older keys, temperature 0.2: value, gradient of "
    "the queries, and the new keys put in place of the oldest. plain torch: one tensor of logits, cross-entropy, the "
    "queue overwritten in place. Checked, with the same older keys: relative differences of value and gradient."
)


@dataclass
class Task:
    """Queries that carry a gradient, keys that don't, and what is in the queue, unit vectors."""

    queries: Tensor
    keys: Tensor
    older: Tensor

    @classmethod
    def make(cls, batch: int, length: int) -> Task:
        """The same each time."""
        draw = torch.Generator().manual_seed(0)
        queries = torch.randn(batch, WIDTH, generator=draw)
        keys = queries + torch.randn(batch, WIDTH, generator=draw)
        return cls(queries.requires_grad_(), keys, F.normalize(torch.randn(length, WIDTH, generator=draw), dim=1))


def rows(settings: Settings) -> Iterator[Row]:
    """One row."""
    batch, length = (16, 256) if settings.smoke else (256, 65536)
    task = Task.make(batch, length)
    steps = contenders(task)
    yield Row(
        name=f"queue, B = {batch}, K = {length:,}",
        unit="ms",
        costs={
            name: Turn(partial(once, work, task), units=1, clock=settings.clock, scale=1e3)
            for name, work in steps.items()
        },
        measured=settings.measured,
        agreement=lambda: agreement(batch, length),
        targets={"lightly": TARGET},
        work={"flops": 4 * batch * length * WIDTH, "bytes": 4 * length * WIDTH},
    )


def once(work: Callable[[], Tensor], task: Task) -> Tensor:
    """A step with a new gradient."""
    task.queries.grad = None
    return work()


def contenders(task: Task) -> dict[str, Callable[[], Tensor]]:
    """A step each; the queue of each is its own."""
    return {OURS: nearfar(task), "plain torch": plain(task)} | installed_of(
        {"lightly": ("lightly", lambda: lightly(task))}
    )


def nearfar(task: Task) -> Callable[[], Tensor]:
    """As `methods.moco` has it."""
    queue = Queue(width=WIDTH, length=len(task.older))
    queue.keys.copy_(task.older)
    batch = Batch(inputs=task.queries, sizes=task.queries, ids=torch.arange(len(task.queries)))

    def step() -> Tensor:
        (pairs,) = extract.own_key([task.queries], [task.keys], batch, queue)
        loss = infonce(pairs, similarity.cosine, temperature=TEMPERATURE)
        loss.backward()
        queue.remember([task.keys], batch)
        return loss.detach()

    return step


def plain(task: Task) -> Callable[[], Tensor]:
    """What one writes oneself."""
    older, place, count = task.older.clone(), 0, len(task.keys)
    none = torch.zeros(count, dtype=torch.int64)

    def step() -> Tensor:
        nonlocal place
        queries, keys = F.normalize(task.queries, dim=1), F.normalize(task.keys, dim=1)
        own = (queries * keys).sum(dim=1, keepdim=True)
        loss = F.cross_entropy(torch.cat([own, queries @ older.T], dim=1) / TEMPERATURE, none)
        loss.backward()
        older[place : place + count] = keys
        place = (place + count) % len(older)
        return loss.detach()

    return step


def lightly(task: Task) -> Callable[[], Tensor]:
    """Its loss with a memory bank."""
    from lightly.loss import NTXentLoss

    criterion = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(len(task.older), WIDTH))
    criterion.memory_bank.bank.copy_(task.older)

    def step() -> Tensor:
        loss = criterion(task.queries, task.keys)
        loss.backward()
        return loss.detach()

    return step


def agreement(batch: int, length: int) -> dict[str, tuple[float, float]]:
    """Relative differences to nearfar's value and gradient in the second step, when the queue has new keys."""
    found, ours = {}, None
    task = Task.make(batch, length)
    for name, work in contenders(task).items():
        once(work, task)
        value, gradient = once(work, task), task.queries.grad
        assert gradient is not None
        if ours is None:
            ours = value, gradient
            continue
        found[f"value, {name}"] = (float((value / ours[0] - 1).abs()), DIFFERENCE)
        found[f"gradient, {name}"] = (float((gradient - ours[1]).norm() / ours[1].norm()), DIFFERENCE)
    return found
