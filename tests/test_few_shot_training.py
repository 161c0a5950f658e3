"""Training on a split: episodes from the plan, what a run may see, what it may begin with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy import stripes
from toys import toy_method

import nearfar as nf
from nearfar import encoders, optim
from nearfar.device import choose
from nearfar.episode import Shape
from nearfar.episodes import EpisodeSampler
from nearfar.errors import DataError, UsageError
from nearfar.method import advance
from nearfar.plan import Plan
from nearfar.tasks.build import check
from nearfar.tasks.job import prepare
from nearfar.tasks.start import take_weights

CLASSES, EACH = 8, 12
SMALL = {"encoder": "conv4", "size": 16, "epochs": 2, "threads": 1, "precision": "fp32", "device": "cpu", "lr": 0.01}
EPISODE = {"ways": 2, "shots": 1, "queries": 2, "tasks": 2}


def pictures(path: Path, *, poison: bool = False) -> Path:
    """Eight classes of stripes in colours; with `poison` the images of the test classes are noise."""
    data = stripes(CLASSES * EACH)
    images = np.array(data.inputs).transpose(0, 2, 3, 1)
    labels = np.repeat(np.arange(CLASSES), EACH)
    if poison:
        test = labels >= 6
        images[test] = np.random.default_rng(7).integers(256, size=images[test].shape, dtype=np.uint8)
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a split of four, two and two classes."""
    folder = tmp_path_factory.mktemp("few")
    pictures(folder / "data.npz")
    pictures(folder / "poisoned.npz", poison=True)
    split = {"name": "toy", "train": ["0", "1", "2", "3"], "val": ["4", "5"], "test": ["6", "7"]}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def trained(place: Path, name: str, *, data: str = "data.npz", **settings: object) -> Path:
    settings = {"split": str(place / "split.json"), **SMALL, **settings}
    return nf.train(str(place / data), out=place / name, say=lambda message: None, **settings)


@pytest.mark.parametrize("method", ["rfs", "protonet", "simclr"])
def test_images_of_test_classes_can_not_change_a_training(method: str, place: Path) -> None:
    own = EPISODE if method == "protonet" else {"batch": 16} if method == "rfs" else {"batch": 16, "hidden": (8,)}
    runs = [
        trained(place, f"{method}-{data}", data=f"{data}.npz", method=method, **own) for data in ("data", "poisoned")
    ]
    clean, poisoned = (load_file(run / "encoder.safetensors") for run in runs)
    assert clean.keys() == poisoned.keys() and all(torch.equal(clean[name], poisoned[name]) for name in clean)
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    for one, other in zip(*rows, strict=True):
        for row in (one, other):
            for name in ("images_per_second", "data_wait", "seconds_left"):
                row.pop(name, None)
        assert one == other
    assert "one_shot" in rows[0][-1]


def test_a_run_with_a_split_knows_no_other_class(place: Path) -> None:
    settings = check({"method": "rfs", "split": str(place / "split.json"), **SMALL, "batch": 16})
    job = prepare(str(place / "data.npz"), settings, choose("cpu", "fp32"), lambda message: None)
    assert job.dataset.classes == ["0", "1", "2", "3"] and len(job.dataset) == 4 * EACH
    assert job.watched is not None and job.watched.classes == ["4", "5"]
    assert set(job.dataset.labels) == {0, 1, 2, 3} and job.method.extract.pair.classes.weight.shape[0] == 4
    assert len(job.held) == 0 and sorted(job.plan.samples) == list(range(4 * EACH))
    stored = job.identity("data.npz")["info"]
    assert stored["classes"] == ["0", "1", "2", "3"] and stored["split"]["name"] == "toy"


def test_the_plan_draws_whole_episodes_and_each_process_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.arange(6), 10)
    samples = np.arange(60)[::-1].copy()
    shape = Shape(ways=3, shots=2, queries=4, tasks=4)
    sampler = EpisodeSampler(labels[samples], ways=3, shots=2, queries=4, seed=5)
    plan = Plan(samples=samples, batch=shape.tasks * shape.images, epochs=240, peak=1.0, episodes=sampler, seed=5)
    whole = plan.indices(7)
    drawn = sampler.draw(28, 4)
    assert np.array_equal(whole, samples[np.concatenate([drawn.support, drawn.query], axis=1)].ravel())
    support, query = shape.parted(torch.from_numpy(labels[whole]))
    for s, q in zip(support, query, strict=True):
        assert torch.equal(s.view(3, 2)[:, :1].expand(3, 4), q.view(3, 4)) and len(s.unique()) == 3
    assert plan.address(7) == 7 and Plan(samples=samples, batch=20, epochs=1, peak=1.0).address(7) == 2
    monkeypatch.setattr("nearfar.plan.world", lambda: 2)
    halves = []
    for number in range(2):
        monkeypatch.setattr("nearfar.plan.rank", lambda number=number: number)
        halves.append(plan.indices(7))
    assert np.array_equal(np.concatenate(halves), whole)


def test_a_single_validation_class_is_not_watched(place: Path) -> None:
    split = {"name": "lone", "train": ["0", "1", "2", "3"], "val": ["4"], "test": ["6", "7"]}
    (place / "lone.json").write_text(json.dumps(split))
    run = trained(place, "lone", method="rfs", batch=16, epochs=1, split=str(place / "lone.json"))
    assert "one_shot" not in (run / "metrics.jsonl").read_text()


