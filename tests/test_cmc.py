"""CMC and its views, L and ab or columns: golden values, the contract."""

from __future__ import annotations

import copy
import math
import os
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_methods import toy_loop
from torch import Tensor, nn
from toy import SIDE, knn_accuracy, stripes
from toys import double, toy_batch

from nearfar.encoders import Towers
from nearfar.encoders.norm import BatchNorm
from nearfar.errors import Stopped, UsageError
from nearfar.method import Batch, Contrast, Method
from nearfar.methods.cmc import WIDTH, cmc
from nearfar.runs import Run
from nearfar.similarity import unit
from nearfar.views import CentreCrop, View
from nearfar.views.channels import LightAndColour, lab
from nearfar.views.columns import ColumnViews

# L and ab.

LAB = {
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 255, 255): (100.0, -0.002455, 0.004653),
    (255, 0, 0): (53.240588, 80.092308, 67.202751),
    (0, 255, 0): (87.735099, -86.18303, 83.179703),
    (0, 0, 255): (32.295673, 79.185591, -107.8573),
    (128, 128, 128): (53.585013, -0.001473, 0.002791),
    (10, 200, 30): (70.500132, -70.513831, 64.94084),
    (5, 3, 8): (1.038072, 1.218165, -1.707742),
    (250, 128, 114): (67.264007, 45.225537, 29.096489),
    (70, 130, 180): (52.465394, -4.080021, -32.188281),
}
"""RGB of 8 bits -> Lab by `skimage.color.rgb2lab` of scikit-image 0.26.0, fp64, to six decimals."""


def test_lab_is_that_of_scikit_image():
    rgb = torch.tensor(list(LAB), dtype=torch.float64).T.reshape(3, 2, 5) / 255
    expected = torch.tensor(list(LAB.values()), dtype=torch.float64).T.reshape(3, 2, 5)
    torch.testing.assert_close(lab(rgb), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(lab(rgb.float()).double(), expected, rtol=0, atol=2e-4)


def test_the_kernel_splits_as_torch_does():
    """float32 goes through the kernel, float64 through torch; all hues, the dark ones closely."""
    steps = torch.cat([torch.linspace(0, 1, 40), torch.linspace(0, 0.06, 30)])
    rgb = torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 70, 70 * 70)
    views = LightAndColour(View(size=8))
    for given in (rgb, rgb.mT, rgb.flip(1).expand(2, -1, -1, -1)):
        for got, wanted in zip(views.split(given), views.split(given.double()), strict=True):
            assert got.dtype == torch.float32
            torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-6)
    rgb[0, 0, 3, 5] = torch.nan
    light, colour = views.split(rgb)
    assert light.isnan().sum() == 1 and colour.isnan()[0, :, 3, 5].all() and colour.isnan().sum() == 2


def test_all_colours_lie_between_minus_1_and_1_and_fill_that_range():
    steps = torch.linspace(0, 1, 18, dtype=torch.float64)
    rgb = torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 18, 18 * 18)
    light, colour = LightAndColour(View(size=8)).split(rgb)
    assert light.shape == (1, 1, 18, 324) and colour.shape == (1, 2, 18, 324)
    for channel in (light[0, 0], colour[0, 0], colour[0, 1]):
        assert float(channel.min()) == pytest.approx(-1, abs=1e-3) and float(channel.max()) == pytest.approx(
            1, abs=1e-3
        )


def test_grey_images_have_no_colour_and_brightness_is_all_in_L():
    grey = torch.rand(2, 1, 5, 5).expand(2, 3, 5, 5)
    light, colour = LightAndColour(View(size=5)).split(grey)
    zero = torch.tensor([-6.025 / 92.208, 6.6895 / 101.1675]).view(1, 2, 1, 1).expand(2, 2, 5, 5)
    torch.testing.assert_close(colour, zero, rtol=0, atol=1e-4)
    assert (light[:, 0].flatten().argsort() == grey[:, 0].flatten().argsort()).all()


