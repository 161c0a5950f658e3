"""Few-shot accuracy: the numbers, their intervals, the card, and what the run folder keeps."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from untrained import striped_folder, untrained_run

import nearfar as nf
from nearfar import encoders
from nearfar.episodes import Episodes, EpisodeSampler
from nearfar.errors import DataError, IntegrityError, NearfarError, UsageError
from nearfar.evaluation.protocol import paired_difference
from nearfar.few_shot import HEADS, evaluate_episodes, predict
from nearfar.few_shot.evaluate import between_heads, with_views
from nearfar.few_shot.pace import Pace
from nearfar.few_shot.record import with_earlier_draws
from nearfar.tasks.few_shot import Material, _about

pytestmark = pytest.mark.usefixtures("own_cache")


def blobs(classes: int = 8, each: int = 30, width: int = 6, *, noise: float = 1.5) -> tuple[torch.Tensor, np.ndarray]:
    draws = torch.Generator().manual_seed(0)
    labels = np.arange(classes).repeat(each)
    means = torch.randn(classes, width, generator=draws)
    return means[labels] + noise * torch.randn(classes * each, width, generator=draws), labels


def episodes_of(labels: np.ndarray, count: int = 40, **shape: int) -> Episodes:
    settings: dict[str, Any] = {"ways": 4, "shots": 3, "queries": 5, "seed": 0, **shape}
    return EpisodeSampler(labels, **settings).draw(0, count)


def accuracies(bank: torch.Tensor, episodes: Episodes) -> list[float]:
    """Nearest class mean of unit features, one query at a time."""
    found = []
    for e in range(len(episodes)):
        means = []
        for way in range(episodes.ways):
            members = [p for p, c in zip(episodes.support[e], episodes.support_label[e], strict=True) if c == way]
            means.append(sum(bank[p] / bank[p].norm() for p in members) / len(members))
        right = 0
        for place, label in zip(episodes.query[e], episodes.query_label[e], strict=True):
            distances = [float((bank[place] / bank[place].norm() - mean).norm()) for mean in means]
            right += int(np.argmin(distances) == label)
        found.append(right / len(episodes.query[e]))
    return found


def test_accuracy_of_each_episode_and_its_interval_equal_a_loop_and_scipy():
    bank, labels = blobs()
    episodes = episodes_of(labels)
    score = evaluate_episodes(bank.double(), episodes, ["ncm"])["ncm"]
    expected = accuracies(bank.double(), episodes)
    assert score.draws == pytest.approx(expected, abs=1e-12)
    low, high = stats.t.interval(0.95, len(expected) - 1, np.mean(expected), stats.sem(expected))
    assert (score.value, score.low, score.high) == pytest.approx((np.mean(expected), low, high), abs=1e-12)


def test_unbalanced_episodes_count_alike():
    bank, labels = blobs()
    episodes = EpisodeSampler(labels, ways=4, shots=3, queries=5, dirichlet=1.0).draw(0, 40)
    score = evaluate_episodes(bank.double(), episodes, ["ncm"])["ncm"]
    assert score.value == pytest.approx(np.mean(accuracies(bank.double(), episodes)), abs=1e-12)


def test_differences_are_paired():
    bank, labels = blobs()
    scores = evaluate_episodes(bank, episodes_of(labels, 60), ["ncm", "lr", "nn"])
    found = between_heads(scores)
    best = max(scores, key=lambda head: scores[head].value)
    assert set(found) == {f"{best} - {head}" for head in scores if head != best}
    other = next(head for head in scores if head != best)
    gap = np.subtract(scores[best].draws, scores[other].draws)
    low, high = stats.t.interval(0.95, 59, gap.mean(), stats.sem(gap))
    difference = found[f"{best} - {other}"]
    assert (difference.mean, difference.low, difference.high) == pytest.approx((gap.mean(), low, high), abs=1e-12)
    own = scores[best]
    assert own.high is not None and own.low is not None
    assert paired_difference(own, own).mean == 0


def test_every_head_runs_and_says_what_it_does():
    bank, labels = blobs()
    scores = evaluate_episodes(
        bank, episodes_of(labels, 6), list(HEADS), query_prior="uniform", centre=bank.mean(dim=0)
    )
    for name, score in scores.items():
        assert name in score.protocol and HEADS[name].about in score.protocol
        assert ("query_prior=uniform" in score.protocol) == HEADS[name].uses_prior
        assert score.value > 0.3  # chance is a quarter


def test_options_reach_their_head():
    bank, labels = blobs()
    episodes = episodes_of(labels)
    plain, strong = (evaluate_episodes(bank, episodes, ["lr"], options=o)["lr"] for o in ({}, {"lr": {"C": 1e-6}}))
    assert plain.draws != strong.draws and "C=1e-06" in strong.protocol


@pytest.mark.parametrize(
    ("heads", "prior", "says"),
    [
        (["rigde"], "unknown", "did you mean ridge"),
        (["cl2n"], "unknown", "--split"),
        ([], "unknown", "no heads"),
        (["lr", "lr"], "unknown", "twice"),
        (["ncm"], "unifrom", "did you mean uniform"),
    ],
)
def test_C3_wrong_heads_and_priors(heads: list[str], prior: str, says: str):
    bank, labels = blobs()
    with pytest.raises(UsageError, match=says):
        evaluate_episodes(bank, episodes_of(labels, 3), heads, query_prior=prior)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_features_may_be_an_array(kind: type):
    bank, labels = blobs()
    array = bank.numpy().astype(kind)
    array.flags.writeable = False
    episodes = episodes_of(labels, 5)
    given: dict[str, Any] = {"heads": ["ncm", "cl2n"]}
    expected = evaluate_episodes(torch.tensor(array), episodes, centre=torch.tensor(array.mean(0)), **given)
    assert evaluate_episodes(array, episodes, centre=array.mean(0), **given) == expected
    for wrong, says in ((array.astype(np.float16), "float16"), (array.astype(str), "numbers")):
        with pytest.raises(UsageError, match=says):
            evaluate_episodes(wrong, episodes, ["ncm"])


def test_progress_of_a_head_begins_with_none_and_ends_with_all():
    bank, labels = blobs()
    counts: list[tuple[int, int]] = []
    predict(bank, episodes_of(labels, 5), HEADS["ncm"], block=2, progress=lambda *now: counts.append(now))
    assert counts == [(0, 5), (2, 5), (4, 5), (5, 5)]
    told: list[tuple[str, int, int]] = []
    evaluate_episodes(bank, episodes_of(labels, 5), ["ncm", "nn"], progress=lambda *now: told.append(now))
    assert told == [("ncm", 0, 5), ("ncm", 5, 5), ("nn", 0, 5), ("nn", 5, 5)]


def paced(seconds: float, blocks: int = 10) -> list[str]:
    """What is said of a head whose blocks take so long."""
    now, said = [0.0], []
    pace = Pace("raw pixels, 1 shot", said.append, clock=lambda: now[0])
    for done in range(blocks + 1):
        now[0] = 7 + seconds * done
        pace("tim", 100 * done, 100 * blocks)
    return said


def test_heads_that_are_done_at_once_say_nothing():
    assert paced(0.4) == []


def test_slow_heads_are_heard_of_after_five_seconds_and_then_every_ten():
    assert paced(5) == [
        f"raw pixels, 1 shot, tim: {share} % of 1,000 episodes, about {left} s left"
        for share, left in ((10, 45), (30, 35), (50, 25), (70, 15), (90, 5))
    ]
    assert paced(4, blocks=2) == []  # the rest is a matter of seconds


def test_very_slow_heads_are_announced_after_the_first_block():
    first = paced(0.5, blocks=1000)[0]
    assert first == (
        "raw pixels, 1 shot, tim: 0 % of 100,000 episodes, about 8 min 20 s left; fewer --episodes take less"
    )


def test_one_episode_has_no_interval_and_is_refused():
    bank, labels = blobs()
    with pytest.raises(UsageError, match="1 episodes"):
        evaluate_episodes(bank, episodes_of(labels, 1), ["ncm"])


def spoiled(value: float, rows: int) -> torch.Tensor:
    bank, _ = blobs()
    bank[5 : 5 + rows, 2] = value
    return bank


@pytest.mark.parametrize(
    ("bank", "error", "says"),
    [
        (spoiled(float("nan"), 3), DataError, "3 of 240 rows hold NaN or infinity"),
        (spoiled(float("inf"), 2), DataError, "2 of 240 rows hold NaN or infinity"),
        (spoiled(1e20, 4), DataError, "4 of 240 rows are longer than 1e.18: their squares overflow"),
        (blobs()[0].half(), UsageError, "float16"),
        (blobs()[0].flatten(), UsageError, "1440"),
    ],
)
def test_features_that_are_no_numbers_or_too_large_give_no_accuracy(
    bank: torch.Tensor, error: type[Exception], says: str
):
    episodes = episodes_of(blobs()[1], 3)
    with pytest.raises(error, match=says):
        evaluate_episodes(bank, episodes, ["ncm"])
    with pytest.raises(error, match=says):
        predict(bank, episodes, HEADS["nn"])


def test_a_centre_that_is_no_number_is_refused():
    bank, labels = blobs()
    with pytest.raises(DataError, match="centre"):
        evaluate_episodes(bank, episodes_of(labels, 3), ["cl2n"], centre=torch.full((6,), float("nan")))


@pytest.mark.parametrize("name", list(HEADS))
def test_the_largest_features_that_are_taken_give_what_others_give(name: str):
    bank, labels = blobs()
    bank /= bank.norm(dim=1).max()
    plain, large = (
        evaluate_episodes(bank * scale, episodes_of(labels, 5), [name], centre=bank.mean(dim=0) * scale)[name].draws
        for scale in (1.0, 1.1e18)
    )
    assert large == pytest.approx(plain, abs=0.06)


def test_supports_become_their_views_and_queries_averages():
    bank = torch.randn(4, 240, 6)
    episodes = episodes_of(blobs()[1], 5)
    rows, seen = with_views(bank, episodes, support=3, query=2)
    assert seen.support.shape == (5, 3 * 12)
    for e in range(5):
        for s, place in enumerate(episodes.support[e]):
            for view in range(3):
                assert torch.equal(rows[seen.support[e, 3 * s + view]], bank[view + 1, place])
                assert seen.support_label[e, 3 * s + view] == episodes.support_label[e, s]
        for q, place in enumerate(episodes.query[e]):
            torch.testing.assert_close(rows[seen.query[e, q]], bank[:3, place].mean(dim=0))
    plain, same = with_views(bank, episodes, support=0, query=0)
    assert torch.equal(plain[:240], bank[0]) and same is episodes


@pytest.fixture(scope="module")
def folder(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs and labelled images of four classes."""
    root = tmp_path_factory.mktemp("few_shot")
    untrained_run(root / "one", seed=0)
    untrained_run(root / "two", seed=1, classes=["level", "else"])
    striped_folder(root / "data", each=12)
    names = ["upright", "level", "chequers", "slanting"]
    parts = {"train": names[:1], "val": names[1:2], "test": names[2:]}
    (root / "split.json").write_text(json.dumps({"name": "mine", **parts}))
    return root


