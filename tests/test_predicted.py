"""Methods with a predictor (BYOL, SimSiam, MoCo v3, NNCLR): closed forms, slow twins, and what they ask of training."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_methods import toy_loop
from torch import nn
from toy import Tiny
from toys import double, toy_batch, toy_method, toy_of

from nearfar import extract, optim, schedules, similarity
from nearfar.encoders.norm import BatchNorm
from nearfar.encoders.vit import ViT
from nearfar.errors import UsageError
from nearfar.extract.neighbours import nearest
from nearfar.losses import attract, infonce
from nearfar.memory import Queue
from nearfar.method import Contrast, Pairs
from nearfar.methods import byol, moco_v3
from nearfar.views import asymmetric


def unit_rows(count: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


def predicted_loss(pair: extract.Predicted, online: list, slow: list, loss) -> float:
    batch = replace(toy_batch(len(online[0])), ids=torch.arange(len(online[0])))
    return sum(p.weight * float(loss(p, similarity.cosine)) for p in pair(online, slow, batch, None))


def test_attract_is_the_squared_distance_of_unit_vectors() -> None:
    a, p = (5 * unit_rows(7, 5, seed) for seed in (0, 1))
    found = attract(Pairs(a, a[:0], positive=p), similarity.cosine, best=1.0, scale=2.0)
    slow = np.mean([((x / np.linalg.norm(x) - y / np.linalg.norm(y)) ** 2).sum() for x, y in zip(a, p, strict=True)])
    assert float(found) == pytest.approx(slow, abs=1e-12)
    distance = attract(Pairs(a, a[:0], positive=p), similarity.negative_distance, best=0.0)
    assert float(distance) == pytest.approx(float((a - p).square().sum(1).mean()), abs=1e-11)


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (-1.0, 8.0)])
def test_byol_of_equal_and_opposite_embeddings(factor: float, expected: float) -> None:
    z = unit_rows(6, 8, 0)
    pair = extract.Predicted(nn.Identity())
    loss = partial(attract, best=1.0, scale=2.0)
    assert predicted_loss(pair, [factor * z, factor * 3 * z], [z, 2 * z], loss) == pytest.approx(expected, abs=1e-12)


def test_simsiam_at_its_least_is_minus_one_and_stops_the_other_side() -> None:
    z = unit_rows(6, 8, 0)
    pair = extract.Predicted(nn.Identity(), weight=0.5)
    assert predicted_loss(pair, [z, z], [z, z], partial(attract, best=0.0)) == pytest.approx(-1, abs=1e-12)
    first, second = (unit_rows(6, 8, seed).requires_grad_() for seed in (1, 2))
    pairs = pair([first, second], [first, second], toy_batch(6), None)
    attract(pairs[0], similarity.cosine, best=0.0).backward()  # first predicts second
    assert first.grad is not None and second.grad is None


def test_moco_v3_of_orthonormal_keys() -> None:
    """Both directions: 4 t log(1 + (B - 1) exp(-1 / t))."""
    t, keys = 0.2, torch.eye(9, dtype=torch.float64)
    pair = extract.Predicted(nn.Identity(), among=True, weight=2 * t)
    found = predicted_loss(pair, [keys, keys], [keys, keys], partial(infonce, temperature=t))
    assert found == pytest.approx(4 * t * math.log(1 + 8 * math.exp(-1 / t)), abs=1e-10)


def test_moco_v3_keeps_the_patch_embedding_of_a_transformer() -> None:
    net = ViT(32, 1, 2, channels=3, size=16, patch=4)
    method = moco_v3(encoder=net, size=16, hidden=32, width=16)
    assert method.loss.keywords == {"temperature": 0.2} and method.views.views[0].scale == (0.08, 1.0)
    assert not any(p.requires_grad for p in method.encoder.patches.parameters())
    assert isinstance(method.extract.pair.predictor[-1], BatchNorm)
    model = Contrast(method)
    model(toy_batch(8)).backward()
    assert all(p.grad is not None for p in model.encoder.blocks.parameters())


def test_nnclr_equals_nested_loops() -> None:
    t, queue = 0.3, Queue(width=6, length=10, views=(0,)).double()
    online = [3 * unit_rows(4, 6, seed) for seed in (1, 2)]
    batch = replace(toy_batch(4), ids=torch.tensor([7, 2, 9, 4]))
    pairs = extract.Neighbours(nn.Identity())(online, online, batch, queue)
    found = sum(p.weight * float(infonce(p, similarity.cosine, temperature=t)) for p in pairs)
    rows = nn.functional.normalize(queue.keys)  # unit in fp32 only
    expected = 0.0
    for z, other in (online, online[::-1]):
        for i in range(4):
            near = rows[max(range(10), key=lambda k, i=i, z=z: float(rows[k] @ z[i]))]
            scores = [float(near @ (o / o.norm())) / t for o in other]
            expected -= (scores[i] - math.log(sum(map(math.exp, scores)))) / 8
    assert found == pytest.approx(expected, abs=1e-10)


def test_the_nearest_row_of_several_is_the_first() -> None:
    rows = torch.eye(3)[[0, 1, 1, 2]]
    assert torch.equal(nearest(torch.tensor([[0.1, 5.0, 0.0], [0.0, 0.0, 2.0]]), rows), rows[[1, 3]])


def test_the_queue_of_nnclr_takes_the_first_view_alone() -> None:
    model = Contrast(toy_method("nnclr"))
    model(toy_batch(16))
    first = model.seen[1][0]
    model.after_step(0.5)
    assert int(model.memory.pointer) == 16
    torch.testing.assert_close(model.memory.keys[:16], nn.functional.normalize(first))


@pytest.mark.parametrize("name", ["byol", "simsiam", "moco_v3", "nnclr"])
def test_batch_statistics_are_those_of_one_view(name: str) -> None:
    """A view alone gives the embeddings it has beside the other."""
    torch.manual_seed(0)
    model = double(Contrast(toy_method(name, batch_norm=True)))
    batch = toy_batch(16, name=name)
    online, _ = model.embed(batch)
    views = model.views
    model.views = lambda batch: views(batch)[:1]
    alone, _ = model.embed(batch)
    torch.testing.assert_close(alone[0], online[0], rtol=0, atol=0)


def test_the_teacher_is_in_training_mode_and_has_statistics_of_its_own() -> None:
    model = Contrast(toy_method("byol", batch_norm=True))
    norms = [m for m in model.slow.modules() if isinstance(m, BatchNorm)]
    before = [norm.running_mean.clone() for norm in norms]
    model(toy_batch(16))
    assert all(norm.training for norm in norms)
    assert any(not torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))


def test_byols_teacher_stands_still_at_the_end() -> None:
    decay = byol(encoder=Tiny(), size=16, decay=0.9).teacher.decay
    assert [round(decay(p), 6) for p in (0.0, 0.5, 1.0)] == [0.9, 0.95, 1.0]


def test_the_two_views_of_byol_differ() -> None:
    first, second = asymmetric(224).views
    assert (first.blur_p, second.blur_p, first.solarise_p, second.solarise_p) == (1.0, 0.1, 0.0, 0.2)
    assert first.jitter == second.jitter == (0.4, 0.4, 0.2, 0.1)
    assert all(view.blur_p == 0 for view in asymmetric(32).views)


def test_simsiams_predictor_keeps_its_learning_rate(tmp_path) -> None:
    data = toy_of("simsiam").data(192)
    loop = toy_loop(Contrast(toy_method("simsiam")), data, epochs=4)
    loop()
    rates = {group["constant"]: group["lr"] for group in loop.optimizer.param_groups}
    assert rates == {True: loop.plan.peak, False: loop.plan.lr(loop.plan.total - 1)} and rates[False] < rates[True] / 5
    steady = {p for group in loop.optimizer.param_groups if group["constant"] for p in group["params"]}
    assert steady == set(loop.model.pair.predictor.parameters())


def test_weight_decay_goes_from_one_value_to_another() -> None:
    loop = toy_loop(Contrast(toy_method("byol")), toy_of("byol").data(128), epochs=5)
    loop.plan = replace(loop.plan, weight_decay=(0.04, 0.4))
    assert loop.plan.decay(0) == pytest.approx(0.04) and loop.plan.decay(loop.plan.total) == pytest.approx(0.4)
    assert loop.plan.decay(loop.plan.total // 2) == pytest.approx(0.22)
    loop.step(3, (loop.batch(3), None))
    for group in loop.optimizer.param_groups:
        assert group["weight_decay"] == (loop.plan.decay(3) if group["decayed"] else 0.0)


def test_each_gradient_is_cut_to_its_norm_by_itself() -> None:
    net = nn.Linear(3, 2)
    net.weight.grad, net.bias.grad = torch.full((2, 3), 2.0), torch.tensor([0.3, 0.4])
    optimizer = optim.build(net, name="sgd", lr=0.1, weight_decay=0.0)
    optim.clip_each(optimizer, 1.5)
    assert float(net.weight.grad.norm()) == pytest.approx(1.5, rel=1e-6)
    assert net.bias.grad.tolist() == pytest.approx([0.3, 0.4])


def test_a_ramp_without_length_is_at_its_end() -> None:
    assert schedules.Ramp(0.04, 0.07, until=0.0)(0.0) == 0.07


def test_attract_without_positives_is_refused() -> None:
    with pytest.raises(UsageError, match="positive"):
        attract(Pairs(torch.ones(2, 2), torch.ones(2, 2)), similarity.cosine)
