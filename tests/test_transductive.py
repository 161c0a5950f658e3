"""Transductive heads beside slow twins, and what must hold of each."""

from __future__ import annotations

from functools import partial

import pytest
import reference_transductive as slow
import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.few_shot.heads import HEADS
from nearfar.few_shot.heads.bd_cspn import bd_cspn
from nearfar.few_shot.heads.centroid import centroid
from nearfar.few_shot.heads.laplacian import laplacian_shot
from nearfar.few_shot.heads.soft_kmeans import soft_kmeans
from nearfar.few_shot.heads.tim import _gradient, alpha_tim, tim
from nearfar.few_shot.heads.transport import pt_map, sinkhorn

STEPS = 60
HERE = {
    "soft-kmeans": soft_kmeans,
    "bd-cspn": bd_cspn,
    "laplacian": laplacian_shot,
    "tim": partial(tim, query_prior="uniform", steps=STEPS, rate=1e-3),
    "tim-unknown": partial(tim, query_prior="unknown", steps=STEPS, rate=1e-3),
    "alpha-tim": partial(alpha_tim, steps=STEPS, rate=1e-3),
    "pt-map": partial(pt_map, query_prior="uniform"),
    "pt-map-unknown": partial(pt_map, query_prior="unknown"),
}
every_head = pytest.mark.parametrize("head", HERE.values(), ids=HERE)


def toy(
    tasks: int,
    *,
    ways: int = 5,
    shots: int = 1,
    counts: tuple[int, ...] | None = None,
    width: int = 40,
    noise: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Classes around random centres through a ReLU; supports, their labels, queries, theirs. `counts`: of queries."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    labels = torch.arange(ways).repeat_interleave(shots).expand(tasks, -1)
    truth = torch.arange(ways).repeat_interleave(torch.tensor(counts or (15,) * ways)).expand(tasks, -1)
    centres = normal(tasks, ways, width)

    def around(y: Tensor) -> Tensor:
        own = centres.gather(1, y[..., None].expand(-1, -1, width))
        return (own + noise * normal(*y.shape, width)).relu().to(dtype)

    return around(labels), labels, around(truth), truth


def chances(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=-1)


def right(scores: Tensor, truth: Tensor) -> float:
    return float((scores.argmax(-1) == truth).double().mean())


UNEQUAL = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TWINS = {
    "soft-kmeans": (soft_kmeans, slow.soft_kmeans),
    "soft-kmeans-20": tuple(partial(f, temperature=20.0, rounds=4) for f in (soft_kmeans, slow.soft_kmeans)),
    "laplacian": (laplacian_shot, slow.laplacian_shot),
    "laplacian-1.5": tuple(partial(f, weight=1.5, neighbours=2) for f in (laplacian_shot, slow.laplacian_shot)),
    "pt-map-unknown": (HERE["pt-map-unknown"], slow.pt_map),
}


def unequal_toy(tasks: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """3 ways with 3, 2 and 1 shots, 12 queries; classes overlap."""
    support, labels, query, _ = toy(tasks, ways=3, shots=3, counts=(5, 4, 3), noise=1.5)
    kept = [0, 1, 2, 3, 4, 6]
    return support[:, kept], labels[:, kept], query


@pytest.mark.parametrize("fast, twin", TWINS.values(), ids=TWINS)
def test_heads_are_what_a_loop_over_images_gives(fast, twin):
    support, labels, query = unequal_toy()
    found = chances(fast(support, labels, query, ways=3))
    for t in range(len(support)):
        wanted = chances(twin(support[t], labels[t], query[t], ways=3))
        assert wanted.std() > 0.02
        torch.testing.assert_close(found[t], wanted, atol=1e-9, rtol=0)


def test_bd_cspn_is_what_a_loop_over_images_gives():
    support, labels, query = unequal_toy()
    found = bd_cspn(support, labels, query, ways=3)
    for t in range(len(support)):
        torch.testing.assert_close(found[t], slow.bd_cspn(support[t], labels[t], query[t], ways=3), atol=1e-9, rtol=0)


@pytest.mark.parametrize("prior", ["uniform", "unknown", "given"])
def test_tim_is_adam_with_autograd(prior):
    support, labels, query = unequal_toy()
    settings = {"ways": 3, "steps": 12, "rate": 1e-2}
    given = {"uniform": torch.full((3,), 1 / 3, dtype=torch.float64), "unknown": None, "given": UNEQUAL}[prior]
    handed = UNEQUAL.expand(2, 3) if prior == "given" else prior
    found = chances(tim(support, labels, query, query_prior=handed, **settings))
    for t in range(len(support)):
        wanted = chances(slow.tim(support[t], labels[t], query[t], prior=given, **settings))
        torch.testing.assert_close(found[t], wanted, atol=1e-7, rtol=0)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 7.0])