SMALL = {"ways": 3, "shots": (1, 2), "queries": 4, "episodes": 30, "device": "cpu"}


def run(folder: Path, name: str = "one", **given: object):
    said: list[str] = []
    settings = {**SMALL, **given}
    evaluation = nf.evaluate_few_shot(folder / name, folder / "data", say=said.append, **settings)
    return evaluation, "\n".join(said)


def test_a_run_beside_pixels_and_its_untrained_self(folder: Path):
    evaluation, said = run(folder)
    assert list(evaluation.scores) == ["raw pixels", "untrained encoder", "trained encoder"]
    trained, untrained = evaluation.scores["trained encoder"], evaluation.scores["untrained encoder"]
    assert trained[1]["lr"].draws == untrained[1]["lr"].draws  # this run was never trained
    assert list(trained) == [1, 2] and list(trained[1]) == ["lr", "ncm"]
    card = evaluation.card
    needed = [card.fingerprint[:12], card.lists["1"][:12], card.hash, "30 of 3 ways, seed 0", "4 of each class"]
    needed += [
        "16 px",
        "batch norm in evaluation mode",
        "the last one",
        "not the seed of training",
        "none: all classes",
    ]
    needed += [
        "each image once",
        "each query is answered by itself",
        HEADS["lr"].about,
        "simclr; small: 3x3 stem",
        "chance gives 33",
    ]
    assert [one for one in needed if one not in said] == []