def test_training_and_evaluation_split_alike():
    """A view that changes nothing is the centre crop of evaluation, normalised as the first view is, then split."""
    still = View(size=SIDE, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    views, batch = LightAndColour(still), toy_batch(4)
    crop = CentreCrop(SIDE, mean=views.views[0].mean, std=views.views[0].std)(batch.inputs, batch.sizes)
    assert crop.min() >= 0 and crop.max() <= 1
    for one, other in zip(views(batch), views.split(crop), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_L_and_ab_are_of_the_same_crop_drawn_anew_each_epoch():
    views = LightAndColour(View(size=SIDE, jitter_p=0.0, grey_p=0.0, blur_p=0.0))
    one, again, later = views(toy_batch(4)), views(toy_batch(4)), views(toy_batch(4, epoch=1))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], later[0])
    draw = views.view.draw(np.arange(4), [[SIDE, SIDE]] * 4, seed=1, epoch=0, view=0)
    rgb = views.view.apply(toy_batch(4).inputs, draw)
    assert torch.equal(torch.cat(one, dim=1), torch.cat(views.split(rgb), dim=1))


def test_settings_of_the_view_are_changed_and_those_without_use_refused():
    views = LightAndColour(View(size=SIDE)).changed(grey_p=0.0, size=8)
    assert views.views[0].grey_p == 0 and views(toy_batch(2))[1].shape == (2, 2, 8, 8)
    with pytest.raises(UsageError, match="mean"):
        views.changed(mean=(0.5, 0.5, 0.5))
    with pytest.raises(UsageError, match="1 channels"):
        views.split(torch.zeros(2, 1, 8, 8))


# Columns.


def two_pictures(batch: Batch) -> Batch:
    """The samples with a second picture: the first turned by a quarter, in grey."""
    second = batch.inputs.rot90(1, (2, 3)).float().mean(1, keepdim=True).to(torch.uint8)
    return replace(batch, columns={"depth": (second, batch.sizes)})


def test_columns_are_drawn_each_by_itself():
    plain = View(size=SIDE, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    views, batch = ColumnViews(image=plain, depth=plain), two_pictures(toy_batch(4))
    image, depth = views(batch)
    assert image.shape == (4, 3, SIDE, SIDE) and depth.shape == (4, 1, SIDE, SIDE)
    for number, (found, column) in enumerate(((image, batch), (depth, batch.of("depth")))):
        draw = plain.draw(column.ids, column.sizes, seed=1, epoch=0, view=number)
        assert torch.equal(found, plain.apply(column.inputs, draw))
    assert [view.size for view in views.changed(size=8).views] == [8, 8]
    with pytest.raises(UsageError, match="no column 'sound'.*image, depth"):
        ColumnViews(image=plain, sound=plain)(batch)


# The method.


class Net(nn.Module):
    """Three layers. Without batch norm chunks and processes can be compared exactly."""

    def __init__(self, channels: int, *, batch_norm: bool = False, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, 16, 2), (16, width, 2), (width, width, 1)):
            norm = BatchNorm(after) if batch_norm else nn.GroupNorm(4, after)
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), norm, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, view: Tensor) -> list[Tensor]:
        return [self.layers(view)]


SETTINGS = {
    "nce": {"loss": "nce", "negatives": 64, "temperature": 0.2},
    "softmax": {"loss": "softmax", "negatives": None, "temperature": 0.1},
}
every_loss = pytest.mark.parametrize("name", SETTINGS)


def toy_cmc(name: str, *, samples: int = 512, batch_norm: bool = False, **more: object) -> Method:
    towers = Towers(L=Net(1, batch_norm=batch_norm), ab=Net(2, batch_norm=batch_norm))
    method = cmc(encoder=towers, size=SIDE, samples=samples, **{**SETTINGS[name], **more})
    colours = {"jitter": (0.4, 0.4, 0.4, 0.3), "jitter_p": 0.8}
    return replace(method, views=method.views.changed(scale=(0.4, 1.0), **colours))


def features(model: Contrast, data) -> Tensor:
    batch = data.batch(np.arange(len(data)))
    crop = CentreCrop(SIDE, mean=model.views.views[0].mean, std=model.views.views[0].std)
    model.eval()
    with torch.no_grad():
        found = model.encoder(model.views.split(crop(batch.inputs, batch.sizes)))[-1]
    model.train()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs"), [("nce", 50), ("softmax", 30)])
def test_learns_a_toy(name: str, epochs: int):
    data = stripes(512)
    model = Contrast(toy_cmc(name, batch_norm=True))
    before = knn_accuracy(features(model, data), data.labels)
    toy_loop(model, data, epochs=epochs, peak=0.005)()
    after = knn_accuracy(features(model, data), data.labels)
    assert after > before + 0.15, (before, after)


