"""The hinge, and MGECL's two granularities, against nested loops, closed forms and the wrong forms in circulation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from test_episodic_methods import batch_of, embeddings
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from toy import SIDE, Tiny

from nearfar import similarity
from nearfar.distributed import mean_value, rank
from nearfar.episode import Shape
from nearfar.errors import UsageError
from nearfar.losses.hinge import hinge
from nearfar.method import Batch, Contrast, Method, Pairs
from nearfar.methods.mgecl import mgecl
from nearfar.similarity import unit

SHAPE = Shape(ways=3, shots=2, queries=4, tasks=2)
SMALL = {"size": SIDE, "ways": 3, "shots": 2, "queries": 4, "tasks": 2}
ALONE = {"class": {"instance_weight": 0.0}, "instance": {"class_weight": 0.0}}


def loss_of(method: Method, online: list[Tensor]) -> Tensor:
    """What a method makes of embeddings: all images, then further views of the supports."""
    batch = Batch(torch.empty(0), torch.empty(0), torch.arange(len(online[0])))
    model = Contrast(method)
    terms = model.terms(model.pair(online, online, batch, None))
    return torch.stack([pairs.weight * loss(pairs, measure) for pairs, loss, measure in terms]).sum()


def mgecl_loss(shape: Shape, online: list[Tensor], **settings: object) -> Tensor:
    sizes = {"ways": shape.ways, "shots": shape.shots, "queries": shape.queries, "tasks": shape.tasks}
    return loss_of(mgecl(encoder=Tiny(), size=SIDE, views=max(len(online) - 1, 1), **sizes, **settings), online)


def slow_class(z: Tensor, shape: Shape, margin: float, *, renormalise: bool = False) -> float:
    losses = []
    for episode in z.split(shape.images):
        rows = [row / row.norm() for row in episode]
        support, query = rows[: shape.ways * shape.shots], rows[shape.ways * shape.shots :]
        means = [sum(support[c * shape.shots : (c + 1) * shape.shots]) / shape.shots for c in range(shape.ways)]
        means = [mean / mean.norm() for mean in means] if renormalise else means
        for number, q in enumerate(query):
            own = number // shape.queries
            lacks = [max(0.0, float(q @ means[c] - q @ means[own]) + margin) for c in range(shape.ways) if c != own]
            losses.append(sum(lacks))
    return sum(losses) / len(losses)


def slow_instance(
    online: list[Tensor], shape: Shape, temperature: float, *, shots_as_negatives: bool = True, itself: bool = False
) -> float:
    supports, losses = shape.ways * shape.shots, []
    for number, episode in enumerate(online[0].split(shape.images)):
        seen = [episode[:supports], *(view[number * supports : (number + 1) * supports] for view in online[1:])]
        for i in range(supports):
            positives, everyone = [], []
            for view, rows in enumerate(seen):
                for j in range(supports):
                    if (view == 0 and i == j) and not itself:
                        continue
                    if i // shape.shots == j // shape.shots and i != j and not shots_as_negatives:
                        continue
                    cosine = torch.cosine_similarity(seen[0][i], rows[j], dim=0)
                    everyone.append(math.exp(float(cosine) / temperature))
                    if i == j:
                        positives.append(everyone[-1])
            losses.append(sum(-math.log(share / sum(everyone)) for share in positives) / len(positives))
    return sum(losses) / len(losses)


def online_of(shape: Shape, views: int) -> list[Tensor]:
    further = Shape(ways=shape.ways, shots=shape.shots, queries=1, tasks=shape.tasks)
    supports = shape.tasks * shape.ways * shape.shots
    return [embeddings(shape), *(embeddings(further, seed=number)[:supports] for number in range(1, views + 1))]


SHAPES = [SHAPE, Shape(ways=5, shots=1, queries=1), Shape(ways=2, shots=4, queries=3, tasks=3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("renormalise", [False, True])
def test_class_term_is_the_nested_loop(shape: Shape, renormalise: bool) -> None:
    settings = {"margin": 0.4, "renormalise": renormalise}
    found = mgecl_loss(shape, online_of(shape, 0), instance_weight=0.0, **settings)
    assert abs(found.item() - slow_class(embeddings(shape), shape, 0.4, renormalise=renormalise)) < 1e-9


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("shots_as_negatives", [False, True])
def test_instance_term_is_the_nested_loop(shape: Shape, views: int, itself: bool, shots_as_negatives: bool) -> None:
    settings = {"itself": itself, "shots_as_negatives": shots_as_negatives}
    online = online_of(shape, views)
    found = mgecl_loss(shape, online, class_weight=0.0, temperature=0.3, **settings)
    assert abs(found.item() - slow_instance(online, shape, 0.3, **settings)) < 1e-9


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    online = online_of(SHAPE, 2)
    found = mgecl_loss(SHAPE, online, class_weight=0.5, instance_weight=2.0)
    both = 0.5 * slow_class(online[0], SHAPE, 0.5) + 2 * slow_instance(online, SHAPE, 0.1)
    assert abs(found.item() - both) < 1e-9


def test_a_term_of_weight_0_is_absent() -> None:
    whole = mgecl(encoder=Tiny(), **SMALL, views=2)
    assert len(whole.loss) == len(whole.similarity) == 2 and len(whole.views.views) == 3
    only_class, only_instance = (mgecl(encoder=Tiny(), **SMALL, views=2, **ALONE[name]) for name in ALONE)
    assert [method.loss[0].func.__name__ for method in (only_class, only_instance)] == ["hinge", "infonce"]
    assert len(only_class.loss) == len(only_class.similarity) == len(only_class.views.views) == 1
    assert len(only_instance.loss) == len(only_instance.similarity) == 1 and len(only_instance.views.views) == 3


@pytest.mark.parametrize("wrong", [{"class_weight": 0.0, "instance_weight": 0.0}, {"class_weight": -1.0}, {"views": 0}])
def test_weights_and_views_that_leave_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="weight"):
        mgecl(encoder=Tiny(), **SMALL, **wrong)


def perfect(ways: int, queries: int) -> tuple[Shape, Tensor]:
    """An episode of one shot in which every image is the unit vector of its class."""
    shape = Shape(ways=ways, shots=1, queries=queries)
    return shape, torch.cat([torch.eye(ways), torch.eye(ways).repeat_interleave(queries, 0)]).double()


def noted_form(z: Tensor, shape: Shape, margin: float) -> Tensor:
    """The class term as a sketch in circulation has it, with the right class's score added: what ours must not be."""
    support, query = (unit(part) for part in shape.parted(z))
    scores = query @ support.mT
    own = torch.eye(shape.ways, dtype=torch.bool).repeat_interleave(shape.queries, 0)
    lacks = torch.relu(scores + scores[:, own].unsqueeze(-1) + margin)
    return lacks.masked_fill(own, 0).sum(-1).mean()


