"""The Parquet file of embeddings: columns, row i for image i, names of any kind, nothing half written.

And the features that it is made of, on the disk: the same after a stop, whatever a killed call left behind.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from PIL import Image
from sklearn.decomposition import PCA
from toy import stripes

from nearfar.data.names import original_name
from nearfar.errors import DeviceError, UsageError
from nearfar.evaluation import embeddings, features, stored_features, thumbnail, write_embeddings
from nearfar.runs.atomic import write_json
from nearfar.views import CentreCrop

stored = import_module("nearfar.evaluation.stored")

SCHEMA = {
    "id": pa.int64(),
    "path": pa.string(),
    "label": pa.string(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "x": pa.float32(),
    "y": pa.float32(),
    "neighbors": pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))]),
    "vector": pa.list_(pa.float32(), 6),
    "status": pa.string(),
}


def vectors(n: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)


def picture(row: int) -> bytes:
    return thumbnail(np.full((3, 8, 8), row % 256, np.uint8))


def written(tmp_path, x, **settings) -> pa.Table:
    settings = {"names": [f"{i}.png" for i in range(len(x))]} | settings
    return pq.read_table(write_embeddings(tmp_path / "embeddings.parquet", x, **settings))


def test_E5_columns_and_types_are_those_that_others_read(tmp_path):
    table = written(tmp_path, vectors(20), labels=[0, 1] * 9 + [-1, 0], classes=["cat", "dog"], thumbnails=picture)
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == SCHEMA
    assert table["label"].to_pylist()[-3:] == ["dog", None, "cat"]
    assert written(tmp_path, vectors(3), labels=[4, 5, -1])["label"].to_pylist() == [4, 5, None]
    assert not {"label", "image"} & set(written(tmp_path, vectors(3)).column_names)


def test_E5_pandas_reads_vectors_and_thumbnails(tmp_path):
    pd = pytest.importorskip("pandas")
    x = vectors(5)
    write_embeddings(tmp_path / "e.parquet", torch.from_numpy(x), names=list("abcde"), thumbnails=picture)
    frame = pd.read_parquet(tmp_path / "e.parquet")
    np.testing.assert_array_equal(np.stack(frame["vector"].tolist()), x)
    assert Image.open(io.BytesIO(frame["image"][3]["bytes"])).getpixel((0, 0)) == (3, 3, 3)


def test_E4_row_i_is_image_i_over_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "ROWS", 8)
    x, ids = vectors(27), np.arange(27)[::-1] * 10
    table = written(tmp_path, x, ids=ids.tolist(), thumbnails=picture)
    assert pq.ParquetFile(tmp_path / "embeddings.parquet").num_row_groups == 4
    assert table["id"].to_pylist() == ids.tolist()
    assert table["path"].to_pylist() == [f"{i}.png" for i in range(27)]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), x)
    for i, cell in enumerate(table["image"].to_pylist()):
        assert cell == {"bytes": picture(i), "path": f"{i}.png"}


def test_neighbours_are_those_of_loops_by_id(tmp_path):
    x, ids = vectors(30), (np.arange(30) + 100).tolist()
    found = written(tmp_path, x, ids=ids)["neighbors"].to_pylist()
    unit = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(30):
        order = sorted((1 - unit[i] @ unit[j], ids[j]) for j in range(30) if j != i)[:10]
        assert found[i]["ids"] == [number for _, number in order]
        np.testing.assert_allclose(found[i]["distances"], [d for d, _ in order], atol=1e-6)


@pytest.mark.parametrize("block", [7, 8192])
def test_place_on_the_map_is_that_of_scikit_learn_up_to_sign(tmp_path, monkeypatch, block):
    monkeypatch.setattr(embeddings, "BLOCK", block)
    x = vectors(40)
    table = written(tmp_path, x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    other = PCA(2).fit_transform(unit.astype(np.float64))
    for mine, theirs in zip((table["x"].to_numpy(), table["y"].to_numpy()), other.T, strict=True):
        np.testing.assert_allclose(mine * np.sign(mine @ theirs), theirs, atol=1e-5)
    assert written(tmp_path, x[:, :1])["y"].to_pylist() == [0.0] * 40


def test_E9_bad_image_in_the_middle_keeps_its_row_and_shifts_none(tmp_path):
    x, status = vectors(12), ["ok"] * 12
    plain = written(tmp_path, np.delete(x, [0, 5], axis=0), ids=[i for i in range(12) if i not in (0, 5)])
    x[[0, 5]] = np.nan
    status[0], status[5] = "no bytes", "caf\udce9.png cannot be read"
    table = written(tmp_path, x, status=status, thumbnails=lambda row: None if row in (0, 5) else picture(row))
    for row in (0, 5):
        gone = table.slice(row, 1).to_pylist()[0]
        assert gone["path"] == f"{row}.png" and gone["status"] == status[row].replace("\udce9", r"\udce9")
        assert all(gone[column] is None for column in ("image", "x", "y", "neighbors", "vector"))
    good = table.filter(pa.compute.equal(table["status"], "ok"))
    for column in ("id", "x", "y", "neighbors", "vector"):
        assert good[column].to_pylist() == plain[column].to_pylist()


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_E9_hardly_any_images(tmp_path, n, bad):
    table = written(tmp_path, vectors(n), status=["broken" if bad else "ok"] * n, thumbnails=picture)
    assert table.num_rows == n and table.schema.field("vector").type == SCHEMA["vector"]
    expected = [None] * n if bad else [[], [[]], [[1], [0]]][n]
    assert [cell and cell["ids"] for cell in table["neighbors"].to_pylist()] == expected


def test_D12_names_of_any_kind_come_back(tmp_path):
    names = [
        "a b.png",
        "new\nline",
        "\U0001f63a.jpg",
        "caf\udce9.png",
        "x" * 255,
        "CON",
        r"d\x41\e.png",
        "=cmd()",
        "<img>",
    ]
    table = written(tmp_path, vectors(len(names)), names=names, labels=range(len(names)), classes=names)
    assert [original_name(path) for path in table["path"].to_pylist()] == names
    labels = table["label"].to_pylist()
    assert labels[3] == "caf\\udce9.png" and labels[:3] + labels[4:] == names[:3] + names[4:]


def test_E8_after_an_error_there_is_no_file_and_the_old_one_stays(tmp_path):
    def full(row: int) -> bytes:
        raise OSError(28, "No space left on device")

    path = tmp_path / "embeddings.parquet"
    with pytest.raises(DeviceError, match="No space left"):
        write_embeddings(path, vectors(3), names=list("abc"), thumbnails=full)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    with pytest.raises(DeviceError):
        write_embeddings(path, vectors(3), names=list("abc"), thumbnails=full)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_no_search_where_no_neighbours_are_wanted(tmp_path):
    assert written(tmp_path, vectors(4), neighbours=0)["neighbors"].to_pylist() == [{"ids": [], "distances": []}] * 4


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"names": ["a"]}, "lengths differ"),
        ({"ids": [1, 1, 2]}, "1 ids are there more than once"),
        ({"labels": [0]}, "lengths differ"),
    ],
)
def test_wrong_arguments_are_said_before_anything_is_written(tmp_path, settings, match):
    with pytest.raises(UsageError, match=match):
        written(tmp_path, vectors(3), **settings)
    with pytest.raises(UsageError, match="1 of 3 rows hold NaN"):
        written(tmp_path, np.where(np.arange(3)[:, None] == 1, np.nan, vectors(3)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_thumbnail_shows_the_valid_part_of_any_number_of_channels(channels, mode):
    image = np.zeros((channels, 50, 50), np.uint8)
    image[:, :20, :40] = 200
    shown = Image.open(io.BytesIO(thumbnail(image, (20, 40), side=10)))
    assert shown.mode == mode and shown.size == (10, 5) and np.asarray(shown).min() == 200


# ------------------------------------------------------------ features on the disk

DATA, CROP = stripes(60), CentreCrop(8)
SLOPE = torch.randn(3 * 8 * 8, 5, generator=torch.Generator().manual_seed(1))


class Stop(Exception):
    """Stands for a kill."""


def encoder(*, parts: int = 10**9) -> tuple[Callable[[torch.Tensor], torch.Tensor], list[int]]:
    """An encoder that is killed after so many parts, and the number of images in each that it saw."""
    seen: list[int] = []

    def encode(view: torch.Tensor) -> torch.Tensor:
        if len(seen) == parts:
            raise Stop
        seen.append(len(view))
        return view.flatten(1) @ SLOPE

    return encode, seen


def kept(folder: Path, *, parts: int = 10**9, key: str = "a", more: int = 0) -> tuple[np.ndarray, list[int]]:
    encode, seen = encoder(parts=parts)
    with stored_features(encode, DATA, CROP, folder, key=key, more=more, batch=16) as rows:
        return np.array(rows), seen


@pytest.fixture
def noted_at_once(monkeypatch):
    monkeypatch.setattr(stored, "JOURNAL_SECONDS", 0.0)


@pytest.mark.parametrize("more", [0, 3])
def test_E4_features_on_the_disk_are_those_in_memory_and_leave_nothing(tmp_path, more):
    rows, seen = kept(tmp_path / "e.part", more=more)
    expected = features(encoder()[0], DATA, CROP, batch=16).numpy()
    np.testing.assert_array_equal(rows, np.concatenate([expected, np.zeros((more, 5), np.float32)]))
    assert seen == [16, 16, 16, 12] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("parts", [0, 1, 3])
@pytest.mark.parametrize("torn", [b"", b"half a row"])
def test_E8_features_go_on_where_they_were_stopped_bit_for_bit(tmp_path, noted_at_once, parts, torn):
    whole, _ = kept(tmp_path / "whole.part")
    folder = tmp_path / "e.part"
    with pytest.raises(Stop):
        kept(folder, parts=parts)
    with (folder / "rows").open("ab") as file:  # written, but not noted before the kill
        file.write(torn)
    rows, seen = kept(folder)
    np.testing.assert_array_equal(rows, whole)
    assert sum(seen) == 60 - 16 * parts and not folder.exists()


def test_E8_features_that_were_done_are_not_made_again_where_the_file_failed(tmp_path):
    folder = tmp_path / "e.part"
    with (
        pytest.raises(DeviceError),
        stored_features(encoder()[0], DATA, CROP, folder, key="a", batch=16) as rows,
    ):
        write_embeddings(tmp_path / "there is no such folder" / "e.parquet", rows, names=DATA.names, neighbours=0)
    again, seen = kept(folder)
    np.testing.assert_array_equal(again, features(encoder()[0], DATA, CROP, batch=16).numpy())
    assert not seen


def test_features_of_other_weights_or_images_begin_anew(tmp_path, noted_at_once):
    with pytest.raises(Stop):
        kept(tmp_path / "e.part", parts=2)
    rows, seen = kept(tmp_path / "e.part", key="b")
    assert sum(seen) == 60
    np.testing.assert_array_equal(rows, features(encoder()[0], DATA, CROP, batch=16).numpy())


@pytest.mark.parametrize("batch", [7, 8, 32])
def test_features_of_another_batch_begin_anew(tmp_path, noted_at_once, batch):
    with pytest.raises(Stop):
        kept(tmp_path / "e.part", parts=2)
    encode, seen = encoder()
    with stored_features(encode, DATA, CROP, tmp_path / "e.part", key="a", batch=batch) as rows:
        assert sum(seen) == 60
        np.testing.assert_array_equal(rows, features(encoder()[0], DATA, CROP, batch=batch).numpy())


def test_features_that_end_within_a_part_begin_anew(tmp_path, noted_at_once):
    with pytest.raises(Stop):
        kept(tmp_path / "e.part", parts=2)
    noted = json.loads((tmp_path / "e.part" / "journal.json").read_text())
    (tmp_path / "e.part" / "journal.json").unlink()
    write_json(tmp_path / "e.part" / "journal.json", {**noted, "done": 20})
    assert sum(kept(tmp_path / "e.part")[1]) == 60


def test_vectors_with_a_gradient_are_written(tmp_path):
    vectors = torch.randn(4, 3, requires_grad=True)
    path = write_embeddings(tmp_path / "e.parquet", vectors, names=list("abcd"), neighbours=0)
    np.testing.assert_array_equal(np.stack(pq.read_table(path)["vector"].to_numpy()), vectors.detach().numpy())


def test_two_calls_do_not_write_into_one_folder(tmp_path):
    (tmp_path / "e.part").mkdir()
    with FileLock(tmp_path / "e.part" / ".lock"), pytest.raises(UsageError, match="another process"):
        kept(tmp_path / "e.part")


def test_a_disk_without_room_is_told_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_SPARE", 10**18)
    with pytest.raises(DeviceError, match="GB are free"):
        kept(tmp_path / "e.part")


def test_rows_on_the_disk_are_not_copied_where_bad_ones_come_last(tmp_path):
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(9, 4))
    rows[:7] = vectors(7, 4)
    rows[7:] = np.nan
    x = embeddings._readable(rows, np.arange(9) < 7)
    assert x.data_ptr() == rows.ctypes.data and len(x) == 7
    assert embeddings._readable(rows, np.isin(np.arange(9), (1, 5))).tolist() == rows[[1, 5]].tolist()
