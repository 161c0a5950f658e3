"""Run folders: what is in them, who may write, and what may change when a run goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nearfar.errors import DeviceError, IntegrityError, UsageError
from nearfar.runs import MARKER, Run

METHOD = {"temperature": 0.5, "hidden": (64, 32)}
SETTINGS = {"batch": 256, "epochs": 10, "size": None, "device": "auto", "method_settings": METHOD}
INFO = {"data": "photos", "fingerprint": "5f2a", "classes": ["cat", "dog"], "transform": {"size": 32, "mean": [0.5]}}


def start(path: Path, settings=SETTINGS, info=INFO, **arguments) -> Run:
    return Run.open_or_create(path, settings=settings, info=info, **arguments)


def checkpoint(run: Run, step: int) -> None:
    run.save(step=step, tensors={"model": {"w": torch.full((3,), float(step))}}, state={"epoch": step})


def test_record_holds_what_made_the_result(tmp_path):
    with Run.create(tmp_path / "a" / "run", settings=SETTINGS, info=INFO) as run:
        record = json.loads((run.path / MARKER).read_text())
    assert record == run.record == Run.open(run.path).record
    assert record["format"] == 1
    assert record["versions"].keys() == {"nearfar", "python", "torch", "numpy"}
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record["command"] == sys.argv
    assert record["time"].endswith("+00:00")
    assert record["settings"]["method_settings"] == {"temperature": 0.5, "hidden": [64, 32]}
    assert run.settings["batch"] == 256
    assert run.info["classes"] == ["cat", "dog"]


def test_open_wants_a_run(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        Run.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": "1"}', '{"format": 1, "settings": 3}'])
def test_a_damaged_record_is_an_integrity_error(tmp_path, text):
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(IntegrityError):
        Run.open(tmp_path)
    with pytest.raises(IntegrityError):
        start(tmp_path)


def test_K8_a_record_of_a_newer_nearfar_is_refused(tmp_path):
    (tmp_path / MARKER).write_text(json.dumps({"format": 2, "versions": {"nearfar": "9.1"}}))
    with pytest.raises(DeviceError, match="written by nearfar 9.1"):
        start(tmp_path)


# C5: the folder is taken


def test_C5_another_run_is_not_written_over_and_what_differs_is_named(tmp_path):
    Run.create(tmp_path, settings=SETTINGS, info=INFO).close()
    before = (tmp_path / MARKER).read_bytes()
    with pytest.raises(UsageError) as caught:
        Run.create(tmp_path, settings={**SETTINGS, "batch": 512}, info={**INFO, "fingerprint": "77"})
    assert caught.value.exit_code == 2
    assert caught.value.what.splitlines()[1:] == ["  batch: 256 -> 512", '  fingerprint: "5f2a" -> "77"']
    assert (tmp_path / MARKER).read_bytes() == before
    with pytest.raises(UsageError, match="holds this very run"):
        Run.create(tmp_path, settings=SETTINGS, info=INFO)


def test_C5_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds no run \(it holds thesis.doc\)"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_C5_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="a file, not a folder"):
        start(tmp_path / "run")


def test_C5_an_empty_folder_and_the_rest_of_a_killed_start_are_taken(tmp_path):
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / f"{MARKER}.tmp-1").write_text("{")
    start(tmp_path).close()
    assert Run.open(tmp_path).settings["batch"] == 256


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_C5_a_folder_that_cannot_be_made_is_an_error_of_the_environment(tmp_path, monkeypatch, number):
    def refuse(self, *_, **__):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DeviceError, match="the disk refused") as caught:
        start(tmp_path / "run")
    assert caught.value.exit_code == 4
    assert caught.value.where == str(tmp_path / "run")
    assert "may write to" in caught.value.mend


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_C5_a_read_only_folder_is_an_error_of_the_environment(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DeviceError, match="the disk refused"):
            start(tmp_path / "run")
        with pytest.raises(DeviceError, match="the disk refused"):
            start(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_C5_a_failed_start_gives_the_lock_back(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(2):  # a new run, then one to continue
        with monkeypatch.context() as patch, pytest.raises(DeviceError) as caught:
            patch.setattr(os, "replace", refuse)
            start(tmp_path)
        assert caught.tb  # its frames are alive, and with them the lock if nobody had closed it
        start(tmp_path).close()


# C6: a run goes on


def test_C6_the_same_settings_continue_the_run(tmp_path):
    start(tmp_path).close()
    first = (tmp_path / MARKER).read_text()
    with start(tmp_path) as run:
        assert {**run.record, "resumed": []} == json.loads(first)
        assert len(run.record["resumed"]) == 1
        assert run.record["resumed"][0]["command"] == sys.argv
    start(tmp_path).close()
    assert len(Run.open(tmp_path).record["resumed"]) == 2


def test_C6_every_difference_is_a_line_and_nothing_is_written(tmp_path):
    start(tmp_path).close()
    before = (tmp_path / MARKER).read_bytes()
    settings = {"batch": 512, "device": "cpu", "method_settings": {"temperature": 0.1, "width": 8}, "seed": 1}
    with pytest.raises(UsageError) as caught:
        start(tmp_path, settings, {**INFO, "transform": {"size": 64, "mean": [0.5]}, "classes": None}, free=("device",))
    assert caught.value.exit_code == 2
    assert [line.strip() for line in caught.value.what.splitlines()[1:]] == [
        "batch: 256 -> 512",
        "epochs: 10 -> not set",
        "method_settings.temperature: 0.5 -> 0.1",
        "method_settings.hidden: [64, 32] -> not set",
        "method_settings.width: not set -> 8",
        "seed: not set -> 1",
        'classes: ["cat", "dog"] -> null',
        "transform.size: 32 -> 64",
    ]
    assert "another --out" in caught.value.mend
    assert (tmp_path / MARKER).read_bytes() == before
    start(tmp_path).close()


def test_C6_free_settings_may_change_and_are_kept(tmp_path):
    start(tmp_path).close()
    given = {**SETTINGS, "device": "cuda", "epochs": 20}
    with start(tmp_path, given, {**INFO, "data": "moved/photos"}, free=("device", "epochs", "data")) as run:
        assert (run.settings["device"], run.settings["epochs"], run.info["data"]) == ("cuda", 20, "moved/photos")
    assert Run.open(tmp_path).settings["epochs"] == 20


def test_C6_changed_versions_are_said(tmp_path):
    start(tmp_path).close()
    record = json.loads((tmp_path / MARKER).read_text())
    record["versions"]["torch"] = "2.0.0"
    (tmp_path / MARKER).write_text(json.dumps(record))
    said: list[str] = []
    start(tmp_path, say=said.append).close()
    assert len(said) == 1
    assert 'torch: "2.0.0" -> ' in said[0]


# C7: one writer


def test_C7_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    with start(tmp_path):
        with pytest.raises(UsageError, match=f"process id {os.getpid()}") as caught:
            start(tmp_path)
        assert caught.value.exit_code == 2
        assert Run.open(tmp_path).settings["batch"] == 256
        assert start(tmp_path, writer=False).settings["batch"] == 256
    start(tmp_path).close()


HOLD = """
import sys, time
from nearfar.runs import lock
held = lock.acquire(__import__("pathlib").Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_C7_the_lock_of_a_killed_process_is_gone(tmp_path):
    start(tmp_path).close()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(UsageError, match=f"process id {process.pid}"):
                start(tmp_path)
        finally:
            process.send_signal(signal.SIGKILL)
        process.wait()
    start(tmp_path).close()


def test_C7_a_file_system_without_locks_is_an_error_of_the_environment(tmp_path, monkeypatch):
    from nearfar.runs import lock

    def refuse(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)
    with pytest.raises(DeviceError, match="No locks available"):
        start(tmp_path)


# metrics


def rows(run: Run, first: int, last: int) -> None:
    for step in range(first, last + 1):
        run.log({"step": step, "loss": 1 / step, "note": "é"})


def test_metrics_after_a_resume_are_those_of_an_undisturbed_run(tmp_path):
    with start(tmp_path / "undisturbed") as run:
        rows(run, 1, 9)
    with start(tmp_path / "killed") as run:
        rows(run, 1, 4)
        checkpoint(run, 4)
        rows(run, 5, 7)
        with open(run.path / "metrics.jsonl", "a") as file:
            file.write('{"step": 8, "lo')  # cut off by the kill
        assert [row["step"] for row in run.rows()] == list(range(1, 8))
    with start(tmp_path / "killed") as run:
        loaded = run.load()
        assert loaded is not None
        assert loaded.step == 4
        rows(run, 5, 9)
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("undisturbed", "killed")]
    assert files[0] == files[1]
    assert len(files[0].splitlines()) == 9


