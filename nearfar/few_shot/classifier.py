"""A classifier for people: a handful of examples a class, an encoder that stays as it is, scikit-learn's manners."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from ..data import Dataset
from ..data.names import safe_name
from ..errors import DataError, UsageError
from ..signatures import unknown as unknown_name
from .blocks import check_features
from .calibration import hold_out, nearest, own_distances, strangeness, temperature
from .checks import UNKNOWN, check_head, check_names, check_share
from .heads import HEADS
from .images import check_one_labelling, encoded, open_images, own_labels

if TYPE_CHECKING:
    from ..tasks.encoder import Encoder

AUTO = 0.05
"""Share of the images of known classes that `unknown="auto"` may lose, where there are examples enough to tell."""


@dataclass(frozen=True)
class Answers:
    """What is known of N images.

    Args:
        probability: Of each class, float64 `[N, classes]`.
        unknown: bool `[N]`.
        nearest: Place of the nearest example in `FewShotClassifier.examples_`, int64 `[N]`.
        distance: `1 - cosine` to it, float64 `[N]`.
    """

    probability: np.ndarray
    unknown: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Classifies images from a handful of examples, by a few-shot head on features of a trained encoder.

    Nothing is trained but the head, at once and to its optimum: `fit` keeps the features of the examples, and answers
    follow from them. Images are a folder (or anything else that `nearfar.load` reads), a list of paths, Pillow images,
    or uint8 arrays `[N, h, w, C]` or `[N, C, h, w]`.

    Args:
        run: Run folder, or a loaded `Encoder`; None: features `[N, D]` are given in place of images.
        head: Name of one of `nearfar.few_shot.HEADS` that answers each image by itself.
        unknown: Share of the images of known classes, in (0, 1), that may be answered by "unknown"; "auto": 0.05, or
            1 / (n + 1) where only n < 19 examples are of classes with two or more; None: every image gets a class.
            Copies of an example count once.
        device: As in `train`.

    Attributes:
        classes_: Labels, sorted, `[C]`.
        examples_: Name of each example: its path, or its number among those given; class by class.
        features_: Their features, float64 `[S, D]`.
        temperature_: Scores are divided by it before the softmax.
        calibrated_: Whether it was learned from held-out examples, for which a class needs two. Otherwise it is 1,
            and probabilities only tell which class is likelier.
        confusion_: Held-out examples by class and answer, int64 `[C, C]`.

    Differs from scikit-learn's classifiers: fewer than two classes are refused, and where `unknown` is set and the
    labels are no text, `predict` gives an array of objects.

    Example:
        >>> x = np.eye(3).repeat(4, axis=0) + 0.01 * np.arange(12)[:, None]
        >>> classifier = FewShotClassifier(head="ncm").fit(x, ["ant"] * 4 + ["bee"] * 4 + ["cat"] * 4)
        >>> classifier.predict([[0.0, 1.0, 0.1]]).tolist()
        ['bee']
    """

    def __init__(
        self,
        run: str | Path | Encoder | None = None,
        *,
        head: str = "lr",
        unknown: float | str | None = None,
        device: str = "auto",
    ) -> None:
        self.run, self.head, self.unknown, self.device = run, head, unknown, device

    def fit(self, images: Any, y: Any = None) -> Self:
        """Takes the examples.

        Args:
            images: See above.
            y: Labels, one an image, text or whole numbers; None: those of the folder.

        Raises:
            UsageError: A head or share that can't be, fewer than two classes, not one label an image, labels beside
                those of the folder, or a class with the name "unknown" where `unknown` is set.
            DataError: An image of a list that cannot be read (one of a folder is left out, with a warning), a folder
                without labels, or an encoder that gives NaN.
        """
        check_head(self.head)
        self.encoder_ = self._encoder()
        if self.encoder_ is None:
            x, y = validate_data(self, images, y, dtype=np.float64)
            return self._learn(_rows(x), _labels(y), [str(place) for place in range(len(x))])
        shown = open_images(images, self.encoder_, labels=True if y is None else None)
        check_one_labelling(images, shown, given=y is not None)
        if not isinstance(images, Dataset) and shown.bad:
            listed = "; ".join(f"{safe_name(name)}: {reason}" for name, reason in shown.bad[:10])
            warnings.warn(f"{len(shown.bad)} examples cannot be read and are left out: {listed}", stacklevel=2)
        y = _labels(own_labels(shown) if y is None else y)
        if len(y) != len(shown):
            raise UsageError(f"{len(shown)} images, {len(y)} labels", where="labels", mend="give one label an image")
        features = encoded(shown, self.encoder_)
        self.n_features_in_ = features.shape[1]
        return self._learn(features, y, shown.names)

    def add_class(self, images: Any, label: Any) -> Self:
        """Examples of a new class, or more of a known one; the same as `fit` with all examples at once.

        Raises:
            UsageError: A number where the labels are text, or the other way round; or "unknown" where that is an
                answer.
        """
        check_is_fitted(self)
        check_names([label], self.unknown)
        if isinstance(label, str) != isinstance(self.classes_[0], str):
            known = self.classes_[:3].tolist()
            raise UsageError(f"the label {label!r} beside {known}", where="add_class", mend="all text, or all numbers")
        features, names = self._read(images)
        y = np.concatenate([self.classes_[self.labels_], _labels([label] * len(features))])
        return self._learn(torch.cat([self.features_, features]), y, [*self.examples_, *names])

    def remove_class(self, label: Any) -> Self:
        """Forgets a class and its examples.

        Raises:
            UsageError: There is no such class, or only one would be left.
        """
        check_is_fitted(self)
        y = self.classes_[self.labels_]
        if label not in self.classes_:
            raise unknown_name("class", str(label), map(str, self.classes_), where="remove_class")
        kept = np.flatnonzero(y != label)
        return self._learn(self.features_[kept], y[kept], [self.examples_[place] for place in kept])

    def predict(self, images: Any) -> np.ndarray:
        """The label of each image, or "unknown"."""
        found = self.answer(images)
        best = self.classes_[found.probability.argmax(axis=1)]
        if self.unknown is None:
            return best
        text = self.classes_.dtype.kind == "U"
        answers = best.astype(object)
        answers[found.unknown] = UNKNOWN
        return answers.astype(str) if text else answers

    def predict_proba(self, images: Any) -> np.ndarray:
        """Probabilities of the known classes, float64 `[N, C]`; each row sums to 1, also that of an unknown image."""
        return self.answer(images).probability

    def answer(self, images: Any) -> Answers:
        """Everything at once: probabilities, who is unknown, and the nearest example of each image."""
        check_is_fitted(self)
        features, _ = self._read(images)
        scores = self._scores(self.features_, torch.from_numpy(self.labels_), features)
        distance, place = nearest(features, self.features_)
        flagged = torch.zeros(len(features), dtype=torch.bool)
        if self.unknown is not None:
            flagged = strangeness(distance, self.own_) <= self._share()
        probability = torch.softmax(scores / self.temperature_, dim=1)
        return Answers(probability.numpy(), flagged.numpy(), place.numpy(), distance.numpy())

    def save(self, folder: str | Path) -> Path:
        """Writes the classifier with its encoder: the folder needs nothing else. See `nearfar.few_shot.saved.save`."""
        from .saved import save

        check_is_fitted(self)
        return save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> FewShotClassifier:
        """The classifier that `save` wrote; see `nearfar.few_shot.saved.load`."""
        from .saved import load

        return load(cls, Path(folder), device=device)

    def restored(self, features: Tensor, y: np.ndarray, names: list[str]) -> Self:
        """As after `fit`, from features `[S, D]` that were computed before, their labels and names."""
        check_head(self.head)
        self.encoder_, self.n_features_in_ = self._encoder(), features.shape[1]
        return self._learn(features, y, names)

    def _encoder(self) -> Encoder | None:
        if self.run is None or not isinstance(self.run, str | Path):
            return self.run
        from ..tasks.encoder import load_encoder

        return load_encoder(self.run, device=self.device)

    def _read(self, images: Any) -> tuple[Tensor, list[str]]:
        """Features, float64 `[N, D]`, of images or as given, row i of image i; and names."""
        if self.encoder_ is None:
            x = validate_data(self, images, reset=False, dtype=np.float64)
            return _rows(x), [str(place) for place in range(len(x))]
        shown = open_images(images, self.encoder_)
        if not isinstance(images, Dataset) and shown.bad:
            name, reason = shown.bad[0]
            raise DataError(
                f"{len(shown.bad)} images cannot be read, such as {safe_name(name)}: {reason}",
                where=images,
                mend=f"give classifier.encoder_.load({str(images)!r}): it leaves them out, its .names are the others",
            )
        return encoded(shown, self.encoder_), shown.names

    def _learn(self, features: Tensor, y: np.ndarray, names: list[str]) -> Self:
        """Everything that follows from features and labels, put in order of the labels whenever they came."""
        classes, labels = np.unique(y, return_inverse=True)
        check_names(classes.tolist(), self.unknown)
        if len(classes) < 2:
            raise UsageError(f"one class only, {classes.tolist()}", where="labels", mend="give examples of two classes")
        order = np.argsort(labels, kind="stable")
        features, labels = features[order], labels[order]
        own = own_distances(features, torch.from_numpy(labels))
        check_share(self.unknown, len(own))
        self.classes_, self.labels_, self.features_, self.own_ = classes, labels, features, own
        self.examples_ = [names[place] for place in order]
        held = hold_out(self._scores, features, torch.from_numpy(labels))
        truth = torch.from_numpy(labels)[held.places]
        self.calibrated_ = len(truth) > 0
        self.temperature_ = temperature(held.scores, truth) if self.calibrated_ else 1.0
        self.confusion_ = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(self.confusion_, (truth.numpy(), held.scores.argmax(dim=1).numpy()), 1)
        return self

    def _scores(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Scores of the classes, `[Q, C]`."""
        return HEADS[self.head](support[None], labels[None], query[None], ways=len(self.classes_))[0]

    def _share(self) -> float:
        """Largest p-value that makes an image unknown."""
        return max(AUTO, 1 / (len(self.own_) + 1)) if self.unknown == "auto" else float(self.unknown or 0)


def _labels(labels: Any) -> np.ndarray:
    """Labels `[N]`, text or numbers."""
    y = column_or_1d(np.asarray(labels), warn=True)
    check_classification_targets(y)
    return y


def _rows(x: Any) -> Tensor:
    """Features, float64 `[N, D]`, as a tensor."""
    rows = torch.from_numpy(np.require(x, requirements=["C", "W"]))  # torch warns of arrays that are read-only
    check_features(rows)
    return rows
