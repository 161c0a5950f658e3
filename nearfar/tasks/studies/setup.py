"""What all trainings of a study share: data in parts that never meet, settings, and the base."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...ablation.cells import BASE, VALIDATION, Cell
from ...ablation.context import Context
from ...ablation.variants import Swap, find
from ...data import Dataset
from ...device import Device
from ...errors import UsageError
from ...method import Batch, Contrast, Method
from ...settings import TrainSettings
from ..build import Shape, build_method, initial
from ..job import Job, decide
from ..opening import Opened

TRIED = 8
"""Images that a variant is tried on before the study begins."""


@dataclass(frozen=True)
class Setup:
    """What all trainings of a study share.

    Args:
        data: As the user named it.
        settings: Of the base, with seed 0.
        train: The images that are trained on; none of the test part is among them.
        test: The images that answers are checked on, once for each training, after it.
        device: Where.
        out: Folder of the study.
    """

    data: str
    settings: TrainSettings
    train: Opened
    test: Dataset
    device: Device
    out: Path

    @cached_property
    def base(self) -> Method:
        """The base with the weights of seed 0."""
        return initial(0, lambda: build_method(self.settings, self.shape))

    @property
    def shape(self) -> Shape:
        """What methods have to know of the data."""
        return Shape.of(self.train.dataset, size=self.train.size, channels=self.train.channels)

    @cached_property
    def batch(self) -> Batch:
        """A few training images, or the first step of an episodic base."""
        places = self.job(Cell(BASE, BASE, 0)).plan.indices(0)
        return self.train.dataset.batch(places if self.base.episode else places[:TRIED])

    @cached_property
    def fit_and_validation(self) -> tuple[Opened, Dataset]:
        """The training part in two, for the choice of temperatures."""
        whole = self.train.dataset
        fit, held = whole.split(VALIDATION, seed=0)
        if not len(held):
            raise UsageError(
                f"{len(whole)} images to train on are too few to hold a tenth of each class out",
                where="similarity",
                mend="more images, or a study that leaves the similarity alone: --vary views loss",
            )
        return replace(self.train, dataset=whole.subset(fit)), whole.subset(held)

    def parts(self, cell: Cell) -> tuple[Opened, Dataset]:
        """What a cell is trained on, and what its answers are checked on."""
        return self.fit_and_validation if cell.sweep else (self.train, self.test)

    def context(self, *, encoder: str, temperature: float | None = None) -> Context:
        """What swaps are told."""

        def build(name: str) -> Method:
            return build_method(self.settings.model_copy(update={"encoder": name}), self.shape)

        assert isinstance(self.train.channels, int)  # a study is of images
        return Context(build, encoder, self.train.size, self.train.channels, self.batch, temperature or 0.5)

    def changed(self, part: str, variant: str) -> Method:
        """A variant with the weights of seed 0; the base itself where nothing is changed.

        Raises:
            UsageError: The swap makes no sense for this base.
        """
        method = self.base
        found = initial(0, lambda: find(part, variant)(method, self.context(encoder=self.settings.encoder)))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            Contrast(found)(self.batch)
        return found

    def job(self, cell: Cell) -> Job:
        """The training of a cell, all of it decided."""
        own: dict[str, Any] = {"seed": cell.seed}
        if cell.part == "encoder":
            own["encoder"] = cell.variant
        settings, opened = self.settings.model_copy(update=own), self.parts(cell)[0]
        change = None
        if cell.part != BASE:
            context = self.context(encoder=settings.encoder, temperature=cell.temperature)
            change = partial(_swapped, swap=find(cell.part, cell.variant), context=context)
        return decide(opened, settings, self.device, _silent, change=change)

    def epochs_of(self, minutes: float) -> int:
        """Epochs that the base takes so many minutes for, 1 at least, by the time of a few steps.

        What a step does after the gradient, measurements and evaluation are not in it.
        """
        job = self.job(Cell(BASE, BASE, 0))
        model = Contrast(copy.deepcopy(job.method), chunk=job.settings.chunk).to(self.device.device)
        seconds = []
        for step in range(4):
            batch = job.dataset.batch(job.plan.indices(step % job.plan.steps_per_epoch))
            start = time.perf_counter()
            with self.device.autocast():
                model(batch).backward()
            seconds.append(time.perf_counter() - start)
        return max(1, int(minutes * 60 / (float(np.median(seconds[1:])) * job.plan.steps_per_epoch)))


def _swapped(method: Method, *, swap: Swap, context: Context) -> Method:
    return swap(method, context)


def _silent(message: str) -> None:
    """What is said of the data is said once, by the study."""


Say = Callable[[str], None]
