"""Views against torchvision.transforms.v2.functional in float64, on photographs. nearfar itself never imports it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.views import CentreCrop, View
from nearfar.views.draw import ORDERS, plain

transforms = pytest.importorskip("torchvision.transforms.v2.functional")

pytestmark = pytest.mark.oracle

TOLERANCE = 5e-6  # of values in [0, 1]; 1.2e-6 measured
CIFAR = Path(os.environ.get("NEARFAR_DATA", Path(__file__).parents[3] / "shared/data")) / "cifar10/test.parquet"


def small_photos(count: int) -> list[Image.Image]:
    """32 px: CIFAR-10 where there is some, otherwise pieces of scikit-learn's photographs."""
    if CIFAR.exists():
        rows = pytest.importorskip("pyarrow.parquet").read_table(CIFAR, columns=["image"]).slice(0, count)
        return [Image.open(io.BytesIO(encoded)).convert("RGB") for encoded in rows["image"].to_pylist()]
    pieces = large_photos(count)
    return [piece.resize((32, 32), Image.Resampling.LANCZOS) for piece in pieces]


def large_photos(count: int) -> list[Image.Image]:
    """427 x 640 photographs of a flower and a temple, and their mirror images."""
    photos = pytest.importorskip("sklearn.datasets").load_sample_images().images
    four = [Image.fromarray(photo[:, ::step]) for step in (1, -1) for photo in photos]
    return [four[k % 4] for k in range(count)]


def photos(height: int, width: int, count: int = 6) -> torch.Tensor:
    """uint8 `[count, 3, height, width]`: different pieces of photographs."""
    if (height, width) == (32, 32):
        arrays = [np.asarray(photo) for photo in small_photos(count)]
    else:
        pieces = [p.crop((20 * k, 10 * k, 420 + 20 * k, 300 + 10 * k)) for k, p in enumerate(large_photos(count))]
        arrays = [np.asarray(p.resize((width, height), Image.Resampling.LANCZOS)) for p in pieces]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def jittered(image: torch.Tensor, order, factors) -> torch.Tensor:
    operations = [
        transforms.adjust_brightness,
        transforms.adjust_contrast,
        transforms.adjust_saturation,
        transforms.adjust_hue,
    ]
    for number in order:
        if factors[number] != (0 if number == 3 else 1):
            image = operations[number](image, float(factors[number]))
    return image


def oracle(view: View, image: torch.Tensor, draw, b: int, mean, std) -> torch.Tensor:
    """Sample b of a draw, by torchvision in float64: in float32 its resize itself is off by 1e-5 at 224 px."""
    top, left, height, width = draw.boxes[b].tolist()
    image = transforms.to_dtype(image, torch.float64, scale=True)
    image = transforms.resized_crop(image, top, left, height, width, [view.size, view.size], antialias=True)
    image = transforms.horizontal_flip(image) if draw.flip[b] else image
    image = jittered(image, draw.order[b], draw.factors[b])
    if draw.grey[b]:
        image = transforms.rgb_to_grayscale(image, num_output_channels=image.shape[0])
    if draw.sigma[b] > 0:
        side = 2 * view.blur_radius + 1
        image = transforms.gaussian_blur(image, [side, side], [float(draw.sigma[b])] * 2)
    image = transforms.solarize(image, view.threshold) if draw.solarise[b] else image
    return transforms.normalize(image, list(mean), list(std))


def worst(view: View, images: torch.Tensor, draw, mean, std) -> float:
    """Largest difference, in units of [0, 1]."""
    expected = torch.stack([oracle(view, image, draw, b, mean, std) for b, image in enumerate(images)])
    return ((view.apply(images, draw) - expected).abs().amax((0, 2, 3)) * torch.tensor(std)).max().item()


SHAPES = [(32, 32, 32), (96, 96, 96), (256, 256, 224), (427, 640, 224), (61, 83, 48), (101, 57, 97), (33, 29, 128)]


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_whole_view(height, width, size, channels):
    rounds, images = (8 if size < 200 else 2), photos(height, width)[:, :channels].contiguous()
    view = View(size=size, jitter_p=0.9, grey_p=0.2, blur_p=0.5, solarise_p=0.2)
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,), (0.25,))
    for epoch in range(rounds):
        draw = view.draw(np.arange(len(images)), [[height, width]] * len(images), seed=0, epoch=epoch, view=0)
        assert worst(view, images, draw, mean, std) < TOLERANCE


