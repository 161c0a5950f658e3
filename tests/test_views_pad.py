"""The margin of a view: exact crops of padded images, what lies beyond an image, and what a margin may not change."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import reference_views as slow
import torch
from scipy import stats

from nearfar.errors import UsageError
from nearfar.method import Batch
from nearfar.randomness import uniforms
from nearfar.views import CentreCrop, View, Views, preview_sheet, random_crop
from nearfar.views.draw import LEFT, SLOTS, TOP, plain
from nearfar.views.render import Rendering, render

UNIT: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
EVERYTHING: dict[str, Any] = {"jitter_p": 1.0, "grey_p": 0.3, "blur_p": 0.7, "solarise_p": 0.4}


def drawn(view: View, count: int, height: int, width: int, epoch: int = 0):
    return view.draw(np.arange(count), [[height, width]] * count, seed=3, epoch=epoch, view=0)


def sliced(image: np.ndarray, top: int, left: int, side: int, margin: int, flip: bool) -> np.ndarray:
    """The crop whose corner is at (top, left) of the padded image, in [0, 1]."""
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)))
    crop = padded[:, top : top + side, left : left + side]
    return (crop[:, :, ::-1] if flip else crop) / 255


# Crops that only shift


@pytest.mark.parametrize(("size", "margin"), [(32, 4), (28, 4), (84, 8), (7, 1), (16, 16), (10, 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_random_crop_pads_slices_and_mirrors(size, margin, channels):
    images = np.random.default_rng(0).integers(1, 256, (60, channels, size, size), dtype=np.uint8)
    view = random_crop(size, pad=margin / size, mean=(0.0,) * channels, std=(1.0,) * channels)
    draw = drawn(view, 60, size, size)
    places, mirrored = set(), Counter()
    for b, (made, image) in enumerate(zip(view.apply(images, draw).numpy(), images, strict=True)):
        numbers = uniforms(3, 0, [b], 0, SLOTS)[0]
        top, left = (int(numbers[slot] * (2 * margin + 1)) for slot in (TOP, LEFT))
        assert draw.boxes[b].tolist() == [top - margin, left - margin, size, size]
        assert np.abs(made - sliced(image, top, left, size, margin, bool(draw.flip[b]))).max() < 1e-6
        assert not np.logical_xor(made == 0, sliced(image, top, left, size, margin, bool(draw.flip[b])) == 0).any()
        places.add((top, left))
        mirrored[bool(draw.flip[b])] += 1
    assert len(places) > (20 if margin > 1 else 0) and min(mirrored.values()) > 10


def test_a_margin_of_an_eighth_on_28_px_does_not_resample():
    """An eighth of 28 is 3.5, in whole pixels 4: the crop stays 28 px all the same."""
    draw = drawn(random_crop(28, pad=1 / 8), 400, 28, 28)
    assert (draw.boxes[:, 2:] == 28).all() and draw.boxes[:, :2].min() == -4 and draw.boxes[:, :2].max() == 4


def test_every_place_is_as_likely():
    draw = drawn(random_crop(32, pad=1 / 8, flip=0.25), 24_000, 32, 32)
    counts = Counter(map(tuple, draw.boxes[:, :2].tolist()))
    assert len(counts) == 81 and stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert stats.binomtest(int(draw.flip.sum()), 24_000, 0.25).pvalue > 1e-3


def test_random_crop_is_a_view_with_settings():
    view = random_crop(32, pad=1 / 8, jitter=(0.4, 0.4, 0.4, 0.0), jitter_p=1.0, mean=(0.5,), std=(0.5,))
    assert view == View(
        size=32, scale=(0.64, 0.64), ratio=(1.0, 1.0), pad=0.125, jitter=(0.4, 0.4, 0.4, 0.0), jitter_p=1.0,
        grey_p=0.0, blur_p=0.0, mean=(0.5,), std=(0.5,),
    )  # fmt: skip
    assert view.flip == 0.5 and random_crop(32, pad=0).scale == (1.0, 1.0)


@pytest.mark.parametrize("pad", [-0.1, -0.5, 1.5, float("nan"), float("inf")])
def test_pad_out_of_range_is_named(pad):
    with pytest.raises(UsageError, match=r"pad=.*between 0 and 1"):
        View(size=32, pad=pad)
    with pytest.raises(UsageError, match=r"pad=.*between 0 and 1"):
        random_crop(32, pad=pad)


# Any view with a margin


@pytest.mark.parametrize(("height", "width", "size"), [(20, 20, 20), (31, 17, 24), (7, 40, 9), (1, 1, 4), (48, 61, 11)])
@pytest.mark.parametrize(("pad", "reflect"), [(0.13, False), (1.0, False), (0.13, True), (0.5, True)])
def test_view_equals_the_slow_twin_on_padded_images(height, width, size, pad, reflect):
    images, view = slow.smooth(30, 3, height, width), View(size=size, pad=pad, reflect=reflect, **EVERYTHING, **UNIT)
    draw = drawn(view, 30, height, width)
    down, across = round(pad * height), round(pad * width)
    padded = np.pad(images, ((0, 0), (0, 0), (down, down), (across, across)), mode="reflect" if reflect else "constant")
    moved = draw._replace(boxes=draw.boxes + np.array([down, across, 0, 0], np.int32))
    settings = {
        "size": size,
        "radius": view.blur_radius,
        "threshold": view.threshold,
        "mean": (0,) * 3,
        "std": (1,) * 3,
    }
    expected = np.stack([slow.view(image, moved, b, **settings) for b, image in enumerate(padded)])
    assert np.abs(view.apply(images, draw).numpy() - expected).max() < 5e-6


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 40), (3, 3), (1, 9), (90, 30), (1, 1)])
@pytest.mark.parametrize("pad", [0.125, 0.5])
def test_boxes_equal_the_slow_twin_and_stay_within_the_margin(height, width, pad):
    view = View(size=8, scale=(0.2, 1.0), pad=pad)
    down, across = round(pad * height), round(pad * width)
    draw = drawn(view, 300, height, width)
    for box, row in zip(draw.boxes.tolist(), uniforms(3, 0, np.arange(300), 0, SLOTS), strict=True):
        numbers = {"area": row[:10], "ratio": row[10:20], "top": row[[TOP]], "left": row[[LEFT]]}
        grown = (1 + 2 * pad) ** 2 * height * width / ((height + 2 * down) * (width + 2 * across))
        top, left, tall, wide = slow.crop_box(
            lambda kind, k, n=numbers: n[kind][k],
            height + 2 * down, width + 2 * across, (0.2 * grown, grown), view.ratio,
        )  # fmt: skip
        assert box == [top - down, left - across, tall, wide]
        assert top >= 0 and top + tall <= height + 2 * down and left >= 0 and left + wide <= width + 2 * across


def test_without_a_margin_views_are_as_they_were():
    plainly, padless = View(size=16, **EVERYTHING), View(size=16, pad=0.0, **EVERYTHING)
    assert plainly == padless
    boxes = drawn(plainly, 500, 30, 21).boxes
    assert boxes.min() >= 0 and (boxes[:, 0] + boxes[:, 2]).max() <= 30 and (boxes[:, 1] + boxes[:, 3]).max() <= 21


@pytest.mark.parametrize("reflect", [False, True])
def test_what_fills_the_canvas_beyond_an_image_is_not_seen(reflect):
    """Images of several sizes share a canvas; the margin of each begins where the image ends."""
    images, sizes = slow.smooth(12, 3, 20, 28), np.array([[20, 28], [11, 28], [20, 9], [5, 5]] * 3)
    view = View(size=16, pad=0.25, reflect=reflect, **EVERYTHING)
    draw = view.draw(np.arange(12), sizes, seed=0, epoch=0, view=0)
    dirty, clean = np.full((12, 3, 33, 40), 255, np.uint8), np.zeros((12, 3, 20, 28), np.uint8)
    for b, (height, width) in enumerate(sizes):
        dirty[b, :, :height, :width] = clean[b, :, :height, :width] = images[b, :, :height, :width]
    assert torch.equal(view.apply(dirty, draw), view.apply(clean, draw))
    for b, (height, width) in enumerate(sizes):
        alone = view.draw([b], [[height, width]], seed=0, epoch=0, view=0)
        assert torch.equal(view.apply(clean[b : b + 1, :, :height, :width], alone)[0], view.apply(clean, draw)[b])


def test_crops_are_drawn_as_often_as_asked():
    """The others are of the whole image; where there is a crop, it is the one that there always was."""
    always, often, never = (drawn(random_crop(32, pad=1 / 8, crop_p=p), 20_000, 32, 32).boxes for p in (1, 0.8, 0))
    whole = [0, 0, 32, 32]
    assert (never == whole).all()
    same = (often == always).all(1)
    assert ((often == whole).all(1) | same).all()
    left_out = 20_000 - int(same.sum())  # but for those of the 81 places that are the whole image
    assert stats.binomtest(left_out, 20_000, 0.2 * 80 / 81).pvalue > 1e-3


def test_a_crop_far_beyond_an_image_that_mirrors_reads_no_other_memory():
    images = np.random.default_rng(0).integers(100, 200, (4, 3, 6, 6), dtype=np.uint8)
    boxes = [[-90, 0, 4, 4], [0, 60, 3, 3], [400, 400, 2, 2], [2, -300, 5, 9]]
    draw = plain(np.array([[0, 0, 6, 6]] * 4, np.int32))
    draw = draw._replace(boxes=np.array(boxes, np.int32), reflect=np.ones(4, np.bool_))
    made = render(images, Rendering(draw, 5, (0.0,) * 3, (1.0,) * 3))[0]
    assert made.min() >= 100 / 255 and made.max() <= 200 / 255


def test_a_margin_wider_than_what_it_mirrors_is_refused():
    with pytest.raises(UsageError, match="at most 0.5"):
        View(size=8, pad=0.6, reflect=True)


def test_a_crop_wholly_beyond_the_image_is_black():
    images, boxes = np.full((4, 3, 6, 6), 200, np.uint8), [[-9, 0, 4, 4], [0, 6, 3, 3], [40, 40, 2, 2], [2, -30, 5, 9]]
    draw = plain(np.array([[0, 0, 6, 6]] * 4, np.int32))._replace(boxes=np.array(boxes, np.int32))
    assert (render(images, Rendering(draw, 5, (0.0,) * 3, (1.0,) * 3))[0] == 0).all()


def test_a_draw_of_larger_images_is_refused():
    view = random_crop(8, pad=0.25)
    with pytest.raises(UsageError, match="leave"):
        view.apply(np.zeros((2, 3, 8, 7), np.uint8), drawn(view, 2, 8, 8))


def test_margins_do_not_depend_on_batch_order_or_epoch():
    images, view = slow.smooth(10, 3, 32, 32), random_crop(32, pad=1 / 8, **UNIT)
    sizes = torch.full((10, 2), 32)
    whole = Batch(inputs=torch.from_numpy(images), sizes=sizes, ids=torch.arange(10), seed=1, epoch=4)
    rows = torch.tensor([7, 2])
    part = Batch(inputs=whole.inputs[rows], sizes=sizes[rows], ids=rows, seed=1, epoch=4)
    first, second = Views(view, view)(whole)
    assert torch.equal(Views(view)(part)[0], first[rows]) and not torch.equal(first, second)


def test_margins_keep_contrast_and_evaluation_apart():
    """Contrast turns around the mean of the crop with its margin, as in torchvision; the centre crop has no margin."""
    images = np.full((1, 1, 8, 8), 200, np.uint8)
    view = View(
        size=8, pad=1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0, jitter=(0, 1.0, 0, 0), jitter_p=1, grey_p=0,
        blur_p=0, mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    draw = drawn(view, 1, 8, 8)
    draw.factors[0] = (1, 0, 1, 0)
    assert draw.boxes.tolist() == [[-8, -8, 24, 24]]
    assert view.apply(images, draw).numpy() == pytest.approx(200 / 255 / 9, abs=1e-6)
    assert CentreCrop(8, mean=(0.0,), std=(1.0,))(images, [[8, 8]]).numpy() == pytest.approx(200 / 255, abs=1e-6)


def test_preview_names_the_margin(tmp_path, monkeypatch):
    captions = []
    monkeypatch.setattr(
        "nearfar.views.preview._sheet", lambda tiles, names, caption: captions.append(caption) or Sheet()
    )
    images = torch.from_numpy(slow.smooth(2, 3, 32, 32))
    batch = Batch(inputs=images, sizes=torch.full((2, 2), 32), ids=torch.arange(2))
    for view in (random_crop(32, pad=1 / 8), View(size=32)):
        preview_sheet(batch, Views(view), tmp_path / "a.png")
    assert "with a margin of 0.125" in captions[0] and "margin" not in captions[1]


class Sheet:
    def save(self, path, format) -> None:
        """Nowhere."""
