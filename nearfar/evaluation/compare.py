"""Several encoders side by side, on the same images, labels and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import UsageError
from .clustering import clustering
from .few_labels import few_labels
from .knn import knn
from .linear import linear
from .pair_retrieval import PairRetrieval
from .protocol import Difference, Score, labelled, paired_difference
from .retrieval import retrieval

Features = ArrayLike | Tensor
ALL = "all labels"


@dataclass(frozen=True)
class Evaluation:
    """Scores of several sets of features.

    Args:
        scores: Name of the features -> name of the measure -> score.
        labels: Measure -> labels a class it was given, for those that make a learning curve.
        chance: Accuracy of always answering the largest class of the test images.
        classes: Number of classes.
        own: Accuracy of a classifier that was trained together with the encoder, or None.
        captions: Recall of images and captions, where the encoder knows text; `scores` are {} where labels are missing.
    """

    scores: dict[str, dict[str, Score]]
    labels: dict[str, float]
    chance: float
    classes: int
    own: Score | None = None
    captions: PairRetrieval | None = None

    @property
    def measures(self) -> list[str]:
        """Names of the measures, in the order of the columns."""
        return list(next(iter(self.scores.values())))

    def differences(self) -> dict[str, dict[str, Difference]]:
        """By how much the last set of features is better than each other one, paired draw by draw: name -> measure."""
        if not self.scores:
            return {}
        *others, last = self.scores
        drawn = [m for m in self.measures if len(self.scores[last][m].draws) > 1]
        return {o: {m: paired_difference(self.scores[last][m], self.scores[o][m]) for m in drawn} for o in others}

    def as_text(self) -> str:
        """A table of per cents with 95 % intervals for the terminal, with the protocols beneath."""
        accuracies = [m for m in self.measures if m in self.labels or m == "kNN"]
        rest = [m for m in self.measures if m not in accuracies]
        tables = [_table(self.scores, columns) for columns in (accuracies, rest) if columns]
        notes = [
            f"Per cent, ± half the 95 % interval; {self.classes} classes, the largest gives {100 * self.chance:.1f}"
        ]
        *_, last = self.scores
        if self.own is not None:
            notes.append(f"own classifier: {self.own}")
        for other, found in self.differences().items():
            notes += [f"{last} against {other}, {m}: {difference}" for m, difference in found.items()]
        for name, row in self.scores.items():
            notes += [f"{name}, {m}: {score.chosen}" for m, score in row.items() if score.chosen]
        protocols = [f"  {m}: {self.scores[last][m].protocol}" for m in self.measures]
        protocols += [f"  own classifier: {self.own.protocol}"] if self.own is not None else []
        return "\n\n".join([*tables, "\n".join(notes), "\n".join(["How it was measured", *protocols])])

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON and the report."""
        scores = {name: {m: score.as_dict() for m, score in row.items()} for name, row in self.scores.items()}
        differences = {o: {m: vars(d) for m, d in found.items()} for o, found in self.differences().items()}
        plain = {"labels": self.labels, "chance": self.chance, "classes": self.classes}
        plain |= {} if self.own is None else {"own": self.own.as_dict()}
        plain |= {} if self.captions is None else {"captions": self.captions.as_dict()}
        return {"scores": scores, **plain, "differences": differences}


def evaluate_features(
    named: Mapping[str, tuple[Features, Features]],
    train_y: Features,
    test_y: Features,
    *,
    per_class: Sequence[int] = (1, 5),
    repeats: int = 20,
    structure: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Few labels, all labels and kNN for each set of features, with the same labels, draws and held-out part for all.

    Args:
        named: Name -> (features of the training images `[N, D]`, of the test images `[M, D]`), in the order of the
            table, the set of interest last. Widths may differ between names.
        train_y: Labels int `[N]`, >= 0.
        test_y: Labels int `[M]`.
        per_class: Numbers of labels a class for `few_labels`.
        repeats: Draws of those labels.
        structure: Also clustering and retrieval of the test images.
        seed: Of draws, held-out part and k-means.

    Raises:
        UsageError: No features, or what the protocols themselves refuse.

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(2).repeat(20, axis=0), np.arange(2).repeat(20)
        >>> evaluate_features({"raw": (x, x)}, y, y, per_class=(1,), repeats=2).scores["raw"]["kNN"].value
        1.0
    """
    if not named:
        raise UsageError("no features to evaluate", where="evaluate_features")
    scores = {}
    for name, (train_x, test_x) in named.items():
        few = few_labels(train_x, train_y, test_x, test_y, per_class=per_class, repeats=repeats, seed=seed)
        row = {_few(count): score for count, score in few.items()}
        row[ALL] = linear(train_x, train_y, test_x, test_y, seed=seed)
        row["kNN"] = knn(train_x, train_y, test_x, test_y)
        if structure:
            found = clustering(test_x, test_y, seed=seed) | retrieval(test_x, test_y)
            row |= {{"nmi": "NMI", "ari": "ARI", "map": "mAP"}.get(m, m): score for m, score in found.items()}
        scores[name] = row
    y, truth = (labelled(x, y, part)[1] for x, y, part in ((train_x, train_y, "train"), (test_x, test_y, "test")))
    classes = len(y.unique())
    labels = {_few(count): float(count) for count in per_class} | {ALL: len(y) / classes}
    return Evaluation(scores, labels, float(truth.bincount().max()) / len(truth), classes)


def _few(count: int) -> str:
    return f"{count} label{'s' if count > 1 else ''} a class"


def _table(scores: dict[str, dict[str, Score]], measures: list[str]) -> str:
    rows = [["", *measures], *([name, *(str(row[m]) for m in measures)] for name, row in scores.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(measures) + 1)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
