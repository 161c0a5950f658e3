"""A SimCLR step on one GPU, and what the rest of the minutes give; for `benchmarks.gpu`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from benchmarks.common import Data, Part
from benchmarks.speed import losses, step, views
from benchmarks.speed.harness import OURS, Row, there
from benchmarks.speed.loader import dataset_of
from benchmarks.speed.on_gpu import Place
from benchmarks.speed.photographs import photographs, pixels
from nearfar import Contrast, extract
from nearfar.data import Dataset
from nearfar.device import Device, choose
from nearfar.encoders import pooled
from nearfar.engine import Loop
from nearfar.evaluation import features, knn
from nearfar.views import CentreCrop

BATCH = 512
SHARE, POINTS = 0.8, 8
"""Of the seconds left, those of training (the rest is for evaluations), and points of the curve."""
LEAST = 0.5
"""Seconds of training where the other parts left none."""
STEPS = 100
"""That a call of the loop takes, so that its beginning and its measurements count little."""
BARS = (0.75, 0.8, 0.85, 0.88, 0.9)
"""Accuracies of which the time is told."""
HELD = 0.1
"""Share of the training images that the curve is measured on."""


def model_on(place: Place) -> tuple[Contrast, Device]:
    """SimCLR with ResNet-18 for small images; on a GPU in bf16."""
    device = choose(place.device, "fp32" if place.smoke else "bf16")
    return step.model_of(case_on(place), device), device


def case_on(place: Place) -> step.Case:
    """What is trained."""
    return step.SMOKE[0] if place.smoke else replace(step.CASES[0], batch=BATCH)


def step_rows(place: Place) -> Iterator[Row]:
    """Microseconds an image: eager, compiled, and the usual loop around torchvision's transforms."""
    case = case_on(place)
    pictures = photographs(2 * case.batch, 32, 32)
    steps = 2 if place.smoke else STEPS
    data, works = dataset_of(np.tile(pixels(pictures), (steps // 2, 1, 1, 1))), {}
    for name in (OURS, f"{OURS}, compiled") if place.device == "cuda" else (OURS,):
        model, device = model_on(place)
        if name != OURS:
            model.encoder.compile()
        works[name] = step.looped(model, data, device, batch=case.batch)
    if there("torchvision"):
        net = case.net()
        model = nn.Sequential(net, extract.mlp(net.width, 512, 128, norm=True, last="scale"))
        each = views.torchvision(views.Task(pictures, 32))
        name = "torchvision's views in a loader, plain torch"
        peer = step.peer(case, each, model, losses.plain, not place.smoke, place.workers, place.device)
        works[name] = partial(several, peer, steps)
    if there("lightly"):
        peer = step.lightly(case, pictures, not place.smoke, place.workers, place.device)
        works["lightly, bf16"] = partial(several, peer, steps)
    yield Row(
        name=case.name,
        unit="us an image",
        costs={name: step.settled(turn) for name, turn in place.turns(works, case.batch * steps, 1e6).items()},
        measured="wall clock",
        work={"flops": case.flops()},
    )


def several(work: Callable[[], object], times: int) -> None:
    """As many steps as a call of the loop."""
    for _ in range(times):
        work()


def accuracy(place: Place) -> dict[str, Any]:
    """Trains for most of the seconds that are left: as many epochs as some steps on trial say will fit.

    The curve is of training images that were held out; others vote. The test images are used once, at the end.
    """
    data, case = examples(place), case_on(place)
    held, fit = np.split(data.order, [int(HELD * len(data.train))])
    everything, test = (Part(part, np.arange(len(part))) for part in (data.train, data.test))
    watched, bank = Part(data.train, held), Part(data.train, fit[: 2 * len(held)])
    model, device = model_on(place)
    score = partial(scored, model, device)
    untrained, settings = score(everything, test), {"batch": case.batch, "samples": fit}
    if place.device == "cuda":
        model.encoder.compile()
    compiling, epoch = on_trial(model, step.looped(model, data.train, device, **settings))
    curve = Curve(place, max(int(max(SHARE * place.left, LEAST) / epoch), 1), partial(score, bank, watched))
    loop = step.looped(model, data.train, device, epochs=curve.epochs, probe=curve.probe, **settings)
    curve.since = time.perf_counter()
    loop()
    images = loop.plan.total * case.batch
    return {
        "test_knn": score(everything, test),
        "untrained_encoder": untrained,
        "seconds": round(curve.seconds, 1),
        "compile_seconds": round(compiling, 1),
        "batch": case.batch,
        "epochs": curve.epochs,
        "images": images,
        "images_per_second": round(images / curve.seconds, 1),
        "curve": curve.points,
        "reached": {str(bar): curve.reached(bar) for bar in BARS},
    }


def on_trial(model: Contrast, loop: Loop) -> tuple[float, float]:
    """Seconds of compiling, and of an epoch; the model is afterwards what it was before."""
    before, start = copy.deepcopy(model.state_dict()), time.perf_counter()
    loop()
    first, start = time.perf_counter() - start, time.perf_counter()
    loop()
    second = time.perf_counter() - start
    model.load_state_dict(before)
    return first - second, second


@dataclass
class Curve:
    """The clock of a training, which stands still during evaluations.

    Args:
        place: Where.
        epochs: Of the training.
        score: kNN.
    """

    place: Place
    epochs: int
    score: Callable[[], float]
    epoch: int = 0
    seconds: float = 0.0
    since: float = 0.0
    points: list[dict[str, float]] = field(default_factory=list)

    def probe(self) -> dict[str, float]:
        """Reads the clock at the end of an epoch; of some of them the score is taken."""
        self.place.wait()
        self.seconds += time.perf_counter() - self.since
        self.epoch += 1
        if self.epoch * POINTS // self.epochs > (self.epoch - 1) * POINTS // self.epochs:
            self.points.append({"seconds": round(self.seconds, 2), "epoch": self.epoch, "knn": self.score()})
            print(self.points[-1], flush=True)
        self.since = time.perf_counter()
        return {}

    def reached(self, bar: float) -> float | None:
        """Seconds of the first point that is so good."""
        return next((point["seconds"] for point in self.points if point["knn"] >= bar), None)


def scored(model: Contrast, device: Device, bank: Part, queries: Part) -> float:
    """Weighted kNN, k = 200, temperature 0.1, on the encoder's pooled last map: accuracy on `queries`.

    By `forward`, which is not compiled: another mode and other batches would compile it once more.
    """
    settings: dict[str, Any] = {"batch": 2048, "device": device.device, "dtype": device.dtype}
    crop = CentreCrop(bank.dataset.inputs.shape[-1])
    x, y = (
        features(lambda view: pooled(model.encoder.forward(view)), part, crop, **settings) for part in (bank, queries)
    )
    return knn(x, bank.labels, y, queries.labels, k=200, temperature=0.1).value


def examples(place: Place) -> Data:
    """CIFAR-10; for a trial pieces of photographs."""
    if not place.smoke:
        return Data.read(place.data)
    made: list[Dataset] = [dataset_of(pixels(photographs(count, 32, 32))) for count in (64, 16)]
    return Data(*made)
