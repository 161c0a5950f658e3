"""InvaSpread: the spread of negatives against nested loops, closed forms, and the two forms of the method."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import SIDE
from toys import toy_batch, toy_method

from nearfar import extract, similarity
from nearfar.errors import UsageError
from nearfar.losses import infonce, spread
from nearfar.method import Batch, Contrast, Pairs
from nearfar.methods import invaspread
from nearfar.views import CentreCrop


def near(value: float):
    return pytest.approx(value, abs=1e-10)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_spread(pairs: Pairs, temperature: float) -> float:
    """By dot product; log(1 - P) as it stands."""
    losses = []
    for i, anchor in enumerate(pairs.anchor):
        shares, negative = [], []
        for j, other in enumerate(pairs.other):
            if pairs.anchor_slot is not None and pairs.anchor_slot[i] == pairs.other_slot[j]:
                continue
            shares.append(math.exp(float(anchor @ other) / temperature))
            negative.append(bool(pairs.anchor_key[i] != pairs.other_key[j]))
        if not all(negative):
            whole = sum(shares)
            losses.append(-sum(math.log(1 - e / whole) for e, far in zip(shares, negative, strict=True) if far))
    return sum(losses) / max(len(losses), 1)


def keyed(slots: bool) -> Pairs:
    """One, several and no others of the anchor's key; a slot that leaves out the only positive there is."""
    pairs = Pairs(
        noise(7, 4), noise(9, 4, seed=1), torch.tensor([0, 1, 2, 3, 0, 1, 9]),
        torch.tensor([0, 0, 1, 2, 0, 9, 4, 2, 1]), gather=False,
    )  # fmt: skip
    slot = torch.tensor([20, 8, 3, 3, 0, 1, 5])
    return replace(pairs, anchor_slot=slot, other_slot=torch.arange(9)) if slots else pairs


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_spread_is_the_nested_loop(slots: bool, temperature: float) -> None:
    pairs = keyed(slots)
    assert spread(pairs, similarity.dot, temperature=temperature).item() == near(slow_spread(pairs, temperature))


@pytest.mark.parametrize("measure", [similarity.cosine, similarity.clipped_dot(0.7)], ids=["cosine", "clipped"])
def test_spread_gradient_is_that_of_finite_differences(measure) -> None:
    pairs = keyed(True)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return spread(replace(pairs, anchor=a, other=b), measure, temperature=0.4)

    assert torch.autograd.gradcheck(loss, (pairs.anchor.requires_grad_(), pairs.other.requires_grad_()))


def test_spread_without_any_positive_is_0_and_so_is_its_gradient() -> None:
    z = torch.eye(2, requires_grad=True)
    found = spread(Pairs(z, z.detach()[:1], torch.tensor([7, 8]), torch.arange(1)), similarity.dot)
    found.backward()
    assert found.item() == 0 and z.grad is not None and z.grad.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spread_is_exact_where_a_negative_has_all_but_nothing_of_the_sum(dtype: torch.dtype) -> None:
    """1 - P = exp(-1/t) / (1 + exp(-1/t)) = 1e-44 at t = 0.01, far below what 1 - P can tell in fp64."""
    anchor = torch.eye(2, dtype=dtype)[:1].requires_grad_()
    key = torch.arange(2)
    found = spread(Pairs(anchor, torch.eye(2, dtype=dtype), key[1:], key), similarity.dot, temperature=0.01)
    found.backward()
    assert found.item() == pytest.approx(100.0, rel=1e-6)
    torch.testing.assert_close(anchor.grad, torch.tensor([[100.0, -100.0]], dtype=dtype), rtol=1e-6, atol=0)


# Closed forms of both halves together.


def two_views(first: Tensor, second: Tensor) -> tuple[list[Tensor], Batch]:
    return [first, second], Batch(
        inputs=torch.empty(1), sizes=torch.empty(1), ids=torch.arange(len(first)), labels=None
    )


def whole(pairs: list[Pairs], temperature: float) -> float:
    one, two = pairs
    together = infonce(one, similarity.cosine, temperature=temperature)
    return float(together + spread(two, similarity.cosine, temperature=temperature))


@pytest.mark.parametrize(("m", "t"), [(6, 0.1), (9, 0.5)])
def test_released_form_of_equal_pairs_of_orthonormal_images(m: int, t: float) -> None:
    z, batch = two_views(torch.eye(m, 16).double(), torch.eye(m, 16).double())
    e = math.exp(1 / t)
    d = e + 2 * m - 2
    found = whole(extract.every_still_view(z, z, batch, None), t)
    assert found == near(-math.log(e / d) - (2 * m - 2) * math.log(1 - 1 / d))
    if m == 6:
        assert found == pytest.approx(9.077e-4, abs=5e-8)


