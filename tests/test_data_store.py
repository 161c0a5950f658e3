"""Scan, store and data set: counts, the policy for bad files, resumed builds, splits and batches."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from make_images import encoded, folder, photo, write
from PIL import Image

from nearfar.data import BadImage, decode, duplicates_across, load, scan
from nearfar.data import store as store_module
from nearfar.data.dataset import Dataset
from nearfar.errors import DataError, DeviceError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NEARFAR_CACHE", str(path))
    return path


def good_folder(root: Path, count: int = 12) -> Path:
    return folder(root, *(f"{number:03d}.png" for number in range(count)))


# scan


def test_summary_counts_everything(tmp_path) -> None:
    good_folder(tmp_path)
    (tmp_path / "copy.png").write_bytes((tmp_path / "003.png").read_bytes())
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    write(tmp_path / "thin.png", Image.new("RGB", (100, 2)))
    write(tmp_path / "moving.gif", photo(), save_all=True, append_images=[photo(seed=1)])
    found = scan(tmp_path)
    assert found.summary() == (
        "15 images, sides of 2 to 100 px, colour, 1 unreadable, 1 exact duplicate, 1 of extreme shape, "
        "1 with more than one frame (the first is used), 1 other files, unlabelled"
    )
    assert found.duplicates == [["003.png", "copy.png"]]
    assert found.extreme == ["thin.png"]
    assert len(found) == 15 and found.longest == 100


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_scan_names_what_is_cut_short_behind_its_header(tmp_path, suffix: str) -> None:
    """`load` finds it too, and leaves it out; a look at headers alone does not, and is not taken for a whole one."""
    good_folder(tmp_path, 4)
    write(tmp_path / f"short.{suffix}", photo(64, 64))
    whole = (tmp_path / f"short.{suffix}").read_bytes()
    (tmp_path / f"short.{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
    assert scan(tmp_path, pixels=False).bad == []
    [(name, reason)] = scan(tmp_path).bad
    assert name == f"short.{suffix}" and "truncated" in reason
    assert scan(tmp_path, pixels=False).bad == [] and load(tmp_path, size=16).bad == [(name, reason)]


def test_scan_is_kept_until_a_file_changes(tmp_path, monkeypatch) -> None:
    good_folder(tmp_path, 3)
    first = scan(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("nearfar.data.survey.inspect", None)
        assert np.array_equal(scan(tmp_path).hashes, first.hashes)
    write(tmp_path / "000.png", photo(10, 10))
    assert scan(tmp_path).shortest == 10


def test_a_damaged_cache_is_made_again(tmp_path, cache) -> None:
    good_folder(tmp_path, 3)
    before = load(tmp_path, size=16)
    for path in cache.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    after = load(tmp_path, size=16)
    assert np.array_equal(before.hashes, after.hashes)
    assert after.inputs.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "LA"])
def test_grey_images_have_one_channel(tmp_path, mode: str) -> None:
    picture = Image.fromarray(np.full((8, 8), 999, np.uint16)) if mode == "I;16" else photo(8, 8).convert(mode)
    write(tmp_path / "a.png", picture)
    assert load(tmp_path, size=8).inputs.shape == (1, 1, 8, 8)
    assert load(tmp_path, size=8, channels=3).inputs.shape == (1, 3, 8, 8)
    write(tmp_path / "b.png", photo(8, 8))
    assert load(tmp_path, size=8).inputs.shape == (2, 3, 8, 8)


def test_D16_duplicates_across_parts(tmp_path) -> None:
    good_folder(tmp_path / "a", 4)
    good_folder(tmp_path / "b", 3)
    (tmp_path / "b/same.png").write_bytes((tmp_path / "a/002.png").read_bytes())
    expected = [("002.png", "same.png")]
    assert duplicates_across(scan(tmp_path / "a"), scan(tmp_path / "b")) == expected
    assert duplicates_across(load(tmp_path / "a", size=8), load(tmp_path / "b", size=8)) == expected


# bad files


def test_D3_D4_D5_bad_files_are_left_out_and_listed(tmp_path) -> None:
    good_folder(tmp_path / "data", 9)
    jpeg = encoded(photo(96, 128), "JPEG")
    bad = {
        "a-zero.jpg": b"",
        "b-html.jpg": b"<html>404</html>",
        "c-text.png": b"hello",
        "d-cut.jpg": jpeg[: len(jpeg) * 6 // 10],
        "e-rot.jpg": jpeg[:2000] + bytes(200) + jpeg[2200:],
    }
    for name, data in bad.items():
        (tmp_path / "data" / name).write_bytes(data)
    found = load(tmp_path / "data", size=32)
    assert len(found) == 9 and len(found.inputs) == 9
    assert [name for name, _ in found.bad] == list(bad)
    reasons = ["empty", "not an image (HTML)", "not an image (text)", "truncated", "damaged"]
    assert all(reason.startswith(start) for (_, reason), start in zip(found.bad, reasons, strict=True))
    for name, image, (height, width) in zip(found.names, np.asarray(found.inputs), found.sizes, strict=True):
        expected = decode(tmp_path / "data" / name, channels=3, long_side=32)
        assert np.array_equal(image[:, :height, :width], expected)
        assert not image[:, height:].any() and not image[:, :, width:].any()
    found.write_bad_files(tmp_path / "bad_files.csv")
    with (tmp_path / "bad_files.csv").open(newline="") as stream:
        assert [tuple(row) for row in csv.reader(stream)] == [("path", "reason"), *found.bad]


@pytest.mark.parametrize("damage", ["header", "pixels"])
def test_D15_half_of_the_files_corrupt(tmp_path, damage: str) -> None:
    good_folder(tmp_path, 12)
    for number in range(12):
        data = encoded(photo(seed=number), "JPEG")
        (tmp_path / f"bad{number:02d}.jpg").write_bytes(b"junk" if damage == "header" else data[:-80])
    with pytest.raises(DataError) as caught:
        load(tmp_path, size=16)
    text = str(caught.value)
    assert "12 of 24 cannot be read" in text and "max_bad" in text
    assert "bad09.jpg" in text and "bad10.jpg" not in text
    assert len(load(tmp_path, size=16, max_bad=12)) == 12
    with pytest.raises(DataError):
        load(tmp_path, size=16, max_bad=11)


def test_D15_default_limits(tmp_path) -> None:
    from nearfar.data.survey import check_bad

    for bad, total, stops in [(0, 1, False), (1, 2, True), (1, 3, False), (100, 1000, False), (101, 1000, True)]:
        listed = [(str(number), "empty") for number in range(bad)]
        if stops:
            with pytest.raises(DataError, match="E-data"):
                check_bad(listed, total, None, "x")
        else:
            check_bad(listed, total, None, "x")
    check_bad([("x", "empty")] * 150, 20_000, None, "x")


def test_D14_files_that_vanish_or_change_between_scan_and_build(tmp_path, monkeypatch) -> None:
    good_folder(tmp_path, 10)
    look = store_module.open_or_build

    def later(source, plan, **settings):
        (tmp_path / "003.png").unlink()
        (tmp_path / "005.png").write_text("<html>")
        write(tmp_path / "007.png", photo(200, 300))
        return look(source, plan, **settings)

    monkeypatch.setattr("nearfar.data.dataset.open_or_build", later)
    found = load(tmp_path, size=64)
    assert found.bad == [
        ("003.png", "unreadable (No such file or directory)"),
        ("005.png", "not an image (HTML)"),
    ]
    assert len(found) == 8
    place = found.names.index("007.png")
    assert found.sizes[place].tolist() == [43, 64]
    assert np.array_equal(found.inputs[place, :, :43], decode(tmp_path / "007.png", channels=3, long_side=64))


# store


@pytest.mark.parametrize(
    ("sizes", "size", "canvas"),
    [([(32, 32)] * 3, 224, 32), ([(20, 30), (40, 10)], 64, 40), ([(100, 300), (10, 10)], 64, 64)],
)
def test_canvas_is_no_larger_than_needed(tmp_path, sizes: list, size: int, canvas: int) -> None:
    for number, shape in enumerate(sizes):
        write(tmp_path / f"{number}.png", photo(*shape))
    found = load(tmp_path, size=size)
    assert found.inputs.shape == (len(sizes), 3, canvas, canvas)
    assert found.sizes.max() == canvas


def test_same_result_for_any_number_of_threads(tmp_path, tmp_path_factory) -> None:
    good_folder(tmp_path, 20)
    parts = [load(tmp_path, size=16, threads=n, cache=tmp_path_factory.mktemp("c")) for n in (1, 4)]
    assert np.array_equal(parts[0].inputs, parts[1].inputs)
    assert parts[0].fingerprint == parts[1].fingerprint


def test_fingerprint_follows_names_and_contents(tmp_path) -> None:
    good_folder(tmp_path, 3)
    first = load(tmp_path, size=16).fingerprint
    assert load(tmp_path, size=8).fingerprint == first
    (tmp_path / "000.png").rename(tmp_path / "0000.png")
    second = load(tmp_path, size=16).fingerprint
    write(tmp_path / "0000.png", photo(seed=99))
    assert len({first, second, load(tmp_path, size=16).fingerprint}) == 3


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    import nearfar.data.source as source
    import nearfar.data.store as store
    from nearfar.data import load

    source.BLOCK, store.JOURNAL_SECONDS = 8, 0

    write, calls = store._write_block, []

    def stop(arrays, state, results):
        calls.append(0)
        if len(calls) == 3:
            write(arrays, dict(state, bad=[]), iter(list(results)[:5]))  # half of a block is on the disk
            os.kill(os.getpid(), signal.SIGKILL)
        write(arrays, state, results)

    store._write_block = stop
    load(sys.argv[1], size=24)
    """
)


