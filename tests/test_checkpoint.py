"""Checkpoints: whole or not there, verified byte for byte, and nothing in them can run."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nearfar.errors import DeviceError, IntegrityError, UsageError
from nearfar.runs import (
    Checkpoint,
    Run,
    atomic,
    load_checkpoint,
    match_tensors,
    read_tensors,
    refuse_pickles,
    save_checkpoint,
    write_tensors,
)
from nearfar.runs.checkpoint import _seal


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Every dtype and layout that a training has, different at every step."""
    weights = torch.arange(4096.0).reshape(64, 64) * 1.1 + step
    model = {
        "weights": weights,
        "turned": weights.t(),
        "tied": weights,
        "part": weights[3:5],
        "half": weights.bfloat16(),
        "count": torch.tensor(step),
        "empty": torch.zeros(0, 3),
        "flags": weights > 2000,
        "image": torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last) * 0 + step,
    }
    return {"model": model, "optimizer": {"0.step": torch.tensor(float(step)), "0.momentum_buffer": -weights}}


def save(folder: Path, step: int, **arguments) -> Path:
    state = {"epoch": step / 10, "loss": 0.1 + step, "note": None}
    return save_checkpoint(folder, step=step, tensors=tensors_of(step), state=state, **arguments)


def check(checkpoint, step: int) -> None:
    """Bit for bit what was saved for that step."""
    assert checkpoint.step == step
    assert checkpoint.state == {"epoch": step / 10, "loss": 0.1 + step, "note": None, "step": step}
    assert checkpoint.tensors.keys() == {"model", "optimizer"}
    for stem, named in tensors_of(step).items():
        assert checkpoint.tensors[stem].keys() == named.keys()
        for name, tensor in named.items():
            got = checkpoint.tensors[stem][name]
            assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(got, tensor)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def load(folder: Path, **arguments) -> tuple[Checkpoint, list[str]]:
    """The checkpoint, which has to be there, and what was said on the way."""
    said: list[str] = []
    checkpoint = load_checkpoint(folder, say=said.append, **arguments)
    assert checkpoint is not None
    return checkpoint, said


# what is written


def test_saved_and_loaded_bit_for_bit(folder):
    save(folder, 1200)
    checkpoint, said = load(folder)
    check(checkpoint, 1200)
    assert said == []
    assert names(folder) == ["latest", "step_00001200"]
    assert names(folder / "step_00001200") == [
        "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"
    ]  # fmt: skip


def test_manifest_is_what_sha256sum_says(folder):
    path = save(folder, 3)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["versions"]["nearfar"]
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        content = (path / name).read_bytes()
        assert manifest["files"][name] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_not_finite_and_denormal_bits_survive(tmp_path):
    bits = torch.tensor([0x7FC00001, 0xFF800000 - 2**32, 0x80000000 - 2**32, 1], dtype=torch.int32)
    write_tensors(tmp_path / "w.safetensors", {"w": bits.view(torch.float32)})
    assert torch.equal(read_tensors(tmp_path / "w.safetensors")["w"].view(torch.int32), bits)


def test_loaded_tensors_can_be_changed_and_the_file_stays(folder):
    save(folder, 1)
    checkpoint, _ = load(folder)
    checkpoint.tensors["model"]["weights"].add_(1)
    check(load(folder)[0], 1)


def test_files_have_the_rights_of_the_umask(folder):
    old = os.umask(0o022)
    try:
        path = save(folder, 1)
    finally:
        os.umask(old)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


def test_keeps_the_two_newest_and_the_best(folder):
    for step in range(1, 7):
        save(folder, step, best=step == 2)
    assert names(folder) == ["best", "latest", "step_00000002", "step_00000005", "step_00000006"]
    check(load(folder)[0], 6)
    check(load(folder, best=True)[0], 2)
    save(folder, 7, keep=3)
    assert names(folder)[2:] == ["step_00000002", "step_00000005", "step_00000006", "step_00000007"]


def test_the_same_step_again_replaces_it(folder):
    save(folder, 1)
    save_checkpoint(folder, step=1, tensors={"model": {"w": torch.ones(2)}}, state={"second": True})
    checkpoint, _ = load(folder)
    assert checkpoint.state == {"second": True, "step": 1}
    assert names(folder) == ["latest", "step_00000001"]


@pytest.mark.parametrize("state", [{"pair": (1, 2)}, {"numbers": {1: 2}}])
def test_state_that_would_come_back_changed_is_our_mistake(folder, state):
    with pytest.raises(AssertionError, match="plain JSON"):
        save_checkpoint(folder, step=1, tensors={}, state=state)


