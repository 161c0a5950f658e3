"""CPC on 22 minutes of spoken digits: which digit, and who speaks, told from frozen features; against log-mel.

python -m benchmarks.spoken_digits --seconds 300 --seeds 3 --threads 1
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import PACKAGES, REPOSITORY, commit, confine, cpu, installed, write_json
from nearfar import encoders, optim
from nearfar.data import Dataset
from nearfar.data.sound import load_sound
from nearfar.evaluation import features, knn, linear
from nearfar.evaluation.linear import standardise
from nearfar.evaluation.log_mel import log_mel
from nearfar.method import Batch, Contrast
from nearfar.methods.cpc_audio import cpc_audio
from nearfar.randomness import permutation
from nearfar.views.sound import Waveform

K = 20
PROTOCOL = (
    "CPC on sounds of fsdd without labels: Adam without decay, cosine over the processor seconds to 0. Features: mean "
    "over time of the context, whole sounds, standardised with the sounds that the probe learns from. Probes: linear, "
    "and kNN "
    f"(k = {K}, T = 0.1). digit, new speaker: for each of the six speakers an encoder is trained on the train sounds "
    "of the other five, the probe learns the digits from these 2,250 sounds and is asked for the speaker's 500 train "
    "and test sounds, which neither has heard; mean over the six. speaker: the encoder is trained on the 2,700 train "
    "sounds, the probe learns the six speakers from these and is asked for the 300 test sounds (the data's own split). "
    "Not blind: the defaults of --encoder and --negatives were chosen after three runs of a minute (seed 0; "
    "sound-8k-small with batch, twice, and sound-8k-small-x2 with sample), their scores seen. untrained: the encoder "
    "with its initial weights. log_mel: 40 bands."
)


@dataclass(frozen=True)
class Sounds:
    """All sounds, train first, with both labels.

    Args:
        data: Their labels are the digits.
        speakers: int64 `[N]`.
        names: Of the speakers.
        train: Number of train sounds.
    """

    data: Dataset
    speakers: np.ndarray
    names: list[str]
    train: int

    @classmethod
    def read(cls, folder: Path) -> Sounds:
        """Both parts."""
        digits, speakers = (load_sound(f"{folder}:all", label=label) for label in ("label", "speaker"))
        test = set(load_sound(folder / "test.parquet").names)
        own = np.array([name not in test for name in digits.names])
        order = np.concatenate([np.flatnonzero(own), np.flatnonzero(~own)])
        assert speakers.labels is not None and speakers.classes is not None
        return cls(digits.subset(order), speakers.labels[order], speakers.classes, int(own.sum()))

    @property
    def digits(self) -> np.ndarray:
        """int64 `[N]`."""
        return np.asarray(self.data.labels)


def main() -> None:
    """Trains seven encoders a seed, as far as they are not there, and writes one JSON."""
    asked = arguments()
    confine(asked.threads)
    sounds = Sounds.read(asked.data / "fsdd")
    mel = torch.cat([log_mel(part.inputs, part.sizes, rate=sounds.data.rate or 0) for part in parts(sounds.data)])
    runs = []
    for seed in range(asked.seeds):
        runs.append(one_seed(asked, sounds, seed))
        print(json.dumps({"seed": seed} | runs[-1]["scores"]), flush=True)
    record = {
        "command": f"python -m benchmarks.spoken_digits --seconds {asked.seconds:g} --seeds {asked.seeds}"
        f" --threads {asked.threads}",
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version()}
        | {p: installed(p) for p in (*PACKAGES, "soundfile", "scipy")},
        "settings": {n: getattr(asked, n) for n in ("encoder", "size", "steps", "negatives", "batch", "lr", "seconds")},
        "protocol": PROTOCOL,
        "scores": over_seeds(runs) | {"log_mel": probes(sounds, mel, [mel] * len(sounds.names))},
        "runs": runs,
    }
    write_json(asked.out, record)
    print(json.dumps(record["scores"], indent=1), asked.out)


def over_seeds(runs: list[dict]) -> dict[str, dict[str, list[float]]]:
    """Mean and standard deviation (of a sample) of each score; one seed has no deviation: 0."""
    found: dict[str, dict[str, list[float]]] = {}
    for kind, scores in runs[0]["scores"].items():
        for probe in scores:
            values = [run["scores"][kind][probe] for run in runs]
            deviation = stdev(values) if len(values) > 1 else 0.0
            found.setdefault(kind, {})[probe] = [round(mean(values), 4), round(deviation, 4)]
    return found


def one_seed(asked: argparse.Namespace, sounds: Sounds, seed: int) -> dict:
    """Scores of trained and untrained encoders, and the loss of each run."""
    everyone = np.arange(sounds.train)
    others = [everyone[sounds.speakers[: sounds.train] != left] for left in range(len(sounds.names))]
    untrained = vectors(model(asked, seed), sounds)
    found = [learned(asked, sounds, places, seed, number) for number, places in enumerate((everyone, *others))]
    trained = [vectors for vectors, _ in found]
    return {
        "scores": {
            "cpc": probes(sounds, trained[0], trained[1:]),
            "untrained": probes(sounds, untrained, [untrained] * len(others)),
        },
        "training": [told for _, told in found],
    }


def learned(
    asked: argparse.Namespace, sounds: Sounds, places: np.ndarray, seed: int, number: int
) -> tuple[Tensor, dict]:
    """Vectors of all sounds by an encoder trained on some, and how far it came; kept, so that nothing is done twice."""
    settings = "_".join(f"{getattr(asked, name):g}" for name in ("size", "steps", "batch", "lr", "seconds", "threads"))
    path = asked.work / f"{asked.encoder}_{asked.negatives}_{settings}" / f"seed{seed}_{number}.npz"
    if not path.exists():
        began = time.process_time()
        net, told = train(asked, sounds, places, seed)
        told["processor_seconds"] = round(time.process_time() - began, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".tmp").open("wb") as file:
            np.savez(file, vectors=vectors(net, sounds).numpy(), told=json.dumps(told))
        path.with_suffix(".tmp").rename(path)
    with np.load(path) as kept:
        return torch.from_numpy(kept["vectors"]), json.loads(str(kept["told"]))


def model(asked: argparse.Namespace, seed: int) -> Contrast:
    """CPC with the initial weights of a seed."""
    torch.manual_seed(seed)
    return Contrast(cpc_audio(encoder=asked.encoder, size=asked.size, steps=asked.steps, negatives=asked.negatives))


def train(asked: argparse.Namespace, sounds: Sounds, places: np.ndarray, seed: int) -> tuple[Contrast, dict]:
    """Trains for the processor seconds asked for, on each core; how far it came."""
    net = model(asked, seed)
    optimizer = optim.build(net, name="adamw", lr=asked.lr, weight_decay=0.0)
    start, losses, chance = time.process_time(), [], 0.0
    for epoch in count():
        order = places[permutation(seed, epoch, len(places))]
        for first in range(0, len(order) - asked.batch + 1, asked.batch):
            share = (time.process_time() - start) / (asked.seconds * asked.threads)
            if share >= 1:
                last = float(np.mean(losses[-50:]))
                return net, {"steps": len(losses), "loss": round(last, 4), "chance": round(chance, 4)}
            for group in optimizer.param_groups:
                group["lr"] = asked.lr * 0.5 * (1 + math.cos(math.pi * share))
            batch = sounds.data.batch(order[first : first + asked.batch], seed=seed, epoch=epoch)
            optimizer.zero_grad()
            loss = net(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            chance = net.chance or 0.0
    raise AssertionError("epochs don't end")


def vectors(net: Contrast, sounds: Sounds) -> Tensor:
    """The representation of every sound."""
    rate = sounds.data.rate or 0
    return features(lambda view: encoders.pooled(net.encoder(view)), sounds.data, Waveform(rate), batch=64)


def parts(data: Dataset, most: int = 64) -> Iterator[Batch]:
    """All of a data set, some at a time."""
    for first in range(0, len(data), most):
        yield data.batch(np.arange(first, min(first + most, len(data))))


def probes(sounds: Sounds, everyone: Tensor, left_out: list[Tensor]) -> dict[str, float]:
    """Accuracies by features of all sounds: from an encoder that has heard everyone, and all but each speaker."""
    numbers = np.arange(len(sounds.data))
    split = [(everyone, numbers < sounds.train, numbers >= sounds.train, sounds.speakers)]
    for speaker, x in enumerate(left_out):
        learned = (sounds.speakers != speaker) & (numbers < sounds.train)
        split.append((x, learned, sounds.speakers == speaker, sounds.digits))
    rows = [probe(*one) for one in split]
    told = {f"speaker, {name}": rows[0][name] for name in rows[0]}
    return told | {f"digit, new speaker, {name}": float(np.mean([row[name] for row in rows[1:]])) for name in rows[0]}


def probe(x: Tensor, learned: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Linear and kNN accuracy."""
    bank, queries = standardise(x[torch.from_numpy(learned)], x[torch.from_numpy(asked)])
    given = (bank, labels[learned], queries, labels[asked])
    return {"linear": linear(*given).value, "knn": knn(*given, k=K).value}


def arguments() -> argparse.Namespace:
    """The command line."""
    data = os.environ.get("NEARFAR_DATA") or REPOSITORY.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds",
        type=float,
        default=300,
        help="processor time of training on each core, for each of seven encoders a seed",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--encoder", default="sound-8k-small-x2")
    parser.add_argument("--size", type=int, default=4096, help="samples of a window, 8,000 a second")
    parser.add_argument("--steps", type=int, default=12, help="frames ahead, of 10 ms")
    parser.add_argument("--negatives", choices=("batch", "sample"), default="sample")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--data", type=Path, default=Path(data), help="folder that holds fsdd/")
    parser.add_argument("--work", type=Path, default=Path("runs/spoken_digits"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "spoken_digits.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
