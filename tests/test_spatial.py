"""Spatial contrastive learning: maps laid over each other, against nested loops and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from toy import SIDE, Tiny, stripes

from nearfar import similarity
from nearfar.distributed import mean_value, rank
from nearfar.errors import UsageError
from nearfar.extract import Cells, SpatialPairs
from nearfar.losses import aligned, infonce
from nearfar.losses.aligned import aligned_infonce
from nearfar.method import Contrast, Method, Pairs
from nearfar.methods.spatial import spatial

N, CELLS, WIDTH = 8, 4, 3
KEY = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2])


def maps(count: int = N, *, seed: int = 0) -> Tensor:
    """Queries, keys and values `[N, L, 3, W]`."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, CELLS, 3, WIDTH, generator=draw, dtype=torch.float64)


def to_itself(triples: Tensor, key: Tensor = KEY) -> Pairs:
    flat, slot = triples.flatten(1), torch.arange(len(triples))
    return Pairs(flat, flat, key, key, anchor_slot=slot, other_slot=slot)


def slow_score(a: Tensor, b: Tensor) -> float:
    """Mean over the cells of cos(v_a, b laid over a) + cos(v_b, a laid over b), one number at a time."""
    summed = 0.0
    for below, above in ((a, b), (b, a)):
        for query, _, own in below:
            weights = [math.exp(float(query @ key) / math.sqrt(WIDTH)) for _, key, _ in above]
            laid = sum(w * value for w, (_, _, value) in zip(weights, above, strict=True)) / sum(weights)
            summed += float(torch.cosine_similarity(own, laid, dim=0)) / len(below)
    return summed


def slow_loss(anchors: Tensor, others: Tensor, pairs: Pairs, temperature: float) -> float:
    losses = []
    for i, a in enumerate(anchors):
        scores = {
            j: slow_score(a, b) / temperature
            for j, b in enumerate(others)
            if pairs.anchor_slot is None or pairs.anchor_slot[i] != pairs.other_slot[j]
        }
        positives = [s for j, s in scores.items() if pairs.anchor_key[i] == pairs.other_key[j]]
        if positives:
            log_sum = math.log(sum(map(math.exp, scores.values())))
            losses.append(log_sum - sum(positives) / len(positives))
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("block", [2**21, 1, 2 * N * CELLS * CELLS])
def test_the_loss_is_the_nested_loop_whatever_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligned, "BLOCK", block)
    triples = maps()
    pairs = to_itself(triples)
    found = aligned_infonce(pairs, similarity.cosine, width=WIDTH, temperature=0.3)
    assert abs(found.item() - slow_loss(triples, triples, pairs, 0.3)) < 1e-9


@pytest.mark.parametrize("slots", [False, True])
def test_two_different_sides_are_the_nested_loop(slots: bool) -> None:
    anchors, others = maps(5), maps(7, seed=1)
    pairs = Pairs(anchors.flatten(1), others.flatten(1), KEY[:5], KEY[:7].flip(0))
    if slots:
        pairs = replace(pairs, anchor_slot=torch.arange(5), other_slot=torch.arange(7) + 2)
    found = aligned_infonce(pairs, similarity.cosine, width=WIDTH, temperature=0.5)
    assert abs(found.item() - slow_loss(anchors, others, pairs, 0.5)) < 1e-9


def test_gradient_is_that_of_finite_differences() -> None:
    flat = maps(4).flatten(1).requires_grad_()
    key, slot = torch.tensor([0, 0, 1, 1]), torch.arange(4)

    def loss(x: Tensor) -> Tensor:
        return aligned_infonce(Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot), similarity.cosine, width=WIDTH)

    assert torch.autograd.gradcheck(loss, (flat,))


def test_blocks_change_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = []
    for block in (2**21, 1):
        monkeypatch.setattr(aligned, "BLOCK", block)
        triples = maps().requires_grad_()
        aligned_infonce(to_itself(triples), similarity.cosine, width=WIDTH).backward()
        grads.append(triples.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-14)


def test_with_one_cell_it_is_supcon_of_twice_the_cosine() -> None:
    """Attention over a single cell is 1."""
    triples = maps()[:, :1]
    pairs, value = to_itself(triples), triples[:, 0, 2]
    want = infonce(replace(pairs, anchor=value, other=value), similarity.cosine, temperature=0.15)
    assert abs(aligned_infonce(pairs, similarity.cosine, width=WIDTH, temperature=0.3) - want) < 1e-9


def test_the_order_of_cells_and_of_images_says_nothing() -> None:
    triples, cells = maps(), torch.randperm(CELLS, generator=torch.Generator().manual_seed(0))
    whole = aligned_infonce(to_itself(triples), similarity.cosine, width=WIDTH)
    moved = torch.stack([one[cells.roll(k)] for k, one in enumerate(triples)])
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    again = aligned_infonce(to_itself(moved[order], KEY[order]), similarity.cosine, width=WIDTH)
    assert abs(whole - again) < 1e-12


def test_maps_of_zero_are_at_chance() -> None:
    pairs = to_itself(torch.zeros(N, CELLS, 3, WIDTH))
    found = aligned_infonce(pairs, similarity.cosine, width=WIDTH)
    assert found.item() == pytest.approx(math.log(N - 1), abs=1e-6)


def test_anchors_without_a_positive_take_no_part() -> None:
    triples = maps().requires_grad_()
    found = aligned_infonce(to_itself(triples, torch.arange(N)), similarity.cosine, width=WIDTH)
    found.backward()
    assert found.item() == 0 and triples.grad is not None and triples.grad.abs().sum() == 0


