"""Sequences: loader, collector, windows, recurrent context, and CPC over steps; its contract is in test_methods.py."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import knn_accuracy
from toy_sequences import LONGEST, WIDTH, toy_sequences

from nearfar import encoders, optim
from nearfar.data import Dataset
from nearfar.data.collect import collect
from nearfar.data.sequences import load_sequences
from nearfar.device import choose
from nearfar.encoders.observations import Observations
from nearfar.encoders.recurrent import Recurrent
from nearfar.engine import Loop
from nearfar.errors import DataError, IntegrityError, UsageError
from nearfar.method import Batch, Contrast
from nearfar.methods.cpc_sequence import cpc_sequence
from nearfar.plan import Plan
from nearfar.views.sequences import Steps, Windows

WINDOW, BATCH = 12, 32


# ---------------------------------------------------------------------------------------------------- recurrent context


def padded(lengths: list[int], width: int = 3, longest: int = 7) -> Tensor:
    view = torch.randn(len(lengths), longest, width, dtype=torch.float64)
    for row, length in zip(view, lengths, strict=True):
        row[length:] = torch.nan
    return view


def net(kind: str = "gru", **settings: str) -> Recurrent:
    return Recurrent(Observations(3, width=5), width=5, context=6, kind=kind, **settings).double()


def slow_context(recurrence: nn.GRU | nn.LSTM, z: Tensor) -> Tensor:
    """One sequence `[T, D]` -> `[T, H]`, by the equations, a step at a time."""
    into, again = z @ recurrence.weight_ih_l0.T + recurrence.bias_ih_l0, recurrence.weight_hh_l0
    h = c = torch.zeros(recurrence.hidden_size, dtype=z.dtype)
    found = []
    for row in into:
        back = again @ h + recurrence.bias_hh_l0
        if isinstance(recurrence, nn.GRU):
            (xr, xu, xn), (hr, hu, hn) = row.chunk(3), back.chunk(3)
            update = torch.sigmoid(xu + hu)
            h = (1 - update) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn) + update * h
        else:
            take, forget, new, out = (row + back).chunk(4)
            c = torch.sigmoid(forget) * c + torch.sigmoid(take) * torch.tanh(new)
            h = torch.sigmoid(out) * torch.tanh(c)
        found.append(h)
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("representation", ["context", "cells", "last"])
def test_recurrent_equals_a_loop_over_samples_and_steps(kind, representation):
    lengths = [7, 1, 4]
    view, model = padded(lengths), net(kind, representation=representation)
    z, c, found = model(view)
    assert found.shape == (3, model.width)
    for row, length in enumerate(lengths):
        own_z = model.cells.net(view[row, :length])
        own_c = slow_context(model.recurrence, own_z)
        expected = {"context": own_c.mean(0), "cells": own_z.mean(0), "last": own_c[-1]}[representation]
        torch.testing.assert_close(z[row, :length], own_z)
        torch.testing.assert_close(c[row, :length], own_c)
        torch.testing.assert_close(found[row], expected)
        assert not z[row, length:].any() and not c[row, length:].any()


class Leaky(nn.Module):
    """Cells that say something wild of padding."""

    def __init__(self, wild: float) -> None:
        super().__init__()
        self.inner, self.wild = Observations(3, width=5).double(), wild

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        z, valid = self.inner(view)
        return z.masked_fill(~valid[..., None], self.wild), valid


@pytest.mark.parametrize("representation", ["context", "cells", "last"])
def test_what_cells_say_of_padding_changes_nothing(representation):
    view, found = padded([7, 3, 5]), []
    for wild in (0.0, 1e9, math.nan):
        torch.manual_seed(1)
        model = Recurrent(Leaky(wild), width=5, context=6, representation=representation).double()
        maps = model(view)
        sum(m.sum() for m in maps).backward()
        found.append([*maps, *(p.grad for p in model.parameters() if p.grad is not None)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.equal(one, two) and one.isfinite().all()


def test_a_longer_canvas_changes_nothing():
    model, view = net(), padded([3, 2], longest=4)
    longer = torch.cat([view, torch.full((2, 9, 3), torch.nan, dtype=view.dtype)], 1)
    torch.testing.assert_close(model(longer)[2], model(view)[2], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("representation", ["context", "cells", "last"])
def test_a_sample_without_a_valid_step_is_zero_and_never_nan(representation):
    model = net(representation=representation)
    maps = model(padded([0, 4]))
    sum(m.pow(2).sum() for m in maps).backward()
    assert not maps[2][0].any() and maps[2][1].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_context_sees_no_later_step(kind):
    view = padded([7]).requires_grad_()
    c = net(kind)(view)[1]
    for step in range(7):
        (seen,) = torch.autograd.grad(c[0, step].sum(), view, retain_graph=True)
        assert not seen[0, step + 1 :].any() and (seen[0, : step + 1] != 0).any(1).all()


def test_recurrence_is_fp32_under_autocast():
    model, view = net().float(), padded([7, 4]).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model(view)
    assert all(m.dtype == torch.float32 for m in maps)
    torch.testing.assert_close(maps[1][0], model.recurrence(maps[0])[0][0], rtol=1e-6, atol=1e-6)


def test_recurrent_refuses_what_it_does_not_know():
    with pytest.raises(UsageError, match="kind 'rnn'"):
        net("rnn")
    with pytest.raises(UsageError, match="representation 'max'"):
        net(representation="max")
    with pytest.raises(UsageError, match="widths 5 and 0"):
        Recurrent(nn.Identity(), width=5, context=0)
    assert "GRU 6, mean context of width 6" in net().describe()


# -------------------------------------------------------------------------------------------------------- observations


@pytest.mark.parametrize("shape", [(1,), (9,), (1, 5, 7), (3, 16, 16), (4, 84, 84), (3, 64, 40)])
def test_observations_see_each_step_by_itself(shape):
    model = Observations(shape, width=8)
    view = torch.rand(2, 3, *shape)
    view[1, 2] = torch.nan
    z, valid = model(view)
    assert z.shape == (2, 3, 8) and valid.tolist() == [[True] * 3, [True, True, False]]
    torch.testing.assert_close(z[0, 1], model(view[:1, 1:2])[0][0, 0], rtol=1e-4, atol=1e-5)
    assert z.isfinite().all()


def test_observations_of_another_shape_are_refused():
    with pytest.raises(UsageError, match=r"\[2, 5, 4\], observations are \[3\]"):
        Observations(3, width=8)(torch.zeros(2, 5, 4))
    with pytest.raises(UsageError, match=r"shape \[8, 8\]"):
        Observations((8, 8), width=8)


# -------------------------------------------------------------------------------------------------------------- loader


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def test_all_forms_of_the_same_sequences_read_the_same(tmp_path):
    steps = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    (tmp_path / "folder").mkdir()
    for number in range(3):
        np.save(tmp_path / "folder" / f"{number}.npy", steps[4 * number : 4 * number + 4])
    np.save(tmp_path / "a.npy", steps.reshape(3, 4, 2))
    forms = [
        saved(tmp_path / "a.npz", observations=steps.reshape(3, 4, 2)),
        saved(tmp_path / "b.npz", x=steps.astype(np.float64), lengths=[4, 4, 4]),
        saved(tmp_path / "c.npz", observations=steps, ends=[4, 8, 12]),
        tmp_path / "a.npy",
        tmp_path / "folder",
    ]
    for form in forms:
        found = load_sequences(form)
        assert (len(found), found.kind, found.labels) == (3, "sequences", None)
        assert found.inputs.dtype == np.float32 and found.sizes.tolist() == [[4]] * 3
        np.testing.assert_array_equal(found.inputs, steps.reshape(3, 4, 2))
        np.testing.assert_array_equal(found.hashes, load_sequences(forms[0]).hashes)


def test_sequences_of_different_lengths_are_padded_in_the_batch_only(tmp_path):
    flat = np.arange(1, 7, dtype=np.float32)[:, None]
    found = load_sequences(saved(tmp_path / "a.npz", observations=flat, lengths=[1, 3, 2], labels=["b", "a", "b"]))
    batch = found.batch([2, 0])
    assert batch.inputs.squeeze(2).tolist() == [[5, 6], [1, 0]] and batch.sizes.tolist() == [[2], [1]]
    assert batch.ids.tolist() == [2, 0] and found.classes == ["a", "b"] and found.labels.tolist() == [1, 0, 1]


def test_subfolders_are_classes_and_one_bad_file_is_listed(tmp_path):
    for number, name in enumerate(["run", "walk"] * 4):
        (tmp_path / name).mkdir(exist_ok=True)
        np.savez(tmp_path / name / f"{number}.npz", observations=np.full((number + 1, 3), number))
    (tmp_path / "run" / "broken.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "walk" / "notes.txt").write_text("not data")
    (tmp_path / ".hidden.npy").write_bytes(b"")
    ticks = []
    found = load_sequences(tmp_path, labels=True, progress=lambda done, total: ticks.append((done, total)))
    assert len(found) == 8 and found.classes == ["run", "walk"] and found.names[0] == "run/0.npz"
    assert found.sizes[:, 0].tolist() == [1, 3, 5, 7, 2, 4, 6, 8]
    assert [name for name, _ in found.bad] == ["run/broken.npz"] and "not a whole array" in found.bad[0][1]
    assert ticks[-1][0] == ticks[-1][1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_D21_sequences_with_nan_or_infinity_are_listed_and_constant_ones_are_fine(tmp_path, value):
    flat = np.zeros((14, 2))
    flat[[3, 6, 7], [1, 0, 0]] = value  # first and last step of sequence 1, first of sequence 3
    path = saved(tmp_path / "a.npz", observations=flat, lengths=[3, 4, 0, 5, 2], y=[1, 0, 1, 0, 0])
    found = load_sequences(path, max_bad=3)
    assert found.bad == [
        ("1", "NaN or infinity in 2 of 4 steps, first in step 0"),
        ("2", "no steps"),
        ("3", "NaN or infinity in 1 of 5 steps, first in step 0"),
    ]
    assert found.names == ["0", "4"] and found.sizes.tolist() == [[3], [2]] and found.labels.tolist() == [1, 0]
    assert np.isfinite(np.asarray(found.inputs)).all()
    loss = Contrast(cpc_sequence(channels=2, size=4, steps=1))(found.batch([0, 1]))
    loss.backward()
    assert loss.isfinite()


def test_too_many_bad_sequences_stop_the_reading(tmp_path):
    path = saved(tmp_path / "a.npz", observations=np.full((4, 3, 2), np.nan))
    with pytest.raises(DataError, match="nothing here can be read"):
        load_sequences(path)
    with pytest.raises(DataError, match="nothing here can be read"):
        load_sequences(path, max_bad=9)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 3, 8, 8), (2, 3, 8, 8, 3), (2, 3, 9, 16, 12), (2, 3)])
def test_pictures_have_their_channels_first_and_stay_uint8(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    found = load_sequences(saved(tmp_path / "a.npz", observations=pixels)).inputs
    expected = {2: pixels[:, :, None], 4: pixels[:, :, None]}.get(len(shape), pixels)
    expected = np.moveaxis(pixels, 4, 2) if shape[-1] == 3 and len(shape) == 5 else expected
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(found), expected)
    view = Steps()(torch.from_numpy(np.asarray(found)), [[3], [3]])
    torch.testing.assert_close(view, torch.from_numpy(expected.astype(np.float32) / 255))


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": np.zeros((2, 3))}, "no key observations"),
        ({"observations": np.zeros(3)}, r"shape \[3\]"),
        ({"observations": np.zeros((0, 3))}, r"shape \[0, 3\]"),
        ({"observations": np.zeros((2, 3), complex)}, "type complex128"),
        ({"observations": np.zeros((2, 3, 2, 4, 5, 5))}, r"shape \[2, 4, 5, 5\]"),
        ({"observations": np.zeros((2, 3, 4, 5, 4))}, "which axis"),
        ({"observations": np.zeros((6, 2)), "lengths": [2, 3]}, "lengths tell of 5 steps"),
        ({"observations": np.zeros((6, 2)), "lengths": [7, -1]}, "the shortest sequence of -1"),
        ({"observations": np.zeros((6, 2)), "ends": [4, 2, 6]}, "the shortest sequence of -2"),
        ({"observations": np.zeros((6, 2)), "ends": [2, 4]}, "ends tell of 4 steps"),
        ({"observations": np.zeros((6, 2)), "lengths": [2.5, 3.5]}, "float64"),
        ({"observations": np.zeros((2, 3)), "labels": [1, 2, 3]}, r"2 sequences, labels of shape \[3\]"),
        ({"observations": np.zeros((2, 3)), "labels": [0.5, 1.5]}, "labels of type float64"),
    ],
)
def test_wrong_arrays_are_refused_in_words(tmp_path, arrays, told):
    with pytest.raises(DataError, match=told):
        load_sequences(saved(tmp_path / "a.npz", **arrays))


def test_missing_labels_are_refused_where_they_are_needed(tmp_path):
    plain = saved(tmp_path / "a.npz", observations=np.zeros((2, 3)))
    one = saved(tmp_path / "b.npz", observations=np.zeros((2, 3)), labels=["x", "x"])
    with pytest.raises(DataError, match="no labels"):
        load_sequences(plain, labels=True)
    with pytest.raises(DataError, match="only one class"):
        load_sequences(one, labels=True)
    assert load_sequences(one, labels=False).labels is None


def test_S1_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.array([{}, {}], object), allow_pickle=True)
    np.save(tmp_path / "b.npy", np.array([{}, {}], object), allow_pickle=True)
    for name in ("a.npz", "b.npy"):
        with pytest.raises(IntegrityError, match="Python objects"):
            load_sequences(tmp_path / name)
    np.save(tmp_path / "c.npy", np.zeros((3, 2)))
    assert [name for name, _ in load_sequences(tmp_path, max_bad=2).bad] == ["a.npz", "b.npy"]


@pytest.mark.parametrize("name", ["walks.csv", "walks.npy", "walks"])
def test_a_file_of_another_kind_is_not_called_dangerous(tmp_path, name):
    (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="kind that is not read") as caught:
        load_sequences(tmp_path / name)
    assert ".npz" in caught.value.mend


def test_S1_a_pickle_is_called_dangerous(tmp_path):
    np.zeros(3).dump(tmp_path / "a.npy")
    with pytest.raises(IntegrityError, match="Python objects"):
        load_sequences(tmp_path / "a.npy")


def test_damaged_and_missing_files_are_refused(tmp_path):
    whole = saved(tmp_path / "a.npz", observations=np.random.default_rng(0).normal(size=(9, 9))).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-200])
    (tmp_path / "flipped.npz").write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    for name in ("cut.npz", "flipped.npz"):
        with pytest.raises(DataError, match="not a whole array"):
            load_sequences(tmp_path / name)
    with pytest.raises(DataError, match="nothing there"):
        load_sequences(tmp_path / "no.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no .npz or .npy"):
        load_sequences(tmp_path / "empty")


def test_files_with_other_observations_than_the_first_are_listed(tmp_path):
    for name, shape in {"a": (4, 2), "b": (3, 2), "c": (4, 3)}.items():
        np.save(tmp_path / f"{name}.npy", np.zeros(shape))
    saved(tmp_path / "d.npz", observations=np.zeros((4, 2)), lengths=[2, 2])
    found = load_sequences(tmp_path, max_bad=2)
    assert found.bad == [
        ("c.npy", "observations are float32 [3], those of a.npy float32 [2]"),
        ("d.npz", "several sequences in one file of a folder"),
    ]


# ----------------------------------------------------------------------------------------------------------- collector


class Walk:
    """An environment with Gymnasium's interface that writes every observation into the same array."""

    class Actions:
        def seed(self, seed: int) -> None:
            self.random = np.random.default_rng(seed)

        def sample(self) -> int:
            return int(self.random.integers(2))

    def __init__(self) -> None:
        self.action_space, self.seen, self.seeds = self.Actions(), np.zeros(2, np.float32), []

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict]:
        self.seeds.append(seed)
        self.random = np.random.default_rng(seed)
        self.seen[:] = self.random.normal(size=2)
        return self.seen, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.seen += action
        return self.seen, 0.0, bool(self.seen[0] > 3), False, {}