def test_nothing_saved_is_no_checkpoint(folder):
    assert load_checkpoint(folder) is None
    assert load_checkpoint(folder / "none") is None


def test_everything_is_on_the_disk_before_it_gets_its_name(folder, monkeypatch):
    """Of a power cut tests can see only the order: every file and folder flushed, then the name."""
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def fsync(number):
        done.append("flush " + Path(os.readlink(f"/proc/self/fd/{number}")).name.split(".tmp-")[0])
        sync(number)

    def replace(old, new):
        done.append(f"name {Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save(folder, 5)
    named = done.index("name step_00000005")
    for file in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        assert done.index(f"flush {file}") < done.index(f"name {file}") < named
    assert done.index("name manifest.json") > done.index("name state.json")
    assert done.index("flush step_00000005", done.index("name manifest.json")) < named
    assert done.index("flush checkpoints", named) < done.index("name latest")


# kills


def save_forever(folder: Path) -> None:
    step = load_checkpoint(folder)
    for number in range(step.step + 1 if step else 1, 10**8):
        save(folder, number, best=number % 3 == 0)


def save_and_die(folder: Path, step: int, moment: int) -> None:
    """Saves, and ends as by SIGKILL just before the given call into the file system."""
    calls = 0

    def counted(function):
        def call(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == moment:
                os._exit(9)
            return function(*arguments, **named)

        return call

    for module, name in ((os, "replace"), (os, "fsync"), (os, "mkdir"), (os, "rmdir"), (os, "unlink"), (os, "chmod")):
        setattr(module, name, counted(getattr(module, name)))
    save(folder, step)


@pytest.fixture(scope="module")
def processes():
    """Forks from a server that has imported everything, so that a process starts in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nearfar.runs", "numpy", "pytest"])
    return context


def newest(folder: Path) -> int:
    latest = folder / "latest"
    return int(latest.read_text()[5:]) if latest.exists() else 0


def test_K1_killed_ten_times_at_random_moments(folder, processes):
    draw = random.Random(0)
    for _ in range(10):
        before = newest(folder)
        process = processes.Process(target=save_forever, args=(folder,))
        process.start()
        while newest(folder) == before and process.is_alive():
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        checkpoint, said = load(folder)
        check(checkpoint, checkpoint.step)
        assert checkpoint.step >= newest(folder) > before
        assert said == []


@pytest.mark.slow
@pytest.mark.parametrize("there", [[], [1], [1, 2]], ids=["first", "next", "again"])
def test_K1_killed_before_every_single_call(folder, processes, there):
    """Step 2 with those steps there already: at no call is there a moment without a whole checkpoint."""
    survived, moment = False, 0
    while not survived:
        moment += 1
        shutil.rmtree(folder)
        folder.mkdir()
        for step in there:
            save(folder, step)
        process = processes.Process(target=save_and_die, args=(folder, 2, moment))
        process.start()
        process.join()
        assert process.exitcode in (0, 9)
        survived = process.exitcode == 0
        found = []
        if there or load_checkpoint(folder) is not None:
            checkpoint, said = load(folder)
            check(checkpoint, checkpoint.step)
            assert said == []
            assert checkpoint.step in {2, *there[-1:]}
            found = [f"step_{checkpoint.step:08d}"]
        assert found or not survived
        save(folder, 3)
        assert names(folder) == ["latest", *found, "step_00000003"]
    assert moment > 15


# the disk


@pytest.mark.parametrize("name", ["replace", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_K3_disk_full_leaves_the_old_checkpoint(folder, monkeypatch, name, number):
    save(folder, 1)
    before = names(folder)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, pytest.raises(DeviceError, match="the disk refused") as caught:
        patch.setattr(os, name, refuse)
        save(folder, 2)
    assert caught.value.exit_code == 4
    assert ("free some space" in caught.value.mend) == (number != errno.EIO)
    assert names(folder) == before
    check(load(folder)[0], 1)
    save(folder, 2)
    check(load(folder)[0], 2)


def test_K3_the_writer_of_weights_hits_a_real_limit(folder):
    """The tensors are written by a library that hides the system's error in its own."""
    save(folder, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DeviceError, match="the disk refused") as caught:
            save(folder, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "free some space" in caught.value.mend
    assert names(folder) == ["latest", "step_00000001"]
    check(load(folder)[0], 1)


def test_K3_a_real_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "none", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no right to mount a file system")
    try:
        save(disk, 1)
        (disk / "ballast").write_bytes(bytes(140_000))
        before = names(disk)
        with pytest.raises(DeviceError, match="No space left"):
            save(disk, 2)
        assert names(disk) == before
        check(load(disk)[0], 1)
        (disk / "ballast").unlink()
        save(disk, 2)
        check(load(disk)[0], 2)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# damage


def damage_truncate(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-100])


def damage_flip(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def damage_state(path: Path) -> None:
    (path / "state.json").write_text((path / "state.json").read_text().replace("null", "true"))


def damage_no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def damage_no_optimizer(path: Path) -> None:
    (path / "optimizer.safetensors").unlink()


def damage_empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


DAMAGE = [damage_truncate, damage_flip, damage_state, damage_no_manifest, damage_no_optimizer, damage_empty]


@pytest.mark.parametrize("damage", DAMAGE)
def test_K4_damage_is_found_and_the_one_before_taken(folder, damage):
    save(folder, 1)
    damage(save(folder, 2))
    checkpoint, said = load(folder)
    check(checkpoint, 1)
    assert len(said) == 1
    assert said[0].startswith("checkpoint step_00000002: ")
    assert said[0].endswith("; falling back to step_00000001")


def test_K4_any_flipped_byte_is_found(folder):
    save(folder, 1)
    path = save(folder, 2)
    draw = random.Random(0)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for place in draw.sample(range(len(content)), min(len(content), 40)):
            changed = bytearray(content)
            changed[place] ^= 1 << draw.randrange(8)
            file.write_bytes(changed)
            checkpoint, said = load(folder)
            spaces = file.name == "manifest.json" and chr(content[place]).isspace()
            assert (checkpoint.step, len(said)) == (1, 1) or (spaces and checkpoint.step == 2)
        file.write_bytes(content)
    check(load(folder)[0], 2)


def test_K4_the_whole_newest_folder_gone_is_said(folder):
    save(folder, 1)
    shutil.rmtree(save(folder, 2))
    checkpoint, said = load(folder)
    check(checkpoint, 1)
    assert said == ["checkpoint step_00000002: missing; falling back to step_00000001"]


def test_K4_a_damaged_one_makes_room_when_the_run_goes_on(folder):
    save(folder, 1)
    save(folder, 5)
    damage_flip(folder / "step_00000005")
    save(folder, 3)
    assert names(folder) == ["latest", "step_00000001", "step_00000003"]
    assert load(folder)[1] == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_K5_all_damaged_is_never_from_scratch(folder, damage):
    damage(save(folder, 1))
    damage(save(folder, 2))
    with pytest.raises(IntegrityError, match="no checkpoint of this run is whole") as caught:
        load(folder)
    assert caught.value.exit_code == 6
    assert "step_00000001" in caught.value.what
    assert "step_00000002" in caught.value.what


def test_K5_all_gone_is_never_from_scratch(folder):
    shutil.rmtree(save(folder, 1))
    with pytest.raises(IntegrityError, match="step_00000001: missing"):
        load(folder)


def test_K5_best_has_no_stand_in(folder):
    save(folder, 1)
    damage_flip(save(folder, 2, best=True))
    with pytest.raises(IntegrityError, match="step_00000002"):
        load(folder, best=True)


def rewrite_manifest(path: Path, **changes) -> None:
    """A manifest of somebody who knows the format: its seal is right."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest = {key: value for key, value in manifest.items() if key != "sha256"} | changes
    (path / "manifest.json").write_text(json.dumps({**manifest, "sha256": _seal(manifest)}))


def test_K8_a_newer_format_is_refused_with_both_versions(folder):
    save(folder, 1)
    rewrite_manifest(save(folder, 2), format=2, versions={"nearfar": "9.1"})
    with pytest.raises(
        DeviceError, match=r"format 2, written by nearfar 9.1; this is nearfar .*, which reads format 1"
    ):
        load(folder)


@pytest.mark.parametrize("text", ["../../elsewhere/step_00000001", "/etc", "..", "", "step_1", "step_00000001/../x"])
@pytest.mark.parametrize("pointer", ["latest", "best"])
def test_K11_pointers_elsewhere_are_refused(folder, text, pointer):
    save(folder, 1)
    (folder / pointer).write_text(text + "\n")
    with pytest.raises(IntegrityError, match=f"{pointer} names no checkpoint") as caught:
        load(folder, best=pointer == "best")
    assert caught.value.exit_code == 6


def test_K11_links_are_refused(folder, tmp_path):
    save(folder, 1)
    shutil.move(folder / "step_00000001", tmp_path / "elsewhere")
    (folder / "step_00000001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="is a link"):
        load(folder)
    (folder / "latest").unlink()
    (folder / "latest").symlink_to(tmp_path / "elsewhere" / "state.json")
    with pytest.raises(IntegrityError, match="latest is a link"):
        load(folder)


def test_K11_a_link_in_the_place_of_a_file_is_refused(folder, tmp_path):
    file = save(folder, 1) / "state.json"
    shutil.move(file, tmp_path / "state.json")
    file.symlink_to(tmp_path / "state.json")
    with pytest.raises(IntegrityError, match="no file of a checkpoint"):
        load(folder)


@pytest.mark.parametrize("name", ["../../secret.json", "/etc/passwd", "..", "a/b.json", "model.pt"])
def test_K11_a_manifest_that_points_elsewhere_is_refused(folder, name):
    path = save(folder, 1)
    files = json.loads((path / "manifest.json").read_text())["files"]
    rewrite_manifest(path, files=files | {name: files["state.json"]})
    with pytest.raises(IntegrityError, match="no file of a checkpoint"):
        load(folder)


# pickles


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def malicious(kind: str, folder: Path, canary: Path) -> Path:
    """A file of that kind that leaves the canary when an unpickler reads it."""
    content, path = pickle.dumps(Payload(canary)), folder / f"weights{kind}"
    if kind in (".pt", ".pth", ".ckpt", ".bin"):
        torch.save({"w": Payload(canary)}, path)
    elif kind == ".npy":
        np.save(path, np.array([Payload(canary)], dtype=object), allow_pickle=True)
    elif kind == ".npz":
        np.savez(path, good=np.ones(2), bad=np.array([Payload(canary)], dtype=object))
    elif kind == "dcp":
        path.mkdir()
        (path / ".metadata").write_bytes(content)
    elif kind == "pickle.npy":
        path.write_bytes(content)
    elif kind == "pickle.npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.pkl", content)
    else:
        path.write_bytes(content)
    return path


KINDS = [
    ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".PKL", ".pickle", ".joblib", ".npy", ".npz", "dcp", "pickle.npy",
    "pickle.npz", ".unknown", "",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_K9_pickles_are_refused_and_never_run(tmp_path, kind):
    canary = tmp_path / "canary"
    path = malicious(kind, tmp_path, canary)
    for read in (refuse_pickles, read_tensors):
        with pytest.raises(IntegrityError, match="could run any code") as caught:
            read(path)
        assert caught.value.exit_code == 6
    assert not canary.exists()


def test_K9_the_canary_works(tmp_path):
    pickle.loads(malicious(".pkl", tmp_path, tmp_path / "canary").read_bytes())
    assert (tmp_path / "canary").exists()


def test_K9_a_pickle_under_the_name_of_safetensors_never_runs(tmp_path, folder):
    canary = tmp_path / "canary"
    path = tmp_path / "w.safetensors"
    path.write_bytes(malicious(".pkl", tmp_path, canary).read_bytes())
    with pytest.raises(IntegrityError, match="not safetensors"):
        read_tensors(path)
    assert not canary.exists()


def test_K9_harmless_files_pass(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    np.savez(tmp_path / "b.npz", x=np.ones(2), y=np.array(["text"]))
    np.save(tmp_path / "c.npy", np.zeros(2, dtype=[("é", "f4")]))
    (tmp_path / "d.csv").write_text("path,reason\n")
    (tmp_path / "folder").mkdir()
    for path in tmp_path.iterdir():
        refuse_pickles(path)


@pytest.mark.parametrize("length", range(0, 1100, 120))
def test_K9_no_safetensors_file_is_taken_for_a_pickle(tmp_path, length):
    """A header of 640 bytes begins with the bytes of a pickle."""
    path = tmp_path / "w.safetensors"
    save_file({"w" * (length + 1): torch.ones(1)}, path)
    assert len(read_tensors(path)) == 1


# files that are no weights


def raw(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


BROKEN = {
    "huge header": (None, struct.pack("<Q", 2**62) + b"{}"),
    "one byte": (None, b"\x08"),
    "empty": (None, b""),
    "overlap": ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "short": ({"a": entry([2], 0, 8)}, bytes(7)),
    "shape": ({"a": entry([3], 0, 8)}, bytes(8)),
    "overflow": ({"a": entry([2**63, 4], 0, 8)}, bytes(8)),
    "negative": ({"a": entry([-2], 0, 8)}, bytes(8)),
    "unknown dtype": ({"a": entry([2], 0, 8, "XX")}, bytes(8)),
    "no JSON": (b"{{{{", b""),
    "beyond": ({"a": entry([2], 2**40, 2**40 + 8)}, bytes(8)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_K10_broken_safetensors_end_in_one_clean_error(tmp_path, kind):
    header, body = BROKEN[kind]
    path = tmp_path / "w.safetensors"
    if header is None:
        path.write_bytes(body)
    else:
        raw(path, header, body)
    with pytest.raises(IntegrityError, match="damaged or not safetensors") as caught:
        read_tensors(path)
    assert caught.value.where == str(path)


def test_K10_changed_headers_give_tensors_or_the_one_error(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16)}, path)
    content, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            read_tensors(path)
        except IntegrityError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0", "C64", "I16", "U64"])
def test_K10_every_dtype_of_the_format_is_read_or_refused(tmp_path, dtype):
    bits = {"F4": 4, "F6_E2M3": 6, "F8_E8M0": 8, "C64": 64, "I16": 16, "U64": 64}[dtype]
    size = bits  # of eight numbers, in bytes
    path = raw(tmp_path / "w.safetensors", {"a": entry([8], 0, size, dtype)}, bytes(size))
    try:
        assert read_tensors(path)["a"].numel() > 0
    except IntegrityError as error:
        assert "safetensors" in error.what


def test_missing_weights_are_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such weights file"):
        read_tensors(tmp_path / "none.safetensors")


def test_K10_tensors_that_do_not_fit_are_all_named():
    expected = {name: torch.zeros(2, 3) for name in ("same", "gone", "shape", "dtype", "nan", "inf")}
    expected["mask"] = torch.tensor([float("-inf"), 0.0])
    got = {
        "same": torch.ones(2, 3),
        "shape": torch.zeros(3, 2),
        "dtype": torch.zeros(2, 3, dtype=torch.float64),
        "nan": torch.full((2, 3), float("nan")),
        "inf": torch.full((2, 3), float("inf")),
        "mask": torch.tensor([float("-inf"), 0.0]),
        "extra": torch.zeros(1),
    }
    with pytest.raises(IntegrityError) as caught:
        match_tensors(expected, got, where="w.safetensors")
    assert caught.value.what.splitlines() == [
        "6 tensors do not fit:",
        "  gone: missing",
        "  extra: not part of this network",
        "  shape: shape [3, 2], expected [2, 3]",
        "  dtype: torch.float64, expected torch.float32",
        "  nan: holds NaN or infinity",
        "  inf: holds NaN or infinity",
    ]
    assert caught.value.where == "w.safetensors"
    match_tensors(expected, expected)


def test_K10_many_that_do_not_fit_are_counted():
    with pytest.raises(IntegrityError, match=r"(?s)100 tensors do not fit:.*and 90 more"):
        match_tensors({str(n): torch.zeros(1) for n in range(100)}, {})


def test_a_network_and_its_optimizer_go_on_bit_for_bit(tmp_path):
    """Five steps, saved, five more; against loading into fresh ones and the same five steps."""

    def fresh():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 4))
        return net, torch.optim.AdamW(net.parameters(), lr=0.01)

    def steps(net, optimizer, first):
        for step in range(first, first + 5):
            optimizer.zero_grad()
            net(torch.randn(32, 8, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            optimizer.step()

    def flat(optimizer):
        return {f"{n}.{k}": v for n, values in optimizer.state_dict()["state"].items() for k, v in values.items()}

    net, optimizer = fresh()
    steps(net, optimizer, 0)
    with Run.create(tmp_path / "run", settings={}, info={}) as run:
        run.save(step=5, tensors={"model": net.state_dict(), "optimizer": flat(optimizer)}, state={})
    steps(net, optimizer, 5)

    other, again = fresh()
    checkpoint = Run.open(tmp_path / "run").load()
    assert checkpoint is not None
    match_tensors(other.state_dict(), checkpoint.tensors["model"])
    other.load_state_dict(checkpoint.tensors["model"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in checkpoint.tensors["optimizer"].items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    again.load_state_dict({"state": state, "param_groups": again.state_dict()["param_groups"]})
    steps(other, again, 5)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def test_replace_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")

    def write(part: Path) -> None:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError):
        atomic.replace(path, write)
    assert names(tmp_path) == ["report.html"]
    assert path.read_text() == "old"
