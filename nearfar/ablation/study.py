"""The result of a study: for each variant its mean over seeds and its difference to the base, as table and JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .cells import BASE, MEASURES, Cell, Plan
from .cost import Cost
from .intervals import Comparison, Mean, compare, judge
from .sweep import Sweep


@dataclass(frozen=True)
class Row:
    """A variant.

    Args:
        part: Of the five, or "base".
        variant: Its name.
        scores: Measure -> seed -> value in [0, 1].
        means: Measure -> mean over seeds.
        against: Measure -> comparison with the base; empty for the base.
        cost: Weights and operations.
        seconds: Of training, mean over seeds.
        failed: Seed -> why its training came to nothing.
        temperature: That was chosen, in units of the scores.
    """

    part: str
    variant: str
    scores: dict[str, dict[int, float]]
    means: dict[str, Mean]
    against: dict[str, Comparison]
    cost: Cost
    seconds: float
    failed: dict[int, str] = field(default_factory=dict)
    temperature: float | None = None


@dataclass(frozen=True)
class Study:
    """A study, as far as it is done.

    Args:
        path: Its folder.
        base: Name of the base method.
        epochs: Of every training.
        seeds: Seeds that every variant has been trained with.
        rows: The base first.
        skipped: (part, variant, reason).
        sweeps: Similarity -> what was tried for it.
        claims: What the data say to each of the paper's claims.
        protocol: How it was measured.
    """

    path: Path
    base: str
    epochs: int
    seeds: list[int]
    rows: list[Row]
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)
    protocol: list[str] = field(default_factory=list)

    def of(self, part: str) -> list[Row]:
        """The rows of a part."""
        return [row for row in self.rows if row.part == part]

    def table(self) -> Table:
        """Per cent, with 95 % intervals; a part after another."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("part")
        table.add_column("variant")
        for name in (*MEASURES, *(f"{measure} - base" for measure in MEASURES)):
            table.add_column(name, justify="right")
        for name in ("verdict", "M weights", "GFLOP", "seconds"):
            table.add_column(name, justify="left" if name == "verdict" else "right")
        for row, following in zip(self.rows, [*self.rows[1:], None], strict=True):
            table.add_row(*_cells(row), end_section=following is None or following.part != row.part)
        return table

    def as_text(self, *, width: int = 150) -> str:
        """The table, what was left out, what the data say, and how it was measured."""
        stream = io.StringIO()
        Console(file=stream, width=width, color_system=None).print(self.table())
        left = [f"  {part} {variant}: {reason}" for part, variant, reason in self.skipped]
        lines = [stream.getvalue().rstrip(), *self.notes()]
        lines += ["", "Not trained", *left] if left else []
        lines += ["", "What the data say", *(f"  {claim}" for claim in self.claims)]
        return "\n".join([*lines, "", "How it was measured", *(f"  {line}" for line in self.protocol)])

    def notes(self) -> list[str]:
        """What a reader must not overlook."""
        notes = [f"Per cent, ± half the 95 % interval; seeds: {len(self.seeds)}."]
        notes += [f"{row.part} {row.variant}: seed {s}: {why}" for row in self.rows for s, why in row.failed.items()]
        notes += [
            f"similarity {name}: the best temperature, {found.chosen:g}, is the last that was tried on its side"
            for name, found in self.sweeps.items()
            if found.edge
        ]
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        rows: list[dict[str, Any]] = [
            asdict(row) | {"failed": {str(s): why for s, why in row.failed.items()}} for row in self.rows
        ]
        for row in rows:
            row["scores"] = {m: {str(s): value for s, value in own.items()} for m, own in row["scores"].items()}
        return {
            "base": self.base,
            "epochs": self.epochs,
            "seeds": self.seeds,
            "rows": rows,
            "skipped": [list(one) for one in self.skipped],
            "sweeps": {n: asdict(found) | {"tried": list(map(list, found.tried))} for n, found in self.sweeps.items()},
            "claims": self.claims,
            "protocol": self.protocol,
        }


def rows_of(plan: Plan, found: Mapping[Cell, Mapping[str, Any]]) -> list[Row]:
    """Rows of all cells that are done; comparisons are judged part by part.

    Args:
        plan: Of the study.
        found: Cell -> what its `scores.json` says.
    """
    grouped: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for cell, scores in found.items():
        grouped.setdefault((cell.part, cell.variant), {})[cell.seed] = scores
    own = _scores(grouped[BASE, BASE])
    rows = [_row(*name, cells, own, plan.costs[" ".join(name)]) for name, cells in grouped.items()]
    return [_judged(row, [other for other in rows if other.part == row.part]) for row in rows]


def _scores(cells: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    return {m: {seed: one["scores"][m] for seed, one in cells.items() if "scores" in one} for m in MEASURES}


def _row(
    part: str, variant: str, cells: Mapping[int, Mapping[str, Any]], base: dict[str, dict[int, float]], cost: Cost
) -> Row:
    scores, against = _scores(cells), {}
    for measure in MEASURES:
        both = [seed for seed in scores[measure] if seed in base[measure]]
        if part != BASE and both:
            against[measure] = compare([scores[measure][s] for s in both], [base[measure][s] for s in both])
    return Row(
        part=part,
        variant=variant,
        scores=scores,
        means={measure: Mean.of(list(own.values())) for measure, own in scores.items() if own},
        against=against,
        cost=cost,
        seconds=round(sum(one["seconds"] for one in cells.values()) / len(cells), 1),
        failed={seed: one["failed"] for seed, one in cells.items() if "failed" in one},
        temperature=next(iter(cells.values()))["temperature"],
    )


def _judged(row: Row, family: Sequence[Row]) -> Row:
    """With verdicts: all comparisons of the part, of all measures, are one family."""
    places = [(other, measure) for other in family for measure in other.against]
    judged = judge([other.against[measure] for other, measure in places])
    own = {m: one for (other, m), one in zip(places, judged, strict=True) if other is row}
    return replace(row, against=own)


def _cells(row: Row) -> list[str]:
    """A line of the table."""
    means = [str(row.means.get(measure, "-")) for measure in MEASURES]
    differences = [str(row.against[m].difference) if m in row.against else "" for m in MEASURES]
    differences = [text if not text or text[0] == "-" else f"+{text}" for text in differences]
    verdict = row.against[MEASURES[0]].verdict if row.against else "collapsed" if row.failed else ""
    scale = f" (t {row.temperature:g})" if row.temperature is not None else ""
    sizes = [f"{row.cost.trained / 1e6:.2f}", f"{row.cost.flops / 1e9:.3g}", f"{row.seconds:,.0f}"]
    return [row.part if row.part != BASE else "", row.variant + scale, *means, *differences, verdict, *sizes]
