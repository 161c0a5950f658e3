"""The report of a run: one HTML file that opens offline, without scripts, in light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, StrictUndefined

from .. import __version__
from ..runs.atomic import disk_errors, write_text
from . import charts
from .compare import Evaluation
from .embeddings import valid_text

MEANINGS = {
    "label a class": "Share of new images named right when a person has labelled so few images of each class.",
    "labels a class": "Share of new images named right when a person has labelled so few images of each class.",
    "all labels": "Share of new images named right by a linear classifier that was given every label.",
    "kNN": "Share of new images named right by a vote of the most similar training images; nothing is trained.",
    "NMI": "How much the clusters tell of the classes though no label was used: 0 nothing, 100 everything.",
    "ARI": "Agreement of clusters and classes beyond chance: 0 random, 100 the same.",
    "recall": "Share of images that find another of their class among so many look-alikes.",
    "mAP": "How far to the front a search by look-alike brings the images of the same class: 100 all of them first.",
}
CURVES = {
    "loss": (
        "Loss",
        "What training lowers. At the dotted line embeddings say nothing of which images belong together.",
    ),
    "knn": ("kNN accuracy, %", "Share of held-out images named right by the most similar training images meanwhile."),
    "match": (
        "View matching, %",
        "Share of held-out images whose second view is nearest to the first; needs no labels.",
    ),
    "one_shot": (
        "1-shot episodes, %",
        "Right answers in fixed episodes of 5 classes that are not trained on, one labelled image of each.",
    ),
    "std": ("Spread", "1: embeddings point in all directions. Near 0: all are alike, the run has collapsed."),
    "rank": ("Effective rank", "How many directions the embeddings make use of. A fall towards 1 is collapse."),
    "alignment": ("Alignment", "Mean squared distance of two views of one image: 0 is the same place, 2 no relation."),
    "uniformity": ("Uniformity", "How evenly embeddings fill the sphere: lower is more even, 0 is all in one place."),
}
CHANCE = {"loss": "chance", "knn": "knn_chance", "match": "match_chance", "one_shot": "one_shot_chance"}
SHARES = tuple(name for pair in CHANCE.items() for name in pair if "loss" not in pair)
"""Measures that are shown in per cent."""


@dataclass(frozen=True)
class Picture:
    """A thumbnail with what is known of it.

    Args:
        png: Encoded image.
        name: Path or name; shown as it is, whatever is in it.
        label: Class, or "".
    """

    png: bytes
    name: str = ""
    label: str = ""


def write_report(
    path: Path | str,
    *,
    run: Mapping[str, Any],
    curves: Sequence[Mapping[str, Any]] = (),
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    examples: Sequence[Sequence[Picture | bytes]] = (),
    warnings: Sequence[str] = (),
    next_commands: Sequence[str] = (),
) -> Path:
    """Writes `report.html`: scores with protocols, look-alikes, curves of training, settings, what to do next.

    Text from outside (file names, classes, settings) is escaped, and the page forbids itself scripts and the network.

    Args:
        path: Where to.
        run: Settings and versions; `method` and `data` make the title. Values may be mappings.
        curves: Rows of `metrics.jsonl`: `step`, `epoch` and any of the measures in CURVES.
        evaluation: Result of `evaluate_features`, or its `as_dict()`; None: there were no labels.
        examples: Rows of PNG images, the query first, then its nearest neighbours.
        warnings: Sentences for the top of the page.
        next_commands: Command lines to go on with.

    Returns:
        The path.

    Raises:
        DeviceError: The disk refuses.
    """
    path = Path(path)
    scores = evaluation.as_dict() if isinstance(evaluation, Evaluation) else evaluation
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(files("nearfar.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8"))
    text = template.render(
        version=__version__,
        title=" on ".join(valid_text(str(run[key])) for key in ("method", "data") if run.get(key)) or "Run",
        evaluation=scores,
        tables=_tables(scores) if scores else [],
        colours=[charts.PAGE_COLOURS[c] for c in charts.colours(len(scores["scores"]))] if scores else [],
        meanings=_meanings(scores) if scores else [],
        learning=charts.learning_curve(scores) if scores else "",
        examples=[[_picture(picture) for picture in row] for row in examples],
        highest=_highest(scores) if scores else {},
        curves=_curves(curves),
        speed=f"{median(speeds):,.0f}"
        if (speeds := [r["images_per_second"] for r in curves if "images_per_second" in r])
        else "",
        warnings=list(map(valid_text, warnings)),
        settings=_settings(run),
        next_commands=list(map(valid_text, next_commands)),
    )
    with disk_errors(path):
        write_text(path, text)
    return path


def _tables(evaluation: Mapping[str, Any]) -> list[list[str]]:
    """Columns of the tables: accuracies, then clusters and retrieval where they were measured."""
    measures = list(next(iter(evaluation["scores"].values())))
    first = [m for m in measures if m in evaluation["labels"] or m == "kNN"]
    return [columns for columns in (first, [m for m in measures if m not in first]) if columns]


def _meanings(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each measure with its sentence, its protocol, and what was chosen for each set of features."""
    found = []
    *_, last = evaluation["scores"].values()
    for measure, score in last.items():
        sentence = next((text for part, text in MEANINGS.items() if part in measure), "")
        chosen = {name: row[measure]["chosen"] for name, row in evaluation["scores"].items() if row[measure]["chosen"]}
        found.append({"name": measure, "sentence": sentence, "protocol": score["protocol"], "chosen": chosen})
    return found


def _highest(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The best value of each measure."""
    rows = list(evaluation["scores"].values())
    return {measure: max(row[measure]["value"] for row in rows) for measure in rows[0]}


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The charts there is data for, with their sentences and last values."""
    rows = [{k: 100 * v if k in SHARES and v is not None else v for k, v in row.items()} for row in rows]
    found = []
    for key, (title, sentence) in CURVES.items():
        svg = charts.curve(rows, key, CHANCE.get(key, ""))
        if svg is not None:
            last = next(row[key] for row in reversed(rows) if row.get(key) is not None)
            found.append({"title": title, "sentence": sentence, "svg": svg, "last": f"{last:,.4g}"})
    return found


def _picture(picture: Picture | bytes) -> dict[str, str]:
    picture = Picture(picture) if isinstance(picture, bytes) else picture
    address = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    return {"address": address, "name": valid_text(picture.name), "label": valid_text(picture.label)}


def _settings(run: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Settings as rows of text, those within a mapping under `outer.inner`."""
    rows = []
    for key, value in run.items():
        if isinstance(value, Mapping):
            rows += _settings(value, f"{before}{key}.")
        elif value is not None:
            rows.append((valid_text(f"{before}{key}"), valid_text(str(value))))
    return rows