def test_alpha_tim_is_adam_with_autograd(alpha):
    support, labels, query = unequal_toy()
    settings = {"ways": 3, "steps": 12, "rate": 1e-2, "weights": (1.0, 0.8, 0.5), "alpha": alpha}
    found = chances(alpha_tim(support, labels, query, **settings))
    for t in range(len(support)):
        wanted = chances(slow.tim(support[t], labels[t], query[t], **settings))
        torch.testing.assert_close(found[t], wanted, atol=1e-7, rtol=0)


def test_slope_along_the_weights_is_autograds():
    support, labels, query = (slow_part[0] for slow_part in unequal_toy(1))
    support, query = slow.sphere(support), slow.sphere(query)
    weight = (slow.class_means(support, labels, 3) * 1.3 + 0.05).requires_grad_(True)
    weights = (0.3, 0.7, 0.4)
    given = {"temperature": 15.0, "weights": weights, "prior": UNEQUAL, "alpha": None}
    slow.tim_objective(weight, support, labels, query, **given).backward()

    def slope(chance: Tensor) -> Tensor:
        marginal = chance.mean(2, keepdim=True).log()
        return weights[1] * (marginal - UNEQUAL.log()[:, None]) - weights[2] * chance.log()

    member = torch.nn.functional.one_hot(labels, 3).T[None].double()
    images, absent = torch.cat([support, query])[None], torch.zeros(1, 3, 1, dtype=torch.float64)
    found = _gradient(weight.detach()[None], images, member, absent, slope, 15.0, weights[0])
    torch.testing.assert_close(found[0], weight.grad, atol=1e-9, rtol=1e-7)


def test_alpha_near_1_is_tim_with_uniform_prior():
    support, labels, query = unequal_toy()
    settings = {"ways": 3, "steps": 40, "rate": 1e-3, "weights": (0.1, 1.0, 0.1)}
    near = alpha_tim(support, labels, query, alpha=1 + 1e-6, **settings)
    torch.testing.assert_close(near, tim(support, labels, query, query_prior="uniform", **settings), atol=1e-3, rtol=0)


@pytest.mark.parametrize("given", [False, True])
def test_pt_map_is_the_published_iteration(given):
    """To the tolerance at which the transport stops, 1e-6 of the mass of 12 queries."""
    support, labels, query = unequal_toy()
    share = UNEQUAL if given else torch.full((3,), 1 / 3, dtype=torch.float64)
    found = pt_map(support, labels, query, ways=3, rounds=6, query_prior=share.expand(2, 3) if given else "uniform")
    for t in range(len(support)):
        wanted = slow.pt_map(support[t], labels[t], query[t], ways=3, shares=share, rounds=6)
        torch.testing.assert_close(found[t].exp(), wanted.exp(), atol=1e-4, rtol=0)


