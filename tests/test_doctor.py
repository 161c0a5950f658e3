from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from nearfar import doctor
from nearfar.doctor import Check

Usage = namedtuple("Usage", "total used free")


def fake_package(folder: Path, name: str, version: str, source: str) -> None:
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder from which this process, and processes it starts, import first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def test_this_machine_passes(tmp_path):
    found = {check.name: check for check in doctor.checks(cache=tmp_path / "cache", out=tmp_path)}
    assert {"python", "torch", "device", "threads", "torchvision", "kernel cache", "cache"} <= set(found)
    assert all(found[name].ok for name in ("python", "torch", "device", "torchvision", "kernel cache", "cache"))
    assert found["torch"].found == importlib.metadata.version("torch")
    assert (tmp_path / "cache").is_dir()


def test_I1_a_torchvision_that_does_not_fit_is_named_with_the_line_that_mends_it(site, monkeypatch):
    fake_package(site, "torchvision", "0.28.0", "raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setattr(doctor, "version", {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}.get)
    check = doctor.torchvision()
    assert not check.ok
    assert "operator torchvision::nms does not exist" in check.found
    assert "torchvision==0.28.0 --index-url https://download.pytorch.org/whl/cpu" in check.mend
    assert "torchvision" not in sys.modules


def test_I1_a_torchvision_that_fits_is_fine(site):
    fake_package(site, "torchvision", "0.29.1", "")
    assert doctor.torchvision().ok


@pytest.mark.parametrize(
    ("torch", "fitting"), [("2.13.0+cpu", "==0.28.0 --index"), ("2.14.1", "==0.29.1 "), ("2.10", "==0.25.0 ")]
)
def test_versions_of_torch_and_torchvision_go_together(monkeypatch, torch, fitting):
    monkeypatch.setattr(doctor, "version", lambda package: torch)
    assert f"torchvision{fitting}" in doctor.mend_torchvision()


@pytest.mark.parametrize(
    ("text", "parsed"), [("2.13.0+cpu", (2, 13, 0)), ("13.0", (13, 0)), ("2.10.0rc1", (2, 10, 0)), ("?", ())]
)
def test_numbers_of_a_version(text, parsed):
    assert doctor.numbers(text) == parsed


def test_a_package_below_its_floor_is_named(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["torch>=2.10", "numpy<3,>=2", 'timm>=9; extra == "timm"']
    )
    have = {"nearfar": "0.1.0", "torch": "2.9.1", "numpy": "2.10.1"}
    monkeypatch.setattr(doctor, "version", have.get)
    assert doctor.packages() == [Check("torch", False, "2.9.1", 'pip install "torch>=2.10"')]
    have["torch"] = "2.10.0"
    assert doctor.packages() == [Check("packages", True, "all 2 that nearfar needs")]
    del have["numpy"]
    assert [(check.name, check.found) for check in doctor.packages()] == [("numpy", "not installed")]


def test_a_broken_torch_is_reported_and_not_imported(site, monkeypatch):
    fake_package(site, "broken_torch", "2.13.0", "raise OSError('libtorch.so: cannot open')")
    check = doctor.imports("broken_torch")
    assert (check.ok, check.mend) == (False, "pip install --force-reinstall broken_torch")
    assert "libtorch.so: cannot open" in check.found
    monkeypatch.setattr(doctor, "imports", lambda package: check)
    assert "device" not in [c.name for c in doctor.checks(cache=site, out=site)]


def test_more_threads_than_cores_is_named(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 9)
    monkeypatch.setattr(doctor, "cores", lambda: 2)
    assert doctor.threads() == Check("threads", False, "9 on 2 cores", "export OMP_NUM_THREADS=2")


def test_T9_little_shared_memory_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(64 << 20, 0, 64 << 20))
    check = doctor.shared_memory(tmp_path)
    assert not check.ok and "64 MiB" in check.found and "--shm-size" in check.mend
    assert doctor.shared_memory(tmp_path / "none").ok


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_T9_a_low_limit_of_open_files_is_named():
    limit = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 256)); from nearfar import doctor"
    code = f"{limit}; c = doctor.open_files(); print(c.ok, c.found, c.mend)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False 256 at once ulimit -n 4096"


@pytest.mark.parametrize(("free", "ok"), [(1e9, False), (3e9, True)])
def test_a_full_disk_is_named_even_where_the_folder_is_not_there_yet(monkeypatch, tmp_path, free, ok):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: Usage(0, 0, free if folder == tmp_path else 0))
    check = doctor.disk("disk, runs", tmp_path / "not" / "yet")
    assert check.ok is ok and bool(check.mend) is not ok and f"{free / 1e9:.1f} GB" in check.found


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    check = doctor.writable(tmp_path / "file" / "cache")
    assert not check.ok and "NEARFAR_CACHE" in check.mend


def test_an_extra_that_is_not_installed_is_offered_not_faulted(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda _: None)
    assert doctor.extra("timm", "timm") == Check("extra timm", True, "not installed", 'pip install "nearfar[timm]"')


def test_text_shows_the_mend_under_what_is_wrong():
    text = doctor.as_text([Check("python", True, "3.12"), Check("cache", False, "read-only", "export X=y")])
    assert text.splitlines() == [
        "ok    python           3.12",
        "MEND  cache            read-only",
        " " * 23 + "-> export X=y",
    ]