def test_both_losses_begin_at_their_chance():
    torch.manual_seed(0)
    nce = math.log(65) + 64 * math.log(65 / 64)  # for Z = n; that of the first batch is near it
    for name, chance, tolerance in (("nce", nce, 5e-3), ("softmax", math.log(512), 1e-5)):
        model = Contrast(toy_cmc(name))
        model(toy_batch())
        assert model.chance == pytest.approx(2 * chance, rel=tolerance)


@every_loss
def test_gradient_reaches_every_weight(name: str):
    model = Contrast(toy_cmc(name))
    model(toy_batch()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@every_loss
def test_the_bank_takes_the_embeddings_of_a_step_after_it(name: str):
    model = Contrast(toy_cmc(name))
    before = model.memory.embeddings.clone()
    model(toy_batch(8, start=16))
    assert torch.equal(model.memory.embeddings, before)
    model.after_step(0.0)
    changed = (model.memory.embeddings != before).any(-1)
    assert torch.equal(changed[0], changed[1]) and changed[0].nonzero().flatten().tolist() == list(range(16, 24))
    for view, z in enumerate(model.seen[1]):
        torch.testing.assert_close(model.memory.rows(view)[16:24], unit(before[view, 16:24] + unit(z)))


@every_loss
def test_chunks_change_neither_loss_nor_gradient(name: str):
    whole = double(Contrast(toy_cmc(name)))
    parts = copy.deepcopy(whole)
    parts.chunk = 5
    losses = [model(toy_batch()) for model in (whole, parts)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-11)


@every_loss
def test_K1_a_stopped_run_goes_on_bit_for_bit(name: str, tmp_path: Path):
    data = stripes(192)
    whole = Contrast(toy_cmc(name, samples=192))
    first, second = copy.deepcopy(whole), copy.deepcopy(whole)
    toy_loop(whole, data, epochs=2)()

    def stop_at_four(row: dict[str, float]) -> None:
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = {"settings": {"seed": 3}, "info": {}}
    with Run.open_or_create(tmp_path / "run", **settings) as run, pytest.raises(Stopped):
        toy_loop(first, data, epochs=2, run=run, report=stop_at_four)()
    with Run.open_or_create(tmp_path / "run", **settings) as run:
        toy_loop(second, data, epochs=2, run=run)()
    expected, found = whole.state_dict(), second.state_dict()
    assert {"memory.embeddings"} <= expected.keys() == found.keys()
    assert (name == "nce") == any(key.endswith(".log_mean") for key in expected)
    for key in expected:
        assert torch.equal(expected[key], found[key]), key


def _steps(model: Contrast, batches: list[Batch]) -> list[list[Tensor]]:
    """Loss, gradients and memory of some steps."""
    found = []
    for batch in batches:
        model.zero_grad()
        loss = model(batch)
        loss.backward()
        model.after_step(0.5)
        gradients = [p.grad.clone() for p in model.parameters()]
        found.append([loss.detach(), model.memory.embeddings.clone(), *gradients])
    return found


def _toy_pairs(rank: int | None) -> list[Batch]:
    """Batches of two epochs, of one process or of one of two; in the second the processes share a sample."""
    ids = ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 9, 12, 13, 14])
    data, own = stripes(16), slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    return [data.batch(places[own], seed=1, epoch=epoch) for epoch, places in enumerate(ids)]


