"""InstDisc: its losses and its proximal term by nested loops, its bank, and the bank as that of nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import stripes
from toys import double, toy_batch, toy_method

from nearfar.errors import UsageError
from nearfar.evaluation import knn
from nearfar.losses import NCE as Nce
from nearfar.losses import infonce
from nearfar.method import Contrast
from nearfar.methods import instdisc
from nearfar.similarity import unit

N = 24
"""Samples of the bank."""
PLAIN = {"samples": N, "loss": "softmax", "negatives": None, "temperature": 0.1}
NCE = {"samples": N, "loss": "nce", "negatives": 7, "temperature": 0.2}


def model_of(**settings: object) -> Contrast:
    torch.manual_seed(0)
    return double(Contrast(toy_method("instdisc", **settings)))


def slow_share(v: Tensor, bank: Tensor, i: int, t: float) -> Tensor:
    """Eq. 2: P(i | v), one row at a time."""
    exps = [(row @ v / t).exp() for row in bank]
    return exps[i] / sum(exps)


def test_softmax_is_eq_2_over_the_whole_bank() -> None:
    model, batch = model_of(**PLAIN), toy_batch(6, start=3)
    found, bank = model(batch), model.memory.rows()  # unit up to the rounding of float32, in which it began
    v = unit(model.seen[0][0])
    expected = torch.stack([-slow_share(v[b], bank, int(i), 0.1).log() for b, i in enumerate(batch.ids)]).mean()
    torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=1e-12)
    assert model.chance == pytest.approx(math.log(N), rel=1e-9)


def test_softmax_of_orthonormal_rows_and_equal_embeddings() -> None:
    n, t = 12, 0.1
    model = model_of(samples=n, width=n, loss="softmax", negatives=None, temperature=t)
    model.memory.embeddings.copy_(torch.eye(n)[None])
    (pairs,) = model.pair(
        [torch.eye(n).double()[[3, 7]]], [], replace(toy_batch(2), ids=torch.tensor([3, 7])), model.memory
    )
    share = math.exp(1 / t) / (math.exp(1 / t) + n - 1)
    assert model.loss(pairs, model.similarity).item() == pytest.approx(-math.log(share), rel=1e-10)


def test_nce_is_eq_7_with_Z_of_the_first_batch() -> None:
    model, z = model_of(**NCE), None
    for epoch in range(2):
        batch = toy_batch(6, start=2, epoch=epoch)
        found, bank = model(batch), unit(model.memory.rows())
        v, drawn, k = unit(model.seen[0][0]), model.memory.draw(batch, 7), 7
        exps = [
            [float((bank[j] @ v[b] / 0.2).exp()) for j in (int(i), *drawn[b].tolist())] for b, i in enumerate(batch.ids)
        ]
        if z is None:
            z = N * sum(map(sum, exps)) / (6 * (k + 1))
        losses = []
        for own, *others in exps:
            h = [e / z / (e / z + k / N) for e in (own, *others)]
            losses.append(-math.log(h[0]) - sum(math.log(1 - one) for one in h[1:]))
        assert found.item() == pytest.approx(sum(losses) / 6, rel=1e-10)
        model.after_step(0.0)
    kept = model.state_dict()
    assert N * float(kept["loss.log_mean"].exp()) == pytest.approx(z, rel=1e-10) and kept["loss.estimated"]


@pytest.mark.parametrize("settings", [PLAIN, NCE], ids=["softmax", "nce"])
def test_the_proximal_term_is_the_distance_to_the_last_embedding(settings: dict) -> None:
    """With `decay=0` the row is the embedding of the step before (eq. 10)."""
    near, far = model_of(**settings, decay=0.0, proximal=30.0), model_of(**settings, decay=0.0)
    batch = toy_batch(5)
    last = unit(near.memory.rows()[batch.ids])
    for epoch in range(2):
        rows = unit(near.memory.rows()[batch.ids])
        torch.testing.assert_close(rows, last, rtol=1e-12, atol=1e-12)
        difference = near(batch) - far(batch)
        last = unit(near.seen[0][0])
        expected = 30 * sum(float((v - u) @ (v - u)) for v, u in zip(last, rows, strict=True)) / 5
        assert difference.item() == pytest.approx(expected, rel=1e-9)
        near.after_step(0.0)
        far.after_step(0.0)
        batch = replace(batch, epoch=epoch + 1)  # another view of the same images


@pytest.mark.parametrize("settings", [PLAIN, NCE | {"proximal": 2.0}], ids=["softmax", "nce_and_proximal"])
def test_gradient_reaches_every_weight_and_no_row(settings: dict) -> None:
    model = model_of(**settings)
    model(toy_batch()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert not model.memory.embeddings.requires_grad


def test_of_an_image_that_comes_twice_the_last_counts_whatever_the_order_of_threads() -> None:
    model = model_of(**PLAIN)
    ids = torch.tensor([4, 9, 4, 4])
    batch = replace(toy_batch(4), ids=ids)
    model(batch)
    before, z = model.memory.rows().clone(), unit(model.seen[0][0])
    model.after_step(0.0)
    after = model.memory.rows()
    torch.testing.assert_close(after[4], unit(before[4] + z[3]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after[9], unit(before[9] + z[1]), rtol=1e-12, atol=1e-12)
    others = [i for i in range(N) if i not in (4, 9)]
    assert torch.equal(after[others], before[others])


def test_the_rows_are_in_the_order_of_the_data_and_serve_as_the_bank_of_nearest_neighbours() -> None:
    """Rows of `decay=0` are the embeddings themselves, and find their own image's label."""
    data = stripes(N)
    model = model_of(**PLAIN, decay=0.0)
    order = np.random.default_rng(0).permutation(N)
    embeddings = torch.empty(N, 128, dtype=torch.float64)
    for some in np.split(order, 4):
        model(data.batch(some, seed=1, epoch=0))
        embeddings[some] = model.seen[0][0]
        model.after_step(0.0)
    train, labels = np.arange(0, N), torch.as_tensor(data.labels)
    rows = model.memory.rows()[train]
    torch.testing.assert_close(rows, unit(embeddings), rtol=1e-12, atol=1e-12)
    assert knn(rows, labels[train], embeddings, labels, k=1, temperature=0.1).value == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "hinge"}, "loss nce or softmax"),
        ({"negatives": 0}, "1 or more"),
        ({"proximal": -1.0}, "proximal >= 0"),
        ({"loss": "nce", "temperature": 0.0}, "temperature"),
        ({"samples": 0}, "samples"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        instdisc(encoder="small", size=32, **settings)


def test_too_few_samples_are_told_at_the_first_step() -> None:
    with pytest.raises(UsageError, match="samples=16"):
        Contrast(toy_method("instdisc", samples=10))(toy_batch(16))


def test_large_images_have_the_papers_setting_of_imagenet_and_small_ones_that_of_cifar() -> None:
    large, small = (instdisc(encoder="small", size=size, samples=8) for size in (64, 63))
    assert isinstance(large.loss, Nce) and large.loss.temperature == 0.07
    assert large.extract.pair.keywords == {"negatives": 4096, "proximal": 0.0}
    assert small.loss.func is infonce and small.loss.keywords == {"temperature": 0.1}
    assert small.extract.pair.keywords == {"negatives": None, "proximal": 0.0}
    some = instdisc(encoder="small", size=32, negatives=5)
    assert some.loss.func is infonce and some.extract.pair.keywords["negatives"] == 5
