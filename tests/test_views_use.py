"""What views may not depend on, how wrong use is answered, the centre crop and the contact sheet."""

from __future__ import annotations

import copy
import errno
import json
import multiprocessing
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import reference_views as slow
import torch
from numba.core import caching
from PIL import Image

from nearfar import methods
from nearfar.compiled import compiled
from nearfar.errors import UsageError
from nearfar.method import Batch
from nearfar.views import CentreCrop, View, Views, preview_sheet
from nearfar.views import preview as preview_module
from nearfar.views.patch_views import PatchViews
from nearfar.views.render import Rendering, render

TOLERANCE = 5e-6
EVERYTHING: dict[str, Any] = {"jitter_p": 1.0, "grey_p": 0.3, "blur_p": 0.7, "solarise_p": 0.4}
BARE: dict[str, Any] = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "jitter_p": 0, "grey_p": 0, "blur_p": 0}


def batch_of(images: np.ndarray, **changes) -> Batch:
    count, _, height, width = images.shape
    sizes = torch.tensor([[height, width]] * count)
    return Batch(inputs=torch.from_numpy(images), sizes=sizes, ids=torch.arange(count), **changes)


# What a view may not depend on


def test_views_do_not_depend_on_batch_or_order():
    images = slow.smooth(30, 3, 40, 40)
    views = Views(View(size=32, **EVERYTHING), View(size=16, **EVERYTHING))
    whole = batch_of(images, seed=5, epoch=2)
    made = views(whole)
    rows = torch.from_numpy(np.random.default_rng(1).permutation(30))
    part = replace(whole, inputs=whole.inputs[rows], sizes=whole.sizes[rows], ids=whole.ids[rows])
    assert all(torch.equal(a, b[rows]) for a, b in zip(views(part), made, strict=True))
    single = replace(whole, inputs=whole.inputs[7:8], sizes=whole.sizes[7:8], ids=whole.ids[7:8])
    assert all(torch.equal(a, b[7:8]) for a, b in zip(views(single), made, strict=True))


def test_views_do_not_depend_on_the_number_of_threads():
    views, batch = Views(View(size=32, **EVERYTHING)), batch_of(slow.smooth(50, 3, 36, 36))
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made.append(views(batch)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_views_may_be_made_by_several_threads_at_once():
    views, batch = Views(View(size=24, **EVERYTHING)), batch_of(slow.smooth(40, 3, 30, 30))
    expected, made, before = views(batch)[0], [], torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        workers = [threading.Thread(target=lambda: made.append(views(batch)[0])) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=60)
    finally:
        torch.set_num_threads(before)
    assert len(made) == 4 and all(torch.equal(expected, other) for other in made)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork with threads")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_views_after_a_fork(tmp_path):
    """Threads do not survive a fork: a child that waited for its parent's would hang."""
    views, batch, before = (
        Views(View(size=24, **EVERYTHING)),
        batch_of(slow.smooth(40, 3, 30, 30)),
        torch.get_num_threads(),
    )
    try:
        torch.set_num_threads(2)
        expected = views(batch)[0].numpy()
        child = multiprocessing.get_context("fork").Process(
            target=make_and_save, args=(views, batch, tmp_path / "a.npy")
        )
        child.start()
        child.join(timeout=30)
        child.kill()
    finally:
        torch.set_num_threads(before)
    assert child.exitcode == 0 and (np.load(tmp_path / "a.npy") == expected).all()


def make_and_save(views: Views, batch: Batch, path: Path) -> None:
    np.save(path, views(batch)[0].numpy())


def test_no_directory_to_cache_in(monkeypatch):
    """In a read-only container nothing can be cached; the kernel then compiles in memory."""

    def refuse(self):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(refuse)
    assert compiled(lambda x: x + 1)(2) == 3


def test_views_do_not_depend_on_the_canvas():
    """Only the valid part in the top left corner counts, whatever fills the rest."""
    images, view = slow.smooth(12, 3, 20, 28), View(size=16, **EVERYTHING)
    padded = np.full((12, 3, 50, 40), 255, np.uint8)
    padded[:, :, :20, :28] = images
    draw = view.draw(np.arange(12), [[20, 28]] * 12, seed=0, epoch=0, view=0)
    assert torch.equal(view.apply(images, draw), view.apply(padded, draw))


def test_views_differ_between_views_epochs_seeds_and_samples():
    images = np.repeat(slow.smooth(1, 3, 32, 32), 4, axis=0)
    views = Views(View(size=16), View(size=16))
    first, second = views(batch_of(images))
    assert not torch.equal(first, second)
    assert not torch.equal(first, views(batch_of(images, epoch=1))[0])
    assert not torch.equal(first, views(batch_of(images, seed=1))[0])
    assert len({sample.sum().item() for sample in first}) == 4


def test_layouts_hold_the_same_values():
    images, view = torch.from_numpy(slow.smooth(9, 3, 20, 20)), View(size=16, **EVERYTHING)
    draw = view.draw(np.arange(9), [[20, 20]] * 9, seed=0, epoch=0, view=0)
    last = view.apply(images, draw, channels_last=True)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, view.apply(images, draw))
    assert torch.equal(last, view.apply(images.contiguous(memory_format=torch.channels_last), draw))


# Wrong use