def test_collected_sequences_are_read_and_depend_on_the_seed_alone(tmp_path):
    one, two, other = (collect(Walk(), steps=40, seed=seed) for seed in (1, 1, 2))
    assert one["observations"].shape == (40, 2) and one["lengths"].sum() == 40 and len(one["lengths"]) > 3
    assert all(np.array_equal(one[key], two[key]) for key in one)
    assert not np.array_equal(one["observations"], other["observations"])
    longer = collect(Walk(), steps=60, seed=1)
    np.testing.assert_array_equal(longer["observations"][:40], one["observations"])
    assert np.diff(one["observations"][: one["lengths"][0], 0]).min() >= 0, "copies, not one array many times"
    np.savez(tmp_path / "walks.npz", **one)
    assert load_sequences(tmp_path / "walks.npz").sizes[:, 0].tolist() == one["lengths"].tolist()


def test_episodes_start_from_seeds_of_their_own():
    environment = Walk()
    collect(environment, lambda seen: 1, steps=30, seed=5)
    assert len(set(environment.seeds)) == len(environment.seeds) > 3


def test_other_interfaces_are_refused():
    environment = Walk()
    environment.step = lambda action: (np.zeros(2), 0.0, False, {})
    with pytest.raises(UsageError, match="step gave 4 values"):
        collect(environment, steps=3, seed=0)
    environment.reset = lambda seed: np.zeros(2)
    with pytest.raises(UsageError, match="reset gave a ndarray"):
        collect(environment, steps=3, seed=0)
    environment.reset = lambda seed: ({"position": 1}, {})
    with pytest.raises(UsageError, match="type object"):
        collect(environment, steps=3, seed=0)
    with pytest.raises(UsageError, match="0 steps"):
        collect(Walk(), steps=0, seed=0)


