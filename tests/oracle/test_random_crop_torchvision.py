"""Random crops of padded images against torchvision's RandomCrop. nearfar itself never imports it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from nearfar.views import View, random_crop

transforms = pytest.importorskip("torchvision.transforms.v2")

pytestmark = pytest.mark.oracle

UNIT = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def noise(count: int, size: int) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, size, size), dtype=torch.uint8)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize(("size", "padding"), [(32, 4), (28, 4), (84, 8)])
def test_views_are_crops_that_torchvision_makes(size, padding, mode):
    images, view = noise(40, size), random_crop(size, pad=padding / size, reflect=mode == "reflect", **UNIT)
    draw = view.draw(np.arange(40), [[size, size]] * 40, seed=0, epoch=0, view=0)
    crop = transforms.RandomCrop(size, padding=padding, padding_mode=mode)
    for made, image, box, flip in zip(view.apply(images, draw), images, draw.boxes, draw.flip, strict=True):
        chosen = crop.make_params([image]) | {"top": int(box[0]) + padding, "left": int(box[1]) + padding}
        expected = crop.transform(image, chosen)
        expected = transforms.functional.horizontal_flip(expected) if flip else expected
        assert (made - expected / 255).abs().max() < 1e-6


def test_the_view_of_the_documentation_is_random_crop():
    assert random_crop(32, pad=1 / 8, jitter_p=0.8, grey_p=0.2, blur_p=0.5) == View(
        size=32, pad=1 / 8, scale=(0.64, 0.64), ratio=(1.0, 1.0)
    )


def test_places_have_torchvision_s_distribution():
    stats = pytest.importorskip("scipy.stats")
    count, image = 6000, torch.zeros(3, 16, 16, dtype=torch.uint8)
    crop = transforms.RandomCrop(16, padding=2)
    theirs = Counter((p["top"], p["left"]) for p in (crop.make_params([image]) for _ in range(count)))
    draw = random_crop(16, pad=1 / 8).draw(np.arange(count), [[16, 16]] * count, seed=0, epoch=0, view=0)
    ours = Counter((top + 2, left + 2) for top, left in draw.boxes[:, :2].tolist())
    assert set(ours) == set(theirs) and len(ours) == 25
    assert stats.chi2_contingency([[ours[p] for p in ours], [theirs[p] for p in ours]]).pvalue > 1e-3
