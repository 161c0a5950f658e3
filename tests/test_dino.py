"""Self-distillation: targets of the slow copy, their centre and temperature, the slow prototypes, the head."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_swav import slow_loss
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from toy import Tiny
from toys import double, toy_batch, toy_method

from nearfar import methods
from nearfar.encoders.norm import BatchNorm
from nearfar.errors import UsageError
from nearfar.extract import Distilled
from nearfar.method import Contrast, advance
from nearfar.schedules import Ramp
from nearfar.similarity import unit
from nearfar.tasks.build import check


def distilled(**settings: object) -> Distilled:
    torch.manual_seed(0)
    return Distilled(4, 6, **{"temperature": Ramp(0.04, 0.07, until=0.5), **settings}).double()


def embeddings(views: int, rows: int = 5, seed: int = 1) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 4, generator=draw, dtype=torch.float64) for _ in range(views)]


@pytest.mark.parametrize(("small", "terms"), [(0, 2), (3, 8), (8, 18)])
def test_the_method_is_its_parts_put_together_by_hand(small: int, terms: int) -> None:
    model = double(Contrast(toy_method("dino", crops=small)))
    model.pair.centre.copy_(torch.linspace(-0.3, 0.3, 64))
    model.pair.slow.normal_(generator=torch.Generator().manual_seed(4))
    loss = model(toy_batch())
    assert model.chance == pytest.approx(math.log(64))
    online, slow = model.embed(toy_batch())
    targets = []
    for z in slow:
        raised = torch.exp((unit(z) @ unit(model.pair.slow).T - model.pair.centre) / model.pair.temperature)
        targets.append(raised / raised.sum(dim=1, keepdim=True))
    expected, counted = slow_loss(online, targets, model.pair.prototypes.vectors.weight, 0.1)
    assert (len(slow), len(online), counted) == (2, 2 + small, terms)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


def test_the_centre_goes_to_the_mean_of_the_answers_after_use() -> None:
    """A constant answer m gives m (1 - 0.9^n) after n steps; looking twice in a step counts once."""
    pair, views = distilled(), embeddings(2)
    mean = torch.cat([unit(z) @ unit(pair.slow).T for z in views]).mean(dim=0)
    for n in range(5):
        torch.testing.assert_close(pair.centre, mean * (1 - 0.9**n), rtol=1e-12, atol=1e-15)
        for _ in range(2):
            targets = pair(views, views, toy_batch(5), None)
        raw = (unit(views[1]) @ unit(pair.slow).T - pair.centre) / pair.temperature
        torch.testing.assert_close(targets[0].target, torch.softmax(raw, dim=1), rtol=1e-12, atol=0)
        pair.advance(0.0)
    before = pair.centre.clone()
    pair.advance(0.0)
    assert torch.equal(pair.centre, before), "no step in between"


def test_the_temperature_rises_and_is_part_of_the_state() -> None:
    pair, found = distilled(), []
    for progress in (0.0, 0.25, 0.5, 1.0):
        pair.advance(progress)
        found.append(pair.temperature.item())
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert {"temperature", "centre", "slow", "prototypes.progress"} <= pair.state_dict().keys()


def test_the_slow_prototypes_begin_alike_and_follow() -> None:
    pair = distilled()
    weight = pair.prototypes.vectors.weight
    assert torch.equal(pair.slow, weight) and pair.slow.data_ptr() != weight.data_ptr()
    start = pair.slow.clone()
    weight.data.fill_(1.0)
    for _ in range(7):
        pair.follow(0.9)
    torch.testing.assert_close(pair.slow, 1 - (1 - start) * 0.9**7, rtol=1e-12, atol=1e-15)


def test_a_step_moves_network_and_prototypes_of_the_slow_copy_alike() -> None:
    model = double(Contrast(toy_method("dino", decay=0.9)))
    with torch.no_grad():
        for tensor in (model.pair.slow, *model.slow.parameters()):
            tensor.zero_()
        for tensor in [*model.encoder.parameters(), *model.head.parameters(), *model.pair.parameters()]:
            tensor.fill_(1.0)
    model.after_step(0.0)
    for tensor in (model.pair.slow, *model.slow.parameters()):
        torch.testing.assert_close(tensor, torch.full_like(tensor, 0.1), rtol=1e-12, atol=0)
    model.after_step(1.0)
    torch.testing.assert_close(model.pair.slow, torch.full_like(model.pair.slow, 0.1), rtol=1e-12, atol=0)


def test_targets_carry_no_gradient_and_prototypes_do_not_while_frozen() -> None:
    pair = distilled(freeze=0.5)
    views = [z.requires_grad_() for z in embeddings(3)]
    for progress, moved in ((0.0, False), (0.5, True)):
        advance(pair, progress)
        pairs = pair(views, views[:2], toy_batch(5), None)
        assert not any(p.target.requires_grad for p in pairs)
        weight = pair.prototypes.vectors.weight
        (gradient,) = torch.autograd.grad(sum(p.other.square().sum() for p in pairs), weight)
        assert bool(gradient.abs().sum() > 0) == moved


def test_cosines_are_what_a_weight_normalised_layer_of_length_one_says() -> None:
    pair, z = distilled(), embeddings(1)[0]
    layer = weight_norm(nn.Linear(4, 6, bias=False).double())
    layer.parametrizations.weight.original0.data.fill_(1.0)
    layer.parametrizations.weight.original1.data.copy_(pair.slow)
    pair([z, z], [z, z], toy_batch(5), None)
    torch.testing.assert_close(pair.mean, layer(unit(z)).mean(dim=0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", [False, True])
def test_the_head_begins_as_the_paper_s(norm: bool) -> None:
    torch.manual_seed(0)
    head = methods.dino(encoder=Tiny(), size=32, hidden=300, width=200, norm=norm, prototypes=8).extract.head
    linears = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linears] == [(300, 32), (300, 300), (200, 300)]
    assert all(layer.weight.std().item() == pytest.approx(0.02, rel=0.05) for layer in linears)
    assert all(layer.bias is None or not layer.bias.any() for layer in linears)
    assert [layer.bias is None for layer in linears] == [norm, norm, False]
    assert sum(isinstance(layer, BatchNorm) for layer in head.modules()) == 2 * norm
    assert sum(isinstance(layer, nn.GELU) for layer in head.modules()) == 2


def test_a_collapse_to_one_prototype_is_undone_by_the_centre() -> None:
    """Where the slow copy gives the same answer to everything, the centre takes it away: all shares become alike."""
    pair = distilled(temperature=Ramp(0.04, 0.04, until=0.0))
    same = [torch.ones(5, 4, dtype=torch.float64)] * 2
    first = pair(same, same, toy_batch(5), None)[0].target
    for _ in range(200):
        pair(same, same, toy_batch(5), None)
        pair.advance(0.5)
    last = pair(same, same, toy_batch(5), None)[0].target
    assert first.max() > 0.9
    torch.testing.assert_close(last, torch.full_like(last, 1 / 6), rtol=1e-5, atol=0)


def test_two_runs_have_a_centre_of_their_own() -> None:
    one = Contrast(toy_method("dino"))
    two = copy.deepcopy(one)
    one(toy_batch())
    one.after_step(0.1)
    assert one.pair.centre.abs().sum() > 0 and not two.pair.centre.any()


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"target_temperature": 0.0}, "temperature"), ({"centre": 1.5}, "momentum"), ({"freeze": 2.0}, "freeze")],
)
def test_settings_out_of_their_range_are_refused(settings: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        toy_method("dino", **settings)


def test_its_usual_training_is_the_paper_s() -> None:
    settings = check({"method": "dino"})
    assert (settings.optimizer, settings.lr, settings.clip) == ("adamw", 0.0005, 3.0)
    assert (settings.weight_decay, settings.final_decay) == (0.04, 0.4)


def test_settings_of_an_optimiser_go_with_it() -> None:
    own, other = check({"method": "dino"}), check({"method": "dino", "optimizer": "sgd"})
    assert (own.optimizer, own.clip, own.final_decay, own.weight_decay) == ("adamw", 3.0, 0.4, 0.04)
    assert (other.clip, other.final_decay, other.weight_decay, other.lr) == (None, None, 5e-4, 0.12)
    assert check({"method": "simsiam", "optimizer": "adamw"}).lr == 0.001