# --------------------------------------------------------------------------------------------------------------- views


def test_windows_do_not_depend_on_the_rest_of_the_batch():
    data = toy_sequences(40)
    batch = data.batch(np.arange(40), seed=4, epoch=2)
    (whole,) = Windows(WINDOW)(batch)
    for places in ([7], [3, 30, 7], list(range(39, -1, -1))):
        (some,) = Windows(WINDOW)(data.batch(places, seed=4, epoch=2))
        assert torch.equal(some, whole[places])
    for other in (replace(batch, epoch=3), replace(batch, seed=5)):
        assert not torch.equal(Windows(WINDOW)(other)[0], whole)


def test_windows_are_consecutive_steps_and_reach_every_start():
    count = torch.arange(1.0, 8).view(1, 7, 1).repeat(300, 1, 1)
    batch = Batch(count, torch.full((300, 1), 6), torch.arange(300))
    (view,) = Windows(4)(batch)
    starts = view[:, 0, 0]
    assert torch.equal(view.squeeze(2), starts[:, None] + torch.arange(4))
    assert torch.bincount(starts.long(), minlength=4).tolist()[1:] == pytest.approx([100] * 3, abs=30)


def test_shorter_sequences_are_whole_and_padded_with_nan():
    (view,) = Windows(5)(Batch(torch.ones(2, 3, 2), torch.tensor([[3], [2]]), torch.arange(2)))
    assert view.shape == (2, 5, 2) and view.isnan().all(2).tolist() == [
        [False] * 3 + [True] * 2,
        [False] * 2 + [True] * 3,
    ]
    with pytest.raises(UsageError, match="a window of 0 steps"):
        Windows(0)