def test_a_killed_build_goes_on_where_it_was(tmp_path, tmp_path_factory, monkeypatch, cache) -> None:
    """Blocks of 8; killed inside the third; the second run decodes the rest only, and the result is the same."""
    monkeypatch.setattr("nearfar.data.source.BLOCK", 8)
    good_folder(tmp_path, 29)
    (tmp_path / "004.png").write_bytes(b"junk")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(list((cache / "stores").glob("*.building"))) == 1
    decoded = []
    count = store_module._decode
    monkeypatch.setattr(store_module, "_decode", lambda item, plan: decoded.append(item) or count(item, plan))
    resumed = load(tmp_path, size=24)
    assert len(decoded) == 29 - 16
    monkeypatch.setattr(store_module, "_decode", count)
    fresh = load(tmp_path, size=24, cache=tmp_path_factory.mktemp("fresh"))
    assert np.array_equal(resumed.inputs, fresh.inputs)
    assert (resumed.names, resumed.bad, resumed.fingerprint) == (fresh.names, fresh.bad, fresh.fingerprint)
    assert not list((cache / "stores").glob("*.building"))


def test_two_processes_build_one_store(tmp_path, cache) -> None:
    good_folder(tmp_path, 12)
    code = "import sys; from nearfar.data import load; print(load(sys.argv[1], size=24).fingerprint)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = {process.communicate(timeout=120)[0].strip() for process in started}
    assert told == {load(tmp_path, size=24).fingerprint}
    assert len([path for path in (cache / "stores").iterdir() if path.is_dir()]) == 1