def test_a_perfect_match_costs_nothing_where_the_wrong_sign_costs_6() -> None:
    shape, z = perfect(5, 3)
    assert mgecl_loss(shape, [z], instance_weight=0.0, margin=0.5).item() == 0
    assert noted_form(z, shape, 0.5).item() == pytest.approx(4 * 1.5)


@pytest.mark.parametrize("ways", [2, 5])
def test_embeddings_of_zero_cost_the_margin_for_each_other_class(ways: int) -> None:
    shape = Shape(ways=ways, shots=2, queries=3)
    z = torch.zeros(shape.images, 4, dtype=torch.float64)
    assert mgecl_loss(shape, [z], instance_weight=0.0, margin=0.3).item() == pytest.approx(0.3 * (ways - 1), abs=1e-12)


def test_one_step_raises_the_cosine_with_the_own_mean_and_the_wrong_sign_lowers_it() -> None:
    shape = Shape(ways=5, shots=1, queries=15)

    def own_cosine(z: Tensor) -> float:
        support, query = (unit(part) for part in shape.parted(z))
        return float((query.unflatten(1, (shape.ways, -1)) * support.unsqueeze(2)).sum(-1).mean())

    for loss, rises in ((lambda z: mgecl_loss(shape, [z], instance_weight=0.0), True), (noted_form, False)):
        z = embeddings(shape, 64).requires_grad_()
        before = own_cosine(z.detach())
        (loss(z) if rises else noted_form(z, shape, 0.5)).backward()
        after = own_cosine(z.detach() - 5 * z.grad)
        assert (after > before + 1e-3) if rises else (after < before - 1e-3)


