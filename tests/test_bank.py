"""The memory bank, noise-contrastive estimation, and pairs with bank rows: twins and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from nearfar import similarity
from nearfar.bank import Bank
from nearfar.errors import UsageError
from nearfar.extract.banks import bank_rows, core_view, full_graph
from nearfar.losses import infonce
from nearfar.losses.nce import NCE
from nearfar.method import Batch, Pairs
from nearfar.similarity import unit


def ids_only(ids: list[int], **more: object) -> Batch:
    """A batch of which only ids are looked at."""
    return Batch(inputs=torch.empty(1), sizes=torch.empty(1), ids=torch.tensor(ids), **more)


# The bank.


def bank_of(rows: Tensor, **settings: float) -> Bank:
    """A bank in fp64 with given rows `[V, n, D]`."""
    bank = Bank(samples=rows.shape[1], width=rows.shape[2], views=rows.shape[0], **settings).double()
    bank.embeddings.copy_(rows)
    return bank


def test_the_bank_starts_with_unit_rows_in_all_directions():
    bank = Bank(samples=4000, width=8, views=2)
    assert bank.embeddings.shape == (2, 4000, 8)
    torch.testing.assert_close(bank.embeddings.norm(dim=-1), torch.ones(2, 4000))
    assert bank.embeddings.mean(dim=1).abs().max() < 0.03
    assert not torch.equal(bank.rows(0), bank.rows(1))


def test_orthogonal_row_and_embedding_meet_in_the_middle():
    eye = torch.eye(4, dtype=torch.float64)
    bank = bank_of(eye[None, :2].repeat(2, 1, 1))
    bank.remember([3 * eye[2:3], 0.1 * eye[3:4]], ids_only([1]))
    expected = bank_of(torch.stack([torch.stack([eye[0], (eye[1] + eye[2]) / 2**0.5]), eye[[0, 1]]])).embeddings
    expected[1, 1] = (eye[1] + eye[3]) / 2**0.5
    torch.testing.assert_close(bank.embeddings, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_only_rows_of_the_batch_move_and_by_the_formula(decay: float):
    rows = unit(torch.randn(2, 9, 5, dtype=torch.float64))
    bank, ids = bank_of(rows, decay=decay), [7, 0, 4]
    views = [torch.randn(3, 5, dtype=torch.float64) for _ in range(2)]
    bank.remember(views, ids_only(ids))
    for view, row in product(range(2), range(9)):
        expected = rows[view, row]
        if row in ids:
            new = views[view][ids.index(row)]
            moved = decay * expected + (1 - decay) * new / new.norm()
            expected = moved / moved.norm()
        torch.testing.assert_close(bank.rows(view)[row], expected, rtol=1e-12, atol=1e-12)


def test_of_a_sample_that_comes_twice_the_last_counts():
    rows = unit(torch.randn(1, 6, 4, dtype=torch.float64))
    ids, z = [3, 5, 3, 1, 3, 5], torch.randn(6, 4, dtype=torch.float64)
    both, last = bank_of(rows), bank_of(rows)
    both.remember([z], ids_only(ids))
    last.remember([z[[3, 4, 5]]], ids_only([1, 3, 5]))
    assert torch.equal(both.embeddings, last.embeddings)


def test_a_sample_without_a_row_is_refused():
    bank = Bank(samples=5, width=2)
    assert bank.places(ids_only([0, 4])).tolist() == [0, 4]
    with pytest.raises(UsageError, match="sample 5 has no row in a bank of 5 .* samples=6"):
        bank.places(ids_only([0, 5]))


@pytest.mark.parametrize("settings", [{"samples": 0}, {"samples": 3, "decay": 1.5}, {"samples": 3, "decay": -0.1}])
def test_a_bank_that_makes_no_sense_is_refused(settings: dict):
    with pytest.raises(UsageError, match="samples, decay"):
        Bank(width=2, **settings)


def test_drawn_rows_depend_on_the_sample_seed_and_epoch_alone():
    bank = Bank(samples=50, width=2)
    drawn = bank.draw(ids_only([3, 8, 20], seed=4, epoch=2), 4000)
    assert torch.equal(bank.draw(ids_only([8], seed=4, epoch=2), 4000)[0], drawn[1])
    assert torch.equal(bank.draw(ids_only([8], seed=4, epoch=2), 7)[0], drawn[1, :7])
    for other in ({"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 3}):
        assert not torch.equal(bank.draw(ids_only([3, 8, 20], **other), 4000), drawn)
    counts = drawn.flatten().bincount(minlength=50)
    assert len(counts) == 50 and (counts - 240).abs().max() < 5 * 240**0.5  # all rows alike, the own one among them


# Noise-contrastive estimation.


def nce_pairs(anchors: int = 5, others: int = 7, width: int = 6) -> Pairs:
    """Random pairs in fp64, each anchor with others of its own."""
    z = torch.randn(anchors, 1, width, dtype=torch.float64, requires_grad=True)
    rows = unit(torch.randn(anchors, others + 1, width, dtype=torch.float64))
    return Pairs(z, rows[:, 1:], positive=rows[:, :1], gather=False)


def nce_twin(pairs: Pairs, temperature: float, n: int, z: float | None = None) -> tuple[Tensor, float]:
    """As the papers write it, one anchor and one other at a time; Z from these pairs where none is given."""
    k = pairs.other.shape[1]
    exps = []
    for anchor, own, others in zip(pairs.anchor[:, 0], pairs.positive[:, 0], pairs.other, strict=True):
        hat = anchor / anchor.norm()
        exps.append([((hat @ row / row.norm()) / temperature).exp() for row in (own, *others)])
    z = n * sum(float(e.detach()) for row in exps for e in row) / (len(exps) * (k + 1)) if z is None else z
    losses = []
    for own, *others in exps:
        share = [e / z for e in (own, *others)]
        h = [p / (p + k / n) for p in share]
        losses.append(-h[0].log() - sum((1 - one).log() for one in h[1:]))
    return torch.stack(losses).mean(), z


def gradient(loss: Tensor, anchor: Tensor) -> Tensor:
    return torch.autograd.grad(loss, anchor)[0]


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nce_and_its_gradient_are_those_of_the_paper_whatever_n(temperature: float):
    loss, first, later = NCE(temperature=temperature).double(), nce_pairs(), nce_pairs(anchors=3)
    expected, z = nce_twin(first, temperature, n=100)
    found = loss(first, similarity.cosine)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    slopes = (gradient(one, first.anchor) for one in (found, expected))
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)
    assert 100 * float(loss.log_mean.exp()) == pytest.approx(z, rel=1e-12)
    expected, _ = nce_twin(later, temperature, n=100, z=z)  # Z stays that of the first batch
    found = loss(later, similarity.cosine)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    slopes = (gradient(one, later.anchor) for one in (found, expected))
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [1, 16, 300])
def test_nce_where_every_row_has_its_equal_share(k: int):
    z = torch.ones(4, 1, 8, dtype=torch.float64)
    pairs = Pairs(z, z.repeat(1, k, 1), positive=z, gather=False)
    expected = math.log(k + 1) + k * math.log((k + 1) / k)
    assert float(NCE().double()(pairs, similarity.cosine)) == pytest.approx(expected, rel=1e-12)


def test_Z_is_exact_where_every_row_is_drawn_once():
    n, bank = 12, unit(torch.randn(12, 5, dtype=torch.float64))
    anchor, own = torch.randn(1, 1, 5, dtype=torch.float64), 3
    pairs = Pairs(anchor, bank[None, [i for i in range(n) if i != own]], positive=bank[None, [own]], gather=False)
    loss = NCE(temperature=0.1).double()
    loss(pairs, similarity.cosine)
    exact = sum(float(((anchor[0, 0] / anchor.norm()) @ row / 0.1).exp()) for row in bank)
    assert n * float(loss.log_mean.exp()) == pytest.approx(exact, rel=1e-12)


def test_nce_keeps_no_Z_of_a_look_without_gradients():
    loss, chance, first = NCE(), nce_pairs(), nce_pairs()
    with torch.no_grad():
        loss(chance, similarity.cosine)
    assert not loss.estimated
    loss(first, similarity.cosine)
    kept = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    assert kept["estimated"] and kept.keys() == {"estimated", "log_mean"}
    loss(chance, similarity.cosine)
    other = NCE()
    other.load_state_dict(kept)
    assert torch.equal(other(chance, similarity.cosine), loss(chance, similarity.cosine))
    assert all(torch.equal(kept[name], tensor) for name, tensor in loss.state_dict().items())


def test_nce_is_finite_where_exponentials_are_not():
    z = torch.eye(3)
    pairs = Pairs(z[:, None], -z[:, None].repeat(1, 4, 1), positive=z[:, None], gather=False)
    loss = NCE(temperature=0.002)  # exp(500)
    loss(pairs, similarity.cosine)
    assert float(loss.log_mean) == pytest.approx(500 - math.log(5), rel=1e-6)  # one of 1 + K is exp(500)
    assert float(loss(pairs, similarity.cosine)) == pytest.approx(math.log(1 + 4 / 5), rel=1e-4)  # h = 1 / (1 + K / 5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"positive": None, "anchor_key": torch.zeros(5, 1).long(), "other_key": torch.zeros(5, 7).long()}, "no posit"),
        ({"anchor_slot": torch.zeros(5, 1).long(), "other_slot": torch.zeros(5, 7).long()}, "keys or slots"),
        ({"other": torch.zeros(5, 0, 6)}, "no others"),
    ],
)
def test_nce_refuses_pairs_that_it_has_no_answer_to(change: dict, told: str):
    with pytest.raises(UsageError, match=told):
        NCE()(replace(nce_pairs(), **change), similarity.cosine)


# Pairs.


@pytest.mark.parametrize("views", [2, 3, 5])
def test_directions_of_core_view_and_full_graph(views: int):
    core, full = core_view(views), full_graph(views)
    assert sorted(full) == [(i, j) for i in range(views) for j in range(views) if i != j]
    assert sorted(core) == [(i, j) for i, j in sorted(full) if 0 in (i, j)]


def softmax_loss(
    z: list[Tensor], batch: Batch, bank: Bank, *, graph: Callable = full_graph, negatives: int | None, t: float = 0.07
) -> list[Tensor]:
    pairs = bank_rows(z, z, batch, bank, directions=graph(len(z)), negatives=negatives)
    return [p.weight * infonce(p, similarity.cosine, temperature=t) for p in pairs]


@pytest.mark.parametrize("negatives", [None, 40])
@pytest.mark.parametrize("views", [2, 3, 4])
def test_equal_scores_cost_as_many_logarithms_as_there_are_directions(views: int, negatives: int | None):
    n, ids = 41, [5, 0, 40]
    bank = bank_of(unit(torch.ones(views, n, 8, dtype=torch.float64)))
    z = [torch.ones(3, 8, dtype=torch.float64)] * views
    core, full = (
        float(sum(softmax_loss(z, ids_only(ids), bank, graph=graph, negatives=negatives)))
        for graph in (core_view, full_graph)
    )
    assert full == pytest.approx(views * (views - 1) * math.log(40 + 1), rel=1e-12)
    assert full / core == pytest.approx(views / 2, rel=1e-12)


@pytest.mark.parametrize("negatives", [None, 11])
def test_matched_orthonormal_views_cost_log_1_plus_K_exp_minus_1_over_t(negatives: int | None):
    n, t = 12, 0.2
    eye, ids = torch.eye(n, dtype=torch.float64), [2, 7]
    bank, batch = bank_of(eye.repeat(2, 1, 1)), ids_only([2, 7], seed=1)
    if negatives:
        bank.draw = lambda batch, count: torch.tensor([[i for i in range(n) if i != own] for own in ids])
    found = softmax_loss([eye[ids], 3 * eye[ids]], batch, bank, negatives=negatives, t=t)
    share = math.exp(1 / t) / (math.exp(1 / t) + n - 1)  # of the own row, among all
    assert len(found) == 2
    for direction in found:
        assert float(direction) == pytest.approx(math.log(1 + (n - 1) * math.exp(-1 / t)), rel=1e-10)
        assert float(direction) == pytest.approx(-math.log(share), rel=1e-10)


@pytest.mark.parametrize("negatives", [None, 6])
@pytest.mark.parametrize("graph", [core_view, full_graph])
def test_softmax_over_bank_rows_is_that_of_nested_loops(negatives: int | None, graph: Callable):
    """Loss to 1e-10, gradient to 1e-9. A drawn row counts each time, also where it is the own one."""
    views, n, ids, t = 3, 8, [1, 5, 6, 2], 0.1
    bank = bank_of(unit(torch.randn(views, n, 5, dtype=torch.float64)))
    z = [torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(views)]
    batch = ids_only(ids, seed=3)
    drawn = bank.draw(batch, negatives or 1)
    expected = torch.zeros((), dtype=torch.float64)
    for i, j in graph(views):
        for b, own in enumerate(ids):
            hat = z[i][b] / z[i][b].norm()
            others = [k for k in range(n) if k != own] if negatives is None else drawn[b].tolist()
            scores = [hat @ bank.rows(j)[k] / t for k in (own, *others)]
            expected = expected + (torch.stack(scores).logsumexp(0) - scores[0]) / len(ids)
    found = torch.stack(softmax_loss(z, batch, bank, graph=graph, negatives=negatives, t=t)).sum()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for one, other in zip(torch.autograd.grad(found, z), torch.autograd.grad(expected, z), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_instance_discrimination_is_made_of_the_same_parts():
    """A view among its own rows, orthonormal, v = u_i: P(i|v) = e^{1/t} / (e^{1/t} + n - 1)."""
    n, t = 20, 0.07
    eye = torch.eye(n, dtype=torch.float64)
    pair = partial(bank_rows, directions=((0, 0),))
    (pairs,) = pair([eye[[4]]], [], ids_only([4]), bank_of(eye[None]))
    share = math.exp(1 / t) / (math.exp(1 / t) + n - 1)
    assert float(infonce(pairs, similarity.cosine, temperature=t)) == pytest.approx(-math.log(share), rel=1e-9)
