"""From pretraining over few labels to a small network: SimCLR v2, `finetune`, `distil`."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toy import SIDE, Tiny, stripes
from toys import double, toy_batch, toy_method

import nearfar as nf
from nearfar import extract, methods
from nearfar.data import Dataset
from nearfar.device import choose
from nearfar.encoders import pooled
from nearfar.errors import DataError, UsageError
from nearfar.losses import cross_entropy
from nearfar.method import Contrast
from nearfar.runs import Run
from nearfar.tasks.answers import answers_of, hidden_widths, own_score
from nearfar.tasks.build import check
from nearfar.tasks.encoder import load_encoder, stored_method, stored_shape
from nearfar.tasks.job import Job, prepare
from nearfar.tasks.labelled import labelled_part

SMALL = {"encoder": "conv4", "size": SIDE, "batch": 16, "threads": 1, "precision": "fp32", "device": "cpu", "lr": 0.01}
PRETRAINING = {"method": "simclr_v2", "width": 16, **SMALL}
FINE_TUNING = {"method": "finetune", **SMALL}


def folder(path: Path, data: Dataset, *, labelled: bool = True) -> Path:
    """Images as PNG files, one folder a class or all in one."""
    for number, image in enumerate(data.inputs):
        place = path / (data.classes[data.labels[number]] if labelled else "") / f"{number:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(place)
    return path


def train(data: Path, out: Path, said: list[str] | None = None, **settings: object) -> Path:
    return nf.train(str(data), out=out, say=[].append if said is None else said.append, **settings)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 labelled images, other ones to test on, some without labels, and a run of each step."""
    root = tmp_path_factory.mktemp("v2")
    data = folder(root / "data", stripes(96))
    folder(root / "test", stripes(40, seed=1))
    folder(root / "plain", stripes(32, seed=2), labelled=False)
    train(data, root / "pre", epochs=2, labels=False, hold_out=0, **PRETRAINING)
    train(data, root / "fine", epochs=4, init=str(root / "pre"), label_share=0.25, hold_out=0, **FINE_TUNING)
    student = {**SMALL, "method": "distil", "encoder": "conv4-pool", "teacher": str(root / "fine")}
    train(root / "plain", root / "student", epochs=2, hold_out=0, **student)
    return root


def job(data: Path, **settings: object) -> Job:
    return prepare(str(data), check(settings), choose("cpu", "fp32"), lambda message: None)


def trained(run: Path) -> Contrast:
    """A run's model with the weights of its last checkpoint."""
    model = Contrast(stored_method(Run.open(run)))
    model.load_state_dict(Run.open(run).load().tensors["model"])
    return model.eval()


# the head


