"""What the contenders share: cores, data, initial weights, optimiser, clock, learning rate, evaluation, record.

A contender brings what is its library's own: how batches of views are made, and one training step.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar import encoders
from nearfar.data import Dataset, load
from nearfar.evaluation import features, knn
from nearfar.method import Batch
from nearfar.randomness import permutation
from nearfar.views import CentreCrop

REPOSITORY = Path(__file__).parents[1]
SIZE, CHANNELS = 32, 3
HELD = 5000
"""Training images that no contender trains on: the curve is measured on them, the test images are used once."""
CURVE_BANK = 10_000
"""Training images whose labels vote in the curve; the final score uses all 50,000."""
PROTOCOL = (
    "SimCLR, temperature 0.5, SGD lr 0.06 B/128, cosine over the seconds, momentum 0.9, decay 5e-4, on 45,000 images. "
    "Weighted kNN, k = 200, T = 0.1, pooled encoder features, fp32. curve: 5,000 images held out of training, 10,000 "
    "vote. test_knn: 10,000 test images, 50,000 vote, measured once. The images are JPEG copies of quality 95."
)
PACKAGES = ("nearfar", "torch", "torchvision", "lightly", "numpy", "numba", "pillow")


@dataclass(frozen=True)
class Part:
    """Some images of a data set."""

    dataset: Dataset
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, rows: np.ndarray) -> Batch:
        """Images by their place in this part."""
        return self.dataset.batch(self.indices[rows])

    @property
    def labels(self) -> np.ndarray:
        """Their labels."""
        return np.asarray(self.dataset.labels)[self.indices]


@dataclass(frozen=True)
class Data:
    """CIFAR-10: what is trained on, what is held out of it, and the test images."""

    train: Dataset
    test: Dataset

    @classmethod
    def read(cls, folder: Path) -> Data:
        """Decodes both parts, once for all contenders."""
        train, test = (load(folder / "cifar10" / f"{part}.parquet", size=SIZE) for part in ("train", "test"))
        return cls(train, test)

    @property
    def order(self) -> np.ndarray:
        """One order of the training images, the same whatever the seed of a run."""
        return permutation(0, 0, len(self.train))

    @property
    def fit(self) -> np.ndarray:
        """Numbers of the images that are trained on."""
        return self.order[HELD:]


@dataclass(frozen=True)
class Contender:
    """One library at work.

    Args:
        encoder: The network that is trained; view -> list of maps.
        batches: Batches of views or of images, without end, in the library's own way.
        step: `(batch, learning rate) -> loss`: one training step.
        precision: What the convolutions are computed in.
    """

    encoder: nn.Module
    batches: Iterator[Any]
    step: Callable[[Any, float], float]
    precision: str


def score(encode: Callable[[Tensor], Tensor], bank: Part, queries: Part) -> float:
    """Weighted kNN, k = 200, temperature 0.1, on the encoder's pooled last map, in fp32: accuracy on `queries`."""
    crop = CentreCrop(SIZE)
    x, y = (features(encode, part, crop) for part in (bank, queries))
    return knn(x, bank.labels, y, queries.labels, k=200, temperature=0.1).value


def encode_with(encoder: nn.Module) -> Callable[[Tensor], Tensor]:
    """View -> the encoder's pooled last map."""
    return lambda view: encoders.pooled(encoder(view))


def sgd(model: nn.Module, settings: argparse.Namespace) -> torch.optim.Optimizer:
    """The optimiser of both, with the settings of lightly's CIFAR-10 benchmark."""
    return torch.optim.SGD(model.parameters(), lr=peak(settings), momentum=0.9, weight_decay=5e-4)


def peak(settings: argparse.Namespace) -> float:
    """Learning rate at the start."""
    return 0.06 * settings.batch / 128


@dataclass
class Race:
    """Trains for a number of seconds. Evaluations stop the clock; so does what comes before the second step."""

    contender: Contender
    settings: argparse.Namespace
    probe: Callable[[], float]
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0

    def __call__(self) -> None:
        """A first step with learning rate 0 compiles kernels and starts workers; then the clock runs."""
        self.contender.step(next(self.contender.batches), 0.0)
        while self.seconds < self.settings.seconds:
            start = time.perf_counter()
            loss = self.contender.step(next(self.contender.batches), self.lr())
            self.seconds += time.perf_counter() - start
            self.steps += 1
            if self.seconds >= self.settings.seconds * (len(self.curve) + 1) / self.settings.points:
                self.record(loss)

    def lr(self) -> float:
        """Cosine over the share of the seconds that is used up, so that all contenders end at 0."""
        return peak(self.settings) * 0.5 * (1 + math.cos(math.pi * min(self.seconds / self.settings.seconds, 1.0)))

    def record(self, loss: float) -> None:
        """One more point of the curve."""
        row = {"seconds": round(self.seconds, 1), "images": self.steps * self.settings.batch, "loss": round(loss, 4)}
        self.curve.append(row | {"knn": self.probe()})
        print(json.dumps(self.curve[-1]), flush=True)


