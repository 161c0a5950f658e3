"""AMDIM and YADIM: the network without padding, comparisons across scales, the penalty, the flip that views share."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from nearfar import encoders, extract, similarity
from nearfar.encoders.amdim import AmdimNet, Block
from nearfar.encoders.patches import PatchGrid
from nearfar.errors import UsageError
from nearfar.extract.scales import CELL, LastMap, Scales, across_scales, across_views, map_shapes
from nearfar.losses import infonce
from nearfar.losses.penalty import mean_square, penalised
from nearfar.method import Batch, Contrast, Method, Pairs, chance
from nearfar.methods.amdim import amdim
from nearfar.methods.yadim import yadim
from nearfar.randomness import uniforms
from nearfar.views import View, Views
from nearfar.views.shared import SharedFlip

SIDES = {
    32: [30, 30, 14, 7, 5, 3, 1],
    64: [62, 30, 14, 7, 5, 3, 1],
    128: [64, 62, 30, 14, 7, 5, 3, 1],
}
SEEN = {32: (8, 4), 64: (16, 8), 128: (35, 16)}
"""Pixels that a cell of the 7x7 map sees, and how far apart neighbours are."""


def awake(net: AmdimNet) -> AmdimNet:
    """With the 1x1 that start at 0 drawn, in fp64: all of the network takes part."""
    for block in net.modules():
        if isinstance(block, Block):
            nn.init.normal_(block.conv2.weight, std=block.conv2.in_channels**-0.5)
    return net.double()


def some_batch(count: int = 6, *, size: int = 32, epoch: int = 0, seed: int = 1) -> Batch:
    images = np.random.default_rng(seed).integers(256, size=(count, 3, size, size), dtype=np.uint8)
    ids = torch.arange(count) * 7 + 3
    return Batch(torch.from_numpy(images), torch.full((count, 2), size), ids, seed=seed, epoch=epoch)


def without_images(count: int, *, epoch: int = 0) -> Batch:
    return replace(some_batch(count, size=1, epoch=epoch), inputs=torch.zeros(count, 1))


def narrow() -> AmdimNet:
    return AmdimNet(4, 2, channels=3, size=32)


# The network


@pytest.mark.parametrize("size", SIDES)
def test_maps_have_the_sides_of_the_paper(size: int) -> None:
    found: list[tuple[int, int]] = []
    with torch.device("meta"):
        net = AmdimNet(2, 2, channels=3, size=size)
        steps = [m for m in net.stem if not isinstance(m, nn.ReLU)] + list(net.stages)
        for step in steps:
            step.register_forward_hook(lambda module, given, made: found.append((made.shape[-1], made.shape[1])))
        maps = net(torch.zeros(1, 3, size, size))
    assert [side for side, _ in found] == SIDES[size]
    assert [m.shape[-1] for m in maps] == [7, 5, 3, 1]
    assert {m.shape[1] for m in maps} == {net.width} == {(2 * 4) if size == 32 else (2 * 8)}
    assert [width for side, width in found if side == 14] == [net.width // 2]


@pytest.mark.parametrize("size", SIDES)
def test_a_cell_sees_its_own_part_of_the_view(size: int) -> None:
    sight, stride = SEEN[size]
    view = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    awake(AmdimNet(2, 2, channels=3, size=size))(view)[0][0, :, 3, 2].sum().backward()
    assert view.grad is not None
    rows, columns = (view.grad.abs().sum((0, 1)).sum(axis).nonzero().flatten() for axis in (1, 0))
    margin = 2 if size == 128 else 0
    for cell, seen in ((3, rows), (2, columns)):
        assert (int(seen[0]), int(seen[-1])) == (cell * stride - margin, cell * stride - margin + sight - 1)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_moving_the_view_by_the_stride_moves_every_map_by_a_cell(size: int, number: int) -> None:
    stride = SEEN[size][1]
    world = torch.randn(1, 3, size + stride, size + stride, dtype=torch.float64)
    net = awake(AmdimNet(2, 2, channels=3, size=size))
    here = net(world[..., :size, :size])[number]
    there = net(world[..., stride:, stride:])[number]
    assert here.std() > 1e-6
    torch.testing.assert_close(there[..., :-1, :-1], here[..., 1:, 1:], rtol=1e-12, atol=1e-12)


def test_a_padded_network_does_not_move_its_maps_so() -> None:
    """What the test above tells apart: a convolution with padding sees the border."""
    conv = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)).double()
    world = torch.randn(1, 3, 36, 36, dtype=torch.float64)
    here, there = conv(world[..., :32, :32]), conv(world[..., 4:, 4:])
    assert (there[..., :-1, :-1] - here[..., 1:, 1:]).abs().max() > 1e-3


def test_the_one_padding_is_made_of_pixels() -> None:
    """A plain view stays plain; with zeros around it the stem would see an edge."""
    made = AmdimNet(2, 1, channels=3, size=128).stem[0](torch.ones(1, 3, 128, 128))
    torch.testing.assert_close(made, made[..., :1, :1].expand_as(made), rtol=1e-5, atol=1e-6)


def test_a_block_starts_as_its_average() -> None:
    block, x = Block(2, 5, 4, 2), torch.randn(3, 2, 10, 10)
    expected = torch.zeros(3, 5, 4, 4)
    for i in range(4):
        for j in range(4):
            expected[:, :2, i, j] = x[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4].mean((2, 3))
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-6)


def test_the_network_has_the_stated_size() -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in AmdimNet(base, depth, channels=3, size=32).parameters())
            for base, depth in ((320, 10), (64, 2))
        ]
    assert [round(count / 1e5) / 10 for count in counts] == [153.8, 2.7]
    assert AmdimNet(2, 1, channels=1, size=64, factor=3).width == 48


def test_views_of_another_size_are_refused() -> None:
    with pytest.raises(UsageError, match="--size 32"):
        AmdimNet(4, 2, channels=3, size=28)
    with pytest.raises(UsageError, match="--size 128"):
        AmdimNet(4, 2, channels=3, size=224)


def test_chunks_have_exactly_the_gradient_of_the_batch() -> None:
    torch.manual_seed(2)
    method = amdim(encoder=awake(narrow()), size=32, width=4)
    whole, parts = Contrast(method).double(), Contrast(method, chunk=2).double()
    parts.load_state_dict(whole.state_dict())
    for model in (whole, parts):
        views = model.views
        model.views = lambda batch, views=views: [view.double() for view in views(batch)]
        model(some_batch()).backward()
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        assert one.grad is not None and one.grad.abs().sum() > 0
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-11)


# What is compared


def slow_amdim(
    views: tuple[Tensor, Tensor], cells: tuple[int, ...], chosen: Tensor, clip: float, penalty: float, denominator: str
) -> Tensor:
    """The loss of two views `[B, sum of cells, D]` by nested loops over images, cells and scores."""
    batch, width = views[0].shape[0], views[0].shape[2]
    starts = [sum(cells[:k]) for k in range(len(cells) + 1)]
    loss = views[0].new_zeros(())
    for a, b in ((0, 1), (1, 0)):
        tasks = [(0, k, False) for k in range(1, len(cells))] + [(1, 1, True)]
        for _, target, from_cell in tasks:
            count, squares = cells[target], []
            for i in range(batch):
                source = views[a][i, starts[1] + int(chosen[i, a])] if from_cell else views[a][i, 0]
                raw = [
                    [(source @ views[b][j, starts[target] + m]) / width**0.5 for m in range(count)]
                    for j in range(batch)
                ]
                squares += [s**2 for row in raw for s in row]
                scores = [[clip * torch.tanh(s / clip) for s in row] for row in raw]
                others = sum(torch.exp(s) for j in range(batch) if j != i for s in scores[j])
                own = sum(torch.exp(s) for s in scores[i])
                for s in scores[i]:
                    below = {"own_and_negatives": torch.exp(s) + others, "all": own + others, "negatives": others}
                    loss = loss + (torch.log(below[denominator]) - s) / (batch * count) / 2
            loss = loss + penalty * torch.stack(squares).mean() / 2
    return loss


@pytest.mark.parametrize("denominator", ["own_and_negatives", "all", "negatives"])
def test_loss_and_gradient_are_those_of_nested_loops(denominator: str) -> None:
    draw, cells, batch = torch.Generator().manual_seed(4), (1, 4, 9), without_images(4)
    views = [torch.randn(4, 14, 5, generator=draw, dtype=torch.float64).mul(3).requires_grad_() for _ in range(2)]
    loss = partial(penalised, loss=partial(infonce, temperature=1.0, denominator=denominator), penalty=0.05)
    pairs = across_scales(views, views, batch, None, cells=cells)
    found = torch.stack([p.weight * loss(p, similarity.clipped_dot(6.0)) for p in pairs]).sum()
    gradients = torch.autograd.grad(found, views)
    chosen = torch.from_numpy((uniforms(1, 0, batch.ids.numpy(), CELL, 2) * 4).astype(np.int64))
    expected = slow_amdim((views[0], views[1]), cells, chosen, 6.0, 0.05, denominator)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for gradient, twin in zip(gradients, torch.autograd.grad(expected, views), strict=True):
        torch.testing.assert_close(gradient, twin, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("count", [2, 5, 16])
def test_vectors_that_say_nothing_have_the_loss_of_chance(count: int) -> None:
    method = amdim(encoder=narrow(), size=32)
    assert isinstance(method.extract.head, Scales) and method.extract.head.cells == (1, 25, 49)
    zero = [torch.zeros(count, 75, 8, dtype=torch.float64)] * 2
    pairs = method.extract.pair(zero, zero, without_images(count), None)
    assert len(pairs) == 6
    found = sum(p.weight * float(method.loss(p, method.similarity)) for p in pairs)
    assert abs(found - (2 * math.log(1 + 25 * (count - 1)) + math.log(1 + 49 * (count - 1)))) < 1e-9
    assert abs(sum(float(chance(p, method.loss, method.similarity)) for p in pairs) - found) < 1e-9
    if count == 5:
        assert round(found, 4) == 14.5134


@pytest.mark.parametrize("count", [2, 5, 16])
def test_yadim_that_knows_nothing_loses_log_b(count: int) -> None:
    zero = [torch.zeros(count, 1, 8, dtype=torch.float64)] * 2
    for clip in (20.0, 0.0):
        method = yadim(encoder=narrow(), size=32, clip=clip)
        pairs = method.extract.pair(zero, zero, without_images(count), None)
        assert abs(sum(p.weight * float(method.loss(p, method.similarity)) for p in pairs) - math.log(count)) < 1e-9


def test_the_clip_stays_below_its_limit_and_starts_with_slope_1() -> None:
    method = amdim(encoder=narrow(), size=32)
    curve = method.similarity.curve
    scores = torch.linspace(-1e3, 1e3, 2001, dtype=torch.float64)
    assert curve.value(scores).abs().max() <= 20 and curve.value(torch.tensor(60.0)) < 20
    assert curve.slope(torch.zeros(1)).item() == 1 and (curve.value(scores).diff() >= 0).all()


def test_the_cell_is_a_function_of_seed_epoch_id_and_view_alone() -> None:
    def drawn(batch: Batch) -> tuple[Tensor, Tensor]:
        """Which of 25 cells is the source of either order: embeddings that are their cell's number."""
        numbers = torch.arange(-1.0, 25.0)[None, :, None].expand(len(batch.ids), 26, 1)
        pairs = across_scales([numbers] * 2, [numbers] * 2, batch, None, cells=(1, 25))
        return pairs[1].anchor.flatten(), pairs[3].anchor.flatten()

    batch = without_images(400)
    first = drawn(batch)
    some = torch.tensor([13, 7, 200])
    for whole, part in zip(first, drawn(replace(batch, ids=batch.ids[some])), strict=True):
        assert torch.equal(part, whole[some])
    assert not torch.equal(*first)
    assert not torch.equal(first[0], drawn(without_images(400, epoch=1))[0])
    counts = torch.cat(first).long().bincount(minlength=25)
    assert len(counts) == 25 and counts.min() > 10


