"""Which of the paper's claims a study speaks to, and what it does not show.

Falcon & Cho, A Framework For Contrastive Self-Supervised Learning, 2020, https://arxiv.org/abs/2009.00104, abstract.
"""

from __future__ import annotations

from .cells import MEASURES
from .intervals import NO_EVIDENCE
from .study import Row, Study

MAIN = MEASURES[0]
CLAIMS = {
    "views": ("H1", "the views are what matters most"),
    "encoder": ("H2", "a wider encoder is much better"),
    "extraction": ("H3", "how representations are extracted makes a negligible difference and costs time"),
    "similarity": ("H4", "the similarity hardly matters"),
    "loss": ("", "the rule of positives and negatives, which the paper makes no claim about"),
}
BEYOND = {
    "views": "not shown: whether another encoder or longer training would rank them alike",
    "encoder": "not shown: what width does by itself, since weights and operations grow with it; epochs are equal, "
    "seconds are not",
    "extraction": "not shown: that extraction makes no difference; heads come with it, and seconds differ",
    "similarity": "not shown: that similarities are equal; each had its own temperature, from a grid and by one seed, "
    "and the base kept that of its method",
    "loss": "not shown: how this depends on the batch, which makes the negatives",
}


def claims(study: Study) -> list[str]:
    """A sentence or two for each part that was varied, and one for the claims that the study says nothing of."""
    told, silent = [], []
    for part, (name, text) in CLAIMS.items():
        rows = [row for row in study.of(part) if row.against]
        if rows:
            told.append(f"{name + ': ' if name else ''}{text}. {_found(rows, study.of('base')[0])}; {BEYOND[part]}.")
        elif name:
            silent.append(name)
    told += _largest(study)
    told.append(
        "H5: YADIM is competitive and more robust to the encoder. "
        + (_robust(study) or "This study says nothing of it: it takes one base at a time")
        + "; compare `--base yadim --vary encoder` with `--base amdim --vary encoder`."
    )
    if silent:
        told.append(f"{', '.join(silent)}: nothing was varied that they are about.")
    told.append("'no evidence' means that the seeds can't tell the two apart, not that they are equal.")
    return told


def _found(rows: list[Row], base: Row) -> str:
    """Counts of verdicts, and how large a difference is left possible where there is no evidence of one."""
    if all(row.against[MAIN].p is None for row in rows):
        return "One seed: no interval, so no evidence either way"
    verdicts = {_named(row, base): row.against[MAIN].verdict for row in rows}
    parts = [
        f"{verdict} than the base: {', '.join(name for name, one in verdicts.items() if one == verdict)}"
        for verdict in ("better", "worse")
        if verdict in verdicts.values()
    ]
    open_ = [row for row in rows if row.against[MAIN].verdict == NO_EVIDENCE]
    if open_:
        both = [end for r in open_ for end in (r.against[MAIN].difference.low, r.against[MAIN].difference.high)]
        ends = [abs(end) for end in both if end is not None]  # one pair of seeds, where others collapsed, has none
        room = f" (their intervals leave room for up to {100 * max(ends):.1f} points)" if ends else ""
        parts.append(f"no evidence of a difference: {', '.join(_named(row, base) for row in open_)}{room}")
    return "; ".join(parts)


def _named(row: Row, base: Row) -> str:
    """A variant; an encoder with its weights."""
    return row.variant + (
        f" ({row.cost.encoder / base.cost.encoder:.2g} x the weights)" if row.part == "encoder" else ""
    )


def _largest(study: Study) -> list[str]:
    """Which part moved the score most, where several were varied: the range between its best and worst mean."""
    ranges = {part: spread([*study.of("base"), *study.of(part)]) for part in CLAIMS}
    known = {part: value for part, value in ranges.items() if value is not None and study.of(part)}
    if len(known) < 2:
        return ["H1 compares parts with each other; only one was varied."] if "views" in known else []
    order = sorted(known, key=lambda part: -known[part])
    listed = ", ".join(f"{part} {100 * known[part]:.1f}" for part in order)
    return [
        f"Points between the best and the worst mean of a part: {listed}. They depend on which variants were tried."
    ]


def _robust(study: Study) -> str:
    """Spread over encoders."""
    found = spread([*study.of("base"), *study.of("encoder")])
    if found is None or not study.of("encoder"):
        return ""
    return f"With {study.base} {100 * found:.1f} points lie between the best and the worst encoder"


def spread(rows: list[Row]) -> float | None:
    """Best less worst mean of the main measure; None where fewer than two rows have one."""
    means = [row.means[MAIN].mean for row in rows if MAIN in row.means]
    return max(means) - min(means) if len(means) > 1 else None
