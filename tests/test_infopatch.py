"""infoPatch: its draws against loops over pixels and cells, its loss against loops over cells, its limits closed."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import Tiny

from nearfar import similarity
from nearfar.episode import Shape
from nearfar.errors import UsageError
from nearfar.extract import Cells, Patches
from nearfar.losses import infonce
from nearfar.method import Batch, Contrast, Method, Pairs
from nearfar.methods.infopatch import infopatch
from nearfar.views import View
from nearfar.views.patchmix import Mix, MixedViews, PatchMix, RandomBlock

SIDE, CLASSES = 16, 9
SHAPE = Shape(ways=3, shots=2, queries=2)
SEVEN = 1 / 7


def batch_of(tasks: int, *, shape: Shape = SHAPE, seed: int = 1, epoch: int = 0, channels: int = 3) -> Batch:
    """Whole episodes of random images; the classes of episode t are t, t + 1, ... among `CLASSES`."""
    count = tasks * shape.images
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.cat([k[t] + t for k in shape.keys(tasks)]) for t in range(tasks)]) % CLASSES
    return Batch(
        inputs=torch.randint(256, (count, channels, SIDE, SIDE), dtype=torch.uint8, generator=generator),
        sizes=torch.full((count, 2), SIDE),
        ids=torch.randperm(1000, generator=generator)[:count],
        labels=labels,
        seed=seed,
        epoch=epoch,
    )


def toy(*, shape: Shape = SHAPE, **settings: object) -> Method:
    sizes = {"ways": shape.ways, "shots": shape.shots, "queries": shape.queries, "tasks": shape.tasks}
    return infopatch(**{"encoder": Tiny(), "size": SIDE, "classes": CLASSES, **sizes, **settings})


def double(method: Method) -> Contrast:
    torch.manual_seed(0)
    model = Contrast(method).double()
    views = model.views
    model.views = lambda batch: [view.double() for view in views(batch)]
    return model


def whole(mix: Mix) -> Mix:
    """The same with boxes that hold the whole image."""
    return mix._replace(boxes=torch.tensor([0, 0, mix.side, mix.side]).expand_as(mix.boxes))


# The draws


def test_patchmix_pastes_what_a_loop_over_pixels_pastes() -> None:
    mix, batch = PatchMix(shape=SHAPE, side=SIDE, box="image"), batch_of(5)
    draw, view = mix.draw(batch), torch.randn(5 * SHAPE.images, 3, SIDE, SIDE)
    expected, first = view.clone(), SHAPE.ways * SHAPE.shots
    for t in range(5):
        for q in range(6):
            row, partner = t * SHAPE.images + first + q, t * SHAPE.images + first + int(draw.partner[t, q])
            top, left, bottom, right = draw.boxes[t, q].tolist()
            for y in range(top, bottom):
                for x in range(left, right):
                    expected[row, :, y, x] = view[partner, :, y, x]
    before = view.clone()
    found = mix.pixels(view, draw)
    assert torch.equal(found, expected) and torch.equal(view, before)
    assert not torch.equal(found, view)
    assert torch.equal(SHAPE.parted(found)[0], SHAPE.parted(view)[0])  # supports stay


def test_pixels_keep_their_layout_in_memory() -> None:
    mix, batch = PatchMix(shape=SHAPE, side=SIDE), batch_of(1)
    view = torch.randn(SHAPE.images, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    assert mix.pixels(view, mix.draw(batch)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("grid", [(11, 11), (4, 4), (3, 5), (1, 1)])
def test_label_grid_of_a_box_by_hand(grid: tuple[int, int]) -> None:
    mix, batch = PatchMix(shape=SHAPE, side=SIDE, box="image"), batch_of(8)
    draw, keys = mix.draw(batch), torch.randint(100, (8, 6))
    found = draw.cells(keys, grid=grid)
    assert found.shape == (8, 6, *grid)
    for t in range(8):
        for q in range(6):
            top, left, bottom, right = draw.boxes[t, q].tolist()
            for y in range(grid[0]):
                for x in range(grid[1]):
                    rows = round(top * grid[0] / SIDE) <= y < round(bottom * grid[0] / SIDE)
                    columns = round(left * grid[1] / SIDE) <= x < round(right * grid[1] / SIDE)
                    assert found[t, q, y, x] == keys[t, draw.partner[t, q] if rows and columns else q]


def test_label_grid_of_a_whole_image_is_the_permuted_labels() -> None:
    draw, keys = whole(PatchMix(shape=SHAPE, side=SIDE).draw(batch_of(4))), torch.randint(100, (4, 6))
    found = draw.cells(keys, grid=(11, 11))
    assert torch.equal(found, keys.gather(1, draw.partner)[..., None, None].expand_as(found))


def test_boxes_are_those_of_cutmix() -> None:
    """Mean share of the image against 100,000 boxes drawn by numpy; partners are permutations, each as often."""
    shape = Shape(ways=2, shots=1, queries=2)
    mix, count = PatchMix(shape=shape, side=84, box="image"), 5000
    draw = mix.draw(Batch(torch.empty(0), torch.empty(0), ids=torch.arange(count * shape.images)))
    top, left, bottom, right = draw.boxes.reshape(-1, 4).T
    assert draw.boxes.min() >= 0 and draw.boxes.max() <= 84 and (top <= bottom).all() and (left <= right).all()
    share = ((bottom - top) * (right - left) / 84**2).mean().item()
    rng = np.random.default_rng(0)
    half = (84 * np.sqrt(1 - rng.beta(1, 1, 100_000))).astype(int) // 2
    sides = [np.minimum(c + half, 84) - np.maximum(c - half, 0) for c in rng.integers(84, size=(2, 100_000))]
    assert abs(share - (sides[0] * sides[1] / 84**2).mean()) < 0.01
    assert torch.equal(draw.partner.sort(dim=1).values, torch.arange(4).expand(count, 4))
    meets = torch.zeros(4, 4).index_put_(
        (torch.arange(4).repeat(count), draw.partner.flatten()), torch.tensor(1.0), True
    )
    assert (meets / count - 1 / 4).abs().max() < 0.03


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_lam_is_beta_distributed(alpha: float) -> None:
    """Moments of 1 - lam, read from boxes so large in pixels that neither border nor rounding cut them."""
    shape = Shape(ways=2, shots=1, queries=5000)
    mix = PatchMix(shape=shape, side=10**6, box="image", alpha=alpha)
    boxes = mix.draw(Batch(torch.empty(0), torch.empty(0), ids=torch.arange(shape.images))).boxes[0]
    inside = (boxes > 0).all(1) & (boxes < 10**6).all(1)
    top, _, bottom, _ = boxes[inside].T
    found = ((bottom - top) / 1e6).square()
    grid = np.linspace(0.5 / 4000, 1 - 0.5 / 4000, 4000)  # a box of side r is not cut with probability (1 - r)^2
    weight = (grid * (1 - grid)) ** (alpha - 1) * (1 - np.sqrt(grid)) ** 2
    assert abs(found.mean().item() - (weight * grid).sum() / weight.sum()) < 0.02
    assert abs(found.square().mean().item() - (weight * grid**2).sum() / weight.sum()) < 0.02


def test_one_box_an_episode_or_one_an_image() -> None:
    batch = batch_of(6)
    one = PatchMix(shape=SHAPE, side=84).draw(batch).boxes
    own = PatchMix(shape=SHAPE, side=84, box="image").draw(batch).boxes
    assert (one == one[:, :1]).all() and len(one[:, 0].unique(dim=0)) == 6
    assert len(own.flatten(0, 1).unique(dim=0)) > 30


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_probability_of_a_box(probability: float) -> None:
    shape = Shape(ways=2, shots=1, queries=1000)
    mix = PatchMix(shape=shape, side=10**6, box="image", probability=probability)
    boxes = mix.draw(Batch(torch.empty(0), torch.empty(0), ids=torch.arange(shape.images))).boxes[0]
    assert abs((boxes[:, 2] > boxes[:, 0]).double().mean() - probability) < 0.04


@pytest.mark.parametrize("box", ["episode", "image"])
def test_X1_a_draw_is_the_same_whatever_else_is_in_the_batch(box: str) -> None:
    mix, batch = PatchMix(shape=SHAPE, side=SIDE, box=box), batch_of(4)
    together = mix.draw(batch)
    for start in (0, 2):
        half = slice(start * SHAPE.images, (start + 2) * SHAPE.images)
        alone = mix.draw(replace(batch, ids=batch.ids[half]))
        assert torch.equal(alone.boxes, together.boxes[start : start + 2])
        assert torch.equal(alone.partner, together.partner[start : start + 2])


def test_each_step_and_seed_draws_anew() -> None:
    mix, batch = PatchMix(shape=SHAPE, side=84), batch_of(3)
    draws = [mix.draw(batch), mix.draw(replace(batch, epoch=1)), mix.draw(replace(batch, seed=7))]
    assert len({tuple(draw.boxes.flatten().tolist()) for draw in draws}) == 3
    assert len({tuple(draw.partner.flatten().tolist()) for draw in draws}) == 3


def test_the_block_of_maps_is_one_cell_and_the_same_in_a_batch() -> None:
    batch, maps = batch_of(4), torch.ones(4, 6, 9, 5)
    zero = RandomBlock(shape=SHAPE).maps(maps, batch).eq(0)
    assert (zero == zero[:1, :1, :, :1]).all() and zero[0, 0, :, 0].sum() == 1
    own = RandomBlock(shape=SHAPE, per="image").maps(maps, batch).eq(0)[..., 0]
    assert (own.sum(-1) == 1).all() and len(own.flatten(0, 1).unique(dim=0)) > 3
    cells = [int(RandomBlock(shape=SHAPE).draw(replace(batch, epoch=step), 9)[0, 0]) for step in range(900)]
    assert np.bincount(cells, minlength=9).min() > 60  # 100 expected of each


@pytest.mark.parametrize("per", ["batch", "image"])
def test_X1_a_block_is_the_same_whatever_else_is_in_the_batch(per: str) -> None:
    block, batch = RandomBlock(shape=SHAPE, per=per), batch_of(4)
    second = replace(batch, ids=batch.ids[2 * SHAPE.images :])
    assert torch.equal(block.draw(second, 9), block.draw(batch, 9)[2:])


def test_a_map_of_one_cell_is_not_blanked() -> None:
    maps = torch.ones(2, 6, 1, 5)
    assert RandomBlock(shape=SHAPE).maps(maps, batch_of(2)) is maps


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_the_block_of_pixels_is_one_piece_of_each_support(parts: int) -> None:
    block, batch, view = RandomBlock(shape=SHAPE, where="pixels", per="image", parts=parts), batch_of(3), None
    view = torch.ones(3 * SHAPE.images, 2, SIDE, SIDE)
    support, query = SHAPE.parted(block.pixels(view, batch))
    assert (query == 1).all() and (view == 1).all()
    for image, cell in zip(support.flatten(0, 1), block.draw(batch, parts**2).flatten().tolist(), strict=True):
        expected = torch.ones_like(image)
        edges = [round(SIDE * i / parts) for i in range(parts + 1)]
        y, x = divmod(cell, parts)
        expected[:, edges[y] : edges[y + 1], edges[x] : edges[x + 1]] = 0
        assert torch.equal(image, expected)


def test_a_block_is_of_maps_or_of_pixels() -> None:
    batch = batch_of(1)
    view, maps = torch.ones(SHAPE.images, 3, SIDE, SIDE), torch.ones(1, 6, 4, 5)
    assert RandomBlock(shape=SHAPE).pixels(view, batch) is view
    assert RandomBlock(shape=SHAPE, where="pixels").maps(maps, batch) is maps


@pytest.mark.parametrize(
    "wrong", [{"box": "batch"}, {"probability": 1.5}, {"probability": float("nan")}, {"alpha": 0.0}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PatchMix(shape=SHAPE, side=8, **wrong)


@pytest.mark.parametrize("wrong", [{"where": "maps"}, {"per": "episode"}, {"parts": 1}])
def test_blocks_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        RandomBlock(shape=SHAPE, **wrong)


# The views


def test_views_mix_queries_and_block_supports_after_the_view() -> None:
    batch, view = batch_of(2), View(size=SIDE, jitter_p=0, grey_p=0, blur_p=0)
    plain = MixedViews(view=view)(batch)[0]
    mix, block = PatchMix(shape=SHAPE, side=SIDE), RandomBlock(shape=SHAPE, where="pixels")
    (found,) = MixedViews(view=view, mix=mix, block=block)(batch)
    assert torch.equal(SHAPE.parted(found)[1], SHAPE.parted(mix.pixels(plain, mix.draw(batch)))[1])
    assert torch.equal(SHAPE.parted(found)[0], SHAPE.parted(block.pixels(plain, batch))[0])
    assert not torch.equal(found, plain)


def test_changed_views_still_mix() -> None:
    views = toy().views
    assert isinstance(views, MixedViews)
    changed = views.changed(flip=0.0)
    assert changed.views[0].flip == 0 and changed.mix == views.mix and changed.block == views.block


# The loss


def slow_loss(cells: Tensor, batch: Batch, pair: Patches, *, side: int, level: str, positives: str) -> list[float]:
    """Both terms, a cell at a time, from the words of the docstring: cells `[T, images, h, w, D]`."""
    shape, known = pair.shape, []
    supports, queries = shape.ways * shape.shots, shape.ways * shape.queries
    labels = batch.labels.reshape(len(cells), shape.images).tolist()
    draw = None if pair.mix is None else pair.mix.draw(batch)
    h, w = cells.shape[2:4]
    blocked = None
    if pair.block is not None and pair.block.where == "map" and h * w > 1:
        blocked = pair.block.draw(batch, h * w)
    own = []

    def source(t: int, q: int, y: int, x: int) -> int:
        """Query that this cell was taken from."""
        if draw is None:
            return q
        top, left, bottom, right = draw.boxes[t, q].tolist()
        rows = round(top * h / side) <= y < round(bottom * h / side)
        return int(draw.partner[t, q]) if rows and round(left * w / side) <= x < round(right * w / side) else q

    for t in range(len(cells)):
        means = []
        for s in range(supports):
            kept = [
                cells[t, s, y, x] * (0 if blocked is not None and int(blocked[t, s]) == y * w + x else 1)
                for y in range(h)
                for x in range(w)
            ]
            means.append((torch.stack(kept).sum(0) / (h * w), s // shape.shots))
        if level == "prototype":
            means = [
                (torch.stack([m for m, k in means if k == way]).sum(0) / shape.shots, way) for way in range(shape.ways)
            ]
        for i in range(shape.images):
            for y in range(h):
                for x in range(w):
                    z = cells[t, i, y, x]
                    q = source(t, i - supports, y, x) if i >= supports else None
                    label = labels[t][i] if q is None else labels[t][supports + q]
                    if pair.classes is not None:
                        scores = [float(z @ c + b) for c, b in zip(pair.classes.weight, pair.classes.bias, strict=True)]
                        known.append(math.log(sum(map(math.exp, scores))) - scores[label])
                    if q is None:
                        continue
                    scores = [7 * float(z @ m / (z.norm() * m.norm())) for m, _ in means]
                    total = sum(map(math.exp, scores))
                    mine = [s for s, (_, k) in zip(scores, means, strict=True) if k == q // shape.queries]
                    if positives == "log_sum":
                        own.append(math.log(total) - math.log(sum(map(math.exp, mine))))
                    else:
                        own.append(math.log(total) - sum(mine) / len(mine))
    assert len(own) == len(cells) * queries * h * w
    return [sum(term) / len(term) for term in (known, own) if term]


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({}, "prototype"),
        ({"preset": "paper"}, "instance"),
        ({"preset": "paper", "positives": "mean_log"}, "instance"),
        ({"level": "instance"}, "instance"),
        ({"mix": False}, "prototype"),
        ({"block": False}, "prototype"),
    ],
)
def test_the_loss_is_that_of_loops_over_cells(settings: dict[str, object], level: str) -> None:
    model, batch = double(toy(**settings)), batch_of(2, epoch=3)
    loss = model(batch)
    cells = model.seen[0][0].reshape(2, SHAPE.images, SIDE // 4, SIDE // 4, -1)
    positives = str(settings.get("positives", "log_sum"))
    with torch.no_grad():
        known, own = slow_loss(cells, batch, model.pair, side=SIDE, level=level, positives=positives)
    assert abs(loss.item() - (known + 0.5 * own)) < 1e-9


def test_one_vector_an_image_is_compared_likewise() -> None:
    model, batch = double(toy(patches=False)), batch_of(2)
    loss = model(batch)
    assert model.seen[0][0].shape[1] == 1
    with torch.no_grad():
        known, own = slow_loss(
            model.seen[0][0].reshape(2, SHAPE.images, 1, 1, -1),
            batch, model.pair, side=SIDE, level="prototype", positives="log_sum",
        )  # fmt: skip
    assert abs(loss.item() - (known + 0.5 * own)) < 1e-9


def compared(cells: Tensor, *, shape: Shape, positives: str = "log_sum", **settings: object) -> Tensor:
    """The comparison with the supports alone, of given cells `[T * images, L, D]`."""
    pair = Patches(shape, width=cells.shape[-1], classes=1, weights=(0.0, 1.0), **settings)
    batch = batch_of(len(cells) // shape.images, shape=shape)
    (pairs,) = pair([cells], [cells], batch, None)
    return infonce(pairs, similarity.cosine, temperature=SEVEN, positives=positives)


def test_with_one_shot_levels_and_positives_agree() -> None:
    shape = Shape(ways=5, shots=1, queries=6)
    cells = torch.randn(2 * shape.images, 9, 16)
    mix, block = PatchMix(shape=shape, side=SIDE), RandomBlock(shape=shape)
    losses = [
        compared(cells, shape=shape, level=level, positives=positives, mix=mix, block=block)
        for level in ("prototype", "instance")
        for positives in ("log_sum", "mean_log")
    ]
    assert max(losses) - min(losses) < 1e-6


@pytest.mark.parametrize(
    ("level", "positives", "chance"),
    [("prototype", "log_sum", 5), ("instance", "log_sum", 5), ("instance", "mean_log", 25)],
)
def test_chance_level(level: str, positives: str, chance: int) -> None:
    """log N, but log NK where the mean of logs asks for each support of a class."""
    shape = Shape(ways=5, shots=5, queries=2)
    cells = torch.randn(shape.images, 4, 8)
    cells[shape.ways * shape.shots :] = 0
    found = compared(cells, shape=shape, level=level, positives=positives)
    torch.testing.assert_close(found, torch.tensor(math.log(chance)))


def test_perfect_match_of_orthogonal_classes() -> None:
    shape = Shape(ways=5, shots=1, queries=3)
    support, query = shape.keys(1)
    cells = F.one_hot(torch.cat([support, query], dim=1)[0], 5).double()[:, None].expand(-1, 4, -1)
    found = compared(cells, shape=shape)
    torch.testing.assert_close(found, torch.tensor(math.log(1 + 4 * math.exp(-7)), dtype=torch.float64))


def test_without_mix_it_is_cross_entropy_of_cosines() -> None:
    """One cell, one shot: softmax of 7 cosines, the classes of the queries as they are."""
    shape = Shape(ways=5, shots=1, queries=4)
    cells = torch.randn(3 * shape.images, 1, 16, dtype=torch.float64)
    support, query = shape.parted(cells[:, 0])
    logits = 7 * F.normalize(query, dim=-1) @ F.normalize(support, dim=-1).mT
    expected = F.cross_entropy(logits.flatten(0, 1), shape.keys(3)[1].flatten())
    torch.testing.assert_close(compared(cells, shape=shape), expected, rtol=1e-12, atol=1e-12)


def test_D5_one_class_in_all_queries_is_finite() -> None:
    """After PatchMix all cells may be of one class: with boxes of the whole image and one partner for all."""
    shape = Shape(ways=2, shots=1, queries=1)

    class Whole(PatchMix):
        def draw(self, batch: Batch) -> Mix:
            mix = whole(super().draw(batch))
            return mix._replace(partner=torch.zeros_like(mix.partner))

    cells = torch.randn(shape.images, 4, 8, requires_grad=True)
    loss = compared(cells, shape=shape, mix=Whole(shape=shape, side=SIDE), block=RandomBlock(shape=shape))
    loss.backward()
    assert loss.isfinite() and cells.grad is not None and cells.grad.isfinite().all()


def test_labels_follow_the_pixels() -> None:
    """Perfect cells mixed as the pixels are stay perfect; cells that are not mixed are far from it."""
    shape = Shape(ways=5, shots=1, queries=3)
    cells = F.one_hot(torch.cat(shape.keys(8), dim=1).flatten(), 5).double()[:, None].expand(-1, 16, -1)
    mix = PatchMix(shape=shape, side=4)
    view = cells.unflatten(1, (4, 4)).movedim(-1, 1)
    pasted = mix.pixels(view, mix.draw(batch_of(8, shape=shape))).flatten(2).mT
    perfect = math.log(1 + 4 * math.exp(-7))
    assert abs(compared(pasted, shape=shape, mix=mix).item() - perfect) < 1e-12
    assert compared(cells, shape=shape, mix=mix).item() > 0.1


# The method


@pytest.mark.parametrize(
    "settings",
    [{}, {"preset": "paper"}, {"supervised": 0}, {"contrast": 0}, {"patches": False}, {"mix": False, "block": False}],
)
def test_gradient_reaches_every_weight(settings: dict[str, object]) -> None:
    model = Contrast(toy(**settings))
    model(batch_of(2)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_weight_of_0_removes_its_term_and_its_vectors() -> None:
    batch = batch_of(2)
    both, known, own = (double(toy(**s)) for s in ({}, {"contrast": 0.0}, {"supervised": 0.0}))
    for model in (known, own):
        model.load_state_dict(both.state_dict(), strict=False)
    assert len(both.terms(both.pair(*embedded(both, batch)))) == 2
    assert known.similarity == (similarity.dot,) and own.similarity == (similarity.cosine,)
    assert not [name for name, _ in own.named_parameters() if name.startswith("pair")]
    torch.testing.assert_close(both(batch), known(batch) + own(batch), rtol=1e-12, atol=1e-12)


def embedded(model: Contrast, batch: Batch) -> tuple[list[Tensor], list[Tensor], Batch, None]:
    return (*model.embed(batch), batch, None)


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_switches_remove_exactly_their_part(preset: str) -> None:
    batch = batch_of(2)
    full = double(toy(preset=preset))
    parts = {name: copy.deepcopy(double(toy(preset=preset, **{name: False}))) for name in ("mix", "block")}
    for model in parts.values():
        model.load_state_dict(full.state_dict())
    pixels, unmixed, unblocked = (m.views(batch)[0] for m in (full, parts["mix"], parts["block"]))
    support, query = SHAPE.parted(pixels)
    assert torch.equal(SHAPE.parted(unmixed)[0], support) and not torch.equal(SHAPE.parted(unmixed)[1], query)
    assert torch.equal(SHAPE.parted(unblocked)[1], query)
    assert torch.equal(SHAPE.parted(unblocked)[0], support) == (preset == "official")
    keys = [model.pair(*embedded(model, batch))[1].anchor_key for model in (full, parts["mix"], parts["block"])]
    assert torch.equal(keys[0], keys[2]) and not torch.equal(keys[0], keys[1])
    assert torch.equal(keys[1], SHAPE.keys(2)[1].repeat_interleave(16, dim=1))


def test_X1_two_halves_have_the_loss_of_the_whole() -> None:
    """Draws don't depend on the process: the mean over two halves of the episodes is that over all."""
    model, batch = double(toy()), batch_of(4)
    halves = [slice(0, 2 * SHAPE.images), slice(2 * SHAPE.images, None)]
    parts = [replace(batch, **{n: getattr(batch, n)[h] for n in ("inputs", "sizes", "ids", "labels")}) for h in halves]
    torch.testing.assert_close(model(batch), sum(model(part) for part in parts) / 2, rtol=1e-12, atol=1e-12)


