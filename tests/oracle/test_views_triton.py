"""The kernels of views on a GPU, run by triton's interpreter on the CPU, against the CPU's engine.

The interpreter takes some 0.1 s a tile, so images are tiny, and tiles smaller than on a GPU where there are to be
several. What it can't tell: races and registers. The first are excluded by design, the second compiled for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.views import View, render, triton_render
from nearfar.views.draw import ORDERS, Draw, plain
from nearfar.views.view import _wanted_on

triton = pytest.importorskip("triton")

pytestmark = pytest.mark.oracle

TOLERANCE = 2e-5
CPU = torch.device("cpu")


def on_gpu(images: Tensor, draw: Draw, monkeypatch, **settings: Any) -> Tensor:
    """`render`, with the images sent to the kernels as those on a GPU are."""
    with monkeypatch.context() as patch:
        patch.setattr(render, "_checked", lambda images, draws: images.contiguous())
        return on_cpu(images, draw, **settings)


def both(images: Tensor, draw: Draw, monkeypatch, **settings: Any) -> tuple[Tensor, Tensor]:
    return on_gpu(images, draw, monkeypatch, **settings), on_cpu(images, draw, **settings)


def on_cpu(images: Tensor, draw: Draw, *, channels_last: bool = False, dtype=torch.float32, **settings: Any) -> Tensor:
    """`render` of one view."""
    return render.render(images, render.Rendering(draw, **settings), channels_last=channels_last, dtype=dtype)[0]


def noise(count: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8)


def whole(images: Tensor, **changes: Any) -> Draw:
    """A draw that takes each image as it is, but for the changes: one for all samples, or one for each."""
    count, _, height, width = images.shape
    draw = plain(np.array([[0, 0, height, width]] * count, np.int32))
    fields = {name: np.asarray(value, getattr(draw, name).dtype) for name, value in changes.items()}
    return draw._replace(**{n: np.broadcast_to(v, getattr(draw, n).shape).copy() for n, v in fields.items()})


def agree(images: Tensor, draw: Draw, monkeypatch, **settings: Any) -> Tensor:
    """The view by the kernels, found equal to the CPU's."""
    found, expected = both(images, draw, monkeypatch, **settings)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.stride() == expected.stride()
    assert (found - expected).abs().max() < TOLERANCE
    return found


ALONE: list[dict[str, Any]] = [
    {"factors": [0.4, 1, 1, 0]},
    {"factors": [1.7, 1, 1, 0]},
    {"factors": [1, 0.3, 1, 0]},
    {"factors": [1, 1.8, 1, 0]},
    {"factors": [1, 1, 0.2, 0]},
    {"factors": [1, 1, 1.9, 0]},
    {"factors": [1, 1, 1, 0.17]},
    {"factors": [1, 1, 1, -0.5]},
    {"grey": True},
    {"flip": True},
    {"sigma": 1.1},
    {"solarise": True},
]


@pytest.mark.parametrize("change", ALONE, ids=str)
def test_each_operation_alone(change, monkeypatch):
    images = noise(1, 3, 7, 7)
    found = agree(images, whole(images, **change), monkeypatch, size=7)
    assert (found - on_cpu(images, whole(images), size=7)).abs().max() > 0.1


@pytest.mark.parametrize("first", range(4))
def test_every_order_of_the_colours(first, monkeypatch):
    order = ORDERS[ORDERS[:, 0] == first]
    images = noise(1, 3, 4, 4).expand(len(order), -1, -1, -1)
    found = agree(images, whole(images, order=order, factors=[1.7, 0.4, 1.8, 0.2]), monkeypatch, size=4)
    assert len(torch.unique(found.flatten(1), dim=0)) == len(order)


def test_extreme_colours(monkeypatch):
    levels = torch.tensor([0, 1, 127, 128, 254, 255], dtype=torch.uint8)
    every = torch.cartesian_prod(levels, levels, levels)[: 14 * 14]
    images = every.T.reshape(1, 3, 14, 14).expand(5, -1, -1, -1)
    factors = [(0, 1, 1, 0.5), (5, 5, 5, -0.5), (1, 0, 5, 1e-4), (5, 0, 1, 0.25), (1, 5, 0, 0.499)]
    found = agree(images, whole(images, factors=factors), monkeypatch, size=14, mean=[0.0] * 3, std=[1.0] * 3)
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("size", [5, 9])
def test_crops_with_margins_of_images_that_do_not_fill_their_canvas(size, monkeypatch):
    """Shrunk, enlarged, as they are, one pixel, beyond every edge; memory outside of an image is not looked at."""
    images = noise(6, 1, 12, 9)
    valid = np.array([[12, 9], [10, 5], [7, 9], [9, 9], [12, 3], [1, 1]], np.int32)
    boxes = np.array([[0, 0, 12, 9], [-3, -2, 13, 9], [-2, 4, 5, 9], [4, 3, 1, 1], [7, -4, 9, 9], [-4, -4, 9, 9]])
    flip = [False, True, True, False, False, True]
    draw = whole(images, boxes=boxes, valid=valid, flip=flip)
    found = agree(images, draw, monkeypatch, size=size)
    for image, (height, width) in zip(images, valid, strict=True):
        image[:, height:], image[:, :, width:] = 255, 255
    assert torch.equal(found, on_gpu(images, draw, monkeypatch, size=size))


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize(("size", "channels"), [(9, 3), (1, 3), (9, 1)])
def test_everything_together_over_several_tiles(size, channels, reflect, monkeypatch):
    monkeypatch.setattr(triton_render, "TILE", 8)
    view = View(size=size, pad=0.2, reflect=reflect, jitter_p=1.0, grey_p=0.0, solarise_p=0.5)
    images, sizes = noise(3, channels, size + 1, size + 4), [[size + 1, size + 4], [size, size + 4], [size + 1, 3]]
    draw = view.draw(np.arange(3), sizes, seed=3, epoch=0, view=0)
    draw = draw._replace(sigma=np.array([0, 0.9, 0], np.float32), grey=np.array([True, True, False]))
    agree(images, draw, monkeypatch, size=size)


