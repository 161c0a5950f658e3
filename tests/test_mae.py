"""MAE: what is hidden, what is told of it, and the loss in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import double, toy_batch, toy_method

from nearfar.encoders.vit import sincos
from nearfar.errors import UsageError
from nearfar.extract import PatchDecoder, PatchPixels, hidden_pixels
from nearfar.method import Batch, Contrast
from nearfar.methods import mae
from nearfar.monitor import COLLAPSED_STD, measure
from nearfar.randomness import uniforms
from nearfar.views import Masked, View, hidden_patches


def batch(count: int = 4, *, size: int = 32, channels: int = 3, seed: int = 0, epoch: int = 0) -> Batch:
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8)
    return Batch(images, torch.full((count, 2), size), torch.arange(100, 100 + count), seed=seed, epoch=epoch)


def small(**settings: object) -> Contrast:
    given = {"encoder": "vit-mini", "size": 32, "layers": 1, "width": 32, **settings}
    return double(Contrast(mae(**given)))


def test_49_of_196_patches_are_seen() -> None:
    places = hidden_patches(batch(), patches=196, share=0.75)
    assert places.shape == (4, 147) and places.dtype == torch.int64
    for row in places.tolist():
        assert row == sorted(set(row)) and row[0] >= 0 and row[-1] < 196


def test_what_is_hidden_depends_on_the_address_alone() -> None:
    together = hidden_patches(batch(8, seed=3, epoch=2), patches=64, share=0.5)
    alone = replace(batch(8, seed=3, epoch=2), ids=torch.tensor([105]))
    assert torch.equal(hidden_patches(alone, patches=64, share=0.5)[0], together[5])
    others = [batch(8, seed=3, epoch=1), batch(8, seed=4, epoch=2)]
    assert not any(torch.equal(hidden_patches(one, patches=64, share=0.5), together) for one in others)
    assert len(set(map(tuple, together.tolist()))) == 8


def test_what_is_hidden_says_nothing_of_the_crop() -> None:
    """Views are drawn with the numbers 0, 1, ..."""
    made = batch(8)
    places = hidden_patches(made, patches=16, share=0.5)
    for view in range(4):
        order = uniforms(made.seed, made.epoch, made.ids, view, 16).argsort(axis=1)[:, :8]
        assert not np.array_equal(np.sort(order, axis=1), places.numpy())


def test_every_patch_is_hidden_as_often() -> None:
    many = replace(batch(), ids=torch.arange(4000))
    counts = np.bincount(hidden_patches(many, patches=16, share=0.25).flatten().numpy(), minlength=16)
    assert abs(counts - 1000).max() < 5 * math.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99, 1.0, 1.5, -1.0])
def test_hiding_nothing_or_everything_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="of 16 patches hidden"):
        hidden_patches(batch(), patches=16, share=share)


def test_the_masked_view_is_the_whole_one_with_patches_gone() -> None:
    made = batch()
    masked, whole = Masked(view=View(size=32), patch=8, share=0.75)(made)
    assert torch.equal(
        whole, View(size=32).apply(made.inputs, View(size=32).draw(made.ids, made.sizes, seed=0, epoch=0, view=0))
    )
    for number, places in enumerate(hidden_patches(made, patches=16, share=0.75).tolist()):
        for place in range(16):
            row, column = divmod(place, 4)
            cut = (number, slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            if place in places:
                assert masked[cut].isnan().all()
            else:
                assert torch.equal(masked[cut], whole[cut])


def test_pixels_are_normalised_patch_by_patch() -> None:
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64) * 5 + 3
    images[0, :, :4, :4] = 7.0  # flat: 0, not a number divided by 0
    found = PatchPixels(4)(images)[-1]
    assert found.shape == (2, 6, 48)
    for number in range(2):
        for place in range(6):
            row, column = divmod(place, 3)
            patch = images[number, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].numpy()
            expected = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            np.testing.assert_allclose(found[number, place].numpy(), expected.flatten(), rtol=1e-10, atol=1e-12)
    assert found[0, 0].eq(0).all()


def test_the_decoder_puts_the_mask_token_where_nothing_was_seen() -> None:
    decoder = PatchDecoder(8, 12, width=16, layers=1, heads=2).double()
    states = torch.randn(2, 8, 2, 3, dtype=torch.float64)
    states[0, :, 0, 1], states[1, :, 1, 2] = math.nan, math.nan
    for number, gone in enumerate([1, 5]):
        tokens = torch.stack([
            decoder.mask if place == gone else decoder.embed(states[number].flatten(1)[:, place]) for place in range(6)
        ])  # fmt: skip
        tokens = tokens + sincos(2, 3, 16, like=tokens)
        expected = decoder.pixels(decoder.norm(decoder.blocks(tokens[None])))[0]
        torch.testing.assert_close(decoder([states])[number], expected, rtol=1e-10, atol=1e-12)
    decoder([states]).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in decoder.parameters())
    assert decoder.mask.ndim == 1  # so that no optimiser decays it


def test_the_loss_of_saying_nothing_is_767_of_768() -> None:
    """n normalised values have the squared length n - 1, whatever they are; 1e-6 beside the variance is nothing."""
    method = mae(encoder="vit-mini", size=32, width=32, layers=1)
    images = 1e6 * torch.randn(2, 3, 64, 64, dtype=torch.float64)
    pixels = PatchPixels(16)(images)[-1]
    made = batch(2)
    pairs = hidden_pixels([torch.zeros_like(pixels)], [pixels], made, None, share=0.75)[0]
    loss = method.loss.func(pairs, method.similarity, **{**method.loss.keywords, "scale": 1 / 768})
    assert loss.item() == pytest.approx(767 / 768, abs=1e-10)
    assert method.loss.keywords == {"best": 0.0, "scale": 1 / 48}


def test_chance_is_that_loss() -> None:
    model = small()
    model(batch())
    assert model.chance == pytest.approx(47 / 48, rel=1e-4)


def test_the_loss_is_the_mean_squared_error_of_what_is_hidden() -> None:
    """Nested loops, with the hidden patches read off the masked view."""
    model, made = small(), batch()
    masked, whole = model.views(made)
    predicted = model.head(model.encoder(masked))
    errors = []
    for number in range(len(whole)):
        for place in range(64):
            row, column = divmod(place, 8)
            cut = (number, slice(None), slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
            if masked[cut].isnan().any():
                patch = whole[cut].flatten()
                target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
                errors.append((predicted[number, place] - target).square().mean())
    assert len(errors) == 4 * 48
    torch.testing.assert_close(model(made), torch.stack(errors).mean(), rtol=1e-10, atol=1e-12)


def test_what_is_seen_is_not_asked_for() -> None:
    made = batch(2)
    predicted, real = torch.randn(2, 64, 48, requires_grad=True), torch.randn(2, 64, 48)
    pairs = hidden_pixels([predicted], [real], made, None, share=0.75)[0]
    (pairs.anchor - pairs.positive).square().sum().backward()
    hidden = torch.zeros(2, 64, dtype=torch.bool).scatter_(1, hidden_patches(made, patches=64, share=0.75), True)
    assert torch.equal(predicted.grad.ne(0).any(-1), hidden)
    assert len(pairs.other) == 0 and not pairs.gather


def test_hidden_pixels_reach_the_network_in_no_way() -> None:
    model, made = small(), batch()
    masked, whole = model.views(made)
    other = torch.where(masked.isnan(), torch.randn_like(whole), whole)
    model.views = lambda _: [masked, other]
    model(made)
    with_other = model.seen[0][0]
    model.views = lambda _: [masked, whole]
    model(made)
    assert torch.equal(model.seen[0][0], with_other)


def test_the_decoder_and_its_teacher_stay_behind() -> None:
    """The representation is the encoder's, of whole images; the teacher has no weights and nothing to save."""
    model = small()
    assert not [name for name in model.state_dict() if name.startswith("slow.")]
    found = model.eval().encoder(torch.randn(2, 3, 32, 32, dtype=torch.float64))[-1]
    assert found.shape == (2, 128, 8, 8) and found.isfinite().all()


