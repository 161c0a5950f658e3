"""Splits: the published lists, what a part holds and what it cannot reach, and files of one's own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from nearfar.data import Dataset, load
from nearfar.data.inputs import Rows
from nearfar.data.sources import open_source
from nearfar.episodes import SPLITS, EpisodeSampler, Split, open_split, with_rotations
from nearfar.errors import DataError, UsageError

TOY = Split("toy", ("owl", "cat"), ("ant",), ("dog", "eel"))
FC100_TEST = (
    "baby beaver bee beetle boy butterfly caterpillar cockroach dolphin fox "
    "girl man otter porcupine possum raccoon seal skunk whale woman"
)
CIFAR_FS_TEST = (
    "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy "
    "rocket rose snail sweet_pepper table telephone wardrobe whale woman worm"
)


def dataset(classes: list[str], each: int = 4, *, side: int = 3) -> Dataset:
    """Images that say by their pixels which they are; classes in turn, so that a part is never one stretch."""
    count = each * len(classes)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, side, side), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    return Dataset(
        inputs=pixels,
        sizes=np.full((count, 2), side),
        ids=np.arange(count),
        names=[f"{classes[number % len(classes)]}/{number}.png" for number in range(count)],
        hashes=np.random.default_rng(1).integers(0, 256, (count, 16), np.uint8),
        labels=np.arange(count) % len(classes),
        classes=classes,
    )


ANIMALS = ["ant", "bee", "cat", "dog", "eel", "owl"]


# published splits


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cifar-fs", (64, 16, 20)),
        ("fc100", (60, 20, 20)),
        ("omniglot-vinyals", (1028, 172, 423)),
        ("mini-imagenet-ravi", (64, 16, 20)),
        ("cub-closerlook", (100, 50, 50)),
    ],
)
def test_published_splits_have_their_sizes(name: str, sizes: tuple[int, ...]) -> None:
    split = open_split(name)
    assert (split.name, len(split.train), len(split.val), len(split.test)) == (name, *sizes)
    assert len({*split.train, *split.val, *split.test}) == sum(sizes)
    assert "http" in split.source
    assert split.rotations == (name == "omniglot-vinyals")


def test_every_name_opens_and_has_a_fingerprint_of_its_own() -> None:
    assert len({open_split(name).fingerprint for name in SPLITS}) == len(SPLITS) == 5


def test_mini_imagenet_is_that_of_ravi() -> None:
    """sha256 over the sorted ids of each part, joined by commas."""
    split = open_split("mini-imagenet-ravi")
    parts = (",".join(sorted(names)) for names in (split.train, split.val, split.test))
    assert [hashlib.sha256(part.encode()).hexdigest()[:12] for part in parts] == [
        "8ebf1fe68c9c",
        "b250ea6633e4",
        "7a3d140d0185",
    ]


def test_cub_follows_its_rule() -> None:
    split = open_split("cub-closerlook")
    names = sorted((*split.train, *split.val, *split.test))
    assert [int(name[:3]) for name in names] == list(range(1, 201))
    assert split.train == tuple(names[0::2]) and split.val == tuple(names[1::4]) and split.test == tuple(names[3::4])


def test_cifar_test_classes() -> None:
    assert " ".join(open_split("cifar-fs").test) == CIFAR_FS_TEST
    assert " ".join(open_split("fc100").test) == FC100_TEST
    assert len({*open_split("fc100").train, *open_split("fc100").val, *open_split("fc100").test}) == 100


def test_omniglot_parts_are_by_alphabet_but_for_one() -> None:
    split = open_split("omniglot-vinyals")
    train, val, test = ({name.split("/")[0] for name in part} for part in (split.train, split.val, split.test))
    assert (len(train), len(val), len(test)) == (33, 5, 13)
    assert train & test == {"Gurmukhi"} and not val & (train | test)


# parts


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_part_is_the_images_of_its_classes(part: str) -> None:
    whole = dataset(ANIMALS)
    found, wanted = TOY.part(whole, part), getattr(TOY, part)
    rows = [row for row, name in enumerate(whole.names) if name.split("/")[0] in wanted]
    assert found.classes == list(wanted)
    assert found.ids.tolist() == rows and found.names == [whole.names[row] for row in rows]
    assert found.labels is not None
    assert [wanted[label] for label in found.labels] == [name.split("/")[0] for name in found.names]
    assert np.array_equal(np.asarray(found.inputs), np.asarray(whole.inputs)[rows])
    assert np.array_equal(found.hashes, whole.hashes[rows])


def test_no_image_of_a_test_class_can_be_reached_from_the_train_part() -> None:
    """By any place, by any episode, by any name or id; places out of range raise."""
    whole = dataset(ANIMALS)
    train, hidden = TOY.part(whole, "train"), {*TOY.part(whole, "test").ids, *TOY.part(whole, "val").ids}
    assert not hidden & set(train.ids) and not {"dog", "eel", "ant"} & {*(train.classes or ())}
    places = [*range(-len(train), len(train))]
    assert not hidden & set(np.asarray(train.inputs[places])[:, 0, 0, 0])
    assert not hidden & set(train.batch(places).inputs[:, 0, 0, 0].tolist())
    for outside in (len(train), -len(train) - 1):
        with pytest.raises(IndexError):
            train.batch([outside])
    assert train.labels is not None
    episodes = EpisodeSampler(train.labels, ways=2, shots=1, queries=2).draw(0, 500)
    drawn = np.unique(np.concatenate([episodes.support, episodes.query], axis=1))
    assert not hidden & set(train.ids[drawn])
    with pytest.raises(DataError, match="not in the data"):
        TOY.part(train, "test")


def test_a_part_reads_no_pixel() -> None:
    class Untouchable(np.ndarray):
        def __getitem__(self, index):
            raise AssertionError("a pixel was read")

    whole = dataset(ANIMALS)
    guarded = Dataset(**{**vars(whole), "inputs": np.asarray(whole.inputs).view(Untouchable)})
    found = TOY.part(guarded, "val")
    assert isinstance(found.inputs, Rows) and found.inputs.whole is guarded.inputs
    with pytest.raises(AssertionError, match="a pixel"):
        found.batch([0])


def test_classes_that_are_not_there() -> None:
    with pytest.raises(DataError, match=r"1 of 2 train classes are not in the data: owl \| split 'toy'"):
        TOY.part(dataset(ANIMALS[:5]), "train")
    mine = Split("mine", ("owl", "dgo"), ("a",), ("b",))
    with pytest.raises(DataError, match=r"1 of 2 train classes .*: dgo \(did you mean dog\?\).*those of the data are "):
        mine.part(dataset(ANIMALS), "train")
    many = Split("many", tuple(f"c{number}" for number in range(9)), ("a",), ("b",))
    with pytest.raises(DataError, match=r"9 of 9 train classes are not in the data: c0, c1, c2, c3, c4, \.\.\."):
        many.part(dataset(ANIMALS), "train")
    with pytest.raises(DataError, match="1 classes share their name with another: ant"):
        TOY.part(dataset([*ANIMALS, "ant"]), "val")
    emptied = dataset(ANIMALS).subset([1, 2, 7])
    with pytest.raises(DataError, match="1 train classes have no image: owl"):
        TOY.part(emptied, "train")
    with pytest.raises(UsageError, match="no part 'novel'.*train, val, test"):
        TOY.part(dataset(ANIMALS), "novel")
    with pytest.raises(DataError, match="no labels"):
        TOY.part(Dataset(**{**vars(dataset(ANIMALS)), "labels": None, "classes": None}), "train")


# files


def content(**changed: object) -> str:
    return json.dumps({"name": "mine", "train": ["a", "b"], "val": ["c"], "test": ["d"]} | changed)


def test_a_split_of_ones_own(tmp_path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content(source="me", rotations=True))
    assert open_split(path) == open_split(str(path)) == Split("mine", ("a", "b"), ("c",), ("d",), True, "me")
    path.write_text(content())
    assert open_split(path) == Split("mine", ("a", "b"), ("c",), ("d",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["not JSON"]),
        ("[" * 100_000, ["not JSON"]),
        ("[1]", ["the keys are none"]),
        ('{"train": ["a"]}', ["the keys are train"]),
        (content(rotation=True), ["rotation"]),
        (content(train="ab"), ["train is not of the right kind"]),
        (content(rotations=1), ["rotations is not of the right kind"]),
        (content(name=""), ["name"]),
        (content(val=[]), ["part val is empty"]),
        (content(val=["c", 3]), ["part val is empty or holds what is no name"]),
        (content(val=[""]), ["part val"]),
        (content(test=["d", "a"]), ["class 'a' in train and in test", "'mine'"]),
        (content(train=["a", "a"]), ["class 'a' in train and in train"]),
    ],
)
def test_files_that_are_no_split(tmp_path, text: str, words: list[str]) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        open_split(path)
    assert not [word for word in words if word not in str(caught.value)]
    assert caught.value.mend


def test_bytes_that_are_no_text(tmp_path) -> None:
    (tmp_path / "mine.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        open_split(tmp_path / "mine.json")


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no split 'cifar_fs'.*did you mean cifar-fs.*fc100"):
        open_split("cifar_fs")
    with pytest.raises(UsageError, match="no split 'gone.json'"):
        open_split(Path("gone.json"))


def test_the_fingerprint_sees_names_order_and_rotations() -> None:
    changed = [
        TOY,
        Split("toy2", TOY.train, TOY.val, TOY.test),
        Split("toy", TOY.train[::-1], TOY.val, TOY.test),
        Split("toy", TOY.train, TOY.val, TOY.test, rotations=True),
        Split("toy", TOY.val, TOY.train, TOY.test),
    ]
    assert len({split.fingerprint for split in changed}) == 5
    assert Split("toy", TOY.train, TOY.val, TOY.test, source="x").fingerprint == TOY.fingerprint


# rotations


def test_rotations_turn_every_image_and_class() -> None:
    whole = dataset(ANIMALS)
    turned = with_rotations(whole)
    assert len(turned) == 96 and turned.labels is not None and turned.classes is not None
    for place in range(96):
        number, quarter = place % 24, place // 24
        pixels = np.asarray(whole.inputs)[number, 0].tolist()
        for _ in range(quarter):
            pixels = [list(column) for column in zip(*pixels, strict=True)][::-1]  # counter-clockwise
        assert turned.inputs[place, 0].tolist() == pixels
        suffix = ("", "/rot90", "/rot180", "/rot270")[quarter]
        assert turned.classes[turned.labels[place]] == ANIMALS[number % 6] + suffix
        assert turned.names[place] == whole.names[number] + suffix
        assert turned.ids[place] == 4 * number + quarter
    assert len(set(turned.ids)) == len(set(turned.names)) == len({value.tobytes() for value in turned.hashes}) == 96
    assert np.array_equal(turned.hashes[:24], whole.hashes)
    assert isinstance(turned.inputs, np.ndarray) and turned.inputs.flags["C_CONTIGUOUS"]
    assert turned.inputs.dtype == np.uint8


def test_parts_of_a_rotated_split_share_no_id() -> None:
    whole, split = dataset(ANIMALS), Split("toy", TOY.train, TOY.val, TOY.test, rotations=True)
    parts = [split.part(whole, part) for part in ("train", "val", "test")]
    assert [len(part.classes or ()) for part in parts] == [8, 4, 8]
    ids = np.concatenate([part.ids for part in parts])
    assert len(set(ids)) == len(ids) == 4 * 5 * 4
    assert parts[0].classes == ["owl", "cat", "owl/rot90", "cat/rot90", "owl/rot180", "cat/rot180"] + [
        "owl/rot270",
        "cat/rot270",
    ]


def test_rotations_of_what_cannot_be_turned() -> None:
    whole = dataset(ANIMALS)
    sizes = whole.sizes.copy()
    sizes[5] = 3, 2
    with pytest.raises(DataError, match="1 of 24 images are not 3 x 3, such as 3 x 2"):
        with_rotations(Dataset(**{**vars(whole), "sizes": sizes}))
    sizes[5] = 2, 2
    with pytest.raises(DataError, match="such as 2 x 2"):
        with_rotations(Dataset(**{**vars(whole), "sizes": sizes}))
    with pytest.raises(DataError, match="no labels"):
        with_rotations(Dataset(**{**vars(whole), "labels": None, "classes": None}))


# real data


def without_pixels(path: str) -> Dataset:
    """The names and labels of a data set; its pixels are never decoded."""
    source = open_source(path, labels=True)
    count = len(source.names)
    return Dataset(
        inputs=np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (count, 1, 1, 1)),
        sizes=np.ones((count, 2), np.int64),
        ids=np.arange(count),
        names=source.names,
        hashes=np.zeros((count, 16), np.uint8),
        labels=source.labels,
        classes=source.classes,
    )


@pytest.mark.parametrize(
    ("name", "path", "classes", "each"),
    [
        ("cifar-fs", "cifar100:all", (64, 16, 20), 600),
        ("fc100", "cifar100:all", (60, 20, 20), 600),
        ("omniglot-vinyals", "omniglot", (4112, 688, 1692), 20),
    ],
)
def test_real_data_fit_their_split(real_data, name: str, path: str, classes: tuple[int, ...], each: int) -> None:
    if not (real_data / path.split(":")[0]).is_dir():
        pytest.skip(f"no {path} under NEARFAR_DATA")
    whole, split, seen = without_pixels(f"{real_data / path}"), open_split(name), []
    for part, count in zip(("train", "val", "test"), classes, strict=True):
        found = split.part(whole, part)
        assert found.labels is not None and len(found.classes or ()) == count
        assert (np.bincount(found.labels, minlength=count) == each).all()
        EpisodeSampler(found.labels, shots=5, queries=15).draw(0, 10)
        seen.append(set(found.ids))
    assert len(set.union(*seen)) == sum(len(ids) for ids in seen) == len(whole) * (4 if split.rotations else 1)


@pytest.mark.parametrize(("name", "file"), [("cifar-fs", "split_cifar_fs.json"), ("fc100", "split_fc100.json")])
def test_lists_are_those_beside_the_data(real_data, name: str, file: str) -> None:
    path, split = real_data / "cifar100" / file, open_split(name)
    if not path.is_file():
        pytest.skip(f"no {path}")
    listed = json.loads(path.read_text())
    assert [set(listed[part]) for part in ("train", "val", "test")] == [{*split.train}, {*split.val}, {*split.test}]


def test_cifar_test_images_that_are_also_trained_on_are_counted(real_data) -> None:
    """CIFAR-100 has the same picture under two class names here and there; the splits are used as published."""
    import pyarrow.parquet as pq

    files = [real_data / "cifar100" / f"{part}.parquet" for part in ("train", "test")]
    if not all(file.is_file() for file in files):
        pytest.skip("no cifar100 under NEARFAR_DATA")
    tables = [pq.read_table(file, columns=["image", "label_name"]) for file in files]
    pictures = [(image, name) for table in tables for image, name in zip(*table.to_pydict().values(), strict=True)]
    for split, count in ((open_split("cifar-fs"), 6), (open_split("fc100"), 1)):
        trained = {image for image, name in pictures if name in split.train}
        assert sum(image in trained for image, name in pictures if name in split.test) == count


@pytest.mark.slow
def test_real_characters_are_turned(real_data, tmp_path) -> None:
    if not (real_data / "omniglot").is_dir():
        pytest.skip("no omniglot under NEARFAR_DATA")
    whole = load(real_data / "omniglot", size=28, labels=True, cache=tmp_path)
    found = open_split("omniglot-vinyals").part(whole, "val")
    assert found.inputs.shape == (172 * 20 * 4, 1, 28, 28)
    assert np.array_equal(np.rot90(found.inputs[5, 0]), found.inputs[5 + 172 * 20, 0])
