"""InfoNCE against lightly's losses (and pytorch-metric-learning's where it is installed); every scale is 1."""

from __future__ import annotations

import pytest
import torch

from nearfar import similarity
from nearfar.losses import infonce
from nearfar.method import Pairs

DEGREES = [0.05, 0.1, 0.5]


def _two_views(n: int = 40, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, width, dtype=torch.float64), torch.randn(n, width, dtype=torch.float64)


def _pairs(a: torch.Tensor, b: torch.Tensor) -> Pairs:
    x, key, slot = torch.cat([a, b]), torch.arange(len(a)).repeat(2), torch.arange(2 * len(a))
    return Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot)


def _same(mine, theirs) -> None:
    """Equal values and gradients of two functions of two views."""
    views = [v.requires_grad_() for v in _two_views()]
    got, want = mine(*views), theirs(*views)
    assert got.item() == pytest.approx(want.item(), rel=1e-10)
    for g, h in zip(torch.autograd.grad(got, views), torch.autograd.grad(want, views), strict=True):
        assert torch.allclose(g, h, rtol=0, atol=1e-12)


@pytest.mark.parametrize("degrees", DEGREES)
def test_nt_xent(degrees):
    loss = pytest.importorskip("lightly.loss").NTXentLoss(temperature=degrees)
    _same(lambda a, b: infonce(_pairs(a, b), similarity.cosine, temperature=degrees), loss)


@pytest.mark.parametrize("degrees", DEGREES)
def test_dcl(degrees):
    loss = pytest.importorskip("lightly.loss").DCLLoss(temperature=degrees)
    rule = {"temperature": degrees, "denominator": "negatives"}
    _same(lambda a, b: infonce(_pairs(a, b), similarity.cosine, **rule), loss)


@pytest.mark.parametrize("degrees", DEGREES)
def test_moco_queue(degrees):
    loss = pytest.importorskip("lightly.loss").NTXentLoss(temperature=degrees, memory_bank_size=(64, 16))
    query, key = _two_views()
    loss(query.float(), key.float())  # fills the bank
    loss.memory_bank.bank = loss.memory_bank.bank.double()
    query.requires_grad_()
    pairs = Pairs(query, loss.memory_bank.bank.clone(), positive=key, gather=False)
    got, want = infonce(pairs, similarity.cosine, temperature=degrees), loss(query, key)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)  # the bank was written in fp32
    g, h = torch.autograd.grad(got, query)[0], torch.autograd.grad(want, query)[0]
    assert torch.allclose(g, h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("degrees", DEGREES)
def test_supcon(degrees):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    key, slot = torch.arange(8).repeat(10), torch.arange(80)

    def mine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = torch.cat([a, b])
        return infonce(Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot), similarity.cosine, temperature=degrees)

    _same(mine, lambda a, b: losses.SupConLoss(temperature=degrees)(torch.cat([a, b]), key))
