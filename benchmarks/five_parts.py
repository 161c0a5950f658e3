"""Which of the five parts matters? The study of Falcon & Cho's claims on CIFAR-10, on a budget of processor time.

python -m benchmarks.five_parts --minutes 5 --seeds 3 --threads 1
python -m benchmarks.five_parts --base simclr --encoder small --minutes 1 --vary views:no-crop loss:negatives-only
python -m benchmarks.five_parts --minutes 1 --vary --robust

AMDIM's method with one part swapped at a time: H1, H2, H4 and the loss with its own network; H3 with one whose last map
has rows, which CPC's extraction needs, and without the penalty, which SimCLR's can't have. H5 (`--robust`): AMDIM and
YADIM, each with three encoders; `--robust yadim` one of them alone, and `--vary` with nothing leaves the rest out.
`--minutes` is what the base takes for its epochs on this machine; every variant has
as many epochs. At the defaults these are about 110 trainings of 5 minutes on a core, and their evaluations;
`--vary loss` alone is 12. `--base simclr --encoder small` is the study at a quarter of the time: all five parts fit one
base there. The same command goes on with studies that were stopped.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.common import PACKAGES, commit, confine, cpu, installed, write_json
from benchmarks.few_shot_methods import DATA
from nearfar.ablation import Study
from nearfar.ablation.claims import spread
from nearfar.tasks.ablate import ablate

SETTINGS = {"size": 32, "batch": 256, "weight_decay": 1e-5, "monitor_every": 200}
BASES: dict[str, dict[str, Any]] = {"amdim": {}, "simclr": {"lr": 0.12, "hidden": "512"}}
"""Optimiser, and AMDIM's learning rate, are those that the method has of itself."""

EXTRACTION = {"encoder": "small", "penalty": 0.0}
"""Of H3."""

ROBUST = ("encoder:small", "encoder:small-x2")
"""Encoders of H5, beside AMDIM's own; a ResNet-18 is left out for its time on a CPU."""


def main() -> None:
    """Runs the studies, as far as they are not done, and writes one JSON."""
    asked = arguments()
    confine(asked.threads)
    settings = SETTINGS | BASES[asked.base] | {"encoder": asked.encoder, "threads": asked.threads}
    start, studies = time.perf_counter(), {}
    apart = tuple(part for part in asked.vary if asked.base == "amdim" and part.startswith("extraction"))
    own = tuple(part for part in asked.vary if part not in apart)
    if own:
        studies[asked.base] = study(asked.base, own, asked, settings)
    if apart:
        studies["H3"] = study("amdim", apart, asked, settings | EXTRACTION, name="extraction")
    for base in asked.robust:
        epochs = next((one.epochs for one in studies.values()), None)
        own_encoder = SETTINGS | {"encoder": "amdim-small", "threads": asked.threads}
        studies[f"H5 {base}"] = study(base, ROBUST, asked, own_encoder, name=f"robust-{base}", epochs=epochs)
    write_json(
        asked.out,
        {
            "command": command(asked),
            "commit": commit(),
            "machine": {"cpu": cpu(), "cores_used": asked.threads, "system": platform.platform(terse=True)},
            "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES if installed(p)},
            "settings": settings,
            "seeds": list(range(asked.seeds)),
            "minutes": asked.minutes,
            "training_seconds": {name: seconds(one) for name, one in studies.items()},
            "this_call_seconds": round(time.perf_counter() - start, 1),
            "encoder_spread": {name: spread([*one.of("base"), *one.of("encoder")]) for name, one in studies.items()},
            "studies": {name: one.as_dict() for name, one in studies.items()},
        },
    )


def study(
    base: str,
    vary: tuple[str, ...],
    asked: argparse.Namespace,
    settings: dict[str, Any],
    *,
    name: str | None = None,
    epochs: int | None = None,
) -> Study:
    """One study on CIFAR-10: 50,000 images to train on and to learn from, 10,000 to answer for."""
    folder = DATA / "cifar10"
    return ablate(
        folder / "train.parquet",
        test=folder / "test.parquet",
        base=base,
        vary=vary,
        seeds=asked.seeds,
        epochs=epochs,
        minutes=asked.minutes if epochs is None else None,
        out=asked.work / (name or base),
        **settings,
    )


def seconds(found: Study) -> float:
    """Of all final trainings of a study, as they were logged; those that chose temperatures come on top."""
    return round(sum(row.seconds * len(found.seeds) for row in found.rows), 1)


def command(asked: argparse.Namespace) -> str:
    """What makes these numbers again."""
    words = [
        f"python -m benchmarks.five_parts --base {asked.base}",
        f"--minutes {asked.minutes:g}",
        f"--seeds {asked.seeds}",
    ]
    words += [f"--threads {asked.threads}", f"--encoder {asked.encoder}", " ".join(["--vary", *asked.vary])]
    return " ".join([*words, *(["--robust", *asked.robust] if asked.robust else [])])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=5.0, help="of a training of the base; all have its epochs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", choices=tuple(BASES), default="amdim")
    parser.add_argument("--encoder", default="amdim-small")
    parser.add_argument("--vary", nargs="*", default=["views", "encoder", "extraction", "similarity", "loss"])
    parser.add_argument("--robust", nargs="*", default=(), choices=("amdim", "yadim"), help="H5 too; no name: both")
    parser.add_argument("--work", type=Path, default=Path("runs/five_parts"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "five_parts.json")
    asked = parser.parse_args()
    if asked.robust == []:
        asked.robust = ["amdim", "yadim"]
    return asked


if __name__ == "__main__":
    main()
