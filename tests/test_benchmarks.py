"""The benchmark of speed: its statistics, a topic without peers, its picture and table, and the one of a GPU."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import pytest

from benchmarks import cifar10_methods, curves, gpu
from benchmarks.speed import harness, picture
from benchmarks.speed.fresh import MIB, growth, resident
from benchmarks.speed.gpu_training import Curve
from benchmarks.speed.harness import OURS, Row, Settings, Turn, compared, measure, measured, race
from benchmarks.speed.on_gpu import Place
from nearfar.encoders import ENCODERS
from nearfar.tasks.build import check

RECORD = {
    "topic": "losses",
    "rows": [
        {
            "row": "NT-Xent, N = 4,096",
            "threads": 1,
            "unit": "ms",
            "medians": {"nearfar": 10.0, "lightly": 80.0, "plain torch": 8.0},
            "ratios": {
                "lightly": {"ratio": 8.0, "low": 7.0, "high": 9.0, "target": 6.0, "reached": True},
                "plain torch": {"ratio": 0.8, "low": 0.7, "high": 0.9},
            },
            "agreement": {},
        },
        {
            "row": "NT-Xent: memory",
            "threads": 1,
            "unit": "MiB",
            "medians": {"nearfar": 70.0},
            "ratios": {},
            "most": 64.0,
            "reached": False,
            "agreement": {},
        },
        {"row": "views", "threads": 1, "disagreement": "they differ"},
    ],
}


def costs(*values: float):
    """A contender that costs so much, turn by turn; the first is the warm-up."""
    return itertools.chain([99.0], values).__next__


def test_ratios_are_taken_round_by_round_and_told_with_their_range():
    row = Row(
        name="work",
        unit="ms",
        costs={OURS: costs(1.0, 2.0, 4.0), "peer": costs(3.0, 8.0, 8.0)},  # 3, 4, 2 times as much
        measured="by hand",
        targets={"peer": 3.5},
        most=2.0,
    )
    result = race(row, 3)
    assert result["ratios"] == {"peer": {"ratio": 3.0, "low": 2.0, "high": 4.0, "target": 3.5, "reached": False}}
    assert result["medians"] == {OURS: 2.0, "peer": 8.0}
    assert result["reached"]


@pytest.mark.parametrize("theirs,reached", [((2.0, 2.0), True), ((1.9, 1.9), False)])
def test_a_target_is_reached_by_the_median(theirs, reached):
    assert compared(theirs, (1.0, 1.0), 2.0)["reached"] is reached
    assert "reached" not in compared(theirs, (1.0, 1.0))


def test_rounds_are_turned_round():
    order: list[str] = []

    def cost(name: str):
        return lambda: order.append(name) or 1.0

    race(Row(name="", unit="", costs={OURS: cost("a"), "peer": cost("b")}, measured=""), 2)
    assert "".join(order) == "ab" + "ab" + "ba"


def test_contenders_that_disagree_are_not_timed():
    def never() -> float:
        raise AssertionError("timed")

    for difference in (0.2, float("nan")):
        row = Row(name="", unit="", costs={OURS: never}, measured="", agreement=lambda d=difference: {"peer": (d, 0.1)})
        (told,) = measured([row], 1)
        assert "peer" in told["disagreement"] and "medians" not in told


def test_a_turn_lasts_as_long_as_it_should_and_tells_the_cost_of_a_unit():
    now, calls = [0.0], []

    def work() -> None:
        calls.append(1)
        now[0] += 5.0 if len(calls) == 1 else 0.03  # the first call compiles

    turn = Turn(work, units=10, clock=lambda: now[0], scale=1e3)
    assert turn() == pytest.approx(3.0)
    assert (len(calls), turn.calls) == (2, 7)  # 7 calls of 0.03 s last 0.2 s
    assert turn() == pytest.approx(3.0) and len(calls) == 9


def test_growth_of_memory_is_what_was_used_at_most():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("Linux tells")

    def work() -> int:
        return len(bytearray(b"x") * (64 * MIB))

    assert 63 < growth(work) < 80
    assert resident("VmHWM") >= resident("VmRSS")


def test_a_topic_without_peers(monkeypatch):
    monkeypatch.setattr(harness, "TURN", 0.0)
    (row,) = measure("queue", Settings(threads=1, repeats=2, smoke=True))
    assert {OURS, "plain torch"} <= set(row["medians"])
    assert row["agreement"]["gradient, plain torch"]["difference"] < 1e-5
    assert row["ratios"]["plain torch"]["low"] <= row["ratios"]["plain torch"]["high"]


def test_the_picture_and_the_table_show_every_row_also_those_behind(tmp_path):
    rows = picture.lines([RECORD])
    assert [line.colour for line in rows[:2]] == [picture.AHEAD, picture.BEHIND]
    assert picture.draw(rows, tmp_path / "speed.png").stat().st_size > 1000
    table = picture.table(rows).splitlines()
    assert table[2].endswith("| lightly | 80 | 8 (7 to 9) | 6 x, yes |")
    assert table[3].endswith("| plain torch | 8 | **0.8 (0.7 to 0.9)** |  |")
    assert table[4].endswith("| 70 MiB |  |  |  | at most 64 MiB, **no** |")


def test_the_benchmark_of_a_gpu_runs_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "TURN", 0.0)
    monkeypatch.setattr("benchmarks.speed.gpu_training.there", lambda package: False)
    monkeypatch.setattr("benchmarks.speed.views.CASES", {32: (32, 1.0)})
    out = tmp_path / "gpu.json"
    gpu.main(["--smoke", "--device", "cpu", "--seconds", "10", "--repeats", "1", "--out", str(out)])
    record = json.loads(out.read_text())
    assert {"views", "losses", "step", "accuracy"} <= set(record)
    assert record["losses"][0]["agreement"]["gradient, plain torch in fp64"]["difference"] < 1e-4
    found = record["accuracy"]
    assert found["curve"] and 0 <= found["test_knn"] <= 1
    assert found["curve"][-1]["epoch"] == found["epochs"] and found["images"] > 0


def test_a_point_of_the_curve_says_the_seconds_of_training_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def score() -> float:
        now[0] += 100.0  # the evaluation
        return now[0] / 1000

    curve = Curve(Place("cpu", True, 10.0, 0.0, Path()), epochs=16, score=score)
    for _ in range(16):
        now[0] += 1.0
        curve.probe()
    assert [point["seconds"] for point in curve.points] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]
    assert [curve.reached(bar) for bar in (0.1, 0.3, 0.9)] == [2.0, 6.0, None]


@pytest.mark.parametrize("row", cifar10_methods.ROWS)
def test_every_row_of_the_comparison_of_methods_can_be_trained(row):
    settings = check({"size": 32, "hold_out": cifar10_methods.HELD} | cifar10_methods.ROWS[row], None)
    assert settings.encoder in ENCODERS and settings.method == cifar10_methods.ROWS[row]["method"]


def test_minutes_become_epochs_by_the_pace_of_a_row():
    asked = argparse.Namespace(minutes=12.0, epochs=5)
    counts = {row: cifar10_methods.epochs(row, asked) for row in cifar10_methods.PACE}
    assert counts["simclr"] == 11 and min(counts.values()) == 1  # 757 * 720 / 48,000 = 11.4; never no epoch
    assert cifar10_methods.epochs("simclr", argparse.Namespace(minutes=None, epochs=5)) == 5


def test_curves_are_drawn_for_every_run_of_the_first_seed(tmp_path, monkeypatch):
    curve = {name: [0.1, 0.2] for name in cifar10_methods.CURVE} | {"knn": [None, 0.3]}
    runs = [{"row": f"method {i}", "seed": i // 5, "curve": curve} for i in range(6)]
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr("sys.argv", ["curves", "--record", str(record), "--out", str(tmp_path / "curves.png")])
    drawn, draw = [], curves.draw
    monkeypatch.setattr(curves, "draw", lambda panel, run: drawn.append(run["row"]) or draw(panel, run))
    curves.main()
    assert drawn == [f"method {i}" for i in range(5)] and (tmp_path / "curves.png").stat().st_size > 10_000
