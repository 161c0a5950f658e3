"""DCL and DCLW against nested loops, and against SimCLR."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from toys import toy_batch, toy_method

from nearfar import extract, similarity
from nearfar.errors import UsageError
from nearfar.losses import infonce, reweighted
from nearfar.method import Batch, Contrast, Pairs
from nearfar.methods import dcl, simclr


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views_and_batch(images: int = 5, width: int = 4) -> tuple[list[Tensor], Batch]:
    views = [noise(images, width, seed=seed).requires_grad_() for seed in range(2)]
    return views, Batch(inputs=torch.empty(1), sizes=torch.empty(1), ids=torch.arange(images))


def slow_dcl(views: list[Tensor], t: float, sigma: float | None) -> Tensor:
    """One anchor at a time, as the paper writes it; weights are numbers."""
    z = [view / view.norm(dim=1, keepdim=True) for view in views]
    n, losses = len(z[0]), []
    pull = [float(z[0][i].detach() @ z[1][i].detach()) for i in range(n)]
    for k in range(2):
        for i in range(n):
            weight = 1.0
            if sigma is not None:
                weight = 2 - math.exp(pull[i] / sigma) / (sum(math.exp(s / sigma) for s in pull) / n)
            below = sum((z[k][i] @ z[side][j] / t).exp() for side in range(2) for j in range(n) if j != i)
            losses.append(-weight * (z[k][i] @ z[1 - k][i]) / t + below.log())
    return torch.stack(losses).mean()


def fast_dcl(views: list[Tensor], batch: Batch, t: float, sigma: float | None) -> Tensor:
    every, own = extract.every_and_own_view(views, views, batch, None)
    found = infonce(every, similarity.cosine, temperature=t, denominator="negatives")
    return found if sigma is None else found + reweighted(own, similarity.cosine, sigma=sigma, temperature=t)


@pytest.mark.parametrize("sigma", [None, 0.5, 0.1])
@pytest.mark.parametrize("t", [0.1, 0.5])
def test_loss_and_gradient_are_those_of_nested_loops(sigma: float | None, t: float) -> None:
    views, batch = views_and_batch()
    found, expected = fast_dcl(views, batch, t, sigma), slow_dcl(views, t, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for one, two in zip(torch.autograd.grad(found, views), torch.autograd.grad(expected, views), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


def test_simclrs_gradient_is_this_one_times_what_the_positive_leaves_of_the_sum() -> None:
    """The factor that couples positive and negatives (paper, proposition 1), at each anchor."""
    others, key, t = noise(6, 4, seed=1), torch.arange(6), 0.3
    for number in range(6):
        anchor = noise(1, 4, seed=7).requires_grad_()
        pairs = Pairs(anchor, others, key[[number]], key, gather=False)
        coupled, decoupled = (
            torch.autograd.grad(infonce(pairs, similarity.cosine, temperature=t, denominator=d), anchor)[0]
            for d in ("all", "negatives")
        )
        scores = torch.nn.functional.normalize(anchor.detach()) @ torch.nn.functional.normalize(others).T / t
        share = torch.softmax(scores[0], 0)[number]
        torch.testing.assert_close(coupled, (1 - share) * decoupled, rtol=1e-9, atol=1e-12)


def test_equal_pulls_have_weight_1() -> None:
    z = torch.eye(4, dtype=torch.float64)
    pairs = Pairs(z, z[:0], positive=0.5 * z)
    assert reweighted(pairs, similarity.dot, sigma=0.3).item() == pytest.approx(0, abs=1e-12)


def test_a_wide_sigma_makes_all_weights_alike() -> None:
    (first, second), _ = views_and_batch()
    pairs = Pairs(first, second[:0], positive=second)
    terms = [abs(reweighted(pairs, similarity.cosine, sigma=sigma).item()) for sigma in (0.5, 50.0, 5e6)]
    assert terms[0] > 50 * terms[1] > 0 and terms[2] < 1e-5


def test_far_positives_are_pulled_more_and_near_ones_less() -> None:
    anchor = torch.tensor([[0.9], [0.1]], dtype=torch.float64, requires_grad=True)
    pairs = Pairs(anchor, anchor[:0], positive=torch.ones(2, 1, dtype=torch.float64))
    near, far = torch.autograd.grad(reweighted(pairs, similarity.dot), anchor)[0]
    assert near > 0 > far  # descent lets the score of the near one fall


def test_a_narrow_sigma_does_not_overflow() -> None:
    z = torch.eye(3)
    found = reweighted(Pairs(z, z[:0], positive=torch.eye(3)[[0, 0, 0]]), similarity.cosine, sigma=1e-3)
    assert found.item() == pytest.approx((3 - 1) / 3 / 0.1)  # the one near positive has all: 1 - w = 3 - 1


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"sigma": math.inf}, {"temperature": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict) -> None:
    z = torch.eye(3)
    with pytest.raises(UsageError, match="sigma|temperature"):
        reweighted(Pairs(z, z[:0], positive=z), similarity.cosine, **settings)


def test_reweighting_needs_positives_row_by_row() -> None:
    z, key = torch.eye(3), torch.arange(3)
    with pytest.raises(UsageError, match="positive"):
        reweighted(Pairs(z, z, key, key), similarity.cosine)


def test_all_but_the_loss_is_simclrs() -> None:
    given = {"encoder": "small", "size": 32, "hidden": (64, 32), "width": 16, "strength": 0.3}
    one, other = dcl(**given), simclr(**given)
    assert one.views == other.views and one.similarity is other.similarity
    assert one.extract.pair is other.extract.pair and str(one.extract.head) == str(other.extract.head)
    assert one.loss.keywords == {"temperature": 0.1, "denominator": "negatives"}


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_the_method_has_the_loss_of_the_paper(sigma: float | None) -> None:
    model = Contrast(toy_method("dcl", sigma=sigma))
    loss = model(toy_batch(6))
    loss.backward()
    torch.testing.assert_close(loss, slow_dcl(model.seen[0], 0.2, sigma), rtol=1e-5, atol=1e-5)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.chance == pytest.approx(math.log(10), rel=1e-5)
