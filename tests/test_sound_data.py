"""Sound files as they are found: formats, rates, faults, pieces, labels, the cache. Written with soundfile."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.signal import resample_poly

from nearfar.data import sound_decode
from nearfar.data.inputs import Ragged
from nearfar.data.sound import load_sound
from nearfar.errors import DataError, DeviceError, UsageError

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.usefixtures("own_cache")
RATE = 8000


def noise(samples: int, *, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, (samples, channels), dtype=np.int16)


def encoded(sound: np.ndarray, *, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, sound, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def decoded(item: bytes | Path, rate: int | None = None) -> np.ndarray:
    return np.concatenate(list(sound_decode.decode_sound(item, rate=rate)))


# Decoding


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "FLAC"])
def test_16_bits_come_back_exactly(kind: str):
    sound = noise(1000)
    assert np.array_equal(decoded(encoded(sound, kind=kind)), sound[:, 0])


def test_ogg_is_read_and_lossy():
    sound = (8000 * np.sin(np.arange(RATE) / 5)).astype(np.int16)[:, None]
    found = decoded(encoded(sound, kind="OGG"))
    assert len(found) == RATE and np.corrcoef(found, sound[:, 0])[0, 1] > 0.99


def test_D21_8_bit_24_bit_and_float_are_the_same_sound():
    sound = (noise(1000) // 256 * 256).astype(np.int16)
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        assert np.array_equal(decoded(encoded(sound / 32768, subtype=subtype)), sound[:, 0]), subtype


def test_stereo_is_averaged():
    sound = noise(500, channels=2)
    expected = np.rint((sound[:, 0].astype(int) + sound[:, 1]) / 2)
    assert np.array_equal(decoded(encoded(sound)), expected)


def test_float_beyond_full_scale_is_cut():
    sound = np.array([0.5, 1.5, -2.0], np.float32)
    assert decoded(encoded(sound, subtype="FLOAT")).tolist() == [16384, 32767, -32768]


@pytest.mark.parametrize(("own", "wanted"), [(8000, 16000), (96000, 16000), (44100, 16000), (11025, 8000)])
def test_D21_other_rates_are_resampled_as_a_whole_would_be(own: int, wanted: int, monkeypatch: pytest.MonkeyPatch):
    """Blocks of a third of a second against scipy on all of the sound, to one of 32,768 steps."""
    monkeypatch.setattr(sound_decode, "_READ", own // 10)
    monkeypatch.setattr(sound_decode, "BLOCK_SECONDS", 0.3)
    for samples in (own * 2 + 17, own // 3, 5):
        sound = noise(samples)
        blocks = list(sound_decode.decode_sound(encoded(sound, rate=own), rate=wanted))
        common = np.gcd(own, wanted)
        expected = resample_poly(sound[:, 0] / 32768, wanted // common, own // common)
        assert len(blocks) > 1 or samples < own
        difference = np.concatenate(blocks) - np.clip(expected * 32768, -32768, 32767)
        assert len(difference) == -(-samples * wanted // own) and np.abs(difference).max() <= 0.5001


FLAC = encoded(noise(4000), kind="FLAC")
FAULTS = {
    "empty": (b"", "empty"),
    "no samples": (encoded(noise(0)), "no samples"),
    "text": (b"hello " * 100, "no sound (looks like text)"),
    "zeros": (bytes(1000), "no sound (looks like zero bytes)"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(100), "no sound"),
    "head of RIFF": (b"RIFF" + bytes(4) + b"WAVE", "damaged"),
    "cut WAV": (encoded(noise(4000))[:5000], "truncated"),
    "cut FLAC": (FLAC[:3000], "damaged"),
    "cut Ogg": (encoded(noise(4000), kind="OGG")[:60], "damaged"),
    "rotten FLAC": (FLAC[:2000] + bytes(99) + FLAC[2099:], "damaged"),
    "NaN": (encoded(np.array([0, np.nan], np.float32), subtype="FLOAT"), "not finite"),
    "8 Hz": (encoded(noise(100), rate=8), "unsupported rate (8 Hz)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_D21_faults_have_a_reason(name: str):
    data, reason = FAULTS[name]
    with pytest.raises(sound_decode.BadSound) as caught:
        decoded(data)
    assert caught.value.what.startswith(reason)


def test_a_WAV_that_was_written_to_a_pipe_is_not_truncated():
    data = bytearray(encoded(noise(1000)))
    data[40:44] = b"\xff" * 4  # length of the data chunk: unknown
    assert len(decoded(bytes(data))) == 1000


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DeviceError, match=r"nearfar\[audio\]"):
        decoded(encoded(noise(10)))


# Data sets


def test_a_folder_with_a_subfolder_a_class(tmp_path: Path):
    for number, name in enumerate(("dog/a.wav", "dog/b.flac", "cat/c.wav", "cat/.hidden.wav", "notes.txt")):
        kind = "FLAC" if name.endswith("flac") else "WAV"
        put(tmp_path / name, encoded(noise(100 + number, seed=number), kind=kind))
    data = load_sound(tmp_path)
    assert data.names == ["cat/c.wav", "dog/a.wav", "dog/b.flac"] and data.classes == ["cat", "dog"]
    assert data.labels.tolist() == [0, 1, 1] and data.sizes.tolist() == [[102], [100], [101]]
    assert (data.kind, data.rate, data.inputs.shape, data.inputs.dtype) == ("sound", RATE, (3, 1, 102), np.int16)
    batch = data.batch([2, 0])
    assert batch.inputs.shape == (2, 1, 102) and batch.sizes.tolist() == [[101], [102]]
    assert np.array_equal(batch.inputs[0, 0, :101], noise(101, seed=1)[:, 0]) and not batch.inputs[0, 0, 101:].any()
    assert load_sound(tmp_path, labels=False).labels is None


def test_the_sound_is_mapped_and_the_second_look_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path / "a.wav", encoded(noise(300)))
    first = load_sound(tmp_path)
    assert isinstance(first.inputs, Ragged) and isinstance(first.inputs.flat, np.memmap)
    monkeypatch.setattr("nearfar.data.sound.decode_sound", None)
    again = load_sound(tmp_path)
    assert again.fingerprint == first.fingerprint and np.array_equal(np.asarray(again.inputs), np.asarray(first.inputs))
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    with pytest.raises(TypeError):
        load_sound(tmp_path)


def test_the_most_frequent_rate_is_taken_and_of_equals_the_lowest(tmp_path: Path):
    for name, rate in (("a", 16000), ("b", 16000), ("c", 8000)):
        put(tmp_path / f"{name}.wav", encoded(noise(800), rate=rate))
    data = load_sound(tmp_path)
    assert data.rate == 16000 and data.sizes[:, 0].tolist() == [800, 800, 1600]
    put(tmp_path / "d.wav", encoded(noise(800), rate=8000))
    assert load_sound(tmp_path).rate == 8000
    assert load_sound(tmp_path, rate=4000).sizes[:, 0].tolist() == [200, 200, 400, 400]


def test_D21_a_long_recording_becomes_equal_pieces(tmp_path: Path):
    long = noise(RATE * 6)
    put(tmp_path / "x" / "a.wav", encoded(long))
    put(tmp_path / "y" / "b.wav", encoded(long[: RATE * 2]))
    data = load_sound(tmp_path, seconds=2.0)
    assert data.names == ["x/a.wav [0-2 s]", "x/a.wav [2-4 s]", "x/a.wav [4-6 s]", "y/b.wav"]
    assert data.labels.tolist() == [0, 0, 0, 1] and len(np.unique(data.hashes, axis=0)) == 4
    assert np.array_equal(np.concatenate([data.inputs[i][0] for i in range(3)]), long[:, 0])
    uneven = load_sound(tmp_path, seconds=2.5)
    assert uneven.names[:3] == data.names[:3] and uneven.names[3:] == ["y/b.wav"]
    assert load_sound(tmp_path, seconds=4.0).names[1] == "x/a.wav [3-6 s]"


def test_D16_a_split_keeps_recordings_whole(tmp_path: Path):
    """Ten recordings of three pieces, one of which is there twice; a class of one recording stays with the rest."""
    for number in range(10):
        put(tmp_path / "x" / f"{number}.wav", encoded(noise(300, seed=number % 9)))
    put(tmp_path / "y" / "alone.wav", encoded(noise(300, seed=10)))
    data = load_sound(tmp_path, seconds=100 / RATE)
    assert len(np.unique(data.hashes, axis=0)) == 30 and len(np.unique(data.groups, axis=0)) == 10
    for seed in range(5):
        rest, held = data.split(0.1, seed=seed)
        assert len(held) in (3, 6) and data.labels is not None and not data.labels[held].any()
        sides = [{data.groups[place].tobytes() for place in part} for part in (rest, held)]
        assert not sides[0] & sides[1]


def test_D21_bad_files_are_listed_and_the_rest_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a file that turns out bad half-way nothing stays, also where it is the last."""
    monkeypatch.setattr(sound_decode, "_READ", 500)
    put(tmp_path / "z.flac", encoded(noise(40000), kind="FLAC")[:40000])
    for name, (data, _) in FAULTS.items():
        put(tmp_path / f"{name}.wav", data)
    put(tmp_path / "song.mp3", b"ID3")
    good = {f"good {number:02d}.wav": noise(50 + number, seed=number) for number in range(20)}
    for name, sound in good.items():
        put(tmp_path / name, encoded(sound))
    put(tmp_path / "silent.wav", encoded(np.zeros((70, 1), np.int16)))
    data = load_sound(tmp_path, max_bad=len(FAULTS) + 2)
    reasons = dict(data.bad)
    assert len(reasons) == len(FAULTS) + 2 and reasons["song.mp3"] == "unsupported format (.mp3)" and reasons["z.flac"]
    assert all(reasons[f"{name}.wav"].startswith(reason) for name, (_, reason) in FAULTS.items())
    assert data.names == [*good, "silent.wav"]
    for number, sound in enumerate(good.values()):
        assert np.array_equal(data.inputs[number][0], sound[:, 0])
    assert data.inputs[20].shape == (1, 70) and not data.inputs[20].any()
    with pytest.raises(DataError, match="cannot be read"):
        load_sound(tmp_path, max_bad=3)