@pytest.mark.parametrize(("name", "says"), [("conv4", "conv4: .*flattened"), ("conv4-pool", "last map averaged")])
def test_the_card_says_of_an_encoder_what_it_says_itself(folder: Path, name: str, says: str):
    encoder = replace(nf.load_encoder(folder / "one", device="cpu"), net=encoders.build(name, channels=3, size=16))
    assert re.search(says, _about(encoder))


def test_the_files_hold_the_same_numbers_and_other_protocols_stay(folder: Path):
    first, _ = run(folder, heads=["ncm"], shots=[1], seed=5)
    second, _ = run(folder, heads=["ncm"], shots=[1], seed=6)
    again, _ = run(folder, heads=["ncm"], shots=[1], seed=5)
    assert first.card.hash == again.card.hash != second.card.hash
    assert first.scores["trained encoder"][1]["ncm"] == again.scores["trained encoder"][1]["ncm"]
    stored = json.loads((folder / "one" / "few_shot.json").read_text())["results"]
    assert {first.card.hash, second.card.hash} <= set(stored)
    assert stored[first.card.hash] == json.loads(json.dumps(first.as_dict()))
    with np.load(folder / "one" / "few_shot" / f"{first.card.hash}.npz", allow_pickle=False) as kept:
        assert kept["features"].tolist() == list(first.scores) and kept["heads"].tolist() == ["ncm"]
        draws = kept["accuracy"][2, 0, 0]
    assert draws == pytest.approx(first.scores["trained encoder"][1]["ncm"].draws, abs=1e-7)


