"""Every method on the bundled digits under one budget, through the public functions; one JSON for all.

python -m benchmarks.digits_methods --epochs 30 --threads 1
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import torch

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, write_json
from nearfar.settings import read_yaml

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
OWN = {
    "simclr": {},
    "supcon": {"labels": True, "temperature": 0.1},
    "moco": {"queue": 3584, "decay": 0.99, "temperature": 0.2, "hidden": None},
}
"""What a method needs beside the settings of the demo; None leaves one out."""


def main() -> None:
    """Trains and evaluates each method for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "digits_methods.json")
    asked = parser.parse_args()
    confine(asked.threads)
    found = [one(name, seed, asked) for name in OWN for seed in asked.seeds]
    write_json(
        asked.out,
        {
            "command": f"python -m benchmarks.digits_methods --epochs {asked.epochs} --threads {asked.threads}",
            "commit": commit(),
            "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
            "settings": read_yaml(DEMO) | {"epochs": asked.epochs},
            "own_settings": OWN,
            "protocol": "trained on digits:train (4,000), measured on digits:test (1,000); see docs/evaluation.md",
            "runs": found,
        },
    )


def one(name: str, seed: int, asked: argparse.Namespace) -> dict[str, object]:
    """One method, one seed: its scores and seconds."""
    settings = read_yaml(DEMO) | {"epochs": asked.epochs, "threads": asked.threads, "seed": seed, "method": name}
    settings = {key: value for key, value in (settings | OWN.get(name, {})).items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        start = time.perf_counter()
        run = nf.train("digits:train", out=Path(folder) / "run", **settings)
        seconds = time.perf_counter() - start
        scores = nf.evaluate(run, "digits:train", test="digits:test").scores
    kept = {part: {k: [v.value, v.low, v.high] for k, v in row.items()} for part, row in scores.items()}
    return {"method": name, "seed": seed, "seconds": round(seconds, 1), "scores": kept}


if __name__ == "__main__":
    main()
