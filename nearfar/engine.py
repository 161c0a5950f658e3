"""The training loop. To it a method is `forward(batch) -> loss` and `after_step(progress)`, data is `batch(indices)`.

Everything that happens at a step is a pure function of (seed, step): which samples, their views, the learning rate,
torch's generator. So a run that was stopped or killed goes on bit for bit, and how many threads draw views, whether a
step ahead or in it, or when a checkpoint was written, changes nothing.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from . import optim
from .ahead import Ahead
from .clock import Clock, anywhere, stop_requested
from .data import Dataset
from .device import Device
from .distributed import rank, world
from .errors import DeviceError, HealthError, Stopped
from .loader import Given, Loader
from .method import Batch, Contrast
from .monitor import Health, measure
from .plan import Plan
from .randomness import address
from .runs import Run, match_tensors
from .upload import Resident, made_on, resident


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
        if world() == 1:
            return self.model
        with warnings.catch_warnings():  # torch 2.13 renames the argument, 2.10 doesn't know the new name
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(self.model, broadcast_buffers=False)

    def __call__(self) -> None:
        """Trains to the end of the plan, from the newest checkpoint where there is one.

        Raises:
            HealthError: Collapse, or a loss that is not a number. The last checkpoint is good.
            Stopped: Ctrl-C or SIGTERM, after a checkpoint.
        """
        step, health, clock = self.restore(), Health(), Clock()
        loader = Loader(self.batch, self.views, device=self.device)
        with stop_requested() as stop, Ahead(loader, total=self.plan.total, device=self.device.device) as ahead:
            while step < self.plan.total:
                with clock.waiting():
                    given = ahead(step)
                loss = self.step(step, given)
                step += 1
                if step % self.plan.monitor_every == 0 or step % self.plan.steps_per_epoch == 0 or step == 1:
                    rates = clock.rates(step, self.plan)
                    row = self.measure(step, loss) | rates
                    self.record(row)
                    clock.restart()
                    if "std" in row:
                        health.check(step, row)
                stopping = anywhere(stop())
                if stopping or step == self.plan.total or clock.due(self.plan.checkpoint_minutes):
                    self.save(step)
                if stopping and step < self.plan.total:
                    raise Stopped(f"stopped after step {step}", where=self.run.path if self.run else "", mend=RESUME)

    @property
    def views(self) -> Callable[[Batch], list[Tensor]] | None:
        """Makes the views of a batch, where the model has some."""
        return self.model.views if isinstance(self.model, Contrast) else None

    @cached_property
    def samples(self) -> Dataset | Resident:
        """The data, on the device where its views are made there and it fits."""
        device = self.device.device
        if not made_on(self.views, device):
            return self.dataset
        return resident(self.dataset, device, free=torch.cuda.mem_get_info(device)[0])

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self.samples.batch(self.plan.indices(step), seed=self.plan.seed, epoch=self.plan.address(step))

    def step(self, step: int, given: Given) -> float:
        """One step; returns the loss. Out of memory, it is done again, half as many samples in the encoder at once."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.peak if group["constant"] else self.plan.lr(step)
            if (decay := self.plan.decay(step)) is not None and group["decayed"]:
                group["weight_decay"] = decay
        while True:
            torch.manual_seed(address(self.plan.seed, step, rank()))
            try:
                loss = self.backward(given)
                break
            except torch.OutOfMemoryError as error:
                self.shrink(step, error)
        if not np.isfinite(loss):
            self.dump(step, given[0])
        if self.plan.clip is not None:
            optim.clip_each(self.optimizer, self.plan.clip)
        self.optimizer.step()
        after_step = getattr(self.model, "after_step", None)
        if after_step is not None:
            after_step((step + 1) / self.plan.total)
        return loss

    def backward(self, given: Given) -> float:
        """Loss of a batch, with its gradient in the parameters."""
        batch, views = given
        self.optimizer.zero_grad(set_to_none=True)
        with self.device.autocast():
            loss = self.wrapped(batch) if views is None else self.wrapped(batch, views)
        loss.backward()
        return loss.item()

    def shrink(self, step: int, error: torch.OutOfMemoryError) -> None:
        """Halves the chunk: less memory, same batch, same negatives. Among several processes it is set by hand."""
        if not isinstance(self.model, Contrast) or self.model.chunk == 1 or world() > 1:
            raise DeviceError("out of memory", where=f"step {step}", mend="a smaller --chunk or --batch") from error
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
            if self.run is not None:
                self.run.log(row)
            self.report(row)

    def save(self, step: int) -> None:
        """Writes a checkpoint from process 0; the others wait."""
        bad = [name for name, tensor in self.model.state_dict().items() if not tensor.isfinite().all()]
        if bad:
            mend = "the last checkpoint is good; a lower --lr is the first thing to try"
            raise HealthError(f"{bad[0]} is not finite", where=f"step {step}", mend=mend)
        if self.run is not None and rank() == 0:
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