def test_nothing_readable_and_nothing_there(tmp_path: Path):
    with pytest.raises(DataError, match="nothing there"):
        load_sound(tmp_path / "no")
    put(tmp_path / "a.jpg", b"x")
    with pytest.raises(DataError, match=r"no sounds in the folder; found 1 \.jpg"):
        load_sound(tmp_path)
    put(tmp_path / "b.wav", b"")
    with pytest.raises(DataError, match="empty"):
        load_sound(tmp_path)


@pytest.mark.parametrize("wrong", [{"rate": 10}, {"seconds": 0}, {"seconds": float("nan")}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float], tmp_path: Path):
    with pytest.raises(UsageError):
        load_sound(tmp_path, **wrong)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_with_two_columns_of_labels(suffix: str, tmp_path: Path):
    rows = [("a.wav", "one", "ann", "train"), ("b.wav", "two", "bob", "train"), ("c.wav", "two", "ann", "test")]
    for number, (name, *_) in enumerate(rows):
        put(tmp_path / name, encoded(noise(60, seed=number)))
    file, columns = tmp_path / f"list.{suffix}", ("path", "label", "Speaker", "split")
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    file.write_text("\n".join([";".join(columns), *map(";".join, rows)] if suffix == "csv" else lines))
    assert load_sound(file).classes == ["one", "two"]
    speakers = load_sound(file, label="speaker")
    assert speakers.classes == ["ann", "bob"] and speakers.labels.tolist() == [0, 1, 0]
    assert load_sound(f"{file}:test", label="speaker").names == ["c.wav"]
    with pytest.raises(DataError, match="room"):
        load_sound(file, label="room")


