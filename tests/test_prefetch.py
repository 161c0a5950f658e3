"""The loader: what is made ahead is what the step would have made, errors come whole, and nothing is left running."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_methods import slow, toy_loop
from torch import Tensor, nn
from toys import SLOW, toy_method, toy_of

from nearfar import methods, upload
from nearfar.ahead import Ahead
from nearfar.clock import Clock
from nearfar.data import Dataset
from nearfar.device import Device, choose
from nearfar.engine import Loop
from nearfar.errors import DataError, HealthError, Stopped
from nearfar.loader import Loader
from nearfar.method import Batch, Contrast
from nearfar.methods import METHODS
from nearfar.runs import Run

CPU = choose("cpu", "fp32")


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many that the loader has one of its own. They draw views; torch goes on with one, which is quicker here."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not loaders()


def loaders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("nearfar-ahead")]


def loop_of(name: str, *, epochs: int = 2, **settings: object) -> Loop:
    """Two steps an epoch."""
    torch.manual_seed(0)
    return toy_loop(Contrast(toy_method(name)), toy_of(name).data(128), epochs=epochs, **settings)


def in_step(loop: Loop) -> dict[str, Tensor]:
    """The slow twin: every view is made in its step."""
    for step in range(loop.plan.total):
        loop.step(step, (loop.batch(step), None))
    return loop.model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def watched(loop: Loop) -> list[str]:
    """Names of the threads that make views, call by call."""
    views, names = loop.model.views, []

    def watch(batch: Batch) -> list[Tensor]:
        names.append(threading.current_thread().name)
        return views(batch)

    loop.model.views = watch
    return names


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", [slow(name, quick=name not in SLOW) for name in METHODS])
def test_views_made_ahead_train_the_same_weights_in_every_method(name: str) -> None:
    expected = in_step(loop_of(name))
    loop = loop_of(name)
    names = watched(loop)
    loop()
    assert same(expected, loop.model.state_dict())
    assert len(names) == 4 and all(name.startswith("nearfar-ahead") for name in names)


def test_with_one_thread_all_is_made_in_it_and_trains_the_same() -> None:
    expected = in_step(loop_of("simclr"))
    loop = loop_of("simclr")
    names = watched(loop)
    loop()
    assert same(expected, loop.model.state_dict())
    assert names == [threading.main_thread().name] * 4


@pytest.mark.usefixtures("two_threads")
def test_views_see_the_precision_of_the_step() -> None:
    """A matrix product in a view, as one's own views may have, is in bf16 under autocast."""

    def turned(loop: Loop) -> Loop:
        views = loop.model.views
        loop.model.views = lambda batch: [(view @ (1.1 * torch.eye(16))).float() for view in views(batch)]
        loop.device = Device(torch.device("cpu"), torch.bfloat16)
        return loop

    loop = turned(loop_of("simclr"))
    loop()
    assert same(in_step(turned(loop_of("simclr"))), loop.model.state_dict())


@pytest.mark.usefixtures("two_threads")
def test_views_that_draw_from_torch_stay_in_the_step() -> None:
    def noisy(loop: Loop) -> Loop:
        views = loop.model.views
        loop.model.views = lambda batch: [view + 0.1 * torch.randn(view.shape) for view in views(batch)]
        return loop

    loop = noisy(loop_of("simclr"))
    names = watched(loop)
    loop()
    assert same(in_step(noisy(loop_of("simclr"))), loop.model.state_dict())
    assert names[0].startswith("nearfar-ahead") and names[1:] == [threading.main_thread().name] * 4


@pytest.mark.usefixtures("two_threads")
def test_views_that_are_a_module_stay_in_the_step() -> None:
    class Scaled(nn.Module):
        """Learns, so that a step ahead it would be another."""

        def __init__(self, views: object) -> None:
            super().__init__()
            self.views, self.factor = views, nn.Parameter(torch.ones(()))

        def forward(self, batch: Batch) -> list[Tensor]:
            return [view * self.factor for view in self.views(batch)]

    def learnt() -> Loop:
        torch.manual_seed(0)
        method = toy_method("simclr")
        return toy_loop(Contrast(replace(method, views=Scaled(method.views))), toy_of("simclr").data(128), epochs=2)

    loop = learnt()
    loop()
    assert same(in_step(learnt()), loop.model.state_dict())
    assert loop.model.views.factor != 1


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ["simclr", "moco", "infopatch"])
def test_T10_a_run_that_was_stopped_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = loop_of(name, epochs=4)
    whole()
    first = loop_of(name, epochs=4, report=lambda row: os.kill(os.getpid(), signal.SIGTERM))
    with Run.open_or_create(tmp_path / "run", settings={}, info={}) as run, pytest.raises(Stopped):
        first.run = run
        first()
    assert not loaders()
    second = loop_of(name, epochs=4)
    with Run.open_or_create(tmp_path / "run", settings={}, info={}) as run:
        second.run = run
        second()
        assert len(run.rows()) > 1
    assert same(whole.model.state_dict(), second.model.state_dict())


