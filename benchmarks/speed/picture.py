"""The records as a picture and as a table.

python -m benchmarks.speed.picture
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import REPOSITORY

AHEAD, BEHIND, EVEN = "#1a7f37", "#b3261e", "#6e7781"
ROW, MARGIN = 0.23, 1.2
"""Inches."""


@dataclass(frozen=True)
class Line:
    """nearfar and a peer in one row of a record.

    Args:
        topic: Of the record.
        name: Of the row.
        threads: Of both.
        peer: The other contender; "": a bound on nearfar's own cost.
        unit: Of the costs.
        ours: Median cost.
        theirs: Median cost of the peer.
        ratio: Median ratio with its range, low and high.
        asked: What was asked for, in words.
    """

    topic: str
    name: str
    threads: int
    peer: str
    unit: str
    ours: float
    theirs: float
    ratio: tuple[float, float, float]
    asked: str

    @property
    def colour(self) -> str:
        """By whether the whole range lies on one side of 1."""
        _, low, high = self.ratio
        return AHEAD if low > 1 else BEHIND if high < 1 else EVEN


def lines(records: Iterable[dict[str, Any]]) -> list[Line]:
    """A line a row and peer, in the order of the records."""
    found = []
    for record in records:
        for row in (row for row in record["rows"] if "medians" in row):
            ours = row["medians"]["nearfar"]
            bound = said(f"at most {row['most']:g} {row['unit']}", row["reached"]) if "most" in row else ""
            about = {"topic": record["topic"], "name": row["row"], "threads": row["threads"], "unit": row["unit"]}
            for peer, told in row["ratios"].items():
                asked = said(f"{told['target']:g} x", told["reached"]) if told.get("target") else ""
                found.append(
                    Line(
                        **about,
                        peer=peer,
                        ours=ours,
                        theirs=row["medians"][peer],
                        ratio=(told["ratio"], told["low"], told["high"]),
                        asked="; ".join(filter(None, (asked, bound))),
                    )
                )
            if not row["ratios"]:
                found.append(Line(**about, peer="", ours=ours, theirs=0.0, ratio=(1.0, 1.0, 1.0), asked=bound))
    return found


def said(target: str, reached: bool) -> str:
    """What was asked for, and whether it is so."""
    return target + (", yes" if reached else ", **no**")


def table(rows: Iterable[Line]) -> str:
    """Markdown; rows in which nearfar does not lead are in bold."""
    head = ("work", "threads", "nearfar", "peer", "peer's", "times as fast (range)", "asked")
    text = [head, ("---",) * len(head)]
    for line in rows:
        ratio, low, high = (f"{value:.3g}" for value in line.ratio)
        spread = f"{ratio} ({low} to {high})" if line.peer else ""
        told = f"**{spread}**" if line.peer and line.colour != AHEAD else spread
        theirs = f"{line.theirs:.3g}" if line.peer else ""
        text.append((line.name, str(line.threads), f"{line.ours:.3g} {line.unit}", line.peer, theirs, told, line.asked))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in text)


def draw(rows: Sequence[Line], path: Path) -> Path:
    """Writes the picture: each ratio with its range, a panel a topic; hollow marks are of several threads."""
    compared = [line for line in rows if line.peer]
    topics = {topic: list(group) for topic, group in groupby(compared, key=lambda line: line.topic)}
    heights = [len({(line.name, line.peer) for line in group}) for group in topics.values()]
    figure = Figure(figsize=(9, MARGIN + ROW * sum(heights) + 0.4 * len(topics)), layout="constrained")
    panels = figure.subplots(len(topics), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (topic, group) in zip(panels, topics.items(), strict=True):
        panel(axes, topic, group)
    panels[-1].set_xlabel("peer's cost / nearfar's: median and range; filled: one thread, hollow: several", fontsize=8)
    figure.savefig(path, dpi=150)
    return path


def panel(axes: Axes, topic: str, group: Sequence[Line]) -> None:
    """The ratios of one topic, from top to bottom."""
    places = {key: place for place, key in enumerate(dict.fromkeys((line.name, line.peer) for line in group))}
    for line in group:
        ratio, low, high = line.ratio
        axes.errorbar(
            [ratio], [places[line.name, line.peer] + (0.0 if line.threads == 1 else 0.25)],
            xerr=[[ratio - low], [high - ratio]], fmt="o", markersize=4, capsize=2, linewidth=1.2,
            color=line.colour, markerfacecolor=line.colour if line.threads == 1 else "white",
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.grid(axis="x", linewidth=0.3)
    axes.set_yticks(list(places.values()), [f"{name} / {peer}" for name, peer in places], fontsize=7)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_title(topic, fontsize=9, loc="left")


def main() -> None:
    """Reads the records, writes the picture, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--records", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "speed.png")
    asked = parser.parse_args()
    from benchmarks.speed.__main__ import TOPICS

    files = [path for topic in TOPICS if (path := asked.records / f"speed_{topic}.json").exists()]
    if not files:
        parser.error(f"no speed_*.json in {asked.records}: run python -m benchmarks.speed")
    rows = lines(json.loads(path.read_text()) for path in files)
    draw(rows, asked.out)
    print(table(rows))


if __name__ == "__main__":
    main()