def test_defaults_are_the_papers() -> None:
    method = infopatch()
    assert method.episode == Shape(ways=5, shots=1, queries=6, tasks=4)
    pair, views = method.extract.pair, method.views
    assert isinstance(pair, Patches) and isinstance(views, MixedViews)
    assert pair.weights == (1.0, 0.5) and pair.level == "prototype" and pair.classes.weight.shape == (64, 512)
    assert pair.mix == views.mix == PatchMix(shape=method.episode, side=84)
    assert pair.block == RandomBlock(shape=method.episode)
    method.encoder.eval()
    assert Cells()(method.encoder(torch.zeros(1, 3, 84, 84))).shape == (1, 121, 512)


def test_nets_that_give_one_vector_are_one_cell() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8))
    model = Contrast(toy(encoder=net))
    model(batch_of(2)).backward()
    assert model.seen[0][0].shape == (2 * SHAPE.images, 1, 8)


def test_tokens_that_are_no_square_grid_are_refused() -> None:
    pair = Patches(SHAPE, width=8, classes=CLASSES)
    with pytest.raises(UsageError, match="patches=False"):
        pair([torch.zeros(SHAPE.images, 5, 8)], [], batch_of(1), None)


@pytest.mark.parametrize(
    "wrong", [{"preset": "code"}, {"level": "class"}, {"supervised": -1.0}, {"supervised": 0, "contrast": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        toy(**wrong)


def test_a_batch_without_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="labels"):
        Contrast(toy())(replace(batch_of(1), labels=None))


def test_cells_are_in_the_order_of_rows() -> None:
    maps = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    found = Cells()([maps])
    for y in range(2):
        for x in range(2):
            assert torch.equal(found[:, 2 * y + x], maps[:, :, y, x])
    mean = maps.double().mean((2, 3))
    assert torch.equal(Cells(pool=True)([maps.double()]), mean[:, None])
    assert torch.equal(Cells()([maps, mean]), mean[:, None])


def test_pairs_stay_within_their_episode() -> None:
    batch = batch_of(3)
    model = double(toy())
    known, own = model.pair(*embedded(model, batch))
    assert isinstance(own, Pairs) and not known.gather and not own.gather
    assert own.anchor.shape == (3, 6 * 16, 32) and own.other.shape == (3, 3, 32)
    assert known.anchor.shape == (3 * SHAPE.images * 16, 33) and (known.weight, own.weight) == (1.0, 0.5)
