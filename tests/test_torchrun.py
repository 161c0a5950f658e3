"""Several processes on one machine, started by torchrun as a person would."""

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
from safetensors.torch import load_file
from test_cli import ENVIRONMENT, wait_for
from toy import stripes

pytestmark = pytest.mark.slow

TRAIN = (
    "--encoder",
    "small",
    "--hidden",
    "32",
    "--batch",
    "32",
    "--hold-out",
    "0.1",
    "--precision",
    "fp32",
    "--seed",
    "4",
)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    data = stripes(180)
    np.savez(tmp_path / "stripes.npz", images=np.asarray(data.inputs), labels=data.labels)
    return tmp_path / "stripes.npz"


def torchrun(processes: int, *arguments: object, cwd: Path, restarts: int = 0) -> subprocess.Popen[str]:
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}",
    ]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "nearfar", *map(str, arguments)],
        cwd=cwd, env={**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def children(parent: int) -> list[int]:
    """Processes that torchrun started, by number."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == parent and "nearfar" in command:
            found.append(int(folder.name))
    return sorted(found)


def test_X1_one_two_and_four_processes_train_the_same_weights(arrays: Path, tmp_path: Path) -> None:
    for processes in (1, 2, 4):
        done = torchrun(
            processes, "train", arrays, *TRAIN, "--epochs", 2, "--out", tmp_path / str(processes), cwd=tmp_path
        )
        output, _ = done.communicate(timeout=240)
        assert done.returncode == 0, output
    rows, weights = {}, {}
    for name in ("1", "2", "4"):
        rows[name] = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        weights[name] = load_file(tmp_path / name / "encoder.safetensors")
    for name in ("2", "4"):
        assert [row["loss"] for row in rows[name]] == pytest.approx([row["loss"] for row in rows["1"]], rel=1e-4)
        assert rows[name][0]["loss"] == pytest.approx(rows["1"][0]["loss"], rel=1e-5)
        for key in weights["1"]:
            torch.testing.assert_close(weights[name][key], weights["1"][key], rtol=1e-3, atol=1e-4)


def test_X2_a_killed_process_ends_all_and_is_named(arrays: Path, tmp_path: Path) -> None:
    launched = torchrun(2, "train", arrays, *TRAIN, "--epochs", 4000, "--out", tmp_path / "r", cwd=tmp_path)
    wait_for(tmp_path / "r" / "metrics.jsonl", launched)
    os.kill(children(launched.pid)[1], signal.SIGKILL)
    start = time.monotonic()
    output, _ = launched.communicate(timeout=60)
    assert time.monotonic() - start < 30 and launched.returncode != 0
    assert "SIGKILL" in output or "Signal 9" in output
    assert "rank" in output


def test_X2_with_a_restart_the_run_goes_on(arrays: Path, tmp_path: Path) -> None:
    command = ("train", arrays, *TRAIN, "--epochs", 60, "--checkpoint-minutes", 0.01, "--out", tmp_path / "r")
    launched = torchrun(2, *command, cwd=tmp_path, restarts=1)
    wait_for(tmp_path / "r" / "checkpoints" / "latest", launched, lines=1)
    os.kill(children(launched.pid)[0], signal.SIGKILL)
    output, _ = launched.communicate(timeout=240)
    assert launched.returncode == 0, output
    assert "going on from step" in output
    steps = [json.loads(line)["step"] for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 300