def test_teacher_supplies_the_other_side() -> None:
    online, slow = ([torch.randn(3, 26, 4) for _ in range(2)] for _ in range(2))
    for pairs in (
        across_scales(online, slow, without_images(3), None, cells=(1, 25)),
        across_views(online, slow, without_images(3), None),
    ):
        theirs = torch.cat([view.flatten(0, 1) for view in slow])
        for pair in pairs:
            assert all((theirs == row).all(1).any() for row in pair.other[::9])


# Heads


class Pyramid(nn.Module):
    """Maps of given sides that hold where they are: map, then cell, in the first two channels."""

    def __init__(self, *sides: int, vector: bool = False) -> None:
        super().__init__()
        self.sides, self.vector = sides, vector
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, view: Tensor) -> list[Tensor]:
        maps = []
        for number, side in enumerate(self.sides):
            where = torch.arange(side**2).view(1, 1, side, side).expand(len(view), 1, side, side).to(view)
            maps.append(torch.cat([torch.full_like(where, number), where, where], dim=1) * self.gain)
        return [*maps, torch.ones(len(view), 3)] if self.vector else maps


def plain(head: nn.Module) -> nn.Module:
    """With maps of the identity, in evaluation mode."""
    for name, weight in head.named_parameters():
        if name.endswith("second.weight"):
            nn.init.zeros_(weight)
    return head.eval()


