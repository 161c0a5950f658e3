"""The hinge against nested loops, finite differences and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nearfar import similarity
from nearfar.errors import UsageError
from nearfar.losses.hinge import hinge
from nearfar.method import Pairs


def slow_hinge(pairs: Pairs, margin: float) -> float:
    """One comparison without leading dimensions, by dot product."""
    losses = []
    for i, anchor in enumerate(pairs.anchor):
        positives = [] if pairs.positive is None else [float(anchor @ pairs.positive[i])]
        negatives = []
        for j, other in enumerate(pairs.other):
            if pairs.anchor_slot is not None and pairs.anchor_slot[i] == pairs.other_slot[j]:
                continue
            same = pairs.anchor_key is not None and pairs.anchor_key[i] == pairs.other_key[j]
            (positives if same else negatives).append(float(anchor @ other))
        if positives:
            own = sum(positives) / len(positives)
            losses.append(sum(max(0.0, s - own + margin) for s in negatives))
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("keys", [False, True])
def test_hinge_is_the_nested_loop(slots: bool, positive: bool, keys: bool) -> None:
    draw = torch.Generator().manual_seed(3)
    anchor, own = (torch.randn(7, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    other = torch.randn(9, 4, generator=draw, dtype=torch.float64)
    pairs = Pairs(anchor, other, positive=own if positive else None, gather=False)
    if keys:  # one, several and no others of the anchor's key
        pairs = replace(
            pairs,
            anchor_key=torch.tensor([0, 1, 2, 3, 0, 1, 9]),
            other_key=torch.tensor([0, 0, 1, 2, 0, 4, 4, 2, 1]),
        )
    if slots:
        pairs = replace(pairs, anchor_slot=torch.arange(7), other_slot=torch.arange(9) - 1)
    if not keys and not positive:
        with pytest.raises(UsageError, match="no pair can be a positive"):
            hinge(pairs, similarity.dot, margin=0.5)
        return
    assert abs(hinge(pairs, similarity.dot, margin=0.5).item() - slow_hinge(pairs, 0.5)) < 1e-9


@pytest.mark.parametrize("row_by_row", [False, True])
def test_hinge_takes_the_curve_of_a_similarity(row_by_row: bool) -> None:
    draw = torch.Generator().manual_seed(4)
    anchor, other = (torch.randn(3, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    key, measure = torch.arange(3), similarity.clipped_dot(0.5)
    scores = 0.5 * torch.tanh(anchor @ other.T / 2 / 0.5)
    want = torch.relu(scores - scores.diag()[:, None] + 0.2).fill_diagonal_(0).sum(1).mean()
    pairs = Pairs(anchor, other, key, key, gather=False)
    if row_by_row:  # the same positives, told beside the others instead of among them
        pairs = Pairs(anchor, other, positive=other, anchor_slot=key, other_slot=key, gather=False)
    assert abs(hinge(pairs, measure, margin=0.2) - want) < 1e-12


def test_hinge_gradient_is_that_of_finite_differences() -> None:
    draw = torch.Generator().manual_seed(5)
    anchor, other = (torch.randn(2, 4, 3, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(2))
    key = torch.tensor([[0, 1, 2, 2], [0, 0, 1, 5]])

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return hinge(Pairs(a, b, key, key.flip(1), gather=False), similarity.cosine, margin=0.3)

    assert torch.autograd.gradcheck(loss, (anchor, other))


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan])
def test_hinge_refuses_a_margin_that_is_none(margin: float) -> None:
    z, key = torch.eye(2), torch.arange(2)
    with pytest.raises(UsageError, match="margin"):
        hinge(Pairs(z, z, key, key, gather=False), similarity.dot, margin=margin)


def test_hinge_without_any_positive_is_0_and_so_is_its_gradient() -> None:
    z = torch.eye(2, requires_grad=True)
    found = hinge(Pairs(z, z.detach(), torch.tensor([7, 8]), torch.arange(2)), similarity.dot, margin=1.0)
    found.backward()
    assert found.item() == 0 and z.grad is not None and z.grad.abs().sum() == 0
