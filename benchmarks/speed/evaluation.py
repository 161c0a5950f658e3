"""Evaluation of features: weighted kNN, and the linear probe with six penalties to choose from."""

# pyright: reportMissingImports=false

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.speed.harness import OURS, Row, Settings, Turn, installed_of
from nearfar.evaluation import linear
from nearfar.evaluation.knn import predict_knn
from nearfar.evaluation.linear import PENALTIES, held_out, standardise

WIDTH, NEIGHBOURS, TEMPERATURE, QUERIES_AT_ONCE = 512, 200, 0.1, 256
SAME, ACCURACY = 1e-3, 0.01
"""Share of kNN predictions, and points of a probe's accuracy, that may differ."""
PROTOCOL = (
    "float32 features of width 512, a mean a class under noise. kNN: 20,000 vote for each of 1,024, k = 200, "
    "temperature 0.1; lightly's knn_predict 256 at a time, on features made unit, both as its own evaluation has it. "
    "Probe: 5,000 images of 10 classes, penalties 1e-5 to 1, chosen on a tenth held out, then fitted to all; "
    "scikit-learn: the same standardised features, split and objective, LogisticRegression as it comes with up to "
    "10,000 iterations."
)


def rows(settings: Settings) -> Iterator[Row]:
    """kNN with few and with many classes, then the probe."""
    for classes in (10, 1000):
        yield knn_row(classes, settings)
    yield probe_row(settings)


def features(classes: int, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Features `[count, WIDTH]` and labels; another seed draws other images of the same classes."""
    means = torch.randn(classes, WIDTH, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=draw)
    return 0.15 * means[labels] + torch.randn(count, WIDTH, generator=draw), labels


def knn_row(classes: int, settings: Settings) -> Row:
    """Microseconds a query."""
    bank, queries = (500, 32) if settings.smoke else (20_000, 1024)
    x, y = features(classes, bank, seed=1)
    y[0] = classes - 1  # so that both count the same number of classes
    asked, _ = features(classes, queries, seed=2)

    def nearfar() -> Tensor:
        return predict_knn(x, y, asked, k=NEIGHBOURS, temperature=TEMPERATURE)

    works = {OURS: nearfar} | installed_of({"lightly": ("lightly", lambda: lightly_knn(x, y, asked, classes))})

    def agreement() -> dict[str, tuple[float, float]]:
        told = {name: work() for name, work in works.items()}
        return {n: (float((t != told[OURS]).double().mean()), SAME) for n, t in told.items() if n != OURS}

    return Row(
        name=f"kNN, {classes:,} classes",
        unit="us a query",
        costs={n: Turn(work, units=queries, clock=settings.clock, scale=1e6) for n, work in works.items()},
        measured=settings.measured,
        agreement=agreement,
        work={"flops": 2 * bank * WIDTH, "bytes": 4 * bank * WIDTH / min(queries, 1024)},
    )


def lightly_knn(x: Tensor, y: Tensor, queries: Tensor, classes: int) -> Callable[[], Tensor]:
    """Its function, part by part, of features that are made unit, as in its `KNNClassifier`."""
    from lightly.utils.benchmarking import knn_predict

    settings = {"num_classes": classes, "knn_k": NEIGHBOURS, "knn_t": TEMPERATURE}

    def predict() -> Tensor:
        bank, parts = F.normalize(x, dim=1).T.contiguous(), F.normalize(queries, dim=1).split(QUERIES_AT_ONCE)
        return torch.cat([knn_predict(part, bank, y, **settings)[:, 0] for part in parts])

    return predict


def probe_row(settings: Settings) -> Row:
    """Seconds of the whole protocol."""
    count = 200 if settings.smoke else 5000
    train, test = features(10, count, seed=1), features(10, 1000, seed=2)
    works = {OURS: lambda: linear(*train, *test).value, "scikit-learn": lambda: scikit_learn(train, test)}
    return Row(
        name=f"linear probe, {count:,} images, 6 penalties",
        unit="s",
        costs={name: Turn(work, units=1, clock=settings.clock) for name, work in works.items()},
        measured=settings.measured,
        agreement=lambda: {"accuracy, scikit-learn": (abs(works[OURS]() - works["scikit-learn"]()), ACCURACY)},
        work={"flops": 4 * count * WIDTH * 10, "bytes": 4 * count * WIDTH},
    )


def scikit_learn(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """The same protocol, fit by fit; accuracy on the test images."""
    x, held = (part.numpy() for part in standardise(train[0].double(), test[0].double()))
    y, truth = train[1].numpy(), test[1].numpy()
    out = held_out(train[1], 0.1, 0).numpy()
    scores = {p: share_right(fitted(x[~out], y[~out], p), x[out], y[out]) for p in PENALTIES}
    best = max(PENALTIES, key=lambda penalty: (scores[penalty], penalty))
    return share_right(fitted(x, y, best), held, truth)


def share_right(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> float:
    """Accuracy."""
    return float(np.mean(np.equal(model.predict(x), y)))


def fitted(x: np.ndarray, y: np.ndarray, penalty: float) -> LogisticRegression:
    """Mean cross-entropy and `penalty / 2 |W|^2`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=1 / (penalty * len(x)), max_iter=10_000).fit(x, y)