def test_sinkhorn_is_rows_and_columns_scaled_in_turn():
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    rows = torch.rand(3, 7, generator=generator, dtype=torch.float64) + 0.2
    columns = torch.rand(3, 4, generator=generator, dtype=torch.float64) + 0.2
    columns *= rows.sum(1, keepdim=True) / columns.sum(1, keepdim=True)
    found = sinkhorn(scores, rows, columns, tolerance=1e-13)
    for plan, s, r, c in zip(found, scores, rows, columns, strict=True):
        torch.testing.assert_close(plan, slow.sinkhorn(s, r, c), atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sinkhorn_fills_rows_and_columns(dtype):
    scores = 10 * torch.randn(20, 30, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    columns = 30 * torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=dtype).expand(20, 5)
    plan = sinkhorn(scores, torch.ones(20, 30, dtype=dtype), columns)
    torch.testing.assert_close(plan.sum(2), torch.ones(20, 30, dtype=dtype))
    torch.testing.assert_close(plan.sum(1), columns, atol=1e-4, rtol=0)
    assert not plan[..., 4].any()


def test_sinkhorn_moves_mass_into_a_column_that_nobody_wants():
    """exp(-1000) is 0 in any precision; the plan still gives the column its half, from the rows that mind least."""
    scores = torch.tensor([[[0.0, -1000.0], [0.0, -1010.0], [0.0, -1020.0], [0.0, -1030.0]]])
    plan = sinkhorn(scores, torch.ones(1, 4), torch.full((1, 2), 2.0))
    torch.testing.assert_close(plan.sum(1), torch.full((1, 2), 2.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(plan[0, :, 1], torch.tensor([1.0, 1.0, 0.0, 0.0]), atol=0.02, rtol=0)


def test_sinkhorn_stops_each_episode_for_itself():
    scores = torch.randn(40, 25, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scores *= torch.linspace(0.01, 20, 40, dtype=torch.float64)[:, None, None]
    rows, columns = torch.ones(40, 25, dtype=torch.float64), torch.full((40, 5), 5.0, dtype=torch.float64)
    together = sinkhorn(scores, rows, columns)
    alone = torch.cat([sinkhorn(s[None], rows[:1], columns[:1]) for s in scores])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)
    longer = sinkhorn(scores, rows, columns, tolerance=1e-12)
    assert (longer - together).abs().amax((1, 2)).max() > 1e-8, "all stopped at the same place: the test says nothing"


def test_sinkhorn_is_quick_where_classes_lie_far_apart():
    """Rows and columns scaled in turn are, after 1,000 rounds, 7 to 30 times further off than this asks after 50."""
    support, labels, query, _ = toy(4, shots=5, noise=0.4)
    scores = 10 * centroid(support, labels, query, ways=5)
    ones, fives = torch.ones(4, 75, dtype=torch.float64), torch.full((4, 5), 15.0, dtype=torch.float64)
    plan = sinkhorn(scores, ones, fives, rounds=50)
    torch.testing.assert_close(plan.sum(1), fives, atol=7.5e-5, rtol=0)


def test_pt_map_tells_a_feature_from_its_negative():
    support, labels = torch.tensor([[[3.0, 1.0], [-3.0, 1.0]]]), torch.tensor([[0, 1]])
    query = torch.tensor([[[-2.0, 1.0], [2.5, 1.0], [-3.0, 0.5], [4.0, 1.0]]])
    scores = pt_map(support, labels, query, ways=2, query_prior="uniform")
    assert scores.argmax(-1).tolist() == [[1, 0, 1, 0]]


def test_sinkhorn_hands_over_what_it_has_when_rounds_are_over():
    scores = 4 * torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ones, fives = torch.ones(1, 20, dtype=torch.float64), torch.full((1, 4), 5.0, dtype=torch.float64)
    wrong = [float((sinkhorn(scores, ones, fives, rounds=n).sum(1) - fives).abs().sum()) for n in range(4)]
    assert wrong[0] > 1.5 * wrong[1] > 2 * wrong[2] > 3 * wrong[3] > 0


def test_sinkhorn_refuses_what_cannot_be():
    with pytest.raises(UsageError, match="rows"):
        sinkhorn(torch.zeros(1, 2, 3), torch.ones(1, 3), torch.ones(1, 3))
    with pytest.raises(UsageError, match="total"):
        sinkhorn(torch.zeros(1, 2, 3), torch.ones(1, 2), torch.ones(1, 3))


@every_head
def test_an_episode_does_not_see_its_neighbours(head):
    support, labels, query, _ = toy(6, shots=2)
    together = head(support, labels, query, ways=5)
    alone = torch.cat([head(support[t : t + 1], labels[t : t + 1], query[t : t + 1], ways=5) for t in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert len(head(support[:0], labels[:0], query[:0], ways=5)) == 0


@every_head
def test_order_of_images_and_names_of_classes_do_not_matter(head):
    support, labels, query, _ = toy(3, shots=2)
    generator = torch.Generator().manual_seed(5)
    images, asked, names = (torch.randperm(n, generator=generator) for n in (10, 75, 5))
    plain = head(support, labels, query, ways=5)
    other = head(support[:, images], names[labels[:, images]], query[:, asked], ways=5)
    torch.testing.assert_close(other[..., names], plain[:, asked], atol=1e-5, rtol=0)


@every_head
def test_float32_gives_the_answers_of_float64(head):
    support, labels, query, truth = toy(8, shots=5, noise=0.4)
    wide = head(support, labels, query, ways=5)
    narrow = head(support.float(), labels, query.float(), ways=5)
    assert narrow.dtype == torch.float32 and wide.dtype == torch.float64
    assert right(wide, truth) == 1.0
    assert torch.equal(narrow.argmax(-1), wide.argmax(-1))


CORNERS = {
    "one way": toy(2, ways=1, shots=2),
    "one query": tuple(x[:, :1] if i > 1 else x for i, x in enumerate(toy(2))),
    "same features": (torch.ones(2, 5, 8), *toy(2)[1:2], torch.ones(2, 9, 8)),
    "zeros": (torch.zeros(2, 5, 8), *toy(2)[1:2], torch.zeros(2, 9, 8)),
    "a zero among others": tuple(
        x.index_fill(1, torch.tensor(0), 0) if i in (0, 2) else x for i, x in enumerate(toy(2))
    ),
    "signed": tuple(x - 0.5 if i in (0, 2) else x for i, x in enumerate(toy(2))),
    "huge": tuple(x * 1e15 if i in (0, 2) else x for i, x in enumerate(toy(2, dtype=torch.float32))),
}


@every_head
@pytest.mark.parametrize("corner", CORNERS.values(), ids=CORNERS)
def test_corners_give_numbers(head, corner):
    support, labels, query = corner[:3]
    ways = int(labels.max()) + 1
    scores = head(support, labels, query, ways=ways)
    assert scores.shape == (2, query.shape[1], ways) and scores.dtype == support.dtype
    assert torch.isfinite(scores).all()


@every_head
def test_a_class_without_support_is_never_the_answer(head):
    support, labels, query, _ = toy(3, ways=4, shots=2)
    support, query = support - 1, query - 1  # so that cosines below that with a zero mean occur
    scores = head(support, labels, query, ways=5)
    assert (scores[..., 4] == -torch.inf).all() and torch.isfinite(scores[..., :4]).all()
    whole = head(support, labels, query, ways=4)
    if head is not HERE["tim-unknown"]:  # which counts one more for each way
        torch.testing.assert_close(chances(scores)[..., :4], chances(whole), atol=1e-6, rtol=0)


@every_head
def test_other_queries_help(head):
    """Balanced queries of overlapping classes. Class means get 70 %; each head must add 2 points."""
    support, labels, query, truth = toy(60, noise=1.3)
    plain = right(centroid(support, labels, query, ways=5), truth)
    assert 0.5 < plain < 0.8
    assert right(head(support, labels, query, ways=5), truth) > plain + 0.02


def test_balance_that_is_not_there_hurts():
    """The known fact: told of equal shares, pt-map and tim fall below heads that assume none, and below the means."""
    support, labels, query, truth = toy(60, shots=5, counts=(55, 14, 2, 2, 2), noise=1.3)
    told = {"query_prior": "uniform", "ways": 5}
    fooled = max(
        right(h(support, labels, query, **told), truth) for h in (pt_map, partial(tim, steps=STEPS, rate=1e-3))
    )
    honest = {name: right(HERE[name](support, labels, query, ways=5), truth) for name in ("soft-kmeans", "alpha-tim")}
    assert fooled < min(honest.values()) - 0.05
    assert fooled < right(centroid(support, labels, query, ways=5), truth) - 0.05
    prior = torch.tensor([55, 14, 2, 2, 2], dtype=torch.float64).expand(60, 5) / 75
    assert right(pt_map(support, labels, query, ways=5, query_prior=prior), truth) > max(honest.values())


@pytest.mark.parametrize("head", [tim, pt_map])
@pytest.mark.parametrize(
    "prior",
    ["balanced", torch.full((5,), 0.2), torch.full((2, 5), 1.0), torch.tensor([[1.2, -0.2, 0, 0, 0]] * 2)],
    ids=["word", "shape", "sum", "negative"],
)
def test_a_prior_that_is_none_is_refused(head, prior):
    support, labels, query, _ = toy(2)
    with pytest.raises(UsageError, match="query_prior"):
        head(support, labels, query, ways=5, query_prior=prior)


@pytest.mark.parametrize("head", [tim, pt_map])
def test_the_prior_has_no_default(head):
    support, labels, query, _ = toy(1)
    with pytest.raises(TypeError, match="query_prior"):
        head(support, labels, query, ways=5)


def test_a_prior_on_classes_without_support_is_refused():
    support, labels, query, _ = toy(1, ways=2)
    with pytest.raises(UsageError, match="without support"):
        pt_map(support, labels, query, ways=3, query_prior=torch.tensor([[0.0, 0.0, 1.0]]))


def test_alpha_of_1_is_refused():
    support, labels, query, _ = toy(1)
    with pytest.raises(UsageError, match="alpha"):
        alpha_tim(support, labels, query, ways=5, alpha=1.0)


@pytest.mark.parametrize("head", [soft_kmeans, bd_cspn, laplacian_shot, partial(tim, query_prior="uniform", steps=3)])
def test_the_centre_is_subtracted_before_lengths_are_1(head):
    support, labels, query, _ = toy(2)
    centre = torch.linspace(-1, 1, 40, dtype=torch.float64)
    moved = head(support + centre, labels, query + centre, ways=5, centre=centre)
    torch.testing.assert_close(moved, head(support, labels, query, ways=5), atol=1e-9, rtol=0)


def test_the_table_says_who_is_transductive_and_who_needs_a_prior():
    here = {"soft-kmeans", "bd-cspn", "laplacian", "tim", "alpha-tim", "pt-map"}
    assert {name for name, head in HEADS.items() if head.transductive} == here
    assert {name for name, head in HEADS.items() if head.uses_prior} == {"tim", "pt-map"}


@pytest.mark.parametrize("width", [1, 3])
def test_ties_are_not_decided_by_the_other_episodes_of_a_call(width: int):
    """One feature, or three of 1 and -1: there are few cosines, so nearest classes and neighbours are often ties."""
    draws = torch.Generator().manual_seed(1)
    support, query = (torch.randn(40, rows, width, generator=draws) for rows in (5, 15))
    if width > 1:
        support, query = support.sign(), query.sign()
    labels = torch.arange(5).expand(40, 5)
    together = laplacian_shot(support, labels, query, ways=5)
    alone = [laplacian_shot(support[t : t + 1], labels[:1], query[t : t + 1], ways=5) for t in range(40)]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-3, rtol=0)
