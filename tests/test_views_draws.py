"""The distribution of the draws, and crops against their slow twin."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import reference_views as slow
from scipy import stats

from nearfar.randomness import uniforms
from nearfar.views import View
from nearfar.views.draw import AREA, LEFT, RATIO, SLOTS, TOP


def test_draw_of_apply_rates_and_orders():
    count, view = 24_000, View(size=32, flip=0.5, jitter_p=0.8, grey_p=0.2, blur_p=0.3, solarise_p=0.1)
    draw = view.draw(np.arange(count), [[32, 32]] * count, seed=0, epoch=0, view=0)
    jittered = (draw.factors != [1, 1, 1, 0]).any(1)
    pairs = ((draw.flip, 0.5), (jittered, 0.8), (draw.grey, 0.2), (draw.sigma > 0, 0.3), (draw.solarise, 0.1))
    for seen, rate in pairs:
        assert stats.binomtest(int(seen.sum()), count, rate).pvalue > 1e-3
    orders = Counter(map(tuple, draw.order.tolist()))
    assert len(orders) == 24 and stats.chisquare(list(orders.values())).pvalue > 1e-3
    for column, (low, high) in zip(draw.factors[jittered].T, [(0.2, 1.8)] * 3 + [(-0.2, 0.2)], strict=True):
        assert stats.kstest(column, "uniform", (low, high - low)).pvalue > 1e-3
    assert stats.kstest(draw.sigma[draw.sigma > 0], "uniform", (0.1, 1.9)).pvalue > 1e-3


def test_draw_of_factors_stops_at_zero():
    view = View(size=32, jitter=(1.5, 1.5, 1.5, 0.5), jitter_p=1.0)
    factors = view.draw(np.arange(4000), [[32, 32]] * 4000, seed=0, epoch=0, view=0).factors
    assert factors[:, :3].min() >= 0 and factors[:, :3].max() <= 2.5
    assert stats.kstest(factors[:, 0], "uniform", (0, 2.5)).pvalue > 1e-3
    assert stats.kstest(factors[:, 3], "uniform", (-0.5, 1)).pvalue > 1e-3


def test_draw_of_area_ratio_and_position():
    """On a large square with small crops every attempt fits, so area and log ratio are exactly uniform."""
    side, count = 2000, 20_000
    view = View(size=32, scale=(0.05, 0.4))
    top, left, height, width = view.draw(np.arange(count), [[side, side]] * count, seed=0, epoch=0, view=0).boxes.T
    area, log_ratio = height * width / side**2, np.log(width / height)
    assert stats.kstest(area, "uniform", (0.05, 0.35)).pvalue > 1e-3
    assert stats.kstest(log_ratio, "uniform", (np.log(3 / 4), np.log(16 / 9))).pvalue > 1e-3
    for start, length in ((top, height), (left, width)):
        assert stats.kstest((start + 0.5) / (side - length + 1), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(top / (side - height), left / (side - width))[0, 1]) < 5 / count**0.5


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 40), (3, 3), (1, 9), (90, 30), (1, 1)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.5, 0.6), (3.0, 4.0)])
def test_crops_equal_the_slow_twin(height, width, ratio):
    view = View(size=8, scale=(0.2, 1.0), ratio=ratio)
    draw = view.draw(np.arange(200), [[height, width]] * 200, seed=4, epoch=0, view=0)
    for box, row in zip(draw.boxes.tolist(), uniforms(4, 0, np.arange(200), 0, SLOTS), strict=True):
        columns = {"area": row[AREA:RATIO], "ratio": row[RATIO:TOP], "top": row[[TOP]], "left": row[[LEFT]]}
        expected = slow.crop_box(lambda kind, k, c=columns: c[kind][k], height, width, (0.2, 1.0), ratio)
        assert tuple(box) == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (4000, 6000)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.01, 0.02), (50.0, 60.0)])
def test_D11_crops_of_extreme_shapes_are_inside(shape, ratio):
    view = View(size=8, scale=(1e-4, 1.0), ratio=ratio)
    top, left, height, width = view.draw(np.arange(500), [shape] * 500, seed=0, epoch=0, view=0).boxes.T
    assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
    assert (top + height <= shape[0]).all() and (left + width <= shape[1]).all()


def test_draw_uses_each_sample_s_own_size():
    view, sizes = View(size=8, scale=(1.0, 1.0)), [[10, 10], [200, 200], [10, 10]]
    boxes = view.draw([0, 1, 2], sizes, seed=0, epoch=0, view=0).boxes
    assert boxes[0, 2:].max() <= 10 < 150 < boxes[1, 2:].min()
