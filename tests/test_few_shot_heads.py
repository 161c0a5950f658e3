"""Inductive few-shot heads against their slow twins, under what must change nothing, and where episodes are odd."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import reference_heads as slow
import torch

from nearfar.episodes import EpisodeSampler
from nearfar.errors import UsageError
from nearfar.few_shot.blocks import predict
from nearfar.few_shot.heads import HEADS
from nearfar.few_shot.heads.centroid import centroid
from nearfar.few_shot.heads.cosine_classifier import cosine_classifier
from nearfar.few_shot.heads.logistic import logistic
from nearfar.few_shot.heads.nearest import nearest
from nearfar.few_shot.heads.newton import solve
from nearfar.few_shot.heads.ridge import ridge

torch.set_num_threads(1)
WIDTH = 24
MANHATTAN: Any = "l1"
CENTRE = torch.linspace(0.2, 0.6, WIDTH, dtype=torch.float64)
TWINS = {
    "ncm": (centroid, slow.nearest_mean),
    "ncm-raw": (partial(centroid, normalise=False), partial(slow.nearest_mean, normalise=False)),
    "cosine": (
        partial(centroid, normalise=False, distance="cosine"),
        partial(slow.nearest_mean, normalise=False, distance="cosine"),
    ),
    "cl2n": (partial(centroid, centre=CENTRE), partial(slow.nearest_mean, centre=CENTRE.numpy())),
    "nn": (nearest, slow.nearest_support),
    "ridge": (ridge, slow.ridge),
    "ridge, features as they are": (
        partial(ridge, penalty=50.0, normalise=False),
        partial(slow.ridge, penalty=50.0, normalise=False),
    ),
    "lr": (logistic, slow.logistic),
    "lr, C = 10": (partial(logistic, C=10.0), partial(slow.logistic, C=10.0)),
    "lr, C = 0.01": (partial(logistic, C=0.01), partial(slow.logistic, C=0.01)),
    "lr, features as they are": (partial(logistic, normalise=False), partial(slow.logistic, normalise=False)),
    "finetune": (cosine_classifier, slow.cosine_classifier),
    "finetune, far": (
        partial(cosine_classifier, steps=60, learning_rate=0.3, scale=10.0),
        partial(slow.cosine_classifier, steps=60, learning_rate=0.3, scale=10.0),
    ),
}
NAMES = ["ncm", "ncm-raw", "cosine", "cl2n", "nn", "ridge", "lr", "finetune"]
SCALE_FREE = ["ncm", "cosine", "nn", "ridge", "lr", "finetune"]
PLACEMENTS = {
    "1 shot": [0, 1, 2, 3, 4],
    "3 shots": [0, 1, 2, 3, 4] * 3,
    "unequal shots": [3, 0, 1, 0, 2, 4, 0, 3, 4, 0, 0, 2],
    "classes without support": [1, 3, 4, 1, 3, 3],
    "two classes": [2, 0, 2, 0, 2],
    "one class": [3, 3],
}


def episodes(placement=(0, 1, 2, 3, 4) * 2, *, ways=5, count=3, queries=7, seed=0, dtype=torch.float64):
    """Features of some classes, not negative, as after a ReLU; labels in any order."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.tensor([list(placement)] * count)
    classes = torch.randn(count, ways, WIDTH, generator=draw, dtype=torch.float64)
    support = classes.gather(1, labels[:, :, None].expand(-1, -1, WIDTH))
    support = (support + torch.randn(support.shape, generator=draw, dtype=torch.float64)).relu()
    query = (classes[:, :1] + torch.randn(count, queries, WIDTH, generator=draw, dtype=torch.float64)).relu()
    return support.to(dtype), labels, query.to(dtype)


def head(name):
    """A head by name, complete."""
    return partial(HEADS[name], centre=CENTRE) if HEADS[name].needs_centre else HEADS[name]


def centred(scores):
    """Scores without what is the same for all classes of a query."""
    scores = np.asarray(scores)
    finite = np.where(np.isfinite(scores), scores, 0)
    return scores - finite.sum(axis=-1, keepdims=True) / np.isfinite(scores).sum(axis=-1, keepdims=True)


