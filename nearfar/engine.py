"""The training loop. It knows a method as `forward(batch) -> loss` and `after_step(progress)`, data as `batch(indices)`.

Everything that happens at a step is a pure function of (seed, step): which samples, their views, the learning rate,
torch's generator. So a run that was stopped or killed goes on bit for bit, and the number of threads that draw views,
or when a checkpoint was written, changes nothing.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from . import optim
from .data import Dataset
from .device import Device
from .distributed import rank, world
from .errors import HealthError, Stopped
from .method import Batch, Contrast
from .monitor import Health, measure
from .randomness import address, permutation
from .runs import Run, match_tensors


@dataclass(frozen=True)
class Plan:
    """What is done at which step: everything the loop needs to know of the settings.

    Args:
        samples: Number of each sample to train on, int64 `[N]`.
        batch: Global batch, over all processes.
        epochs: Passes over the samples; what does not fill a batch waits for the next shuffle.
        peak: Learning rate after warm-up.
        warmup_epochs: Epochs of linear warm-up.
        seed: Addresses all randomness.
        monitor_every: Steps between measurements.
        checkpoint_minutes: Minutes between checkpoints; one is written at the end and on request in any case.
    """

    samples: np.ndarray
    batch: int
    epochs: int
    peak: float
    warmup_epochs: float = 0.0
    seed: int = 0
    monitor_every: int = 50
    checkpoint_minutes: float = 5.0

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass."""
        return len(self.samples) // self.batch

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def indices(self, step: int) -> np.ndarray:
        """Numbers of this process's samples at a step, `[batch / processes]`."""
        epoch, number = divmod(step, self.steps_per_epoch)
        share = self.batch // world()
        start = number * self.batch + rank() * share
        return self.samples[_order(self.seed, epoch, len(self.samples))[start : start + share]]

    def lr(self, step: int) -> float:
        """Learning rate of a step."""
        warmup = round(self.warmup_epochs * self.steps_per_epoch)
        return optim.schedule(step, total=self.total, warmup=warmup, peak=self.peak)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return permutation(seed, epoch, count)


