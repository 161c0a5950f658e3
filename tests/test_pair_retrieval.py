"""Recall of images and captions, against an enumeration of all orders of ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.evaluation import pair_retrieval as module
from nearfar.evaluation.pair_retrieval import WAYS, pair_retrieval


def enumerated(scores: np.ndarray, right: np.ndarray, k: int) -> float:
    """Share of hits, over all orders of the candidates that sort the scores."""
    hits, orders = 0, 0
    for order in itertools.permutations(range(len(scores))):
        ranked = scores[list(order)]
        if (ranked[:-1] >= ranked[1:]).all():
            orders += 1
            hits += bool(right[list(order[:k])].any())
    return hits / orders


def on_the_circle(degrees: list[int]) -> Tensor:
    angle = torch.tensor(degrees, dtype=torch.float64) * torch.pi / 180
    return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize("elements", [1, 2**23])
def test_recall_is_the_mean_over_all_orders_of_ties(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Axes of the plane: cosines 1, 0 and -1 in fp32 exactly, and many ties."""
    monkeypatch.setattr(module, "ELEMENTS", elements)
    rng = np.random.default_rng(0)
    axes = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    images, texts = axes[rng.integers(4, size=6)], axes[rng.integers(4, size=6)]
    keys = [np.array([0, 1, 1, 2, 3, 4]), np.array([0, 0, 1, 2, 3, 5])]
    found = pair_retrieval(images, texts, image_keys=keys[0], text_keys=keys[1], at=(1, 2, 5))
    sides = zip(WAYS, (images, texts), (texts, images), keys, keys[::-1], strict=True)
    for way, queries, bank, own, theirs in sides:
        for k in (1, 2, 5):
            rows = [(bank @ query, theirs == key) for query, key in zip(queries, own, strict=True)]
            hits = [enumerated(scores, right, k) for scores, right in rows if right.any()]
            chance = [enumerated(np.zeros(6), right, k) for _, right in rows if right.any()]
            name = f"{way} recall@{k}"
            assert found.scores[name].value == pytest.approx(np.mean(hits), abs=1e-12)
            assert found.chance[name] == pytest.approx(np.mean(chance), abs=1e-12)
            assert len(hits) == 5 and "1 queries without a right answer left out" in found.scores[name].protocol


def test_embeddings_that_are_all_alike_score_as_chance_does() -> None:
    found = pair_retrieval(torch.ones(40, 8), torch.ones(40, 8))
    for name, score in found.scores.items():
        assert score.value == pytest.approx(found.chance[name], abs=1e-12)
        assert found.chance[name] == pytest.approx(int(name.split("@")[1]) / 40, abs=1e-12)


def test_any_image_of_a_caption_is_right() -> None:
    """Caption 0 is there twice; each image finds the other's copy as well as its own."""
    images, texts = on_the_circle([0, 10, 90]), on_the_circle([10, 0, 80])
    apart, together = (
        pair_retrieval(images, texts),
        pair_retrieval(images, texts, image_keys=[0, 0, 1], text_keys=[0, 0, 1]),
    )
    assert apart.scores["image to text recall@1"].value == pytest.approx(1 / 3)
    assert together.scores["image to text recall@1"].value == 1.0
    assert together.chance["image to text recall@1"] == pytest.approx((2 + 2 + 1) / 9)


def test_more_wanted_than_there_are() -> None:
    found = pair_retrieval(torch.eye(3), torch.eye(3).roll(1, 0), at=(1, 10))
    assert found.scores["image to text recall@1"].value == 0.0 and found.scores["image to text recall@10"].value == 1.0
    assert "image to text recall@1" in found.as_text() and found.as_dict()["chance"]["image to text recall@10"] == 1.0


@pytest.mark.parametrize(
    "change", [{"at": (0,)}, {"image_keys": [0, 1]}, {"image_keys": [5, 6, 7]}, {"texts": torch.ones(3, 4)}]
)
def test_what_does_not_fit_is_refused(change: dict) -> None:
    texts = change.pop("texts", torch.eye(3))
    with pytest.raises(UsageError):
        pair_retrieval(torch.eye(3), texts, **change)


def test_a_text_is_right_for_the_images_it_is_listed_with_and_no_others() -> None:
    """Image 0 has texts 0 and 1, image 1 has 1 and 2: text 2 is not right for image 0, though both share text 1."""
    images, texts = on_the_circle([0, 0, 90, 90]), on_the_circle([40, 80, 80, 1])
    listed = [[0, 0], [0, 1], [1, 1], [1, 2]]
    found = pair_retrieval(images, texts, image_keys=[0, 0, 1, 1], text_keys=[0, 1, 1, 2], pairs=listed, at=(1,))
    assert found.scores["image to text recall@1"].value == 0.5  # images 0 find text 2 nearest, which is not theirs
    assert found.scores["text to image recall@1"].value == pytest.approx(3 / 4)
    assert found.chance["image to text recall@1"] == pytest.approx(3 / 4)
    equal = pair_retrieval(images, texts, image_keys=[0, 0, 1, 1], text_keys=[0, 0, 1, 1], at=(1,))
    same = pair_retrieval(
        images, texts, image_keys=[0, 0, 1, 1], text_keys=[0, 0, 1, 1], pairs=[[0, 0], [1, 1]], at=(1,)
    )
    assert same.as_dict() == equal.as_dict()


def test_an_order_of_rows_changes_no_tie() -> None:
    """Equal rows have products that differ in their last bits, by the place that they have in a matrix."""
    draw = torch.Generator().manual_seed(0)
    texts = torch.randn(6, 512, generator=draw).repeat(2, 1)[:10]
    images = texts + 0.5 * torch.randn(10, 512, generator=draw)
    found = []
    for order in (torch.arange(10), torch.arange(10).flip(0), torch.randperm(10, generator=draw)):
        scores = pair_retrieval(images[order], texts[order], at=(1,)).scores
        found.append([score.value for score in scores.values()])
    assert found[0] == pytest.approx(found[1], abs=1e-12) and found[0] == pytest.approx(found[2], abs=1e-12)
