"""`nearfar train`: from a folder of images to an encoder, an honest measure of it, and files to go on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import convert_conv2d_weight_memory_format

from .. import optim
from ..console import Line
from ..data import Dataset, Scan, safe_name
from ..device import Device, choose, processes
from ..distributed import rank, world
from ..encoders.norm import BatchNorm
from ..engine import Loop
from ..errors import DataError, UsageError
from ..method import Contrast, Method
from ..plan import Plan
from ..runs import Run, write_tensors
from ..settings import TrainSettings
from ..views import CentreCrop
from ..views.render import normalisation
from .build import build_method, check, initial, read
from .encoder import Encoder
from .probe import Probe
from .summary import finish

FREE = ("data", "device", "threads", "checkpoint_minutes")
"""Settings that may differ when a run goes on: they change no weight, nor which rows of metrics are written."""

FEWEST = 4
"""Images for each process, below which there is hardly anything to push away."""


def train(
    data: str | Path,
    *,
    out: str | Path = "runs/run",
    config: str | Path | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] | None = None,
    **settings: object,
) -> Path:
    """Trains an encoder on images without needing a label.

    Args:
        data: Folder, manifest (.csv, .jsonl), Parquet, .npy or .npz, or `digits`.
        out: Run folder. The same call again goes on with a run that was stopped, bit for bit.
        config: YAML file with settings; `settings` come before it.
        dry_run: Says what would happen and stops there.
        say: Called with each message; None prints.
        settings: Those of `nearfar.settings.TrainSettings`, keyword arguments of the method, and `view_NAME` for fields
            of its views.

    Returns:
        The run folder: `encoder.safetensors`, `report.html`, `metrics.jsonl`, `checkpoints/`.

    Raises:
        UsageError: A setting is unknown, of the wrong type or out of range; or the run folder holds another run.
        DataError: No data, or data unfit for the method.
        HealthError: Collapse, or a loss that is not a number.
        Stopped: Ctrl-C or SIGTERM, after a checkpoint.

    Example:
        >>> import nearfar as nf
        >>> run = nf.train("photos/", encoder="resnet18", epochs=100, out="runs/photos")  # doctest: +SKIP
    """
    checked = check(settings, config)
    if checked.threads:
        torch.set_num_threads(checked.threads)
    device = choose(checked.device, checked.precision)
    line = Line(total=0)
    say = say or line.say
    with processes(device):
        say = say if rank() == 0 else _silent
        job = prepare(data, checked, device, say)
        say(job.describe(out))
        if dry_run:
            return Path(out)
        with Run.open_or_create(Path(out), **job.identity(data), free=FREE, writer=rank() == 0, say=say) as run:
            if job.dataset.bad and rank() == 0:
                run.replace("bad_files.csv", job.dataset.write_bad_files)
            _run(job, run, line, say)
        return run.path


@dataclass(frozen=True)
class Job:
    """A training, all of it decided and nothing of it begun."""

    settings: TrainSettings
    dataset: Dataset
    held: np.ndarray
    scan: Scan
    size: int
    device: Device
    method: Method
    plan: Plan

    @property
    def transform(self) -> CentreCrop:
        """The transform of evaluation, normalised as the method's first view is; stored with the run."""
        view = getattr(self.method.views, "views", (None,))[0]
        mean, std = normalisation(getattr(view, "mean", None), getattr(view, "std", None), self.dataset.images.shape[1])
        return CentreCrop(self.size, mean=mean, std=std)

    def identity(self, data: str | Path) -> dict[str, Any]:
        """What makes this run this run; stored in its folder."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "info": {
                "data": str(data),
                "fingerprint": self.dataset.fingerprint,
                "classes": self.dataset.classes,
                "transform": self.transform.to_dict(),
                "processes": world(),
            },
        }

    def describe(self, out: str | Path) -> str:
        """What will happen, a line each."""
        plan = self.plan
        lines = {
            "data": f"{self.scan.summary()}; {len(plan.samples):,} to train on, {len(self.held):,} held out to watch",
            "method": f"{self.settings.method}, views of {self.size} px",
            "encoder": getattr(self.method.encoder, "describe", lambda: self.settings.encoder)(),
            "device": f"{self.device}, {torch.get_num_threads()} threads"
            + (f", {world()} processes" if world() > 1 else ""),
            "batch": f"{plan.batch} images, {plan.steps_per_epoch:,} steps an epoch, {plan.total:,} in all",
            "out": str(out),
        }
        return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def prepare(data: str | Path, settings: TrainSettings, device: Device, say: Callable[[str], None]) -> Job:
    """Reads the data, builds the method and the plan; raises before any work what would go wrong after hours."""
    dataset, found, size = read(data, settings, say)
    for name, reason in dataset.bad[:10]:
        say(f"skipped {safe_name(name)}: {reason}")
    train_part, held = dataset.split(settings.hold_out, seed=settings.seed)
    batch = _fitting_batch(settings, len(train_part), say)
    method = initial(settings.seed, lambda: build_method(settings, size, dataset.images.shape[1]))
    if method.memory is not None:
        method.memory.check_batch(batch)
    if method.extract.labels and dataset.labels is None:
        raise DataError(
            f"{settings.method} learns from labels and the data has none",
            where=data,
            mend="put the images into one folder a class, or choose a method that needs none: --method simclr",
        )
    if world() > 1 and any(
        isinstance(m, _BatchNorm) and not isinstance(m, BatchNorm) for m in method.encoder.modules()
    ):
        say("the encoder's batch norm is not nearfar's: its statistics are those of each process")
    plan = Plan(
        samples=train_part,
        batch=batch,
        epochs=settings.epochs,
        peak=optim.scaled_lr(settings.lr, batch),
        warmup_epochs=settings.warmup_epochs,
        seed=settings.seed,
        monitor_every=settings.monitor_every,
        checkpoint_minutes=settings.checkpoint_minutes,
    )
    return Job(settings, dataset, held, found, size, device, method, plan)


def _run(job: Job, run: Run, line: Line, say: Callable[[str], None]) -> None:
    """Trains, then writes encoder and report."""
    settings, line.total = job.settings, job.plan.total
    if (run.path / "encoder.safetensors").exists() and (run.path / "report.html").exists():
        say(f"this run is finished: {run.path / 'report.html'}")
        return
    model = Contrast(job.method, chunk=settings.chunk).to(job.device.device)
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    optimizer = optim.build(
        model, name=settings.optimizer, lr=job.plan.peak, weight_decay=settings.weight_decay, momentum=settings.momentum
    )
    encoder = Encoder(model.encoder, job.transform, job.dataset.images.shape[1], job.device, run.path)
    probe = Probe(encoder, model.views, job.dataset, job.plan.samples, job.held, seed=settings.seed)
    with line.open():
        Loop(
            model=model, optimizer=optimizer, dataset=job.dataset, plan=job.plan, device=job.device, run=run,
            probe=probe, report=line.report if rank() == 0 else _silent, say=say,
        )()  # fmt: skip
    if rank() == 0:
        run.replace("encoder.safetensors", lambda path: write_tensors(path, model.encoder.state_dict()))
        finish(run, encoder, job.dataset, job.plan.samples, job.held, say)


def _fitting_batch(settings: TrainSettings, count: int, say: Callable[[str], None]) -> int:
    """The batch asked for, or the largest that fits the data; a multiple of the number of processes."""
    if count < FEWEST * world():
        raise DataError(
            f"{count} images to train on are too few",
            where="data",
            mend=f"contrastive learning needs others to push away: at least {FEWEST} images for each process",
        )
    batch = min(settings.batch, count // world() * world())
    if batch % world() or batch < 2 * world():
        raise UsageError(
            f"a batch of {batch} can't be shared among {world()} processes, two images each or more",
            where="batch",
            mend=f"--batch {max(batch // world(), 2) * world()}",
        )
    if batch < settings.batch:
        say(f"batch reduced from {settings.batch} to {batch}: there are {count} images to train on")
    return batch


def _silent(*_: object) -> None:
    """Says nothing: one process speaks for all."""