@dataclass
class Loop:
    """One run: a model, its optimiser, its data, and where its results go.

    Args:
        model: `forward(batch) -> loss`; `after_step(progress)` is called after each step. Its `encoder`, where it has
            one, runs in the device's precision.
        optimizer: From `optim.build(model, ...)`.
        dataset: Gives `batch(indices, seed=, epoch=)`.
        plan: What is done at which step.
        device: Where.
        run: Folder for checkpoints and metrics, or None.
        probe: Called at the end of every epoch on process 0, adds its numbers to that row of the metrics; or None.
        report: Called with each row of metrics.
        say: Called with messages for a person.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    dataset: Dataset
    plan: Plan
    device: Device
    run: Run | None = None
    probe: Callable[[], dict[str, float]] | None = None
    report: Callable[[dict[str, float]], None] = lambda row: None
    say: Callable[[str], None] = lambda message: None

    @cached_property
    def wrapped(self) -> nn.Module:
        """The model, with its gradients averaged over processes where there are several."""
        return DistributedDataParallel(self.model, broadcast_buffers=False) if world() > 1 else self.model

    def __call__(self) -> None:
        """Trains to the end of the plan, from the newest checkpoint where there is one.

        Raises:
            HealthError: Collapse, or a loss that is not a number. The last checkpoint is good.
            Stopped: Ctrl-C or SIGTERM, after a checkpoint.
        """
        step, health, clock = self.restore(), Health(), Clock()
        with stop_requested() as stop:
            while step < self.plan.total:
                with clock.waiting():
                    batch = self.batch(step)
                loss = self.step(step, batch)
                step += 1
                if step % self.plan.monitor_every == 0 or step % self.plan.steps_per_epoch == 0 or step == 1:
                    row = self.measure(step, loss) | clock.row(step, self.plan)
                    self.record(row)
                    health.check(step, row) if "std" in row else None
                stopping = _any(stop())
                if stopping or step == self.plan.total or clock.due(self.plan.checkpoint_minutes):
                    self.save(step)
                if stopping and step < self.plan.total:
                    raise Stopped(f"stopped after step {step}", where=self.run.path if self.run else "", mend=RESUME)

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the device."""
        epoch = step // self.plan.steps_per_epoch
        return self.dataset.batch(self.plan.indices(step), seed=self.plan.seed, epoch=epoch)

    def step(self, step: int, batch: Batch) -> float:
        """One step; returns the loss. Out of memory, it is done again, half as many samples in the encoder at once."""
        torch.manual_seed(address(self.plan.seed, step, rank()))
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr(step)
        while True:
            try:
                loss = self.backward(batch)
                break
            except torch.OutOfMemoryError:
                self.shrink(step)
        if not np.isfinite(loss):
            self.dump(step, batch)
        self.optimizer.step()
        after_step = getattr(self.model, "after_step", None)
        if after_step is not None:
            after_step((step + 1) / self.plan.total)
        return loss

    def backward(self, batch: Batch) -> float:
        """Loss of a batch, with its gradient in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.device.autocast():
            loss = self.wrapped(batch)
        loss.backward()
        return loss.item()

    def shrink(self, step: int) -> None:
        """Halves the chunk: less memory, same batch, same negatives."""
        if not isinstance(self.model, Contrast) or self.model.chunk == 1:
            raise
        self.model.chunk = (self.model.chunk or self.plan.batch // world()) // 2
        self.say(
            f"out of memory at step {step}: from here {self.model.chunk} samples in the encoder at once; "
            f"the batch of {self.plan.batch} and its negatives stay as they are"
        )

    def dump(self, step: int, batch: Batch) -> None:
        """Stops before the step that would spoil the weights, and leaves what it was made of."""
        if self.run is not None and rank() == 0:
            told = {"step": step, "ids": batch.ids.tolist(), "lr": self.plan.lr(step)}
            (self.run.path / "not_a_number.json").write_text(json.dumps(told))
        raise HealthError(
            "the loss is not a number",
            where=f"step {step}" + (f", samples in {self.run.path / 'not_a_number.json'}" if self.run else ""),
            mend="the last checkpoint is good; a lower --lr or --precision fp32 are the first things to try",
        )

    def measure(self, step: int, loss: float) -> dict[str, float]:
        """A row of metrics; the end of an epoch adds the probe's."""
        epoch = step / self.plan.steps_per_epoch
        row: dict[str, float] = {"step": step, "epoch": round(epoch, 4), "loss": loss, "lr": self.plan.lr(step - 1)}
        if isinstance(self.model, Contrast) and self.model.seen and self.model.chance is not None:
            row |= measure(*self.model.seen) | {"chance": self.model.chance}
        if self.probe is not None and step % self.plan.steps_per_epoch == 0 and rank() == 0:
            row |= self.probe()
        return row

    def record(self, row: dict[str, float]) -> None:
        """Hands a row on, from process 0."""
        if rank() == 0:
            self.run.log(row) if self.run is not None else None
            self.report(row)

    def save(self, step: int) -> None:
        """Writes a checkpoint from process 0; the others wait."""
        if self.run is not None and rank() == 0:
            bad = [name for name, tensor in self.model.state_dict().items() if not tensor.isfinite().all()]
            if bad:
                raise HealthError(
                    f"{bad[0]} is not finite", where=f"step {step}", mend="a lower --lr is the first thing to try"
                )
            tensors = {"model": self.model.state_dict(), "optimizer": optim.named_state(self.model, self.optimizer)}
            self.run.save(step=step, tensors=tensors, state={"chunk": getattr(self.model, "chunk", None)})
        if world() > 1:
            dist.barrier()

    def restore(self) -> int:
        """Step to go on from."""
        checkpoint = self.run.load(self.say) if self.run is not None else None
        if checkpoint is None:
            return 0
        match_tensors(self.model.state_dict(), checkpoint.tensors["model"])
        self.model.load_state_dict(checkpoint.tensors["model"])
        optim.load_named_state(self.model, self.optimizer, checkpoint.tensors["optimizer"])
        if isinstance(self.model, Contrast):
            self.model.chunk = checkpoint.state["chunk"]
        self.say(f"going on from step {checkpoint.step} of {self.plan.total}")
        return checkpoint.step


RESUME = "the same command again goes on from there"


class Clock:
    """Seconds: images a second, the share spent waiting for data, what is left, and when a checkpoint is due."""

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

    def row(self, step: int, plan: Plan) -> dict[str, float]:
        """Rates since the last row."""
        now = time.monotonic()
        seconds = max(now - self.start, 1e-9)
        rate = self.steps / seconds
        row = {
            "images_per_second": round(rate * plan.batch, 1),
            "data_wait": round(self.waited / seconds, 4),
            "seconds_left": round((plan.total - step) / max(rate, 1e-9)),
        }
        self.start, self.waited, self.steps = now, 0.0, 0
        return row

    def due(self, minutes: float) -> bool:
        """True once every so many minutes; process 0 decides for all."""
        due = _any(rank() == 0 and time.monotonic() - self.saved >= minutes * 60)
        if due:
            self.saved = time.monotonic()
        return due


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM once: the step is finished and a checkpoint written. Ctrl-C twice: at once."""
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


def _any(flag: bool) -> bool:
    """True on every process where it is true on one."""
    if world() == 1:
        return flag
    shared = torch.tensor([float(flag)])
    shared = shared.cuda() if dist.get_backend() == "nccl" else shared
    dist.all_reduce(shared)
    return bool(shared.item())