def compete(name: str, prepare: Callable[[argparse.Namespace, Data, nn.Module], Contender]) -> None:
    """Reads the command line, runs one contender, writes its record."""
    settings = arguments(name)
    confine(settings.threads)
    data = Data.read(settings.data)
    torch.manual_seed(settings.seed)
    contender = prepare(settings, data, encoders.build(settings.encoder, channels=CHANNELS, size=SIZE))
    everything, test = Part(data.train, np.arange(len(data.train))), Part(data.test, np.arange(len(data.test)))
    bank, held = Part(data.train, data.fit[:CURVE_BANK]), Part(data.train, data.order[:HELD])
    encode = encode_with(contender.encoder)
    untrained, pixels = score(encode, everything, test), score(lambda view: view.flatten(1), everything, test)
    race = Race(contender, settings, lambda: score(encode, bank, held))
    race()
    images = race.steps * settings.batch
    result = {
        "test_knn": score(encode, everything, test),
        "seconds": round(race.seconds, 1),
        "images": images,
        "epochs": round(images / len(data.fit), 2),
        "images_per_second": round(images / race.seconds, 1),
        "baselines": {"raw_pixels": pixels, "untrained_encoder": untrained},
        "curve": race.curve,
    }
    write(settings.out, about(name, settings, contender.precision) | result)


def about(name: str, settings: argparse.Namespace, precision: str) -> dict[str, Any]:
    """What makes a number repeatable: command, commit, machine, versions, protocol."""
    return {
        "contender": name,
        "command": f"python -m {name_of_main()} {' '.join(sys.argv[1:])}".strip(),
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores_used": settings.threads, "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
        "precision": precision,
        "seed": settings.seed,
        "encoder": settings.encoder,
        "batch": settings.batch,
        "protocol": PROTOCOL,
    }


def name_of_main() -> str:
    """The module that was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).stem


def commit() -> str:
    """Commit of the source tree, with `+` where files differ from it."""
    asked = [["git", "rev-parse", "--short=12", "HEAD"], ["git", "status", "--porcelain", "-uno"]]
    if shutil.which("git") is None:
        return "unknown"
    told = [
        subprocess.run(a, capture_output=True, text=True, cwd=REPOSITORY, check=False).stdout.strip() for a in asked
    ]
    return (told[0] or "none") + ("+" if told[1] else "")


def cpu() -> str:
    """Name of the processor, and what multiplies bf16 in it."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    kind = ", AMX" if "amx_bf16" in info else ", AVX512-BF16" if "avx512_bf16" in info else ""
    return (names[0] if names else platform.processor()) + kind


def installed(package: str) -> str:
    """Version of a package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def wall_seconds(run: Path) -> float:
    """From the first command of a run to its encoder; pauses of a run that was stopped are in it."""
    began = datetime.fromisoformat(json.loads((run / "nearfar-run.json").read_text())["time"])
    return round((run / "encoder.safetensors").stat().st_mtime - began.timestamp(), 1)


def confine(threads: int) -> None:
    """This process and all that it starts share as many cores as it has threads: no contender gets more machine."""
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def arguments(name: str) -> argparse.Namespace:
    """The command line, the same for all contenders."""
    data = os.environ.get("NEARFAR_DATA") or REPOSITORY.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=f"SimCLR on CIFAR-10 with {name}, for a fixed number of seconds")
    parser.add_argument("--seconds", type=float, default=1200, help="of training; evaluations don't count")
    parser.add_argument("--threads", type=int, default=1, help="cores and threads; loader workers too")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder that holds cifar10/")
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--points", type=int, default=8, help="of the curve")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default=None, help="default: the library's own"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON; default: results/ here")
    settings = parser.parse_args()
    file = f"cifar10_simclr_{name}_{settings.precision or 'default'}_{settings.threads}t_seed{settings.seed}.json"
    settings.out = settings.out or Path(__file__).parent / "results" / file
    return settings


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes a record, a line a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes the record of a race and says its result."""
    write_json(path, record)
    print(f"test kNN {record['test_knn']:.4f}, {record['images_per_second']} images/s -> {path}")
