"""Contrastive predictive coding: the core for grids and time, and CPC on images."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from toy import Tiny, stripes

from nearfar import similarity
from nearfar.encoders.causal import Causal, CausalBlock
from nearfar.encoders.layer_norm import ChannelNorm, layer_norms
from nearfar.encoders.norm import BatchNorm
from nearfar.encoders.patches import PatchGrid, cut, frame, grid_rows
from nearfar.encoders.resnet_v2 import ResNetV2
from nearfar.errors import DataError, UsageError
from nearfar.extract.predict import CELLS, GridContexts, Predict, ZAndContext, _members, check_enough
from nearfar.losses import infonce
from nearfar.method import Batch, Contrast, Pairs
from nearfar.methods.cpc import cpc
from nearfar.methods.cpc_v2 import cpc_v2
from nearfar.views import CentreCrop, View
from nearfar.views.patch_views import PatchViews

D, H = 5, 3
"""Width of z, width of a context."""

loss_of = partial(infonce, temperature=1.0)


def samples(count: int, *, start: int = 0, sizes: list[int] | None = None, labels: list[int] | None = None) -> Batch:
    """A batch of nothing but ids, sizes and labels."""
    return Batch(
        inputs=torch.zeros(count, 1),
        sizes=torch.tensor(sizes or [0] * count)[:, None],
        ids=torch.arange(start, start + count),
        labels=None if labels is None else torch.tensor(labels),
    )


def total(pairs: list[Pairs]) -> Tensor:
    return torch.stack([p.weight * loss_of(p, similarity.dot) for p in pairs]).sum()


def dense(predict: Predict, cells: Tensor, *, rows: int, columns: int, lengths: list[int], group: list[int]) -> Tensor:
    """The loss in nested loops over cells, one softmax at a time; sample b meets those of its own group."""
    count = len(cells)
    z, *contexts = cells.split([predict.width, *[predict.context] * predict.directions], dim=-1)
    whole, weights = [], iter(predict.predictions)
    for direction in range(predict.directions):
        target = predict.targets[direction](z)
        for step in range(predict.first, predict.steps + 1):
            W, terms = next(weights).weight, []
            for b in range(count):
                others = [(o, p) for o in range(count) if group[o] == group[b] for p in range(lengths[o])]
                for i in range(rows):
                    for j in range(columns):
                        # down, left, up, right: what "down" is after quarter turns of the grid against the clock
                        y, x = ((i + step, j), (i, j - step), (i - step, j), (i, j + step))[direction]
                        if not (0 <= y < rows and 0 <= x < columns) or y * columns + x >= lengths[b]:
                            continue
                        scores = torch.stack(
                            [target[o, p] @ W @ contexts[direction][b, i * columns + j] for o, p in others]
                        )
                        terms.append(scores.logsumexp(0) - scores[others.index((b, y * columns + x))])
            whole.append(torch.stack(terms).mean())
    return torch.stack(whole).mean()


def grids(count: int = 3, *, rows: int = 4, columns: int = 3, directions: int = 1) -> Tensor:
    return torch.randn(count, rows * columns, D + directions * H, dtype=torch.float64)


CASES = {
    "time": ({"steps": 3}, 6, 1, None, None),
    "time_padded": ({"steps": 3, "valid": lambda sizes: sizes[:, 0]}, 6, 1, [6, 2, 4], None),
    "time_within_sample": ({"steps": 2, "within": "sample"}, 6, 1, None, [0, 1, 2]),
    "padded_within_sample": ({"steps": 2, "valid": lambda s: s[:, 0], "within": "sample"}, 6, 1, [6, 1, 4], [0, 1, 2]),
    "time_within_label": ({"steps": 2, "within": "label"}, 6, 1, None, [7, 4, 7]),
    "padded_within_label": ({"steps": 2, "valid": lambda s: s[:, 0], "within": "label"}, 6, 1, [6, 5, 4], [7, 4, 7]),
    "grid": ({"steps": 3, "first": 2, "grid": (4, 3)}, 4, 3, None, None),
    "grid_four_directions": ({"steps": 2, "first": 1, "grid": (4, 3), "directions": 4, "target": 2}, 4, 3, None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_nested_loops(name: str) -> None:
    settings, rows, columns, lengths, labels = CASES[name]
    predict = Predict(width=D, context=H, **settings).double()
    cells = grids(rows=rows, columns=columns, directions=predict.directions).requires_grad_()
    batch = samples(3, start=40, sizes=lengths, labels=labels)
    found = total(predict([cells], [cells], batch, None))
    expected = dense(
        predict, cells, rows=rows, columns=columns, lengths=lengths or [rows * columns] * 3, group=labels or [0] * 3
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = [cells, *predict.parameters()]
    for own, slow in zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(own, slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"grid": (3, 4), "directions": 3, "target": 2}])
def test_without_prediction_the_loss_is_the_logarithm_of_the_number_of_cells(settings: dict) -> None:
    predict = Predict(width=D, context=H, steps=2, **settings).double()
    for weight in predict.predictions.parameters():
        nn.init.zeros_(weight)
    cells = grids(7, directions=predict.directions)
    assert total(predict([cells], [cells], samples(7), None)).item() == pytest.approx(math.log(7 * 12), abs=1e-12)


def test_a_positive_score_s_among_zeros_costs_log_1_plus_n_minus_1_times_exp_minus_s() -> None:
    predict = Predict(width=1, context=1, steps=1).double()
    for weight in predict.parameters():
        nn.init.constant_(weight, 2.5)
    z = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)  # of N = 3 steps the second alone has a score
    c = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    pairs = predict([torch.cat([z, c], 1)[None]], [], samples(1), None)
    told, nothing = math.log(1 + 2 * math.exp(-2.5)), math.log(3)
    assert total(pairs).item() == pytest.approx((told + nothing) / 2, abs=1e-12)


def test_targets_are_the_cells_k_rows_below() -> None:
    rows, columns, count = 5, 4, 2
    predict = Predict(width=1, context=1, steps=4, first=2, grid=(rows, columns))
    cells = torch.stack([torch.arange(count * rows * columns)] * 2, 1).float().view(count, -1, 2)
    for weight in predict.predictions.parameters():
        nn.init.ones_(weight)
    for step, pairs in zip((2, 3, 4), predict([cells], [], samples(count), None), strict=True):
        assert pairs.anchor_key is not None and pairs.other_key is not None
        place = {int(key): int(z) for key, z in zip(pairs.other_key, pairs.other, strict=True)}
        found = [(int(c), place[int(key)]) for c, key in zip(pairs.anchor, pairs.anchor_key, strict=True)]
        expected = []
        for b in range(count):
            for i in range(rows - step):
                for j in range(columns):
                    expected.append(((b * rows + i) * columns + j, b * rows * columns + (i + step) * columns + j))
        assert found == expected


def test_each_direction_is_the_turned_grid() -> None:
    rows, z = 4, torch.randn(2, D, 4, 4, dtype=torch.float64)
    contexts = [Causal(D, hidden=4).double() for _ in range(4)]
    all_ways = Predict(width=D, context=D, steps=3, first=2, grid=(rows, rows), directions=4).double()
    together = all_ways([GridContexts(contexts)([z])], [], samples(2), None)
    for turns in range(4):
        down = Predict(width=D, context=D, steps=3, first=2, grid=(rows, rows)).double()
        for own, weight in zip(down.predictions, all_ways.predictions[2 * turns : 2 * turns + 2], strict=True):
            own.load_state_dict(weight.state_dict())
        alone = down([GridContexts([contexts[turns]])([torch.rot90(z, turns, (2, 3))])], [], samples(2), None)
        for one, other in zip(alone, together[2 * turns : 2 * turns + 2], strict=True):
            torch.testing.assert_close(loss_of(one, similarity.dot), loss_of(other, similarity.dot))


def test_contexts_see_their_own_row_and_those_above() -> None:
    context, z = Causal(6, hidden=8), torch.randn(2, 6, 7, 7)
    changed = z.clone()
    changed[:, :, 4:] += 1
    before, after = context(z), context(changed)
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.equal(before[:, :, 4], after[:, :, 4])
    block = CausalBlock(6, hidden=8)
    first = block(z)[:, :, 0]
    with torch.no_grad():
        block.down.weight[:, :, 0] += 1  # what the row above is multiplied with; above the first there are zeros
    torch.testing.assert_close(block(z)[:, :, 0], first)


@pytest.mark.parametrize(("size", "patch", "stride", "nearest"), [(28, 8, 4, 2), (35, 10, 5, 2), (32, 8, 3, 3)])
def test_no_pixel_is_shared_from_the_nearest_row_on(size: int, patch: int, stride: int, nearest: int) -> None:
    """d(context of row i) / d(pixels of the target at the nearest row) is zero, one row nearer it is not."""
    net = PatchGrid(layer_norms(Tiny(batch_norm=True)), patch=patch, stride=stride).double()
    head = GridContexts([Causal(net.width, hidden=8)]).double()
    view = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    rows, row, column = grid_rows(size, patch, stride), 1, 2
    assert nearest == -(-patch // stride)
    context = head(net(view))[0, row * rows + column, net.width :].square().sum()
    slope = torch.autograd.grad(context, view)[0][0]

    def of_target(ahead: int) -> Tensor:
        top, left = (row + ahead) * stride, column * stride
        return slope[:, top : top + patch, left : left + patch]

    assert of_target(nearest).abs().max() == 0
    assert of_target(nearest - 1).abs().max() > 0


@pytest.mark.parametrize(
    ("size", "patch", "stride", "rows"),
    [(256, 64, 32, 7), (260, 80, 36, 6), (32, 8, 4, 7), (64, 16, 8, 7), (128, 32, 16, 7), (30, 10, 5, 5)],
)
def test_grids_of_patches(size: int, patch: int, stride: int, rows: int) -> None:
    image = torch.arange(size * size).view(1, 1, size, size)
    patches = cut(image, patch=patch, stride=stride)
    assert grid_rows(size, patch, stride) == rows and patches.shape == (1, rows * rows, 1, patch, patch)
    for i in range(rows):
        for j in range(rows):
            expected = image[0, :, i * stride : i * stride + patch, j * stride : j * stride + patch]
            assert torch.equal(patches[0, i * rows + j], expected)


@pytest.mark.parametrize(
    ("build", "size", "patch", "stride", "rows", "steps"),
    [
        (cpc, 256, 64, 32, 7, (2, 6)),
        (cpc, 224, 56, 28, 7, (2, 6)),
        (cpc, 32, 8, 4, 7, (2, 6)),
        (cpc, 28, 8, 4, 6, (2, 5)),
        (cpc_v2, 260, 80, 36, 6, (3, 5)),
        (cpc_v2, 224, 69, 31, 6, (3, 5)),
        (cpc_v2, 256, 79, 35, 6, (3, 5)),
        (cpc_v2, 128, 39, 17, 6, (3, 5)),
        (cpc_v2, 65, 20, 9, 6, (3, 5)),
        (cpc_v2, 64, 16, 8, 7, (2, 4)),
        (cpc_v2, 32, 8, 4, 7, (2, 4)),
    ],
)
def test_sizes_of_the_papers_and_of_small_images(build, size, patch, stride, rows, steps) -> None:
    method = build(encoder=Tiny(), size=size, hidden=4)
    assert (method.views.patch, method.views.stride, method.views.rows) == (patch, stride, rows)
    pair = method.extract.pair
    assert (pair.first, pair.steps) == steps and pair.grid == (rows, rows)


def test_every_patch_is_changed_by_itself() -> None:
    """The same patch everywhere in an image, with changes that are certain."""
    images = torch.from_numpy(
        np.tile(np.random.default_rng(0).integers(256, size=(2, 3, 8, 8), dtype=np.uint8), (1, 1, 3, 3))
    )
    sizes = torch.full((2, 2), 24)
    batch = Batch(inputs=images, sizes=sizes, ids=torch.tensor([3, 9]), seed=1, epoch=2)
    still = View(size=24, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    same = PatchViews(view=still, patch=8, stride=8)(batch)[0]
    assert same.shape == (2, 9, 3, 8, 8) and torch.equal(same, same[:, :1].expand_as(same))
    torch.testing.assert_close(same[:, 0], CentreCrop(24)(images, sizes)[..., :8, :8])
    jittered = PatchViews(view=still, patch=8, stride=8).changed(jitter_p=1.0)(batch)[0]
    moved = PatchViews(view=still, patch=8, stride=8, crop=6)(batch)[0]
    for patches, least in ((jittered, 9), (moved, 4)):
        assert len({patch.numpy().tobytes() for patch in patches[0]}) >= least
    alone = Batch(inputs=images[1:], sizes=sizes[1:], ids=torch.tensor([9]), seed=1, epoch=2)
    assert torch.equal(PatchViews(view=still, patch=8, stride=8, crop=6)(alone)[0][0], moved[1])


def test_a_window_of_each_patch_is_kept_in_the_middle_of_zeros() -> None:
    images = stripes(2).inputs[:2]
    still = View(size=16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    sizes = torch.full((2, 2), 16)
    batch = Batch(inputs=torch.as_tensor(images), sizes=sizes, ids=torch.arange(2))
    found = PatchViews(view=still, patch=8, stride=4, crop=5)(batch)[0]
    whole = cut(CentreCrop(16)(images, sizes), patch=8, stride=4)
    for b in range(2):
        for p in range(9):
            assert found[b, p, :, [0, 6, 7]].abs().max() == 0 and found[b, p, :, :, [0, 6, 7]].abs().max() == 0
            inner = found[b, p, :, 1:6, 1:6]
            windows = [whole[b, p, :, y : y + 5, x : x + 5] for y in range(4) for x in range(4)]
            assert min((inner - window).abs().max() for window in windows) < 1e-5


def test_an_image_is_seen_as_its_patches_are() -> None:
    net = PatchGrid(Tiny(), patch=8, stride=4, crop=6)
    view = torch.randn(2, 3, 20, 20)
    ready = frame(cut(view, patch=8, stride=4)[..., 1:7, 1:7], patch=8)
    whole, patches = net(view)[-1], net(ready)[-1]
    assert whole.shape == (2, 32, 4, 4) and torch.equal(whole, patches)
    slow = torch.stack([net.net(patch[None])[-1].mean((2, 3))[0] for patch in ready[1]])
    torch.testing.assert_close(whole[1].flatten(1).T, slow, rtol=1e-5, atol=1e-6)


def test_without_colours_images_of_one_grey_value_are_alike() -> None:
    """Two images whose pixels differ in colour but not in brightness; normalised as views are."""
    net = PatchGrid(Tiny(), patch=8, stride=4, grey=True).double()
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    one = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    luminance = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
    grey = ((one * luminance).sum(1, keepdim=True) / luminance.sum()).expand_as(one)
    torch.testing.assert_close(net((one - mean) / std)[0], net((grey - mean) / std)[0], rtol=1e-9, atol=1e-9)


def test_layer_norm_takes_the_place_of_batch_norm() -> None:
    net = Tiny(batch_norm=True)
    names = set(dict(net.named_parameters()))
    norm = layer_norms(net).layers[1]
    assert isinstance(norm, ChannelNorm) and names == set(dict(net.named_parameters()))
    assert not [m for m in net.modules() if isinstance(m, BatchNorm)]
    x = torch.randn(3, 16, 4, 5, dtype=torch.float64)
    norm.double()
    weight, bias = (nn.init.normal_(parameter) for parameter in norm.parameters())
    at = x[1, :, 2, 3]
    expected = weight * (at - at.mean()) / (at.var(correction=0) + 1e-5).sqrt() + bias
    torch.testing.assert_close(norm(x)[1, :, 2, 3], expected, rtol=1e-12, atol=1e-12)

    class WithActivation(nn.BatchNorm2d):
        pass

    with pytest.raises(UsageError, match="WithActivation"):
        layer_norms(nn.Sequential(WithActivation(3)))


def test_the_networks_of_the_papers() -> None:
    with torch.device("meta"):
        nets = [ResNetV2(depth, channels=3, size=80) for depth in (50, 101, 161)]
        maps = nets[2](torch.empty(2, 3, 80, 80))
    assert [round(sum(p.numel() for p in net.parameters()) / 1e6) for net in nets] == [9, 28, 304]
    assert [tuple(m.shape) for m in maps] == [(2, 256, 20, 20), (2, 512, 10, 10), (2, 4096, 5, 5)]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"steps": 2, "first": 3}, "steps 3 to 2"),
        ({"steps": 0}, "first 1 or more"),
        ({"steps": 0, "first": 2, "grid": (1, 1)}, r"2 rows away: a larger image \(--size\)"),
        ({"steps": 5, "grid": (5, 9)}, "fewer steps than rows"),
        ({"steps": 4, "grid": (5, 4), "directions": 2}, "fewer steps than rows"),
        ({"steps": 2, "directions": 2}, "1 in time"),
        ({"steps": 2, "grid": (5, 5), "valid": len}, "no padding"),
        ({"steps": 2, "within": "speaker"}, "'sample' or 'label'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Predict(width=D, context=H, **settings)


def test_too_few_cells_are_refused() -> None:
    cells = torch.zeros(2, 4, D + H)
    with pytest.raises(UsageError, match="4 cells, more than 5 are needed"):
        Predict(width=D, context=H, steps=5)([cells], [], samples(2), None)
    with pytest.raises(UsageError, match="4 cells, 3 x 3 are needed"):
        Predict(width=D, context=H, steps=2, grid=(3, 3))([cells], [], samples(2), None)
    with pytest.raises(UsageError, match="labels"):
        Predict(width=D, context=H, steps=2, within="label")([cells], [], samples(2), None)
    short = Predict(width=D, context=H, steps=5, valid=lambda sizes: sizes[:, 0])
    assert [len(p.anchor) for p in short([cells], [], samples(2, sizes=[4, 3]), None)] == [6, 4, 2, 0, 0]


def test_samples_with_a_cell_to_predict_are_those_whose_loss_moves() -> None:
    """Each sample alone: the loss has a gradient where `enough` counts it, and is 0 where it doesn't."""
    sizes, counted = [1, 2, 3, 4, 6], []
    for first in (1, 3):
        predict = Predict(width=D, context=H, steps=3, first=first, valid=lambda sizes: sizes[:, 0])
        for size in sizes:
            loss = total(predict([torch.randn(1, 6, D + H)], [], samples(1, sizes=[size]), None))
            assert bool(loss != 0) == bool(predict.enough(torch.tensor([[size]])))
        counted.append(predict.enough(torch.tensor(sizes)[:, None]))
    assert counted == [4, 2]
    assert Predict(width=D, context=H, steps=2, grid=(3, 3)).enough(torch.zeros(7, 2)) == 7