def test_the_order_of_embeddings_is_whole_then_maps_row_by_row() -> None:
    net = Pyramid(7, 5, 3, 5)
    head = plain(Scales(net, channels=3, size=8, sides=(3, 7)))
    found = head(net(torch.zeros(2, 3, 8, 8)))
    assert found.shape == (2, 1 + 9 + 49, 3) and head.cells == (1, 9, 49)
    expected = [(3.0, 12.0), *((2.0, cell) for cell in range(9)), *((0.0, cell) for cell in range(49))]
    torch.testing.assert_close(found[1, :, :2], torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sides", "vector", "expected"),
    [
        ((7, 5, 3, 1), False, (5, 7)),
        ((32, 16, 8, 4), False, (4, 8)),
        ((14, 7, 4, 4), False, (4, 7)),
        ((8, 4), True, (4, 8)),
        ((8, 4, 1), False, (4, 8)),
    ],
)
def test_maps_are_those_of_the_paper_or_the_two_deepest(sides, vector: bool, expected) -> None:
    net = Pyramid(*sides, vector=vector)
    head = Scales(net, channels=3, size=8)
    assert head.sides == expected
    assert head(net(torch.zeros(2, 3, 8, 8))).shape == (2, 1 + expected[0] ** 2 + expected[1] ** 2, 3)


