"""Heads against easyfsl, which works one task at a time: the same answers where both compute the same thing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.few_shot.heads import HEADS
from nearfar.similarity import unit

methods = pytest.importorskip("easyfsl.methods")
pytestmark = pytest.mark.oracle
TASKS, WAYS, SHOTS, QUERIES, WIDTH = 15, 5, 5, 15, 64


def tasks() -> tuple[Tensor, Tensor, Tensor]:
    """Supports, their labels, queries: noisy classes, features >= 0 as those of an encoder that ends in a ReLU."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(TASKS, WAYS, 1, WIDTH, generator=generator)
    rows = (0.5 * means + torch.randn(TASKS, WAYS, SHOTS + QUERIES, WIDTH, generator=generator)).relu()
    labels = torch.arange(WAYS).repeat_interleave(SHOTS).expand(TASKS, -1)
    return rows[:, :, :SHOTS].flatten(1, 2), labels, rows[:, :, SHOTS:].flatten(1, 2)


def theirs(method: type, support: Tensor, labels: Tensor, query: Tensor, **settings: object) -> Tensor:
    """Their answers, task by task."""
    answers = []
    for one in range(len(support)):
        model = method(nn.Identity(), **settings)
        model.process_support_set(support[one], labels[one])
        answers.append(model(query[one]).detach().argmax(dim=1))
    return torch.stack(answers)


@pytest.mark.parametrize(("head", "name"), [("ncm-raw", "PrototypicalNetworks"), ("cosine", "SimpleShot")])
def test_nearest_means_answer_alike(head: str, name: str) -> None:
    given = tasks()
    found = HEADS[head](*given, ways=WAYS).argmax(dim=2)
    assert torch.equal(found, theirs(getattr(methods, name), *given))


def test_pt_map_answers_alike() -> None:
    """Theirs neither normalises nor reduces before the first round: it is given unit features. Near ties may differ."""
    support, labels, query = tasks()
    found = HEADS["pt-map"](support, labels, query, ways=WAYS, query_prior="uniform").argmax(dim=2)
    other = theirs(methods.PTMAP, unit(support), labels, unit(query), fine_tuning_steps=20)
    truth = torch.arange(WAYS).repeat_interleave(QUERIES)
    right, their_right = ((answers == truth).double().mean() for answers in (found, other))
    assert right >= their_right - 0.01 and (found == other).double().mean() > 0.9