def test_steps_are_all_of_them_and_survive_the_run_folder():
    batch = toy_sequences(9).batch(np.arange(9))
    transform = Steps.from_dict(Steps().to_dict())
    view = transform(batch.inputs, batch.sizes)
    assert transform == Steps() and Steps().to_dict() == {"kind": "steps"}
    for row, values, (length,) in zip(view, batch.inputs, batch.sizes.tolist(), strict=True):
        assert torch.equal(row[:length], values[:length]) and row[length:].isnan().all()
    with pytest.raises(UsageError, match="taken whole"):
        Steps.from_dict({"kind": "steps", "size": 3})


# ---------------------------------------------------------------------------------------------------------- the method


def toy_model(**settings: object) -> Contrast:
    return Contrast(
        cpc_sequence(**{"channels": WIDTH, "size": WINDOW, "steps": 3, "width": 16, "context": 32, **settings})
    )


def toy_loop(model: Contrast, data: Dataset, *, epochs: int, **settings: object) -> Loop:
    plan = Plan(samples=np.arange(len(data)), batch=BATCH, epochs=epochs, peak=0.02, warmup_epochs=0.5, seed=3)
    optimizer = optim.build(model, name="adamw", lr=0.02, weight_decay=1e-4)
    return Loop(model=model, optimizer=optimizer, dataset=data, plan=plan, device=choose("cpu", "fp32"), **settings)


