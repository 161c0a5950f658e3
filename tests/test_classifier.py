"""The classifier for people: scikit-learn's contract, probabilities, "unknown", classes added later, its folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from untrained import striped_folder, untrained_run

import nearfar as nf
from nearfar import FewShotClassifier
from nearfar.data import load
from nearfar.errors import DataError, IntegrityError, UsageError
from nearfar.few_shot import HEADS
from nearfar.few_shot.calibration import first_of, hold_out, own_distances, strangeness, temperature

pytestmark = pytest.mark.usefixtures("own_cache")

ALONE = [name for name, head in HEADS.items() if not head.transductive and not head.needs_centre]


@parametrize_with_checks([FewShotClassifier(), FewShotClassifier(head="nn")])
def test_the_contract_of_scikit_learn(estimator, check):
    """With `unknown` set and numbers as labels `predict` mixes text and numbers, which the checks can't compare."""
    if check.func.__name__ == "check_array_api_input":
        pytest.skip("needs SCIPY_ARRAY_API and arrays of other libraries")
    check(estimator)


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return np.asarray(x), np.asarray(y)


def few(y: np.ndarray, each: int, *, seed: int, classes: np.ndarray | None = None) -> np.ndarray:
    """Places of `each` images of each class."""
    rng, known = np.random.default_rng(seed), np.unique(y) if classes is None else classes
    return np.concatenate([rng.choice(np.flatnonzero(y == c), each, replace=False) for c in known])


# Temperature


@pytest.mark.parametrize("right", [1.0, 0.8, 0.4])
def test_the_temperature_is_the_minimum_that_scipy_finds(right: float):
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=60)
    shown = np.where(rng.uniform(size=60) < right, labels, (labels + 1) % 4)
    scores = 7 * np.eye(4)[shown] + rng.normal(size=(60, 4))
    target = np.full((60, 4), 1 / 64)
    target[np.arange(60), labels] = 61 / 64

    def cross_entropy(log_temperature: float) -> float:
        logits = scores / np.exp(log_temperature)
        return float((np.log(np.exp(logits).sum(axis=1)) - (target * logits).sum(axis=1)).mean())

    expected = minimize_scalar(cross_entropy, bounds=(-3, 8), method="bounded", options={"xatol": 1e-10})
    found = temperature(torch.from_numpy(scores), torch.from_numpy(labels))
    assert np.log(found) == pytest.approx(expected.x, abs=1e-5)


def test_scores_that_say_nothing_leave_probabilities_nearly_even():
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    wrong = temperature(scores, torch.tensor([1, 1, 0, 0]))
    assert float(torch.softmax(scores / wrong, dim=1).max()) == pytest.approx(0.5, abs=1e-3)
    assert temperature(torch.zeros(3, 2), torch.tensor([0, 1, 0])) == 1


def test_every_example_of_a_class_with_two_is_held_out_once_by_a_classifier_that_has_not_seen_it():
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0, 3])
    features = torch.arange(12.0)[:, None]
    seen = []

    def fit(support: torch.Tensor, known: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        assert not set(support.flatten().tolist()) & set(query.flatten().tolist())
        assert known.unique().tolist() == [0, 1, 2, 3]
        seen.extend(query.flatten().tolist())
        return query.expand(-1, 4)

    held = hold_out(fit, features, labels)
    assert sorted(seen) == list(range(11)) and held.places.tolist() == seen
    assert held.scores[:, 0].tolist() == seen


def test_probabilities_are_honest_where_the_raw_ones_are_not():
    """Negative log-likelihood of new images, over ten draws of five examples a class."""
    x, y = digits()
    gains = []
    for seed in range(10):
        places = few(y, 5, seed=seed)
        rest = np.setdiff1d(np.arange(len(y)), places)
        classifier = FewShotClassifier(head="ncm").fit(x[places], y[places])
        assert classifier.calibrated_ and classifier.confusion_.sum() == 50

        def loss(fitted: FewShotClassifier, rest: np.ndarray = rest) -> float:
            return float(-np.log(fitted.predict_proba(x[rest])[np.arange(len(rest)), y[rest]]).mean())

        calibrated = loss(classifier)
        classifier.temperature_ = 1.0
        gains.append(loss(classifier) - calibrated)
    assert min(gains) > 0.3


def test_one_example_a_class_is_not_calibrated_and_says_so():
    x, y = digits()
    places = few(y, 1, seed=0)
    classifier = FewShotClassifier().fit(x[places], y[places])
    assert not classifier.calibrated_ and classifier.temperature_ == 1
    assert classifier.predict_proba(x[:50]).sum(axis=1) == pytest.approx(np.ones(50))
    with pytest.raises(UsageError, match="at least 2 different examples"):
        FewShotClassifier(unknown="auto").fit(x[places], y[places])


# Unknown


def test_conformal_values_equal_a_loop():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, 3)), np.arange(20) % 5
    labels[0] = 7  # a class of one
    expected = []
    for i in range(1, 20):
        others = [j for j in range(20) if j != i]
        cosines = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in others]
        expected.append(1 - max(cosines))
    own = own_distances(torch.from_numpy(x), torch.from_numpy(labels))
    assert own.tolist() == pytest.approx(sorted(expected), abs=1e-12)
    asked = torch.tensor([-1.0, 0.01, 0.05, 5.0, expected[3]], dtype=torch.float64)
    values = [(1 + sum(d >= float(q) - 1e-15 for d in expected)) / 20 for q in asked]
    assert strangeness(asked, own).tolist() == pytest.approx(values)