@pytest.mark.parametrize(
    ("net", "settings", "mend"),
    [
        (Pyramid(9), {}, "scales=9"),
        (Pyramid(1), {}, "amdim-small"),
        (Pyramid(9, 4), {"scales": (5, 7)}, "scales=4,9"),
        (Pyramid(9, 4), {"scales": ()}, "scales=4,9"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), {"scales": (5,)}, "amdim-small"),
    ],
)
def test_an_encoder_without_such_maps_is_refused(net: nn.Module, settings: dict, mend: str) -> None:
    with pytest.raises(UsageError, match=mend):
        amdim(encoder=net, size=8, **settings)


def test_a_cell_of_the_head_is_the_formula() -> None:
    net = encoders.build("small", channels=3, size=32)
    head = Scales(net, channels=3, size=32, width=6).double()
    maps = [torch.randn(3, c, s, s, dtype=torch.float64) for c, s in ((32, 16), (64, 8), (128, 4), (256, 4))]
    found = head(maps)
    local, rows = head.local[1], maps[1].permute(0, 2, 3, 1).reshape(-1, 64)
    made = torch.relu(rows @ local.first.weight.T) @ local.second.weight.T + rows @ local.shortcut.weight.T
    made = (made - made.mean(0)) / (made.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(found[:, 17:].reshape(-1, 6), made, rtol=1e-9, atol=1e-9)
    whole = maps[3].mean((2, 3)) @ head.whole.map.weight.T
    whole = (whole - whole.mean(0)) / (whole.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(found[:, 0], whole, rtol=1e-9, atol=1e-9)


def test_asking_for_shapes_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    assert [tuple(shape) for shape in map_shapes(net, channels=3, size=6)] == [(4, 4, 4)]
    assert torch.equal(torch.get_rng_state(), state) and net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


# YADIM


def nt_xent(z: Tensor, images: int, temperature: float) -> Tensor:
    """Eq. 1 of SimCLR, row by row, for both views one after the other."""
    unit, losses = nn.functional.normalize(z, dim=1), []
    for i in range(2 * images):
        scores = unit @ unit[i] / temperature
        others = [scores[k] for k in range(2 * images) if k != i]
        losses.append(torch.logsumexp(torch.stack(others), 0) - scores[(i + images) % (2 * images)])
    return torch.stack(losses).mean()


def test_yadim_with_cosines_and_both_views_as_negatives_is_nt_xent() -> None:
    method = yadim(encoder=narrow(), size=32, width=4)
    model = Contrast(
        replace(
            method,
            extract=replace(
                method.extract, head=nn.Sequential(method.extract.head, nn.Flatten()), pair=extract.every_view
            ),
            similarity=similarity.cosine,
            loss=partial(infonce, temperature=0.5),
        )
    ).double()
    views = model.views
    model.views = lambda batch: [view.double() for view in views(batch)]
    loss = model(some_batch())
    assert model.seen is not None
    torch.testing.assert_close(loss.detach(), nt_xent(torch.cat(model.seen[0]), 6, 0.5), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_yadim_of_maps_averages_the_logs_of_the_own_cells(denominator: str) -> None:
    draw = torch.Generator().manual_seed(6)
    views = [torch.randn(3, 4, 5, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2)]
    method = yadim(encoder=narrow(), size=32, penalty=0.0, denominator=denominator)
    pairs = across_views(views, views, without_images(3), None)
    found = torch.stack([p.weight * method.loss(p, method.similarity) for p in pairs]).sum()
    losses = []
    for here, there in (views, views[::-1]):
        for i in range(3):
            for cell in range(4):
                scores = 20 * torch.tanh(there @ here[i, cell] / 5**0.5 / 20)
                below = scores if denominator == "all" else scores[torch.arange(3) != i]
                losses.append(torch.logsumexp(below.flatten(), 0) - scores[i].mean())
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for gradient, twin in zip(torch.autograd.grad(found, views), torch.autograd.grad(expected, views), strict=True):
        torch.testing.assert_close(gradient, twin, rtol=1e-9, atol=1e-11)


def test_the_plain_dot_product_of_the_print_has_no_penalty() -> None:
    plainly, as_amdim = yadim(encoder=narrow(), size=32, clip=0.0), yadim(encoder=narrow(), size=32)
    assert plainly.similarity is similarity.dot and as_amdim.similarity.bound == 20
    assert [method.loss.keywords["penalty"] for method in (plainly, as_amdim)] == [0.0, 0.05]


def test_yadim_of_patches_compares_every_patch_with_every_patch() -> None:
    """The patches that the notes list among YADIM's transforms are a part of the encoder here."""
    grid = PatchGrid(encoders.build("small", channels=3, size=8), patch=8, stride=12)
    model = Contrast(yadim(encoder=grid, size=32, width=4, clip=5.0))
    model(some_batch()).backward()
    assert model.seen is not None and model.chance is not None
    assert model.seen[0][0].shape == (6, 9, 4) and abs(model.chance - math.log(6 * 9)) < 1e-5


def test_yadim_cuts_views_into_patches_by_one_argument() -> None:
    model = Contrast(yadim(encoder="small", size=32, width=4, patchify=True))
    model(some_batch())
    assert isinstance(model.encoder, PatchGrid) and model.encoder.patch == 8 and model.encoder.stride == 4
    assert model.seen is not None and model.seen[0][0].shape == (6, 49, 4)


def test_yadim_takes_all_cells_of_a_last_map_or_their_mean() -> None:
    maps = Pyramid(7, 3)(torch.zeros(2, 3, 8, 8))
    assert LastMap(3).eval()(maps).shape == (2, 9, 3)
    assert LastMap(3, pool=True).eval()(maps).shape == (2, 1, 3)
    assert LastMap(3, width=5).eval()([*maps, torch.zeros(2, 3)]).shape == (2, 1, 5)
    tokens = torch.randn(2, 6, 3)
    torch.testing.assert_close(LastMap(3).eval()([tokens]), tokens, rtol=1e-4, atol=1e-4)


# The penalty


@pytest.mark.parametrize("measure", [similarity.dot, similarity.clipped_dot(2.0), similarity.cosine])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_penalty_is_the_mean_of_all_squared_scores(measure: similarity.Mapped, lead: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(7)
    anchor = torch.randn(*lead, 4, 6, generator=draw, dtype=torch.float64, requires_grad=True)
    other = torch.randn(*lead, 9, 6, generator=draw, dtype=torch.float64, requires_grad=True)
    found = mean_square(Pairs(anchor, other, gather=False), measure)
    expected = (measure.anchor(anchor) @ measure.other(other).mT).square().mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for gradient, twin in zip(
        torch.autograd.grad(found, [anchor, other]), torch.autograd.grad(expected, [anchor, other]), strict=True
    ):
        torch.testing.assert_close(gradient, twin, rtol=1e-10, atol=1e-12)


def _penalty(rows: slice, *, across: bool) -> list[Tensor]:
    """Value and gradients for some of twelve anchors; the others are theirs too, or where not `across` always three."""
    draw = torch.Generator().manual_seed(8)
    anchor, other = (torch.randn(12, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    anchor, other = (anchor[rows].requires_grad_(), other[rows if across else slice(3)].requires_grad_())
    found = mean_square(Pairs(anchor, other, gather=across), similarity.clipped_dot(2.0))
    return [found.detach(), *torch.autograd.grad(found, [anchor, other])]


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows = (slice(5), slice(5, 12))[rank]
    torch.save([_penalty(rows, across=across) for across in (True, False)], f"{folder}/found{rank}.pt")
    dist.barrier()  # one that leaves while the other still talks to it may abort in gloo's threads
    dist.destroy_process_group()


@pytest.mark.slow
def test_X1_the_penalty_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    mp.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    (both, own), (both2, own2) = (torch.load(tmp_path / f"found{rank}.pt", weights_only=True) for rank in range(2))
    value, anchors, others = _penalty(slice(12), across=True)
    assert both[0] == both2[0] and abs(both[0] - value) < 1e-12
    for first, second, whole in ((both[1], both2[1], anchors), (both[2], both2[2], others)):
        torch.testing.assert_close(torch.cat([first, second]) / 2, whole, rtol=1e-10, atol=1e-13)  # as DDP averages
    value, anchors, others = _penalty(slice(12), across=False)
    assert own[0] == own2[0] and abs(own[0] - value) < 1e-12
    torch.testing.assert_close(torch.cat([own[1], own2[1]]) / 2, anchors, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close((own[2] + own2[2]) / 2, others, rtol=1e-10, atol=1e-13)


def test_a_penalty_that_can_not_be_is_refused() -> None:
    z, ids = torch.eye(2), torch.arange(2)
    contrast = partial(infonce, temperature=1.0)
    with pytest.raises(UsageError, match="penalty"):
        penalised(Pairs(z, z, ids, ids), similarity.dot, loss=contrast, penalty=-0.1)
    for pairs in (Pairs(z, z, ids, ids, anchor_slot=ids, other_slot=ids), Pairs(z, z, positive=z)):
        with pytest.raises(UsageError, match="penalty=0"):
            penalised(pairs, similarity.dot, loss=contrast, penalty=0.1)
        assert penalised(pairs, similarity.dot, loss=contrast, penalty=0.0) == contrast(pairs, similarity.dot)


# The views


@pytest.mark.parametrize("kind", [SharedFlip, Views])
def test_both_views_are_mirrored_or_neither(kind: type) -> None:
    still = View(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    batch = some_batch(64)
    one, two = kind(still, still)(batch)
    same = (one == two).flatten(1).all(1)
    assert ((one.flip(3) == two).flatten(1).all(1) | same).all()
    assert same.all() if kind is SharedFlip else 10 < same.sum() < 54
    mirrored = (one != Views(replace(still, flip=0.0))(batch)[0]).flatten(1).any(1)
    assert 10 < mirrored.sum() < 54


def test_views_share_nothing_but_the_flip() -> None:
    views, batch = amdim(encoder=narrow(), size=32).views, some_batch(32)
    one, two = views(batch)
    apart = Views(*views.views)(batch)
    assert torch.equal(one, apart[0]) and not (one == two).flatten(1).all(1).any()
    draws = [v.draw(batch.ids, batch.sizes, seed=1, epoch=0, view=n) for n, v in enumerate(views.views)]
    agree = torch.from_numpy(draws[0].flip == draws[1].flip)
    assert torch.equal((two == apart[1]).flatten(1).all(1), agree) and 4 < agree.sum() < 28


def test_yadim_mirrors_each_view_by_itself() -> None:
    assert isinstance(yadim(encoder=narrow(), size=32).views, Views)


@pytest.mark.parametrize(("size", "pad", "scale"), [(32, 1 / 8, 0.64), (64, 0.0, 0.3), (128, 0.0, 0.3)])
def test_the_view_depends_on_the_size(size: int, pad: float, scale: float) -> None:
    view = amdim(encoder=AmdimNet(2, 1, channels=3, size=size), size=size, flip=0.0).views.views[0]
    assert (view.size, view.pad, view.scale[0], view.blur_p, view.grey_p, view.flip) == (size, pad, scale, 0, 0.25, 0)


@pytest.mark.parametrize("function", [amdim, yadim])
def test_a_step_of_the_real_network_reaches_every_weight(function) -> None:
    method: Method = function(encoder=awake(narrow()), size=32)
    model = Contrast(method).double()
    views = model.views
    model.views = lambda batch: [view.double() for view in views(batch)]
    loss = model(some_batch())
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