def double(model: Contrast) -> Contrast:
    model = model.double()
    views = model.views
    model.views = lambda batch: [view.double() for view in views(batch)]
    return model


def toy_batch(count: int = 16, *, start: int = 0, epoch: int = 0) -> Batch:
    return toy_sequences(64).batch(np.arange(start, start + count), seed=1, epoch=epoch)


def features(model: Contrast, data: Dataset) -> Tensor:
    batch = data.batch(np.arange(len(data)))
    with torch.no_grad():
        return encoders.pooled(model.encoder(Steps()(batch.inputs, batch.sizes)))


@pytest.mark.slow
def test_cpc_sequence_learns_a_toy_that_means_do_not_tell():
    data = toy_sequences(256)
    batch, model = data.batch(np.arange(256)), toy_model()
    means = knn_accuracy(batch.inputs.sum(1) / batch.sizes, data.labels)
    before = knn_accuracy(features(model, data), data.labels)
    toy_loop(model, data, epochs=20)()
    after = knn_accuracy(features(model, data), data.labels)
    assert means < 0.4 and after > max(means, before) + 0.3, (means, before, after)


@pytest.mark.parametrize("window", [WINDOW, LONGEST])
def test_the_loss_is_log_n_where_predictions_say_nothing(window):
    model = double(toy_model(size=window))
    for prediction in model.pair.predictions:
        nn.init.zeros_(prediction.weight)
    batch = toy_batch()
    steps = int(batch.sizes.clamp_max(window).sum())
    assert steps < 16 * LONGEST
    assert model(batch).item() == pytest.approx(math.log(steps), abs=1e-12)
    assert model.chance == pytest.approx(math.log(steps), abs=1e-12)


