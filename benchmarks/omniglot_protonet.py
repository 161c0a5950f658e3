"""A prototypical network on Omniglot, Vinyals split, four convolutions, 28 px; 5 ways, 1 and 5 shots; one JSON.

python -m benchmarks.omniglot_protonet --epochs 40 --threads 1
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, wall_seconds, write_json
from benchmarks.few_shot_methods import DATA

SPLIT = "omniglot-vinyals"
SETTINGS = {
    "method": "protonet", "encoder": "conv4", "size": 28, "ways": 60, "shots": 1, "queries": 5, "flip": 0,
    "view_pad": "0", "view_scale": "1,1", "optimizer": "adamw", "lr": 0.001, "weight_decay": 0, "monitor_every": 100,
}  # fmt: skip


def main() -> None:
    """Trains, unless the run is there, and measures on the test characters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/omniglot"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "omniglot_protonet.json")
    asked = parser.parse_args()
    confine(asked.threads)
    data = str(DATA / "omniglot")
    settings = {**SETTINGS, "split": SPLIT, "epochs": asked.epochs, "threads": asked.threads, "seed": asked.seed}
    run = nf.train(data, out=asked.work, **settings)
    heads = ("ncm-raw", "ncm", "lr")
    found = nf.evaluate_few_shot(run, data, split=SPLIT, episodes=asked.episodes, heads=heads)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    write_json(
        asked.out,
        {
            "command": f"python -m benchmarks.omniglot_protonet --epochs {asked.epochs} --threads {asked.threads}",
            "commit": commit(),
            "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
            "settings": settings,
            "wall_seconds": wall_seconds(run),
            "curve": [{"epoch": row["epoch"], "one_shot": row["one_shot"]} for row in rows if "one_shot" in row],
            "card": found.as_dict()["card"] | {"data": "omniglot"},
            "scores": found.as_dict()["scores"],
        },
    )


if __name__ == "__main__":
    main()