def test_images_of_other_classes_are_flagged_more_often_than_known_ones():
    """Pixels of digits, five known classes of ten, 20 examples each; about 5 % of the known ones may be flagged."""
    x, y = digits()
    known_share, other_share = [], []
    for seed in range(10):
        classes = np.random.default_rng(100 + seed).permutation(10)[:5]
        places = few(y, 20, seed=seed, classes=classes)
        rest = np.setdiff1d(np.arange(len(y)), places)
        classifier = FewShotClassifier(head="ncm", unknown="auto").fit(x[places], y[places])
        flagged = classifier.predict(x[rest]) == "unknown"
        known = np.isin(y[rest], classes)
        known_share.append(flagged[known].mean())
        other_share.append(flagged[~known].mean())
    assert np.mean(known_share) < 0.06
    assert np.mean(other_share) > 0.4


def test_a_larger_share_flags_more_and_text_labels_stay_text():
    x, y = digits()
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[y]
    places = few(y, 6, seed=0)
    counts = []
    for share in (0.02, 0.1, 0.4):
        predicted = FewShotClassifier(unknown=share).fit(x[places], names[places]).predict(x)
        assert predicted.dtype.kind == "U"
        counts.append((predicted == "unknown").sum())
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("share", ["automatic", 0.0, 1.0, -0.1, 2, 0.001])
def test_C2_a_share_that_cannot_be(share: object):
    x, y = digits()
    with pytest.raises(UsageError, match="unknown="):
        FewShotClassifier(unknown=share).fit(x[:60], y[:60])  # pyright: ignore[reportArgumentType]


# Copies, names, features that are no numbers


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_copies_of_examples_change_neither_calibration_nor_what_is_unknown(rounding: float):
    """Two photos of each example: without care every distance to the nearest is 0, and copies answer for each other."""
    x, y = digits()
    places = few(y, 4, seed=0)
    twice = np.concatenate([x[places], x[places] * (1 + rounding * np.random.default_rng(0).normal(size=(40, 1)))])
    plain = FewShotClassifier(head="ncm", unknown="auto").fit(x[places], y[places])
    again = FewShotClassifier(head="ncm", unknown="auto").fit(twice, np.concatenate([y[places]] * 2))
    assert len(again.examples_) == 80 and len(again.own_) == 40
    assert again.own_.numpy() == pytest.approx(plain.own_.numpy(), abs=1e-6)
    assert again.temperature_ == pytest.approx(plain.temperature_, rel=1e-4)
    assert again.confusion_.tolist() == plain.confusion_.tolist()
    assert again.predict(x).tolist() == plain.predict(x).tolist()


def test_a_class_of_one_example_given_twice_cannot_be_held_out():
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    classifier = FewShotClassifier().fit(x, ["ant", "ant", "bee", "bee"])
    assert classifier.confusion_.sum(axis=1).tolist() == [0, 2] and len(classifier.own_) == 2


def test_an_example_in_two_classes_is_not_its_own_neighbour():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    assert own_distances(x, torch.tensor([0, 0, 1, 1])).tolist() == pytest.approx([0.2, 0.2, 0.4, 0.4])