@pytest.mark.parametrize(
    ("kind", "mend"), [("text", "documents"), ("sound", "longer sounds"), ("sequences", "--first")]
)
def test_data_without_anything_to_predict_is_refused(kind: str, mend: str) -> None:
    predict, said = Predict(width=D, context=H, steps=3, first=2, valid=lambda sizes: sizes[:, 0]), []

    def check(*sizes: int) -> None:
        check_enough(predict, torch.tensor(sizes)[:, None], kind, said.append)

    with pytest.raises(DataError, match="none of 3 samples has 3 .* or more") as error:
        check(1, 2, 2)
    assert mend in error.value.mend and not said
    check(1, 3)
    assert not said
    check(1, 1, 3)
    assert len(said) == 1 and "only 1 of 3 samples" in said[0] and mend in said[0]
    check_enough(print, torch.zeros(3, 1), kind, said.append)
    assert len(said) == 1


def test_uneven_labels_are_refused_before_they_fill_the_memory() -> None:
    predict = Predict(width=D, context=H, steps=1, within="label")

    def rows(labels: list[int]) -> int:
        count = len(labels)
        return (
            predict([torch.zeros(count, 2, D + H)], [], samples(count, labels=labels), None)[0].other.shape[:2].numel()
        )

    assert rows([0] * 9 + [1, 2, 3, 4, 5, 5, 5]) == 6 * 9 * 2
    assert rows([0] * 12 + list(range(1, 21))) == 21 * 12 * 2
    with pytest.raises(UsageError, match="batch of 64 has 33 labels, one of them 32 times.* 1,056 rows"):
        rows([0] * 32 + list(range(1, 33)))


