"""CLIP and SigLIP: their losses against dense twins, their towers, and the contract that methods keep."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import Tiny
from toy_pairs import LENGTH, SIDE, toy_pairs

from nearfar import similarity
from nearfar.encoders.text_transformer import TextTransformer
from nearfar.errors import UsageError
from nearfar.extract.captions import both_ways, each_with_each, text_keys
from nearfar.losses import tiles
from nearfar.losses.learned import LearnedSigmoid, LearnedTemperature
from nearfar.losses.sigmoid import sigmoid
from nearfar.method import Batch, Contrast, Method, Pairs
from nearfar.methods.clip import clip
from nearfar.methods.siglip import siglip
from nearfar.views.captioned import squares

METHODS = {"clip": clip, "siglip": siglip, "clip same text": partial(clip, same_text=True)}
DOUBLE = {"dtype": torch.float64}


def toy_method(name: str, *, batch_norm: bool = False) -> Method:
    text = TextTransformer(vocabulary=257, length=LENGTH, width=32, layers=2, heads=2)
    return METHODS[name](encoder=Tiny(batch_norm=batch_norm), size=SIDE, text=text, width=32)


def toy_batch(count: int = 16, *, start: int = 0, epoch: int = 0) -> Batch:
    return toy_pairs(64).batch(np.arange(start, start + count), seed=1, epoch=epoch)


def double(model: Contrast) -> Contrast:
    """In fp64, images too, so that sums in another order differ by rounding only."""
    model = model.double()
    views = model.views
    model.views = lambda batch: [view.double() if view.is_floating_point() else view for view in views(batch)]
    return model


def embeddings(count: int, width: int = 8) -> tuple[Tensor, Tensor]:
    """Images and texts, fp64, which want gradients."""
    draw = torch.Generator().manual_seed(count)
    image, text = torch.randn(2, count, width, generator=draw, **DOUBLE)
    return image.requires_grad_(), text.requires_grad_()


def batch_of(texts: list[str]) -> Batch:
    data = toy_pairs(1)
    assert data.tokenizer is not None
    tokens, lengths = data.tokenizer(texts, length=LENGTH)
    images, sizes = torch.zeros(len(texts), 3, SIDE, SIDE, dtype=torch.uint8), torch.full((len(texts), 2), SIDE)
    column = torch.from_numpy(tokens[:, None]), torch.from_numpy(lengths[:, None])
    return Batch(images, sizes, torch.arange(len(texts)), columns={"text": column})


def both(loss, image: Tensor, text: Tensor) -> Tensor:
    pairs = both_ways([image, text], [], batch_of(["a"] * len(image)), None)
    return torch.stack([p.weight * loss(p, similarity.cosine) for p in pairs]).sum()


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
@pytest.mark.parametrize("count", [2, 7])
def test_orthonormal_pairs_have_the_closed_form(scale: float, count: int) -> None:
    rows = torch.eye(count, **DOUBLE)
    expected = math.log1p((count - 1) * math.exp(-scale))
    assert both(LearnedTemperature(1 / scale).double(), rows, rows).item() == pytest.approx(expected, rel=1e-5)


def test_the_scale_begins_where_the_paper_says() -> None:
    assert LearnedTemperature().log_scale.item() == pytest.approx(2.6593, abs=5e-5)
    assert LearnedTemperature().scale == pytest.approx(1 / 0.07, rel=1e-6)


def test_the_scale_stays_at_100_and_comes_back_at_once() -> None:
    image, text = embeddings(6)
    loss, limit = LearnedTemperature().double(), LearnedTemperature(0.01).double()
    with torch.no_grad():
        loss.log_scale.fill_(7.0)
    assert loss.scale == 100.0
    value = both(loss, image, text)
    torch.testing.assert_close(value, both(limit, image, text), rtol=1e-6, atol=0)
    assert loss.log_scale.item() == pytest.approx(math.log(100), abs=1e-12)
    value.backward()
    assert loss.log_scale.grad is not None and abs(loss.log_scale.grad.item()) > 1e-3  # not stuck at the limit
    before = loss.log_scale.item()
    torch.optim.SGD([loss.log_scale], lr=0.1 / abs(loss.log_scale.grad.item())).step()
    moved = before - 0.1 * math.copysign(1, loss.log_scale.grad.item())
    assert loss.log_scale.item() == pytest.approx(moved)


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 0.001}, {"temperature": math.nan}])
def test_a_temperature_that_makes_no_sense_is_refused(settings: dict) -> None:
    with pytest.raises(UsageError, match="temperature"):
        LearnedTemperature(**settings)


def test_loss_and_gradients_are_those_of_the_dense_twin() -> None:
    image, text = embeddings(9)
    loss = LearnedTemperature(0.1).double()
    logits = loss.log_scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    own = torch.arange(9)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    wanted = torch.autograd.grad(expected, (image, text, loss.log_scale))
    value = both(loss, image, text)
    found = torch.autograd.grad(value, (image, text, loss.log_scale))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def dense_sigmoid(pairs: Pairs, measure: similarity.Similarity, scale: Tensor, bias: Tensor) -> Tensor:
    """Nested loops."""
    anchor, other, total = measure.anchor(pairs.anchor), measure.other(pairs.other), torch.zeros((), **DOUBLE)
    for i in range(len(anchor)):
        for j in range(len(other)):
            if pairs.anchor_slot is not None and pairs.anchor_slot[i] == pairs.other_slot[j]:
                continue
            score = anchor[i] @ other[j]
            score = score if measure.curve is None else measure.curve.value(score)
            sign = 1 if pairs.anchor_key[i] == pairs.other_key[j] else -1
            total = total - F.logsigmoid(sign * (scale * score + bias))
    return total / len(anchor)


@pytest.mark.parametrize("measure", [similarity.cosine, similarity.clipped_dot(2.0)])
@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("tile", [3, 512])
def test_the_sigmoid_loss_is_that_of_nested_loops(measure, slots: bool, tile: int, monkeypatch) -> None:
    monkeypatch.setattr(tiles, "TILE", tile)
    image, text = embeddings(7)
    key = torch.tensor([0, 1, 1, 2, 3, 4, 4])
    slot = (torch.arange(7), torch.tensor([9, 1, 9, 9, 5, 9, 0])) if slots else (None, None)
    pairs = Pairs(image, text, key, key, anchor_slot=slot[0], other_slot=slot[1])
    scale, bias = (torch.tensor(value, requires_grad=True, **DOUBLE) for value in (6.0, -2.0))
    expected = dense_sigmoid(pairs, measure, scale, bias)
    wanted = torch.autograd.grad(3 * expected, (image, text, scale, bias))
    value = sigmoid(pairs, measure, scale=scale, bias=bias)
    found = torch.autograd.grad(3 * value, (image, text, scale, bias))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_the_sigmoid_loss_of_far_logits_is_exact() -> None:
    """-log sigmoid(60) is exp(-60), in which 1 - sigmoid(60) has no digit left."""
    row, key = torch.ones(1, 1, requires_grad=True), torch.zeros(1, dtype=torch.int64)
    loss = sigmoid(Pairs(row, torch.ones(1, 1), key, key), similarity.dot, scale=60.0, bias=0.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(-60), rel=1e-5)
    assert row.grad is not None and row.grad.item() == pytest.approx(-60 * math.exp(-60), rel=1e-5)


def test_the_sigmoid_loss_begins_where_the_paper_says() -> None:
    loss = LearnedSigmoid()
    assert loss.log_scale.item() == pytest.approx(math.log(10)) and loss.bias.item() == -10.0
    rows, key = torch.zeros(5, 3), torch.arange(5)
    expected = math.log1p(math.exp(10)) + 4 * math.log1p(math.exp(-10))
    assert loss(Pairs(rows, rows, key, key), similarity.cosine).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "change", [{"scale": 0.0}, {"bias": math.inf}, {"scale": torch.ones(2)}, {"positive": torch.eye(2)}]
)
def test_the_sigmoid_loss_refuses_what_makes_no_sense(change: dict) -> None:
    pairs = Pairs(torch.eye(2), torch.eye(2), torch.arange(2), torch.arange(2), positive=change.pop("positive", None))
    with pytest.raises(UsageError):
        sigmoid(pairs, similarity.cosine, **change)


def test_equal_texts_are_negatives_unless_asked_otherwise() -> None:
    batch = batch_of(["a cat", "a dog", "a cat"])
    rows = [torch.eye(3), torch.eye(3)]
    there, back = both_ways(rows, rows, batch, None)
    assert there.anchor_key.tolist() == there.other_key.tolist() == [0, 1, 2] and there.weight == back.weight == 0.5
    assert there.anchor is rows[0] and back.anchor is rows[1]
    there, back = both_ways(rows, rows, batch, None, same_text=True)
    assert torch.equal(
        there.anchor_key[:, None] == there.other_key, torch.tensor([0, 1, 0])[:, None] == torch.tensor([0, 1, 0])
    )
    (once,) = each_with_each(rows, rows, batch, None, same_text=True)
    assert once.weight == 1.0 and torch.equal(once.anchor_key, there.anchor_key)


def test_the_key_of_a_text_is_its_tokens_whatever_the_padding() -> None:
    batch = batch_of(["a", "b", "a"])
    tokens, sizes = batch.columns["text"]
    shorter = replace(batch, columns={"text": (tokens[..., :4].int(), sizes)})
    assert torch.equal(text_keys(batch), text_keys(shorter))
    assert text_keys(batch)[0] == text_keys(batch)[2] != text_keys(batch)[1]


def test_the_view_is_a_square_crop_and_the_text_as_it_is() -> None:
    batch = toy_batch(4)
    wide = replace(
        batch, inputs=torch.zeros(4, 3, SIDE, 2 * SIDE, dtype=torch.uint8), sizes=batch.sizes * torch.tensor([1, 2])
    )
    wide.inputs[:] = torch.arange(2 * SIDE, dtype=torch.uint8)  # a pixel tells its column
    image, tokens = toy_method("clip").views.changed(mean=(0.0,) * 3, std=(1.0,) * 3)(wide)
    columns = (image * 255).round()[:, 0, 0].long()
    assert torch.equal(columns - columns[:, :1], torch.arange(SIDE).expand(4, -1))  # neither shrunk nor mirrored
    assert columns[:, 0].unique().numel() > 1
    whole, sizes = batch.columns["text"]
    longest = int(sizes.max())
    assert torch.equal(tokens, whole[..., :longest]) and longest < whole.shape[2]


def test_squares_lie_inside_anywhere_and_have_the_share_asked_for() -> None:
    sizes = np.tile([[30, 20]], (4000, 1))
    boxes = squares(np.random.default_rng(0).random((4000, 3)), sizes, (0.25, 1.0))
    assert (boxes[:, 2] == boxes[:, 3]).all() and (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()
    assert (boxes[:, :2] + boxes[:, 2:]).max(0).tolist() == [30, 20] and boxes[:, :2].min(0).tolist() == [0, 0]
    assert boxes[:, 2].min() == 10 and boxes[:, 2].max() == 20
    assert (boxes[:, 2] ** 2 / 400).mean() == pytest.approx(0.625, abs=0.01)
    assert squares(np.zeros((1, 3)), np.ones((1, 2), np.int64), (0.01, 0.01)).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("change", [{"ratio": (0.5, 2.0)}, {"pad": 0.1}])
def test_a_view_that_is_no_square_is_refused(change: dict) -> None:
    with pytest.raises(UsageError, match="squares"):
        toy_method("clip").views.changed(**change)