def test_copies_of_copies_belong_together():
    pairs = torch.eye(4, dtype=torch.bool)
    for one, other in ((0, 2), (2, 3)):
        pairs[one, other] = pairs[other, one] = True
    assert first_of(pairs).tolist() == [0, 1, 0, 0]


def test_a_class_with_the_name_of_the_answer_is_refused_where_that_is_given():
    x, y = np.eye(6), ["unknown", "unknown", "unknown", "bee", "bee", "bee"]
    with pytest.raises(UsageError, match="another name"):
        FewShotClassifier(unknown="auto").fit(x, y)
    assert FewShotClassifier().fit(x, y).predict(x[:1]).tolist() == ["unknown"]
    classifier = FewShotClassifier(unknown="auto").fit(x, ["ant"] * 3 + ["bee"] * 3)
    with pytest.raises(UsageError, match="another name"):
        classifier.add_class(None, "unknown")  # before anything is read
    assert classifier.classes_.tolist() == ["ant", "bee"]


def test_features_that_are_no_numbers_or_too_large_get_no_answer(folder: Path):
    x = np.eye(4)
    classifier = FewShotClassifier().fit(x, [0, 0, 1, 1])
    for call in (classifier.predict, lambda rows: FewShotClassifier().fit(rows, [0, 0, 1, 1])):
        with pytest.raises(DataError, match="1 of 4 rows are longer"):
            call(x * np.array([[1.0], [1e200], [1.0], [1.0]]))
    encoder = nf.load_encoder(folder / "run", device="cpu")
    fitted = FewShotClassifier(encoder).fit(folder / "support")
    with torch.no_grad():
        next(encoder.net.parameters()).fill_(float("nan"))
    for call in (FewShotClassifier(encoder).fit, fitted.predict):
        with pytest.raises(DataError, match="16 of 16 rows hold NaN"):
            call(folder / "support")


# Heads and classes


@pytest.mark.parametrize("head", ALONE)
def test_every_head_that_answers_alone_serves(head: str):
    x, y = digits()
    places = few(y, 5, seed=0)
    classifier = FewShotClassifier(head=head).fit(x[places], y[places])
    assert classifier.score(x, y) > 0.6
    assert (classifier.classes_[classifier.predict_proba(x).argmax(axis=1)] == classifier.predict(x)).all()


@pytest.mark.parametrize(
    ("head", "says"),
    [("rigde", "did you mean ridge"), ("pt-map", "all images together"), ("cl2n", "mean feature of other classes")],
)
def test_C3_heads_that_cannot_be(head: str, says: str):
    with pytest.raises(UsageError, match=says):
        FewShotClassifier(head=head).fit(np.eye(4), [0, 0, 1, 1])


def state(classifier: FewShotClassifier) -> dict[str, object]:
    return {
        "classes": classifier.classes_.tolist(),
        "labels": classifier.labels_.tolist(),
        "features": classifier.features_.tolist(),
        "temperature": classifier.temperature_,
        "own": classifier.own_.tolist(),
        "confusion": classifier.confusion_.tolist(),
    }


def test_a_class_added_later_gives_what_fitting_all_at_once_gives():
    x, y = digits()
    places = few(y, 4, seed=0)
    whole = FewShotClassifier().fit(x[places], y[places])
    first, later = places[y[places] != 3], places[y[places] == 3]
    grown = FewShotClassifier().fit(x[first], y[first]).add_class(x[later], 3)
    assert state(grown) == state(whole)
    assert (grown.predict_proba(x) == whole.predict_proba(x)).all()
    more = FewShotClassifier().fit(x[first], y[first]).add_class(x[later[:1]], 3).add_class(x[later[1:]], 3)
    assert state(more) == state(whole)
    assert state(grown.remove_class(3)) == state(FewShotClassifier().fit(x[first], y[first]))


def test_what_cannot_be_added_or_removed():
    classifier = FewShotClassifier().fit(np.eye(4), ["ant", "ant", "bee", "bee"])
    with pytest.raises(UsageError, match="all text, or all numbers"):
        classifier.add_class(np.eye(4), 3)
    with pytest.raises(UsageError, match="did you mean bee"):
        classifier.remove_class("bees")
    with pytest.raises(UsageError, match="one class only"):
        classifier.remove_class("bee")


