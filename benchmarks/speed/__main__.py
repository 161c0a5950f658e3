"""nearfar against its peers, topic by topic, one JSON each.

python -m benchmarks.speed --only views losses --threads 1 --repeats 5
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.common import PACKAGES, commit, cpu, installed, write_json
from benchmarks.speed.fresh import fresh
from benchmarks.speed.harness import Settings, measure, there

TOPICS = ("views", "losses", "queue", "heads", "evaluation", "loader", "step")
PEERS = {
    "lightly": "lightly",
    "torchvision": "torchvision",
    "kornia": "kornia",
    "easyfsl": "easyfsl",
    "pytorch-metric-learning": "pytorch_metric_learning",
}
"""Name at the registry -> what is imported."""


def main(arguments: list[str] | None = None) -> int:
    """Measures the topics asked for; 1 where contenders disagreed, so that a row has no times."""
    asked = parsed(arguments)
    for package in left_out():
        print(f"{package} is not installed: its rows are left out")
    disagreed = False
    for topic in asked.only:
        start, rows = time.perf_counter(), []
        for threads in asked.threads:
            rows += fresh(threads, measure, topic, Settings(threads, asked.repeats, asked.smoke))
        disagreed |= any("disagreement" in row for row in rows)
        path = asked.out / f"speed_{topic}.json"
        write_json(path, about(topic, asked) | {"seconds": round(time.perf_counter() - start), "rows": rows})
        print(f"-> {path}")
    return int(disagreed)


def about(topic: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What makes the numbers repeatable."""
    packages = dict.fromkeys((*PACKAGES, *PEERS, "scikit-learn"))
    threads = " ".join(map(str, asked.threads))
    smoke = " --smoke" if asked.smoke else ""
    return {
        "topic": topic,
        "command": f"python -m benchmarks.speed --only {topic} --threads {threads} --repeats {asked.repeats}{smoke}",
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version()} | {p: installed(p) for p in packages if installed(p)},
        "protocol": import_module(f"benchmarks.speed.{topic}").PROTOCOL,
        "left_out": left_out(),
        "settings": {"threads": asked.threads, "repeats": asked.repeats, "smoke": asked.smoke},
    }


def left_out() -> list[str]:
    """Peers that are not installed."""
    return [name for name, module in PEERS.items() if not there(module)]


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    everything = sorted({1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1})
    parser.add_argument("--only", nargs="+", choices=TOPICS, default=TOPICS, help="topics; default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=everything, help="default: one, then all cores")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of a row")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results", help="folder of the records")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
