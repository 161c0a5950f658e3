"""Optimisers against per-tensor twins, the schedule against its closed form, state by name bit for bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from nearfar import optim
from nearfar.errors import IntegrityError, UsageError

RATES = (0.5, 0.2, 0.7)


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).double()


def step(
    net: nn.Module, optimizer: torch.optim.Optimizer, number: int, *, lr: float = 0.1, factor: float = 1.0
) -> None:
    generator = torch.Generator().manual_seed(number)
    for p in net.parameters():
        p.grad = factor * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()


def trained(name: str, rates=RATES, *, factor: float = 1.0, **settings) -> nn.Module:
    net = model()
    optimizer = optim.build(net, name=name, lr=1.0, **settings)
    for number, lr in enumerate(rates):
        step(net, optimizer, number, lr=lr, factor=factor)
    return net


def lars_twin(w: list, gradients: list, rates, *, decay: float, adapt: bool, inside: bool = False) -> list:
    """All steps of one tensor, number by number; `inside` is the other dialect."""
    v = [0.0] * len(w)
    for g, lr in zip(gradients, rates, strict=True):
        g = [g[i] + decay * w[i] for i in range(len(w))]
        size, slope = math.sqrt(sum(x * x for x in w)), math.sqrt(sum(x * x for x in g))
        ratio = 0.001 * size / slope if adapt and size > 0 and slope > 0 else 1.0
        v = [0.9 * v[i] + ratio * g[i] * (lr if inside else 1) for i in range(len(w))]
        w = [w[i] - v[i] * (1 if inside else lr) for i in range(len(w))]
    return w


def largest_difference(net: nn.Module, rates, *, inside: bool) -> float:
    start, differences = model(), []
    draws = []
    for number in range(len(rates)):
        generator = torch.Generator().manual_seed(number)
        draws.append([torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in start.parameters()])
    for number, (before, after) in enumerate(zip(start.parameters(), net.parameters(), strict=True)):
        gradients, wide = [draw[number].flatten().tolist() for draw in draws], before.ndim > 1
        twin = lars_twin(before.flatten().tolist(), gradients, rates, decay=0.1 * wide, adapt=wide, inside=inside)
        differences.append((after.flatten() - torch.tensor(twin, dtype=torch.float64)).abs().max().item())
    return max(differences)


def test_lars_equals_its_twin_with_the_rate_outside_the_buffer():
    net = trained("lars", weight_decay=0.1)
    assert largest_difference(net, RATES, inside=False) < 1e-12
    assert largest_difference(net, RATES, inside=True) > 1e-3


def test_lars_dialects_agree_at_a_constant_rate():
    net = trained("lars", (0.3, 0.3, 0.3), weight_decay=0.1)
    assert largest_difference(net, (0.3, 0.3, 0.3), inside=True) < 1e-12


def test_lars_without_decay_ignores_the_scale_of_the_loss_except_on_vectors():
    one, hundred = trained("lars", weight_decay=0.0), trained("lars", weight_decay=0.0, factor=100.0)
    for a, b in zip(one.parameters(), hundred.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15) is (a.ndim > 1)


def test_lars_vectors_are_plain_momentum_sgd():
    lars, sgd = trained("lars", weight_decay=0.1), trained("sgd", weight_decay=0.1)
    for a, b in zip(lars.parameters(), sgd.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15) is (a.ndim <= 1)


def test_lars_zero_weights_and_zero_gradients_stay_finite():
    net = nn.Linear(2, 2).double()
    nn.init.zeros_(net.weight)
    optimizer = optim.build(net, name="lars", lr=0.5, weight_decay=0.0)
    net.weight.grad = torch.ones(2, 2, dtype=torch.float64)
    optimizer.step()
    assert net.weight.tolist() == [[-0.5, -0.5]] * 2  # a tensor of norm 0 is not adapted
    net.weight.grad = torch.zeros(2, 2, dtype=torch.float64)
    optimizer.step()
    assert torch.allclose(net.weight, torch.full((2, 2), -0.95, dtype=torch.float64))


@pytest.mark.parametrize("name", optim.NAMES)
def test_only_tensors_of_two_and_more_dimensions_decay(name):
    net = model()
    net.register_parameter("temperature", nn.Parameter(torch.tensor(2.0, dtype=torch.float64)))
    nn.init.ones_(net[0].bias)
    before = copy.deepcopy(net)
    optimizer = optim.build(net, name=name, lr=0.1, weight_decay=0.5)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for a, b in zip(before.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b) is (a.ndim <= 1)


@pytest.mark.parametrize("name", optim.NAMES)
def test_frozen_parameters_are_not_held(name):
    net = model()
    net[0].requires_grad_(False)
    held = {
        id(p) for group in optim.build(net, name=name, lr=0.1, weight_decay=0.5).param_groups for p in group["params"]
    }
    assert held == {id(p) for p in net.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "lras"}, "did you mean 'lars'"),
        ({"name": "sgd", "lr": -1.0}, "lr is -1"),
        ({"name": "sgd", "lr": math.nan}, "lr is nan"),
        ({"name": "sgd", "weight_decay": -1e-4}, "weight_decay is"),
        ({"name": "sgd", "momentum": 1.0}, "to below 1"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(UsageError, match=words):
        optim.build(model(), **{"lr": 0.1, "weight_decay": 0.0} | settings)


def test_nothing_to_train_is_an_error():
    with pytest.raises(UsageError, match="nothing to train"):
        optim.build(model().requires_grad_(False), name="sgd", lr=0.1, weight_decay=0.0)


def test_schedule_warms_up_linearly_then_follows_half_a_cosine():
    rate = [optim.schedule(s, total=110, warmup=10, peak=2.0, final=0.5) for s in range(112)]
    assert rate[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rate[10] == 2.0
    assert rate[60] == pytest.approx(1.25)  # half way: the mean of peak and final
    assert rate[35] == pytest.approx(0.5 + 1.5 * (1 + math.sqrt(0.5)) / 2)
    assert rate[110] == rate[111] == 0.5
    assert all(a > b for a, b in zip(rate[10:110], rate[11:111], strict=True))


def test_schedule_without_warmup_and_of_nothing_but_warmup():
    assert optim.schedule(0, total=10, warmup=0, peak=1.0) == 1.0
    assert optim.schedule(9, total=10, warmup=10, peak=1.0) == 1.0
    assert optim.schedule(10, total=10, warmup=10, peak=1.0) == 0.0
    with pytest.raises(UsageError, match="11 steps of warm-up in a run of 10"):
        optim.schedule(0, total=10, warmup=11, peak=1.0)


def test_scaled_lr():
    assert optim.scaled_lr(0.3, 4096) == pytest.approx(4.8)


@pytest.mark.parametrize("name", optim.NAMES)
def test_named_state_returns_bit_for_bit_and_the_steps_after_it_are_the_same(name):
    net = model().float()
    optimizer = optim.build(net, name=name, lr=0.1, weight_decay=0.01)
    for number in range(3):
        step(net, optimizer, number)
    saved = {key: t.clone() for key, t in optim.named_state(net, optimizer).items()}
    assert {key.split("/")[1] for key in saved} == set(optim.KEYS[type(optimizer)])
    other = copy.deepcopy(net)
    again = optim.build(other, name=name, lr=0.1, weight_decay=0.01)
    optim.load_named_state(other, again, saved)
    loaded = optim.named_state(other, again)
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[key], saved[key]) and loaded[key].dtype == saved[key].dtype for key in saved)
    for number in range(3, 6):
        step(net, optimizer, number)
        step(other, again, number)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert not any(torch.equal(saved[key], t) for key, t in optim.named_state(net, optimizer).items())  # no aliases


@pytest.mark.parametrize("name", optim.NAMES)
def test_named_state_before_the_first_gradient(name):
    net = model().float()
    optimizer = optim.build(net, name=name, lr=0.1, weight_decay=0.01)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    optimizer.step()
    saved = optim.named_state(net, optimizer)
    assert saved["3.bias/none"].numel() == 0 and "0.weight/none" not in saved
    again = optim.build(net, name=name, lr=0.1, weight_decay=0.01)
    optim.load_named_state(net, again, saved)
    assert optim.named_state(net, again).keys() == saved.keys()


def test_sgd_without_momentum_has_no_state():
    net = model()
    optimizer = optim.build(net, name="sgd", lr=0.1, weight_decay=0.0, momentum=0.0)
    step(net, optimizer, 0)
    optim.load_named_state(net, optimizer, optim.named_state(net, optimizer))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("0.weight/exp_avg"), "'0.weight/exp_avg' is missing"),
        (lambda s: [s.pop(f"1.bias/{k}") for k in ("step", "exp_avg", "exp_avg_sq")], "'1.bias/step' is missing"),
        (lambda s: s.update({"9.weight/step": torch.zeros(())}), "'9.weight/step' belongs to no"),
        (lambda s: s.update({"0.bias/none": torch.empty(0)}), "'0.bias/step' belongs to no"),
        (lambda s: s.update({"0.weight/exp_avg": torch.zeros(3)}), "'0.weight/exp_avg' is torch.float32 .3., expected"),
        (lambda s: s.update({"0.bias/step": torch.zeros((), dtype=torch.float64)}), "expected torch.float32"),
    ],
)
def test_damaged_named_state_is_refused_and_changes_nothing(change, words):
    net = model()
    optimizer = optim.build(net, name="adamw", lr=0.1, weight_decay=0.01)
    step(net, optimizer, 0)
    kept = {key: t.clone() for key, t in optim.named_state(net, optimizer).items()}
    damaged = dict(kept)
    change(damaged)
    with pytest.raises(IntegrityError, match=words):
        optim.load_named_state(net, optimizer, damaged)
    assert all(torch.equal(t, kept[key]) for key, t in optim.named_state(net, optimizer).items())


def test_state_of_another_optimiser_is_refused():
    net = model()
    one = optim.build(net, name="sgd", lr=0.1, weight_decay=0.01)
    step(net, one, 0)
    with pytest.raises(IntegrityError, match=r"'0.weight/step' is missing"):
        optim.load_named_state(
            net, optim.build(net, name="adamw", lr=0.1, weight_decay=0.0), optim.named_state(net, one)
        )
