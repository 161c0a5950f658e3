"""A sample of several pictures, after training: each by its own network, and all side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import nearfar as nf
from nearfar.encoders import Towers, pooled
from nearfar.errors import DataError, UsageError

CMC = {"method": "cmc", "columns": ("image", "image2"), "loss": "softmax", "negatives": None, "encoder": "conv4"}
SETTINGS = {"size": 16, "epochs": 1, "batch": 16, "hold_out": 0.25, "threads": 1, "precision": "fp32"}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes that neither picture alone tells apart: one tells top from bottom, the other left from right."""
    random, place = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    pictures = random.integers(0, 60, (2, 64, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(64) % 4
    pictures[0, labels & 1 == 1, :8] += 150
    pictures[1, labels & 2 == 2, :, :8] += 150
    one, two = ([png(pixels) for pixels in column] for column in pictures)
    pq.write_table(pa.table({"image": one, "image2": two, "label": labels}), place / "both.parquet")
    pq.write_table(pa.table({"image": one, "label": labels}), place / "one.parquet")
    Image.fromarray(pictures[0, 3]).save(place / "asked.png")
    nf.train(place / "both.parquet", out=place / "run", say=lambda _: None, **CMC, **SETTINGS)
    return place


def test_features_are_those_of_each_network_side_by_side(folder: Path) -> None:
    encoder = nf.load_encoder(folder / "run", precision="fp32")
    data = encoder.load(folder / "both.parquet")
    batch, found = data.batch(np.arange(64)), encoder.each(data)
    assert isinstance(encoder.net, Towers) and list(found) == ["image", "image2"]
    with torch.no_grad():
        slow = [
            pooled(encoder.net[name](encoder.crop(part.inputs, part.sizes)))
            for name, part in (("image", batch), ("image2", batch.of("image2")))
        ]
    for one, other in zip(found.values(), slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert torch.equal(encoder(data), torch.cat(list(found.values()), dim=1))
    alone = encoder(encoder.load(folder / "one.parquet"))
    assert torch.equal(alone, found["image"]) and not torch.allclose(found["image"], found["image2"])


def test_evaluate_tells_each_picture_and_all(folder: Path) -> None:
    said: list[str] = []
    scores = nf.evaluate(folder / "run", folder / "both.parquet", say=said.append).scores
    assert list(scores)[2:] == ["trained, image alone", "trained, image2 alone", "trained encoder"]
    assert scores["raw pixels"]["all labels"].value == 1.0  # both pictures are in there
    assert max(scores[f"trained, {name} alone"]["all labels"].value for name in ("image", "image2")) < 0.9
    assert not any("are there" in line for line in said)
    scores = nf.evaluate(folder / "run", folder / "one.parquet", say=said.append).scores
    assert list(scores) == ["raw pixels", "untrained encoder", "trained encoder"]
    assert "not all of image, image2 are there: features are of image alone" in said


def test_what_takes_one_picture_takes_the_first(folder: Path) -> None:
    width = nf.load_encoder(folder / "run").of("image").net.width
    rows = pq.read_table(nf.embed(folder / "run", folder / "both.parquet", out=folder / "e.parquet", say=print))
    assert len(rows) == 64 and len(rows["vector"][0]) == width
    from nearfar.tasks.search import search

    found = search(folder / "run", str(folder / "asked.png"), data=folder / "both.parquet", top=1, say=print)
    assert found[0].name == "both.parquet:3" and found[0].cosine == pytest.approx(1.0, abs=1e-2)
    with pytest.raises(UsageError, match="it has image, image2"):
        nf.load_encoder(folder / "run").of("image3")


def test_one_network_for_all_columns_looks_at_each(folder: Path) -> None:
    run = nf.train(
        folder / "both.parquet", out=folder / "shared", say=lambda _: None, **(CMC | {"shared": True}), **SETTINGS
    )
    encoder = nf.load_encoder(run, precision="fp32")
    data = encoder.load(folder / "both.parquet")
    found = encoder.each(data)
    assert not isinstance(encoder.net, Towers) and encoder(data).shape[1] == 2 * found["image"].shape[1]
    first = encoder.first()
    assert torch.equal(first(first.load(folder / "both.parquet")), found["image"])


@pytest.fixture(scope="module")
def one_picture(folder: Path) -> Path:
    """The same with files and a manifest."""
    table = pq.read_table(folder / "both.parquet").to_pylist()
    (folder / "files").mkdir()
    lines = ["path,depth,label"]
    for i, row in enumerate(table):
        for name in ("image", "image2"):
            (folder / "files" / f"{name}_{i}.png").write_bytes(row[name])
        lines.append(f"files/image_{i}.png,files/image2_{i}.png,{row['label']}")
    (folder / "scenes.csv").write_text("\n".join(lines))
    return folder


def test_lightness_and_colour_each_stand_alone_too(folder: Path) -> None:
    run = nf.train(
        folder / "one.parquet", out=folder / "lab", say=lambda _: None, **(CMC | {"columns": ()}), **SETTINGS
    )
    encoder = nf.load_encoder(run, precision="fp32")
    data = encoder.load(folder / "one.parquet")
    found = encoder.each(data)
    assert list(found) == ["L", "ab"] and torch.equal(encoder.of("ab")(data), found["ab"])
    torch.testing.assert_close(encoder(data), torch.cat(list(found.values()), dim=1), rtol=1e-5, atol=1e-6)
    scores = nf.evaluate(run, folder / "one.parquet", say=lambda _: None).scores
    assert list(scores)[2:] == ["trained, L alone", "trained, ab alone", "trained encoder"]


def test_the_maps_of_amdim_each_stand_alone_too(folder: Path) -> None:
    settings = SETTINGS | {"size": 32}
    run = nf.train(
        folder / "one.parquet", out=folder / "amdim", say=lambda _: None,
        method="amdim", encoder="amdim-small", width=8, **settings,
    )  # fmt: skip
    encoder = nf.load_encoder(run, precision="fp32")
    data = encoder.load(folder / "one.parquet")
    batch = data.batch(np.arange(64))
    with torch.no_grad():
        maps = encoder.net(encoder.crop(batch.inputs, batch.sizes))
    found = encoder.scales(data)
    assert list(found) == ["7 x 7 cells", "5 x 5 cells"]
    for one, side in zip(found.values(), (7, 5), strict=True):
        slow = next(m for m in maps if m.shape[-1] == side).mean((2, 3))
        torch.testing.assert_close(one, slow, rtol=1e-5, atol=1e-6)
    scores = nf.evaluate(run, folder / "one.parquet", say=lambda _: None).scores
    assert list(scores)[2:] == ["trained, 7 x 7 cells", "trained, 5 x 5 cells", "trained encoder"]


def test_a_column_of_a_manifest_has_its_own_name(one_picture: Path) -> None:
    from nearfar.data.pairs import load_pairs

    data = load_pairs(one_picture / "scenes.csv", size=16, columns=("image", "depth"))
    both = load_pairs(one_picture / "both.parquet", size=16, columns=("image", "image2"))
    batch, expected = data.batch(np.arange(64)), both.batch(np.arange(64))
    assert np.array_equal(batch.inputs, expected.inputs)
    assert np.array_equal(batch.of("depth").inputs, expected.of("image2").inputs)


def test_a_fault_in_the_second_column_is_told_and_not_taken_for_no_second_column(one_picture: Path) -> None:
    lines = (one_picture / "scenes.csv").read_text().replace("depth", "path2").splitlines()
    (one_picture / "wrong.csv").write_text("\n".join([*lines[:-1], lines[-1].replace("image2_63", "image2_64")]))
    with pytest.raises(DataError, match="line 65: no file 'files/image2_64.png'"):
        nf.load_encoder(one_picture / "run").load(one_picture / "wrong.csv")
