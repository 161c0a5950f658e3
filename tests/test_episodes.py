"""Episodes against plain Python, their distribution, and what becomes of their files."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from math import ceil, exp, floor, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import gammaincinv
from scipy.stats import chisquare

from nearfar.episode import Shape
from nearfar.episodes import Episodes, EpisodeSampler, VariableSampler, listing, sampler, stored, variable
from nearfar.episodes.sampler import CLASSES, EPISODES, IMAGES, SHARES, apportioned, picks
from nearfar.errors import DataError, DeviceError, IntegrityError, UsageError
from nearfar.randomness import uniforms

DATA = "0123456789abcdef0123456789abcdef"
SIZES = {7: 9, -3: 30, 40: 12, 2: 8, 11: 25, 0: 10}
"""Images of each label: unequal, with gaps, one below zero."""


def mixed_labels(sizes: dict[int, int] = SIZES) -> np.ndarray:
    labels = np.repeat(list(sizes), list(sizes.values()))
    return labels[np.random.default_rng(0).permutation(len(labels))]


def popped(pool: list[int], uniform: np.ndarray, count: int) -> list[int]:
    """Draws without replacement the obvious way."""
    return [pool.pop(floor(u * len(pool))) for u in uniform[:count]]


def plain_apportioned(weights: list[float], total: int, limits: list[int]) -> list[int]:
    """Largest remainders in exact fractions; what is over a limit is dealt again among those below theirs."""
    parts = [0] * len(weights)
    while sum(parts) < total:
        rest = total - sum(parts)
        growing = [c for c in range(len(weights)) if parts[c] < limits[c]]
        exact = {c: Fraction(weights[c]) for c in growing}
        if not any(exact.values()):
            exact = dict.fromkeys(growing, Fraction(1))
        shares = {c: rest * exact[c] / sum(exact.values()) for c in growing}
        dealt = {c: floor(shares[c]) for c in growing}
        by_remainder = sorted(growing, key=lambda c: (dealt[c] - shares[c], c))
        for c in by_remainder[: rest - sum(dealt.values())]:
            dealt[c] += 1
        for c in growing:
            parts[c] = min(limits[c], parts[c] + dealt[c])
    return parts


def plain_episode(labels: np.ndarray, number: int, ways: int, shots: int, queries: int, seed: int, alpha: float | None):
    """One episode with lists and loops: (support, its labels, query, its labels, classes)."""
    known = sorted(set(labels.tolist()))
    classes = popped(list(known), uniforms(seed, EPISODES, [number], CLASSES, ways)[0], ways)
    images = {c: np.flatnonzero(labels == c).tolist() for c in classes}
    asked = [queries] * ways
    if alpha is not None:
        weights = [float(gammaincinv(alpha, u)) for u in uniforms(seed, EPISODES, [number], SHARES, ways)[0]]
        asked = plain_apportioned(weights, ways * queries, [len(images[c]) - shots for c in classes])
    uniform = uniforms(seed, EPISODES, [number], IMAGES, ways * (shots + ways * queries))[0].reshape(-1, ways)
    taken = [popped(images[c], uniform[:, way], shots + asked[way]) for way, c in enumerate(classes)]
    support = [(place, way) for way in range(ways) for place in taken[way][:shots]]
    query = [(place, way) for way in range(ways) for place in taken[way][shots:]]
    return [*map(list, zip(*support, strict=True)), *map(list, zip(*query, strict=True)), classes]


def as_lists(episodes: Episodes, number: int) -> list[list[int]]:
    arrays = (episodes.support, episodes.support_label, episodes.query, episodes.query_label, episodes.classes)
    return [array[number].tolist() for array in arrays]


# what an episode is


@pytest.mark.parametrize("alpha", [None, 0.05, 2.0])
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 7), (6, 3, 5), (4, 4, 1)])
def test_every_episode_is_that_of_plain_python(ways: int, shots: int, queries: int, alpha: float | None) -> None:
    labels = mixed_labels()
    drawn = EpisodeSampler(labels, ways=ways, shots=shots, queries=queries, seed=5, dirichlet=alpha).draw(3, 60)
    for number in range(60):
        assert as_lists(drawn, number) == plain_episode(labels, 3 + number, ways, shots, queries, 5, alpha), number


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_an_episode_is_the_same_whatever_block_it_is_drawn_in(alpha: float | None) -> None:
    made = EpisodeSampler(mixed_labels(), ways=3, shots=2, queries=6, seed=1, dirichlet=alpha)
    whole = made.draw(0, 400)
    for start, stop in [(0, 1), (1, 8), (8, 200), (200, 399), (399, 400)]:
        assert made.draw(start, stop - start).fingerprint == whole[start:stop].fingerprint
    other = EpisodeSampler(mixed_labels(), ways=3, shots=2, queries=6, seed=2, dirichlet=alpha)
    assert other.draw(0, 400).fingerprint != whole.fingerprint


@pytest.mark.parametrize("alpha", [None, 0.1, 2.0])
@pytest.mark.parametrize(("shots", "queries"), [(1, 7), (5, 3), (7, 1)])
def test_support_and_query_share_no_image(shots: int, queries: int, alpha: float | None) -> None:
    """Also where a class is used up to its last image: label 2 has 8."""
    labels = mixed_labels()
    drawn = EpisodeSampler(labels, ways=5, shots=shots, queries=queries, dirichlet=alpha).draw(0, 3000)
    places = np.sort(np.concatenate([drawn.support, drawn.query], axis=1), axis=1)
    assert (np.diff(places, axis=1) > 0).all(), "an image twice in one episode"
    for place, label in ((drawn.support, drawn.support_label), (drawn.query, drawn.query_label)):
        assert np.array_equal(labels[place], np.take_along_axis(drawn.classes, label, axis=1))
        assert (np.diff(label, axis=1) >= 0).all(), "not class by class"
    assert (np.diff(np.sort(drawn.classes, axis=1), axis=1) > 0).all()
    assert drawn.query.shape == (3000, 5 * queries)


def test_balanced_episodes_have_the_order_of_a_batch() -> None:
    shape = Shape(ways=4, shots=3, queries=2, tasks=10)
    drawn = EpisodeSampler(mixed_labels(), ways=4, shots=3, queries=2).draw(0, 10)
    support, query = shape.keys(10)
    assert np.array_equal(support.numpy(), drawn.support_label)
    assert np.array_equal(query.numpy(), drawn.query_label)
    assert np.concatenate([drawn.support, drawn.query], axis=1).shape[1] == shape.images


def test_a_place_is_one_of_the_list_that_was_given() -> None:
    """A class of one set keeps its images apart from those of every other, in any order of the labels."""
    drawn = EpisodeSampler([5, 1, 5, 1], ways=2, shots=1, queries=1).draw(0, 50)
    for number in range(50):
        first, second = drawn.classes[number]
        for way, label in enumerate((first, second)):
            pair = {drawn.support[number, way], drawn.query[number, way]}
            assert pair == ({0, 2} if label == 5 else {1, 3})


# distribution


def even(counts: np.ndarray, together: int = 1) -> None:
    """Chi-square at one in a thousand; seeds are fixed, so this never fails by chance.

    Of n things of which `together` are drawn at once, none twice, the statistic is smaller by (n - together) / (n - 1).
    """
    n = counts.size
    assert chisquare(counts.ravel() * (n - 1) / (n - together)).pvalue > 1e-3, counts


def test_every_order_of_picks_is_as_likely() -> None:
    orders = picks(uniforms(0, 0, np.arange(24_000), 0, 4), np.full(24_000, 4))
    code = orders @ np.array([64, 16, 4, 1])
    found, counts = np.unique(code, return_counts=True)
    assert len(found) == 24
    even(counts)


def test_classes_are_uniform_in_every_place_and_pair() -> None:
    drawn = EpisodeSampler(np.repeat(np.arange(8), 4), ways=3, shots=1, queries=1, seed=3).draw(0, 20_000)
    for way in range(3):
        even(np.bincount(drawn.classes[:, way], minlength=8))
    pairs = np.bincount(drawn.classes[:, 0] * 8 + drawn.classes[:, 2], minlength=64).reshape(8, 8)
    assert np.trace(pairs) == 0
    even(pairs[~np.eye(8, dtype=bool)])


@pytest.mark.parametrize("alpha", [None, 1.0])
def test_images_are_uniform_in_every_role(alpha: float | None) -> None:
    labels = np.arange(60) % 5
    drawn = EpisodeSampler(labels, ways=5, shots=2, queries=3, seed=4, dirichlet=alpha).draw(0, 20_000)
    for shot in range(10):
        even(np.bincount(drawn.support[:, shot], minlength=60))
    if alpha is None:
        for way in range(5):
            even(np.bincount(drawn.query.ravel(), minlength=60)[way::5], together=3)


def test_class_sizes_do_not_make_a_class_more_likely() -> None:
    drawn = EpisodeSampler(mixed_labels(), ways=2, shots=1, queries=1).draw(0, 12_000)
    even(np.unique(drawn.classes, return_counts=True)[1], together=2)


@pytest.mark.parametrize("alpha", [0.5, 2.0, 20.0])
def test_dirichlet_shares_have_their_mean_and_variance(alpha: float) -> None:
    """Mean 1/W, variance (1/W)(1 - 1/W)/(W alpha + 1); rounding to 1/75 adds no more than 3e-5."""
    drawn = EpisodeSampler(np.repeat(np.arange(5), 80), dirichlet=alpha).draw(0, 4000)
    counts = (drawn.query_label[:, :, None] == np.arange(5)).sum(1)
    assert (counts.sum(1) == 75).all()
    shares = counts / 75
    variance = 0.2 * 0.8 / (5 * alpha + 1)
    assert np.allclose(shares.mean(0), 0.2, atol=4 * (variance / 4000) ** 0.5)
    assert np.isclose(shares.var(0).mean(), variance, rtol=0.05, atol=3e-5)


def test_dirichlet_of_a_large_alpha_is_balanced() -> None:
    drawn = EpisodeSampler(np.repeat(np.arange(5), 20), dirichlet=1e7).draw(0, 50)
    assert np.array_equal(drawn.query_label, np.tile(np.repeat(np.arange(5), 15), (50, 1)))


def test_whole_numbers_from_shares() -> None:
    random = np.random.default_rng(0)
    weights = random.gamma(0.4, size=(500, 6)) * (random.random((500, 6)) > 0.3)
    limits = random.integers(0, 25, (500, 6))
    for total in (1, 9, 31):
        rows = np.flatnonzero(limits.sum(1) >= total)
        parts = apportioned(weights[rows], total, limits[rows])
        assert (parts.sum(1) == total).all() and (parts <= limits[rows]).all()
        for row, part in zip(rows, parts, strict=True):
            assert part.tolist() == plain_apportioned(weights[row].tolist(), total, limits[row].tolist())


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0], [5e-324, 0.0, 0.0], [1e-310, 1e-310, 1e300], [1.0, 1.0, 1.0]])
def test_whole_numbers_from_extreme_shares(weights: list[float]) -> None:
    for limits in ([4, 4, 4], [1, 9, 2], [12, 0, 0], [0, 12, 12]):
        parts = apportioned(np.array([weights]), 12, np.array([limits]))[0].tolist()
        assert parts == plain_apportioned(weights, 12, limits)


# variable ways and shots


def plain_variable(labels: np.ndarray, number: int, seed: int, ways: tuple[int, int], shots: int, most: int, size: int):
    """Meta-Dataset's rules, step by step: (classes, shots of each, queries of each, places)."""
    known = sorted(set(labels.tolist()))
    draws = uniforms(seed, EPISODES, [number], variable.SIZES, 2)[0]
    choices = range(ways[0], min(ways[1], len(known)) + 1)
    count = choices[floor(draws[0] * len(choices))]
    classes = popped(list(known), uniforms(seed, EPISODES, [number], variable.CLASSES, count)[0], count)
    images = {c: np.flatnonzero(labels == c).tolist() for c in classes}
    queries = min(most, min(len(images[c]) // 2 for c in classes))
    beta = 1 - draws[1]  # in (0, 1]
    total = min(size, sum(ceil(beta * min(shots, len(images[c]) - queries)) for c in classes))
    log_weights = [log(0.5) + u * log(4) for u in uniforms(seed, EPISODES, [number], variable.WEIGHTS, count)[0]]
    weights = [len(images[c]) * exp(a) for c, a in zip(classes, log_weights, strict=True)]
    parts = [
        min(1 + floor(w / sum(weights) * (total - count)), len(images[c]) - queries)
        for w, c in zip(weights, classes, strict=True)
    ]
    return classes, parts, queries, images


def test_variable_episodes_keep_the_rules(monkeypatch) -> None:
    labels = np.repeat(np.arange(30), 4 + 9 * np.arange(30) % 60)
    made = VariableSampler(labels, ways=(3, 12), shots=20, queries=6, support=90, seed=2)

    def mirrored(seed: int, epoch: int, ids: np.ndarray, view: int, slots: int) -> np.ndarray:
        """Gives the sampler beta itself, with which its floor(x) + 1 is ceil(x) wherever x is not whole."""
        drawn = uniforms(seed, epoch, ids, view, slots)
        if view == variable.SIZES:
            drawn[:, 1] = 1 - drawn[:, 1]
        return drawn

    monkeypatch.setattr(variable, "uniforms", mirrored)
    for number in range(200):
        episode = made.draw(number)
        classes, parts, queries, images = plain_variable(labels, number, 2, (3, 12), 20, 6, 90)
        assert len(episode) == 1 and episode.classes[0].tolist() == classes
        assert np.bincount(episode.support_label[0]).tolist() == parts
        assert np.bincount(episode.query_label[0]).tolist() == [queries] * len(classes)
        assert episode.support.shape[1] <= 90
        used = [*episode.support[0], *episode.query[0]]
        assert len(set(used)) == len(used)
        for place, way in zip(episode.support[0], episode.support_label[0], strict=True):
            assert place in images[classes[way]]
        for place, way in zip(episode.query[0], episode.query_label[0], strict=True):
            assert place in images[classes[way]]


def test_variable_ways_are_uniform_and_never_above_the_classes() -> None:
    made = VariableSampler(np.repeat(np.arange(9), 6))
    even(np.bincount([made.draw(number).ways for number in range(2000)])[5:])
    assert made.draw(77).fingerprint == made.draw(77).fingerprint != made.draw(78).fingerprint


def test_variable_episodes_of_the_smallest_classes() -> None:
    episode = VariableSampler(np.repeat(np.arange(5), 2), support=5).draw(0)
    assert episode.support.shape == episode.query.shape == (1, 5)


# faults


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ways": 1}, ["ways=1", "2 or more"]),
        ({"shots": 0}, ["shots=0"]),
        ({"queries": 0}, ["queries=0"]),
        ({"shots": 1.5}, ["shots=1.5", "whole"]),
        ({"shots": True}, ["shots=True"]),
        ({"dirichlet": 0}, ["dirichlet=0", "0.01"]),
        ({"dirichlet": float("nan")}, ["dirichlet=nan"]),
        ({"dirichlet": float("inf")}, ["dirichlet=inf"]),
        ({"labels": [[0, 1]]}, ["shape [1, 2]", "Dataset.labels"]),
        ({"labels": ["a", "b"]}, ["labels of type"]),
        ({"labels": []}, ["shape [0]"]),
        ({"labels": None}, ["labels of type object"]),
    ],
)
def test_settings_that_make_no_sense(settings: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        EpisodeSampler(**({"labels": mixed_labels(), "ways": 2, "queries": 1} | settings))
    assert not [word for word in words if word not in str(caught.value)]


def test_data_that_are_too_small() -> None:
    with pytest.raises(DataError, match="6 classes for 7 ways.*at most 6 ways"):
        EpisodeSampler(mixed_labels(), ways=7)
    with pytest.raises(
        DataError, match=r"3 of 6 classes have fewer than 11 images: label 0 \(10\), label 2 \(8\), label 7 \(9\)"
    ):
        EpisodeSampler(mixed_labels(), shots=1, queries=10)
    with pytest.raises(DataError, match=r"2 of 2 classes have fewer than 3 images: ant \(2\), bee \(1\)"):
        EpisodeSampler([0, 0, 1], ways=2, shots=1, queries=2, names=["ant", "bee"])
    with pytest.raises(DataError, match="1 shots and 15 queries.*leave these classes out"):
        EpisodeSampler(np.arange(100), shots=1, queries=15)
    with pytest.raises(DataError, match=r"1 of 3 classes have fewer than 2 images: label 4 \(1\)"):
        VariableSampler([2, 2, 3, 3, 4], ways=(2, 3))
    with pytest.raises(DataError, match="2 classes for 5 ways"):
        VariableSampler([2, 2, 3, 3])


@pytest.mark.parametrize("settings", [{"ways": (6, 5)}, {"support": 5}, {"ways": (1, 4)}, {"queries": 0}, {"shots": 0}])
def test_variable_settings_that_make_no_sense(settings: dict) -> None:
    with pytest.raises(UsageError, match="E-usage"):
        VariableSampler(mixed_labels(), **settings)


def test_numbers_of_episodes_that_make_no_sense(tmp_path) -> None:
    made = EpisodeSampler(mixed_labels(), ways=2, queries=1)
    for first, count in ((-1, 1), (0, 0)):
        with pytest.raises(UsageError, match=r"(first|count)="):
            made.draw(first, count)
    with pytest.raises(UsageError, match="number=-1"):
        VariableSampler(mixed_labels()).draw(-1)
    with pytest.raises(UsageError, match="0 episodes"):
        stored(tmp_path, made, 0, data=DATA)
    with pytest.raises(UsageError, match="slice"):
        made.draw(0, 3)[1]  # pyright: ignore[reportArgumentType]


def test_arrays_that_are_no_episodes() -> None:
    right = {name: np.zeros((3, 4), np.int64) for name in ("support", "support_label", "query", "query_label")}
    right["classes"] = np.zeros((3, 2), np.int64)
    assert len(Episodes(**right)) == 3
    for name in right:
        for wrong in (right[name][0], right[name][:2], right[name].astype(np.int32)):
            with pytest.raises(UsageError, match=name):
                Episodes(**(right | {name: wrong}))
    with pytest.raises(UsageError, match=r"support_label int64 \[3, 5\]"):
        Episodes(**(right | {"support_label": np.zeros((3, 5), np.int64)}))


def test_no_stream_is_shared_with_views_or_between_purposes(monkeypatch) -> None:
    used: list[tuple[str, int, int]] = []

    def spy(kind: str):
        def recorded(seed: int, epoch: int, ids: np.ndarray, view: int, slots: int) -> np.ndarray:
            used.append((kind, epoch, view))
            return uniforms(seed, epoch, ids, view, slots)

        return recorded

    for module in (sampler, variable):
        monkeypatch.setattr(module, "uniforms", spy(module.__name__))
    EpisodeSampler(mixed_labels(), ways=2, queries=1, dirichlet=1.0).draw(0, 2)
    VariableSampler(mixed_labels()).draw(0)
    assert all(epoch < 0 for _, epoch, _ in used), "views have epochs from 0 on"
    assert len({view for _, _, view in used}) == len(used) == 7


def test_ten_thousand_episodes_take_a_moment() -> None:
    made = EpisodeSampler(np.repeat(np.arange(20), 600), shots=5)
    started = time.perf_counter()
    assert len(made.draw(0, 10_000)) == 10_000
    assert time.perf_counter() - started < 2  # 0.07 s on one core


def test_I3_episodes_are_drawn_without_torch() -> None:
    code = (
        "import sys\nfrom nearfar.episodes import EpisodeSampler, open_split\n"
        "EpisodeSampler([0, 0, 1, 1], ways=2, queries=1).draw(0, 1); open_split('fc100')\nprint('torch' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# files


@pytest.fixture
def drawn() -> Episodes:
    return EpisodeSampler(mixed_labels(), ways=3, shots=2, queries=2, seed=9).draw(0, 20)


def test_a_list_comes_back_from_its_file(tmp_path, drawn) -> None:
    path = tmp_path / "new folder" / "list.npz"
    drawn.save(path, data=DATA)
    again = Episodes.load(path, data=DATA)
    assert [as_lists(again, number) for number in range(20)] == [as_lists(drawn, number) for number in range(20)]
    assert again.fingerprint == drawn.fingerprint
    assert [file.name for file in path.parent.iterdir()] == ["list.npz"]


def test_the_fingerprint_sees_every_number(drawn) -> None:
    prints = {drawn.fingerprint, drawn[:19].fingerprint}
    for name, array in drawn._arrays():
        changed = array.copy()
        changed[-1, -1] += 1
        prints.add(Episodes(**(dict(drawn._arrays()) | {name: changed})).fingerprint)
    assert len(prints) == 7
    shapes = [(2, 4), (4, 2), (8, 1)]
    zeros = [Episodes(**{name: np.zeros(shape, np.int64) for name, _ in drawn._arrays()}) for shape in shapes]
    assert len({episodes.fingerprint for episodes in zeros}) == 3


def test_a_list_of_other_data_is_refused(tmp_path, drawn) -> None:
    drawn.save(tmp_path / "list.npz", data=DATA)
    with pytest.raises(DataError, match="episodes of other data .0123456789ab, here ffff"):
        Episodes.load(tmp_path / "list.npz", data="f" * 32)
    with pytest.raises(DataError, match="no list of episodes there"):
        Episodes.load(tmp_path / "gone.npz", data=DATA)


def test_damage_anywhere_is_found(tmp_path, drawn) -> None:
    """A bit of every 13th byte, and every 97th length: refused, or without effect on what is read."""
    path = tmp_path / "list.npz"
    drawn.save(path, data=DATA)
    good, refused, tried = path.read_bytes(), 0, 0
    damaged = [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(0, len(good), 13)]
    damaged += [good[:length] for length in range(0, len(good), 97)]
    for content in damaged:
        path.write_bytes(content)
        tried += 1
        try:
            assert Episodes.load(path, data=DATA).fingerprint == drawn.fingerprint
        except IntegrityError as error:
            assert "delete it" in str(error)
            refused += 1
    assert refused > 0.75 * tried


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_D19_a_list_is_never_unpickled(tmp_path, drawn) -> None:
    canary, path = tmp_path / "canary", tmp_path / "list.npz"
    drawn.save(path, data=DATA)
    with np.load(path) as archive:
        content: dict[str, Any] = dict(archive)
    content["support"] = np.array([[Payload(canary)]], dtype=object)
    np.savez(path, **content)
    with pytest.raises(IntegrityError):
        Episodes.load(path, data=DATA)
    assert not canary.exists()


def test_files_that_hold_something_else(tmp_path, drawn) -> None:
    path = tmp_path / "list.npz"
    drawn.save(path, data=DATA)
    with np.load(path) as archive:
        content: dict[str, Any] = dict(archive)
    for changed, word in [
        ({"support": content["support"] + 1}, "fingerprint"),
        ({"fingerprint": np.str_("0")}, "fingerprint"),
        ({"format": np.int64(listing.FORMAT + 1)}, "update nearfar"),
        ({"format": np.zeros(3)}, "not a whole list"),
        ({"extra": np.zeros(3)}, "it holds"),
        ({"support": content["support"][:, :1]}, "support"),
    ]:
        np.savez(path, **(content | changed))
        with pytest.raises(IntegrityError, match=word):
            Episodes.load(path, data=DATA)


def test_a_full_disk_leaves_the_old_list(tmp_path, drawn, monkeypatch) -> None:
    path = tmp_path / "list.npz"
    drawn.save(path, data=DATA)

    def full(stream, **content) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(listing.np, "savez_compressed", full)
    with pytest.raises(DeviceError, match="No space left"):
        drawn[:1].save(path, data=DATA)
    assert len(Episodes.load(path, data=DATA)) == 20
    assert len(list(tmp_path.iterdir())) == 1


def test_a_stored_list_is_written_once(tmp_path, monkeypatch) -> None:
    made, counts = EpisodeSampler(mixed_labels(), ways=3, queries=2), []
    draw = EpisodeSampler.draw
    monkeypatch.setattr(EpisodeSampler, "draw", lambda self, first, n: (counts.append(n), draw(self, first, n))[1])
    first = stored(tmp_path, made, 50, data=DATA)
    (path,) = tmp_path.glob("episodes-*.npz")
    written = path.stat().st_mtime_ns, path.read_bytes()
    again = stored(tmp_path, EpisodeSampler(mixed_labels(), ways=3, queries=2), 50, data=DATA)
    assert counts == [50, 50] and written == (path.stat().st_mtime_ns, path.read_bytes())
    assert first.fingerprint == again.fingerprint == draw(made, 0, 50).fingerprint
    assert len(list(tmp_path.glob("episodes-*.npz"))) == 1


def test_every_setting_has_a_stored_list_of_its_own(tmp_path) -> None:
    base: dict[str, Any] = {"labels": mixed_labels(), "ways": 3, "shots": 1, "queries": 2, "seed": 0, "dirichlet": None}
    others: list[dict[str, Any]] = [
        {"labels": mixed_labels()[::-1]},
        {"ways": 2},
        {"shots": 2},
        {"queries": 1},
        {"seed": 1},
    ]
    for changed in [{}, *others, {"dirichlet": 2}]:
        stored(tmp_path, EpisodeSampler(**(base | changed)), 5, data=DATA)
    stored(tmp_path, EpisodeSampler(**base), 6, data=DATA)
    stored(tmp_path, EpisodeSampler(**base), 5, data="f" * 32)
    assert len(list(tmp_path.iterdir())) == 9
    base["dirichlet"] = 2.0
    stored(tmp_path, EpisodeSampler(**base), 5, data=DATA)
    assert len(list(tmp_path.iterdir())) == 9


def test_a_stored_list_that_was_exchanged_is_refused(tmp_path) -> None:
    made = EpisodeSampler(mixed_labels(), ways=3, queries=2)
    stored(tmp_path, made, 5, data=DATA)
    (path,) = tmp_path.iterdir()
    right = made.draw(0, 5)
    middle = replace(right, query=np.concatenate([right.query[:2], right.query[2:3, ::-1], right.query[3:]]))
    assert middle[4:].fingerprint == right[4:].fingerprint
    for other in (EpisodeSampler(mixed_labels(), ways=3, queries=2, seed=1).draw(0, 5), made.draw(2, 3), middle):
        other.save(path, data=DATA)
        with pytest.raises(IntegrityError, match="other episodes than this sampler draws"):
            stored(tmp_path, made, 5, data=DATA)
