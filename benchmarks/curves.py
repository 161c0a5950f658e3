"""A picture of what is normal: loss, kNN, spread and rank while each method of `benchmarks.cifar10_methods` trains.

python -m benchmarks.curves --out docs/curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

RECORD = Path(__file__).parent / "results" / "cifar10_methods.json"
ACROSS = 4
SHOWN = (
    ("loss", "loss", "tab:gray"),
    ("knn", "kNN", "tab:blue"),
    ("std", "spread of the embeddings", "tab:orange"),
    ("rank", "their rank", "tab:green"),
)
"""Name in the record, what it is called, its colour. Loss and rank have a scale of their own in each panel."""


def main() -> None:
    """Draws a panel for each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "curves.png")
    asked = parser.parse_args()
    runs = [run for run in json.loads(asked.record.read_text())["runs"] if run["seed"] == 0]
    down = -(-len(runs) // ACROSS)
    figure, panels = plt.subplots(down, ACROSS, figsize=(11, 2.1 * down), sharex=True, layout="constrained")
    for panel, run in zip(panels.flat, runs, strict=False):
        draw(panel, run)
    for panel in panels.flat[len(runs) :]:
        panel.axis("off")
    lines = panels.flat[0].get_lines()
    figure.legend(lines, [name for _, name, _ in SHOWN], loc="outside lower center", ncols=len(SHOWN), frameon=False)
    figure.savefig(asked.out, dpi=110)
    print(f"{len(runs)} methods; wrote {asked.out}")


def draw(panel: Axes, run: dict[str, Any]) -> None:
    """One method: kNN and spread as they are, loss and rank over their largest value, which is written beside them."""
    told = []
    for name, _, colour in SHOWN:
        pairs = [(x, y) for x, y in zip(run["curve"]["epoch"], run["curve"][name], strict=True) if y is not None]
        epochs, values = [x for x, _ in pairs], [y for _, y in pairs]
        if name in ("loss", "rank") and values:
            least, most = min(0.0, *values), max(values)
            told.append(f"{name} {values[0]:.3g} to {values[-1]:.3g}")
            values = [(value - least) / (most - least or 1) for value in values]
        panel.plot(epochs, values, color=colour, linewidth=1.2, marker="." if name == "knn" else None)
    panel.set(ylim=(0, 1.05), xlim=(0, None), yticks=(0, 0.5, 1))
    panel.set_title(run["row"], fontsize=9)
    readable = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    place = {"x": 0.98, "y": 0.03, "ha": "right", "va": "bottom", "transform": panel.transAxes}
    panel.text(s="\n".join(told), fontsize=6.5, bbox=readable, **place)
    panel.tick_params(labelsize=7)


if __name__ == "__main__":
    main()