def test_a_whole_store_is_opened_without_a_lock(tmp_path, monkeypatch) -> None:
    """So a cache that others made and that can only be read serves."""
    first = load(good_folder(tmp_path, 3), size=16)
    monkeypatch.setattr("filelock.FileLock", None)
    assert load(tmp_path, size=16).fingerprint == first.fingerprint


def test_remains_of_a_larger_image_are_wiped() -> None:
    arrays = {name: np.full(size, 9, kind) for name, (kind, size) in store_module._layout((2, 1, 4, 4)).items()}
    state = {"done": 0, "filled": 0, "bad": []}
    results = [BadImage("empty"), (np.full((1, 2, 3), 5, np.uint8), bytes(16))]
    store_module._write_block(arrays, state, iter(results))
    assert arrays["images"][0, 0].tolist() == [[5, 5, 5, 0], [5, 5, 5, 0], [0] * 4, [0] * 4]
    assert (arrays["sizes"][0].tolist(), arrays["rows"][0]) == ([2, 3], 1)
    assert state == {"done": 2, "filled": 1, "bad": [[0, "empty"]]}


def test_no_space_is_said_before_any_work(tmp_path, monkeypatch) -> None:
    good_folder(tmp_path, 3)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("nearfar.data.store.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DeviceError, match="NEARFAR_CACHE") as caught:
        load(tmp_path, size=16)
    assert caught.value.exit_code == 4


def test_a_cache_that_cannot_be_written(tmp_path) -> None:
    good_folder(tmp_path / "data", 3)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DeviceError, match="cache"):
        load(tmp_path / "data", size=16, cache=tmp_path / "file")