@pytest.mark.parametrize("speakers", [2, 10, 40, 100, 251])
def test_shuffled_batches_of_speakers_that_have_as_much_each_are_never_refused(speakers: int) -> None:
    everyone = torch.arange(speakers).repeat_interleave(-(-2000 // speakers))
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        for batch in everyone[torch.randperm(len(everyone), generator=draw)].split(64):
            assert (_members(batch) >= 0).sum() == len(batch)


@pytest.mark.parametrize("build", [cpc, cpc_v2])
def test_the_callers_network_stays_as_it_is(build) -> None:
    net = Tiny(batch_norm=True)
    state, before = {name: value.clone() for name, value in net.state_dict().items()}, repr(net)
    method = build(encoder=net, size=16, hidden=4)
    with torch.no_grad():
        for weight in method.encoder.parameters():
            weight.zero_()
    assert repr(net) == before and all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not [m for m in method.encoder.modules() if isinstance(m, BatchNorm)]


def test_z_and_context_lie_side_by_side() -> None:
    z, c = torch.randn(2, 6, D), torch.randn(2, 6, H)
    assert torch.equal(ZAndContext()([z, c, c[:, -1]]), torch.cat([z, c], 2))


def test_keys_number_cells_over_all_processes() -> None:
    pairs = Predict(width=D, context=H, steps=1)([torch.zeros(2, 4, D + H)], [], samples(2, start=7), None)[0]
    assert pairs.gather and pairs.other_key is not None
    assert pairs.other_key.tolist() == [7 * CELLS + t for t in range(4)] + [8 * CELLS + t for t in range(4)]


LENGTHS = [6, 3, 5, 2]


def _gradients(rows: slice, longest: int) -> tuple[Tensor, list[Tensor]]:
    """Of some samples of a padded batch, each process with its own number of steps."""
    torch.manual_seed(3)
    predict = Predict(width=D, context=H, steps=2, valid=lambda sizes: sizes[:, 0]).double()
    cells = torch.randn(4, 6, D + H, dtype=torch.float64)[rows, :longest]
    mixed = nn.Linear(D + H, D + H).double()
    ids = range(4)[rows]
    loss = total(predict([mixed(cells)], [], samples(len(ids), start=ids[0], sizes=LENGTHS[rows]), None))
    loss.backward()
    return loss.detach(), [p.grad for p in (*predict.parameters(), *mixed.parameters()) if p.grad is not None]


def test_X1_two_processes_with_unequal_padding_have_the_gradient_of_one(tmp_path: Path) -> None:
    loss, gradients = _gradients(slice(0, 4), 6)
    spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for own, _ in found:
        torch.testing.assert_close(own, loss, rtol=1e-12, atol=1e-12)
    for gradient, *parts in zip(gradients, *(parts for _, parts in found), strict=True):
        torch.testing.assert_close(sum(parts) / 2, gradient, rtol=1e-9, atol=1e-12)


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(_gradients(slice(2 * rank, 2 * rank + 2), (6, 5)[rank]), f"{folder}/{rank}.pt")
    dist.barrier()  # one that leaves while the other still talks to it may abort in gloo's threads
    dist.destroy_process_group()


@pytest.mark.parametrize("build", [cpc, cpc_v2])
def test_at_first_the_methods_lose_about_what_chance_does(build) -> None:
    model = Contrast(build(encoder=Tiny(), size=16, hidden=8))
    data = stripes(12)
    loss = model(data.batch(np.arange(12), seed=0))
    assert model.chance == pytest.approx(math.log(12 * 9), abs=1e-5)
    assert abs(loss.item() - model.chance) < 1
    view = CentreCrop(16)(data.inputs[:2], data.sizes[:2])
    assert model.encoder(view)[-1].shape == (2, 32, 3, 3)