def test_a_run_begins_with_the_encoder_of_another(place: Path) -> None:
    first = trained(place, "first", method="rfs", batch=16)
    second = trained(place, "second", method="protonet", init=str(first), lr=1e-12, **EPISODE)
    one, two = (load_file(run / "encoder.safetensors") for run in (first, second))
    weights = [name for name in one if "running" not in name and "num_batches" not in name]
    assert weights and all(torch.allclose(one[name], two[name], atol=1e-6) for name in weights)
    with pytest.raises(UsageError, match="--encoder conv4"):
        trained(place, "third", method="rfs", batch=16, init=str(first), encoder="conv4-pool")
    with pytest.raises(UsageError, match="no"):
        trained(place, "fourth", method="rfs", batch=16, init=str(place / "nowhere"))


def test_a_start_that_has_seen_the_test_classes_is_refused(place: Path) -> None:
    everything = nf.train(str(place / "data.npz"), out=place / "all", method="rfs", batch=16, **SMALL)
    with pytest.raises(UsageError, match="4 classes that toy keeps for later"):
        trained(place, "leak", method="rfs", batch=16, init=str(everything))
    first = trained(place, "clean", method="rfs", batch=16)
    second = trained(place, "cleaner", method="rfs", batch=16, init=str(first))
    info = json.loads((second / "nearfar-run.json").read_text())["info"]
    assert info["seen"] == ["0", "1", "2", "3"]
    told: list[str] = []
    blind = nf.train(str(place / "data.npz"), out=place / "blind", method="simclr", hidden=(8,), batch=16, labels=False,
                     **SMALL)  # fmt: skip
    settings = {**SMALL, "method": "rfs", "batch": 16, "init": str(blind), "split": str(place / "split.json")}
    nf.train(str(place / "data.npz"), out=place / "hidden", say=told.append, **settings)
    assert any("may have seen the test classes" in line for line in told)
    assert json.loads((place / "hidden" / "nearfar-run.json").read_text())["info"]["seen"] is None


def test_dropblock_begins_anew_where_a_run_begins_with_another() -> None:
    """The progress of the run before is in its weights; carried over, the first step would drop as the last one did."""
    earlier = encoders.build("resnet12-grid", channels=3, size=16)
    advance(earlier, 1.0)
    method = replace(toy_method("rfs"), encoder=encoders.build("resnet12-grid", channels=3, size=16))
    take_weights(method, earlier.state_dict(), where="earlier")
    progress = [value for name, value in method.encoder.state_dict().items() if name.endswith("progress")]
    assert len(progress) == 2 and not any(progress)
    for one, other in zip(earlier.parameters(), method.encoder.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_learns_the_answers_of_another(place: Path) -> None:
    first = trained(place, "generation0", method="rfs", batch=16)
    second = trained(place, "generation1", method="rfs", batch=16, teacher=str(first))
    third = trained(place, "generation2", method="rfs", batch=16, teacher=str(second))
    weights = [load_file(run / "encoder.safetensors") for run in (first, second, third)]
    name = "convs.0.weight"
    assert not torch.equal(weights[0][name], weights[1][name]) and not torch.equal(weights[1][name], weights[2][name])
    before = json.loads((second / "nearfar-run.json").read_text())["info"]["teacher"]
    assert len(before) == 32
    assert nf.load_encoder(third).net is not None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "simclr", "hidden": (8,), "teacher": "x"}, "no teacher of this kind"),
        ({"method": "protonet", **EPISODE, "ways": 5}, "5"),
        ({"method": "protonet", **EPISODE, "queries": 20}, "21|20"),
        ({"method": "rfs", "split": "cifarfs"}, "cifar-fs"),
        ({"method": "rfs", "classes": 3}, "classes: unknown"),
        ({"method": "protonet", **EPISODE, "tasks": 10}, "a step takes 60 images .10 episodes of 6., and there are 48"),
        ({"method": "protonet", **EPISODE, "batch": 64}, "leave --batch out"),
        ({"method": "protonet", **EPISODE, "chunk": 13}, "at most the batch of 12"),
        ({"method": "rfs", "milestones": "-1"}, "milestones: must rise"),
        ({"method": "rfs", "milestones": "1.5,1"}, "milestones: must rise"),
        ({"method": "rfs", "milestones": "2"}, "milestones: must rise"),
    ],
)
def test_what_can_not_work_is_refused_before_work(settings: dict[str, object], told: str, place: Path) -> None:
    with pytest.raises((UsageError, DataError), match=told):
        trained(place, "refused", **settings)
    assert not (place / "refused").exists()


def test_the_staircase() -> None:
    settings = check({"epochs": "10", "milestones": "6,8", "warmup_epochs": 1})
    assert settings.milestones == (6, 8)
    plan = Plan(samples=np.arange(40), batch=10, epochs=10, peak=1.0, warmup_epochs=1.0, milestones=(6.0, 8.0))
    rates = [plan.lr(step) for step in range(plan.total)]
    expected = [0.25, 0.5, 0.75, 1.0] + [1.0] * 20 + [0.1] * 8 + [0.01] * 8
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert optim.staircase(0, drops=(), warmup=0, peak=2.0) == 2.0


@pytest.mark.parametrize("number", ["ways", "shots", "queries", "tasks"])
def test_a_shape_of_nothing_is_refused(number: str) -> None:
    with pytest.raises(UsageError, match=f"{number}=0"):
        Shape(**{**EPISODE, number: 0})


def test_rows_that_are_no_whole_episodes_are_refused() -> None:
    with pytest.raises(UsageError, match="7 rows"):
        Shape(**EPISODE).parted(torch.arange(7))