def test_progress_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nearfar.data.source.BLOCK", 4)
    told: list[tuple[int, int]] = []
    load(good_folder(tmp_path, 10), size=16, progress=lambda done, total: told.append((done, total)))
    assert told[-3:] == [(4, 10), (8, 10), (10, 10)]


# data set


@pytest.fixture
def classes(tmp_path) -> Dataset:
    names = [f"{kind}/{number}.png" for kind in ("cat", "dog", "owl") for number in range(10)]
    return load(folder(tmp_path / "data", *names), size=16)


def test_batches(classes) -> None:
    batch = classes.batch([5, 25], seed=3, epoch=2)
    assert batch.inputs.shape == (2, 3, 16, 16)
    assert batch.ids.tolist() == [5, 25]
    assert batch.labels.tolist() == [0, 2]
    assert batch.sizes.tolist() == [[12, 16]] * 2
    assert (batch.seed, batch.epoch) == (3, 2)
    assert np.array_equal(batch.inputs[1].numpy(), classes.inputs[25])
    batch.inputs.zero_()
    assert classes.inputs[5].any()


def test_a_subset_keeps_ids_and_copies_nothing(classes) -> None:
    part = classes.subset([20, 3]).subset([1, 0, 1])
    assert part.ids.tolist() == [3, 20, 3]
    assert part.names == ["cat/3.png", "owl/0.png", "cat/3.png"]
    assert part.batch([1]).ids.tolist() == [20]
    assert part.inputs.whole is classes.inputs
    assert part.inputs.shape == (3, 3, 16, 16) and len(part.inputs) == 3
    assert np.array_equal(part.inputs[1], classes.inputs[20])
    assert np.array_equal(np.asarray(part.inputs), np.asarray(classes.inputs)[[3, 20, 3]])


def test_split_is_stratified_repeatable_and_follows_content(classes) -> None:
    rest, held = classes.split(0.3, seed=1)
    assert np.bincount(classes.labels[held]).tolist() == [3, 3, 3]
    assert sorted([*rest, *held]) == list(range(30))
    assert np.array_equal(classes.split(0.3, seed=1)[1], held)
    assert not np.array_equal(classes.split(0.3, seed=2)[1], held)
    turned = classes.subset(np.arange(30)[::-1])
    assert {turned.names[place] for place in turned.split(0.3, seed=1)[1]} == {classes.names[place] for place in held}
    assert len(classes.split(0.0)[1]) == 0 and len(classes.split(1.0)[0]) == 0
    with pytest.raises(UsageError):
        classes.split(1.5)


def test_D16_a_split_keeps_duplicates_together(tmp_path) -> None:
    for number in range(20):
        for copy in "ab":
            write(tmp_path / f"{number}{copy}.png", photo(8, 8, seed=number))
    found = load(tmp_path, size=8)
    for seed in range(10):
        rest, held = (found.subset(part) for part in found.split(0.25, seed=seed))
        assert len(held) == 10
        assert duplicates_across(rest, held) == []


@pytest.mark.parametrize("settings", [{"size": 0}, {"size": 8, "channels": 2}])
def test_wrong_settings(tmp_path, settings: dict) -> None:
    with pytest.raises(UsageError):
        load(good_folder(tmp_path, 2), **settings)


def test_data_is_light_to_import() -> None:
    code = (
        "import sys, nearfar.data; print(*[m for m in ('torch', 'PIL', 'pyarrow', 'simplejpeg') if m in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_real_jpegs(real_data, tmp_path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(real_data / "cifar10/test.parquet").slice(0, 500), tmp_path / "test.parquet")
    found = load(tmp_path / "test.parquet", size=64, labels=True)
    assert found.inputs.shape == (500, 3, 32, 32) and not found.bad
    assert found.classes is not None and len(found.classes) == 10
    images = pq.read_table(tmp_path / "test.parquet")["image"].to_pylist()
    for place in range(0, 500, 50):
        from io import BytesIO

        plain = np.asarray(Image.open(BytesIO(images[place])).convert("RGB")).transpose(2, 0, 1)
        assert np.abs(found.inputs[place].astype(int) - plain).max() <= 1


def test_real_one_bit_images(real_data, tmp_path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(real_data / "omniglot/images_evaluation.parquet").slice(0, 60), tmp_path / "a.parquet")
    found = load(tmp_path / "a.parquet", size=105)
    assert found.inputs.shape == (60, 1, 105, 105)
    assert set(np.unique(found.inputs)) == {0, 255}
    assert np.asarray(found.inputs).mean() > 200