@pytest.mark.parametrize("fault", ["temperature", "width", "positive", "keys"])
def test_wrong_arguments_are_refused(fault: str) -> None:
    pairs = to_itself(maps())
    if fault == "positive":
        pairs = replace(pairs, positive=pairs.anchor)
    if fault == "keys":
        pairs = replace(pairs, anchor_key=None, other_key=None)
    settings = {"temperature": 0.0 if fault == "temperature" else 0.1, "width": 5 if fault == "width" else WIDTH}
    with pytest.raises(UsageError):
        aligned_infonce(pairs, similarity.cosine, **settings)


def toy(**settings: object) -> Method:
    return spatial(**{"encoder": Tiny(), "size": SIDE, "classes": 4, "width": 8} | settings)


def batch(count: int = 16):
    return stripes(64).batch(np.arange(count), seed=1)


def test_the_method_is_cross_entropy_and_the_spatial_term() -> None:
    """Both terms again from the module's own weights, by torch's cross entropy and by nested loops."""
    torch.manual_seed(0)
    model = Contrast(toy(class_weight=0.5, spatial_weight=2.0)).double()
    views = model.views
    model.views = lambda b: [view.double() for view in views(b)]
    given = batch(4)
    with torch.no_grad():
        cells = torch.cat([Cells()(model.encoder(view)) for view in model.views(given)])
        labels = given.labels.repeat(2)
        entropy = nn.functional.cross_entropy(model.pair.classes(cells.mean(1)), labels)
        triples = torch.stack([part(cells) for part in model.pair.maps], dim=2)
        pairs, scores = to_itself(triples, labels), {}
        for i in range(8):
            for j in range(8):
                scores[i, j] = _score(triples[i], triples[j]) / 0.1
        terms = [math.log(sum(math.exp(scores[i, j]) for j in range(8) if j != i)) for i in range(8)]
        same = [[scores[i, j] for j in range(8) if j != i and pairs.anchor_key[i] == labels[j]] for i in range(8)]
        wanted = sum(term - sum(s) / len(s) for term, s in zip(terms, same, strict=True)) / 8
    assert abs(model(given).item() - (0.5 * entropy.item() + 2 * wanted)) < 1e-9


def _score(a: Tensor, b: Tensor) -> float:
    both = 0.0
    for below, above in ((a, b), (b, a)):
        (query, _, own), (_, key, value) = below.unbind(1), above.unbind(1)
        laid = torch.softmax(query @ key.T / 8**0.5, dim=1) @ value
        both += float(torch.cosine_similarity(own, laid, dim=1).mean())
    return both


@pytest.mark.parametrize("settings", [{}, {"class_weight": 0.0}, {"spatial_weight": 0.0}])
def test_gradient_reaches_every_weight_and_a_step_lowers_the_loss(settings: dict) -> None:
    torch.manual_seed(0)
    model, given = Contrast(toy(**settings)), batch()
    before = model(given)
    before.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.003 * p.grad
    assert model(given) < before


def test_a_term_of_weight_0_is_absent_with_its_weights() -> None:
    only_class, only_spatial = toy(spatial_weight=0.0), toy(class_weight=0.0)
    assert [loss.func.__name__ for loss in (*only_class.loss, *only_spatial.loss)] == ["infonce", "aligned_infonce"]
    assert len(only_class.similarity) == len(only_spatial.similarity) == 1
    assert {name.split(".")[0] for name, _ in only_class.extract.pair.named_parameters()} == {"classes"}
    assert {name.split(".")[0] for name, _ in only_spatial.extract.pair.named_parameters()} == {"maps"}
    with pytest.raises(UsageError, match="weight"):
        toy(class_weight=0.0, spatial_weight=0.0)


def test_labels_are_needed_and_so_is_a_map() -> None:
    model = Contrast(toy(class_weight=0.0))
    with pytest.raises(UsageError, match="labels"):
        model(replace(batch(), labels=None))
    with pytest.raises(UsageError, match="a map"):
        model.pair([torch.zeros(2, 1, 5)] * 2, [], batch(), None)
    tokens, grid = torch.zeros(2, 7, 5), torch.arange(24.0).view(1, 2, 3, 4)
    assert Cells()([tokens]) is tokens
    assert torch.equal(Cells()([grid])[0, 5], grid[0, :, 1, 1])


def distributed_case(rows: slice) -> dict[str, Tensor]:
    """Loss of some images of the batch, and the gradients of the weights before it, averaged as DDP does."""
    torch.manual_seed(0)
    pair = SpatialPairs(6, 4, width=WIDTH, weights=(1.0, 1.0)).double()
    cells = torch.randn(2, N, CELLS, 6, dtype=torch.float64)[:, rows]
    given = replace(batch(N), ids=torch.arange(N)[rows], labels=KEY[rows])
    own, mapped = pair(list(cells), [], given, None)
    loss = infonce(own, similarity.dot, temperature=1.0) + aligned_infonce(mapped, similarity.cosine, width=WIDTH)
    loss.backward()
    return {name: mean_value(p.grad) for name, p in pair.named_parameters()} | {"loss": loss.detach()}


def work(number: int, folder: Path) -> None:
    """One of two processes, with unequal shares of the batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    torch.save(distributed_case((slice(0, 5), slice(5, N))[rank()]), folder / f"found{number}.pt")
    dist.barrier()  # one that leaves while the other still talks to it may abort in gloo's threads
    dist.destroy_process_group()


@pytest.mark.slow
def test_X1_two_processes_give_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    spawn(work, (tmp_path,), nprocs=2)
    alone = distributed_case(slice(None))
    for number in range(2):
        found = torch.load(tmp_path / f"found{number}.pt")
        for name, want in alone.items():
            assert want.norm() > 1e-4
            torch.testing.assert_close(found[name], want, rtol=1e-10, atol=1e-12)