@pytest.mark.parametrize(("window", "first"), [(WINDOW, 1), (LONGEST, 2)])
def test_the_loss_equals_a_loop_over_steps_samples_and_others(window, first):
    model = double(toy_model(size=window, first=first))
    batch = toy_batch(5)
    (view,) = model.views(batch)
    lengths = batch.sizes[:, 0].clamp_max(window).tolist()
    z, c, _ = model.encoder(view)
    others = torch.cat([row[:length] for row, length in zip(z, lengths, strict=True)])
    means = []
    for weight, ahead in zip(model.pair.predictions, range(first, 4), strict=True):
        losses = []
        for sample, length in enumerate(lengths):
            for step in range(length - ahead):
                scores = others @ weight(c[sample, step])
                losses.append(scores.logsumexp(0) - z[sample, step + ahead] @ weight(c[sample, step]))
        means.append(torch.stack(losses).mean())
    torch.testing.assert_close(model(batch), torch.stack(means).mean(), rtol=1e-11, atol=1e-11)


def test_sequences_too_short_for_a_prediction_give_a_loss_of_zero():
    batch = Batch(torch.ones(4, 3, WIDTH), torch.tensor([[1], [3], [2], [1]]), torch.arange(4))
    loss = toy_model(first=3)(batch)
    loss.backward()
    assert float(loss.detach()) == 0


