"""Search by words and by image, and classes by their names, with a run that was trained on toy pairs."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from toy_pairs import COLOURS, SHAPES, toy_pairs

from nearfar.data import Dataset
from nearfar.data.pairs import load_pairs
from nearfar.errors import DataError, UsageError
from nearfar.evaluation.pair_retrieval import pair_retrieval
from nearfar.runs import Run
from nearfar.tasks import evaluate, train
from nearfar.tasks.caption_recall import answers
from nearfar.tasks.search import search
from nearfar.tasks.two_towers import has_text, load_towers
from nearfar.tasks.zero_shot import class_embeddings, zero_shot

pytestmark = pytest.mark.usefixtures("own_cache")
SMALL = {"encoder": "small", "size": 16, "batch": 64, "optimizer": "adamw", "lr": 0.01, "seed": 1, "labels": False}
"""Without labels, for with them a finished run takes longer to measure than to train here."""


def silent(message: str) -> None:
    """Says nothing."""


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


def captions(data: Dataset) -> list[str]:
    tokens, sizes = data.columns["text"].inputs, data.columns["text"].sizes
    rows = zip(np.asarray(tokens)[:, 0], sizes[:, 0], strict=True)
    return [bytes((row[:size] - 1).astype(np.uint8)).decode() for row, size in rows]


def written(path: Path, data: Dataset) -> Path:
    assert data.labels is not None and data.classes is not None
    columns = {"image": [png(image) for image in np.asarray(data.inputs)], "text": captions(data)}
    columns["label"] = [data.classes[label] for label in data.labels]
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, own_cache: None) -> Path:
    """A run on pairs, its data, and other pairs."""
    folder = tmp_path_factory.mktemp("search")
    data = written(folder / "pairs.parquet", toy_pairs(256))
    written(folder / "others.parquet", toy_pairs(96, seed=7))
    settings = {**SMALL, "method": "clip", "width": 32, "epochs": 12, "length": 24}
    train(data, out=folder / "run", say=silent, **settings)
    return folder


def test_words_find_what_they_describe(folder: Path) -> None:
    told: list[str] = []
    right = 0
    for colour in COLOURS:
        found = search(folder / "run", f"{colour} square left", data=folder / "others.parquet", top=4, say=told.append)
        assert len(found) == 4 and found[0].cosine >= found[1].cosine >= found[3].cosine
        right += sum(colour in one.caption for one in found)
    assert right >= 12  # of 16; chance: 4
    assert len(told) == 16 and "square" in "".join(told)


def test_evaluate_tells_recall_of_captions_with_labels_and_without(folder: Path) -> None:
    said: list[str] = []
    found = evaluate(folder / "run", folder / "others.parquet", say=said.append)
    towers = load_towers(folder / "run")
    table = pq.read_table(folder / "others.parquet").to_pylist()
    texts = [row["text"] for row in table]
    keys = [texts.index(text) for text in texts]
    images = towers.images(towers.image.load(folder / "others.parquet", labels=False))
    expected = pair_retrieval(images, towers.texts(texts), image_keys=keys, text_keys=keys)
    assert found.captions is not None and found.scores and found.captions.as_dict() == expected.as_dict()
    assert expected.scores["text to image recall@10"].value > 2 * expected.chance["text to image recall@10"]
    pq.write_table(
        pa.table({name: [row[name] for row in table] for name in ("image", "text")}), folder / "bare.parquet"
    )
    bare = evaluate(folder / "run", folder / "bare.parquet", say=said.append)
    assert not bare.scores and bare.captions is not None and bare.captions.as_dict() == expected.as_dict()
    stored = json.loads((folder / "run" / "evaluation.json").read_text())
    assert stored["captions"] == json.loads(json.dumps(expected.as_dict()))
    assert not any("trained on these" in line for line in said)
    evaluate(folder / "run", folder / "pairs.parquet", say=said.append)
    assert any("the run's data hold 256 of these 256 images" in line for line in said)


def test_of_an_image_with_several_captions_any_is_right(folder: Path) -> None:
    table = pq.read_table(folder / "others.parquet").slice(0, 6).to_pylist()
    rows = [{"image": table[i // 2]["image"], "text": table[i]["text"]} for i in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "twice.parquet")
    image, text = answers(load_pairs(folder / "twice.parquet", size=16))
    assert image.tolist()[::2] == image.tolist()[1::2] and len(set(image.tolist())) == 3
    texts = [row["text"] for row in rows]
    assert [(a == b) for a in text for b in text] == [(a == b) for a in texts for b in texts]


def test_recall_of_labelled_data_without_captions_is_left_out_and_labels_are_measured(folder: Path) -> None:
    said: list[str] = []
    data = toy_pairs(64, seed=9)
    kinds = [str(number % 2) for number in range(64)]
    pictures = [png(np.asarray(image)) for image in data.inputs]
    pq.write_table(pa.table({"image": pictures, "label": kinds}), folder / "labelled.parquet")
    assert evaluate(folder / "run", folder / "labelled.parquet", say=said.append).captions is None
    for number, (picture, kind) in enumerate(zip(pictures, kinds, strict=True)):
        (folder / "classes" / kind).mkdir(parents=True, exist_ok=True)
        (folder / "classes" / kind / f"{number}.png").write_bytes(picture)
    (folder / "classes" / "0" / "0.txt").write_text("a note")
    assert evaluate(folder / "run", folder / "classes", say=said.append).scores
    assert any("recall of captions is not measured: 63 of 64 cannot be read" in line for line in said)


def test_without_the_heads_labels_are_measured_all_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    said: list[str] = []
    found = evaluate(tmp_path / "run", folder / "others.parquet", say=said.append)
    assert found.captions is None and any(
        "recall of captions is not measured: its checkpoints" in line for line in said
    )


@pytest.mark.parametrize("query", ["nosuch.jpg", "no such/photo one.PNG", "."])
def test_a_path_without_an_image_is_not_taken_for_words(folder: Path, query: str) -> None:
    with pytest.raises(DataError, match="no such image|a folder, not an image"):
        search(folder / "run", query, say=silent)


def test_an_image_finds_its_copy_first(folder: Path, tmp_path: Path) -> None:
    data = toy_pairs(256)
    (tmp_path / "query.png").write_bytes(png(np.asarray(data.inputs[10])))
    found = search(folder / "run", tmp_path / "query.png", top=3, say=silent)
    assert found[0].name == "pairs.parquet:10" and found[0].cosine == pytest.approx(1, abs=1e-3)
    assert found[0].caption == captions(data)[10]
    with pytest.raises(DataError, match="can't be read"):
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        search(folder / "run", tmp_path / "broken.png", say=silent)


def test_the_embeddings_are_those_that_were_compared_in_training(folder: Path) -> None:
    """The heads are taken from the checkpoint: a head of fresh weights would not tell pairs apart."""
    towers, data = load_towers(folder / "run"), toy_pairs(96, seed=7)
    images, texts = towers.images(towers.image.load(folder / "others.parquet")), towers.texts(captions(data))
    torch.testing.assert_close(images.norm(dim=1), torch.ones(96))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(96))
    scores = images @ texts.T
    same = torch.tensor([[a == b for b in captions(data)] for a in captions(data)])
    assert scores[same].mean() > scores[~same].mean() + 0.2
    pixels, sizes = torch.from_numpy(np.asarray(data.inputs)), torch.from_numpy(data.sizes)
    torch.testing.assert_close(towers.pictures(pixels, sizes), images, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", ["page.html", "page.png"])
def test_a_page_shows_the_answers(folder: Path, tmp_path: Path, name: str) -> None:
    found = search(folder / "run", "<b>red</b> bar", top=7, out=tmp_path / name, say=silent)
    if name.endswith("png"):
        with Image.open(tmp_path / name) as page:
            assert page.width > 6 * 128 and page.height > 2 * 128
        return
    text = (tmp_path / name).read_text()
    assert text.count("<img") == 7 and found[6].caption in text
    assert "<b>red" not in text and "&lt;b&gt;red&lt;/b&gt; bar" in text and "default-src 'none'" in text


def test_names_of_classes_are_enough(folder: Path) -> None:
    told: list[str] = []
    found = zero_shot(
        folder / "run", folder / "others.parquet", prompts=("red {} left", "blue {} middle"), say=told.append
    )
    assert found.score.value > 0.4 and found.largest < 0.3  # four shapes
    assert set(found.classes) == set(SHAPES) and sum(count for _, count in found.classes.values()) == 96
    mean = sum(value * count for value, count in found.classes.values()) / 96
    assert mean == pytest.approx(found.score.value) and "red {} left; blue {} middle" in found.score.protocol
    assert "chance 25.0" in told[0] and found.as_dict()["classes"]["bar"]["images"] == found.classes["bar"][1]


def test_several_prompts_are_the_mean_of_unit_vectors(folder: Path) -> None:
    towers = load_towers(folder / "run")
    found = class_embeddings(towers, ["big_bar", "pole"], ["a {}", "one red {}"])
    for row, name in zip(found, ("big bar", "pole"), strict=True):
        mean = (towers.texts([f"a {name}"])[0] + towers.texts([f"one red {name}"])[0]) / 2
        torch.testing.assert_close(row, mean / mean.norm(), rtol=0, atol=5e-3)  # bf16 on some CPUs


@pytest.mark.parametrize("prompts", [(), ("a picture",), ("{} and {}",)])
def test_prompts_without_a_place_for_the_name_are_refused(folder: Path, prompts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="prompts"):
        zero_shot(folder / "run", folder / "others.parquet", prompts=prompts, say=silent)


@pytest.mark.parametrize("change", [{"top": 0}, {"out": "page.pdf"}, {"query": "  "}])
def test_what_makes_no_sense_is_refused(folder: Path, change: dict) -> None:
    with pytest.raises(UsageError):
        search(folder / "run", **{"query": "red bar", "say": silent, **change})


def test_a_run_of_images_finds_look_alikes_and_knows_no_words(folder: Path, tmp_path: Path) -> None:
    run = train(folder / "pairs.parquet", out=tmp_path / "run", say=silent, epochs=1, **SMALL)
    assert has_text(folder / "run") and not has_text(run)
    (tmp_path / "query.png").write_bytes(png(np.asarray(toy_pairs(256).inputs[3])))
    found = search(run, tmp_path / "query.png", top=2, say=silent)
    assert found[0].name == "pairs.parquet:3" and found[0].cosine == pytest.approx(1, abs=1e-3)
    with pytest.raises(UsageError, match="knows no text"):
        search(run, "red bar", say=silent)


def test_a_run_whose_checkpoints_are_gone_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("nearfar-run.json", "encoder.safetensors"):
        (tmp_path / name).write_bytes((folder / "run" / name).read_bytes())
    assert Run.open(tmp_path).settings["method"] == "clip"
    with pytest.raises(UsageError, match="checkpoints are gone"):
        load_towers(tmp_path)
