"""The differences to the base with their intervals, part by part, as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cells import MEASURES
from .intervals import NO_EVIDENCE
from .study import Row, Study

COLOURS = {"better": "#1a7f37", "worse": "#b3261e", NO_EVIDENCE: "#6e7781"}
MARKERS = dict(zip(MEASURES, "os", strict=True))
ROW, MARGIN = 0.3, 1.1
"""Inches."""


def draw(study: Study, path: Path) -> Path:
    """Writes the picture; the suffix of the path is its format.

    Nothing is written of a study without a variant.
    """
    parts = {}
    for row in study.rows:
        if row.against:
            parts.setdefault(row.part, []).append(row)
    if not parts:
        return path
    heights = [len(rows) for rows in parts.values()]
    figure = Figure(figsize=(7.5, MARGIN + ROW * sum(heights) + 0.35 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (part, rows) in zip(panels, parts.items(), strict=True):
        _panel(axes, part, rows)
    panels[-1].set_xlabel("points more than the base, with the 95 % interval over seeds")
    first = panels[0]
    for measure, marker in MARKERS.items():
        first.plot([], [], marker, color="black", label=measure, markersize=4)
    for verdict, colour in COLOURS.items():
        first.plot([], [], color=colour, label=verdict)
    title = f"{study.base}; epochs: {study.epochs}, seeds: {len(study.seeds)}"
    figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=8, title=title, title_fontsize=9)
    figure.savefig(path, dpi=150)
    return path


def _panel(axes: Axes, part: str, rows: list[Row]) -> None:
    for place, row in enumerate(rows):
        for shift, measure in zip((-0.13, 0.13), MEASURES, strict=True):
            if measure not in row.against:
                continue
            one = row.against[measure]
            mean, low, high = one.difference.mean, one.difference.low, one.difference.high
            arms = [[0.0], [0.0]] if low is None or high is None else [[100 * (mean - low)], [100 * (high - mean)]]
            axes.errorbar(
                [100 * mean], [place + shift], xerr=arms, fmt=MARKERS[measure], color=COLOURS[one.verdict],
                markersize=4, capsize=2, linewidth=1.2,
            )  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.variant for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(part, loc="left", fontsize=9)
    axes.grid(axis="x", linewidth=0.4)
    axes.spines[["top", "right", "left"]].set_visible(False)