@pytest.mark.parametrize("t", [0.1, 1.0])
def test_released_form_of_equal_embeddings(t: float) -> None:
    m = 6
    z, batch = two_views(torch.ones(m, 4).double(), torch.ones(m, 4).double())
    found = whole(extract.every_still_view(z, z, batch, None), t)
    assert found == near(math.log(2 * m - 1) - (2 * m - 2) * math.log(1 - 1 / (2 * m - 1)))
    assert found == pytest.approx(3.351, abs=5e-4)


@pytest.mark.parametrize(("m", "t"), [(6, 0.1), (9, 0.5)])
def test_papers_form_of_orthonormal_images(m: int, t: float) -> None:
    z, batch = two_views(torch.eye(m, 16).double(), torch.eye(m, 16).double())
    d = math.exp(1 / t) + m - 1
    total = -m * math.log(math.exp(1 / t) / d) - m * (m - 1) * math.log(1 - 1 / d)
    assert m * whole(extract.among_clean(z, z, batch, None), t) == near(total)


def test_papers_form_is_that_of_nested_loops() -> None:
    m, t = 5, 0.4
    clean, augmented = (torch.nn.functional.normalize(noise(m, 3, seed=seed)) for seed in range(2))
    total = 0.0
    for i in range(m):
        below = sum(math.exp(float(clean[k] @ augmented[i]) / t) for k in range(m))
        total -= math.log(math.exp(float(clean[i] @ augmented[i]) / t) / below)
        for j in range(m):
            if j != i:
                below = sum(math.exp(float(clean[k] @ clean[j]) / t) for k in range(m))
                total -= math.log(1 - math.exp(float(clean[i] @ clean[j]) / t) / below)
    z, batch = two_views(clean, augmented)
    assert m * whole(extract.among_clean(z, z, batch, None), t) == near(total)


# The method.


def test_in_the_released_form_embeddings_move_as_anchors_alone() -> None:
    views = [noise(5, 4, seed=seed).requires_grad_() for seed in range(2)]
    _, batch = two_views(*views)
    pairs = extract.every_still_view(views, views, batch, None)
    loss = sum(one(p, similarity.cosine) for one, p in zip((infonce, spread), pairs, strict=True))
    found = torch.autograd.grad(loss, views)
    others = torch.cat(views).detach()
    for number in range(10):
        anchor = others[number : number + 1].clone().requires_grad_()
        one = replace(
            pairs[0], anchor=anchor, other=others, anchor_key=pairs[0].anchor_key[[number]],
            anchor_slot=pairs[0].anchor_slot[[number]],
        )  # fmt: skip
        expected = torch.autograd.grad(infonce(one, similarity.cosine) + spread(one, similarity.cosine), anchor)[0]
        torch.testing.assert_close(found[number // 5][number % 5] * 10, expected[0], rtol=1e-10, atol=1e-12)


def test_in_the_papers_form_the_first_view_is_the_image_as_it_is() -> None:
    method = invaspread(encoder="small", size=SIDE, form="paper")
    batch = toy_batch(8)
    clean, augmented = method.views(batch)
    assert torch.equal(clean, CentreCrop(SIDE)(batch.inputs, np.asarray(batch.sizes)))
    assert not torch.equal(clean, augmented)
    first, second = invaspread(encoder="small", size=SIDE).views.views
    assert first == second == method.views.views[1]


def test_the_papers_form_trains_too() -> None:
    model = Contrast(toy_method("invaspread", form="paper"))
    model(toy_batch()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.chance == pytest.approx(math.log(16) - 15 * math.log(1 - 1 / 16), rel=1e-5)


def test_chance_is_that_of_equal_embeddings() -> None:
    model = Contrast(toy_method("invaspread"))
    model(toy_batch(6))
    assert model.chance == pytest.approx(3.351, abs=5e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"positive": noise(7, 4)}, "and positives"),
        ({"anchor_key": None, "other_key": None}, "no pair can be a positive"),
        ({"anchor": noise(1, 7, 4)}, "other"),
    ],
)
def test_spread_refuses_pairs_that_it_has_no_answer_to(change: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        spread(replace(keyed(False), **change), similarity.dot)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="form.*code, paper"):
        invaspread(encoder="small", size=32, form="released")
    with pytest.raises(UsageError, match="temperature"):
        spread(keyed(False), similarity.dot, temperature=0.0)
    z, batch = two_views(noise(3, 2), noise(3, 2))
    with pytest.raises(UsageError, match="1 views"):
        extract.among_clean(z[:1], z, batch, None)
