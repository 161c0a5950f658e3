"""Tiled InfoNCE against its dense twin: value and gradient of every variant."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference_losses import dense_infonce

from nearfar import similarity
from nearfar.errors import UsageError
from nearfar.losses import cpu_infonce, cpu_kernels, infonce, tiles
from nearfar.method import Pairs

RULES = [
    ("mean_log", "all"),
    ("log_sum", "all"),
    ("mean_log", "own_and_negatives"),
    ("mean_log", "negatives"),
    ("log_sum", "negatives"),
]
SIMILARITIES = ["cosine", "dot", "scaled_dot", "negative_distance", "clipped_dot", "bilinear"]
SHAPES = ["symmetric", "keys", "positive", "positive_and_keys", "episodes", "symmetric_episodes"]


def _similarity(name: str, width: int = 5):
    if name == "clipped_dot":
        return similarity.clipped_dot(limit=1.5)
    if name != "bilinear":
        return getattr(similarity, name)
    torch.manual_seed(3)
    part = similarity.Bilinear(width).double()
    torch.nn.init.normal_(part.map.weight)
    return part


def _pairs(shape: str, *, dtype: torch.dtype = torch.float64, n: int = 13, m: int = 9, width: int = 5) -> Pairs:
    """Pairs with rows of several, of one and of no positives; some slots equal."""
    draw = torch.Generator().manual_seed(7)

    def rows(*size: int) -> torch.Tensor:
        return torch.randn(*size, width, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

    def keys(*size: int, high: int = 4) -> torch.Tensor:
        return torch.randint(high, size, generator=draw)

    if shape == "symmetric":
        x, key, slot = rows(n), keys(n, high=5), torch.arange(n)
        return Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot)
    if shape == "keys":
        return Pairs(rows(n), rows(m), keys(n, high=6), keys(m), anchor_slot=keys(n), other_slot=keys(m, high=30))
    if shape == "positive":
        return Pairs(rows(n), rows(m), positive=rows(n), gather=False)
    if shape == "positive_and_keys":
        return Pairs(rows(n), rows(m), keys(n, high=6), keys(m), positive=rows(n))
    if shape == "symmetric_episodes":
        x, key, slot = rows(3, n), keys(3, n, high=5), torch.arange(n).expand(3, n)
        return Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot, gather=False)
    return Pairs(rows(2, 3, n), rows(2, 3, m), keys(2, 3, n), keys(2, 3, m), gather=False)


def _tiles_of(monkeypatch, side: int) -> None:
    for name in ("TILE", "TILE_BOUNDED"):
        monkeypatch.setattr(tiles, name, side)


def _leaves(pairs: Pairs, part: object) -> list[torch.Tensor]:
    found = [pairs.anchor] if pairs.other is pairs.anchor else [pairs.anchor, pairs.other]
    found += [] if pairs.positive is None else [pairs.positive]
    return found + (list(part.parameters()) if isinstance(part, torch.nn.Module) else [])


def _both(pairs: Pairs, part, **settings):
    """Value and gradients of the tiled loss and of its twin; the twin in fp64."""
    mine = infonce(pairs, part, **settings)
    gradients = torch.autograd.grad(mine, _leaves(pairs, part), materialize_grads=True)
    anchor = pairs.anchor.detach().double().requires_grad_()
    other = anchor if pairs.other is pairs.anchor else pairs.other.detach().double().requires_grad_()
    positive = None if pairs.positive is None else pairs.positive.detach().double().requires_grad_()
    exact = replace(pairs, anchor=anchor, other=other, positive=positive)
    theirs = dense_infonce(exact, part, **settings)
    wanted = torch.autograd.grad(theirs, _leaves(exact, part), materialize_grads=True)
    return mine, theirs, gradients, wanted


def _assert_same(pairs: Pairs, part, tolerance: float = 1e-10, **settings) -> None:
    mine, theirs, gradients, wanted = _both(pairs, part, **settings)
    assert abs(mine.item() - theirs.item()) <= tolerance * max(1, abs(theirs.item()))
    largest = max(g.norm().item() for g in wanted)
    for got, want in zip(gradients, wanted, strict=True):
        # A slope is a difference of shares: in fp32 its rounding is that of 1, however small the difference.
        least = 1e-3 if got.dtype == torch.float64 else 0.2
        assert (got.double() - want).norm().item() <= tolerance * max(largest, least)


@pytest.mark.parametrize("side", [4, 16, 512])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize(("positives", "denominator"), RULES)
def test_value_and_gradient_equal_the_dense_twin(monkeypatch, side, shape, name, positives, denominator):
    _tiles_of(monkeypatch, side)
    pairs, part = _pairs(shape), _similarity(name)
    _assert_same(pairs, part, temperature=0.3, positives=positives, denominator=denominator)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("side", [4, 16, 512])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_kernels_and_torch_equal_the_dense_twin_in_fp32(monkeypatch, kernels, side, shape, denominator):
    calls, fits, work = [], cpu_infonce.fits, cpu_infonce.row_statistics
    monkeypatch.setattr(cpu_infonce, "fits", lambda *given: kernels and fits(*given))
    monkeypatch.setattr(cpu_infonce, "row_statistics", lambda *given: calls.append(given) or work(*given))
    _tiles_of(monkeypatch, side)
    pairs, rule = _pairs(shape, dtype=torch.float32), dict(positives="mean_log", denominator=denominator)
    _assert_same(pairs, similarity.cosine, 1e-6, temperature=0.3, **rule)
    alone = replace(pairs, other=pairs.other.detach())
    mine, theirs = (torch.tensor(0.4, requires_grad=True) for _ in range(2))
    found, wanted = (
        torch.autograd.grad(loss(alone, similarity.cosine, temperature=degrees, **rule), (alone.anchor, degrees))
        for loss, degrees in ((infonce, mine), (dense_infonce, theirs))
    )
    for got, want in zip(found, wanted, strict=True):
        assert torch.allclose(got, want, rtol=2e-6, atol=1e-6)
    assert len(calls) == (2 if kernels else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_vectors_and_their_gradient_are_those_of_torch(dtype):
    """The twin maps with the same function, so that this is what holds it."""
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0, 0], x[0, 1], x[1, 2] = 0, 1e-14 * x[0, 1], 1e6 * x[1, 2]
    mine, theirs = (x.to(dtype).clone().requires_grad_() for _ in range(2))
    weight = torch.randn_like(x).to(dtype)
    got, wanted = similarity.unit(mine), torch.nn.functional.normalize(theirs, dim=-1, eps=similarity.TINY)
    assert torch.equal(got, wanted)
    (got * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)


def test_the_kernels_exponential():
    x = np.linspace(-40, 40, 100_001, dtype=np.float32)
    got = x.reshape(1, 1, -1).copy()
    sums = np.zeros((4, 1, 1), np.float32)
    cpu_kernels.add_sums(got, None, None, sums, None, 0, 0, 0, np.float32(0))  # leaves exp(score)
    assert np.abs(got.ravel() / np.exp(x.astype(np.float64)) - 1).max() < 2e-7
    assert cpu_kernels.exponential(np.float32(0)) == 1 and np.isnan(cpu_kernels.exponential(np.float32(np.nan)))


@pytest.mark.parametrize(("n", "m", "episodes"), [(83, 3, 1), (3, 83, 1), (2, 5, 25)])
@pytest.mark.parametrize(("positives", "denominator"), RULES)
def test_few_pairs_in_a_long_shape_are_not_taken_for_one_tile(monkeypatch, n, m, episodes, positives, denominator):
    _tiles_of(monkeypatch, 8)  # 16 x 16 scores would be one tile; 83 rows are several
    shape = (episodes,) if episodes > 1 else ()
    anchor, other = (torch.randn(*shape, size, 5, dtype=torch.float64, requires_grad=True) for size in (n, m))
    keys = (torch.arange(size).expand(*shape, size) % 3 for size in (n, m))
    pairs = Pairs(anchor, other, *keys, gather=False)
    _assert_same(pairs, similarity.cosine, temperature=0.3, positives=positives, denominator=denominator)


@pytest.mark.parametrize("number", [2**24, 2**40, -(2**62)])
def test_keys_that_floating_point_does_not_hold(number):
    x, key = torch.randn(8, 5, requires_grad=True), torch.arange(4).repeat(2) + number
    slots = torch.arange(8) + number
    _assert_same(Pairs(x, x, key, key, anchor_slot=slots, other_slot=slots), similarity.cosine, 2e-6, temperature=0.5)


@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", ["symmetric", "positive_and_keys"])
@pytest.mark.parametrize(("positives", "denominator"), RULES)
def test_every_temperature_in_fp64_and_fp32(monkeypatch, temperature, shape, positives, denominator):
    _tiles_of(monkeypatch, 8)
    settings = dict(temperature=temperature, positives=positives, denominator=denominator)
    _assert_same(_pairs(shape), similarity.cosine, **settings)
    # A score of 1/temperature carries the rounding of a cosine times 1/temperature into its exponential.
    rounding = 1e-6 * max(1.0, 0.1 / temperature)
    _assert_same(_pairs(shape, dtype=torch.float32), similarity.cosine, rounding, **settings)


@pytest.mark.parametrize("name", ["dot", "scaled_dot", "negative_distance", "clipped_dot"])
def test_fp32_without_a_constant_shift(monkeypatch, name):
    _tiles_of(monkeypatch, 8)
    _assert_same(_pairs("keys", dtype=torch.float32), _similarity(name), 2e-6, temperature=0.5)


def test_fp32_of_a_batch_of_600_over_several_tiles():
    torch.manual_seed(0)
    x, key, slot = torch.randn(600, 32, requires_grad=True), torch.arange(300).repeat(2), torch.arange(600)
    _assert_same(Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot), similarity.cosine, 1e-6, temperature=0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["cosine", "dot", "clipped_dot"])
@pytest.mark.parametrize(("positives", "denominator"), RULES)
def test_gradient_of_a_learned_temperature(monkeypatch, shape, name, positives, denominator):
    _tiles_of(monkeypatch, 4)
    pairs, part, rule = _pairs(shape), _similarity(name), dict(positives=positives, denominator=denominator)
    mine, theirs = (torch.tensor(0.4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    infonce(pairs, part, temperature=mine, **rule).backward()
    dense_infonce(pairs, part, temperature=theirs, **rule).backward()
    assert mine.grad is not None and theirs.grad is not None
    assert mine.grad.item() == pytest.approx(theirs.grad.item(), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("positives", "denominator"), RULES)
def test_gradcheck(positives, denominator):
    pairs = _pairs("positive_and_keys", n=4, m=3, width=2)
    degrees = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def loss(anchor, other, positive, temperature):
        changed = replace(pairs, anchor=anchor, other=other, positive=positive)
        return infonce(changed, similarity.clipped_dot(2.0), temperature=temperature, **rule)

    rule = dict(positives=positives, denominator=denominator)
    assert pairs.positive is not None
    assert torch.autograd.gradcheck(loss, (pairs.anchor, pairs.other, pairs.positive, degrees))


@pytest.mark.parametrize("side", [1, 2, 3, 5, 64])
def test_tile_size_does_not_matter(monkeypatch, side):
    pairs = _pairs("symmetric")
    whole = torch.autograd.grad(infonce(pairs, similarity.cosine), pairs.anchor)[0]
    _tiles_of(monkeypatch, side)
    parts = torch.autograd.grad(infonce(pairs, similarity.cosine), pairs.anchor)[0]
    assert torch.allclose(whole, parts, rtol=0, atol=1e-13)


def test_order_of_rows_does_not_matter(monkeypatch):
    _tiles_of(monkeypatch, 4)
    pairs, order = _pairs("symmetric"), torch.randperm(13, generator=torch.Generator().manual_seed(1))
    assert pairs.anchor_key is not None and pairs.anchor_slot is not None
    x, key, slot = pairs.anchor.detach()[order].requires_grad_(), pairs.anchor_key[order], pairs.anchor_slot[order]
    mixed = Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot)
    first, second = infonce(pairs, similarity.cosine), infonce(mixed, similarity.cosine)
    assert first.item() == pytest.approx(second.item(), rel=1e-13)
    g, h = torch.autograd.grad(first, pairs.anchor)[0], torch.autograd.grad(second, x)[0]
    assert torch.allclose(g[order], h, rtol=0, atol=1e-13)


def test_two_sides_and_the_symmetric_form_agree():
    pairs = _pairs("symmetric")
    twice = replace(pairs, other=pairs.anchor.clone())  # no longer the same tensor: the general path
    g, h = (torch.autograd.grad(infonce(p, similarity.cosine), pairs.anchor)[0] for p in (pairs, twice))
    assert torch.allclose(g, h, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("positives", "denominator"), RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ([0], [0]),  # N = 1, itself left out: nothing is left
        ([0, 0], [0, 1]),  # N = 2, no negative
        ([0, 1], [0, 1]),  # no positive
        ([0, 0, 0, 0, 0], [0, 1, 2, 3, 4]),  # one class, odd N
        ([0, 0, 1], [5, 5, 5]),  # everything left out
        ([0, 0, 1], [0, 1, 2]),  # one anchor without a positive
    ],
)
def test_edges_are_finite_and_equal_the_twin(positives, denominator, dtype, key, slot):
    key, slot = torch.tensor(key), torch.tensor(slot)
    x = torch.randn(len(key), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    pairs = Pairs(x.requires_grad_(), x, key, key, anchor_slot=slot, other_slot=slot)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-6
    for part in (similarity.cosine, similarity.dot):
        _assert_same(pairs, part, tolerance, temperature=0.2, positives=positives, denominator=denominator)


@pytest.mark.parametrize(("positives", "denominator"), RULES)
def test_duplicates_and_equal_rows(positives, denominator):
    rows = torch.ones(8, 3, dtype=torch.float64)
    for x in (rows, torch.cat([rows[:4], -rows[:4]]), torch.zeros(8, 3, dtype=torch.float64)):
        x = x.clone().requires_grad_()
        key, slot = torch.arange(4).repeat(2), torch.arange(8)
        pairs = Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot)
        for part in (similarity.cosine, similarity.negative_distance):
            _assert_same(pairs, part, temperature=0.07, positives=positives, denominator=denominator)


@pytest.mark.parametrize(("positives", "denominator"), RULES)
def test_scores_far_apart_neither_overflow_nor_vanish(positives, denominator):
    """Positives a thousand above or below the negatives, where one maximum for both would lose one of them."""
    anchor = torch.tensor([[1.0], [1.0], [-1.0]], requires_grad=True)
    other = torch.tensor([[1000.0], [0.0], [-1000.0], [3.0]], requires_grad=True)
    key = torch.tensor([0, 0, 1, 2])
    for mine in ([0, 1, 2], [1, 0, 0], [2, 1, 1]):
        pairs = Pairs(anchor, other, torch.tensor(mine), key)
        _assert_same(pairs, similarity.dot, 1e-6, temperature=1.0, positives=positives, denominator=denominator)


def test_far_points_keep_their_distance_in_fp32():
    """Squared distances near 1000: exp(-distance) is 0 in fp32, whatever bound the similarity has above."""
    anchor, other = (30 * torch.randn(6, 2, requires_grad=True) for _ in range(2))
    pairs = Pairs(anchor, other, torch.arange(6), torch.arange(6))
    assert infonce(pairs, similarity.negative_distance, temperature=1.0).isfinite()
    _assert_same(pairs, similarity.negative_distance, 1e-5, temperature=1.0)


@pytest.mark.parametrize("changed", ["other_key", "other_slot"])
def test_one_tensor_with_two_sets_of_numbers_is_not_symmetric(monkeypatch, changed):
    _tiles_of(monkeypatch, 4)
    pairs = _pairs("symmetric")
    numbers = torch.randint(4, (13,), generator=torch.Generator().manual_seed(4))
    _assert_same(replace(pairs, **{changed: numbers}), similarity.cosine)


def test_a_tiny_loss_keeps_its_digits():
    """log(1 + K exp(-1/t)) near 1e-12 in fp32: the difference of two logarithms would be 0 or rounding."""
    rows = torch.eye(4)
    pairs = Pairs(
        rows, torch.eye(4), positive=rows, gather=False, anchor_slot=torch.arange(4), other_slot=torch.arange(4)
    )
    got = infonce(pairs, similarity.cosine, temperature=1 / 30).item()
    assert got == pytest.approx(math.log1p(3 * math.exp(-30)), rel=1e-5)


def test_nan_is_not_hidden():
    pairs = _pairs("symmetric")
    x = pairs.anchor.detach().clone()
    x[3, 2] = torch.nan
    for part in (similarity.cosine, similarity.dot):
        assert infonce(replace(pairs, anchor=x, other=x), part).isnan()


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_an_empty_side_gives_zero(size):
    n, m = size
    anchor, other = torch.randn(n, 3, requires_grad=True), torch.randn(m, 3, requires_grad=True)
    loss = infonce(Pairs(anchor, other, torch.arange(n), torch.arange(m)), similarity.cosine)
    loss.backward()
    assert loss.item() == 0
    assert anchor.grad is not None and not anchor.grad.any()


def test_an_empty_queue_gives_zero():
    anchor = torch.randn(4, 3, requires_grad=True)
    loss = infonce(Pairs(anchor, torch.randn(0, 3), positive=torch.randn(4, 3), gather=False), similarity.cosine)
    loss.backward()
    assert loss.item() == 0 and anchor.grad is not None and not anchor.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_to_fp32(dtype):
    pairs = _pairs("keys", dtype=dtype)
    loss = infonce(pairs, similarity.cosine)
    loss.backward()
    exact = replace(pairs, anchor=pairs.anchor.detach().float(), other=pairs.other.detach().float())
    assert loss.dtype == torch.float32 and pairs.anchor.grad is not None and pairs.anchor.grad.dtype == dtype
    assert loss.item() == pytest.approx(infonce(exact, similarity.cosine).item(), rel=1e-6)


def test_autocast_does_not_reach_the_loss():
    pairs, part = _pairs("keys", dtype=torch.float32), similarity.Bilinear(5)
    plain = infonce(pairs, part)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert infonce(pairs, part).item() == plain.item()


def test_no_gradient_is_computed_where_none_is_wanted(monkeypatch):
    monkeypatch.setattr(
        sys.modules["nearfar.losses.infonce"], "_add_all", lambda *_: pytest.fail("computed a gradient")
    )
    pairs = _pairs("keys")
    with torch.no_grad():
        assert not infonce(pairs, similarity.dot).requires_grad
    still = replace(pairs, anchor=pairs.anchor.detach(), other=pairs.other.detach())
    assert not infonce(still, similarity.dot).requires_grad


def test_others_without_gradient_leave_the_anchors_alone():
    pairs = _pairs("keys")
    both = torch.autograd.grad(infonce(pairs, similarity.cosine), pairs.anchor)[0]
    one = torch.autograd.grad(infonce(replace(pairs, other=pairs.other.detach()), similarity.cosine), pairs.anchor)[0]
    torch.testing.assert_close(both, one, rtol=1e-12, atol=1e-14)


def test_backward_twice_gives_the_same():
    pairs = _pairs("symmetric")
    loss = infonce(pairs, similarity.cosine)
    first = torch.autograd.grad(loss, pairs.anchor, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, pairs.anchor)[0])


def _changed(**fields) -> Pairs:
    return replace(_pairs("keys"), **fields)


@pytest.mark.parametrize(
    ("pairs", "settings", "named"),
    [
        (_changed(), {"positives": "mean"}, "mean_log, log_sum"),
        (_changed(), {"denominator": "neg"}, "own_and_negatives"),
        (_changed(), {"positives": "log_sum", "denominator": "own_and_negatives"}, "mean_log"),
        (_changed(), {"temperature": 0.0}, "temperature"),
        (_changed(), {"temperature": math.nan}, "temperature"),
        (_changed(), {"temperature": torch.ones(2)}, "0-d"),
        (_changed(other=torch.zeros(9, 4)), {}, "pairs.other"),
        (_changed(anchor=torch.zeros(2, 13, 5)), {}, "pairs.other"),
        (_changed(positive=torch.zeros(9, 5)), {}, "pairs.positive"),
        (_changed(anchor_key=torch.zeros(9, dtype=torch.int64)), {}, "pairs.anchor_key"),
        (_changed(other_slot=None), {}, "anchor_slot, other_slot"),
        (_changed(anchor_key=None, other_key=None), {}, "positive"),
    ],
)
def test_mistakes_are_named(pairs, settings, named):
    with pytest.raises(UsageError) as caught:
        infonce(pairs, similarity.cosine, **settings)
    assert named in str(caught.value)


def test_episodes_are_not_gathered(monkeypatch):
    monkeypatch.setattr(sys.modules["nearfar.losses.infonce"], "world", lambda: 2)
    with pytest.raises(UsageError, match="gather=False"):
        infonce(replace(_pairs("episodes"), gather=True), similarity.cosine)


MEMORY = """
import resource, torch
from nearfar import similarity
from nearfar.losses import infonce
from nearfar.method import Pairs

