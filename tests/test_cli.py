"""The command line, run as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nearfar.cli import main

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
NO_SOCKETS = (
    "import socket\ndef refuse(*a, **k): raise OSError('the network was used')\nsocket.socket.connect = refuse\n"
)


def nearfar(*arguments: object, cwd: Path, code: int = 0, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command; fails where its exit code is another."""
    program = [
        sys.executable,
        "-c",
        prelude + "import sys; from nearfar.cli import main; sys.argv[0] = 'nearfar'; main()",
    ]
    done = subprocess.run(
        [*program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300, env=ENVIRONMENT
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of small pictures, and files that are none."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(80):
        folder = root / ("warm" if number % 2 else "cold")
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 120, (24, 24, 3), dtype=np.uint8)
        pixels[..., 0 if number % 2 else 2] += 120
        Image.fromarray(pixels).save(folder / f"{number:02d} ü.png")
    (root / "warm" / "broken.jpg").write_bytes(b"")
    return root


TRAIN = (
    "--encoder",
    "small",
    "--hidden",
    "32",
    "--batch",
    16,
    "--threads",
    1,
    "--hold-out",
    0.2,
    "--precision",
    "fp32",
)


def train(photos: Path, out: Path, *more: object, cwd: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    return nearfar("train", photos, "--out", out, *TRAIN, *more, cwd=cwd, **settings)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs")
    train(photos, folder / "one", "--epochs", 3, cwd=folder, prelude=NO_SOCKETS)
    return folder / "one"


def test_help_needs_no_torch(tmp_path: Path) -> None:
    done = nearfar("--help", cwd=tmp_path, prelude="import sys; sys.modules['torch'] = None\n")
    assert "train" in done.stdout and "evaluate" in done.stdout


def test_C8_a_run_leaves_all_its_files_without_network(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {
        "nearfar-run.json", "metrics.jsonl", "encoder.safetensors", "report.html", "evaluation.json", "checkpoints",
        "bad_files.csv",
    }  # fmt: skip
    assert "broken.jpg" in (run / "bad_files.csv").read_text()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == rows[-1]["epoch"] * 4 and {"loss", "chance", "std", "rank", "knn"} <= rows[-1].keys()


def test_evaluate_and_embed(run: Path, photos: Path, tmp_path: Path) -> None:
    done = nearfar("evaluate", run, photos, cwd=tmp_path, prelude=NO_SOCKETS)
    assert "trained encoder" in done.stdout and "kNN" in done.stdout
    nearfar("embed", run, photos, "--out", tmp_path / "e.parquet", cwd=tmp_path, prelude=NO_SOCKETS)
    import pyarrow.parquet as parquet

    table = parquet.read_table(tmp_path / "e.parquet").to_pydict()
    assert len(table["id"]) == 81 and table["status"].count("ok") == 80
    assert any(
        "broken" in path and status == "empty" for path, status in zip(table["path"], table["status"], strict=True)
    )


def test_the_same_command_again_says_that_it_is_finished(run: Path, photos: Path) -> None:
    done = train(photos, run, "--epochs", 3, cwd=run.parent)
    assert "finished" in done.stdout


def test_C5_another_run_is_not_overwritten(run: Path, photos: Path) -> None:
    done = train(photos, run, "--epochs", 3, "--temperature", 0.3, cwd=run.parent, code=2)
    assert "temperature" in done.stderr and "0.3" in done.stderr and "--out" in done.stderr


def test_C5_a_run_inside_the_data_is_no_data(photos: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(photos, tmp_path / "data")
    out = tmp_path / "data" / "runs" / "r"
    train(tmp_path / "data", out, "--epochs", 1, cwd=tmp_path)
    done = train(tmp_path / "data", tmp_path / "other", "--dry-run", cwd=tmp_path)
    assert "80 images" in done.stdout


def test_C1_a_misspelt_flag(photos: Path, tmp_path: Path) -> None:
    assert "did you mean epochs" in train(photos, tmp_path / "r", "--epoch", 5, cwd=tmp_path, code=2).stderr
    assert "did you mean temperature" in train(photos, tmp_path / "r", "--temprature", 5, cwd=tmp_path, code=2).stderr
    assert "did you mean flip" in train(photos, tmp_path / "r", "--view-flp", 0, cwd=tmp_path, code=2).stderr


def test_C1_a_misspelt_key_in_a_file(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("batch: 16\nepoch: 5\n")
    done = nearfar("train", photos, "--config", "run.yaml", cwd=tmp_path, code=2)
    assert "did you mean epochs" in done.stderr and "run.yaml:2" in done.stderr


def test_C2_all_problems_at_once(photos: Path, tmp_path: Path) -> None:
    done = train(photos, tmp_path / "r", "--epochs", "many", "--lr", -1, "--momentum", 2, cwd=tmp_path, code=2)
    assert all(word in done.stderr for word in ("epochs", "lr", "momentum"))


def test_C3_an_unknown_method_or_encoder(photos: Path, tmp_path: Path) -> None:
    assert "did you mean simclr" in nearfar("train", photos, "--method", "simcrl", cwd=tmp_path, code=2).stderr
    assert "resnet18" in nearfar("train", photos, "--encoder", "resnet19", cwd=tmp_path, code=2).stderr


def test_D1_no_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        done = nearfar("train", folder, cwd=tmp_path, code=3)
        assert folder in done.stderr and done.stderr.count(" | ") == 2


def test_D23_too_few_images(photos: Path, tmp_path: Path) -> None:
    import shutil

    (tmp_path / "few").mkdir()
    for path in sorted(photos.rglob("*.png"))[:2]:
        shutil.copy(path, tmp_path / "few")
    assert "too few" in train(tmp_path / "few", tmp_path / "r", cwd=tmp_path, code=3).stderr
    large = ["--batch", 500, "--encoder", "small", "--epochs", 1, "--threads", 1]
    done = nearfar("train", photos, "--out", tmp_path / "r2", *large, cwd=tmp_path)
    assert "batch reduced from 500 to" in done.stdout


def test_an_error_of_ours_is_one_line_and_debug_shows_where(tmp_path: Path) -> None:
    broken = "import nearfar.doctor\nnearfar.doctor.checks = lambda: 1 / 0\n"
    assert "--debug" in nearfar("doctor", cwd=tmp_path, code=1, prelude=broken).stderr
    program = broken + "import sys; from nearfar.cli import main; sys.argv = ['nearfar', 'doctor', '--debug']; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


def test_labels_are_asked_for_where_a_method_needs_them(photos: Path, tmp_path: Path) -> None:
    done = train(photos, tmp_path / "r", "--method", "supcon", "--labels", "false", cwd=tmp_path, code=3)
    assert "label" in done.stderr


def test_scan_names_unreadable_images_however_many(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    for number in range(4):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "some" / f"{number}.png")
    for number in range(3):
        path = tmp_path / "some" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:-20])
    told = nearfar("scan", "some", cwd=tmp_path).stdout
    assert "1 image, 40 x 40 px, colour, 3 unreadable" in told
    assert all(f"{number}.png: truncated" in told for number in range(3))


def test_preview_and_lists(photos: Path, tmp_path: Path) -> None:
    nearfar("preview", photos, "--out", tmp_path / "p.png", "--images", 3, cwd=tmp_path)
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.width > 100
    assert all(name in nearfar("methods", cwd=tmp_path).stdout for name in ("simclr", "moco", "supcon", "similarity"))
    assert "--temperature" in nearfar("methods", "simclr", cwd=tmp_path).stdout
    assert "--weight-decay" in nearfar("settings", cwd=tmp_path).stdout
    told = nearfar("scan", photos, cwd=tmp_path).stdout
    assert "80 images" in told and "broken.jpg: empty" in told and "cold: 40" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_T12_K2_ctrl_c_and_sigterm_write_a_checkpoint(photos: Path, tmp_path: Path, number: int) -> None:
    process = start(photos, tmp_path / "r", epochs=400)
    wait_for(tmp_path / "r" / "metrics.jsonl", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "same command again" in errors and "Traceback" not in errors
    assert len(list((tmp_path / "r" / "checkpoints").glob("step_*"))) == 1


def test_T12_ctrl_c_outside_of_training_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stopped(path: str, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nearfar.data.scan", stopped)
    monkeypatch.setattr(sys, "argv", ["nearfar", "scan", "photos"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130 and "E-stopped stopped at once" in capsys.readouterr().err


@pytest.mark.slow
def test_K1_killed_at_random_moments_the_weights_end_bit_identical(photos: Path, tmp_path: Path) -> None:
    kept = [one for one in TRAIN if one not in ("--hidden", "32")]
    settings = ("--method", "moco", "--queue", 64, "--groups", 2, "--checkpoint-minutes", 0.001, "--epochs", 150)
    command = ["train", photos, *kept, *settings]
    nearfar(*command, "--out", tmp_path / "whole", cwd=tmp_path)
    rng, kills = np.random.default_rng(0), 0
    for _ in range(20):
        process = popen(*command, "--out", tmp_path / "killed", cwd=tmp_path)
        wait_for_change(tmp_path / "killed" / "metrics.jsonl", process)
        time.sleep(rng.uniform(0, 1))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills >= 5
    done = nearfar(*command, "--out", tmp_path / "killed", cwd=tmp_path)
    assert "going on from step" in done.stdout or "finished" in done.stdout
    whole, killed = (load_file(tmp_path / name / "encoder.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def wait_for_change(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a file is written to, or the process has ended."""
    start = time.time()
    while process.poll() is None and not (path.exists() and path.stat().st_mtime > start):
        time.sleep(0.02)


def popen(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nearfar", *map(str, arguments)],
        cwd=cwd, env={**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start(photos: Path, out: Path, *, epochs: int) -> subprocess.Popen[str]:
    return popen("train", photos, "--out", out, *TRAIN, "--epochs", epochs, cwd=out.parent)


def wait_for(path: Path, process: subprocess.Popen[str], *, lines: int = 3) -> None:
    """Until a file has so many lines."""
    for _ in range(600):
        if path.exists() and len(path.read_text().splitlines()) >= lines:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")
