"""Vision transformers: formula, positions, patches that are hidden, names."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.encoders import build, pooled
from nearfar.encoders.vit import ViT, side_of_patch, sincos
from nearfar.errors import UsageError
from nearfar.views import View, Views


def net(**settings: int) -> ViT:
    given = {"width": 16, "layers": 1, "heads": 4, **settings}
    shape = (given.pop("width"), given.pop("layers"), given.pop("heads"))
    return ViT(*shape, **{"channels": 3, "size": 16, "patch": 4, **given}).double()


def views(count: int = 2, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64)


def hide(view: Tensor, *places: tuple[int, int], patch: int = 4) -> Tensor:
    view = view.clone()
    for row, column in places:
        view[..., row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = math.nan
    return view


def states(vit: ViT, image: Tensor, places: list[tuple[int, int]]) -> Tensor:
    """One block on some patches of one image: loops over patches, heads and places."""
    block, p = vit.blocks[0], vit.patch
    rows = []
    for row, column in places:
        pixels = image[:, row * p : (row + 1) * p, column * p : (column + 1) * p].flatten()
        token = vit.patches.weight @ pixels + vit.patches.bias
        rows.append(token + torch.stack(position(row, column, vit.width)))
    x = torch.stack(rows)
    q, k, v = F.linear(block.norm_attention(x), block.query_key_value.weight, block.query_key_value.bias).chunk(3, 1)
    mixed, each = torch.zeros_like(x), vit.width // vit.heads
    for place in range(len(x)):
        for head in range(vit.heads):
            part = slice(each * head, each * (head + 1))
            mixed[place, part] = torch.softmax(k[:, part] @ q[place, part] / math.sqrt(each), 0) @ v[:, part]
    x = x + block.mix(mixed)
    return vit.norm(x + block.narrow(F.gelu(block.widen(block.norm_mlp(x)))))


def position(row: int, column: int, width: int) -> list[Tensor]:
    found = []
    for place in (row, column):
        for function in (math.sin, math.cos):
            found += [function(place / 10000 ** (k / (width / 4))) for k in range(width // 4)]
    return [torch.tensor(value, dtype=torch.float64) for value in found]


def test_the_network_is_its_formula() -> None:
    vit, images = net(), views()
    found = vit(images)[-1]
    assert found.shape == (2, 16, 4, 4)
    every = [(row, column) for row in range(4) for column in range(4)]
    for image, one in zip(images, found, strict=True):
        torch.testing.assert_close(one.flatten(1).T, states(vit, image, every), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns", "width"), [(3, 5, 16), (7, 2, 4), (14, 14, 192)])
def test_positions(rows: int, columns: int, width: int) -> None:
    found = sincos(rows, columns, width, like=torch.zeros((), dtype=torch.float64))
    assert found.shape == (rows * columns, width)
    for row in range(rows):
        for column in range(columns):
            expected = torch.stack(position(row, column, width))
            torch.testing.assert_close(found[row * columns + column], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.square().sum(1), torch.full((rows * columns,), width / 2, dtype=torch.float64))
    assert (torch.cdist(found, found) + 10 * torch.eye(len(found))).min() > 0.1


def test_hidden_patches_are_left_out() -> None:
    """The states of the others are those of a network that never heard of the hidden ones."""
    vit, images = net(), views()
    masked = torch.cat([hide(images[:1], (0, 1), (2, 3)), hide(images[1:], (1, 0), (3, 3))])
    found = vit(masked)[-1]
    for number, gone in enumerate([{(0, 1), (2, 3)}, {(1, 0), (3, 3)}]):
        there = [(row, column) for row in range(4) for column in range(4) if (row, column) not in gone]
        expected = states(vit, images[number], there)
        for (row, column), state in zip(there, expected, strict=True):
            torch.testing.assert_close(found[number, :, row, column], state, rtol=1e-10, atol=1e-12)
        for row, column in gone:
            assert found[number, :, row, column].isnan().all()
    assert int(found.isnan().sum()) == 4 * 16


def test_no_gradient_is_spoilt_by_what_is_hidden() -> None:
    vit = net(layers=2)
    found = vit(hide(views(), (0, 0), (1, 2)))[-1]
    found[~found.isnan()].square().sum().backward()
    for name, parameter in vit.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert vit.patches.weight.grad is not None and vit.patches.weight.grad.abs().sum() > 0


def test_every_place_looks_at_every_other() -> None:
    vit, image = net(), views(1)
    before = vit(image)[-1]
    for row, column in ((0, 0), (3, 3)):
        other = image.clone()
        other[..., row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 1
        assert (vit(other)[-1] - before).abs().amax(1).min() > 1e-6


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 12), (4, 4), (32, 8)])
def test_views_of_other_sizes(height: int, width: int) -> None:
    found = net()(torch.randn(2, 3, height, width, dtype=torch.float64))
    assert found[-1].shape == (2, 16, height // 4, width // 4)
    assert pooled(found).shape == (2, 16)


def test_several_sizes_of_one_recipe_go_through() -> None:
    crops = Views(View(size=16), View(size=8)).views
    assert [net()(views(2, view.size))[-1].shape[-1] for view in crops] == [4, 2]


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (torch.zeros(1, 3, 18, 16), "18 x 16 px in patches of 4 px"),
        (torch.zeros(1, 3, 16, 2), "16 x 2 px"),
        (torch.cat([hide(torch.zeros(1, 3, 16, 16), (0, 0)), torch.zeros(1, 3, 16, 16)]), "0 to 1 of 16 patches"),
        (torch.full((2, 3, 16, 16), math.nan), "16 to 16 of 16 patches"),
    ],
)
def test_views_that_do_not_fit_are_refused(view: Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        net().float()(view)


@pytest.mark.parametrize(
    "change",
    [{"heads": 3}, {"layers": 0}, {"width": 0}, {"width": 6, "heads": 1}, {"patch": 5}, {"patch": 0}, {"size": 31}],
)
def test_numbers_that_do_not_fit_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="ViT"):
        net(**change)


def test_side_of_patch() -> None:
    sides = {
        224: 16,
        176: 16,
        160: 16,
        200: 20,
        384: 16,
        128: 16,
        96: 12,
        84: 12,
        64: 8,
        48: 6,
        32: 4,
        28: 4,
        16: 2,
        8: 2,
    }
    assert {size: side_of_patch(size) for size in sides} == sides
    for size in range(8, 400):
        try:
            side = side_of_patch(size)
        except UsageError:
            continue
        assert size % side == 0 and 4 <= 2 * size // side <= 2 * size


@pytest.mark.parametrize(("size", "instead"), [(31, 32), (62, 64), (223, 224), (11, 8)])
def test_sizes_that_fall_into_no_patches_name_one_that_does(size: int, instead: int) -> None:
    with pytest.raises(UsageError, match=f"--size {instead}"):
        side_of_patch(size)
    assert side_of_patch(instead)


def parameters(width: int, layers: int, inputs: int) -> int:
    block = 4 * width * (width + 1) + width * 4 * (width + 1) + width * (4 * width + 1) + 4 * width
    return width * (inputs + 1) + layers * block + 2 * width


@pytest.mark.parametrize(
    ("name", "size", "patch", "width", "layers", "heads"),
    [
        ("vit-mini", 32, 4, 128, 6, 4),
        ("vit-mini-x2", 28, 4, 256, 6, 8),
        ("vit-tiny", 96, 12, 192, 12, 3),
        ("vit-tiny-x2", 224, 16, 384, 12, 6),
        ("vit-small", 224, 16, 384, 12, 6),
        ("vit-base", 224, 16, 768, 12, 12),
    ],
)
def test_names(name: str, size: int, patch: int, width: int, layers: int, heads: int) -> None:
    with torch.device("meta"):
        found = build(name, channels=3, size=size)
    assert isinstance(found, ViT)
    assert (found.patch, found.width, len(found.blocks), found.heads) == (patch, width, layers, heads)
    assert sum(p.numel() for p in found.parameters()) == parameters(width, layers, 3 * patch**2)
    assert f"patches of {patch} px, {layers} layers, width {width}, {heads} heads" in found.describe()
    assert found.describe() in repr(found) and build(found, channels=3, size=size) is found


def test_query_key_and_value_begin_as_three_matrices() -> None:
    block = net(width=64).blocks[0]
    bound = math.sqrt(6 / (64 + 64))
    for matrix in block.query_key_value.weight.chunk(3):
        assert 0.98 * bound < matrix.abs().max() <= bound
        assert matrix.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert 0.98 < block.widen.weight.abs().max() / math.sqrt(6 / (64 + 256)) <= 1
    assert all(p.eq(0).all() for n, p in block.named_parameters() if n.endswith("bias"))


def test_every_weight_gets_a_gradient_and_frozen_patches_none() -> None:
    for frozen in (False, True):
        vit = net(layers=2)
        vit.patches.requires_grad_(not frozen)
        pooled(vit(views(4)))[:, 0].square().sum().backward()
        without = {name for name, p in vit.named_parameters() if p.grad is None or not p.grad.abs().sum()}
        assert without == ({"patches.weight", "patches.bias"} if frozen else set())


@pytest.mark.parametrize("masked", [False, True])
def test_half_precision(masked: bool) -> None:
    vit, view = net(layers=2), views()
    view = hide(view, (0, 0), (2, 1)) if masked else view
    expected = vit(view)[-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = vit.float()(view.float())[-1]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0.1, atol=0.1, equal_nan=True)


def test_memory_format_does_not_change_the_result() -> None:
    vit, view = net(), hide(views(), (1, 1))
    found = vit(view.contiguous(memory_format=torch.channels_last))[-1]
    torch.testing.assert_close(found, vit(view)[-1], rtol=1e-12, atol=1e-13, equal_nan=True)
