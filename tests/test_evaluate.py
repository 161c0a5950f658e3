"""Each protocol against a slow twin: nested loops, scikit-learn, or a closed form."""

from __future__ import annotations

import json
import math
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, average_precision_score
from torch import nn
from toy_sequences import toy_sequences
from toy_sounds import RATE, toy_ears, toy_sounds

from nearfar import encoders, evaluation
from nearfar.data.inputs import blocks
from nearfar.errors import UsageError
from nearfar.evaluation.protocol import Score, matrix, student_interval, wilson
from nearfar.method import Batch
from nearfar.tasks import summary
from nearfar.views.sound import Waveform

few, knn_module, linear_module, retrieval_module = (
    import_module(f"nearfar.evaluation.{name}") for name in ("few_labels", "knn", "linear", "retrieval")
)


def clouds(n: int, width: int, classes: int, *, seed: int, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes, so that a wrong classifier has another accuracy."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    centres = np.random.default_rng(99).normal(size=(classes, width)) * apart
    return (centres[y] + random.normal(size=(n, width))).astype(np.float32), y


# ------------------------------------------------------------ features


class Images:
    """Data set of n images 1 x 4 x 4, all pixels of image i are i."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: np.ndarray) -> Batch:
        pixels = torch.from_numpy(indices).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
        return Batch(pixels, torch.full((len(indices), 2), 4), torch.from_numpy(indices))


def transform(images: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    return images / 255


def test_features_are_in_order_and_the_last_part_is_there():
    seen: list[tuple[int, int]] = []
    x = evaluation.features(
        lambda v: v.flatten(1), Images(11), transform, batch=4, progress=lambda *at: seen.append(at)
    )
    assert x.dtype == torch.float32 and x.shape == (11, 16)
    torch.testing.assert_close(x[:, 7] * 255, torch.arange(11.0))
    assert seen == [(4, 11), (8, 11), (11, 11)]


def test_features_see_eval_mode_and_every_module_gets_its_mode_back():
    encoder = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Sequential(nn.Dropout(0.5), nn.Flatten()))
    encoder.train()
    encoder[2].eval()
    before = encoder[1].running_mean.clone()
    x = evaluation.features(lambda v: encoder(v), Images(9), transform, batch=2)
    torch.testing.assert_close(encoder[1].running_mean, before, rtol=0, atol=0)
    assert [m.training for m in encoder.modules()] == [True, True, True, False, False, False]
    assert not x.requires_grad
    encoder.eval()
    torch.testing.assert_close(x, encoder(transform(Images(9).batch(np.arange(9)).inputs, torch.empty(0))).detach())
    encoder.train()
    encoder(torch.rand(4, 1, 4, 4))
    assert encoder[1].training, "the hook must be gone"


def test_features_come_back_to_training_after_an_error():
    encoder = nn.Linear(5, 1).train()
    with pytest.raises(RuntimeError):
        evaluation.features(lambda v: encoder(v.flatten(1)), Images(2), transform)
    assert encoder.training


def test_features_of_bf16_are_float32():
    layer = nn.Linear(16, 2)
    x = evaluation.features(lambda v: layer(v.flatten(1)), Images(3), transform, dtype=torch.bfloat16)
    exact = evaluation.features(lambda v: layer(v.flatten(1)), Images(3), transform)
    assert x.dtype == torch.float32
    assert 0 < (x - exact).abs().max() < 0.01


def test_E9_no_images_and_maps_instead_of_vectors_are_said():
    with pytest.raises(UsageError, match="no images"):
        evaluation.features(lambda v: v, Images(0), transform)
    with pytest.raises(UsageError, match="one vector an image"):
        evaluation.features(lambda v: v, Images(2), transform)
    assert evaluation.features(lambda v: v.flatten(1), Images(1), transform).shape == (1, 16)


def blocks_by_loops(lengths: list[int], width: int, most: int, values: int) -> list[list[int]]:
    found: list[list[int]] = []
    for place, length in enumerate(lengths):
        last = found[-1] if found else []
        longest = max([length, *(lengths[one] for one in last)])
        if last and len(last) < most and (len(last) + 1) * longest * width <= values:
            last.append(place)
        else:
            found.append([place])
    return found


@pytest.mark.parametrize("values", [1, 300, 1000, 2**21])
@pytest.mark.parametrize("most", [1, 7, 500])
def test_blocks_are_those_of_loops(most: int, values: int):
    data = toy_sequences(60)
    width = math.prod(data.inputs.flat.shape[1:])
    found = [part.tolist() for part in blocks(data, most, values=values)]
    assert found == blocks_by_loops(data.sizes[:, 0].tolist(), width, most, values)
    turned = data.subset(np.arange(60)[::-1])
    expected = blocks_by_loops(turned.sizes[:, 0].tolist(), width, most, values)
    assert [part.tolist() for part in blocks(turned, most, values=values)] == expected


def test_blocks_of_images_are_bounded_by_their_number_alone():
    assert [len(part) for part in blocks(Images(600), 256, values=1)] == [256, 256, 88] and not [*blocks(Images(0), 4)]


def test_features_and_spectra_are_the_same_whatever_the_block(monkeypatch):
    """Sounds of 120 to 240 samples; the longest of a block sets its padding."""
    data, net = toy_sounds(48), toy_ears()
    module, most = import_module("nearfar.evaluation.features"), []

    def encode(view: torch.Tensor) -> torch.Tensor:
        most.append(view[:, 0].numel())
        return encoders.pooled(net(view))

    whole = evaluation.features(encode, data, Waveform(RATE)), summary.spectra(None, data)
    assert most == [48 * int(data.sizes.max())]
    for values in (1, 700, 3000):
        most.clear()
        monkeypatch.setattr(module, "blocks", partial(blocks, values=values))
        monkeypatch.setattr(summary, "blocks", partial(blocks, values=values))
        torch.testing.assert_close(evaluation.features(encode, data, Waveform(RATE)), whole[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(summary.spectra(None, data), whole[1], rtol=1e-4, atol=1e-4)
        assert max(most) <= max(values, int(data.sizes.max())) and len(most) > 48 * 120 / max(values, 240)


# ------------------------------------------------------------ kNN


def knn_by_loops(train_x, train_y, test_x, k, temperature, leave_out=False):
    predicted = []
    for t, query in enumerate(test_x.astype(np.float64)):
        similar = []
        for i, row in enumerate(train_x.astype(np.float64)):
            if not (leave_out and i == t):
                similar.append((query @ row / np.linalg.norm(query) / np.linalg.norm(row), train_y[i]))
        votes = dict.fromkeys(range(int(train_y.max()) + 1), 0.0)
        for score, label in sorted(similar, reverse=True)[:k]:
            votes[label] += math.exp(score / temperature)
        predicted.append(max(votes, key=lambda c: votes[c]))
    return np.array(predicted)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (30, 0.07), (30, 5.0)])
@pytest.mark.parametrize("tiles", [(1024, 16384), (7, 13)])
def test_knn_is_that_of_loops(k, temperature, tiles, monkeypatch):
    monkeypatch.setattr(knn_module, "ROWS", tiles[0])
    monkeypatch.setattr(knn_module, "COLUMNS", tiles[1])
    train_x, train_y = clouds(90, 6, 4, seed=0, apart=0.6)
    test_x, test_y = clouds(40, 6, 4, seed=1, apart=0.6)
    slow = knn_by_loops(train_x, train_y, test_x, k, temperature)
    fast = evaluation.predict_knn(train_x, train_y, test_x, k=k, temperature=temperature)
    assert fast.tolist() == slow.tolist()
    score = evaluation.knn(train_x, train_y, test_x, test_y, k=k, temperature=temperature)
    assert score.value == pytest.approx((slow == test_y).mean()) and 0.3 < score.value < 1
    left_out = evaluation.predict_knn(train_x, train_y, k=k, temperature=temperature)
    assert left_out.tolist() == knn_by_loops(train_x, train_y, train_x, k, temperature, leave_out=True).tolist()


@pytest.mark.parametrize(("width", "k"), [(31, 1), (32, 1), (1001, 3), (1003, 31), (1004, 32), (7, 7)])
def test_the_largest_are_those_of_a_whole_sort(width, k):
    scores = torch.randn(40, width, generator=torch.Generator().manual_seed(width))
    scores[3, width // 2 :] = -torch.inf  # as an image that leaves itself out, and more of them
    scores[4] = torch.arange(width)  # the largest lie side by side
    values, indices = torch.sort(scores, dim=1, descending=True)
    mine = knn_module.largest(scores, k)
    assert torch.equal(mine[0], values[:, :k])
    distinct = torch.arange(40) != 3
    assert torch.equal(mine[1][distinct], indices[distinct, :k])
    assert torch.equal(scores.gather(1, mine[1]), mine[0])


def test_knn_says_that_it_used_fewer_neighbours_and_does_not_overflow():
    x, y = clouds(20, 5, 2, seed=0)
    score = evaluation.knn(x, y, x, y, k=200, temperature=1e-4)
    assert score.value == 1 and "k = 20 (all there are, 200 asked for)" in score.protocol
    assert "k = 19" in evaluation.knn(x, y, k=30).protocol


@pytest.mark.parametrize(("count", "used"), [(60, "20 (a class has no more on average, else 200)"), (660, "200,")])
def test_as_many_neighbours_vote_as_a_class_has_but_200_at_most(count, used):
    x, y = clouds(count, 5, 3, seed=0)
    asked, answers = clouds(30, 5, 3, seed=1)
    score = evaluation.knn(x, y, asked, answers)
    assert f"k = {used}" in score.protocol
    assert score.value == evaluation.knn(x, y, asked, answers, k=min(count // 3, 200)).value


def test_the_largest_class_does_not_win_where_samples_are_few():
    """Cosines between 0.9 and 1: with all 40 voting, nearly every one of the smaller class is outvoted."""
    angles = np.concatenate([np.linspace(0, 0.2, 25), np.linspace(0.25, 0.45, 15)])
    x, y = np.stack([np.cos(angles), np.sin(angles)], axis=1), (angles > 0.22).astype(int)
    assert evaluation.knn(x, y, x, y, k=200).value < 0.7 and evaluation.knn(x, y, x, y).value > 0.9


# ------------------------------------------------------------ linear


@pytest.mark.parametrize("penalty", [1.0, 0.01, 1e-4])
@pytest.mark.parametrize("width", [5, 90])
def test_fit_linear_is_scikit_learn(penalty, width):
    x, y = clouds(60, width, 3, seed=2, apart=0.4)
    inputs = torch.from_numpy(x).double(), torch.from_numpy(y)
    mine = linear_module.fit_linear(*inputs, penalty=penalty, classes=3, tolerance=1e-9)
    other = LogisticRegression(C=1 / (penalty * 60), tol=1e-10, max_iter=100_000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(mine.weight, other.coef_, atol=2e-5)
    np.testing.assert_allclose(mine.bias - mine.bias.mean(), other.intercept_ - other.intercept_.mean(), atol=2e-5)
    logs = torch.log_softmax(torch.from_numpy(x @ other.coef_.T + other.intercept_), dim=1)
    loss = -logs[range(60), y].mean() + penalty / 2 * (other.coef_**2).sum()
    assert mine.loss == pytest.approx(float(loss), abs=1e-9) and mine.converged


def test_fit_linear_from_another_start_in_tiles_ends_at_the_same_place(monkeypatch):
    x, y = map(torch.from_numpy, clouds(50, 4, 3, seed=3, apart=0.4))
    x = x.double()
    plain = linear_module.fit_linear(x, y, penalty=0.01, classes=3, tolerance=1e-9)
    monkeypatch.setattr(linear_module, "ROWS", {"cpu": 7})
    start = linear_module.fit_linear(x, y, penalty=10.0, classes=3)
    again = linear_module.fit_linear(x, y, penalty=0.01, classes=3, tolerance=1e-9, start=start)
    torch.testing.assert_close(again.weight, plain.weight, atol=1e-6, rtol=0)


def test_fit_linear_of_two_classes_has_the_closed_form_of_the_penalty():
    """Softmax of two classes is the logistic of w = w1 - w2 with half the penalty: |w1|^2 + |w2|^2 = |w|^2 / 2."""
    x, y = clouds(40, 3, 2, seed=4, apart=0.5)
    inputs = torch.from_numpy(x).double(), torch.from_numpy(y)
    mine = linear_module.fit_linear(*inputs, penalty=0.1, classes=2, tolerance=1e-9)
    other = LogisticRegression(C=2 / (0.1 * 40), tol=1e-10, max_iter=100_000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(mine.weight[1] - mine.weight[0], other.coef_[0], atol=2e-6)


@pytest.mark.parametrize("penalty", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("samples", [(400, 64, 10), (30, 100, 3)])
def test_fit_linear_ends_within_twice_its_bound_where_classes_part(samples, penalty):
    count, width, classes = samples
    x, y = map(torch.from_numpy, clouds(count, width, classes, seed=1, apart=0.5))
    (x,) = linear_module.standardise(x.double())
    plain = linear_module.fit_linear(x, y, penalty=penalty, classes=classes)
    exact = linear_module.fit_linear(x, y, penalty=penalty, classes=classes, tolerance=1e-9, start=plain)
    assert plain.converged and plain.loss - exact.loss < 1e-5**2 * classes * width  # without it 10 to 100 times as much


@pytest.mark.parametrize("penalty", linear_module.PENALTIES)
@pytest.mark.parametrize("width", [20, 700])
def test_fit_linear_in_float32_is_that_in_float64_at_the_tolerance_of_the_sweep(penalty, width):
    x, y = map(torch.from_numpy, clouds(600, width, 4, seed=8, apart=0.2))
    (x,) = linear_module.standardise(x.double())
    fits = []
    for part in (x, x.float()):
        axes = linear_module.principal_axes(part)
        begin = linear_module.Linear.zero(4, axes)
        given = {"penalty": penalty, "tolerance": linear_module.SWEEP, "axes": axes}
        fits.append(linear_module._descend(part, y, begin, linear_module._curvature(begin, part), **given))
    exact = linear_module.fit_linear(x, y, penalty=penalty, classes=4, tolerance=1e-9)
    above = [fit.loss - exact.loss for fit in fits]
    assert abs(above[1]) < 5 * abs(above[0]) + 1e-7
    assert float((fits[0].predict(x) == fits[1].predict(x)).double().mean()) > 0.995


def test_linear_chooses_without_the_test_images():
    train_x, train_y = clouds(300, 40, 3, seed=5, apart=0.25)
    test_x, test_y = clouds(200, 40, 3, seed=6, apart=0.25)
    score = evaluation.linear(train_x, train_y, test_x, test_y)
    wrong = evaluation.linear(train_x, train_y, test_x, (test_y + 1) % 3)
    assert score.chosen == wrong.chosen and score.protocol == wrong.protocol

    mean, deviation = train_x.mean(0), train_x.std(0)
    chosen = float(score.chosen.split()[1].rstrip(","))
    other = LogisticRegression(C=1 / (chosen * 300), tol=1e-9, max_iter=10_000).fit(
        (train_x - mean) / deviation, train_y
    )
    assert score.value == pytest.approx(other.score((test_x - mean) / deviation, test_y), abs=0.0051)


def test_linear_takes_the_penalty_that_is_best_on_the_held_out_part():
    x, y = map(torch.from_numpy, clouds(200, 30, 3, seed=7, apart=0.25))
    (x,) = linear_module.standardise(x)
    out = linear_module.held_out(y, 0.25, seed=0)
    accuracies = {}
    for penalty in linear_module.PENALTIES:
        model = LogisticRegression(C=1 / (penalty * int((~out).sum())), tol=1e-8, max_iter=10_000)
        accuracies[penalty] = model.fit(x[~out], y[~out]).score(x[out], y[out])
    best = max(linear_module.PENALTIES, key=lambda p: (round(accuracies[p], 9), p))
    assert len(set(accuracies.values())) > 2
    assert linear_module._choose(x, y, 3, linear_module.PENALTIES, out).penalty == best


def test_held_out_is_a_share_of_each_class_and_never_all_of_it():
    y = torch.tensor([0] * 50 + [1] * 10 + [2])
    out = linear_module.held_out(y, 0.1, seed=3)
    assert [int(out[y == c].sum()) for c in range(3)] == [5, 1, 0]
    assert not torch.equal(out, linear_module.held_out(y, 0.1, seed=4))


def test_a_constant_feature_changes_nothing():
    x, y = clouds(80, 6, 3, seed=8)
    constant = np.concatenate([x, np.full((80, 1), 7.3, np.float32)], axis=1)
    assert evaluation.linear(constant, y, constant, y).value == evaluation.linear(x, y, x, y).value


# ------------------------------------------------------------ few labels


def test_draws_hold_k_of_each_class_nest_and_differ():
    y = torch.from_numpy(np.random.default_rng(0).integers(0, 5, 200))
    y[y == 4] = 3
    y[:3] = 4
    one, five = (few.draw_labels(y, k, draw=3, seed=1) for k in (1, 5))
    assert y[five].bincount().tolist() == [5, 5, 5, 5, 3] and y[one].bincount().tolist() == [1] * 5
    assert set(one.tolist()) < set(five.tolist())
    assert few.draw_labels(y, 5, draw=3, seed=1).tolist() == five.tolist()
    assert few.draw_labels(y, 5, draw=4, seed=1).tolist() != five.tolist()
    assert few.draw_labels(y, 5, draw=3, seed=2).tolist() != five.tolist()
    counts = torch.zeros(200)
    for draw in range(400):
        counts[few.draw_labels(y, 5, draw=draw, seed=0)] += 1
    members = counts[y == 0] / 400
    assert members.mean() == pytest.approx(5 / len(members)) and members.std() < 0.03, "every image is as likely"


def test_few_labels_is_scikit_learn_on_the_same_draws():
    train_x, train_y = clouds(120, 8, 3, seed=9, apart=0.7)
    test_x, test_y = clouds(150, 8, 3, seed=10, apart=0.7)
    scores = evaluation.few_labels(train_x, train_y, test_x, test_y, per_class=(1, 4), repeats=6)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train_x, test_x)]
    for count, score in scores.items():
        values = []
        for draw in range(6):
            seen = few.draw_labels(torch.from_numpy(train_y), count, draw=draw, seed=0).numpy()
            model = LogisticRegression(C=few.STRENGTH, tol=1e-9, max_iter=10_000).fit(unit[0][seen], train_y[seen])
            values.append(model.score(unit[1], test_y))
        assert score.draws == pytest.approx(values, abs=1 / 150 + 1e-9)
        assert (score.low, score.high) == pytest.approx(student_interval(score.draws))
        assert score.low < np.mean(score.draws) == pytest.approx(score.value)
    assert scores[4].value > scores[1].value


def test_few_labels_says_where_a_class_is_too_small():
    x, y = clouds(30, 4, 2, seed=11)
    y[:] = 0
    y[:3] = 1
    scores = evaluation.few_labels(x, y, x, y, per_class=(2, 5), repeats=1)
    assert scores[2].low is None and "one draw" in scores[2].protocol and "±" not in str(scores[2])
    assert "1 class has fewer" in scores[5].protocol and "fewer" not in scores[2].protocol


def test_paired_difference_is_narrower_than_two_intervals():
    a = Score(0, None, None, "", draws=(0.50, 0.60, 0.70, 0.55))
    b = Score(0, None, None, "", draws=(0.40, 0.51, 0.60, 0.44))
    found = evaluation.paired_difference(a, b)
    assert found.mean == pytest.approx(0.1) and (found.low, found.high) == pytest.approx(
        student_interval([0.10, 0.09, 0.10, 0.11])
    )
    assert found.low > 0.08 and student_interval(a.draws)[0] < b.draws[2]
    with pytest.raises(UsageError, match="paired"):
        evaluation.paired_difference(a, Score(0, None, None, "", draws=(0.1,)))


# ------------------------------------------------------------ intervals


def test_student_interval_is_the_textbook_and_near_the_bootstrap():
    values = [4.1, 5.0, 4.4, 4.9, 4.6]  # mean 4.6, s = 0.3674, t(0.975, 4) = 2.776
    assert student_interval(values) == pytest.approx(
        (4.6 - 2.776 * 0.3674 / 5**0.5, 4.6 + 2.776 * 0.3674 / 5**0.5), abs=1e-3
    )
    drawn = np.random.default_rng(0).normal(size=400)
    other = bootstrap((drawn,), np.mean, n_resamples=2000, random_state=0).confidence_interval
    assert student_interval(drawn) == pytest.approx((other.low, other.high), abs=0.01)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (8, 10), (10, 10), (613, 1000)])
def test_wilson_ends_are_where_the_test_of_that_share_just_fails(right, n):
    for end in wilson(right, n):
        if 1e-9 < end < 1 - 1e-9:
            assert abs(right / n - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, abs=1e-5)


# ------------------------------------------------------------ clustering, retrieval


def test_clustering_is_k_means_on_unit_features_with_the_formulas_of_nmi_and_ari():
    x, y = clouds(120, 5, 3, seed=12, apart=1.2)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = KMeans(3, n_init=10, random_state=4).fit_predict(unit)
    scores = evaluation.clustering(x, y, seed=4)
    joint = np.array([[np.mean((found == c) & (y == k)) for k in range(3)] for c in range(3)])
    rows, columns = joint.sum(1), joint.sum(0)
    information = sum(
        joint[c, k] * math.log(joint[c, k] / rows[c] / columns[k]) for c in range(3) for k in range(3) if joint[c, k]
    )
    entropies = [-sum(p * math.log(p) for p in side) for side in (rows, columns)]
    assert scores["nmi"].value == pytest.approx(information / (sum(entropies) / 2)) and 0.1 < scores["nmi"].value < 0.99
    assert scores["ari"].value == pytest.approx(adjusted_rand_score(y, found))
    assert "4 clusters," in evaluation.clustering(x, y, clusters=4)["ari"].protocol


def retrieval_by_loops(x, y, k):
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    hits, precisions = [], []
    for q in range(len(x)):
        others = [i for i in range(len(x)) if i != q]
        ranking = sorted(others, key=lambda i: -(unit[q] @ unit[i]))
        if any(y[i] == y[q] for i in others):
            hits.append(any(y[i] == y[q] for i in ranking[:k]))
            precisions.append(
                average_precision_score([y[i] == y[q] for i in others], [unit[q] @ unit[i] for i in others])
            )
    return np.mean(hits), np.mean(precisions), len(hits)


@pytest.mark.parametrize("elements", [2**23, 150])
def test_retrieval_is_that_of_loops(elements, monkeypatch):
    monkeypatch.setattr(retrieval_module, "ELEMENTS", elements)
    x, y = clouds(60, 4, 5, seed=13, apart=0.4)
    y[17] = 7  # alone in its class: no right answer
    scores = evaluation.retrieval(x, y, at=(1, 3))
    for k in (1, 3):
        hit, average, queries = retrieval_by_loops(x, y, k)
        assert scores[f"recall@{k}"].value == pytest.approx(hit)
        assert scores["map"].value == pytest.approx(average, abs=1e-6)
    assert f"{queries} queries" in scores["map"].protocol and "1 query without" in scores["map"].protocol


# ------------------------------------------------------------ all together


def test_evaluation_is_a_table_and_json():
    x, y = load_digits(return_X_y=True)
    train, test = slice(0, 300), slice(300, 600)
    noise = np.random.default_rng(0).normal(size=x.shape)
    named = {"noise": (noise[train], noise[test]), "pixels": (x[train], x[test])}
    result = evaluation.evaluate_features(named, y[train], y[test], repeats=4, structure=True)
    assert result.scores["pixels"]["all labels"].value > 0.75 > 0.25 > result.scores["noise"]["all labels"].value
    assert result.scores["pixels"]["kNN"] == evaluation.knn(x[train], y[train], x[test], y[test])
    found = result.differences()["noise"]["5 labels a class"]
    assert found.draws == 4 and found.low > 0.4

    text = result.as_text()
    head, rule, noise_row, pixel_row = text.splitlines()[:4]
    assert " ".join(head.split()) == "1 label a class 5 labels a class all labels kNN"
    assert len({len(head), len(rule), len(noise_row), len(pixel_row)}) == 1
    assert (
        "95 % interval" in text and "k = 30 (a class has no more" in text and "chosen on" in text and "recall@5" in text
    )

    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["scores"]["pixels"]["kNN"]["protocol"].startswith("weighted kNN")
    assert plain["labels"]["all labels"] == 30 and plain["classes"] == 10


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (np.ones((4, 2)), np.zeros(3, int), "one a row"),
        (np.ones((4, 2)), np.array([0, 1, -1, 0]), "whole numbers >= 0"),
        (np.ones((4, 2)), np.zeros(4), "whole numbers"),
        (np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), "4 of 4 rows hold NaN"),
        (np.ones((0, 2)), np.zeros(0, int), "N, D >= 1"),
    ],
)
def test_wrong_features_and_labels_are_said(x, y, match):
    for protocol in (evaluation.knn, evaluation.linear, evaluation.few_labels):
        with pytest.raises(UsageError, match=match):
            protocol(x, y, np.ones((2, 2)), np.array([0, 1]))


def test_one_class_and_other_widths_are_said():
    x, y = clouds(10, 3, 2, seed=14)
    with pytest.raises(UsageError, match="one class"):
        evaluation.linear(x, np.zeros(10, int), x, y)
    with pytest.raises(UsageError, match="width 3 and 2"):
        evaluation.knn(x, y, x[:, :2], y)
    with pytest.raises(UsageError, match="belong together"):
        evaluation.knn(x, y, x)
    with pytest.raises(UsageError, match="no features"):
        evaluation.evaluate_features({}, y, y)


def test_rows_that_are_not_finite_are_counted_and_large_ones_are_none():
    large = torch.full((4, 3), 3e38)  # finite, and their sum is not
    assert torch.equal(matrix(large, "x"), large)
    for bad in (torch.nan, torch.inf, -torch.inf):
        spoilt = torch.ones(4, 3)
        spoilt[1, 2], spoilt[3, 0] = bad, -bad
        with pytest.raises(UsageError, match="2 of 4 rows hold NaN or infinity"):
            matrix(spoilt, "x")