def test_metrics_start_anew_where_no_checkpoint_was_finished(tmp_path):
    with start(tmp_path) as run:
        rows(run, 1, 3)
        assert run.load() is None
        assert run.rows() == []


def test_a_reader_changes_no_metrics(tmp_path):
    with start(tmp_path) as run:
        checkpoint(run, 1)
        rows(run, 1, 3)
        assert Run.open(tmp_path).load() is not None
        assert len(run.rows()) == 3


def test_metrics_hold_null_for_what_json_lacks(tmp_path):
    with start(tmp_path) as run:
        run.log({"step": 1, "loss": float("nan"), "limits": [float("inf"), 1.5], "of": {"a": -float("inf")}})
        run.log({"step": 2, "loss": 0.1})
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[0] == (
        '{"step": 1, "loss": null, "limits": [null, 1.5], "of": {"a": null}}'
    )
    assert run.rows()[1] == {"step": 2, "loss": 0.1}


@pytest.mark.parametrize("line", ["{", "3", '{"loss": 1}', '{"step": "x"}', "\ufffd"])
def test_a_damaged_row_is_named_with_its_line(tmp_path, line):
    with start(tmp_path) as run:
        run.log({"step": 1})
        with open(run.path / "metrics.jsonl", "a") as file:
            file.write(line + "\n")
        run.log({"step": 3})
        with pytest.raises(IntegrityError) as caught:
            run.rewind(5)
    assert caught.value.where == f"{tmp_path / 'metrics.jsonl'}:2"


