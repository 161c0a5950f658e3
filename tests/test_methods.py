"""The contract that every method keeps, whoever wrote it: parametrised over METHODS, on the toys of `toys.py`."""

from __future__ import annotations

import copy
import os
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from toy import knn_accuracy
from toys import EPOCHS, SLOW, double, features, toy_batch, toy_method, toy_of

from nearfar import extract, optim
from nearfar.data import Dataset
from nearfar.device import choose
from nearfar.engine import Loop
from nearfar.episodes import EpisodeSampler
from nearfar.errors import Stopped, UsageError
from nearfar.method import Contrast, Extract
from nearfar.methods import METHODS
from nearfar.monitor import COLLAPSED_STD
from nearfar.plan import Plan
from nearfar.runs import Run

BATCH = 64
every_method = pytest.mark.parametrize("name", METHODS)
LONG = {"simclr", "moco", "supcon", "byol", "swav", "rfs"}
"""Methods whose 20 seeds are among the quick tests."""


def slow(name: str, *rest: object, quick: bool) -> object:
    """A parameter that is left to the slow tests where it isn't quick."""
    return pytest.param(name, *rest, marks=() if quick else pytest.mark.slow)


GROUPS = [list(METHODS)[start::4] for start in range(4)]
"""Methods that share two processes: starting these takes longer than what they do."""


def toy_loop(model: Contrast, data: Dataset, *, epochs: int, peak: float = 0.002, **settings: object) -> Loop:
    plan = Plan(
        samples=np.arange(len(data)), batch=BATCH, epochs=epochs, peak=peak, warmup_epochs=0.5, seed=3,
        episodes=toy_episodes(model, data),
    )  # fmt: skip
    optimizer = optim.build(model, name="adamw", lr=0.002, weight_decay=1e-4)
    return Loop(model=model, optimizer=optimizer, dataset=data, plan=plan, device=choose("cpu", "fp32"), **settings)


def toy_episodes(model: Contrast, data: Dataset) -> EpisodeSampler | None:
    """Draws the episodes of an episodic method."""
    shape = model.episode
    if shape is None:
        return None
    assert shape.images * shape.tasks == BATCH
    return EpisodeSampler(data.labels, ways=shape.ways, shots=shape.shots, queries=shape.queries, seed=3)


@pytest.mark.parametrize(
    ("name", "seed"), [slow(name, seed, quick=name not in SLOW and seed == 0) for name in METHODS for seed in (0, 1)]
)
def test_learns_a_toy(name: str, seed: int) -> None:
    toy = toy_of(name)
    data = toy.data(512, seed=seed)
    torch.manual_seed(seed)
    model = Contrast(toy_method(name, batch_norm=True))
    before = knn_accuracy(features(model, data, name), data.labels)
    toy_loop(model, data, epochs=EPOCHS.get(name, 20), peak=toy.peak)()
    after = knn_accuracy(features(model, data, name), data.labels)
    assert after > before + min(0.15, (1 - before) / 2), (before, after)


@pytest.mark.parametrize("name", [slow(name, quick=name in LONG) for name in METHODS])
def test_T2_a_healthy_run_gives_no_alarm_in_20_seeds(name: str) -> None:
    data = toy_of(name).data(128)
    for seed in range(20):
        torch.manual_seed(seed)
        rows: list[dict[str, float]] = []
        loop = toy_loop(Contrast(toy_method(name, batch_norm=True)), data, epochs=10, report=rows.append)
        loop.plan = replace(loop.plan, monitor_every=2, seed=seed)
        loop()
        assert rows[-1]["step"] == 20 and min(row["std"] for row in rows) > 2 * COLLAPSED_STD


@every_method
def test_gradient_reaches_every_weight_but_the_teachers(name: str) -> None:
    model = Contrast(toy_method(name))
    model(toy_batch(name=name)).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.startswith("slow."):
            assert parameter.grad is None and not parameter.requires_grad, parameter_name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@every_method
def test_two_runs_of_one_method_share_no_weights(name: str) -> None:
    method = toy_method(name)
    one, two = Contrast(method), Contrast(method)
    theirs = {tensor.data_ptr() for tensor in two.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in one.state_dict().values()}


@every_method
@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_change_neither_loss_nor_gradient(name: str, chunk: int) -> None:
    whole = double(Contrast(toy_method(name)))
    parts = copy.deepcopy(whole)
    parts.chunk = chunk
    losses = [model(toy_batch(name=name)) for model in (whole, parts)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-11)


