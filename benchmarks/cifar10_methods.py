"""Methods side by side on CIFAR-10: kNN and linear accuracy on the test images, one JSON.

python -m benchmarks.cifar10_methods --epochs 5 --seeds 0 --threads 1
python -m benchmarks.cifar10_methods --minutes 12 --seeds 0 --threads 1

The first gives every method that compares whole images as many epochs. The second gives those that compare parts of
images (CPC, AMDIM, YADIM) or colours (CMC), and SimCLR beside them, about as much time of a processor core: one takes
fourteen times as long for an image as another. A run that is finished is not trained again, so rows can be trained side
by side with --rows --train-only; and the record keeps what it holds of the same settings, so seeds can be added to it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import torch

import nearfar as nf
from benchmarks.common import PACKAGES, commit, confine, cpu, installed, wall_seconds, write_json
from benchmarks.few_shot_methods import DATA
from nearfar.console import Line
from nearfar.device import choose
from nearfar.evaluation import knn, linear
from nearfar.runs import Run
from nearfar.tasks import Encoder
from nearfar.tasks.build import check
from nearfar.tasks.job import prepare
from nearfar.tasks.train import FREE
from nearfar.tasks.train import trained as train

TRAIN, TEST = DATA / "cifar10" / "train.parquet", DATA / "cifar10" / "test.parquet"
SMALL = {"encoder": "small", "batch": 256, "lr": 0.12}
ADAM = {"optimizer": "adamw", "lr": 0.001, "batch": 256}
PATCHES = {"optimizer": "adamw", "lr": 0.004, "batch": 64, "encoder": "small", "hidden": 128}
WIDE = {"hidden": 512, "width": 128}
LARGE = {"crops": 0, "least": 0.08, **WIDE}
ROWS: dict[str, dict[str, Any]] = {
    "instdisc": {"method": "instdisc", "loss": "softmax", "negatives": None, "temperature": 0.1, **SMALL},
    "invaspread": {"method": "invaspread", **SMALL},
    "simclr": {"method": "simclr", "hidden": "512", **SMALL},
    "simclr_v2": {"method": "simclr_v2", "temperature": 0.5, **SMALL},
    "dcl": {"method": "dcl", "hidden": "512", **SMALL},
    "moco": {"method": "moco", "queue": 16384, "decay": 0.99, **SMALL},
    "moco_v3": {"method": "moco_v3", "temperature": 0.2, **WIDE, **SMALL},
    "nnclr": {"method": "nnclr", "predictor": 512, "queue": 16384, "temperature": 0.2, **WIDE, **SMALL},
    "byol": {"method": "byol", "decay": 0.99, **WIDE, **SMALL},
    "simsiam": {"method": "simsiam", "layers": 2, "width": 512, "bottleneck": 128, **SMALL},
    "barlow_twins": {"method": "barlow_twins", "hidden": "512,512", "width": 512, **ADAM, "encoder": "small"},
    "vicreg": {"method": "vicreg", "hidden": "512,512", "width": 512, **ADAM, "encoder": "small"},
    "swav": {"method": "swav", "prototypes": 100, "epsilon": 0.03, **LARGE, **ADAM, "encoder": "small"},
    "dino": {"method": "dino", "prototypes": 2048, "target_temperature": 0.04, "decay": 0.99, "norm": True}
    | {**LARGE, **ADAM, "encoder": "small"},
    "mae": {"method": "mae"},
    "supcon, with labels": {"method": "supcon", "hidden": "512", **ADAM, "encoder": "small"},
    "simclr, AMDIM's encoder": {"method": "simclr", "encoder": "amdim-small", **ADAM},
    "amdim": {"method": "amdim", "encoder": "amdim-small", "width": 256, **ADAM},
    "yadim": {"method": "yadim", "encoder": "amdim-small", "width": 256, **ADAM},
    "cpc": {"method": "cpc", **PATCHES},
    "cpc_v2": {"method": "cpc_v2", **PATCHES},
    "cmc": {"method": "cmc", "encoder": "small", "loss": "softmax", "negatives": None, "temperature": 0.1, **ADAM},
}
"""Settings of each row. Labels are read in training by supcon alone. SwAV's are the sixth that were tried and DINO's
the fourth, by the kNN of held-out training images: with more prototypes, softer codes or targets (epsilon 0.05, 0.07),
small crops besides, or crops of at least 0.4 neither left the untrained encoder behind in five epochs. SupCon's are the
second: with SGD the embeddings, whose head has no batch norm, stayed nearly alike. None of the others was tried
otherwise."""
PACE = {
    "simclr": 757,
    "cmc": 295,
    "simclr, AMDIM's encoder": 175,
    "yadim": 177,
    "amdim": 104,
    "cpc": 70,
    "cpc_v2": 53,
}
"""Images a second of a core of the machine in the record; what `--minutes` turns into epochs."""
HELD = 0.04
RESULTS = Path(__file__).parent / "results"
IMAGES = 48_000
PROTOCOL = (
    "commit and cpu: of the run's measurement; begun: when its training was. epochs: passes over 48,000 images. "
    "Measured once after the last step, on pooled encoder features of centre crops (of CMC both networks' side by "
    "side): all 50,000 training images vote or are learned from, 10,000 test images are asked for. curve: what the "
    "run's monitors saw, knn there of the 2,000 images that are not trained on. The images are JPEG copies of quality "
    "95."
)
CURVE = ("epoch", "loss", "chance", "std", "rank", "uniformity", "alignment", "knn")


def main() -> None:
    """Trains each row for each seed, unless it is there, and measures it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="of every row")
    parser.add_argument("--minutes", type=float, help="in place of epochs: of a core, for every row; 1 epoch at least")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), metavar="ROW")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/cifar10_methods"))
    parser.add_argument("--out", type=Path, help="the record")
    asked = parser.parse_args()
    confine(asked.threads)
    rows = asked.rows or (tuple(PACE) if asked.minutes else [row for row in ROWS if row == "simclr" or row not in PACE])
    runs = {(row, seed): trained(row, seed, asked) for row in rows for seed in asked.seeds}
    if asked.train_only:
        return
    budget = f"--minutes {asked.minutes:g}" if asked.minutes else f"--epochs {asked.epochs}"
    out = asked.out or RESULTS / ("cifar10_parts.json" if asked.minutes else "cifar10_methods.json")
    found = [told(row, seed, run, asked) for (row, seed), run in runs.items()]
    all_runs = sorted(
        found + kept(out, list(runs), asked), key=lambda run: (tuple(ROWS).index(run["row"]), run["seed"])
    )
    seeds = sorted({run["seed"] for run in all_runs})
    write_json(
        out,
        {
            "command": f"python -m benchmarks.cifar10_methods {budget} --seeds {' '.join(map(str, seeds))}"
            f" --threads {asked.threads}",
            "commit": commit(),
            "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
            "protocol": PROTOCOL,
            "rows": {row: settings for row, settings in ROWS.items() if row in {run["row"] for run in all_runs}},
            "runs": all_runs,
        },
    )