@pytest.mark.parametrize("settings", [{}, *ALONE.values(), {"shots_as_negatives": False, "itself": True}])
def test_gradient_reaches_every_weight_and_a_step_lowers_the_loss(settings: dict) -> None:
    torch.manual_seed(0)
    model, batch = Contrast(mgecl(encoder=Tiny(), **SMALL, views=2, **settings)), batch_of(SHAPE)
    before = model(batch)
    before.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.003 * p.grad
    assert model(batch) < before


@pytest.mark.parametrize("settings", [{"class_weight": 0.0}, {"instance_weight": 0.0}])
def test_order_of_episodes_classes_and_images_says_nothing(settings: dict) -> None:
    def turned(rows: Tensor, shots: list[int], queries: list[int]) -> Tensor:
        """Episodes, classes, and the images of a class in another order."""
        supports = SHAPE.ways * SHAPE.shots
        episodes = rows.unflatten(0, (SHAPE.tasks, -1))[[1, 0]]
        parts = [episodes[:, :supports], episodes[:, supports:]]
        mixed = [
            part.unflatten(1, (SHAPE.ways, -1))[:, [2, 0, 1]][:, :, order].flatten(1, 2)
            for part, order in zip(parts, (shots, queries), strict=True)
            if part.shape[1]
        ]
        return torch.cat(mixed, dim=1).flatten(0, 1)

    online = online_of(SHAPE, 2)
    again = [turned(rows, [1, 0], [2, 0, 3, 1]) for rows in online]
    one, two = (mgecl_loss(SHAPE, rows, **settings) for rows in (online, again))
    assert abs(one - two) < 1e-12


WEIGHT = torch.randn(5, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
FOUR = replace(SHAPE, tasks=4)


def distributed_case(start: int, stop: int) -> dict[str, Tensor]:
    """Loss of some of four episodes, and the gradient of a weight behind them, averaged as DDP does."""
    weight, online = WEIGHT.clone().requires_grad_(), online_of(FOUR, 1)
    mine = [
        (rows.unflatten(0, (FOUR.tasks, -1))[start:stop].flatten(0, 1) if stop > start else rows[:0]) @ weight
        for rows in online
    ]
    loss = mgecl_loss(FOUR, mine)
    loss.backward()
    assert weight.grad is not None
    return {"loss": loss.detach(), "gradient": mean_value(weight.grad)}


def work(number: int, folder: Path) -> None:
    """One of two processes, with unequal shares of the episodes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    found = distributed_case(*((0, 3), (3, 4))[rank()])
    z, key = torch.eye(2), torch.arange(2)
    with pytest.raises(UsageError, match="within its process"):
        hinge(Pairs(z, z, key, key), similarity.dot, margin=0.1)
    torch.save(found, folder / f"found{number}.pt")
    dist.barrier()  # one that leaves while the other still talks to it may abort in gloo's threads
    dist.destroy_process_group()


@pytest.mark.slow
def test_X1_two_processes_give_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    spawn(work, (tmp_path,), nprocs=2)
    alone = distributed_case(0, 4)
    assert alone["gradient"].norm() > 1e-3
    for number in range(2):
        found = torch.load(tmp_path / f"found{number}.pt")
        for name, want in alone.items():
            torch.testing.assert_close(found[name], want, rtol=1e-10, atol=1e-10)