def test_another_run_on_the_same_episodes(folder: Path):
    evaluation, said = run(folder, against=[folder / "two"], heads=["ncm"])
    mine, other = (evaluation.scores[name] for name in ("trained encoder", str(folder / "two")))
    gap = np.subtract(mine[1]["ncm"].draws, other[1]["ncm"].draws)
    difference = evaluation.run_differences()[str(folder / "two")][1]["ncm"]
    assert difference.mean == pytest.approx(gap.mean(), abs=1e-12) and gap.any()
    alone, _ = run(folder, "two", heads=["ncm"])
    assert alone.scores["trained encoder"][1]["ncm"].draws == other[1]["ncm"].draws
    for shots, row in mine.items():
        best = max(row, key=lambda head: row[head].value)
        gap = evaluation.run_differences()[str(folder / "two")][shots][best]
        name = f"{shots} shot{'s' * (shots > 1)}, {best}, trained encoder against {folder / 'two'}"
        assert f"{name}: {100 * gap.mean:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]" in said
    score = mine[1]["ncm"]
    assert score.low is not None and score.high is not None
    assert f"{100 * score.value:.2f} ± {50 * (score.high - score.low):.2f}" in said


def test_one_line_of_differences_for_each_rival_and_number_of_shots_and_all_pairs_in_the_file(folder: Path):
    evaluation, said = run(folder, against=[folder / "two"], heads=["ncm", "lr", "nn", "ridge"])
    assert said.count("trained encoder against") == 2 * 3  # shots, other features
    assert said.count("encoder against") == said.count(" [")
    stored = json.loads((folder / "one" / "few_shot.json").read_text())["results"][evaluation.card.hash]
    assert all(len(stored["against"][str(folder / "two")][shots]) == 4 for shots in ("1", "2"))
    assert all(len(stored["between_heads"][shots]) == 3 for shots in ("1", "2"))


def test_the_same_protocol_against_other_runs_keeps_the_rows_that_were_there(folder: Path):
    untrained_run(folder / "three", seed=2)
    given: dict[str, Any] = {"heads": ["ncm"], "shots": [1], "seed": 11}
    first, _ = run(folder, against=[folder / "two"], **given)
    second, _ = run(folder, against=[folder / "three"], **given)
    last, _ = run(folder, **given)
    assert first.card.hash == second.card.hash == last.card.hash
    stored = json.loads((folder / "one" / "few_shot.json").read_text())["results"][last.card.hash]
    names = ["raw pixels", "untrained encoder", str(folder / "two"), str(folder / "three"), "trained encoder"]
    assert sorted(stored["scores"]) == sorted(names)
    assert sorted(stored["against"]) == sorted(names[:-1]) and sorted(stored["encoders"]) == sorted(names[2:])
    assert set(stored["warnings"]) == {str(folder / "two")}
    with np.load(folder / "one" / "few_shot" / f"{last.card.hash}.npz", allow_pickle=False) as kept:
        rows = dict(zip(kept["features"].tolist(), kept["accuracy"], strict=True))
    assert sorted(rows) == sorted(names)
    for evaluation, name in ((first, "two"), (second, "three")):
        path = str(folder / name)
        score = evaluation.scores[path][1]["ncm"]
        assert stored["scores"][path]["1"]["ncm"] == {"value": score.value, "low": score.low, "high": score.high}
        assert rows[path][0, 0] == pytest.approx(score.draws, abs=1e-7)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"shapes"])