def test_defaults_follow_the_size() -> None:
    large = mae(encoder="vit-tiny", size=96, layers=1).extract.head
    assert large.width == 512 and large.blocks[0].heads == 16
    head = mae(encoder="vit-mini", size=32).extract.head
    assert (head.width, len(head.blocks), head.blocks[0].heads) == (128, 2, 4)
    view = mae(encoder="vit-mini", size=32).views.view
    assert (view.scale, view.flip, view.jitter_p, view.grey_p, view.blur_p) == ((0.2, 1.0), 0.5, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("encoder", ["small", "resnet18", torch.nn.Flatten()])
def test_other_encoders_are_refused(encoder: object) -> None:
    with pytest.raises(UsageError, match="can't leave out the patches.*vit-mini"):
        mae(encoder=encoder, size=32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 30}, "decoder"),
        ({"width": 0}, "decoder"),
        ({"layers": 0}, "decoder"),
        ({"size": 31}, "--size 32"),
        ({"masked": 1.0}, "64 of 64 patches hidden"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        mae(**{"encoder": "vit-mini", "size": 32, **settings})


def test_a_network_of_other_patches_is_refused() -> None:
    net = mae(encoder="vit-mini", size=32).encoder
    with pytest.raises(UsageError, match="patches of 4 px in views of 30 px"):
        mae(encoder=net, size=30)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alike", [False, True])
def test_T2_an_untrained_decoder_gives_no_alarm(seed: int, alike: bool) -> None:
    """Also where all images are nearly one: which patches are seen still differs."""
    torch.manual_seed(seed)
    model, made = small(layers=2, width=128), batch(16)
    if alike:
        made = replace(made, inputs=made.inputs[:1] // 8 + made.inputs // 64 + 100)
    model(made)
    assert measure(*model.seen)["std"] > 2 * COLLAPSED_STD


def test_it_learns_what_is_hidden() -> None:
    model = Contrast(toy_method("mae"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    losses = []
    for epoch in range(60):
        loss = model(toy_batch(32, epoch=epoch, name="mae"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.75 < model.chance < 1