@every_method
def test_K1_a_stopped_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    data = toy_of(name).data(192)  # 3 steps an epoch: the stop at step 4 is in mid-epoch
    whole = Contrast(toy_method(name))
    first, second = copy.deepcopy(whole), copy.deepcopy(whole)
    toy_loop(whole, data, epochs=3)()

    def stop_at_four(row: dict[str, float]) -> None:
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = {"settings": {"seed": 3}, "info": {}}
    with Run.open_or_create(tmp_path / "run", **settings) as run, pytest.raises(Stopped):
        toy_loop(first, data, epochs=3, run=run, report=stop_at_four)()
    torch.manual_seed(99)
    with Run.open_or_create(tmp_path / "run", **settings) as run:
        toy_loop(second, data, epochs=3, run=run)()
        steps = [row["step"] for row in run.rows()]
    assert steps == sorted(set(steps)) and steps[-1] == 9
    expected, found = whole.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    for key in expected:
        assert torch.equal(expected[key], found[key]), key


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: "-".join(names))
def test_X1_two_processes_have_the_gradient_of_one(names: list[str], tmp_path: Path) -> None:
    expected = {}
    for name in names:
        torch.manual_seed(5)
        model = double(Contrast(toy_method(name)))
        torch.save(model.state_dict(), tmp_path / f"{name}.pt")
        expected[name] = two_steps(name, model, model, count=16, start=0)
    mp.spawn(_one_of_two, args=(names, str(tmp_path)), nprocs=2)
    for name, rank in product(names, range(2)):
        found = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True)
        for (loss, gradients), (own_loss, own_gradients) in zip(expected[name], found, strict=True):
            torch.testing.assert_close(own_loss, loss, rtol=1e-9, atol=1e-12, msg=lambda told, name=name: name + told)
            for gradient, own in zip(gradients, own_gradients, strict=True):
                torch.testing.assert_close(
                    own, gradient, rtol=1e-7, atol=1e-10, msg=lambda told, name=name: name + told
                )


def two_steps(name: str, model: Contrast, wrapped: torch.nn.Module, *, count: int, start: int) -> list:
    """Loss and gradients of two batches, the second after the first has moved teacher and memory."""
    found = []
    for number in range(2):
        wrapped.zero_grad()
        loss = wrapped(toy_batch(count, start=start, epoch=number, name=name))
        loss.backward()
        model.after_step(0.5)
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]))
    return found


def _one_of_two(rank: int, names: list[str], folder: str) -> None:
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name in names:
        model = double(Contrast(toy_method(name)))
        model.load_state_dict(torch.load(f"{folder}/{name}.pt", weights_only=True))
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        torch.save(two_steps(name, model, wrapped, count=8, start=8 * rank), f"{folder}/{name}{rank}.pt")
    dist.barrier()  # one that leaves while the other still talks to it may abort in gloo's threads
    dist.destroy_process_group()


@every_method
def test_a_wrong_keyword_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="temperatur"):
        METHODS[name](temperatur=0.2)


def test_supcon_without_labels_is_refused() -> None:
    model = Contrast(toy_method("supcon"))
    with pytest.raises(UsageError, match="labels"):
        model(replace(toy_batch(), labels=None))


def test_moco_queue_that_the_batch_does_not_divide_is_refused() -> None:
    memory = toy_method("moco", queue=128).memory
    memory.check_batch(64)
    with pytest.raises(UsageError, match="--queue 96"):
        memory.check_batch(48)


def test_the_queue_is_a_ring() -> None:
    memory = toy_method("moco", queue=12).memory
    memory.keys = torch.zeros(12, 128)
    for step in range(5):
        key = torch.zeros(4, 128)
        key[:, step] = 1
        memory.remember([key], toy_batch(4))
    assert int(memory.pointer) == 8
    assert memory.keys.argmax(dim=1).tolist() == [3] * 4 + [4] * 4 + [2] * 4


def test_the_queue_does_not_hold_the_keys_of_its_own_step() -> None:
    model = Contrast(toy_method("moco", queue=32))
    before = model.memory.keys.clone()
    model(toy_batch(16))
    assert torch.equal(model.memory.keys, before)
    keys = model.seen[1][0]
    model.after_step(0.0)
    torch.testing.assert_close(model.memory.keys[:16], torch.nn.functional.normalize(keys))
    assert torch.equal(model.memory.keys[16:], before[16:])


def test_the_teacher_is_a_slow_copy() -> None:
    """1 - m^n of the way after n steps towards weights that stand still (He et al. 2020, eq. 2)."""
    model = double(Contrast(toy_method("moco", decay=0.9)))
    with torch.no_grad():
        for parameter in model.slow.parameters():
            parameter.zero_()
        for parameter in [*model.encoder.parameters(), *model.head.parameters()]:
            parameter.fill_(1.0)
    for _ in range(7):
        model.after_step(0.0)
    for parameter in model.slow.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 1 - 0.9**7), rtol=1e-12, atol=0)


def test_simclr_equals_supcon_where_every_image_is_a_class() -> None:
    batch = toy_batch()
    torch.manual_seed(0)
    simclr = Contrast(toy_method("simclr"))
    same_label = Extract(head=simclr.head, pair=extract.same_label)
    supcon = Contrast(replace(toy_method("simclr"), encoder=simclr.encoder, extract=same_label))
    torch.testing.assert_close(simclr(batch), supcon(replace(batch, labels=batch.ids)), rtol=1e-6, atol=1e-6)