def test_metrics_reach_other_readers_at_once(tmp_path):
    with start(tmp_path) as run:
        run.log({"step": 1})
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_metrics_on_a_full_disk(tmp_path):
    with start(tmp_path) as run:
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(DeviceError, match="No space left"):
            run.log({"step": 1})


# other files


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    with start(tmp_path) as run:
        run.write_json("evaluation.json", {"accuracy": 0.5, "interval": (0.4, float("nan"))})
        assert json.loads((tmp_path / "evaluation.json").read_text()) == {"accuracy": 0.5, "interval": [0.4, None]}

        def half(path: Path) -> None:
            path.write_text("{")
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(DeviceError, match="No space left"):
            run.replace("evaluation.json", half)
    assert json.loads((tmp_path / "evaluation.json").read_text())["accuracy"] == 0.5
    assert not list(tmp_path.glob("*.tmp-*"))


def test_best_is_marked_and_found(tmp_path):
    with start(tmp_path) as run:
        for step in range(1, 6):
            run.save(step=step, tensors={"model": {"w": torch.ones(1) * step}}, state={}, best=step == 2)
    best, newest = Run.open(tmp_path).load(best=True), Run.open(tmp_path).load()
    assert best is not None
    assert newest is not None
    assert (best.step, newest.step) == (2, 5)