def test_cross_validation_and_cloning_work():
    x, y = digits()
    classifier = FewShotClassifier(head="ncm", unknown=None)
    assert clone(classifier).get_params() == classifier.get_params()
    assert cross_val_score(classifier, x[:300], y[:300], cv=3).mean() > 0.75


# Images


@pytest.fixture(scope="module")
def folder(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, examples in class folders, and photos."""
    root = tmp_path_factory.mktemp("classifier")
    untrained_run(root / "run")
    striped_folder(root / "support", each=4)
    striped_folder(root / "photos", each=5, seed=1, flat=True)
    return root


def paths_and_labels(folder: Path) -> tuple[list[Path], list[str]]:
    paths = sorted((folder / "support").rglob("*.png"))
    return paths, [path.parent.name for path in paths]


def test_all_ways_to_give_images_give_the_same_classifier(folder: Path):
    paths, labels = paths_and_labels(folder)
    pictures = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    run, photos = folder / "run", sorted((folder / "photos").glob("*.png"))
    expected = FewShotClassifier(run, device="cpu").fit(folder / "support")
    assert expected.classes_.tolist() == ["chequers", "level", "slanting", "upright"]
    assert expected.n_features_in_ == expected.features_.shape[1]
    answers = expected.predict_proba(folder / "photos")
    for given in (paths, list(map(str, paths)), pictures, arrays, arrays.transpose(0, 3, 1, 2), list(arrays)):
        fitted = FewShotClassifier(nf.load_encoder(run, device="cpu")).fit(given, labels)
        assert torch.equal(fitted.features_, expected.features_)
        assert fitted.predict_proba(photos) == pytest.approx(answers, abs=1e-12)
    dataset = load(folder / "support", size=16)
    assert state(FewShotClassifier(run, device="cpu").fit(dataset)) == state(expected)
    one = expected.predict_proba(photos[3])
    assert one == pytest.approx(answers[3:4], abs=1e-9)
    assert expected.predict_proba(Image.open(photos[3])) == pytest.approx(one, abs=1e-12)


def test_grey_large_and_turned_images_are_read_as_training_read_them(folder: Path, tmp_path: Path):
    fitted = FewShotClassifier(folder / "run", device="cpu").fit(folder / "support")
    pixels = np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    for name in ("turned.png", "grey.png"):
        from_path = fitted.predict_proba([tmp_path / name])
        assert fitted.predict_proba([Image.open(tmp_path / name)]) == pytest.approx(from_path, abs=1e-12)
    assert fitted.predict_proba([pixels[..., 0]]) == pytest.approx(from_path, abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((16, 16, 3), r"uint8 \[16, 16, 3\] may be one image or many grey ones.*x\[None\].*\[N, h, w, 1\]"),
        ((3, 16, 16), r"x\[None\]"),
        ((16, 16, 1), r"x\[None\]"),
        ((16, 20), r"uint8 \[16, 20\] is no batch of images.*x\[None, \.\.\., None\]"),
        ((), r"uint8 \[\] is no batch"),
        ((0, 16, 16), r"\[0, 16, 16\] is no batch"),
    ],
)
def test_an_array_that_may_be_one_image_or_many_is_refused(folder: Path, shape: tuple[int, ...], says: str):
    fitted = FewShotClassifier(folder / "run", device="cpu").fit(folder / "support")
    for array in (np.zeros(shape, np.uint8), torch.zeros(shape, dtype=torch.uint8)):
        with pytest.raises(UsageError, match=says):
            fitted.predict(array)


def test_a_batch_of_grey_images_with_and_without_channels(folder: Path):
    fitted = FewShotClassifier(folder / "run", device="cpu").fit(folder / "support")
    grey = np.random.default_rng(0).integers(256, size=(5, 16, 20), dtype=np.uint8)
    expected = fitted.predict_proba([*grey])
    for images in (grey, grey[..., None], grey[:, None], torch.tensor(grey)):
        assert np.array_equal(fitted.predict_proba(images), expected)
    assert len(fitted.predict(grey[:1])) == 1


def test_a_folder_with_classes_and_labels_beside_it(folder: Path):
    classifier = FewShotClassifier(folder / "run", device="cpu")
    names = [path.name for path in (folder / "support").rglob("*.png")]
    with pytest.raises(UsageError, match="has its own, chequers, level, slanting"):
        classifier.fit(folder / "support", ["a", "b"] * (len(names) // 2))


@pytest.mark.parametrize(
    "images", [[], np.zeros((2, 16, 16, 3)), np.zeros((2, 16), np.uint8), [np.zeros((3, 16, 3), np.uint8)], 7]
)
def test_what_is_no_image(folder: Path, images: object):
    fitted = FewShotClassifier(folder / "run", device="cpu").fit(folder / "support")
    with pytest.raises(UsageError, match="images"):
        fitted.predict(images)


def test_D3_files_that_cannot_be_read(folder: Path, tmp_path: Path):
    striped_folder(tmp_path / "support", each=4)
    (tmp_path / "support" / "level" / "broken.png").write_bytes(b"")
    classifier = FewShotClassifier(folder / "run", device="cpu")
    with pytest.warns(UserWarning, match="level/broken.png: empty"):
        classifier.fit(tmp_path / "support")
    assert len(classifier.examples_) == 16
    broken = tmp_path / "support" / "level" / "broken.png"
    with pytest.raises(DataError, match="empty.*broken.png"):
        classifier.predict([broken])
    with pytest.raises(DataError, match="such as level/broken.png") as caught:
        classifier.predict(tmp_path / "support")
    advised = caught.value.mend.removeprefix("give ").partition(": it leaves")[0]
    assert len(classifier.predict(eval(advised, {"classifier": classifier}))) == 16


def test_labels_that_do_not_fit(folder: Path):
    paths, labels = paths_and_labels(folder)
    classifier = FewShotClassifier(folder / "run", device="cpu")
    with pytest.raises(UsageError, match="16 images, 15 labels"):
        classifier.fit(paths, labels[1:])
    with pytest.raises(UsageError, match="no labels"):
        classifier.fit(paths)
    with pytest.raises(DataError, match="no labels"):
        classifier.fit(folder / "photos")


# Its folder


def test_E6_a_saved_classifier_needs_nothing_else_and_answers_alike(folder: Path, tmp_path: Path):
    fitted = FewShotClassifier(folder / "run", unknown=0.2, device="cpu").fit(folder / "support")
    saved = fitted.save(tmp_path / "saved")
    assert {path.name for path in saved.iterdir()} == {
        "classifier.json", "examples.safetensors", "encoder.safetensors", "nearfar-run.json",
    }  # fmt: skip
    moved = saved.rename(tmp_path / "moved")
    again = FewShotClassifier.load(moved, device="cpu")
    assert state(again) == state(fitted) and again.examples_ == fitted.examples_ and again.unknown == 0.2
    mine, other = fitted.answer(folder / "photos"), again.answer(folder / "photos")
    assert all((getattr(mine, name) == getattr(other, name)).all() for name in vars(mine))
    again.add_class(folder / "photos", "more").save(moved)
    assert FewShotClassifier.load(moved, device="cpu").classes_.tolist() == sorted([*fitted.classes_, "more"])


@pytest.mark.parametrize("labels", [["a", "b"], [3, 7], [True, False]])
def test_a_classifier_of_features_is_saved_too(labels: list[object], tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(8, 3))
    fitted = FewShotClassifier(head="ridge").fit(x, labels * 4)
    again = FewShotClassifier.load(fitted.save(tmp_path / "c"))
    assert again.predict(x).tolist() == fitted.predict(x).tolist() and again.classes_.dtype == fitted.classes_.dtype
    assert (again.predict_proba(x) == fitted.predict_proba(x)).all()


def test_K10_a_damaged_folder_is_refused(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(8, 3))
    folder = FewShotClassifier().fit(x, [0, 1] * 4).save(tmp_path / "c")
    with pytest.raises(UsageError, match="did you mean c?"):
        FewShotClassifier.load(tmp_path / "cc")
    with pytest.raises(UsageError, match="holds something"):
        FewShotClassifier().fit(x, [0, 1] * 4).save(tmp_path)
    record = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**record, "classes": [0]}))
    with pytest.raises(IntegrityError, match="don't fit"):
        FewShotClassifier.load(folder)
    (folder / "classifier.json").write_text(json.dumps({**record, "files": {"../x": "0"}}))
    with pytest.raises(IntegrityError, match="not the file"):
        FewShotClassifier.load(folder)
    (folder / "classifier.json").write_text(json.dumps(record))
    data = bytearray((folder / "examples.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "examples.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError, match="examples.safetensors is not the file"):
        FewShotClassifier.load(folder)
