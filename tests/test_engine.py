"""The loop: schedule, collapse, NaN, memory. The exact resume of every method is in test_methods.py."""

from __future__ import annotations

import copy
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import SIDE, Tiny, stripes

from nearfar import extract, methods, monitor, optim
from nearfar.device import choose
from nearfar.engine import Loop
from nearfar.errors import DeviceError, HealthError, Stopped
from nearfar.method import Batch, Contrast, Extract, Pairs
from nearfar.plan import Plan
from nearfar.runs import Run
from nearfar.similarity import Similarity


def model_of(**parts: object) -> Contrast:
    method = methods.simclr(encoder=Tiny(), size=SIDE, hidden=(32,), width=16)
    return Contrast(replace(method, **parts))


def loop_of(model: nn.Module, *, epochs: int = 4, lr: float = 0.002, count: int = 128, **settings: object) -> Loop:
    plan = Plan(samples=np.arange(count), batch=32, epochs=epochs, peak=lr, warmup_epochs=0.5, monitor_every=10)
    optimizer = optim.build(model, name="adamw", lr=lr, weight_decay=0.0)
    data = stripes(count)
    return Loop(model=model, optimizer=optimizer, dataset=data, plan=plan, device=choose("cpu", "fp32"), **settings)


def attract(pairs: Pairs, similarity: Similarity) -> Tensor:
    """Pulls near and pushes nothing away: every embedding the same is its best answer."""
    views = similarity.anchor(pairs.anchor).chunk(2)
    return -(views[0] * views[1]).sum(1).mean() - (views[0] * views[0].roll(1, 0)).sum(1).mean()


def test_T1_a_forced_collapse_stops_within_200_steps() -> None:
    with pytest.raises(HealthError, match="collapse") as error:
        extraction = Extract(head=extract.mlp(Tiny.width, 32, 16), pair=extract.every_view)
        loop_of(model_of(loss=attract, extract=extraction), epochs=50)()
    assert int(error.value.where.split()[1]) <= 200
    assert "std" in error.value.what and "rank" in error.value.what and "--lr" in error.value.mend
    assert error.value.exit_code == 5


def test_only_embeddings_that_stay_alike_stop_a_run() -> None:
    health, alike, apart = monitor.Health(), {"std": 0.01, "rank": 50.0}, {"std": 0.03, "rank": 50.0}
    for step in (1, 14, 28, 100):
        health.check(step, alike)
    health.check(101, apart)  # it has recovered: what comes later counts anew
    for step in (150, 249):
        health.check(step, alike)
    with pytest.raises(HealthError, match="since step 150"):
        health.check(250, alike)