def test_view_names_every_fault_at_once():
    wrong: dict[str, Any] = {
        "scale": (0.5, 0.1),
        "jitter": (0, 0, 0, 0.7),
        "flip": 1.5,
        "sigma": (0.0, 1.0),
        "std": (0.0,),
    }
    with pytest.raises(UsageError) as error:
        View(size=0, ratio=(1.0, float("nan")), mean=(0.5, 0.5), threshold=-0.1, **wrong)
    for name in (*wrong, "size", "ratio", "mean", "threshold"):
        assert f"{name}" in str(error.value), name


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_colour_of_other_channels_is_refused(channels):
    images = slow.smooth(3, channels, 20, 20)
    view = View(size=16)
    draw = view.draw(np.arange(3), [[20, 20]] * 3, seed=0, epoch=0, view=0)
    with pytest.raises(UsageError, match="jitter_p=0, grey_p=0"):
        view.apply(images, draw)


def test_images_of_the_wrong_kind_are_refused():
    view = View(size=8)
    draw = view.draw([0, 1], [[9, 9]] * 2, seed=0, epoch=0, view=0)
    with pytest.raises(UsageError, match="uint8"):
        view.apply(torch.zeros(2, 3, 9, 9), draw)
    with pytest.raises(UsageError, match="uint8"):
        view.apply(torch.zeros(3, 9, 9, dtype=torch.uint8), draw)
    with pytest.raises(UsageError, match="draw is of 2 samples"):
        view.apply(torch.zeros(3, 3, 9, 9, dtype=torch.uint8), draw)
    with pytest.raises(UsageError, match="leave"):
        view.apply(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), draw)
    with pytest.raises(UsageError, match="mean has 1"):
        View(size=8, mean=(0.5,), std=(0.5,)).apply(torch.zeros(2, 3, 9, 9, dtype=torch.uint8), draw)
    with pytest.raises(UsageError, match="sizes"):
        view.draw([0, 1], [[9, 9]], seed=0, epoch=0, view=0)


# Views, centre crop, contact sheet


def test_views_are_values():
    views = Views(View(size=32), View(size=16, flip=0.0))
    assert views == copy.deepcopy(views) and repr(views).startswith("Views(View(size=32, scale=(0.08, 1.0)")
    assert eval(repr(views)) == views
    with pytest.raises(AttributeError):
        views.views = ()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (41, 64, 20), (50, 33, 48), (1, 5, 4)])
def test_centre_crop_equals_the_slow_twin(height, width, size):
    images = slow.smooth(3, 3, height + 9, width + 4)
    side = min(height, width)
    box = (round((height - side) / 2), round((width - side) / 2), side, side)
    expected = np.stack([slow.crop_resize(image, box, size) for image in images])
    crop = CentreCrop(size, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert np.abs(crop(images, [[height, width]] * 3).numpy() - expected).max() < TOLERANCE
    mean, std = np.reshape((0.485, 0.456, 0.406), (3, 1, 1)), np.reshape((0.229, 0.224, 0.225), (3, 1, 1))
    normalised = CentreCrop(size)(torch.from_numpy(images), torch.tensor([[height, width]] * 3)).numpy()
    assert np.abs(normalised - (expected - mean) / std).max() < TOLERANCE / 0.224


@pytest.mark.parametrize("crop", [CentreCrop(32), CentreCrop(size=28, mean=(0.5,), std=(0.25,))])
def test_centre_crop_survives_json(crop):
    assert CentreCrop.from_dict(json.loads(json.dumps(crop.to_dict()))) == crop
    with pytest.raises(UsageError, match="colour"):
        CentreCrop.from_dict(crop.to_dict() | {"colour": 1})
    with pytest.raises(UsageError, match="size"):
        CentreCrop(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_preview_sheet_shows_originals_and_views(tmp_path, channels):
    batch = batch_of(np.full((10, channels, 20, 20), 200, np.uint8))
    preview_sheet(batch, Views(View(size=16, **BARE), View(size=8, **BARE)), tmp_path / "a.png", columns=3, rows=4)
    sheet = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (sheet == 200).all(-1).sum() == 4 * 4 * 112 * 112


def test_preview_sheet_lays_patches_on_their_grid(tmp_path):
    batch = batch_of(np.full((4, 3, 20, 20), 200, np.uint8))
    views = PatchViews(view=View(size=16, **BARE), patch=8, stride=4)
    preview_sheet(batch, views, tmp_path / "a.png", columns=2, rows=4)
    sheet = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    cells = [len(range(*edge)) for edge in ((0, 8), (9, 17), (18, 26))]  # of 27 px, in a tile of 112
    assert sum(cells) == 24
    original, laid = 112 * 112, (sheet == 200).all(-1).sum() / 8 - 112 * 112 / 2
    assert laid == pytest.approx(original * (24 / 27) ** 2, rel=0.03)


@pytest.mark.parametrize(("method", "apart"), [("cmc", True), ("simclr", False)])
def test_preview_says_where_views_are_shown_before_they_are_taken_apart(tmp_path, method, apart, monkeypatch):
    told = []
    monkeypatch.setattr(
        preview_module, "_sheet", lambda tiles, names, caption: told.append(caption) or Image.new("L", (1, 1))
    )
    views = getattr(methods, method)(encoder="small", size=16, **({"samples": 4} if apart else {})).views
    preview_sheet(batch_of(np.full((4, 3, 20, 20), 200, np.uint8)), views, tmp_path / "a.png")
    assert ("before the method takes them apart" in told[0]) == apart


def test_an_empty_batch_gives_empty_views():
    view = View(size=8)
    draw = view.draw(np.empty(0, np.int64), np.empty((0, 2)), seed=0, epoch=0, view=0)
    assert render(np.empty((0, 3, 9, 9), np.uint8), Rendering(draw, size=8))[0].shape == (0, 3, 8, 8)