def close(a, b, tolerance=1e-9):
    """Equal up to a constant for each query; -inf in the same places."""
    np.testing.assert_allclose(centred(a), centred(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
@pytest.mark.parametrize("name", TWINS)
def test_head_equals_its_slow_twin(name, placement):
    fast, twin = TWINS[name]
    support, labels, query = episodes(placement)
    scores = fast(support, labels, query, ways=5)
    # lbfgs stops where the slope is below 1e-9, its logits are then good to 1e-6 or so
    for e in range(len(support)):
        expected = twin(support[e].numpy(), labels[e].numpy(), query[e].numpy(), 5)
        close(scores[e], expected, 3e-6 if name.startswith("lr") else 1e-9)


@pytest.mark.parametrize(("shots", "C"), [(1, 1.0), (1, 10.0), (5, 1.0), (5, 10.0)])
def test_logistic_regression_answers_as_scikit_learn_does(shots, C):
    bank, drawn = wide(40, shots)
    assert (predict(bank, drawn, HEADS["lr"], C=C).numpy() == by_scikit_learn(bank, drawn, C)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("shots", "C"), [(1, 1.0), (1, 10.0), (5, 1.0), (5, 10.0)])
def test_75000_of_75000_answers_of_logistic_regression_are_those_of_scikit_learn(shots, C):
    bank, drawn = wide(1000, shots)
    assert (predict(bank, drawn, HEADS["lr"], C=C).numpy() == by_scikit_learn(bank, drawn, C)).sum() == 75_000


def wide(count, shots, *, width=640, seed=1):
    """A bank of 20 classes of 100 float32 features of a realistic width, and 5-way episodes of 15 queries from it."""
    draw = torch.Generator().manual_seed(seed)
    means = torch.randn(20, 1, width, generator=draw) * 0.25
    bank = (means + torch.randn(20, 100, width, generator=draw)).relu().flatten(0, 1)
    labels = np.arange(20).repeat(100)
    return bank, EpisodeSampler(labels, ways=5, shots=shots, queries=15, seed=seed).draw(0, count)


def by_scikit_learn(bank, drawn, C):
    """Answers of scikit-learn at a tolerance of 1e-9, float64."""
    from sklearn.linear_model import LogisticRegression

    x = torch.nn.functional.normalize(bank.double(), dim=1).numpy()
    parts = zip(drawn.support, drawn.support_label, drawn.query, strict=True)
    return np.stack(
        [LogisticRegression(C=C, tol=1e-9, max_iter=10_000).fit(x[s], y).predict(x[q]) for s, y, q in parts]
    )


def test_nearest_heads_answer_as_scikit_learn_does():
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

    bank, drawn = wide(20, 5)
    means, neighbours = predict(bank, drawn, HEADS["ncm-raw"]), predict(bank, drawn, HEADS["nn"])
    x = bank.double().numpy()
    for e, (s, y, q) in enumerate(zip(drawn.support, drawn.support_label, drawn.query, strict=True)):
        assert (NearestCentroid().fit(x[s], y).predict(x[q]) == means[e].numpy()).all()
        assert (KNeighborsClassifier(1, metric="cosine").fit(x[s], y).predict(x[q]) == neighbours[e].numpy()).all()


def test_logistic_regression_is_at_the_optimum_of_its_objective():
    support, labels, query = episodes((0, 1, 2, 0, 1, 2, 2), ways=3)
    weight, offset = (torch.zeros(3, *shape, dtype=torch.float64, requires_grad=True) for shape in ((3, WIDTH), (3, 1)))
    descent = torch.optim.LBFGS([weight, offset], lr=1, max_iter=2000, tolerance_grad=1e-11, tolerance_change=0)
    x = torch.nn.functional.normalize(support, dim=-1)

    def closure():
        descent.zero_grad()
        logits = (weight @ x.transpose(1, 2) + offset).transpose(1, 2)
        loss = 4.0 * torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        (loss + weight.square().sum() / 2).backward()
        return loss + weight.square().sum() / 2

    descent.step(closure)
    q = torch.nn.functional.normalize(query, dim=-1)
    expected = (weight @ q.transpose(1, 2) + offset).transpose(1, 2).detach()
    close(logistic(support, labels, query, ways=3, C=4.0), expected, 1e-7)


@pytest.mark.parametrize("width", [2, 10, 40])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_regression_reaches_the_optimum_where_newton_steps_are_too_long(width, C):
    """Long features in few dimensions, most of them of one class: the slope by W, relative to W, is zero."""
    draw = torch.Generator().manual_seed(1)
    support = 10 * torch.randn(40, 25, width, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 2, (40, 25), generator=draw) * torch.randint(0, 5, (40, 25), generator=draw)
    members = (labels[:, None, :] == torch.arange(5)[:, None]).double()
    inner, offset = solve(support @ support.transpose(1, 2), members, C=C)
    weight = inner @ support
    logits = (weight @ support.transpose(1, 2) + offset).masked_fill(~members.any(2, keepdim=True), -torch.inf)
    error = C * (logits.softmax(dim=1) - members)
    assert ((error @ support + weight).norm(dim=(1, 2)) / weight.norm(dim=(1, 2))).max() < 1e-4
    assert error.sum(dim=2).abs().max() < 1e-5 * C


@pytest.mark.parametrize("name", NAMES)
def test_a_class_without_support_has_no_part_in_the_answer(name):
    support, labels, query = episodes((0, 2, 1, 2, 0))
    places = torch.tensor([4, 1, 2])
    with_absent = head(name)(support, places[labels], query, ways=5)
    np.testing.assert_allclose(with_absent[:, :, places], head(name)(support, labels, query, ways=3), atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_orders_change_nothing(name):
    support, labels, query = episodes((3, 0, 1, 0, 2, 4, 0, 3))
    scores = head(name)(support, labels, query, ways=5)
    draw = torch.Generator().manual_seed(3)
    supports, queries, classes = (torch.randperm(n, generator=draw) for n in (8, 7, 5))
    close(head(name)(support[:, supports], labels[:, supports], query[:, queries], ways=5), scores[:, queries])
    close(head(name)(support, classes[labels], query, ways=5)[:, :, classes], scores)


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_does_not_depend_on_its_neighbours(name):
    support, labels, query = episodes(count=4)
    support[1] *= (labels[1] != 2)[:, None]
    support[2], labels[3] = labels[2][:, None], 3  # each of another difficulty; one class is solved from the start
    together = head(name)(support, labels, query, ways=5)
    for e in range(4):
        alone = head(name)(support[e : e + 1], labels[e : e + 1], query[e : e + 1], ways=5)
        np.testing.assert_allclose(alone[0], together[e], rtol=1e-12, atol=1e-12)


def test_an_episode_that_has_converged_stays_as_it_is():
    support, labels, _ = episodes(count=6)
    support[3:] *= 30  # these take more steps
    members = (labels[:, None, :] == torch.arange(5)[:, None]).double()
    gram = support @ support.transpose(1, 2)
    together, _ = solve(gram, members, C=10.0)
    for e in range(6):
        alone, _ = solve(gram[e : e + 1], members[e : e + 1], C=10.0)
        # measured: rounding of sums in another order 3e-12 (on a Zen; on a Xeon 1e-14), one more step 3e-9
        np.testing.assert_allclose(alone[0], together[e], atol=3e-11 * float(alone.abs().max()), rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64_and_stays_float32(name):
    support, labels, query = episodes((3, 0, 1, 0, 2, 4, 0, 3))
    single = head(name)(support.float(), labels, query.float(), ways=5)
    assert single.dtype == torch.float32
    close(single, head(name)(support, labels, query, ways=5), 2e-5)


@pytest.mark.parametrize("name", SCALE_FREE)
def test_lengths_of_queries_change_no_answer_and_a_common_length_nothing(name):
    support, labels, query = episodes()
    scores = head(name)(support, labels, query, ways=5)
    close(head(name)(1000 * support, labels, 1000 * query, ways=5), scores)
    lengths = torch.linspace(0.01, 100, 7, dtype=torch.float64)[:, None]
    assert (head(name)(support, labels, lengths * query, ways=5).argmax(-1) == scores.argmax(-1)).all()


STRAINED = {
    "lr, C = 1e4": partial(logistic, C=1e4),
    "lr, C = 10, features as they are": partial(logistic, C=10.0, normalise=False),
}
ODD = {
    "one way": lambda s, y, q: (s, y * 0, q, 1),
    "one query": lambda s, y, q: (s, y, q[:, :1], 5),
    "one support": lambda s, y, q: (s[:, :1], y[:, :1] + 2, q, 5),
    "all features equal": lambda s, y, q: (torch.ones_like(s), y, torch.ones_like(q), 5),
    "all features zero": lambda s, y, q: (s * 0, y, q * 0, 5),
    "a zero support and a zero query": lambda s, y, q: (s * (y != 1)[:, :, None], y, q * torch.arange(7)[:, None], 5),
    "supports twice, in two classes": lambda s, y, q: (torch.cat([s, s], 1), torch.cat([y, 4 - y], 1), q, 5),
    "a class without support": lambda s, y, q: (s, y.clamp(max=3), q, 5),
    "great features": lambda s, y, q: (1e6 * s, y, 1e6 * q, 5),
    "small features": lambda s, y, q: (1e-6 * s, y, 1e-6 * q, 5),
    "no episode": lambda s, y, q: (s[:0], y[:0], q[:0], 5),
    "no query": lambda s, y, q: (s, y, q[:, :0], 5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", [*NAMES, *STRAINED])
def test_odd_episodes_have_scores_and_never_nan(name, odd, dtype):
    support, labels, query, ways = odd(*episodes(dtype=dtype))
    scores = (STRAINED.get(name) or head(name))(support, labels, query, ways=ways)
    present = (labels[:, None, :] == torch.arange(ways)[:, None]).any(dim=2)[:, None, :].expand_as(scores)
    assert scores.shape == (len(support), query.shape[1], ways) and scores.dtype == dtype
    assert scores[present].isfinite().all() and (scores[~present] == -torch.inf).all()


@pytest.mark.parametrize("name", NAMES)
def test_equal_supports_leave_the_classes_equal(name):
    support, labels, query = episodes((0, 1, 2, 3, 4))
    scores = head(name)(torch.ones_like(support), labels, query, ways=5)
    assert float((scores.amax(-1) - scores.amin(-1)).max()) < 1e-9


def test_a_support_given_twice_counts_twice():
    support, labels, query = episodes()
    doubled = logistic(support.repeat(1, 2, 1), labels.repeat(1, 2), query, ways=5, C=1.0)
    close(doubled, logistic(support, labels, query, ways=5, C=2.0), 1e-7)


def test_fine_tuning_without_steps_is_the_cosine_to_imprinted_weights():
    support, labels, query = episodes()
    unit = torch.nn.functional.normalize(support, dim=-1)
    expected = 2 * centroid(unit, labels, query, ways=5, normalise=False, distance="cosine")
    close(cosine_classifier(support, labels, query, ways=5, steps=0), expected)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s, y, q: centroid(s, y, q, ways=5, distance=MANHATTAN), "unknown distance"),
        (lambda s, y, q: ridge(s, y, q, ways=5, penalty=0.0), "penalty"),
        (lambda s, y, q: logistic(s, y, q, ways=5, C=0.0), "C=0.0"),
        (lambda s, y, q: logistic(s, y, q, ways=5, C=float("nan")), "C=nan"),
        (lambda s, y, q: cosine_classifier(s, y, q, ways=5, steps=-1), "steps"),
        (lambda s, y, q: nearest(s, y, q, ways=4), "from 0 to 4 in an episode of 4 ways"),
        (lambda s, y, q: nearest(s, y - 1, q, ways=5), "from -1 to 3"),
        (lambda s, y, q: nearest(s[0], y, q, ways=5), "support [T, S, D]"),
        (lambda s, y, q: nearest(s, y, q[:, :, :3], ways=5), "support [T, S, D]"),
        (lambda s, y, q: nearest(s[:, :0], y[:, :0], q, ways=5), "one support"),
        (lambda s, y, q: HEADS["cl2n"](s, y, q, ways=5), "centre"),
    ],
)
def test_a_wrong_use_is_named_before_any_work(call, words):
    with pytest.raises(UsageError) as told:
        call(*episodes())
    assert words in str(told.value)


@pytest.mark.parametrize("block", [None, 1, 4, 100])
@pytest.mark.parametrize("name", ["ncm", "lr"])
def test_blocks_change_no_answer(name, block):
    bank, drawn = wide(10, 2, width=32)
    order = np.stack([np.random.default_rng(e).permutation(10) for e in range(10)])
    mixed = {part: np.take_along_axis(getattr(drawn, part), order, axis=1) for part in ("support", "support_label")}
    drawn = replace(drawn, **mixed)
    s, y, q = (torch.from_numpy(part) for part in (drawn.support, drawn.support_label, drawn.query))
    expected = HEADS[name](bank[s], y, bank[q], ways=5).argmax(-1)
    answer = predict(bank, drawn, HEADS[name], block=block)
    assert answer.dtype == torch.int64 and (answer == expected).all()


def test_blocks_hand_a_head_the_options_of_its_episodes():
    bank, drawn = wide(10, 1, width=8)

    def told(support, labels, query, *, ways, query_prior, centre):
        assert centre.shape == (8,)
        return query_prior[:, None, :].expand(-1, query.shape[1], -1)

    prior = torch.rand(10, 5)
    answer = predict(bank, drawn, told, block=3, query_prior=prior, centre=torch.zeros(8))
    assert (answer == prior.argmax(dim=1)[:, None]).all()


def test_every_head_says_what_it_does():
    assert set(NAMES) <= set(HEADS)
    assert all(20 < len(h.about) < 200 and not h.about.endswith(".") for h in HEADS.values())
    assert not any(HEADS[name].transductive for name in NAMES)
