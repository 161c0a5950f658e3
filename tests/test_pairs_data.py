"""Samples of several parts: Parquet, manifests, folders; what is bad in one part is left out as a whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import nearfar
from nearfar.data import Dataset, load
from nearfar.data.pairs import load_pairs
from nearfar.data.tokens import Tokenizer
from nearfar.errors import DataError, UsageError
from nearfar.tasks.build import check
from nearfar.tasks.opening import columns_of, read

pytestmark = pytest.mark.usefixtures("own_cache")
TEXTS = [f"picture {number}" for number in range(8)]


def png(number: int, *, side: int = 12, mode: str = "RGB") -> bytes:
    colour = (20 * number, 255 - 20 * number, number) if mode == "RGB" else 20 * number
    file = io.BytesIO()
    Image.new(mode, (side, side), colour).save(file, "PNG")
    return file.getvalue()


def pictures(start: int, **settings: object) -> list[bytes]:
    return [png(start + number, **settings) for number in range(8)]


def write_parquet(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def captions(data: Dataset) -> list[str]:
    tokens, sizes = data.columns["text"].inputs, data.columns["text"].sizes
    rows = zip(np.asarray(tokens)[:, 0], sizes[:, 0], strict=True)
    return [bytes((row[:size] - 1).astype(np.uint8)).decode() for row, size in rows]


def reds(images: object) -> list[int]:
    return np.asarray(images)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("name", ["text", "caption"])
def test_parquet_with_two_images_and_a_text(tmp_path: Path, name: str) -> None:
    columns = {"image": pictures(0), "image2": pictures(2, side=10), name: TEXTS, "label": [0, 1] * 4}
    path = write_parquet(tmp_path / "all.parquet", **columns)
    data = load_pairs(path, size=16, columns=("image", "image2", "text"), length=10)
    assert data.inputs.shape == (8, 3, 12, 12) and data.columns["image2"].inputs.shape == (8, 3, 10, 10)
    assert reds(data.inputs) == [20 * n for n in range(8)]
    assert reds(data.columns["image2"].inputs) == [20 * (n + 2) for n in range(8)]
    assert captions(data) == TEXTS[:8] and data.columns["text"].inputs.shape == (8, 1, 10)
    assert data.labels is not None and data.labels.tolist() == [0, 1] * 4 and data.tokenizer == Tokenizer()
    batch = data.subset([5, 1]).batch([0, 1])
    assert reds(batch.inputs.numpy()) == [100, 20]
    assert batch.columns["text"][0].shape == (2, 1, 10) and batch.columns["text"][1].tolist() == [[9], [9]]
    assert reds(batch.of("image2").inputs.numpy()) == [140, 60] and batch.of("image2").sizes.tolist() == [[10, 10]] * 2


def test_the_columns_of_one_file_are_decoded_apart_and_the_images_alone_as_ever(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "all.parquet", image=pictures(0), image2=pictures(3), text=TEXTS)
    for _ in range(2):  # built, then from the cache
        data = load_pairs(path, size=16, columns=("image2", "image"))
        assert reds(data.inputs) == [20 * (n + 3) for n in range(8)]
        assert reds(data.columns["image"].inputs) == reds(load(path, size=16).inputs) == [20 * n for n in range(8)]
    assert data.tokenizer is None and "text" not in data.columns


def test_all_images_have_the_channels_of_the_most_colourful(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "all.parquet", image=pictures(0, mode="L"), image2=pictures(0))
    data = load_pairs(path, size=16, columns=("image", "image2"))
    assert data.inputs.shape[1] == data.columns["image2"].inputs.shape[1] == 3
    assert load_pairs(path, size=16, columns=("image", "image2"), channels=1).columns["image2"].inputs.shape[1] == 1


def test_D4_a_sample_with_a_bad_part_is_left_out_and_listed(tmp_path: Path) -> None:
    first, second = pictures(0), pictures(1)
    first[1], second[4], second[1] = first[1][:40], b"nonsense", None
    texts = [*TEXTS[:6], "   ", None]
    path = write_parquet(tmp_path / "all.parquet", image=first, image2=second, text=texts)
    data = load_pairs(path, size=16, columns=("image", "image2", "text"), max_bad=4)
    assert reds(data.inputs) == [0, 40, 60, 100] and reds(data.columns["image2"].inputs) == [20, 60, 80, 120]
    assert captions(data) == [TEXTS[n] for n in (0, 2, 3, 5)] and data.ids.tolist() == [0, 1, 2, 3]
    told = dict(data.bad)
    assert list(told) == [f"all.parquet:{n}" for n in (1, 4, 6, 7)]
    assert told["all.parquet:1"].startswith("image: ") and told["all.parquet:4"].startswith("image2: ")
    assert told["all.parquet:7"].startswith("text: ")
    with pytest.raises(DataError, match="cannot be read"):
        load_pairs(path, size=16, columns=("image", "image2", "text"), max_bad=3)


@pytest.mark.parametrize("change", ["image", "image2", "text"])
def test_fingerprint_and_hashes_are_of_all_parts(tmp_path: Path, change: str) -> None:
    columns = {"image": pictures(0), "image2": pictures(1), "text": list(TEXTS)}
    asked = {"size": 16, "columns": ("image", "image2", "text")}
    before = load_pairs(write_parquet(tmp_path / "all.parquet", **columns), **asked)
    columns[change][3] = "another" if change == "text" else png(12)
    (tmp_path / "b").mkdir()
    after = load_pairs(write_parquet(tmp_path / "b" / "all.parquet", **columns), **asked)
    differ = (before.hashes != after.hashes).any(1)
    assert differ.tolist() == [n == 3 for n in range(8)] and before.fingerprint != after.fingerprint


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_manifest_of_pairs(tmp_path: Path, kind: str) -> None:
    for number in range(4):
        (tmp_path / f"a{number}.png").write_bytes(png(number))
        (tmp_path / f"b{number}.png").write_bytes(png(number + 5))
    rows = [
        {"path": f"a{n % 3}.png", "path2": f"b{n}.png", "caption": f" word, {n}", "label": f"c{n % 3 % 2}"}
        for n in range(4)
    ]
    if kind == "csv":
        lines = ["path,path2,caption,label", *(f'{r["path"]},{r["path2"]},"{r["caption"]}",{r["label"]}' for r in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    path = tmp_path / f"list.{kind}"
    path.write_text("\n".join(lines))
    data = load_pairs(path, size=16, columns=("image", "image2", "text"))
    assert reds(data.inputs) == [0, 20, 40, 0] and reds(data.columns["image2"].inputs) == [100, 120, 140, 160]
    assert captions(data) == [f"word, {n}" for n in range(4)]  # a0 is there with two captions
    assert data.classes == ["c0", "c1"] and data.labels.tolist() == [0, 1, 0, 0]


def captioned(folder: Path, kind: str, *, captions: int = 2, label: str = "") -> Path:
    """A list of 8 images, each with several captions; `label` is that of the last row."""
    rows = [{"path": f"{n % 8}.png", "caption": f"row {n}", "label": f"c{n % 2}"} for n in range(8 * captions)]
    rows[-1]["label"] = label or rows[-1]["label"]
    for number in range(8):
        (folder / f"{number}.png").write_bytes(png(number))
    lines = [json.dumps(row) for row in rows] if kind == "jsonl" else [",".join(row.values()) for row in rows]
    path = folder / f"list.{kind}"
    path.write_text("\n".join(lines if kind == "jsonl" else ["path,caption,label", *lines]))
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_image_with_several_captions_is_one_image_without_them(tmp_path: Path, kind: str) -> None:
    path = captioned(tmp_path, kind)
    data = nearfar.load(path, size=16)
    assert data.names == [f"{n}.png" for n in range(8)] and reds(data.inputs) == [20 * n for n in range(8)]
    assert data.labels is not None and data.labels.tolist() == [0, 1] * 4 and len(nearfar.scan(path)) == 8
    assert len(load_pairs(path, size=16)) == 16
    with pytest.raises(DataError, match=r"line \d+: two labels for '7.png'"):
        nearfar.load(captioned(tmp_path, kind, label="other"), size=16)


def test_D16_a_split_keeps_all_captions_of_an_image_together(tmp_path: Path) -> None:
    data = load_pairs(captioned(tmp_path, "csv", captions=3), size=16, labels=False)
    assert len(np.unique(data.hashes, axis=0)) == 24 and len(np.unique(data.groups, axis=0)) == 8
    for seed in range(5):
        rest, held = data.split(0.1, seed=seed)
        sides = [{data.names[place] for place in part} for part in (rest, held)]
        assert not sides[0] & sides[1] and (len(held), len(rest)) == (3, 21)
        assert np.array_equal(data.subset(held).groups, data.groups[held])


def test_second_images_of_a_list_with_several_captions_an_image_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "list.csv").write_text("path,path2,text\n0.png,1.png,one\n0.png,1.png,two\n")
    assert len(load_pairs(tmp_path / "list.csv", size=16, columns=("image", "image2", "text"))) == 2
    with pytest.raises(DataError, match="several captions"):
        load_pairs(tmp_path / "list.csv", size=16, columns=("image", "image2"))


def test_a_folder_of_images_with_a_text_beside_each(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        (tmp_path / f"{number}.txt").write_text(f"grün {number}\n", encoding="utf-8")
    (tmp_path / "2.txt").unlink()
    (tmp_path / "3.txt").write_bytes(b"\xff\xfe\xff")
    data = load_pairs(tmp_path, size=16, max_bad=2)
    assert captions(data) == ["grün 0", "grün 1"] and [name for name, _ in data.bad] == ["2.png", "3.png"]
    with pytest.raises(DataError, match="image2"):
        load_pairs(tmp_path, size=16, columns=("image", "image2"))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "all.parquet", image=pictures(0))
    with pytest.raises(DataError, match="no column 'image2'"):
        load_pairs(path, size=16, columns=("image", "image2"))
    with pytest.raises(DataError, match="no column 'text'"):
        load_pairs(path, size=16)
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "list.csv").write_text("path,text\na.png,x\n")
    with pytest.raises(DataError, match="no column 'path2' or 'image2'"):
        load_pairs(tmp_path / "list.csv", size=16, columns=("image", "image2"))
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(DataError, match="no captions"):
        load_pairs(tmp_path / "a.npy", size=16)


@pytest.mark.parametrize("columns", [("image",), ("text",), ("image", "image"), ()])
def test_columns_that_make_no_pair_are_refused(tmp_path: Path, columns: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="two or more"):
        load_pairs(tmp_path, size=16, columns=columns)


def test_real_pairs(real_data: Path) -> None:
    folder = real_data / "emoji_pairs"
    if not folder.is_dir():
        pytest.skip("no emoji_pairs")
    data = load_pairs(folder, size=64, columns=("image", "image2", "text"))
    assert len(data) == 1911 and not data.bad and len(data.classes or ()) == 10
    assert captions(data.subset([0, 2])) == ["hash key", "keycap 0"]


@pytest.mark.parametrize("columns", ["image2,image", "image,text", "depth"])
def test_columns_that_are_no_pictures_with_the_image_first_are_refused(columns: str):
    with pytest.raises(UsageError, match="--columns image,image2"):
        columns_of(check({"method": "cmc", "columns": columns}))


def column_folders(root: Path, first: str = "image") -> Path:
    for number, scene in enumerate(("room/a", "room/b", "hall/a", "hall/c", "hall/d")):
        for folder, suffix, pixel in ((first, ".png", png(number)), ("depth", ".bmp", png(number + 2))):
            file = (root / folder / scene).with_suffix(suffix)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pixel)
    return root


@pytest.mark.parametrize("first", ["image", "rgb"])
def test_a_folder_for_each_column_where_the_same_names_belong_together(tmp_path: Path, first: str) -> None:
    root = column_folders(tmp_path, first)
    (root / "depth/hall/c.bmp").unlink()  # a sample that lacks it is a bad one
    (root / "depth/hall/0.bmp").write_bytes(png(9))  # and one that nothing belongs to is not looked at
    data = load_pairs(root, size=16, columns=("image", "depth"), max_bad=1)
    assert data.names == ["hall/a.png", "hall/d.png", "room/a.png", "room/b.png"]
    assert reds(data.inputs) == [40, 80, 0, 20] and reds(data.columns["depth"].inputs) == [80, 120, 40, 60]
    assert data.bad == [("hall/c.png", "depth: missing (not in depth/)")]
    assert data.classes == ["hall", "room"] and data.labels is not None and data.labels.tolist() == [0, 0, 1, 1]


def test_a_folder_for_each_column_has_captions_beside_the_first(tmp_path: Path) -> None:
    root = column_folders(tmp_path)
    for file in (root / "image").rglob("*.png"):
        file.with_suffix(".txt").write_text(file.stem)
    data = load_pairs(root, size=16, columns=("image", "depth", "text"), labels=False)
    assert captions(data) == ["a", "c", "d", "a", "b"] and data.labels is None


def test_folders_in_which_names_tell_nothing_are_refused(tmp_path: Path) -> None:
    root = column_folders(tmp_path)
    with pytest.raises(DataError, match="a folder depth2/ beside image/"):
        load_pairs(root, size=16, columns=("image", "depth2"))
    (root / "depth/room/a.png").write_bytes(png(3))
    with pytest.raises(DataError, match=r"room/a.* is one of two of its name"):
        load_pairs(root, size=16, columns=("image", "depth"))


def test_images_that_are_dark_throughout_are_told_of(tmp_path: Path) -> None:
    settings = check({"method": "cmc", "columns": "image,depth", "size": 16})
    shallow, full = (np.uint16(top) * np.ones((12, 12), np.uint16) for top in (9_999, 65_535))
    for top, told in ((shallow, "depth: no pixel above 39 of 255"), (full, "")):
        root = column_folders(tmp_path)
        for file in (root / "depth").rglob("*.bmp"):
            Image.fromarray(top).save(file.with_suffix(".png"))
            file.unlink()
        found = read(root, settings, print).told
        assert told in found and ("above" in found) == bool(told)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("asked", ["depth", "Depth"])
def test_the_case_of_a_column_does_not_matter(tmp_path: Path, kind: str, asked: str) -> None:
    column_folders(tmp_path)
    rows = [{"path": f"image/room/{n}.png", "Depth": f"depth/room/{n}.bmp"} for n in "ab"]
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)] if kind == "csv" else map(json.dumps, rows)
    path = tmp_path / f"list.{kind}"
    path.write_text("\n".join(lines))
    data = load_pairs(path, size=16, columns=("image", asked))
    assert reds(data.columns[asked].inputs) == [40, 60]


def test_columns_of_a_list_that_are_not_there_are_told_by_both_of_their_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "list.csv").write_text("path,path2\na,b\n")
    with pytest.raises(DataError, match=r"no column 'pathe2' or 'imagee2' among.*image2 is path2"):
        load_pairs(tmp_path / "list.csv", size=16, columns=("image", "imagee2"))
    with pytest.raises(DataError, match="no row of split 'tran'; there are: test, train"):
        (tmp_path / "list.csv").write_text("path,split\na,train\nb,test\n")
        load(f"{tmp_path / 'list.csv'}:tran", size=16)
    for content, told in ((b"", "an empty file"), (b"\xff\xfe\x00\x01\x80,\n", "no table of text")):
        (tmp_path / "list.csv").write_bytes(content)
        with pytest.raises(DataError, match=told):
            load(tmp_path / "list.csv", size=16)
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_bytes("path;größe\na.png;9\n".encode("latin-1"))
    assert len(load(tmp_path / "list.csv", size=16)) == 1


def test_labels_of_pairs_may_have_another_name(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", image=pictures(0), text=TEXTS, kind=["x", "y"] * 4)
    assert load_pairs(path, size=16).labels is None
    assert load_pairs(path, size=16, label="kind").classes == ["x", "y"]
    for column in ("image", "depth"):
        (tmp_path / column).mkdir()
        (tmp_path / column / "a.png").write_bytes(png(1))
    with pytest.raises(DataError, match="only manifests and Parquet"):
        load_pairs(tmp_path, size=16, columns=("image", "depth"), label="kind")
