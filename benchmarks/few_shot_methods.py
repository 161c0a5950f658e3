"""Every few-shot method on one split with one encoder and one budget; all on the same episodes, in one JSON.

python -m benchmarks.few_shot_methods --split fc100 --epochs 20 --threads 1

A run that is finished is not trained again, so rows can be trained side by side with --rows and measured together.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, wall_seconds, write_json
from nearfar.few_shot.card import FewShotEvaluation

DATA = Path(os.environ.get("NEARFAR_DATA") or Path(__file__).parents[2] / "shared" / "data")
SOURCES = {"fc100": "cifar100:all", "cifar-fs": "cifar100:all", "omniglot-vinyals": "omniglot"}
CLASSIFY = {"batch": 64, "lr": 0.2}
EPISODIC = {"optimizer": "adamw", "lr": 0.001, "ways": 20, "shots": 5, "queries": 5}
PATCHES = {"method": "infopatch", "lr": 0.18}
REFINE = {"method": "mgecl", "lr": 0.0016, "shots": 5, "init": "rfs", "share": 0.25}
TWO_VIEWS = {"share": 0.5}
ROWS: dict[str, dict[str, Any]] = {
    "rfs": {"method": "rfs", **CLASSIFY},
    "rfs distilled": {"method": "rfs", **CLASSIFY, "teacher": "rfs"},
    "protonet": {"method": "protonet", **EPISODIC},
    "protonet after rfs": {"method": "protonet", **EPISODIC, "lr": 0.0003, "init": "rfs", "share": 0.25},
    "matching": {"method": "matching", **EPISODIC},
    "infopatch": PATCHES,
    "infopatch, no block": {**PATCHES, "block": False},
    "infopatch, no PatchMix": {**PATCHES, "mix": False},
    "infopatch, no contrast": {**PATCHES, "contrast": 0.0},
    "infopatch, whole images": {**PATCHES, "patches": False},
    "mgecl": REFINE,
    "mgecl, classes only": {**REFINE, "instance_weight": 0.0},
    "mgecl, instances only": {**REFINE, "class_weight": 0.0},
    "supcon": {"method": "supcon", **TWO_VIEWS},
    "spatial": {"method": "spatial", **CLASSIFY, **TWO_VIEWS},
    "simclr": {"method": "simclr", **TWO_VIEWS},
    "moco": {"method": "moco", "queue": 8192, "decay": 0.99, **TWO_VIEWS},
    "rfs after simclr": {"method": "rfs", **CLASSIFY, "init": "simclr"},
    "rfs after moco": {"method": "rfs", **CLASSIFY, "init": "moco"},
}
"""Settings of each row. `init` and `teacher` name the row that goes before. `share` is its share of the epochs: half
where an image is two views, a quarter for a second stage."""


def main() -> None:
    """Trains the rows, then measures all of them."""
    asked = arguments()
    confine(asked.threads)
    asked.work.mkdir(parents=True, exist_ok=True)
    data = str(DATA / SOURCES[asked.split])
    for name in asked.rows:
        train(name, data, asked)
    if asked.train_only:
        return
    folders = {name: asked.work / folder(name) for name in asked.rows}
    last = list(folders)[-1]
    found = nf.evaluate_few_shot(
        folders[last], data, split=asked.split, episodes=asked.episodes, heads=asked.heads,
        against=[path for name, path in folders.items() if name != last],
    )  # fmt: skip
    write_json(asked.out, record(asked, found, {str(path): name for name, path in folders.items()}, last))


def train(name: str, data: str, asked: argparse.Namespace) -> None:
    """One row, unless it is there."""
    settings = {"encoder": asked.encoder, "size": 32, "seed": asked.seed, "threads": asked.threads, **ROWS[name]}
    epochs = max(round(asked.epochs * settings.pop("share", 1)), 1)
    for before in ("init", "teacher"):
        if before in settings:
            settings[before] = str(asked.work / folder(settings[before]))
    nf.train(data, split=asked.split, epochs=epochs, out=asked.work / folder(name), **settings)


def folder(name: str) -> str:
    """Name of a row as a file."""
    return name.replace(", ", "-").replace(" ", "-")


def record(asked: argparse.Namespace, found: FewShotEvaluation, names: dict[str, str], last: str) -> dict[str, Any]:
    """What makes the table repeatable, and the table. `names` tell the rows by their folder; `last` is the main one."""
    plain = found.as_dict()
    scores = {(names | {found.main: last}).get(name, name): value for name, value in plain.pop("scores").items()}
    return {
        "command": f"python -m benchmarks.few_shot_methods --split {asked.split} --epochs {asked.epochs}",
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
        "encoder": asked.encoder,
        "epochs": asked.epochs,
        "seeds": [asked.seed],
        "rows": {name: ROWS[name] for name in asked.rows},
        "wall_seconds": {name: wall_seconds(Path(path)) for path, name in names.items()},
        "card": plain["card"] | {"data": SOURCES[asked.split]},
        "scores": scores,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=tuple(SOURCES), default="fc100")
    parser.add_argument("--encoder", default="conv4-pool")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images, one view each")
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--heads", nargs="+", default=["lr", "ncm", "nn"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--work", type=Path, default=None, help="folder for the runs")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    asked.work = asked.work or Path("runs") / f"few_shot_{asked.split}_seed{asked.seed}"
    asked.out = asked.out or Path(__file__).parent / "results" / f"few_shot_{asked.split}_seed{asked.seed}.json"
    return asked


if __name__ == "__main__":
    main()