def _one_of_two(rank: int, folder: str) -> None:
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name in SETTINGS:
        model = double(Contrast(toy_cmc(name, samples=16)))
        model.load_state_dict(torch.load(f"{folder}/{name}.pt", weights_only=True))
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        found = []
        for batch in _toy_pairs(rank):
            model.zero_grad()
            loss = wrapped(batch)
            loss.backward()
            model.after_step(0.5)
            found.append([loss.detach(), model.memory.embeddings.clone(), *(p.grad for p in model.parameters())])
        torch.save(found, f"{folder}/{name}{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_X1_two_processes_have_gradient_and_bank_of_one(tmp_path: Path):
    expected = {}
    for name in SETTINGS:
        model = double(Contrast(toy_cmc(name, samples=16)))
        torch.save(model.state_dict(), tmp_path / f"{name}.pt")
        expected[name] = _steps(model, _toy_pairs(None))
    mp.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    for name, rank in product(SETTINGS, range(2)):
        found = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True)
        for want, own in zip(expected[name], found, strict=True):
            for one, other in zip(want, own, strict=True):
                torch.testing.assert_close(other, one, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("graph", ["core", "full"])
def test_several_columns_have_an_encoder_each_or_one_for_all(graph: str):
    batch = two_pictures(toy_batch(6))
    batch = replace(batch, columns=batch.columns | {"again": (batch.inputs, batch.sizes)})
    names, settings = ("image", "depth", "again"), {"size": SIDE, "samples": 8, "negatives": 5, "graph": graph}
    towers = Towers(image=Net(3), depth=Net(1), again=Net(3))
    method = cmc(encoder=towers, columns=names, channels=(3, 1, 3), **settings)
    assert method.encoder.names == list(names) and len(method.loss) == (4 if graph == "core" else 6)
    model = Contrast(method)
    model(batch).backward()
    model.after_step(0.0)
    assert len(model.memory.embeddings) == 3
    shared = Contrast(cmc(encoder=Net(3), columns=("image", "again"), shared=True, **settings))
    shared(batch).backward()
    shared.after_step(0.0)
    assert len(shared.memory.embeddings) == 2 and not isinstance(shared.encoder, Towers)


def test_named_encoders_are_built_for_the_channels_of_their_views():
    method = cmc(encoder="small", size=32)
    assert [method.encoder[name].conv1.in_channels for name in ("L", "ab")] == [1, 2]
    assert method.encoder.width == 2 * 256
    both = method.encoder(LightAndColour(View(size=32)).split(torch.rand(2, 3, 32, 32)))
    assert both[-1].shape == (2, 512)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"channels": 1}, "3 channels"),
        ({"columns": ("image",)}, "two or more"),
        ({"columns": ("image", "image")}, "two or more"),
        ({"columns": ("image", "depth"), "channels": (3,)}, "one for each"),
        ({"columns": ("image", "depth"), "channels": (3, 1), "shared": True}, "shared"),
        ({"shared": True}, "shared"),
        ({"negatives": None}, "loss='softmax'"),
        ({"negatives": 0}, "1 or more"),
        ({"encoder": Net(1)}, r"Towers\(L=..., ab=...\)"),
        ({"encoder": Towers(L=Net(1))}, "2 views need as many encoders"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, told: str):
    with pytest.raises(UsageError, match=told):
        cmc(**{"encoder": "small", "size": 32, **settings})


def test_a_wrong_keyword_is_refused():
    with pytest.raises(TypeError, match="temperatur"):
        cmc(temperatur=0.2)


def test_too_few_samples_are_told_at_the_first_step():
    with pytest.raises(UsageError, match="samples=16"):
        Contrast(toy_cmc("softmax", samples=10))(toy_batch(16))


@pytest.mark.parametrize(("count", "graph", "terms"), [(3, "core", 2), (3, "full", 3), (4, "core", 3), (4, "full", 6)])
def test_chance_and_matched_views_have_closed_forms(count: int, graph: str, terms: int):
    """Each pair of views has two directions, which add, over K + 1 candidates: log(K + 1) by chance, and
    log(1 + K exp(-1 / t)) for orthonormal embeddings of which a sample's are alike in all views."""
    names = ("image", *(f"image{n}" for n in range(2, count + 1)))
    samples, t = 5, 0.07
    batch = toy_batch(samples)
    batch = replace(batch, columns={name: (batch.inputs, batch.sizes) for name in names[1:]})
    settings = {"loss": "softmax", "negatives": None, "temperature": t, "graph": graph, "size": SIDE, "decay": 0.0}
    method = cmc(encoder=Towers(**{name: Net(3) for name in names}), columns=names, samples=samples, **settings)
    model = Contrast(method)
    own = torch.eye(samples, WIDTH)
    for z, expected in (
        (torch.zeros_like(own), math.log(samples)),
        (own, math.log(1 + (samples - 1) * math.exp(-1 / t))),
    ):
        views = [z] * count
        if model.memory is not None:
            model.memory.remember(views, batch)
        pairs = model.pair(views, views, batch, model.memory)
        losses = [p.weight * loss(p, measure) for p, loss, measure in model.terms(pairs)]
        assert len(losses) == 2 * terms
        assert float(sum(losses)) == pytest.approx(2 * terms * expected, rel=1e-5)
