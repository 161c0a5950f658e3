"""A picture of what words find among all emoji, for a run of `benchmarks.emoji`; a frame is around those never seen.

python -m benchmarks.emoji_search runs/emoji/clip_64px_100_seed0 --out docs/search.png
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.emoji import CAPTIONS, held_out
from benchmarks.few_shot_methods import DATA
from nearfar.data.pairs import load_pairs
from nearfar.evaluation import thumbnail
from nearfar.tasks.two_towers import best, load_towers

QUERIES = (
    "a red fruit",
    "a smiling face",
    "an animal in the water",
    "a vehicle",
    "a building",
    "hands",
    "music",
    "a heart",
)
TOP, SIDE = 8, 64


def main() -> None:
    """Draws a row for each query."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "search.png")
    asked = parser.parse_args()
    new = {*held_out(("image", "text"), asked.size, asked.seed)[0].names}
    dataset = load_pairs(str(DATA / "emoji_pairs"), size=asked.size, length=CAPTIONS["length"])
    towers = load_towers(asked.run)
    images, queries = towers.images(dataset), towers.texts(QUERIES)
    figure, axes = plt.subplots(len(QUERIES), TOP, figsize=(TOP * 1.05, len(QUERIES) * 1.12), dpi=110)
    for row, (query, vector) in enumerate(zip(QUERIES, queries, strict=True)):
        scores = images @ vector
        for column, place in enumerate(best(scores, TOP)):
            axis = axes[row, column]
            axis.imshow(plt.imread(BytesIO(thumbnail(dataset.inputs[place], dataset.sizes[place], side=SIDE))))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(dataset.names[place] in new)
            axis.set_title(f"{float(scores[place]):.2f}", fontsize=7, pad=2)
        axes[row, 0].text(-0.15, 0.5, query, transform=axes[row, 0].transAxes, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(left=0.2, right=0.99, top=0.97, bottom=0.01, wspace=0.08, hspace=0.25)
    figure.savefig(asked.out)
    print(f"{len(dataset)} emoji, {len(new)} of them never seen; wrote {asked.out}")


if __name__ == "__main__":
    main()
