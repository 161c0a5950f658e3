"""Episodes: who meets whom, ProtoNet and matching networks against nested loops and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import SIDE, Tiny, stripes

from nearfar import extract, similarity
from nearfar.episode import Shape
from nearfar.errors import UsageError
from nearfar.losses import infonce
from nearfar.method import Batch, Contrast
from nearfar.methods.matching import matching
from nearfar.methods.protonet import protonet
from nearfar.views import SupportViews, View

SHAPE = Shape(ways=3, shots=2, queries=4, tasks=2)
BUILD = {"protonet": protonet, "matching": matching}
SMALL = {"size": SIDE, "ways": 3, "shots": 2, "queries": 4, "tasks": 2}


def batch_of(shape: Shape, *, seed: int = 0, epoch: int = 0) -> Batch:
    """Episodes of the toy set, drawn by hand: supports class by class, then queries class by class."""
    data, rng, rows = stripes(256), np.random.default_rng(seed), []
    for _ in range(shape.tasks):
        classes = rng.permutation(4)[: shape.ways]
        picked = [rng.permutation(np.flatnonzero(data.labels == c))[: shape.shots + shape.queries] for c in classes]
        rows += [*(p[: shape.shots] for p in picked), *(p[shape.shots :] for p in picked)]
    return data.batch(np.concatenate(rows), seed=seed, epoch=epoch)


def embeddings(shape: Shape, width: int = 5, *, seed: int = 0) -> Tensor:
    return torch.randn(
        shape.tasks * shape.images, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def pairs_of(pair, shape: Shape, z: Tensor):
    batch = Batch(torch.empty(0), torch.empty(0), torch.arange(len(z)))
    (pairs,) = pair([z], [z], batch, None, episode=shape)
    return pairs


def score(a: Tensor, b: Tensor, distance: str) -> float:
    if distance == "euclidean":
        return -float(((a - b) ** 2).sum())
    return float(a @ b / (a.norm() * b.norm()))


def slow_protonet(z: Tensor, shape: Shape, distance: str, temperature: float) -> float:
    losses = []
    for episode in z.split(shape.images):
        support, query = episode[: shape.ways * shape.shots], episode[shape.ways * shape.shots :]
        means = [support[c * shape.shots : (c + 1) * shape.shots].mean(0) for c in range(shape.ways)]
        for number, q in enumerate(query):
            scores = [score(q, mean, distance) / temperature for mean in means]
            losses.append(math.log(sum(map(math.exp, scores))) - scores[number // shape.queries])
    return sum(losses) / len(losses)


def slow_matching(z: Tensor, shape: Shape, temperature: float) -> float:
    losses = []
    for episode in z.split(shape.images):
        support, query = episode[: shape.ways * shape.shots], episode[shape.ways * shape.shots :]
        for number, q in enumerate(query):
            shares = [math.exp(score(q, s, "cosine") / temperature) for s in support]
            own = number // shape.queries * shape.shots
            losses.append(-math.log(sum(shares[own : own + shape.shots]) / sum(shares)))
    return sum(losses) / len(losses)


SHAPES = [
    SHAPE,
    Shape(ways=5, shots=1, queries=1),
    Shape(ways=2, shots=5, queries=3, tasks=3),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_protonet_is_the_nested_loop(shape: Shape, distance: str) -> None:
    method, z = protonet(encoder=Tiny(), size=SIDE, distance=distance, temperature=0.7), embeddings(shape)
    found = method.loss(pairs_of(extract.queries_to_means, shape, z), method.similarity)
    assert abs(found.item() - slow_protonet(z, shape, distance, 0.7)) < 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_matching_is_the_nested_loop(shape: Shape) -> None:
    method, z = matching(encoder=Tiny(), size=SIDE, temperature=0.3), embeddings(shape)
    found = method.loss(pairs_of(extract.queries_to_supports, shape, z), method.similarity)
    assert abs(found.item() - slow_matching(z, shape, 0.3)) < 1e-9


def test_with_one_shot_cosine_protonet_and_matching_are_one() -> None:
    shape = replace(SHAPE, shots=1)
    z = embeddings(shape)
    one = infonce(pairs_of(extract.queries_to_means, shape, z), similarity.cosine)
    two = infonce(pairs_of(extract.queries_to_supports, shape, z), similarity.cosine, positives="log_sum")
    assert abs(one - two) < 1e-9
    shape = replace(shape, shots=2, queries=3)
    one = infonce(pairs_of(extract.queries_to_means, shape, z), similarity.cosine)
    two = infonce(pairs_of(extract.queries_to_supports, shape, z), similarity.cosine, positives="log_sum")
    assert abs(one - two) > 1e-3


@pytest.mark.parametrize("name", BUILD)
def test_defaults_follow_the_distance_and_the_shape(name: str) -> None:
    method = BUILD[name](encoder=Tiny(), **SMALL)
    assert method.episode == SHAPE and method.extract.labels
    if name == "protonet":
        assert method.loss.keywords["temperature"] == 1.0
        assert protonet(encoder=Tiny(), **SMALL, distance="cosine").loss.keywords["temperature"] == 0.1


@pytest.mark.parametrize("name", BUILD)
def test_chance_is_the_logarithm_of_the_ways(name: str) -> None:
    method, z = BUILD[name](encoder=Tiny(), **SMALL), torch.zeros(SHAPE.tasks * SHAPE.images, 4)
    found = method.loss(pairs_of(method.extract.pair.func, SHAPE, z), method.similarity)
    assert found.item() == pytest.approx(math.log(3), abs=1e-6)


@pytest.mark.parametrize("name", BUILD)
def test_order_of_episodes_classes_and_images_says_nothing(name: str) -> None:
    method, z = BUILD[name](encoder=Tiny(), **SMALL), embeddings(SHAPE)
    support, query = SHAPE.parted(z)
    by_class = torch.cat([part.unflatten(1, (SHAPE.ways, -1)) for part in (support, query)], dim=2)
    turned = by_class[[1, 0]][:, [2, 0, 1]]
    again = torch.cat([turned[:, :, [1, 0]].flatten(1, 2), turned[:, :, [4, 2, 5, 3]].flatten(1, 2)], dim=1)
    one, two = (
        method.loss(pairs_of(method.extract.pair.func, SHAPE, rows), method.similarity)
        for rows in (z, again.flatten(0, 1))
    )
    assert abs(one - two) < 1e-12


@pytest.mark.parametrize("name", BUILD)
def test_gradient_reaches_every_weight_and_a_step_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model, batch = Contrast(BUILD[name](encoder=Tiny(), **SMALL)), batch_of(SHAPE)
    before = model(batch)
    before.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.01 * p.grad
    assert model(batch) < before


def test_a_batch_that_is_no_episode_is_refused() -> None:
    model, batch = Contrast(protonet(encoder=Tiny(), **SMALL)), batch_of(SHAPE)
    with pytest.raises(UsageError, match="35 images, episodes of 18"):
        model(replace(batch, **{name: getattr(batch, name)[:35] for name in ("inputs", "sizes", "ids", "labels")}))
    with pytest.raises(UsageError, match="several classes"):
        model(replace(batch, labels=batch.labels.roll(1)))


def test_views_of_the_supports_alone() -> None:
    view = View(size=SIDE, blur_p=0.0)
    views, batch = SupportViews(episode=SHAPE, every=view, supports=(view, view)), batch_of(SHAPE)
    made = views(batch)
    assert [len(part) for part in made] == [36, 12, 12]
    every, _ = SHAPE.parted(made[0])
    rows = SHAPE.parted(torch.arange(36))[0].flatten()
    for number, part in enumerate(made[1:], 1):
        draw = view.draw(batch.ids[rows], batch.sizes[rows], seed=batch.seed, epoch=batch.epoch, view=number)
        assert torch.equal(part, view.apply(batch.inputs[rows], draw))
        assert not torch.equal(part, every.flatten(0, 1))
    assert not torch.equal(made[1], made[2])


def test_changed_views_are_all_changed() -> None:
    views = SupportViews(episode=SHAPE, every=View(size=8), supports=(View(size=8, scale=(0.5, 1.0)),))
    changed = views.changed(flip=0.0)
    assert [view.flip for view in changed.views] == [0.0, 0.0]
    assert changed.views[1].scale == (0.5, 1.0) and changed.episode == SHAPE


@pytest.mark.parametrize("shots", [1, 3])
def test_a_view_does_not_depend_on_the_other_episodes(shots: int) -> None:
    shape = Shape(ways=2, shots=shots, queries=2, tasks=2)
    views = SupportViews(episode=shape, every=View(size=SIDE), supports=(View(size=SIDE),))
    batch = batch_of(shape)
    half = replace(
        batch, **{name: getattr(batch, name)[shape.images :] for name in ("inputs", "sizes", "ids", "labels")}
    )
    for whole, part in zip(views(batch), views(half), strict=True):
        assert torch.equal(whole[len(part) :], part)