def test_K10_damaged_accuracies_are_not_overwritten(tmp_path: Path, content: bytes):
    now = {"features": np.array(["a"]), "accuracy": np.zeros((1, 1, 1, 3), np.float32), "heads": np.array(["lr"])}
    file = tmp_path / "x.npz"
    if content == b"shapes":
        np.savez(file, features=np.array(["b"]), accuracy=np.zeros((1, 1, 1, 2), np.float32))
    else:
        file.write_bytes(content)
    with pytest.raises(IntegrityError, match="delete it"):
        with_earlier_draws(now, file)


def warnings_of(folder: Path, name: str = "one", **given: object) -> dict[str, str]:
    """The warnings of an evaluation, which are in its text and its file too, and were said."""
    evaluation, said = run(folder, name, heads=["ncm"], shots=[1], episodes=2, **given)
    stored = json.loads((folder / name / "few_shot.json").read_text())["results"]
    told = evaluation.warnings
    assert stored[evaluation.card.hash]["warnings"] == told
    assert said.count("warning: ") == 2 * len(told)  # before the work, and in the text
    assert all(f"warning: {one}" in evaluation.as_text() for one in told.values())
    return told


def test_classes_that_were_trained_on_are_no_new_ones(folder: Path):
    told = warnings_of(folder, name="two", seed=20)
    assert list(told) == ["trained encoder"]
    assert f"1 of 4 classes have the names of classes that {folder / 'two'} was trained on (level)" in str(told)


def test_classes_that_a_rival_or_what_it_began_with_has_seen_are_told_too(folder: Path):
    untrained_run(folder / "later", classes=["else"], seen=["else", "slanting", "upright"])
    told = warnings_of(folder, against=[folder / "two", folder / "later"], seed=21)
    assert list(told) == [str(folder / "two"), str(folder / "later")]
    assert "2 of 4 classes" in told[str(folder / "later")] and "(slanting, upright)" in told[str(folder / "later")]


def test_a_run_without_labels_may_have_seen_the_classes_of_a_split(folder: Path):
    given: dict[str, Any] = {"split": folder / "split.json", "ways": 2}
    untrained_run(folder / "half", classes=["upright"], seen=None)
    untrained_run(folder / "clean", classes=["upright"], seen=["upright", "level"])
    told = warnings_of(folder, against=[folder / "half", folder / "clean"], seed=22, **given)
    assert list(told) == ["trained encoder", str(folder / "half")]
    assert all("can't be told whether it has seen the classes of mine" in one for one in told.values())
    untrained_run(folder / "mixed", classes=["slanting"], seen=None)
    assert "1 of 2 classes" in str(warnings_of(folder, name="mixed", seed=22, **given))


def test_a_split_gives_its_part_and_the_centre(folder: Path):
    evaluation, said = run(folder, split=folder / "split.json", ways=2, heads=["cl2n"], shots=[1])
    assert evaluation.card.classes == 2 and evaluation.card.images == 24
    assert "split: mine (" in said and "part test" in said
    encoder = nf.load_encoder(folder / "one", device="cpu")
    data = nf.load(folder / "data", size=16)
    assert data.labels is not None and data.classes is not None
    base = encoder(data.subset(np.flatnonzero(data.labels == data.classes.index("upright")))).mean(dim=0)
    wanted = [data.classes.index(name) for name in ("chequers", "slanting")]
    asked = data.subset(np.flatnonzero(np.isin(data.labels, wanted)))
    assert asked.labels is not None
    labels = np.searchsorted(wanted, asked.labels)
    episodes = EpisodeSampler(labels, ways=2, shots=1, queries=4, seed=0).draw(0, 30)
    expected = evaluate_episodes(encoder(asked), episodes, ["cl2n"], centre=base)["cl2n"]
    assert evaluation.scores["trained encoder"][1]["cl2n"].draws == expected.draws


