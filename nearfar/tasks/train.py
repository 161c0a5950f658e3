"""`nearfar train`: from data without labels to an encoder, an honest measure of it, and files to go on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from .. import optim
from ..console import Line
from ..device import check_compiler, choose, processes
from ..distributed import rank
from ..engine import Loop
from ..method import Contrast
from ..runs import Run, write_tensors
from .build import check
from .encoder import Encoder
from .job import Job, prepare
from .opening import pictures_of
from .probe import EpisodeProbe, Probe
from .summary import finish

FREE = ("data", "device", "threads", "checkpoint_minutes", "seen", "shape", "transforms")
"""What may differ when a run goes on: it changes no weight, nor which rows of metrics are written, or follows from what
may not."""


def train(
    data: str | Path,
    *,
    out: str | Path = "runs/run",
    config: str | Path | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] | None = None,
    **settings: object,
) -> Path:
    """Trains an encoder without needing a label.

    Args:
        data: Folder, manifest (.csv, .jsonl), Parquet, .npy or .npz, or `digits`: images, or what the method learns
            from (sound, text, sequences, pictures with captions).
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
    if checked.compile:
        check_compiler(device.device)
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


def _run(job: Job, run: Run, line: Line, say: Callable[[str], None]) -> None:
    """Trains, then writes encoder and report."""
    if (run.path / "encoder.safetensors").exists() and (run.path / "report.html").exists():
        say(f"this run is finished: {run.path / 'report.html'}")
        return
    encoder = trained(job, run, line, say)
    if rank() == 0:
        finish(run, encoder, job.dataset, job.plan.samples, job.held, say, watched=job.watched)


def trained(job: Job, run: Run, line: Line, say: Callable[[str], None]) -> Encoder:
    """Trains, from the newest checkpoint where there is one, and writes the encoder; see `Loop`."""
    settings, line.total = job.settings, job.plan.total
    model = Contrast(job.method, chunk=settings.chunk).to(job.device.device)
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    if settings.compile:
        for net in model.networks():
            net.compile()
    optimizer = optim.build(
        model, name=settings.optimizer, lr=job.plan.peak, weight_decay=settings.weight_decay, momentum=settings.momentum
    )
    split = getattr(model.views, "split", None)
    columns = pictures_of(settings)
    encoder = Encoder(model.encoder, job.transform, job.shape.first, job.device, run.path, split, columns)
    if job.watched is not None:
        probe = EpisodeProbe(encoder, job.watched, seed=settings.seed)
    else:
        probe = Probe(encoder, model, job.dataset, job.plan.samples, job.held, seed=settings.seed)
    with line.open():
        Loop(
            model=model, optimizer=optimizer, dataset=job.dataset, plan=job.plan, device=job.device, run=run,
            probe=probe, report=line.report if rank() == 0 else _silent, say=say,
        )()  # fmt: skip
    if rank() == 0:
        run.replace("encoder.safetensors", lambda path: write_tensors(path, model.encoder.state_dict()))
    return encoder


def _silent(*_: object) -> None:
    """Says nothing: one process speaks for all."""
