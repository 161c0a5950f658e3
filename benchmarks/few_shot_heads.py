"""Few-shot heads against scikit-learn and easyfsl: milliseconds an episode and equal answers, one JSON for all.

python -m benchmarks.few_shot_heads --episodes 1000 --repeats 5 --threads 1

Bars: logistic regression 13 times as fast as scikit-learn's default at 1 shot and 10 times at 5 shots, all answers
equal to scikit-learn's at a tolerance of 1e-9; nearest mean 3 times, TIM and PT-MAP 10 times as fast as easyfsl's.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.common import PACKAGES, commit, confine, cpu, installed, write_json
from nearfar.episodes import Episodes, EpisodeSampler
from nearfar.few_shot.blocks import predict
from nearfar.few_shot.heads import HEADS

WIDTH, CLASSES, EACH, APART = 640, 20, 600, 0.25
BLOCK = 1000
"""Episodes that one contender answers before it is the next one's turn."""
PROTOCOL = (
    "20 classes of 600 float32 features of width 640, relu(class mean + noise), both normal, the means' deviation 0.25;"
    " 5-way, 15 queries a class. ms: processor time an episode from places to answers, gathering of the features "
    "included; the contenders of a row take turns, block by block, in one process; median over repeats, ratio of the "
    "medians. scikit-learn is given features that were normalised before."
)
Answer = Callable[[Episodes], np.ndarray]


