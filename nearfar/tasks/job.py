"""A training, all of it decided and nothing of it begun: what would go wrong after hours is said here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from .. import optim
from ..data import Dataset, safe_name
from ..device import Device
from ..distributed import world
from ..encoders.norm import BatchNorm
from ..episodes import EpisodeSampler, Split, open_split
from ..errors import DataError, UsageError
from ..extract.predict import check_enough
from ..method import Method
from ..method_file import fingerprint as file_fingerprint
from ..plan import Plan
from ..settings import TrainSettings
from ..views import CentreCrop
from ..views.render import normalisation
from .answers import Answers, hidden_widths
from .build import Shape, build_method, initial
from .labelled import check_share, labelled_part
from .opening import Opened, Transform, caption_length, columns_of, read, text_transform, whole
from .start import begin_with, check_teacher, fingerprint, head_of, seen_classes, takes, teacher_of

UNITS = {"image": "px", "sound": "samples", "text": "tokens", "sequence": "steps"}
"""What the size of a view counts."""

FEWEST = 4
"""Images for each process, below which there is hardly anything to push away."""


@dataclass(frozen=True)
class Job:
    """A training, all of it decided and nothing of it begun.

    `told` is what was found in the data, in a line. `dataset` is all that the run can see; with a split it holds the
    training classes alone. `watched` holds the validation classes, and images of the test classes are nowhere. `seen`
    names all classes that the weights have been trained on, also by the runs that this one begins with; None: it can't
    be told, for data had no labels. `classes` names those that the method is told of: a teacher's, else the data's.
    """

    settings: TrainSettings
    dataset: Dataset
    held: np.ndarray
    told: str
    shape: Shape
    device: Device
    method: Method
    plan: Plan
    split: Split | None = None
    watched: Dataset | None = None
    seen: list[str] | None = None
    classes: list[str] | None = None

    @property
    def transform(self) -> Transform:
        """The transform of evaluation; of images normalised as the method's first view is. Stored with the run."""
        if self.dataset.kind != "images":
            return whole(self.dataset, self.shape.size)
        view = getattr(self.method.views, "views", (None,))[0]
        channels = self.dataset.inputs.shape[1]
        mean, std = normalisation(getattr(view, "mean", None), getattr(view, "std", None), channels)
        return CentreCrop(self.shape.size, mean=mean, std=std)

    @property
    def transforms(self) -> dict[str, Transform]:
        """Those of further columns: another picture as the first, text as its tokenizer and length make it."""
        columns = self.dataset.columns.items()
        length = caption_length(self.settings)
        return {n: self.transform if c.kind == "images" else text_transform(self.dataset, length) for n, c in columns}

    def identity(self, data: str | Path) -> dict[str, Any]:
        """What makes this run this run; stored in its folder."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "info": {
                "data": str(data),
                "fingerprint": self.dataset.fingerprint,
                "classes": self.classes,
                "transform": self.transform.to_dict(),
                "transforms": {name: one.to_dict() for name, one in self.transforms.items()},
                "shape": vars(self.shape),
                "processes": world(),
                "split": self.split and {"name": self.split.name, "fingerprint": self.split.fingerprint},
                "seen": self.seen,
                "init": fingerprint(self.settings.init),
                "teacher": fingerprint(self.settings.teacher),
                "method_file": file_fingerprint(self.settings.method),
            },
        }

    def describe(self, out: str | Path) -> str:
        """What will happen, a line each."""
        plan = self.plan
        aside = f"{len(self.held):,} held out to watch"
        if self.split is not None:
            aside = f"those of {len(self.split.train)} classes of {self.split.name}; the test classes are not touched"
        share = self.settings.label_share
        lines = {
            "data": f"{self.told}; {len(plan.samples):,} to train on, {aside}",
            "labels": f"of {share:.3g} of the images of each class; the others are left out" if share else "",
            "method": f"{self.settings.method}, views of {self.shape.size} {UNITS[columns_of(self.settings)[0]]}",
            "init": self._beginning(),
            "teacher": f"learns the answers of {self.settings.teacher}" if self.settings.teacher else "",
            "encoder": getattr(self.method.encoder, "describe", lambda: self.settings.encoder)(),
            "device": f"{self.device}, {torch.get_num_threads()} threads"
            + (f", {world()} processes" if world() > 1 else ""),
            "episodes": self._episodes(),
            "batch": f"{plan.batch} {self._called()}, {plan.steps_per_epoch:,} steps an epoch, {plan.total:,} in all",
            "out": str(out),
        }
        return "\n".join(f"{name:8} {text}" for name, text in lines.items() if text)

    def _beginning(self) -> str:
        """What the weights are before the first step, where they are not new."""
        if self.settings.init is None:
            return "nothing: all weights are new" if takes(self.settings, "init_head") else ""
        kept = len(hidden_widths(self.method.extract.head)) if self.shape.init_head is not None else 0
        layers = f" and {kept} layer{'s' if kept > 1 else ''} of its head" if kept else ""
        return f"begins with the encoder of {self.settings.init}{layers}"

    def _called(self) -> str:
        """What a sample is."""
        return {"sound": "sounds", "text": "texts"}.get(self.dataset.kind, self.dataset.kind)

    def _episodes(self) -> str:
        shape = self.method.episode
        if shape is None:
            return ""
        return f"{shape.tasks} a step, of {shape.ways} ways, {shape.shots} shots, {shape.queries} queries a class"


def prepare(data: str | Path, settings: TrainSettings, device: Device, say: Callable[[str], None]) -> Job:
    """Reads the data, builds the method and the plan; raises before any work what would go wrong after hours."""
    opened = read(data, settings, say)
    for name, reason in opened.dataset.bad[:10]:
        say(f"skipped {safe_name(name)}: {reason}")
    return decide(opened, settings, device, say)


def decide(
    opened: Opened,
    settings: TrainSettings,
    device: Device,
    say: Callable[[str], None],
    *,
    change: Callable[[Method], Method] | None = None,
) -> Job:
    """The training on data that was read; `change` makes another method of the one that the settings name."""
    dataset = opened.dataset
    split = open_split(settings.split) if settings.split else None
    watched = None
    if split is not None:
        dataset, watched = split.part(dataset, "train"), split.part(dataset, "val")
    train_part, held = dataset.split(settings.hold_out if split is None else 0.0, seed=settings.seed)
    shape = Shape.of(opened.dataset, size=opened.size, channels=opened.channels)
    teacher = teacher_of(settings, shape)
    classes = dataset.classes if teacher is None else teacher.classes  # those of the split
    shape = replace(shape, classes=len(classes or ()) or None, init_head=head_of(settings))
    method = _method(settings, shape, teacher, change)
    check_teacher(method, teacher, settings, dataset.classes)
    seen = seen_classes(settings, dataset.classes, split, say)
    if method.extract.labels and dataset.labels is None:
        raise DataError(
            f"{settings.method} learns from labels and the data has none",
            where="data",
            mend="one folder a class, or a column of labels (--label NAME); or a method without: --method simclr",
        )
    if settings.label_share is not None:
        check_share(settings, method)
        train_part = labelled_part(dataset, train_part, settings.label_share, seed=settings.seed)
    sizes = torch.from_numpy(dataset.sizes[train_part])
    check_enough(method.extract.pair, sizes, dataset.kind, say)  # nothing to predict: a loss of 0 that says nothing
    episodes = _sampler(settings, method, dataset, train_part)
    batch = _fitting_batch(settings, len(train_part), say) if episodes is None else _episode_batch(method, train_part)
    most = settings.batch if episodes is None else batch
    if settings.chunk and settings.chunk > most:
        raise UsageError(f"a chunk of {settings.chunk}", where="chunk", mend=f"at most the batch of {most} images")
    if method.memory is not None:
        method.memory.check_batch(batch)
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
        milestones=settings.milestones,
        monitor_every=settings.monitor_every,
        checkpoint_minutes=settings.checkpoint_minutes,
        weight_decay=None if settings.final_decay is None else (settings.weight_decay, settings.final_decay),
        clip=settings.clip,
        episodes=episodes,
    )
    return Job(settings, dataset, held, opened.told, shape, device, method, plan, split, watched, seen, classes)


def _method(
    settings: TrainSettings, shape: Shape, teacher: Answers | None, change: Callable[[Method], Method] | None
) -> Method:
    """The method with the weights that training begins with."""
    nets = None if teacher is None else (teacher.encoder, teacher.classifier)

    def build() -> Method:
        method = build_method(settings, shape, teacher=nets)
        return method if change is None else change(method)

    method = initial(settings.seed, build)
    if settings.init is not None:
        begin_with(method, settings.init, encoder=settings.encoder, head=shape.init_head is not None)
    return method


def _sampler(settings: TrainSettings, method: Method, dataset: Dataset, samples: np.ndarray) -> EpisodeSampler | None:
    """Draws the episodes of an episodic method from the samples to train on."""
    shape = method.episode
    if shape is None or dataset.labels is None:
        return None
    if "batch" in settings.model_fields_set:
        raise UsageError(
            f"{settings.method} learns in episodes, which say how many images a step has: {shape.tasks * shape.images}",
            where="batch",
            mend="leave --batch out; --ways, --shots, --queries and --tasks make the step",
        )
    return EpisodeSampler(
        dataset.labels[samples],
        ways=shape.ways,
        shots=shape.shots,
        queries=shape.queries,
        seed=settings.seed,
        names=dataset.classes,
    )


def _episode_batch(method: Method, samples: np.ndarray) -> int:
    """Images in a step of an episodic method, over all processes; the setting `batch` has no part in it."""
    shape = method.episode
    assert shape is not None
    if shape.tasks % world():
        raise UsageError(
            f"{shape.tasks} episodes can't be shared among {world()} processes",
            where="tasks",
            mend=f"--tasks {max(shape.tasks // world(), 1) * world()}",
        )
    batch = shape.tasks * shape.images
    if batch > len(samples):
        raise DataError(
            f"a step takes {batch} images ({shape.tasks} episodes of {shape.images}), and there are {len(samples)}",
            where="data",
            mend="fewer --tasks, --ways, --shots or --queries",
        )
    return batch


def _fitting_batch(settings: TrainSettings, count: int, say: Callable[[str], None]) -> int:
    """The batch asked for, or the largest that fits the data; a multiple of the number of processes."""
    if count < FEWEST * world():
        raise DataError(
            f"{count} samples to train on are too few",
            where="data",
            mend=f"at least {FEWEST} for each process"
            + (": a larger --label-share" if settings.label_share else "; contrastive learning pushes others away"),
        )
    batch = min(settings.batch, count // world() * world())
    if batch % world() or batch < 2 * world():
        raise UsageError(
            f"a batch of {batch} can't be shared among {world()} processes, two samples each or more",
            where="batch",
            mend=f"--batch {max(batch // world(), 2) * world()}",
        )
    if batch < settings.batch:
        say(f"batch reduced from {settings.batch} to {batch}: there are {count} samples to train on")
    return batch
