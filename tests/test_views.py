"""Views against their slow twin, on images of every shape and draws of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference_views as slow

from nearfar.views import View
from nearfar.views.draw import ORDERS, plain

TOLERANCE = 5e-6
EVERYTHING: dict[str, Any] = {"jitter_p": 1.0, "grey_p": 0.3, "blur_p": 0.7, "solarise_p": 0.4}
BARE: dict[str, Any] = {
    "scale": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    "flip": 0.0,
    "jitter_p": 0.0,
    "grey_p": 0.0,
    "blur_p": 0.0,
}


def both(view: View, images: np.ndarray, draw) -> tuple[np.ndarray, np.ndarray]:
    """The view by the compiled engine and by the twin."""
    channels = images.shape[1]
    mean = view.mean or ((0.485, 0.456, 0.406) if channels == 3 else (0.5,) * channels)
    std = view.std or ((0.229, 0.224, 0.225) if channels == 3 else (0.25,) * channels)
    settings = {"size": view.size, "radius": view.blur_radius, "threshold": view.threshold, "mean": mean, "std": std}
    twin = [slow.view(image, draw, b, **settings) for b, image in enumerate(images)]
    return view.apply(images, draw).numpy(), np.stack(twin)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "size"), [(20, 20, 20), (31, 17, 24), (48, 61, 11), (7, 90, 23)])
def test_view_equals_the_slow_twin(channels, height, width, size):
    unit: dict[str, Any] = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    view = View(size=size, **EVERYTHING, **unit)
    images = slow.smooth(24, channels, height, width)
    draw = view.draw(np.arange(24), [[height, width]] * 24, seed=1, epoch=0, view=0)
    fast, twin = both(view, images, draw)
    assert np.abs(fast - twin).max() < TOLERANCE


def test_view_equals_the_slow_twin_on_noise_and_normalised():
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 18, 18), dtype=np.uint8)
    view = View(size=16, **EVERYTHING)
    draw = view.draw(np.arange(40), [[18, 18]] * 40, seed=2, epoch=3, view=1)
    fast, twin = both(view, images, draw)
    assert np.abs(fast - twin).max() < TOLERANCE / 0.224


@pytest.mark.parametrize("order", ORDERS[::5].tolist())
@pytest.mark.parametrize(
    "factors",
    [(0, 1, 1, 0), (5, 1, 1, 0), (1, 0, 1, 0), (1, 5, 1, 0), (1, 1, 0, 0), (1, 1, 5, 0), (1, 1, 1, 0.5)]
    + [(1, 1, 1, -0.5), (1, 1, 1, 1e-4), (1.8, 1.8, 1.8, 0.2), (0.2, 0.2, 0.2, -0.2), (1.7, 0.3, 1.9, 0.499)],
)
def test_extreme_colour_factors_equal_the_slow_twin(order, factors):
    images = np.concatenate([slow.smooth(2, 3, 9, 9), extreme_images(9)])
    draw = plain(np.tile(np.array([0, 0, 9, 9], np.int32), (len(images), 1)))._replace(
        order=np.tile(np.array(order, np.int8), (len(images), 1)),
        factors=np.tile(np.array(factors, np.float32), (len(images), 1)),
    )
    view = View(size=9, mean=(0.0,) * 3, std=(1.0,) * 3)
    fast, twin = both(view, images, draw)
    assert np.isfinite(fast).all() and np.abs(fast - twin).max() < TOLERANCE


def extreme_images(side: int) -> np.ndarray:
    """Black, white, the pure colours, greys, and colours a grey level apart."""
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    colours += [(255, 0, 255), (128, 128, 128), (128, 128, 127), (1, 0, 0), (254, 255, 255), (127, 128, 127)]
    return np.tile(np.array(colours, np.uint8)[:, :, None, None], (1, 1, side, side))


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_any_number_of_channels_without_colour(channels):
    unit: dict[str, Any] = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    view = View(size=16, jitter_p=0, grey_p=0, blur_p=1.0, solarise_p=0.5, **unit)
    images = slow.smooth(3, channels, 20, 20)
    draw = view.draw(np.arange(3), [[20, 20]] * 3, seed=0, epoch=0, view=0)
    fast, twin = both(view, images, draw)
    assert np.abs(fast - twin).max() < TOLERANCE


@pytest.mark.parametrize(("height", "width", "size"), [(1, 1, 8), (1, 1, 1), (2, 3, 1), (1, 700, 4), (700, 1, 4)])
def test_D11_smallest_and_longest_images(height, width, size):
    images = slow.smooth(6, 3, height, width)
    view = View(size=size, mean=(0.0,) * 3, std=(1.0,) * 3, **EVERYTHING)
    draw = view.draw(np.arange(6), [[height, width]] * 6, seed=0, epoch=0, view=0)
    fast, twin = both(view, images, draw)
    assert np.abs(fast - twin).max() < TOLERANCE


@pytest.mark.parametrize("sigma", [1e-6, 0.02, 0.1, 0.5, 2.0, 50.0])
@pytest.mark.parametrize("size", [1, 2, 5, 60])
def test_blur_equals_the_slow_twin(sigma, size):
    images = slow.smooth(2, 3, 60, 60)
    draw = plain(np.array([[0, 0, 60, 60]] * 2, np.int32))._replace(sigma=np.array([sigma] * 2, np.float32))
    fast, twin = both(View(size=size, mean=(0.0,) * 3, std=(1.0,) * 3), images, draw)
    assert np.abs(fast - twin).max() < TOLERANCE


def test_constant_images_stay_constant_through_everything():
    view = View(size=12, mean=(0.0,), std=(1.0,), grey_p=0.3, blur_p=0.7, jitter_p=0.0)
    images = np.full((20, 1, 30, 21), 77, np.uint8)
    draw = view.draw(np.arange(20), [[30, 21]] * 20, seed=0, epoch=0, view=0)
    assert (view.apply(images, draw) - 77 / 255).abs().max() < 1e-6


def test_identity_view_returns_the_pixels():
    images = slow.smooth(3, 3, 16, 16)
    view = View(size=16, mean=(0.0,) * 3, std=(1.0,) * 3, **BARE)
    draw = view.draw(np.arange(3), [[16, 16]] * 3, seed=0, epoch=0, view=0)
    assert np.abs(view.apply(images, draw).numpy() - images / 255).max() < 1e-6


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_solarise_inverts_at_the_threshold_and_above(threshold):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    draw = plain(np.array([[0, 0, 16, 16]], np.int32))._replace(solarise=np.ones(1, np.bool_))
    view = View(size=16, threshold=threshold, mean=(0.0,), std=(1.0,))
    expected = np.where(levels / 255 >= threshold, 1 - levels / 255, levels / 255)
    assert np.abs(view.apply(levels, draw).numpy() - expected).max() < 1e-6