def run(n):
    x = torch.randn(n, 128, requires_grad=True)
    key, slot = torch.arange(n // 2).repeat(2), torch.arange(n)
    infonce(Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot), similarity.cosine).backward()

run(1024)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(16384)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_of_16384_rows_is_below_150_mib():
    """Their scores alone would be 1024 MiB."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 150


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_rows_that_are_unit_already_give_the_same(name: str, kind: torch.dtype) -> None:
    """Those of a queue in bfloat16 are unit to three digits: they are made so again."""
    draw = torch.Generator().manual_seed(1)
    anchor, positive = (torch.randn(7, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    rows = similarity.unit(torch.randn(20, 5, generator=draw, dtype=torch.float64)).to(kind)
    found = []
    for unit in (False, True):
        pairs = Pairs(anchor.clone().requires_grad_(), rows, positive=positive, gather=False, other_unit=unit)
        loss = infonce(pairs, _similarity(name), temperature=0.3)
        loss.backward()
        found += [loss.detach().view(1), pairs.anchor.grad.flatten()]
    torch.testing.assert_close(torch.cat(found[2:]), torch.cat(found[:2]), rtol=0, atol=1e-13)


def test_what_is_said_to_be_unit_is_taken_so() -> None:
    """The flag is used: rows that are not unit then give another loss."""
    anchor, rows = torch.eye(3, dtype=torch.float64), 2 * torch.eye(3, dtype=torch.float64)
    pairs = Pairs(anchor, rows, positive=anchor, gather=False)
    told = infonce(replace(pairs, other_unit=True), similarity.cosine, temperature=1.0)
    assert infonce(pairs, similarity.cosine, temperature=1.0) < told - 0.1