def test_the_head_is_three_layers_of_the_encoders_width() -> None:
    method = methods.simclr_v2(encoder=Tiny(), size=16, width=16)
    kinds = [type(layer).__name__ for layer in method.extract.head.layers]
    assert kinds == ["Linear", "BatchNorm", "ReLU"] * 2 + ["Linear", "BatchNorm"]
    assert [layer.out_features for layer in method.extract.head.layers[::3]] == [32, 32, 16]
    assert hidden_widths(method.extract.head) == (32, 32)
    assert hidden_widths(methods.simclr_v2(encoder=Tiny(), size=16, depth=1).extract.head) == ()
    assert hidden_widths(methods.rfs(encoder=Tiny(), size=16).extract.head) == ()
    assert hidden_widths(extract.mlp(32, 64, 16)) == ()
    with pytest.raises(UsageError, match="--depth 3"):
        methods.simclr_v2(encoder=Tiny(), size=16, depth=0)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_the_kept_part_is_the_beginning_of_the_runs_head_bit_for_bit(keep: int, place: Path) -> None:
    before = trained(place / "pre")
    found = job(place / "data", init=str(place / "pre"), keep=keep, **FINE_TUNING).method
    view = torch.rand(5, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = before.head.layers[: 3 * keep](pooled(before.encoder(view)))
        assert torch.equal(found.extract.head.eval()(found.encoder.eval()(view)), expected)
    assert found.extract.pair.classes.weight.shape == (4, expected.shape[1])


def test_without_init_all_weights_are_new(place: Path) -> None:
    new = job(place / "data", **FINE_TUNING)
    assert "all weights are new" in new.describe("x") and hidden_widths(new.method.extract.head) == (64,)
    begun = job(place / "data", init=str(place / "pre"), **FINE_TUNING)
    assert "and 1 layer of its head" in begun.describe("x")
    assert not torch.equal(new.method.extract.head.layers[0].weight, begun.method.extract.head.layers[0].weight)


def test_other_methods_begin_with_the_encoder_alone(place: Path) -> None:
    found = job(place / "data", init=str(place / "pre"), **PRETRAINING)
    assert found.shape.init_head is None
    before = trained(place / "pre").head.layers[0].weight
    assert not torch.equal(found.method.extract.head.layers[0].weight, before)


def test_every_weight_is_trained(place: Path) -> None:
    before, after = trained(place / "pre"), trained(place / "fine")
    ours = dict(after.named_parameters())
    assert len([name for name in ours if name.startswith("head.")]) == 3
    for name, weight in before.named_parameters():
        if name in ours:
            assert not torch.equal(weight, ours[name]), name


def test_a_fine_tuned_run_can_be_fine_tuned_again(place: Path) -> None:
    shutil.copytree(place / "fine", place / "copy")
    again = job(place / "data", init=str(place / "copy"), **FINE_TUNING)
    assert stored_shape(Run.open(place / "fine")).init_head == (64, 64) and again.shape.init_head == (64,)
    assert torch.equal(again.method.extract.head.layers[0].weight, trained(place / "fine").head.layers[0].weight)


# distillation


def student_like_its_teacher(temperature: float) -> Contrast:
    torch.manual_seed(0)
    net, classifier = Tiny(), extract.Prototypes(Tiny.width, 4)
    teacher = (net, nn.Sequential(extract.Head(nn.Identity()), classifier))
    method = toy_method("distil", encoder=net, teacher=teacher, temperature=temperature)
    method.extract.pair.classes.load_state_dict(classifier.state_dict())
    return double(Contrast(method))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_a_student_like_its_teacher_has_nothing_to_learn(temperature: float) -> None:
    model = student_like_its_teacher(temperature)
    scores = torch.cat([model.pair.classes(z) for z in model.embed(toy_batch())[0]]) / temperature
    entropy = -(scores.softmax(1) * scores.log_softmax(1)).sum(1).mean()
    losses = [model(toy_batch())]
    model.loss = lambda pairs, similarity: cross_entropy(pairs, similarity, temperature=temperature)
    losses.append(model(toy_batch()))
    assert abs(losses[0].item()) < 1e-12
    torch.testing.assert_close(losses[1], entropy, rtol=1e-12, atol=0)
    for loss in losses:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        assert all(slope.abs().max() < 1e-12 for slope in torch.autograd.grad(loss, weights))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_loss_is_the_cross_entropy_less_the_teachers_entropy_times_t_squared(temperature: float) -> None:
    model = student_like_its_teacher(temperature)
    model.pair.classes.weight.data.normal_()
    view, (net, classifier) = model.views(toy_batch())[0], model.slow
    theirs = (classifier(net(view)) / temperature).softmax(1)
    ours = (model.pair.classes(pooled(model.encoder(view))) / temperature).log_softmax(1)
    total = 0.0
    for p, q in zip(theirs.tolist(), ours.tolist(), strict=True):
        total += sum(a * (np.log(a) - b) for a, b in zip(p, q, strict=True))
    expected = torch.tensor(temperature**2 * total / len(view), dtype=torch.float64)
    torch.testing.assert_close(model(toy_batch()), expected, rtol=1e-10, atol=0)
    slope = torch.autograd.grad(model(toy_batch()), model.pair.classes.weight)[0]
    loss = -(theirs.detach() * (model.pair.classes(pooled(model.encoder(view))) / temperature).log_softmax(1)).sum(1)
    plain = torch.autograd.grad(loss.mean(), model.pair.classes.weight)[0]
    torch.testing.assert_close(slope, temperature**2 * plain, rtol=1e-10, atol=1e-14)


def test_labels_change_nothing() -> None:
    model, batch = student_like_its_teacher(1.0), toy_batch()
    model.pair.classes.weight.data.normal_()
    assert batch.labels is not None
    losses = {model(replace(batch, labels=labels)).item() for labels in (batch.labels, 3 - batch.labels, None)}
    assert len(losses) == 1 and losses.pop() > 0


def test_the_teacher_is_the_fine_tuned_network_with_its_head(place: Path) -> None:
    fine = trained(place / "fine")
    settings = {**SMALL, "method": "distil", "teacher": str(place / "fine"), "encoder": "conv4-pool"}
    found = Contrast(job(place / "plain", **settings).method).train()
    assert not found.slow.training
    view = torch.rand(3, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(found.slow[1](found.slow[0](view)), fine.pair.classes(fine.head(fine.encoder(view))))


def test_a_student_knows_its_teachers_classes_and_can_teach(place: Path) -> None:
    info = Run.open(place / "student").info
    assert info["classes"] == ["chequers", "level", "slanting", "upright"] and info["seen"] is None
    answers = answers_of(Run.open(place / "student"))
    assert answers is not None and answers.classes == info["classes"]
    again = job(place / "plain", **{**SMALL, "method": "distil", "teacher": str(place / "student")})
    assert again.shape.classes == 4 and again.classes == info["classes"]


# few labels


def slow_draw(dataset: Dataset, samples: np.ndarray, share: float, seed: int) -> list[int]:
    chosen = []
    for label in set(dataset.labels[samples].tolist()):
        words = []
        for place in samples:
            if dataset.labels[place] == label:
                content = hashlib.blake2b(
                    dataset.hashes[place].tobytes(), digest_size=8, salt=str(seed).encode(), person=b"labels"
                )
                words.append((int.from_bytes(content.digest(), "big"), place))
        chosen += [place for _, place in sorted(words)[: max(round(share * len(words)), 1)]]
    return sorted(chosen)


@pytest.mark.parametrize("share", [1e-6, 0.05, 0.3, 1.0])
def test_the_draw_of_labels_is_its_slow_twin(share: float) -> None:
    data = stripes(150)
    samples = np.flatnonzero(np.arange(150) % 7 > 1)
    for seed in (0, 5):
        assert labelled_part(data, samples, share, seed=seed).tolist() == slow_draw(data, samples, share, seed)


def test_the_draw_of_labels_depends_on_content_and_seed_alone() -> None:
    data = stripes(200)
    drawn = labelled_part(data, np.arange(200), 0.1, seed=3)
    names = {data.names[place] for place in drawn}
    assert np.bincount(data.labels[drawn]).tolist() == [5] * 4
    order = np.random.default_rng(0).permutation(200)
    shuffled = data.subset(order)
    again = labelled_part(shuffled, np.arange(200), 0.1, seed=3)
    assert {shuffled.names[place] for place in again} == names
    assert {data.names[place] for place in labelled_part(data, np.arange(200), 0.1, seed=4)} != names
    assert names < {data.names[place] for place in labelled_part(data, np.arange(200), 0.3, seed=3)}
    fewer = labelled_part(data, np.setdiff1d(np.arange(200), drawn[:1]), 0.1, seed=3)
    assert set(drawn[1:]) < set(fewer) and len(fewer) == 20  # one image less moves one other up


def test_the_draw_of_labels_has_nothing_to_do_with_who_is_held_out() -> None:
    data = stripes(2000)
    rest, held = data.split(0.5, seed=1)
    drawn = labelled_part(data, np.arange(2000), 0.5, seed=1)
    both = len(np.intersect1d(drawn, held))
    assert 420 < both < 580  # half of a half; the same words would make it 1000


def test_a_training_on_few_labels_sees_those_alone(place: Path) -> None:
    settings = {"init": str(place / "pre"), **FINE_TUNING}
    whole, few = job(place / "data", **settings), job(place / "data", label_share=0.1, **settings)
    assert set(few.plan.samples) < set(whole.plan.samples) and np.array_equal(few.held, whole.held)
    assert np.bincount(few.dataset.labels[few.plan.samples]).tolist() == [2] * 4
    assert few.plan.batch == 8 and "8 to train on" in few.describe("x") and "0.1 of the images" in few.describe("x")
    assert set(few.plan.indices(0)) <= set(few.plan.samples)


# what can not work


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"label_share": 0}, "label_share: must be greater than 0"),
        ({"label_share": "1.5"}, "label_share: must be less than or equal to 1"),
        ({"label_share": -0.1}, "label_share: must be greater than 0"),
        ({"label_share": "few"}, "label_share: must be"),
        ({"method": "simclr_v2", "label_share": 0.5}, "without labels.*leave --label-share out"),
        ({"keep": 3}, "of the 2 that are linear, batch norm, ReLU.*--keep 2"),
        ({"keep": -1}, "--keep 0"),
        ({"encoder": "conv4-pool"}, "its encoder is conv4, not conv4-pool"),
        ({"method": "distil", "init": None}, "none is named.*--teacher RUN"),
        ({"method": "distil", "init": None, "teacher": "pre"}, "a run of simclr_v2 has no classifier"),
        ({"method": "distil", "init": None, "teacher": "fine", "size": 24}, "views of 16 px.*--size 16"),
        ({"method": "finetune", "teacher": "fine"}, "no teacher of this kind.*--method distil"),
        ({"init": "nowhere"}, "no"),
        ({"init_head": "64"}, "init_head: unknown"),
    ],
)
def test_what_can_not_work_is_refused_before_work(settings: dict[str, object], told: str, place: Path) -> None:
    given = {**FINE_TUNING, "init": "pre", **settings}
    given |= {name: str(place / given[name]) for name in ("init", "teacher") if given.get(name)}
    with pytest.raises(UsageError, match=told):
        train(place / "data", place / "refused", **given)
    assert not (place / "refused").exists()