def test_views_change_the_protocol_and_are_the_same_each_time(folder: Path):
    plain, _ = run(folder, heads=["ncm"], shots=[1])
    first, said = run(folder, heads=["ncm"], shots=[1], support_views=2, query_views=1)
    again, _ = run(folder, heads=["ncm"], shots=[1], support_views=2, query_views=1)
    assert first.scores == again.scores and first.card.hash != plain.card.hash
    assert first.scores["trained encoder"] != plain.scores["trained encoder"]
    assert first.card.lists == plain.card.lists
    assert "2 augmented copies of each, not the image itself" in said and "and 1 augmented copies" in said


def test_every_augmented_copy_is_another_and_the_first_of_the_bank_is_the_image(folder: Path):
    encoder = nf.load_encoder(folder / "one", device="cpu")
    data = nf.load(folder / "data", size=16)
    bank = Material(encoder, data, None).bank(2, seed=0)
    assert torch.equal(bank[0], encoder(data))
    assert min(float((a - b).abs().max()) for a, b in ((bank[0], bank[1]), (bank[1], bank[2]))) > 1e-3
    first = Material(encoder, data.subset([7]), None).bank(1, seed=0)
    torch.testing.assert_close(first[1, 0], bank[1, 7])  # an image has the same copies in any company


def test_the_hash_of_a_protocol_is_of_everything_but_the_name_of_the_data(folder: Path):
    card = run(folder, heads=["ncm"], shots=[1])[0].card
    other = {"data": "elsewhere", "lists": {}, "heads": {}, "shots": (9,), "part": "val", "dirichlet": 1.0}
    for field in fields(card):
        value = getattr(card, field.name)
        changed = other.get(field.name, (value or 0) + 1 if isinstance(value, int) else "another")
        assert (replace(card, **{field.name: changed}).hash == card.hash) == (field.name == "data"), field.name


def test_unbalanced_queries_and_what_transductive_heads_are_told_are_printed(folder: Path):
    evaluation, said = run(folder, heads=["ncm", "pt-map"], dirichlet=2.0, query_prior="uniform", ways=2)
    assert "not balanced: shares of the classes from Dirichlet(2.0)" in said
    assert "pt-map sees all queries of an episode at once" in said and "equally frequent" in said
    assert replace(evaluation.card, query_prior="unknown").hash != evaluation.card.hash


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"split": "cifar-fz"}, "cifar-fs"),
        ({"part": "tset", "split": "SPLIT"}, "one of train, val, test"),
        ({"heads": "lr"}, "are lists"),
        ({"shots": (1, 1)}, "all different"),
        ({"episodes": 1}, "two or more"),
        ({"ways": 5}, "4 classes for 5 ways"),
        ({"shots": (1, 9)}, r"4 of 4 classes have fewer than 13 images: chequers \(12\)"),
        ({"shots": (1, 9), "dirichlet": 2.0}, r"4 of 4 classes have fewer than 13 images: chequers \(12\)"),
        ({"support_views": -1}, "0 to 100"),
    ],
)
def test_C2_wrong_settings(folder: Path, given: dict[str, object], says: str):
    given = {name: folder / "split.json" if value == "SPLIT" else value for name, value in given.items()}
    with pytest.raises(NearfarError, match=says):
        run(folder, **given)


def test_labels_of_another_column_of_a_list(folder: Path):
    files = sorted((folder / "data").rglob("*.png"))
    rows = [f"{file.relative_to(folder)},{file.parent.name},{number % 3}" for number, file in enumerate(files)]
    (folder / "list.csv").write_text("\n".join(["path,pattern,third", *rows]))
    asked = {"split": None, **SMALL, "say": lambda text: None}
    plain, named = (
        nf.evaluate_few_shot(folder / "one", folder / data, label=label, **asked)
        for data, label in (("data", None), ("list.csv", "pattern"))
    )
    assert named.scores["raw pixels"] == plain.scores["raw pixels"] and named.card.classes == 4
    assert nf.evaluate_few_shot(folder / "one", folder / "list.csv", label="third", **asked).card.classes == 3
