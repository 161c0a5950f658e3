"""What one GPU does: views, losses, a SimCLR step, and how good an encoder the rest of the minutes give; one JSON.

python -m benchmarks.gpu --seconds 500

Needs no peer; those that are installed (torchvision, kornia, lightly) are measured too. CIFAR-10 is looked for in
`--data` as cifar10/train.parquet and test.parquet. `--smoke` runs everything tiny, on a CPU too.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import PACKAGES, REPOSITORY, commit, cpu, installed, write_json
from benchmarks.speed.gpu_training import accuracy, step_rows
from benchmarks.speed.harness import Row, measured
from benchmarks.speed.on_gpu import Place, losses_rows, views_rows

ROWS: dict[str, Callable[[Place], Iterator[Row]]] = {"views": views_rows, "losses": losses_rows, "step": step_rows}
PROTOCOL = (
    "Wall clock up to the end of all work on the GPU; contenders take turns. views: two SimCLR views of a uint8 batch "
    "that lies on the GPU, drawing (on the CPU) included; `drawn before`: only carried out. losses: NT-Xent of width "
    "128, fp32 with products in fp32 (highest) or TF32 (high), value and gradient; memory: what a step allocates at "
    "most beside its embeddings. step: SimCLR, ResNet-18 with the stem for small images, 32 px, B = 512, bf16, "
    "channels_last. accuracy: the same on nine tenths of CIFAR-10's training images (JPEG copies of quality 95) for "
    "the rest of the seconds, compiled, SGD 0.06 B/128, half a cosine, momentum 0.9, decay 5e-4; "
    "weighted kNN, k = 200, T = 0.1, pooled encoder features in bf16; compiling is off the clock. curve: a tenth that "
    "was held out, two tenths vote. test_knn: 10,000 test images, 50,000 vote, measured once."
)


def main(arguments: list[str] | None = None) -> None:
    """Measures part by part; what was measured is written after each row, so that nothing is lost to a limit of time.

    A part that fails is named in the record, and the others are measured.
    """
    began = time.perf_counter()
    asked = parsed(arguments)
    place = Place(asked.device, asked.smoke, asked.seconds, began, asked.data)
    record = about(asked)
    for part in asked.only:
        start = time.perf_counter()

        def keep(found: object, part: str = part, start: float = start) -> None:
            record[part] = found
            record["part_seconds"][part] = round(time.perf_counter() - start, 1)
            record["seconds"] = round(time.perf_counter() - began, 1)
            write_json(asked.out, record)

        try:
            keep(measured(ROWS[part](place), asked.repeats, keep) if part in ROWS else accuracy(place))
        except (RuntimeError, OSError, ImportError, ValueError) as problem:
            traceback.print_exc()
            record.setdefault("failed", {})[part] = f"{type(problem).__name__}: {problem}"
            write_json(asked.out, record)
    print(f"-> {asked.out}")
    if "failed" in record:
        raise SystemExit(f"failed: {', '.join(record['failed'])}")


def about(asked: argparse.Namespace) -> dict[str, Any]:
    """What makes the numbers repeatable."""
    cuda = asked.device == "cuda"
    packages = dict.fromkeys((*PACKAGES, "triton", "kornia"))
    smoke = " --smoke" if asked.smoke else ""
    return {
        "command": f"python -m benchmarks.gpu --only {' '.join(asked.only)} --seconds {asked.seconds:g} "
        f"--repeats {asked.repeats}{smoke}",
        "commit": commit(),
        "machine": {
            "gpu": torch.cuda.get_device_name() if cuda else "none",
            "cpu": cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(terse=True),
        },
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda}
        | {p: installed(p) for p in packages if installed(p)},
        "protocol": PROTOCOL,
        "part_seconds": {},
    }


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    data = os.environ.get("NEARFAR_DATA") or REPOSITORY.parent / "shared" / "data"
    parts = (*ROWS, "accuracy")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts; default: all, in this order")
    parser.add_argument("--seconds", type=float, default=500, help="in all; what the other parts leave is trained for")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of a row")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder that holds cifar10/")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