def test_pictures_are_learned_from(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(6, 9, 3, 12, 10), dtype=np.uint8)
    data = load_sequences(saved(tmp_path / "a.npz", observations=pixels))
    model = Contrast(cpc_sequence(channels=data.inputs.shape[2:], size=6, steps=2, encoder="lstm"))
    model(data.batch(np.arange(6))).backward()
    assert "LSTM 128" in model.encoder.describe() and "pictures of 3 x 12 x 10" in model.encoder.describe()
    assert features(model, data).shape == (6, 128)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="steps 1 to 12 ahead in windows of 12"):
        cpc_sequence(size=12, steps=12)
    with pytest.raises(UsageError, match="steps 0 to 2"):
        cpc_sequence(first=0, steps=2)
    with pytest.raises(UsageError, match="no encoder 'resnet18' for sequences"):
        cpc_sequence(encoder="resnet18")
    own = Recurrent(Observations(3, width=5), width=5, context=6)
    assert cpc_sequence(encoder=own).encoder is own


def test_the_example_runs(repository, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rl_auxiliary.py", "--updates", "4", "--seeds", "1"])
    runpy.run_path(str(repository / "examples" / "rl_auxiliary.py"), run_name="__main__")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and "without" in told[1] and "with CPC" in told[2]


def test_evaluation_sees_the_representation_that_is_asked_for():
    view, found = torch.randn(3, 9, 4), {}
    for representation in ("context", "cells", "last"):
        net = cpc_sequence(channels=4, size=9, width=5, context=6, representation=representation).encoder
        z, c, found[representation] = net(view)
        expected = {"context": c.mean(1), "cells": z.mean(1), "last": c[:, -1]}[representation]
        torch.testing.assert_close(found[representation], expected)
        assert net.width == expected.shape[1]
    own = Recurrent(Observations(3, width=5), width=5, context=6, representation="last")
    assert cpc_sequence(encoder=own).encoder.representation == "last"
    other = cpc_sequence(encoder=own, representation="cells").encoder
    assert (own.representation, own.width, other.representation, other.width) == ("last", 6, "cells", 5)
    assert all(one is two for one, two in zip(own.parameters(), other.parameters(), strict=True))
    with pytest.raises(UsageError, match="'max'"):
        cpc_sequence(representation="max")


def test_sequences_that_are_too_short_are_counted():
    data = Batch(torch.ones(4, 3, WIDTH), torch.tensor([[1], [3], [2], [99]]), torch.arange(4))
    assert [cpc_sequence(first=n, steps=3).extract.pair.enough(data.sizes) for n in (1, 2, 3)] == [3, 2, 1]
