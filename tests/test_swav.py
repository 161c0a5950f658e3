"""Codes and their prediction: Sinkhorn and Knopp, swapped targets, the queue, small crops."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from toy import SIDE, Tiny
from toys import double, toy_batch, toy_method

from nearfar import methods, similarity
from nearfar.errors import UsageError
from nearfar.extract import Assigned, LatePrototypes, Queues, sinkhorn, swapped
from nearfar.losses import cross_entropy, divergence
from nearfar.method import Batch, Contrast, Pairs
from nearfar.similarity import unit
from nearfar.views import multi_crop


def scores_of(samples: int, count: int, seed: int = 0) -> Tensor:
    """Cosines of random vectors in 5 dimensions, far from evenly spread."""
    draw = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(n, 5, generator=draw, dtype=torch.float64) + 0.5 for n in (samples, count)]
    return unit(vectors[0]) @ unit(vectors[1]).T


def slow_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> np.ndarray:
    """As the paper tells it: a K x B table whose rows are made to sum to 1 / K, then whose columns to 1 / B."""
    samples, count = scores.shape
    table = np.exp(scores.numpy().T / epsilon)
    table = table / table.sum()
    for _ in range(iterations):
        for row in range(count):
            table[row] /= table[row].sum() * count
        for column in range(samples):
            table[:, column] /= table[:, column].sum() * samples
    return (table * samples).T


def slow_loss(online: list[Tensor], shares: list[Tensor], prototypes: Tensor, temperature: float) -> tuple[Tensor, int]:
    """Mean over all ordered pairs of a large view and another, a sample at a time; and how many pairs there are."""
    terms, pairs = [], 0
    for s, share in enumerate(shares):
        for v, z in enumerate(online):
            if v == s:
                continue
            pairs += 1
            for q, row in zip(share, z, strict=True):
                exponents = torch.stack([(row / row.norm()) @ (c / c.norm()) / temperature for c in prototypes])
                terms.append(-(q * (exponents - exponents.exp().sum().log())).sum())
    return torch.stack(terms).mean(), pairs


@pytest.mark.parametrize("epsilon", [0.03, 0.05, 0.5])
@pytest.mark.parametrize("iterations", [1, 3])
def test_codes_are_those_of_the_paper_s_table(epsilon: float, iterations: int) -> None:
    scores = scores_of(12, 7)
    found = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    np.testing.assert_allclose(found.numpy(), slow_sinkhorn(scores, epsilon, iterations), rtol=1e-10, atol=1e-14)


def test_codes_of_a_sample_sum_to_1_and_prototypes_come_to_have_equal_parts() -> None:
    three, many = (sinkhorn(scores_of(12, 7), iterations=n) for n in (3, 2000))
    torch.testing.assert_close(three.sum(1), torch.ones(12, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (three.sum(0) - 12 / 7).abs().max() > 1e-3
    torch.testing.assert_close(many.sum(0), torch.full((7,), 12 / 7, dtype=torch.float64), rtol=1e-10, atol=0)


def test_codes_of_equal_scores_are_equal() -> None:
    found = sinkhorn(torch.full((6, 4), 0.3, dtype=torch.float64))
    torch.testing.assert_close(found, torch.full((6, 4), 0.25, dtype=torch.float64), rtol=1e-12, atol=0)


def test_where_each_sample_is_a_prototype_code_and_loss_have_a_closed_form() -> None:
    count, epsilon, t = 6, 0.3, 0.1
    eye = torch.eye(count, dtype=torch.float64)
    codes = sinkhorn(eye, epsilon=epsilon)
    own = math.exp(1 / epsilon) / (math.exp(1 / epsilon) + count - 1)
    torch.testing.assert_close(codes.diagonal(), torch.full((count,), own, dtype=torch.float64), rtol=1e-10, atol=0)
    loss = cross_entropy(Pairs(eye, eye, target=codes, gather=False), similarity.cosine, temperature=t)
    assert loss.item() == pytest.approx(math.log(math.exp(1 / t) + count - 1) - own / t, abs=1e-10)


def test_codes_stay_in_fp32_at_the_smallest_epsilon() -> None:
    """The widest scores there are: some samples opposite to every prototype, some prototypes near no sample."""
    scores = torch.full((40, 8), -1.0)
    scores[:5, :4], scores[5:9, 4:] = 1.0, 0.9
    scores += 1e-3 * torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    found = sinkhorn(scores, epsilon=0.025)
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), sinkhorn(scores.double(), epsilon=0.025), rtol=1e-3, atol=1e-5)


def test_a_view_that_says_nothing_has_the_log_of_the_number_whatever_the_code() -> None:
    target = sinkhorn(scores_of(6, 9), epsilon=0.03)
    pairs = Pairs(torch.zeros(6, 5).double(), torch.randn(9, 5).double(), target=target, gather=False)
    assert cross_entropy(pairs, similarity.cosine).item() == pytest.approx(math.log(9), abs=1e-12)


def test_cross_entropy_is_the_divergence_and_the_entropy_of_the_target() -> None:
    target = sinkhorn(scores_of(6, 9))
    pairs = Pairs(scores_of(6, 4, 1), scores_of(9, 4, 2), target=target, gather=False)
    entropy = -torch.xlogy(target, target).sum(1).mean()
    one, two = (loss(pairs, similarity.cosine, temperature=1.0) for loss in (cross_entropy, divergence))
    torch.testing.assert_close(one, two + entropy, rtol=1e-12, atol=0)
    with pytest.raises(UsageError, match="target"):
        cross_entropy(replace(pairs, target=target[:, 1:]), similarity.cosine)


@pytest.mark.parametrize(("small", "terms"), [(0, 2), (6, 14), (8, 18)])
def test_one_comparison_a_view_is_the_mean_over_all_ordered_pairs(small: int, terms: int) -> None:
    draw = torch.Generator().manual_seed(3)
    online = [torch.randn(3, 4, generator=draw).double().requires_grad_() for _ in range(2 + small)]
    prototypes = torch.randn(5, 4, generator=draw).double()
    shares = [torch.softmax(torch.randn(3, 5, generator=draw).double(), 1) for _ in range(2)]
    pairs = swapped(online, shares, prototypes)
    assert len(pairs) == 2 + small
    found = torch.stack([p.weight * cross_entropy(p, similarity.cosine, temperature=0.1) for p in pairs]).sum()
    expected, counted = slow_loss(online, shares, prototypes, 0.1)
    assert counted == terms
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, two in zip(torch.autograd.grad(found, online), torch.autograd.grad(expected, online), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-13)


def test_the_method_is_its_parts_put_together_by_hand() -> None:
    model = double(Contrast(toy_method("swav", crops=3, queue=0)))
    loss = model(toy_batch())
    assert model.chance == pytest.approx(math.log(32))
    online = model.embed(toy_batch())[0]
    prototypes = model.pair.prototypes.vectors.weight
    codes = [torch.from_numpy(slow_sinkhorn(unit(z.detach()) @ prototypes.detach().T, 0.03, 3)) for z in online[:2]]
    torch.testing.assert_close(loss, slow_loss(online, codes, prototypes, 0.2)[0], rtol=1e-10, atol=0)


def test_prototypes_are_unit_before_each_comparison_and_codes_carry_no_gradient() -> None:
    model = Contrast(toy_method("swav"))
    weight = model.pair.prototypes.vectors.weight
    for _ in range(2):
        with torch.no_grad():
            weight.mul_(torch.linspace(0.1, 5, len(weight))[:, None])
        model(toy_batch())
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
    pairs = model.pair(*[[torch.randn(6, 32, requires_grad=True) for _ in range(3)]] * 2, toy_batch(6), None)
    assert not any(pair.target.requires_grad for pair in pairs)


def test_frozen_prototypes_stay_in_the_graph() -> None:
    model = Contrast(toy_method("swav", freeze=0.5))
    weight = model.pair.prototypes.vectors.weight
    sizes = []
    for progress in (0.4, 0.5, 0.9):
        model.zero_grad()
        model(toy_batch()).backward()
        assert model.encoder.net.layers[0].weight.grad.abs().sum() > 0
        sizes.append(weight.grad.abs().sum().item())
        model.after_step(progress)
    assert sizes[0] == sizes[1] == 0 < sizes[2]


def filled(queues: Queues, steps: int, width: int = 4, batch: int = 4) -> Tensor:
    """Puts `steps` batches into the queues; returns the embeddings of view 1."""
    draw = torch.Generator().manual_seed(8)
    put = [[torch.randn(batch, width, generator=draw) for _ in range(4)] for _ in range(steps)]
    for views in put:
        queues.remember(views, toy_batch(batch))
    return torch.cat([views[1] for views in put])


def test_the_queue_holds_each_large_view_s_own_embeddings() -> None:
    queues = Queues(width=4, length=12)
    put = filled(queues, 3)
    torch.testing.assert_close(queues.rows(1), unit(put))
    assert not torch.allclose(queues.rows(0), queues.rows(1))


@pytest.mark.parametrize(
    ("steps", "progress", "used"), [(2, 0.9, False), (3, 0.4, False), (3, 0.5, True), (4, 0.9, True)]
)
def test_the_queue_is_used_when_it_is_full_and_the_run_far_enough(steps: int, progress: float, used: bool) -> None:
    pair, queues = Assigned(4, 5, wait=0.5).double(), Queues(width=4, length=12).double()
    filled(queues, steps)
    pair.prototypes.advance(progress)
    views = [torch.randn(4, 4, generator=torch.Generator().manual_seed(n)).double() for n in range(3)]
    found = pair(views, views, toy_batch(4), queues)[1].target  # the second view's is the first one's code
    prototypes, rows = pair.prototypes().detach(), unit(views[0])
    everyone = torch.cat([rows, queues.rows(0)]) if used else rows
    expected = slow_sinkhorn(everyone @ prototypes.T, 0.05, 3)[:4]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-14)


def test_the_queue_does_not_hold_the_embeddings_of_its_own_step() -> None:
    model = Contrast(toy_method("swav", queue=16, wait=0.0))
    losses = [model(toy_batch()).item() for _ in range(2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and not model.memory.full
    model.after_step(0.1)
    assert model.memory.full
    torch.testing.assert_close(model.memory.rows(1), unit(model.seen[0][1]))


def test_a_queue_that_the_batch_does_not_divide_is_refused() -> None:
    memory = toy_method("swav", queue=128).memory
    memory.check_batch(64)
    with pytest.raises(UsageError, match="--queue 96"):
        memory.check_batch(48)


def assigned_of(rows: slice) -> tuple[Tensor, list[Tensor]]:
    """Gradient of the prototypes, and targets, for some rows of a global batch of 8, with a full queue of 10."""
    torch.manual_seed(2)
    pair, queues = Assigned(4, 5).double(), Queues(width=4, length=10).double()
    queues.full.fill_(True)
    views = [torch.randn(8, 4).double()[rows] for _ in range(3)]
    pairs = pair(views, views, Batch(torch.empty(0), torch.empty(0), torch.arange(8)[rows]), queues)
    loss = partial(cross_entropy, temperature=0.1)
    torch.stack([p.weight * loss(p, similarity.cosine) for p in pairs]).sum().backward()
    return pair.prototypes.vectors.weight.grad, [p.target for p in pairs]


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(assigned_of(slice(0, 5) if rank == 0 else slice(5, 8)), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_codes_are_of_the_samples_of_all_processes_and_the_queue_counts_once(tmp_path: Path) -> None:
    gradient, targets = assigned_of(slice(0, 8))
    mp.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for view, target in enumerate(targets):
        found = torch.cat([part[1][view] for part in parts])
        torch.testing.assert_close(found, target, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, gradient, rtol=1e-9, atol=1e-13)


class Counted(nn.Module):
    """A net that tells what it has seen."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.seen = nn.Conv2d(3, 8, 3, stride=2), []

    def forward(self, view: Tensor) -> list[Tensor]:
        self.seen.append(tuple(view.shape))
        return [self.conv(view)]