def test_T4_nan_stops_and_leaves_what_it_was_made_of(tmp_path: Path) -> None:
    def poisoned(pairs: Pairs, similarity: Similarity) -> Tensor:
        calls.append(1)
        return pairs.anchor.sum() * (float("nan") if len(calls) == 7 else 0.001)

    calls: list[int] = []
    model = model_of(loss=poisoned)
    with Run.open_or_create(tmp_path / "run", settings={}, info={}) as run:
        with pytest.raises(HealthError, match="not a number"):
            loop_of(model, run=run)()
        told = json.loads((run.path / "not_a_number.json").read_text())
        assert told["step"] == 5 and len(told["ids"]) == 32  # the first call measures chance
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("step", [0, 3])
def test_T7_out_of_memory_shrinks_the_chunk_and_changes_no_loss(step: int) -> None:
    class Full(nn.Module):
        """Out of memory for more than 20 samples at once, from its `step`-th training pass on."""

        width = Tiny.width

        def __init__(self) -> None:
            super().__init__()
            self.net, self.passes = Tiny(), 0

        def forward(self, view: Tensor) -> list[Tensor]:
            self.passes += 1
            if self.passes > step and len(view) > 20:
                raise torch.OutOfMemoryError("out of memory")
            return self.net(view)

    torch.manual_seed(0)
    limited = model_of(encoder=Full())
    torch.manual_seed(0)
    free = model_of(encoder=Full())
    free.encoder.net.load_state_dict(limited.encoder.net.state_dict())
    free.head.load_state_dict(limited.head.state_dict())
    free.encoder.passes = -(10**9)
    said: list[str] = []
    found: list[dict[str, float]] = []
    expected: list[dict[str, float]] = []
    loop_of(limited, epochs=2, report=found.append, say=said.append)()
    loop_of(free, epochs=2, report=expected.append)()
    assert limited.chunk == 8 and "negatives stay" in said[0]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_K1_weights_in_channels_last_resume_bit_for_bit(name: str, tmp_path: Path) -> None:
    """Fused optimisers walk through memory: state must come back in the layout of its weights."""

    def run_loop(model: Contrast, epochs: int, run: Run | None = None) -> None:
        loop = loop_of(model, epochs=epochs, run=run)
        loop.optimizer = optim.build(model, name=name, lr=0.01, weight_decay=1e-3)
        loop.plan = replace(loop.plan, epochs=6)
        if epochs < 6:
            loop.report = lambda row: os.kill(os.getpid(), signal.SIGTERM) if row["step"] == 8 else None
        loop()

    torch.manual_seed(0)
    whole = model_of()
    torch.nn.utils.convert_conv2d_weight_memory_format(whole, torch.channels_last)
    first, second = copy.deepcopy(whole), copy.deepcopy(whole)
    run_loop(whole, 6)
    with Run.open_or_create(tmp_path / "run", settings={}, info={}) as run, pytest.raises(Stopped):
        run_loop(first, 2, run)
    with Run.open_or_create(tmp_path / "run", settings={}, info={}) as run:
        run_loop(second, 6, run)
    expected, found = whole.state_dict(), second.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_the_plan_covers_every_sample_once_an_epoch() -> None:
    plan = Plan(samples=np.arange(100, 164), batch=16, epochs=3, peak=1.0, seed=1)
    epochs = [np.concatenate([plan.indices(epoch * 4 + step) for step in range(4)]) for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(100, 164))
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_module_that_is_no_method_trains_too() -> None:
    class Reconstruct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, batch: Batch) -> Tensor:
            return (self.layer(batch.inputs.float().mean((1, 2, 3)).unsqueeze(1) / 255) - 0.5).square().mean()

    rows: list[dict[str, float]] = []
    loop_of(Reconstruct(), epochs=30, lr=0.05, report=rows.append)()
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="not there"):
        choose("xpu")


@pytest.mark.parametrize(
    ("unit", "bf16"), [("_is_amx_tile_supported", True), ("_is_avx512_bf16_supported", True), ("", False)]
)
def test_a_cpu_that_multiplies_bf16_is_asked_to(unit: str, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == unit)
    assert choose("cpu").dtype == (torch.bfloat16 if bf16 else torch.float32)
    assert (choose("cpu", "bf16").dtype, choose("cpu", "fp32").dtype) == (torch.bfloat16, torch.float32)


def test_monitors_on_embeddings_that_are_known() -> None:
    alike = torch.ones(64, 8)
    spread_out = torch.nn.functional.normalize(torch.randn(4096, 128, dtype=torch.float64))
    axes = torch.cat([torch.eye(8), -torch.eye(8)])
    assert monitor.spread(alike) == pytest.approx(0, abs=1e-6)
    assert monitor.spread(spread_out) == pytest.approx(1, abs=0.01)  # 1 / sqrt(d) a dimension
    assert monitor.effective_rank(axes) == pytest.approx(8)
    for some in (spread_out[:20], spread_out):  # fewer than dimensions, and more
        p = torch.linalg.svdvals(some - some.mean(0))
        p = p / p.sum()
        assert monitor.effective_rank(some) == pytest.approx(float((-(p * p.clamp_min(1e-30).log()).sum()).exp()), 1e-6)
    assert monitor.alignment(axes, axes) == 0
    assert monitor.alignment(axes, -axes) == pytest.approx(4)
    assert monitor.uniformity(alike) == pytest.approx(0)
    pairs = [(a - b).square().sum() for i, a in enumerate(axes) for b in axes[:i]]
    assert monitor.uniformity(axes) == pytest.approx(float(torch.stack(pairs).mul(-2).exp().mean().log()))