def main() -> None:
    """Runs each row of the table for each number of shots."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rows", nargs="+", default=None, help="of the table, by name; default: all that can be run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "few_shot_heads.json")
    asked = parser.parse_args()
    confine(asked.threads)
    bank = features()
    table = against_scikit_learn(bank)
    if importlib.util.find_spec("easyfsl"):
        table |= against_easyfsl(bank)
    else:
        print("easyfsl is not installed: its rows are left out")
    sampler = partial(EpisodeSampler, np.arange(CLASSES).repeat(EACH), ways=5, queries=15)
    rows = []
    for shots in asked.shots:
        episodes = sampler(shots=shots).draw(0, asked.episodes)
        for name in asked.rows or table:
            rows.append({"row": name, "shots": shots} | race(table[name], episodes, asked.repeats))
            print(rows[-1], flush=True)
    write_json(asked.out, record(asked) | {"rows": rows})


def features() -> Tensor:
    """The bank, `[CLASSES * EACH, WIDTH]`."""
    draw = torch.Generator().manual_seed(0)
    means = APART * torch.randn(CLASSES, 1, WIDTH, generator=draw)
    return (means + torch.randn(CLASSES, EACH, WIDTH, generator=draw)).relu().flatten(0, 1)


def record(asked: argparse.Namespace) -> dict[str, Any]:
    """What makes the numbers repeatable."""
    packages = (*PACKAGES, "scikit-learn", "easyfsl")
    return {
        "command": f"python -m benchmarks.few_shot_heads --episodes {asked.episodes} --repeats {asked.repeats} "
        f"--threads {asked.threads}",
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version()} | {p: installed(p) for p in packages if installed(p)},
        "protocol": PROTOCOL,
        "episodes": asked.episodes,
        "repeats": asked.repeats,
    }


def race(contenders: dict[str, Answer], episodes: Episodes, repeats: int) -> dict[str, Any]:
    """Times of contenders that take turns; nearfar is one of them, and the others are compared with it."""
    for answer in contenders.values():
        answer(episodes[:2])
    times: dict[str, list[float]] = {name: [0.0] * repeats for name in contenders}
    answers: dict[str, list[np.ndarray]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for first in range(0, len(episodes), BLOCK):
            part = episodes[first : first + BLOCK]
            for name, answer in contenders.items():
                start = time.process_time()
                answered = answer(part)
                times[name][repeat] += time.process_time() - start
                if repeat == 0:
                    answers[name].append(answered)
    seconds = {name: median(spent) for name, spent in times.items()}
    told = {name: np.concatenate(parts) for name, parts in answers.items()}
    others = [name for name in contenders if name != "nearfar"]
    return {
        "ms": {name: round(1e3 * spent / len(episodes), 4) for name, spent in seconds.items()},
        "times_as_fast": {name: round(seconds[name] / seconds["nearfar"], 1) for name in others},
        "answers": episodes.query_label.size,
        "equal_answers": {name: int((told[name] == told["nearfar"]).sum()) for name in others},
        "accuracy": {name: round(float((part == episodes.query_label).mean()), 5) for name, part in told.items()},
    }


def nearfar(bank: Tensor, name: str, **options: Any) -> Answer:
    """A head of nearfar."""
    return lambda episodes: predict(bank, episodes, HEADS[name], **options).numpy()


def against_scikit_learn(bank: Tensor) -> dict[str, dict[str, Answer]]:
    """Logistic regression: scikit-learn as it comes, and at a tolerance of 1e-9 in float64."""
    unit = torch.nn.functional.normalize(bank.double(), dim=1).numpy()
    single = unit.astype(np.float32)
    return {
        f"logistic regression, C = {C:g}": {
            "nearfar": nearfar(bank, "lr", C=C),
            "scikit-learn": each(single, partial(LogisticRegression, C=C, max_iter=1000)),
            "scikit-learn, 1e-9": each(unit, partial(LogisticRegression, C=C, max_iter=10_000, tol=1e-9)),
        }
        for C in (1.0, 10.0)
    }


def each(x: np.ndarray, model: Callable[[], LogisticRegression]) -> Answer:
    """One model an episode."""

    def answer(episodes: Episodes) -> np.ndarray:
        parts = zip(episodes.support, episodes.support_label, episodes.query, strict=True)
        return np.stack([model().fit(x[support], labels).predict(x[query]) for support, labels, query in parts])

    return answer


def against_easyfsl(bank: Tensor) -> dict[str, dict[str, Answer]]:
    """Heads that both have. TIM and PT-MAP with as many rounds as are easyfsl's default, 50 and 10, for both.

    PT-MAP is given features whose roots have length 1: easyfsl's takes them as they are, and the squared distances of
    longer ones make its transport NaN, which then never converges (some hundred ms a task, answers by chance).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from easyfsl import methods  # pyright: ignore[reportMissingImports]
    uniform = {"query_prior": "uniform"}
    short = torch.nn.functional.normalize(bank.sqrt(), dim=1).square()
    return {
        "nearest mean": {
            "nearfar": nearfar(bank, "ncm-raw"),
            "easyfsl": loop(bank, methods.PrototypicalNetworks),
        },
        "nearest mean, cosine": {"nearfar": nearfar(bank, "cosine"), "easyfsl": loop(bank, methods.SimpleShot)},
        "TIM, 50 steps": {
            "nearfar": nearfar(bank, "tim", steps=50, **uniform),
            "easyfsl": loop(bank, methods.TIM, fine_tuning_steps=50, feature_normalization=2.0),
        },
        "PT-MAP, 10 rounds": {
            "nearfar": nearfar(short, "pt-map", rounds=10, **uniform),
            "easyfsl": loop(short, methods.PTMAP, fine_tuning_steps=10),
        },
    }


def loop(bank: Tensor, method: Callable[..., Any], **options: Any) -> Answer:
    """One task after the other, as easyfsl's evaluation has it, with the features in place of images."""
    model = method(torch.nn.Identity(), **options)

    @torch.no_grad()
    def answer(episodes: Episodes) -> np.ndarray:
        answered = []
        for part in zip(episodes.support, episodes.support_label, episodes.query, strict=True):
            support, labels, query = map(torch.from_numpy, part)
            model.process_support_set(bank[support], labels)
            answered.append(model(bank[query]).argmax(dim=1))
        return torch.stack(answered).numpy()

    return answer


if __name__ == "__main__":
    main()
