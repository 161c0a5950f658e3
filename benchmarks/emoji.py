"""Emoji and their names: does a drawing that was never seen find its name, and a name its drawing? One JSON.

python -m benchmarks.emoji --method clip --epochs 100 --threads 1

A fifth of the emoji is held out of training, by content. Of these, none counts whose name or drawing is also in the
training part. Runs that are finished are not trained again.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, wall_seconds, write_json
from benchmarks.few_shot_methods import DATA
from nearfar.data.pairs import load_pairs
from nearfar.data.sources import open_source
from nearfar.evaluation.pair_retrieval import PairRetrieval, pair_retrieval
from nearfar.tasks.two_towers import load_towers

HELD = 0.2
SETTINGS: dict[str, Any] = {
    "encoder": "small", "batch": 256, "optimizer": "adamw", "lr": 0.001, "weight_decay": 0.1, "hold_out": HELD,
    "view_scale": "0.5,1", "width": 128, "length": 64, "monitor_every": 50,
}  # fmt: skip


def main() -> None:
    """Trains a run for each seed, unless it is there, and measures it on the held-out emoji."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("clip", "siglip"), default="clip")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/emoji"))
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    confine(asked.threads)
    out = asked.out or Path(__file__).parent / "results" / f"emoji_{asked.method}.json"
    data = str(DATA / "emoji_pairs")
    settings = {**SETTINGS, "method": asked.method, "epochs": asked.epochs, "size": asked.size}
    rows = []
    for seed in asked.seeds:
        run = asked.work / f"{asked.method}_{asked.size}px_{asked.epochs}_seed{seed}"
        nf.train(data, out=run, **settings, seed=seed, threads=asked.threads)
        found, count = measured(run, data, asked.size, seed)
        print(f"seed {seed}, {count} held out\n{found.as_text()}", flush=True)
        rows.append({"seed": seed, "held_out": count, "wall_seconds": wall_seconds(run), **found.as_dict()})
    options = f"--method {asked.method} --epochs {asked.epochs} --size {asked.size} --threads {asked.threads}"
    write_json(
        out,
        {
            "command": f"python -m benchmarks.emoji {options}",
            "commit": commit(),
            "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
            "settings": settings,
            "summary": summary(rows),
            "seeds": rows,
        },
    )


def measured(run: Path, data: str, size: int, seed: int) -> tuple[PairRetrieval, int]:
    """Recall among the held-out emoji of a run, and how many there are. Equal names are one answer."""
    dataset = load_pairs(data, size=size, length=SETTINGS["length"])
    source = open_source(data, text=True)
    texts = dict(zip(source.names, source.texts or (), strict=True))
    names = np.array([texts[name] for name in dataset.names])
    drawings = [np.asarray(dataset.inputs[place]).tobytes() for place in range(len(dataset))]
    trained, held = dataset.split(HELD, seed=seed)
    seen = {*names[trained]}, {drawings[place] for place in trained}
    places = np.array([place for place in held if names[place] not in seen[0] and drawings[place] not in seen[1]])
    towers = load_towers(run)
    keys = np.unique(names[places], return_inverse=True)[1]
    images, captions = towers.images(dataset.subset(places)), towers.texts(names[places].tolist())
    return pair_retrieval(images, captions, image_keys=keys, text_keys=keys), len(places)


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each score over the seeds, and chance."""
    found = {}
    for name in rows[0]["scores"]:
        values = [row["scores"][name]["value"] for row in rows]
        found[name] = {
            "mean": mean(values),
            "std": stdev(values) if len(values) > 1 else 0.0,
            "chance": mean(row["chance"][name] for row in rows),
        }
    return found


if __name__ == "__main__":
    main()
