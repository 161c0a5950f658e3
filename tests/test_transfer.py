"""Plain classification as a contrastive method: cross entropy, quarter turns, a teacher's answers."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import Tiny
from toys import double, toy_batch, toy_method

from nearfar import extract, similarity
from nearfar.errors import UsageError
from nearfar.losses import divergence, infonce
from nearfar.method import Contrast, Pairs


def logits(model: Contrast) -> torch.Tensor:
    """Scores of the model's own classifier for the toy batch, views drawn anew: they are addressed."""
    with torch.no_grad():
        return torch.cat([model.pair.classes(z) for z in model.embed(toy_batch())[0]])


def test_it_is_the_cross_entropy_of_a_linear_layer() -> None:
    torch.manual_seed(0)
    model = double(Contrast(toy_method("rfs")))
    model.pair.classes.bias.data.normal_()
    expected = F.cross_entropy(logits(model), toy_batch().labels)
    torch.testing.assert_close(model(toy_batch()), expected, rtol=1e-12, atol=0)


def test_quarter_turns_are_a_second_question() -> None:
    torch.manual_seed(0)
    model = double(Contrast(toy_method("rfs", turns=True)))
    views = model.views(toy_batch())
    for turns, view in enumerate(views):
        assert torch.equal(view, torch.rot90(views[0], turns, (2, 3)))
    labels, turn = toy_batch().labels.repeat(4), torch.arange(4).repeat_interleave(16)
    z = torch.cat(model.embed(toy_batch())[0])
    expected = F.cross_entropy(model.pair.classes(z), labels) + F.cross_entropy(model.pair.turns(z), turn)
    torch.testing.assert_close(model(toy_batch()), expected, rtol=1e-12, atol=0)


def with_teacher() -> tuple[Contrast, nn.Module, nn.Module]:
    torch.manual_seed(1)
    encoder, classifier = Tiny(batch_norm=True), extract.Prototypes(Tiny.width, 4)
    head = nn.Sequential(extract.Head(nn.Identity()), classifier)
    return double(Contrast(toy_method("rfs", teacher=(encoder, head)))), encoder.double(), head.double()


def test_half_of_the_loss_is_the_divergence_from_the_teacher() -> None:
    model, encoder, head = with_teacher()
    view = model.views(toy_batch())[0]
    own = logits(model)
    theirs = torch.softmax(head(encoder.eval()(view)) / 4, dim=1)
    expected = 0.5 * F.cross_entropy(own, toy_batch().labels)
    expected += 0.5 * 16 * F.kl_div(torch.log_softmax(own / 4, dim=1), theirs, reduction="batchmean")
    torch.testing.assert_close(model.train()(toy_batch()), expected, rtol=1e-12, atol=0)


def test_a_teacher_from_an_earlier_run_stays_as_it_is() -> None:
    model = with_teacher()[0]
    before = copy.deepcopy(model.slow.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        model.train()
        model(toy_batch(epoch=step)).backward()
        optimizer.step()
        model.after_step(0.5)
    after = model.slow.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in model.slow.parameters())


def test_divergence_is_nothing_for_equal_answers_and_torch_s_otherwise() -> None:
    torch.manual_seed(2)
    z, other = torch.randn(7, 5, dtype=torch.float64, requires_grad=True), torch.randn(3, 5, dtype=torch.float64)
    same = Pairs(z, other, target=torch.softmax(z.detach() @ other.T / 2, dim=1), gather=False)
    assert abs(divergence(same, similarity.dot, temperature=2.0).item()) < 1e-15
    target = torch.softmax(torch.randn(7, 3, dtype=torch.float64), dim=1)
    target[0] = torch.tensor([1.0, 0, 0])
    found = divergence(replace(same, target=target), similarity.cosine, temperature=2.0)
    scores = F.cosine_similarity(z[:, None], other, dim=2) / 2
    expected = 4 * F.kl_div(torch.log_softmax(scores, dim=1), target, reduction="batchmean")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    one, two = (torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (found, expected))
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("target", [None, torch.ones(2, 2)])
def test_divergence_from_nothing_is_refused(target: torch.Tensor | None) -> None:
    with pytest.raises(UsageError, match="target"):
        divergence(Pairs(torch.ones(2, 4), torch.ones(3, 4), target=target), similarity.dot)


def test_a_cosine_classifier_is_one_argument_away() -> None:
    torch.manual_seed(0)
    method = toy_method("rfs")
    cosine = extract.KnownClasses(Tiny.width, 4, turns=False, distil=None, own=1.0)
    cosine.classes = extract.Prototypes(Tiny.width, 4, bias=False)
    changed = replace(method, extract=replace(method.extract, pair=cosine), similarity=similarity.cosine)
    model = double(Contrast(changed))
    z = torch.cat(model.embed(toy_batch())[0])
    scores = F.normalize(z) @ F.normalize(model.pair.classes.weight).T
    torch.testing.assert_close(model(toy_batch()), F.cross_entropy(scores, toy_batch().labels), rtol=1e-12, atol=0)


def test_more_losses_than_comparisons_are_refused() -> None:
    method = toy_method("rfs")
    with pytest.raises(UsageError, match="1 comparisons with 2 losses"):
        Contrast(replace(method, loss=(infonce, infonce)))(toy_batch())


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="label 3 with 3 classes"):
        Contrast(toy_method("rfs", classes=3))(toy_batch())
    with pytest.raises(UsageError, match="no"):
        Contrast(toy_method("rfs"))(replace(toy_batch(), labels=None))