def told(row: str, seed: int, run: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """What the record says of one run."""
    found = measured(run, asked.work / "scores.json")
    return {"row": row, "seed": seed, "epochs": epochs(row, asked), "commit": commit(), "cpu": cpu()} | found


def kept(out: Path, asked_for: list[tuple[str, int]], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs of an earlier record that were not asked for now and would be trained the same way today."""
    old = json.loads(out.read_text()) if out.exists() else {"rows": {}, "runs": []}
    return [
        run
        for run in old["runs"]
        if (run["row"], run["seed"]) not in asked_for
        and old["rows"][run["row"]] == ROWS.get(run["row"])
        and run["epochs"] == epochs(run["row"], asked)
    ]


def epochs(row: str, asked: argparse.Namespace) -> int:
    """As many as were asked for, or as fit into the minutes, to the nearest."""
    return max(1, round(60 * asked.minutes * PACE[row] / IMAGES)) if asked.minutes else asked.epochs


def trained(row: str, seed: int, asked: argparse.Namespace) -> Path:
    """The run of a row and a seed: `nf.train` without its report, which would measure on other images once more."""
    out = asked.work / f"{row.replace(', ', '-').replace(' ', '-')}_{epochs(row, asked)}_seed{seed}"
    if (out / "encoder.safetensors").exists():
        return out
    given = {"size": 32, "hold_out": HELD, "epochs": epochs(row, asked), "seed": seed, "threads": asked.threads}
    settings, line = check(given | ROWS[row], None), Line(total=0)
    job = prepare(TRAIN, settings, choose(settings.device, settings.precision), line.say)
    with Run.open_or_create(out, **job.identity(TRAIN), free=FREE, say=line.say) as run:
        train(job, run, line, line.say)
    return out


def measured(run: Path, known: Path) -> dict[str, Any]:
    """Accuracies of the trained encoder and of the same before training; `known` keeps what was measured."""
    encoder = nf.load_encoder(run)
    learn, ask = encoder.load(TRAIN, labels=True), encoder.load(TEST, labels=True)
    y, truth = torch.as_tensor(learn.labels), torch.as_tensor(ask.labels)

    def scores(encode: Encoder) -> dict[str, float]:
        x, queries = encode(learn.subset(range(64))), encode(ask.subset(range(64)))
        key = hashlib.sha256(torch.cat([x, queries]).numpy().tobytes()).hexdigest()  # weights alone don't tell: CPC's
        found = json.loads(known.read_text()) if known.exists() else {}  # methods cut other patches for the same ones
        if key not in found:
            x, queries = encode(learn), encode(ask)
            told = {"knn": knn(x, y, queries, truth).value, "linear": linear(x, y, queries, truth).value}
            write_json(known, found | {key: told})
            return told
        return found[key]

    both = {"trained": scores(encoder), "untrained": scores(encoder.untrained())}
    begun = json.loads((run / "nearfar-run.json").read_text())["time"]
    return {"begun": begun, "wall_seconds": wall_seconds(run), **both, "curve": curve(run)}


def curve(run: Path) -> dict[str, list[float | None]]:
    """What was watched in training, some 50 rows of it and all ends of epochs."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    every = max(len(rows) // 50, 1)
    some = [row for number, row in enumerate(rows) if number % every == 0 or "knn" in row]
    return {name: [round(row[name], 4) if name in row else None for row in some] for name in CURVE}


if __name__ == "__main__":
    main()
