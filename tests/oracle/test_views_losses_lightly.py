"""Losses of methods without negatives, and of those with prototypes, against lightly's; every scale is 1."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from nearfar import extract, similarity
from nearfar.losses import attract, correlation, cross_entropy, infonce, reweighted, variance_covariance
from nearfar.method import Batch, Pairs
from nearfar.schedules import Ramp

losses = pytest.importorskip("lightly.loss")

COUNT, WIDTH, PROTOTYPES = 24, 10, 12


def views(number: int = 2, count: int = COUNT) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    made = (torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for _ in range(number))
    return [view.requires_grad_() for view in made]


def assert_same(mine, theirs, inputs: list[torch.Tensor], *, atol: float = 1e-12) -> None:
    """Equal values and gradients."""
    got, want = mine(*inputs), theirs(*inputs)
    assert got.item() == pytest.approx(want.item(), rel=max(1e-10, atol))
    for g, h in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        assert torch.allclose(g, h, rtol=0, atol=atol)


def own(a: torch.Tensor, b: torch.Tensor) -> Pairs:
    return Pairs(a, a[:0], positive=b)


@pytest.mark.parametrize("count", [6, 24])
def test_barlow_twins(count: int) -> None:
    assert_same(
        lambda a, b: correlation(own(a, b), similarity.dot, redundancy=0.005),
        losses.BarlowTwinsLoss(lambda_param=0.005),
        views(count=count),
    )


@pytest.mark.parametrize("count", [6, 24])
def test_vicreg(count: int) -> None:
    assert_same(lambda a, b: variance_covariance(own(a, b), similarity.dot), losses.VICRegLoss(), views(count=count))


def test_negative_cosine() -> None:
    assert_same(
        lambda a, b: attract(own(a, b), similarity.cosine, best=0.0), losses.NegativeCosineSimilarity(), views()
    )


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # lightly's
@pytest.mark.parametrize("sigma", [0.3, 0.5])
def test_weighted_dcl(sigma: float) -> None:
    def mine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x, key, slot = torch.cat([a, b]), torch.arange(COUNT).repeat(2), torch.arange(2 * COUNT)
        every = Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot)
        dcl = infonce(every, similarity.cosine, temperature=0.2, denominator="negatives")
        return dcl + reweighted(own(a, b), similarity.cosine, sigma=sigma, temperature=0.2)

    assert_same(mine, losses.DCLWLoss(temperature=0.2, sigma=sigma), views())


def assert_compared(pair: torch.nn.Module, vectors: torch.Tensor, theirs, number: int, *, temperature: float) -> None:
    """The sum of a pair module's comparisons, against lightly's loss on cosines with the prototypes."""
    batch = Batch(inputs=torch.zeros(0), sizes=torch.zeros(0), ids=torch.arange(COUNT))
    loss = partial(cross_entropy, temperature=temperature)

    def mine(*z: torch.Tensor) -> torch.Tensor:
        pairs = pair(list(z), [one.detach() for one in z[:2]], batch, None)
        return torch.stack([p.weight * loss(p, similarity.cosine) for p in pairs]).sum()

    def scored(*z: torch.Tensor) -> torch.Tensor:
        return theirs([similarity.unit(one) @ similarity.unit(vectors).T for one in z]).squeeze()

    assert_same(mine, scored, views(number), atol=1e-9)


@pytest.mark.parametrize("number", [2, 5])
def test_swav(number: int) -> None:
    torch.manual_seed(0)
    pair = extract.Assigned(WIDTH, PROTOTYPES, epsilon=0.05).double()
    theirs = losses.SwaVLoss(temperature=0.1, sinkhorn_epsilon=0.05)
    weight = pair.prototypes.vectors.weight.detach()
    assert_compared(pair, weight, lambda scores: theirs(scores[:2], scores[2:]), number, temperature=0.1)


@pytest.mark.parametrize("number", [2, 5])
def test_dino(number: int) -> None:
    torch.manual_seed(0)
    pair = extract.Distilled(WIDTH, PROTOTYPES, temperature=Ramp(0.04, 0.04, until=0.0)).double()
    pair.temperature.fill_(0.04)
    theirs = losses.DINOLoss(output_dim=PROTOTYPES, teacher_temp=0.04, warmup_teacher_temp_epochs=0).double()
    assert_compared(
        pair, pair.slow, lambda scores: theirs([s.detach() for s in scores[:2]], scores), number, temperature=0.1
    )
