"""`nearfar classify` and `nearfar few-shot`, as a person meets them."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained import striped_folder, untrained_run

import nearfar as nf
from nearfar import FewShotClassifier
from nearfar.cli import main
from nearfar.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("own_cache")
COLUMNS = ["path", "label", "probability", "second", "second_probability", "nearest_example", "note"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run, examples in class folders, and photos in nested folders with files that are none among them."""
    untrained_run(tmp_path / "run")
    striped_folder(tmp_path / "support", each=4)
    striped_folder(tmp_path / "photos" / "a" / "deep", each=3, seed=1, flat=True)
    striped_folder(tmp_path / "photos", each=2, seed=2, flat=True)
    (tmp_path / "photos" / "empty.jpg").write_bytes(b"")
    (tmp_path / "photos" / "page.png").write_text("<html>")
    return tmp_path


def classify(folder: Path, **given: object) -> tuple[list[dict[str, str]], str]:
    """Rows of the table, and what was said."""
    said: list[str] = []
    settings = {"out": folder / "labels.csv", "device": "cpu", **given}
    out = nf.classify(folder / "run", folder / "support", folder / "photos", say=said.append, **settings)
    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows, "\n".join(said)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["nearfar", *map(str, arguments)])
    main()


def test_the_table_holds_what_the_classifier_answers(folder: Path):
    rows, said = classify(folder)
    assert list(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows) and len(rows) == 22
    classifier = FewShotClassifier(folder / "run", device="cpu").fit(folder / "support")
    for row in rows:
        if row["label"]:
            answer = classifier.answer(folder / "photos" / row["path"])
            order = np.argsort(-answer.probability[0])
            assert [row["label"], row["second"]] == classifier.classes_[order[:2]].tolist()
            shares = [float(row["probability"]), float(row["second_probability"])]
            assert shares == pytest.approx(answer.probability[0][order[:2]], abs=6e-5)
            assert row["nearest_example"] == classifier.examples_[answer.nearest[0]]
    for name in classifier.classes_:
        count = sum(row["label"] == name for row in rows)
        assert re.search(rf"{name} +{count} photos? +\(4 examples\)", said)
    assert f"wrote {folder / 'labels.csv'}: 20 labels, 2 unreadable" in said and said.splitlines()[-1].startswith(
        "next:"
    )


def test_D3_files_that_cannot_be_read_keep_a_row_with_the_reason(folder: Path):
    rows, _ = classify(folder)
    notes = {row["path"]: row["note"] for row in rows if not row["label"]}
    assert (
        notes.keys() == {"empty.jpg", "page.png"}
        and notes["empty.jpg"] == "empty"
        and "not an image" in notes["page.png"]
    )
    for path in (folder / "photos").rglob("*.png"):
        path.write_bytes(b"")
    Image.new("RGB", (20, 20)).save(folder / "photos" / "one.png")
    rows, said = classify(folder)
    assert sum(bool(row["label"]) for row in rows) == 1 and "1 label, 22 unreadable" in said


def test_the_same_command_twice_writes_the_same_bytes_and_nothing_is_half_written(folder: Path):
    classify(folder, unknown="auto")
    first = (folder / "labels.csv").read_bytes()
    classify(folder, unknown="auto")
    assert (folder / "labels.csv").read_bytes() == first
    assert not list(folder.glob("labels.csv?*"))


def test_S5_names_that_a_spreadsheet_would_run_are_written_harmless(folder: Path):
    (folder / "support" / "level").rename(folder / "support" / "=level()")
    next((folder / "photos").glob("*.png")).rename(folder / "photos" / "=cmd(),\n.png")
    rows, _ = classify(folder)
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert r"\u003dcmd(),\n.png" in [row["path"] for row in rows]
    assert r"\u003dlevel()" in {row[column] for row in rows for column in ("label", "second")}


def test_photos_like_no_example_are_unknown(folder: Path):
    for number in range(20):
        share = np.linspace(0, 255, 16, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 3), np.uint8)
        Image.fromarray(np.rot90(share, number % 4)).save(folder / "photos" / f"ramp{number:02d}.png")
    rows, said = classify(folder, unknown="0.2")
    unknown = [row for row in rows if row["label"] == "unknown"]
    assert unknown and all(row["note"] == "like none of the examples" and not row["probability"] for row in unknown)
    assert all(row["second"] and row["second_probability"] for row in unknown)
    assert re.search(rf"unknown +{len(unknown)} photos?", said)


def test_D16_examples_among_the_photos_are_named(folder: Path):
    example = sorted((folder / "support" / "level").glob("*.png"))[0]
    (folder / "photos" / "again.png").write_bytes(example.read_bytes())
    rows, said = classify(folder)
    assert "1 of the photos are examples too" in said
    row = next(row for row in rows if row["path"] == "again.png")
    assert (
        row["note"]
        == f"the same file as example level/{example.name}"
        == f"the same file as example {row['nearest_example']}"
    )


