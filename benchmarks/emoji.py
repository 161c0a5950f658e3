"""Emoji: does a drawing that was never seen find its name, and a name its drawing? One JSON.

python -m benchmarks.emoji --method clip --epochs 100 --threads 1

With `--method cmc` another hand's drawing of the same emoji is looked for in place of its name. A fifth of the emoji is
held out of training, by content. Of these, none counts whose name or drawing is also in the training part. Runs that
are finished are not trained again.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from torch import Tensor

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, wall_seconds, write_json
from benchmarks.few_shot_methods import DATA
from nearfar.data import Dataset
from nearfar.data.pairs import load_pairs
from nearfar.data.sources import open_source
from nearfar.evaluation import features
from nearfar.evaluation.pair_retrieval import PairRetrieval, pair_retrieval
from nearfar.tasks import load_encoder
from nearfar.tasks.two_towers import load_towers, stored_heads

HELD = 0.2
SETTINGS: dict[str, Any] = {
    "encoder": "small", "batch": 256, "optimizer": "adamw", "lr": 0.001, "weight_decay": 0.1, "hold_out": HELD,
    "view_scale": "0.5,1", "monitor_every": 50,
}  # fmt: skip
CAPTIONS: dict[str, Any] = {"width": 128, "length": 64}
DRAWINGS: dict[str, Any] = {"columns": ("image", "image2"), "loss": "softmax", "negatives": None, "temperature": 0.1}


def main() -> None:
    """Trains a run for each seed, unless it is there, and measures it on the held-out emoji."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=("clip", "siglip", "cmc"), default="clip")
    parser.add_argument("--tokenizer", default="bytes", help="of the names: bytes, words:N or bpe:N")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/emoji"))
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    confine(asked.threads)
    told = "" if asked.tokenizer == "bytes" else "_" + asked.tokenizer.replace(":", "")
    out = asked.out or Path(__file__).parent / "results" / f"emoji_{asked.method}{told}.json"
    data = str(DATA / "emoji_pairs")
    own = DRAWINGS if asked.method == "cmc" else CAPTIONS | {"tokenizer": asked.tokenizer}
    settings = {**SETTINGS, **own, "method": asked.method, "epochs": asked.epochs, "size": asked.size}
    rows = []
    for seed in asked.seeds:
        run = asked.work / f"{asked.method}{told}_{asked.size}px_{asked.epochs}_seed{seed}"
        nf.train(data, out=run, **settings, seed=seed, threads=asked.threads)
        found, count = measured(run, asked.size, seed)
        print(f"seed {seed}, {count} held out\n{found.as_text()}", flush=True)
        rows.append({"seed": seed, "held_out": count, "wall_seconds": wall_seconds(run), **named(found, asked.method)})
    tokens = "" if asked.method == "cmc" else f"--tokenizer {asked.tokenizer} "
    options = f"--method {asked.method} {tokens}--epochs {asked.epochs} --size {asked.size}"
    options += f" --seeds {' '.join(map(str, asked.seeds))} --threads {asked.threads}"
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


def named(found: PairRetrieval, method: str) -> dict[str, Any]:
    """As plain values; of drawings both sides are told by their columns."""
    if method != "cmc":
        return found.as_dict()
    return {
        part: {name.replace("text", "image2"): value for name, value in rows.items()}
        for part, rows in found.as_dict().items()
    }


def measured(run: Path, size: int, seed: int) -> tuple[PairRetrieval, int]:
    """Recall among the held-out emoji of a run, and how many there are. Equal names are one answer."""
    columns = ("image", "image2") if run.name.startswith("cmc") else ("image", "text")
    asked, names = held_out(columns, size, seed)
    keys = np.unique(names, return_inverse=True)[1]
    if columns[1] == "image2":
        images, others = both_drawings(run, asked)
    else:
        towers = load_towers(run)
        images, others = towers.images(asked), towers.texts(names.tolist())
    return pair_retrieval(images, others, image_keys=keys, text_keys=keys), len(asked)


def held_out(columns: tuple[str, ...], size: int, seed: int) -> tuple[Dataset, np.ndarray]:
    """The emoji that a run with this seed was not trained on, neither by name nor by drawing, and their names."""
    data = str(DATA / "emoji_pairs")
    dataset = load_pairs(data, size=size, columns=columns, length=CAPTIONS["length"])
    source = open_source(data, text=True)
    texts = dict(zip(source.names, source.texts or (), strict=True))
    names = np.array([texts[name] for name in dataset.names])
    drawn = [np.asarray(dataset.inputs[place]).tobytes() for place in range(len(dataset))]
    trained, held = dataset.split(HELD, seed=seed)
    seen = {*names[trained]}, {drawn[place] for place in trained}
    places = np.array([place for place in held if names[place] not in seen[0] and drawn[place] not in seen[1]])
    return dataset.subset(places), names[places]


def both_drawings(run: Path, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Embeddings of the first and of the second drawing of each emoji, each by its own network and head."""
    encoder = load_encoder(run)
    heads, found = stored_heads(encoder), []
    for name in ("image", "image2"):
        one, head = encoder.of(name), heads[name]
        part = dataset if name == "image" else alone(dataset, name)
        found.append(features(lambda view, one=one, head=head: head([one.vectors(view)]), part, one.transform))
    return found[0], found[1]


def alone(dataset: Dataset, name: str) -> Dataset:
    """A data set of one column's pictures."""
    column = dataset.columns[name]
    return replace(dataset, inputs=column.inputs, sizes=column.sizes, columns={})


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