def case(images: torch.Tensor, **changes):
    count, _, height, width = images.shape
    fields = {name: np.repeat(value, count, axis=0) for name, value in changes.items()}
    return plain(np.array([[0, 0, height, width]] * count, np.int32))._replace(**fields)


@pytest.mark.parametrize("box", [(0, 0, 61, 83), (3, 7, 40, 40), (10, 0, 1, 83), (60, 82, 1, 1), (5, 5, 48, 48)])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_resize(box, flip):
    images = photos(61, 83)
    draw = case(images, boxes=np.array([box], np.int32), flip=np.array([flip]))
    assert worst(View(size=48), images, draw, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) < TOLERANCE


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize(("operation", "factors"), [(0, (0, 0.3, 1.7)), (1, (0, 0.3, 1.7)), (2, (0, 0.3, 1.7))])
def test_brightness_contrast_saturation(side, operation, factors):
    images = photos(side, side)
    for factor in factors:
        changed = np.array([[1, 1, 1, 0]], np.float32)
        changed[0, operation] = factor
        draw = case(images, factors=changed)
        assert worst(View(size=side, mean=(0,) * 3, std=(1,) * 3), images, draw, (0,) * 3, (1.0,) * 3) < TOLERANCE


@pytest.mark.parametrize("turns", [-0.5, -0.2, -1e-3, 1e-3, 0.17, 1 / 3, 0.5])
def test_hue(turns):
    images = photos(96, 96)
    draw = case(images, factors=np.array([[1, 1, 1, turns]], np.float32))
    assert worst(View(size=96, mean=(0,) * 3, std=(1,) * 3), images, draw, (0,) * 3, (1.0,) * 3) < TOLERANCE


@pytest.mark.parametrize("order", ORDERS.tolist())
def test_every_order_of_the_jitter(order):
    images = photos(32, 32)
    changes = {"order": np.array([order], np.int8), "factors": np.array([[1.6, 1.7, 1.8, -0.15]], np.float32)}
    view = View(size=32, mean=(0,) * 3, std=(1,) * 3)
    assert worst(view, images, case(images, **changes), (0,) * 3, (1.0,) * 3) < TOLERANCE


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 2.0])
@pytest.mark.parametrize("side", [32, 96, 224])
def test_blur(side, sigma):
    images = photos(side, side)
    draw = case(images, sigma=np.array([sigma], np.float32))
    assert worst(View(size=side, mean=(0,) * 3, std=(1,) * 3), images, draw, (0,) * 3, (1.0,) * 3) < TOLERANCE


@pytest.mark.parametrize("field", ["grey", "solarise"])
def test_grey_and_solarise(field):
    images = photos(96, 96)
    draw = case(images, **{field: np.array([True])})
    assert worst(View(size=96, mean=(0,) * 3, std=(1,) * 3), images, draw, (0,) * 3, (1.0,) * 3) < TOLERANCE


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_centre_crop(height, width, size):
    images, side = photos(height, width), min(height, width)
    expected = transforms.center_crop(transforms.to_dtype(images, torch.float64, scale=True), [side, side])
    expected = transforms.resize(expected, [size, size], antialias=True)
    crop = CentreCrop(size, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert (crop(images, [[height, width]] * len(images)) - expected).abs().max() < TOLERANCE


def test_crops_have_torchvision_s_distribution():
    """Areas and ratios drawn by both on an oblong image, where many attempts fail, differ by chance alone."""
    stats = pytest.importorskip("scipy.stats")
    from torchvision.transforms.v2 import RandomResizedCrop

    count, image = 3000, torch.zeros(1, 60, 200)
    torch.manual_seed(0)
    theirs = [RandomResizedCrop(8).make_params([image]) for _ in range(count)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in theirs])
    ours = View(size=8).draw(np.arange(count), [[60, 200]] * count, seed=0, epoch=0, view=0).boxes
    for kind in (
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: b[:, 2],
        lambda b: b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
    ):
        assert stats.ks_2samp(kind(ours), kind(theirs)).pvalue > 1e-3