def cells_of(count: int = 12, places: int = 5, width: int = 8) -> torch.Tensor:
    return torch.randn(count, places, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_monitors_on_cells_are_those_of_loops() -> None:
    """Deviations from the same cell of the other samples, one at a time; padding at the end of some samples."""
    cells, lengths = cells_of(), [5, 5, 4, 3, 5, 1, 2, 5, 4, 5, 3, 2]
    for row, length in zip(cells, lengths, strict=True):
        row[length:] = 0
    rows = []
    for place in range(5):
        here = [cells[b, place] / cells[b, place].norm() for b in range(12) if lengths[b] > place]
        rows += [one - torch.stack(here).mean(0) for one in here]
    known = torch.stack(rows)
    assert monitor.spread(cells) == pytest.approx(float(known.square().mean(0).sqrt().mean() * 8**0.5))
    p = torch.linalg.svdvals(known) / torch.linalg.svdvals(known).sum()
    assert monitor.effective_rank(cells) == pytest.approx(float((-(p * p.log()).sum()).exp()))
    alone = cells.clone()
    alone[1:, 1:] = 0  # all but one sample have one cell
    assert monitor.spread(alone) == pytest.approx(monitor.spread(cells[:, 0]))


def test_cells_that_average_out_are_no_collapse_and_alike_samples_are_one() -> None:
    apart = cells_of(16, 400, 32).float()
    row = monitor.measure([apart], [apart])
    assert row["std"] > 0.9 and row["rank"] > 20 and "alignment" not in row
    assert monitor.spread(apart.mean(1)) == pytest.approx(1, abs=0.1)  # directions of means, however short they are
    offset = apart + 3  # as contexts have it
    row = monitor.measure([offset], [offset])
    assert row["std"] > 0.2 > 3 * monitor.spread(offset.mean(1)) and row["uniformity"] < -0.1
    places = apart[:1].repeat(16, 1, 1)  # each sample the same, though its cells differ
    assert monitor.measure([places], [places])["std"] == pytest.approx(0, abs=1e-6)
    padded = torch.ones(16, 9, 32)
    for sample, cells in enumerate(padded):
        cells[1 + sample % 9 :] = 0
    assert monitor.measure([padded], [padded])["std"] < monitor.COLLAPSED_STD
    assert monitor.measure([padded * 0], [padded * 0])["std"] == 0


def test_alignment_is_that_of_the_means_of_cells() -> None:
    one, other = cells_of().float(), cells_of().flip(0).float()
    found = monitor.measure([one, other], [one, other])["alignment"]
    assert found == pytest.approx(monitor.alignment(one.mean(1), other.mean(1)))


@pytest.mark.parametrize(("count", "places"), [(4, 3), (600, 1), (40, 1000), (1000, 12)])
def test_measured_cells_are_taken_evenly(count: int, places: int) -> None:
    numbers = torch.arange(count * places).view(count, places, 1)
    found = monitor._some_cells(numbers, 512)
    assert 0.9 * min(count * places, 512) <= found.shape[:2].numel() <= 512 or count < 32
    for axis, of in ((found // places, count), (found % places, places)):
        taken = axis.unique()
        assert taken[0] == 0 and taken[-1] >= of - -(-of // len(taken)) - 1
        assert len(taken) == 1 or int(taken.diff().max() - taken.diff().min()) <= 1


def attract_cells(pairs: Pairs, similarity: Similarity) -> torch.Tensor:
    """Pulls all cells to one direction."""
    anchor = similarity.anchor(pairs.anchor)
    return -(anchor @ anchor.detach().mean(0)).mean()


def test_T1_a_forced_collapse_of_cells_stops() -> None:
    model = Contrast(replace(methods.yadim(encoder=Tiny(), size=SIDE, width=16), loss=attract_cells))
    model.head = nn.Sequential(extract.Cells(), nn.Linear(Tiny.width, 16))
    with pytest.raises(HealthError, match="collapse"):
        loop_of(model, epochs=50)()


def test_T12_a_stop_that_is_asked_for_in_the_last_step_is_not_forgotten(tmp_path: Path) -> None:
    """Else Ctrl-C would end one training of a study, and the next would begin."""
    before = signal.getsignal(signal.SIGINT)

    def last(row: dict[str, float]) -> None:
        if row["step"] == loop.plan.total:
            os.kill(os.getpid(), signal.SIGINT)

    with Run.open_or_create(tmp_path / "run", settings={}, info={}) as run:
        loop = loop_of(model_of(), epochs=1, run=run, report=last)
        with pytest.raises(KeyboardInterrupt):
            loop()
    assert [one.name for one in (tmp_path / "run" / "checkpoints").glob("step_*")] == ["step_00000004"]
    assert signal.getsignal(signal.SIGINT) is before