def test_views_of_one_size_go_through_the_encoder_in_one_pass() -> None:
    model = Contrast(methods.swav(encoder=Counted(), size=SIDE, hidden=8, width=8, prototypes=4))
    model.encoder.net.seen.clear()
    model(toy_batch(4))
    assert model.encoder.net.seen == [(8, 3, 16, 16), (16, 3, 8, 8)]


def test_multi_crop_has_two_large_views_and_small_ones_of_smaller_parts() -> None:
    views = multi_crop(224, crops=8, least=0.4, blur=(1.0, 0.1, 0.5), solarise=0.2).views
    assert [view.size for view in views] == [224, 224] + [96] * 8
    assert [view.scale for view in views] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8
    assert [view.blur_p for view in views] == [1.0, 0.1] + [0.5] * 8
    assert [view.solarise_p for view in views] == [0.0, 0.2] + [0.0] * 8
    tiny = methods.swav(encoder=Tiny(), size=32).views.views
    assert [view.size for view in tiny] == [32, 32, 16, 16, 16, 16]
    assert {view.blur_p for view in tiny} == {0.0}
    assert [view.size for view in multi_crop(32, crops=1, small=20).views] == [32, 32, 20]
    assert len(multi_crop(32, crops=0).views) == 2


def test_small_crops_are_a_whole_number_of_a_transformer_s_patches() -> None:
    assert [multi_crop(size, crops=1, multiple=p).views[2].size for size, p in ((224, 16), (28, 4), (64, 8))] == [
        96,
        16,
        24,
    ]
    model = Contrast(methods.dino(encoder="vit-mini", size=28, hidden=8, width=8, prototypes=4, crops=1))
    assert model(toy_batch(4)).isfinite()
    with pytest.raises(UsageError, match="--small 16"):
        methods.swav(encoder="vit-mini", size=28, small=14)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epsilon": 0.01}, "epsilon"),
        ({"wait": 1.5}, "wait"),
        ({"freeze": -0.1}, "freeze"),
        ({"prototypes": 1}, "prototypes"),
        ({"crops": -1}, "crops"),
        ({"least": 0.01}, "least"),
        ({"least": 1.5}, "least"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        toy_method("swav", **settings)


def test_late_prototypes_keep_their_place_in_the_run_in_the_state() -> None:
    prototypes = LatePrototypes(4, 8, freeze=0.5)
    prototypes.advance(0.7)
    again = LatePrototypes(4, 8, freeze=0.5)
    again.load_state_dict(prototypes.state_dict())
    again().sum().backward()
    assert again.vectors.weight.grad.abs().sum() > 0