class Broken:
    """Data of which one batch can't be read."""

    def __init__(self, data: Dataset, *, good: int) -> None:
        self.data, self.left = data, good
        self.error = DataError("the disk is gone", where="photos/7.jpg", mend="bring it back")

    def batch(self, indices: np.ndarray, *, seed: int, epoch: int) -> Batch:
        if not self.left:
            raise self.error
        self.left -= 1
        return self.data.batch(indices, seed=seed, epoch=epoch)


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_in_the_thread_is_raised_at_its_step_as_it_is() -> None:
    rows: list[dict[str, float]] = []
    loop = loop_of("simclr", report=rows.append)
    loop.dataset = Broken(loop.dataset, good=3)
    loop.plan = replace(loop.plan, monitor_every=1)
    with pytest.raises(DataError, match="the disk is gone") as caught:
        loop()
    assert caught.value is loop.dataset.error
    assert [row["step"] for row in rows] == [1, 2, 3] and not loaders()


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_with_one_number_is_not_raised_for_the_next() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise DataError("of 2")
        return number

    with Ahead(make, total=6, device=torch.device("cpu")) as ahead:
        assert [ahead(0), ahead(1)] == [0, 1]
        with pytest.raises(DataError, match="of 2"):
            ahead(2)
        assert [ahead(3), ahead(4), ahead(5)] == [3, 4, 5]


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_in_the_step_ends_the_thread_too() -> None:
    loop = loop_of("simclr")
    loop.model.loss = lambda pairs, similarity: pairs.anchor.sum() * float("nan")
    with pytest.raises(HealthError, match="not a number"):
        loop()
    assert not loaders()


@pytest.mark.usefixtures("two_threads")
def test_one_batch_is_made_ahead_while_the_step_runs_and_none_after_the_last() -> None:
    running, ready, made, most = [threading.Event() for _ in range(6)], [threading.Event() for _ in range(6)], [], []

    def batch(step: int) -> Batch:
        if step:  # would wait for ever where nothing is made before the step is over
            assert running[step - 1].wait(20)
        made.append(step)
        ready[step].set()
        return Batch(torch.full((1,), step), torch.ones(1, 2), torch.arange(1))

    loader = Loader(batch, lambda batch: [batch.inputs * 10], device=CPU)
    with Ahead(loader, total=5, device=CPU.device) as ahead:
        for step in range(5):
            given, views = ahead(step)
            most.append(len(made) - step)
            assert views is not None and given.inputs.item() == step and views[0].item() == 10 * step
            running[step].set()
            assert ready[min(step + 1, 4)].wait(20)
        assert ahead.next is None
    assert made == list(range(5)) and max(most) == 1


def test_what_the_step_waits_for_is_data_and_views() -> None:
    def slow(batch: Batch) -> list[Tensor]:
        time.sleep(0.05)
        return [batch.inputs]

    def batch(step: int) -> Batch:
        time.sleep(0.05)
        return Batch(torch.zeros(1), torch.ones(1, 2), torch.arange(1))

    clock = Clock()
    with Ahead(Loader(batch, slow, device=CPU), total=3, device=CPU.device) as ahead:
        for step in range(3):
            with clock.waiting():
                ahead(step)
    assert clock.waited >= 0.3 and clock.steps == 3


