"""Charts as inline SVG whose colours are those of the page, so that one picture serves light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT = "#010101", "#020202"
SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305")
PAGE_COLOURS = {INK: "var(--ink)", FAINT: "var(--line)"} | {c: f"var(--series-{i})" for i, c in enumerate(SERIES)}
MARKERS = "osD^v"
POINTS = 500
"""Points of a curve: more can't be seen."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nearfar",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
}


def colours(count: int) -> list[str]:
    """One a set of features; the last set, the one of interest, always has the first colour."""
    return [SERIES[1 + i % (len(SERIES) - 1)] for i in range(count - 1)] + [SERIES[0]]


def learning_curve(evaluation: Mapping[str, Any]) -> str:
    """Accuracy against the number of labels a class, with 95 % intervals, for each set of features."""
    labels, scores = evaluation["labels"], evaluation["scores"]
    measures = sorted(labels, key=lambda m: labels[m])
    with rc_context(STYLE):
        figure, axes = _axes(7.6, 3.3)
        ends = []
        for i, ((name, row), colour) in enumerate(zip(scores.items(), colours(len(scores)), strict=True)):
            values = [100 * row[m]["value"] for m in measures]
            below, above = (
                [100 * abs(_or(row[m][end], row[m]["value"]) - row[m]["value"]) for m in measures]
                for end in ("low", "high")
            )
            axes.errorbar(
                [labels[m] for m in measures], values, yerr=[below, above], color=colour, linewidth=1.6,
                marker=MARKERS[i % len(MARKERS)], markersize=4.5, elinewidth=1, capsize=2.5,
            )  # fmt: skip
            ends.append((values[-1], name, colour))
        chance = 100 * evaluation["chance"]
        axes.hlines(chance, labels[measures[0]], labels[measures[-1]], color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        ends.append((chance, "largest class", INK))
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks([labels[m] for m in measures], [f"{labels[m]:,.0f}" for m in measures])
        axes.set_ylim(0, 100)
        _name_ends(axes, ends, labels[measures[-1]])
        axes.set_xlabel("labels a class")
        axes.set_ylabel("right answers, %")
        return _svg(figure, "learning", f"Accuracy against labels a class for {', '.join(scores)}")


def curve(rows: Sequence[Mapping[str, Any]], key: str, reference: str = "") -> str | None:
    """One measure over the epochs, and beside it what it would be by chance; None where fewer than two rows have it."""
    x_key = "epoch" if all("epoch" in row for row in rows) else "step"
    points = _points(rows, x_key, key)
    if len(points) < 2:
        return None
    with rc_context(STYLE):
        figure, axes = _axes(3.7, 2.2)
        axes.plot(*zip(*points, strict=True), color=SERIES[0], linewidth=1.6, solid_joinstyle="round")
        by_chance = _points(rows, x_key, reference)
        if by_chance:
            axes.plot(*zip(*by_chance, strict=True), color=INK, linewidth=0.9, linestyle=(0, (2, 3)))
            _name_ends(axes, [(by_chance[-1][1], "chance", INK)], by_chance[-1][0])
        low, high = axes.get_ylim()
        if low > 0 and low < high / 2:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x_key)
        return _svg(figure, key, f"{key} over {x_key}s")


def _points(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    points = [(row[x], row[y]) for row in rows if row.get(y) is not None and math.isfinite(row[y])]
    stride = -(-len(points) // POINTS)
    return points[:: stride or 1] + (points[-1:] if stride > 1 else [])


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return figure, axes


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], x: float) -> None:
    """Names at the ends of the lines."""
    low, high = axes.get_ylim()
    ends = sorted(ends)
    for y, (_, name, colour) in zip(apart([end[0] for end in ends], (high - low) * 0.07), ends, strict=True):
        axes.annotate(
            name, (x, y), xytext=(8, 0), textcoords="offset points", va="center", color=colour, annotation_clip=False
        )


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Sorted values moved so far that neighbours are `gap` apart, each crowd around its own middle."""
    crowds: list[list[float]] = []
    for value in values:
        crowds.append([value])
        while len(crowds) > 1 and _places(crowds[-1], gap)[0] - _places(crowds[-2], gap)[-1] < gap:
            last = crowds.pop()
            crowds[-1] += last
    return [place for crowd in crowds for place in _places(crowd, gap)]


def _places(crowd: Sequence[float], gap: float) -> list[float]:
    middle = sum(crowd) / len(crowd)
    return [middle + gap * (i - (len(crowd) - 1) / 2) for i in range(len(crowd))]


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an `<svg>` element in the page's colours, with ids of its own."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in PAGE_COLOURS.items():
        text = text.replace(colour, variable)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{_plain(label)}">',
        text,
        count=1,
    )


def _plain(text: str) -> str:
    return re.sub(r"[^\w .,-]", " ", text)
