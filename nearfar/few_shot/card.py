"""What one must know to believe or repeat a few-shot result, and the result: scores, paired differences, card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..evaluation.protocol import Difference, Score, paired_difference
from .evaluate import COVERS, between_heads
from .heads import HEADS

_PRIORS = {"uniform": "the classes are equally frequent", "unknown": "nothing"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """The protocol of a few-shot evaluation: everything that is not the encoder.

    Args:
        data: As the user named it.
        fingerprint: Of the images and labels that episodes were drawn from.
        split: Name of the split, or None: all classes of the data.
        split_fingerprint: Of the split, or None.
        part: Part of the split.
        classes: Number of classes of that part.
        images: Number of images of it.
        ways: Classes of an episode.
        shots: Labelled images a class, one for each list of episodes.
        queries: Images a class that are asked for; unbalanced: on average.
        episodes: Number of episodes.
        lists: Hash of each list of episodes, by shots.
        seed: Of the lists.
        dirichlet: Concentration of the shares of the classes among the queries, or None: balanced.
        heads: Name -> what it does.
        query_prior: What transductive heads were told of the classes of the queries.
        support_views: Augmented copies in place of each support; 0: the image itself.
        query_views: Augmented copies averaged with each query; 0: the image itself.
    """

    data: str
    fingerprint: str
    split: str | None
    split_fingerprint: str | None
    part: str | None
    classes: int
    images: int
    ways: int
    shots: tuple[int, ...]
    queries: int
    episodes: int
    lists: dict[str, str]
    seed: int
    dirichlet: float | None
    heads: dict[str, str]
    query_prior: str
    support_views: int
    query_views: int

    @property
    def hash(self) -> str:
        """12 hexadecimal digits: results with the same ones were measured in the same way on the same episodes."""
        told = {key: value for key, value in asdict(self).items() if key != "data"}
        return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=6).hexdigest()

    def lines(self) -> list[str]:
        """The card in words, `name: what`."""
        lists = ", ".join(f"{shots}-shot list {name[:12]}" for shots, name in self.lists.items())
        split = f"{self.split} ({(self.split_fingerprint or '')[:12]}), part {self.part}"
        known = {
            "data": f"{self.data} ({self.fingerprint[:12]}): {self.images:,} images, {self.classes} classes",
            "split": split if self.split else "none: all classes of the data are taken for new ones",
            "episodes": f"{self.episodes:,} of {self.ways} ways, seed {self.seed}; {lists}",
            "supports": f"{self.support_views} augmented copies of each, not the image itself"
            if self.support_views
            else "each image once, not augmented",
            "queries": self._queries(),
            "transduction": self._transduction(),
            "interval": COVERS,
            "checkpoint": "the last one of the training; batch norm in evaluation mode",
            "protocol": self.hash,
        }
        heads = {f"head {name}": about for name, about in self.heads.items()}
        return [f"{name}: {what}" for name, what in {**known, **heads}.items()]

    def _queries(self) -> str:
        balanced = f"{self.queries} of each class"
        shares = (
            f"{self.ways * self.queries} in all, not balanced: shares of the classes from Dirichlet({self.dirichlet})"
        )
        views = f"; features averaged over each and {self.query_views} augmented copies" if self.query_views else ""
        return (balanced if self.dirichlet is None else shares) + views

    def _transduction(self) -> str:
        names = [name for name in self.heads if HEADS[name].transductive]
        if not names:
            return "none: each query is answered by itself"
        told = [name for name in names if HEADS[name].uses_prior]
        knows = "knows" if len(told) == 1 else "know"
        prior = (
            f"; of how many are of each class {', '.join(told)} {knows}: {_PRIORS[self.query_prior]}" if told else ""
        )
        return f"{', '.join(names)} {'sees' if len(names) == 1 else 'see'} all queries of an episode at once{prior}"


@dataclass(frozen=True)
class FewShotEvaluation:
    """Scores of several sets of features over the same episodes.

    Args:
        card: How it was measured.
        scores: Name of the features -> shots -> head -> score; the run of interest first among the encoders.
        encoders: Name of the features -> what made them.
        main: Name of the features of the run of interest.
        warnings: Name of the features -> why the classes may be no new ones to what made them.
    """

    card: Card
    scores: dict[str, dict[int, dict[str, Score]]]
    encoders: dict[str, str]
    main: str
    warnings: dict[str, str]

    def head_differences(self) -> dict[int, dict[str, Difference]]:
        """Shots -> `BEST - OTHER` -> difference, of the run of interest."""
        return {shots: between_heads(row) for shots, row in self.scores[self.main].items()}

    def run_differences(self) -> dict[str, dict[int, dict[str, Difference]]]:
        """Other features -> shots -> head -> by how much the run of interest is better, paired episode by episode."""
        mine = self.scores[self.main]
        return {
            name: {
                shots: {head: paired_difference(mine[shots][head], score) for head, score in row.items()}
                for shots, row in table.items()
            }
            for name, table in self.scores.items()
            if name != self.main
        }

    def as_text(self) -> str:
        """Table, warnings, paired differences of the best head, and card, for the terminal."""
        *_, first = self.scores.values()
        rows = [["shots", "head", *self.scores]]
        for shots, heads in first.items():
            for number, head in enumerate(heads):
                cells = [_points(table[shots][head]) for table in self.scores.values()]
                rows.append([str(shots) if number == 0 else "", head, *cells])
        chance = f"Per cent, ± half the 95 % interval; chance gives {100 / self.card.ways:.1f}"
        chance = "\n".join([chance, *(f"warning: {told}" for told in self.warnings.values())])
        notes = self._best_against_others()
        paired = [
            "Paired differences, points, with 95 % intervals; other heads are in few_shot.json",
            *(f"  {note}" for note in notes),
        ]
        card = ["How it was measured", *(f"  {line}" for line in self.card.lines())]
        card += [f"  {name}: {about}" for name, about in self.encoders.items()]
        return "\n\n".join([_columns(rows), chance, *(["\n".join(paired)] if notes else []), "\n".join(card)])

    def _best_against_others(self) -> list[str]:
        """A line for each number of shots and other features: by how much the run is better, with its own best head."""
        differences, lines = self.run_differences(), []
        for shots, row in self.scores[self.main].items():
            best = max(row, key=lambda head: row[head].value)
            for other, table in differences.items():
                gap = table[shots][best]
                found = f"{100 * gap.mean:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"
                lines.append(f"{_shots(shots)}, {best}, {self.main} against {other}: {found}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the accuracies of single episodes are in `draws`."""
        scores = {
            name: {
                str(shots): {head: {"value": s.value, "low": s.low, "high": s.high} for head, s in row.items()}
                for shots, row in table.items()
            }
            for name, table in self.scores.items()
        }
        heads = {str(shots): {k: vars(d) for k, d in row.items()} for shots, row in self.head_differences().items()}
        runs = {
            other: {str(shots): {k: vars(d) for k, d in row.items()} for shots, row in table.items()}
            for other, table in self.run_differences().items()
        }
        card = json.loads(json.dumps(asdict(self.card)))
        return {
            "card": card, "interval": COVERS, "encoders": self.encoders, "main": self.main, "warnings": self.warnings,
            "scores": scores, "between_heads": heads, "against": runs,
        }  # fmt: skip

    def draws(self) -> dict[str, np.ndarray]:
        """`accuracy`, float32 `[features, shots, heads, T]`, of each episode, and the names along its axes."""
        table = [[[s.draws for s in row.values()] for row in rows.values()] for rows in self.scores.values()]
        return {
            "accuracy": np.array(table, np.float32),
            "features": np.array(list(self.scores)),
            "shots": np.array(self.card.shots),
            "heads": np.array(list(self.card.heads)),
        }


def _shots(count: int) -> str:
    return f"{count} shot{'s' * (count > 1)}"


def _points(score: Score) -> str:
    """Two decimals, as few-shot results are given: `98.57 ± 0.05`."""
    assert score.low is not None and score.high is not None
    return f"{100 * score.value:.2f} ± {50 * (score.high - score.low):.2f}"


def _columns(rows: list[list[str]]) -> str:
    """Aligned columns with a line beneath the first row; the first two are names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