def test_too_few_labels_are_refused(tmp_path: Path) -> None:
    data = stripes(96)
    two = folder(tmp_path / "two", data.subset(np.flatnonzero(data.labels < 2)))
    with pytest.raises(DataError, match="2 samples to train on are too few.*larger --label-share"):
        job(two, label_share=0.01, **FINE_TUNING)
    with pytest.raises(DataError, match="learns from labels"):
        job(folder(tmp_path / "plain", data, labelled=False), **FINE_TUNING)


def test_a_teacher_of_other_channels_is_refused(place: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.npz"
    np.savez(grey, images=stripes(32).inputs[:, 0])
    with pytest.raises(UsageError, match="its images have 3 channels, these 1"):
        job(grey, **{**SMALL, "method": "distil", "teacher": str(place / "fine")})


def test_labels_that_are_not_the_teachers_are_refused_where_labels_count(place: Path, tmp_path: Path) -> None:
    data = stripes(96)
    three = folder(tmp_path / "three", data.subset(np.flatnonzero(data.labels < 3)))
    teacher = {**SMALL, "teacher": str(place / "fine")}
    with pytest.raises(UsageError, match="other classes than the data has.*--method distil"):
        job(three, method="rfs", **teacher)
    assert job(three, method="distil", **teacher).classes == sorted(data.classes)


def test_lost_checkpoints_are_said(place: Path, tmp_path: Path) -> None:
    pre, fine = (shutil.copytree(place / name, tmp_path / name) for name in ("pre", "fine"))
    for run in (pre, fine):
        shutil.rmtree(run / "checkpoints")
    with pytest.raises(UsageError, match="checkpoints are gone, and its head with them.*train it again"):
        job(place / "data", init=str(pre), **FINE_TUNING)
    assert job(place / "data", init=str(pre), keep=0, **FINE_TUNING).method.encoder is not None
    with pytest.raises(UsageError, match="checkpoints are gone, and its classifier with them"):
        job(place / "data", **{**SMALL, "method": "distil", "teacher": str(fine)})
    said: list[str] = []
    encoder = load_encoder(fine, device="cpu")
    assert own_score(encoder, encoder.load(place / "test"), said.append) is None
    assert "own classifier is not measured: its checkpoints are gone" in said[0]


# what the runs are good for


def test_the_accuracy_of_the_own_classifier_is_that_of_its_answers(place: Path) -> None:
    for name in ("fine", "student"):
        encoder, model = load_encoder(place / name, device="cpu"), trained_without_teacher(place / name)
        test = encoder.load(place / "test", labels=True)
        right = 0
        for number in range(len(test)):
            one = test.batch([number])
            with torch.no_grad():
                scores = model.pair.classes(model.head(model.encoder(encoder.transform(one.inputs, one.sizes))))
            right += int(scores.argmax() == test.labels[number])
        found = own_score(encoder, test, print)
        assert found is not None and found.value == right / 40 and "own classifier" in found.protocol
        assert own_score(encoder, replace(test, classes=["a", "b", "c", "d"]), print) is None
    assert own_score(load_encoder(place / "pre", device="cpu"), test, print) is None


def trained_without_teacher(run: Path) -> Contrast:
    model = Contrast(stored_method(Run.open(run)))
    weights = Run.open(run).load().tensors["model"]
    model.load_state_dict({name: one for name, one in weights.items() if not name.startswith("slow.")})
    return model.eval()


def test_evaluate_tells_the_own_accuracy(place: Path) -> None:
    said: list[str] = []
    found = nf.evaluate(str(place / "fine"), str(place / "data"), say=said.append)
    assert found.own is not None and any("own classifier: " in line for line in said)
    stored = json.loads((place / "fine" / "evaluation.json").read_text())
    assert stored["own"]["value"] == found.own.value
    assert "Own classifier" in (place / "fine" / "report.html").read_text()
    assert any("trained on some of these samples and their labels" in line for line in said)


def test_a_fine_tuned_run_embeds_and_classifies(place: Path, tmp_path: Path) -> None:
    nf.embed(str(place / "fine"), str(place / "plain"), out=tmp_path / "e.npz", say=[].append)
    answers = nf.classify(str(place / "student"), str(place / "data"), str(place / "plain"), out=tmp_path / "a.csv",
                          say=[].append)  # fmt: skip
    assert answers is not None and (tmp_path / "a.csv").read_text().count("\n") == 33 and (tmp_path / "e.npz").exists()


@pytest.mark.slow
def test_the_whole_cycle_gains_over_training_from_scratch(tmp_path: Path) -> None:
    data, plain = stripes(512), tmp_path / "plain"
    folder(tmp_path / "data", data)
    folder(plain, data, labelled=False)
    folder(tmp_path / "test", stripes(400, seed=1))
    crops = {"view_scale": "0.4,1"}
    colours = {"view_jitter": "0.4,0.4,0.4,0.3", "view_grey_p": 0.3, "optimizer": "adamw", "lr": 0.012}
    large = {**crops, "batch": 64, "epochs": 40}
    few = {**FINE_TUNING, **crops, "label_share": 2 / 122, "lr": 0.12}
    train(plain, tmp_path / "pre", **{**PRETRAINING, "temperature": 0.2, **colours, **large})
    train(tmp_path / "data", tmp_path / "fine", init=str(tmp_path / "pre"), **few)
    train(tmp_path / "data", tmp_path / "scratch", **few)
    student = {**SMALL, "method": "distil", "encoder": "conv4-pool", "lr": 0.12, **large}
    train(plain, tmp_path / "student", teacher=str(tmp_path / "fine"), **student)
    accuracy = {}
    for name in ("fine", "scratch", "student"):
        encoder = load_encoder(tmp_path / name, device="cpu")
        score = own_score(encoder, encoder.load(tmp_path / "test", labels=True), print)
        assert score is not None
        accuracy[name] = score.value
    assert min(accuracy["fine"], accuracy["student"]) > accuracy["scratch"] + 0.1, accuracy