@pytest.mark.parametrize("radius", [1, 4, 30])
def test_blur_reflects_within_its_reach(radius, monkeypatch):
    monkeypatch.setattr(triton_render, "TILE", 8)
    images = noise(5, 1, 6, 6)
    agree(images, whole(images, sigma=[0.01, 0.1, 0, 1, 40]), monkeypatch, size=6, radius=radius)


def test_solarise_begins_at_the_threshold(monkeypatch):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for threshold in (0.0, 0.3, 1.0):
        draw = whole(images, solarise=True)
        agree(images, draw, monkeypatch, size=16, threshold=threshold + 1e-4, mean=[0.0], std=[1.0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_bf16_in_either_layout_is_fp32_rounded(channels, channels_last, monkeypatch):
    images = noise(3, channels, 6, 6)
    factors, sigma = [(1, 1, 1, 0), (1, 0.5, 1, 0), (1, 1, 1, 0)], [0, 0, 0.8]
    draw, layout = whole(images, factors=factors, sigma=sigma), {"size": 6, "channels_last": channels_last}
    exact = agree(images, draw, monkeypatch, **layout)
    rounded, expected = both(images, draw, monkeypatch, **layout, dtype=torch.bfloat16)
    assert rounded.dtype == expected.dtype == torch.bfloat16 and rounded.stride() == expected.stride()
    # The interpreter may cut digits off where a GPU rounds: a unit of the last place in place of half of one.
    assert ((rounded.float() - exact).abs() <= 2**-7 * exact.abs()).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_go_each_alone(channels, monkeypatch):
    images = noise(2, channels, 5, 5)
    agree(images, whole(images, factors=[(1, 1, 1, 0), (1.2, 0.5, 1, 0)], sigma=[0.7, 0]), monkeypatch, size=5)


def test_a_batch_too_large_for_the_planes_goes_in_parts(monkeypatch):
    images = noise(3, 1, 5, 5)
    draw = whole(images, factors=[(1, 0.5, 1, 0), (1, 1, 1, 0), (1, 1.5, 1, 0)], sigma=[0, 0.7, 0.5])
    at_once = on_gpu(images, draw, monkeypatch, size=5)
    monkeypatch.setattr(triton_render, "SCRATCH", 2 * 4 * 25)
    launched = []
    monkeypatch.setattr(triton_render, "_launch", _counting(launched, triton_render._launch))
    assert torch.equal(on_gpu(images, draw, monkeypatch, size=5), at_once)
    assert launched == [2, 1]


def _counting(launched: list[int], launch):
    def counted(output, *rest):
        launched.append(len(output))
        launch(output, *rest)

    return counted


def test_an_empty_batch_has_no_views(monkeypatch):
    images = noise(0, 3, 5, 5)
    draw = View(size=4).draw([], np.empty((0, 2), int), seed=0, epoch=0, view=0)
    assert on_gpu(images, draw, monkeypatch, size=4).shape == (0, 3, 4, 4)


def test_views_of_a_cpu_are_made_on_it_in_fp32_and_contiguous():
    assert render.views_on(CPU) == CPU and _wanted_on(CPU) == {}


def test_views_on_a_gpu_have_the_type_of_the_ambient_autocast():
    gpu = torch.device("cuda", 0)
    assert _wanted_on(gpu) == {"channels_last": True, "dtype": torch.float32}
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        assert _wanted_on(gpu) == {"channels_last": True, "dtype": torch.bfloat16}
    finally:
        torch.set_autocast_enabled("cuda", False)


COMPILE = """
import re, subprocess, sys
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from nearfar.views import triton_kernel as kernels

TYPES = {"whole": "*i32", "images": "*u8", "output": "*bf16", "height": "i32", "width": "i32", "threshold": "fp32"}
size, channels, capability, folder = *map(int, sys.argv[1:4]), Path(sys.argv[4])
tile = min(32, 1 << (size - 1).bit_length())
tiles = (-(-size // tile)) ** 2
shared = {"SIZE": size, "TILE": tile, "CHANNELS": channels, "CHANNELS_LAST": channels > 1}
for kernel, constants in [
    (kernels.begun, {}),
    (kernels.contrasted, {"TILES": tiles, "POWER": 1 << (tiles - 1).bit_length()}),
    (kernels.blurred, {"RADIUS": max(size // 20, 1), "DOWN": False}),
    (kernels.blurred, {"RADIUS": max(size // 20, 1), "DOWN": True}),
]:
    constants, names = {**shared, **constants}, kernel.arg_names
    signature = {n: "constexpr" if n in constants else TYPES.get(n, "*fp32") for n in names}
    source = ASTSource(kernel, signature, {(names.index(n),): value for n, value in constants.items()})
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert built.metadata.shared <= 48 * 1024, built.metadata.shared
    (folder / "built").write_bytes(built.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    used = subprocess.run([tool, "-res-usage", folder / "built"], capture_output=True, text=True, check=True).stdout
    assert "STACK:0" in used and "LOCAL:0" in used and int(re.findall(r"REG:(\\d+)", used)[0]) <= 168, used
"""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "channels", "capability"), [(32, 1, 90), (96, 3, 80), (224, 3, 90)])
def test_the_kernels_compile_and_keep_to_their_registers(size, channels, capability, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    arguments = [str(n) for n in (size, channels, capability)]
    command = [sys.executable, "-c", COMPILE, *arguments, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