def test_warnings_about_examples(folder: Path):
    _, said = classify(folder)
    assert "one example only" not in said
    for path in sorted((folder / "support" / "level").glob("*.png"))[1:]:
        path.unlink()
    (folder / "support" / "upright" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    _, said = classify(folder)
    assert "one example only of level" in said and "upright/cut.png cannot be read" in said
    for name in ("upright", "slanting", "chequers"):
        for path in sorted((folder / "support" / name).glob("*.png"))[1:]:
            path.unlink()
    _, said = classify(folder)
    assert "not calibrated" in said


def test_D16_copies_among_the_examples_are_named(folder: Path):
    _, said = classify(folder)
    assert "given twice" not in said and "two classes" not in said
    first, second = sorted((folder / "support" / "level").glob("*.png"))[:2]
    (folder / "support" / "level" / "z.png").write_bytes(first.read_bytes())
    (folder / "support" / "upright" / "z.png").write_bytes(second.read_bytes())
    _, said = classify(folder)
    assert f"examples given twice: level/{first.name} = level/z.png\n" in said
    assert f"examples in two classes, one of which is wrong: level/{second.name} = upright/z.png\n" in said
    for number in range(7):
        (folder / "support" / "level" / f"z{number}.png").write_bytes(first.read_bytes())
    assert "level/z3.png, and 3 more\n" in classify(folder)[1]


def test_a_class_called_unknown_is_refused_before_any_image_is_encoded(folder: Path):
    (folder / "support" / "level").rename(folder / "support" / "unknown")
    rows, _ = classify(folder)
    assert len(rows) == 22
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError, match="another name"):
        patch.delattr(FewShotClassifier, "fit")
        classify(folder, unknown="auto")


def test_classes_that_look_alike_are_named(folder: Path):
    for path in (folder / "support" / "level").glob("*.png"):
        path.unlink()
    for rank, path in enumerate(sorted((folder / "support" / "upright").glob("*.png"))):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[0, 0] ^= 1
        twin = f"{9 - rank}.png"  # in another order, so that no twin is held out with its twin
        Image.fromarray(pixels).save(folder / "support" / "level" / twin)
    _, said = classify(folder, head="nn")
    assert "level and upright look alike: 4 of 4 examples" in said
    assert "upright and level look alike: 4 of 4 examples" in said


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"head": "rigde"}, UsageError, "did you mean ridge"),
        ({"unknown": "often"}, UsageError, "a share such as 0.05"),
        ({"unknown": 0.01}, UsageError, "needs at least 99 different examples"),
    ],
)
def test_C2_wrong_settings(folder: Path, given: dict[str, object], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        classify(folder, **given)
    assert not (folder / "labels.csv").exists()


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("photos/page.png", "give a name that ends in .csv, such as .*page.csv"),
        ("run/encoder.safetensors", "ends in .csv"),
        ("labels", "ends in .csv"),
        ("photos", "this is a folder.*labels.csv"),
        ("run/labels.csv", "inside the run folder"),
        ("list.csv", "the list that is read"),
    ],
)
def test_the_table_replaces_nothing_but_a_table(folder: Path, out: str, says: str):
    (folder / "list.csv").write_text("path\nphotos/empty.jpg\n")
    (folder / "empty.csv").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=says):
        nf.classify(folder / "run", folder / "support", folder / "list.csv", out=folder / out, device="cpu")
    with pytest.raises(UsageError, match="this is a folder"):
        classify(folder, out=folder / "empty.csv")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_class_folders_that_are_not_what_they_look_like(folder: Path):
    support = folder / "support"
    (support / "owl").mkdir()
    (support / "level" / "more").mkdir()
    next((support / "level").glob("*.png")).rename(support / "level" / "more" / "x.png")
    _, said = classify(folder)
    assert "warning: no images in owl: it is left out" in said
    assert "warning: 1 example lies deeper than in a class folder: those of level/more are taken for the class" in said
    assert re.search(r"level +\d+ photos?  \(4 examples\)", said)
    (support / "level" / "more" / "x.png").rename(support / "x.png")
    with pytest.raises(DataError, match="1 image beside the class folders: x.png.*move it into"):
        classify(folder)


def test_D22_examples_without_labels_or_of_one_class(folder: Path):
    flat, one = striped_folder(folder / "flat", each=2, flat=True), folder / "one"
    (one / "level").mkdir(parents=True)
    next(flat.glob("*.png")).rename(one / "level" / "x.png")
    for support, says in ((flat, "one folder a class"), (one, "only one class"), (folder / "none", "nothing there")):
        with pytest.raises(DataError, match=says):
            nf.classify(folder / "run", support, folder / "photos", out=folder / "x.csv", device="cpu")


def test_commands(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    run, support = folder / "run", folder / "support"
    command(monkeypatch, "classify", run, support, folder / "photos", "--out", folder / "l.csv", "--unknown", "auto")
    assert (folder / "l.csv").exists() and "unknown" in capsys.readouterr().out
    shape = ["--ways", 3, "--shots", 1, 2, "--queries", 2, "--episodes", 20]
    command(monkeypatch, "few-shot", run, support, *shape, "--heads", "nn", "ncm", "--device", "cpu")
    told = capsys.readouterr().out
    assert "20 of 3 ways" in told and "2-shot list" in told and "head nn" in told and "wrote" in told
    command(monkeypatch, "few-shot", run, support, *shape[:2], "--shots", "1,2", *shape[5:], "--heads", "nn,", "ncm")
    assert "2-shot list" in (again := capsys.readouterr().out) and "head nn" in again and "head ncm" in again
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, "few-shot", run, support, "--shots", "1,two")
    assert end.value.code == 2 and "two" in (error := capsys.readouterr().err) and "E-usage" in error
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, "few-shot", run, support, "--heads", "rigde")
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "did you mean ridge" in error and error.count("\n") == 1 and error.count(" | ") == 2