@pytest.mark.parametrize("wrapped", [False, True])
def test_parquet_with_two_columns_of_labels(wrapped: bool, tmp_path: Path):
    sounds = [encoded(noise(60 + n, seed=n)) for n in range(4)]
    audio = [{"bytes": s, "path": "x"} for s in sounds] if wrapped else sounds
    table = pa.table({"audio": audio, "label": [3, 1, 1, 3], "speaker": ["ann", "bob", "ann", "bob"]})
    pq.write_table(table, tmp_path / "train.parquet")
    data = load_sound(tmp_path / "train.parquet")
    assert data.labels.tolist() == [1, 0, 0, 1] and data.classes == ["1", "3"]
    assert data.sizes[:, 0].tolist() == [60, 61, 62, 63] and data.names[2] == "train.parquet:2"
    speakers = load_sound(tmp_path, label="speaker")
    assert speakers.classes == ["ann", "bob"] and np.array_equal(speakers.hashes, data.hashes)
    with pytest.raises(DataError, match="room"):
        load_sound(tmp_path, label="room")


def test_parquet_without_sound_is_refused_and_an_empty_row_is_bad(tmp_path: Path):
    pq.write_table(pa.table({"audio": ["a", "b"]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match="column 'audio' is string"):
        load_sound(tmp_path / "text.parquet")
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "image.parquet")
    with pytest.raises(DataError, match="no column 'audio'"):
        load_sound(tmp_path / "image.parquet")
    pq.write_table(pa.table({"audio": [None, encoded(noise(9)), encoded(noise(9))]}), tmp_path / "rows.parquet")
    data = load_sound(tmp_path / "rows.parquet")
    assert data.names == ["rows.parquet:1", "rows.parquet:2"] and data.bad[0][0] == "rows.parquet:0"


def test_D21_links_and_runs_are_no_data(tmp_path: Path):
    inside = put(tmp_path / "data" / "a.wav", encoded(noise(20)))
    put(tmp_path / "data" / "run" / "b.wav", encoded(noise(20)))
    put(tmp_path / "data" / "run" / "nearfar-run.json", b"{}")
    (tmp_path / "data" / "link.wav").symlink_to(inside)
    assert load_sound(tmp_path / "data").names == ["a.wav"]
    with pytest.raises(DataError, match="run of nearfar"):
        load_sound(tmp_path / "data" / "run")


def test_spoken_digits(real_data: Path):
    if not (real_data / "fsdd").is_dir():
        pytest.skip("no fsdd/ among the real data")
    data = load_sound(real_data / "fsdd" / "test.parquet", label="speaker")
    assert (len(data), data.rate, len(data.classes)) == (300, 8000, 6) and not data.bad
    assert np.bincount(data.labels).tolist() == [50] * 6