GPU = torch.device("cuda", 0)


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that makes views, as far as is asked before it has to."""
    monkeypatch.setattr("nearfar.upload.views_on", lambda device: device)


@pytest.mark.usefixtures("able")
def test_views_are_made_on_an_accelerator_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    views = methods.simclr(encoder="small", size=16).views
    assert upload.made_on(views, GPU) and not upload.made_on(views, torch.device("cpu"))
    assert not upload.made_on(toy_method("mae").views, GPU) and not upload.made_on(toy_method("cpc_audio").views, GPU)
    assert not upload.made_on(lambda batch: views(batch), GPU) and not upload.made_on(None, GPU)
    monkeypatch.setattr("nearfar.upload.views_on", lambda device: torch.device("cpu"))
    assert not upload.made_on(views, GPU)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what was pinned, which needs an accelerator."""
    shapes: list[tuple[int, ...]] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    return shapes


def test_only_pixels_are_sent_once(pinned: list[tuple[int, ...]]) -> None:
    """The meta device stands for an accelerator."""
    tokens, picture = torch.ones(4, 1, 9, dtype=torch.int64), torch.ones(4, 3, 8, 8, dtype=torch.uint8)
    sizes = torch.full((4, 2), 8)
    columns = {"text": (tokens, tokens[:, 0, :1]), "image2": (picture, sizes)}
    batch = Batch(picture, sizes, torch.arange(4), torch.arange(4), columns=columns)
    there = upload.sent(batch, torch.device("meta"))
    assert there.inputs.is_meta and there.columns["image2"][0].is_meta and pinned == [(4, 3, 8, 8)] * 2
    kept = (there.sizes, there.ids, there.labels, there.columns["text"][0], there.columns["image2"][1])
    assert not any(tensor.is_meta for tensor in kept if tensor is not None)
    upload.sent(there, torch.device("meta"))
    assert len(pinned) == 2


@pytest.mark.usefixtures("able")
def test_an_accelerator_gets_pinned_views_or_makes_them_before_the_step_where_it_has_the_memory(
    pinned: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = toy_of("simclr").data(8)
    device, known = Device(GPU, torch.float32), []
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: known.append((threading.current_thread().name, device))
    )

    def batch(step: int) -> Batch:
        return data.batch(np.arange(4))

    loader = Loader(batch, lambda batch: [batch.inputs / 255], device=device)
    with Ahead(loader, total=1, device=GPU) as ahead:
        assert ahead.thread is not None
        assert torch.equal(ahead(0)[1][0], batch(0).inputs / 255) and pinned == [(4, 3, 16, 16)]
    assert known == [("nearfar-ahead_0", GPU)]
    sent: list[Batch] = []
    monkeypatch.setattr(
        "nearfar.loader.sent", lambda batch, device: sent.append(batch) or batch
    )  # the CPU stands for it
    whole = toy_method("simclr").views
    there, views = Loader(batch, whole, device=device)(0)
    assert there is sent[0] and views is not None
    assert all(torch.equal(view, expected) for view, expected in zip(views, whole(there), strict=True))

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("nearfar.views.view.render", full)
    assert Loader(batch, whole, device=device)(0) == (sent[1], None)
    assert len(pinned) == 1


def test_a_data_set_stays_on_the_device_where_a_quarter_of_its_memory_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upload, "BLOCK", 5 * 3 * 16 * 16)
    data = toy_of("clip").data(64).subset(np.arange(63)[::-1])
    images = np.asarray(data.inputs)
    place = torch.device("cpu")
    assert upload.resident(data, place, free=4 * images.nbytes - 1) is data
    there = upload.resident(data, place, free=4 * images.nbytes)
    assert isinstance(there, upload.Resident) and torch.equal(there.images, torch.from_numpy(images))
    expected, found = (one.batch([5, 0, 62], seed=3, epoch=4) for one in (data, there))
    assert (found.seed, found.epoch) == (3, 4)
    for name in ("inputs", "sizes", "ids", "labels"):
        assert torch.equal(getattr(expected, name), getattr(found, name))
    assert torch.equal(expected.columns["text"][0], found.columns["text"][0])
    sound = toy_of("cpc_audio").data(8)
    assert upload.resident(sound, place, free=10**12) is sound


def test_the_loop_of_an_accelerator_works_on_data_that_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**10))
    monkeypatch.setattr("nearfar.engine.made_on", lambda views, device: True)  # the CPU stands for it
    loop = loop_of("simclr")
    assert isinstance(loop.samples, upload.Resident)
    assert torch.equal(loop.batch(1).inputs, copy.copy(loop_of("simclr")).dataset.batch(loop.plan.indices(1)).inputs)
