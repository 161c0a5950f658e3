"""CPC on sound: views, frames, the method's contract on toy tones, and log-mel features against a slow DFT."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_sounds import RATE, TOY_FRAMES, WINDOW, toy_ears, toy_sounds

from nearfar.encoders.sound import LONG, SHORT, SOUND_ENCODERS, Frames, SoundCells
from nearfar.errors import UsageError
from nearfar.evaluation.log_mel import FLOOR, log_mel, triangles
from nearfar.method import Batch, Contrast
from nearfar.methods.cpc_audio import cpc_audio
from nearfar.monitor import COLLAPSED_STD, spread
from nearfar.views.sound import SoundWindows, Waveform


def sounds(*lengths: int, seed: int = 0) -> Batch:
    """Loud noise of these lengths, padded with zeros."""
    rng = np.random.default_rng(seed)
    inputs = np.zeros((len(lengths), 1, max(lengths)), np.int16)
    for row, length in zip(inputs, lengths, strict=True):
        row[0, :length] = rng.integers(-20000, 20000, length)
    sizes = torch.tensor(lengths)[:, None]
    return Batch(inputs=torch.from_numpy(inputs), sizes=sizes, ids=torch.arange(len(lengths)), seed=4, epoch=1)


def toy_method(**settings):
    return cpc_audio(**{"encoder": toy_ears(), "size": WINDOW, "steps": 4} | settings)


def double(model: Contrast) -> Contrast:
    """In fp64, so that sums in another order differ by rounding only."""
    model = model.double()
    views = model.views
    model.views = lambda batch: [view.double() for view in views(batch)]
    return model


# Views


def test_a_window_is_a_part_of_the_sound_and_padding_is_marked():
    batch, window = sounds(500, 300, 40), 300
    view = SoundWindows(window)(batch)[0]
    assert view.shape == (3, 2, window) and view.dtype == torch.float32
    for row, sound, length in zip(view, batch.inputs[:, 0], (500, 300, 40), strict=True):
        there = min(length, window)
        assert row[1].tolist() == [1.0] * there + [0.0] * (window - there)
        starts = [
            s for s in range(length - there + 1) if torch.equal(row[0, :there] * 32768, sound[s : s + there] * 1.0)
        ]
        assert len(starts) == 1 and not row[0, there:].any()
        assert there == window or starts == [0]


def test_windows_are_addressed_by_seed_epoch_and_id():
    batch = sounds(500, 600, 700, 800)
    both = SoundWindows(100, gain=6.0)(batch)[0]
    few = replace(batch, inputs=batch.inputs[[2, 0]], sizes=batch.sizes[[2, 0]], ids=batch.ids[[2, 0]])
    assert torch.equal(SoundWindows(100, gain=6.0)(few)[0], both[[2, 0]])
    for other in (replace(batch, epoch=2), replace(batch, seed=5), replace(batch, ids=batch.ids + 4)):
        assert not torch.equal(SoundWindows(100, gain=6.0)(other)[0], both)


def test_windows_begin_everywhere_alike():
    """5 possible beginnings, 4,000 sounds: each 800 times, sigma 25."""
    ramp = np.broadcast_to(np.arange(14, dtype=np.int16), (4000, 1, 14)).copy()
    batch = Batch(torch.from_numpy(ramp), torch.full((4000, 1), 14), torch.arange(4000))
    firsts = (SoundWindows(10)(batch)[0][:, 0, 0] * 32768).round().long()
    assert (torch.bincount(firsts, minlength=5) - 800).abs().max() < 5 * 25


def test_gain_changes_loudness_within_its_range_and_nothing_else():
    batch = sounds(*[100] * 200)
    plain, louder = (SoundWindows(100, gain=gain)(batch)[0] for gain in (0.0, 6.0))
    factor = (louder[:, 0] / plain[:, 0]).nanmedian(dim=1).values
    assert 10**-0.3 <= factor.min() < 0.6 and 1.7 < factor.max() <= 10**0.3
    torch.testing.assert_close(louder[:, 0], (plain[:, 0] * factor[:, None]).clamp(-1, 1), rtol=1e-5, atol=1e-6)
    assert torch.equal(louder[:, 1], plain[:, 1])


def test_a_waveform_is_the_whole_sound_and_its_settings_come_back():
    batch = sounds(500, 40)
    view = Waveform(8000)(batch.inputs, batch.sizes)
    assert view.shape == (2, 2, 500) and view[:, 1].sum(1).tolist() == [500, 40]
    assert torch.equal(view[:, 0] * 32768, batch.inputs[:, 0] * 1.0)
    assert Waveform(8000).to_dict() == {"kind": "waveform", "rate": 8000}
    assert Waveform.from_dict(Waveform(8000).to_dict()) == Waveform(8000)
    with pytest.raises(UsageError, match="rate"):
        Waveform.from_dict({"kind": "waveform"})


@pytest.mark.parametrize("make", [lambda: SoundWindows(0), lambda: SoundWindows(9, gain=-1.0), lambda: Waveform(0)])
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(UsageError):
        make()


def test_images_are_no_sound():
    with pytest.raises(UsageError, match="int16"):
        SoundWindows(8)(replace(sounds(8), inputs=torch.zeros(1, 3, 8, 8, dtype=torch.uint8)))


# Frames


def test_frames_of_the_paper():
    assert (LONG.receptive_field, LONG.hop, LONG.count(20480)) == (465, 160, 126)
    assert (SHORT.receptive_field, SHORT.hop, SHORT.count(10240)) == (225, 80, 126)


@pytest.mark.parametrize("frames", [LONG, SHORT, TOY_FRAMES])
def test_the_formula_counts_what_the_convolutions_give(frames: Frames):
    field, hop = frames.receptive_field, frames.hop
    net = SoundCells(width=2, frames=frames)
    for samples in (field, field + 1, field + hop - 1, field + hop, field + 3 * hop - 1, field + 7 * hop + 3):
        z, valid = net(torch.ones(1, 2, samples))
        assert z.shape[1] == valid.sum() == frames.count(samples)
    assert frames.count(field - 1) == 0
    assert frames.valid(torch.tensor([[0], [1], [field - 1], [field], [field + hop]])).tolist() == [0, 1, 1, 1, 2]


def test_the_receptive_field_by_gradient():
    """Frame 2 hears samples [2 hop, 2 hop + field) and no others."""
    net, samples = SoundCells(width=4, frames=SHORT).double(), 225 + 80 * 4
    view = torch.stack([torch.randn(samples), torch.ones(samples)])[None].double().requires_grad_()
    net(view)[0][0, 2].square().sum().backward()
    heard = view.grad[0, 0].nonzero().flatten()
    assert (int(heard[0]), int(heard[-1])) == (160, 160 + 225 - 1)


def test_padding_is_not_heard():
    """What lies behind a sound, and how long it is padded, changes no valid frame, context or representation."""
    net = toy_ears().double()
    view = Waveform(RATE)(*(lambda b: (b.inputs, b.sizes))(sounds(400, 131, 9))).double()
    z, c, whole = net(view)
    spoilt = view.clone()
    spoilt[1, 0, 131:], spoilt[2, 0, 9:] = 0.7, -0.3
    for other in (spoilt, torch.nn.functional.pad(view, (0, 77))):
        found = net(other)
        torch.testing.assert_close(found[2], whole, rtol=1e-12, atol=1e-12)
        for number, count in enumerate(TOY_FRAMES.valid(torch.tensor([[400], [131], [9]])).tolist()):
            torch.testing.assert_close(found[0][number, :count], z[number, :count], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(found[1][number, :count], c[number, :count], rtol=1e-12, atol=1e-12)
    alone = net(view[2:, :, :9])[2]
    torch.testing.assert_close(alone, whole[2:], rtol=1e-12, atol=1e-12)


def test_the_context_is_causal():
    """A change of sample s is heard from the first frame on that reaches s, not before."""
    net, changed = toy_ears().double(), 150
    view = torch.stack([torch.randn(300), torch.ones(300)])[None].double()
    later = view.clone()
    later[0, 0, changed] += 0.5
    one, two = net(view)[1][0], net(later)[1][0]
    first = next(t for t in range(len(one)) if t * TOY_FRAMES.hop + TOY_FRAMES.receptive_field > changed)
    assert torch.equal(one[:first], two[:first]) and (one[first:] != two[first:]).any(dim=1).all()


def test_D21_silence_and_a_constant_give_numbers():
    view = torch.zeros(2, 2, 600)
    view[:, 1], view[1, 0] = 1, 1.0
    assert all(found.isfinite().all() for found in SOUND_ENCODERS["sound-8k-small"]()(view))


@pytest.mark.parametrize("name", SOUND_ENCODERS)
def test_encoders_by_name(name: str):
    net = SOUND_ENCODERS[name](channels=1, size=4096, factor=2)
    z, c, whole = net(torch.ones(1, 2, 800))
    assert (z.shape[2], c.shape[2], whole.shape) == (net.cell_width, net.context_width, (1, net.width))
    with pytest.raises(UsageError, match="mono"):
        SOUND_ENCODERS[name](channels=2, size=4096)


def test_T2_an_untrained_encoder_tells_quiet_sounds_apart():
    """Torch's own biases are louder than speech: with them the spread is 0.02, where a run counts as collapsed."""
    time, hertz = torch.arange(2000) / 8000, torch.linspace(100, 3000, 16)[:, None]
    view = torch.stack([0.02 * torch.sin(2 * math.pi * hertz * time), torch.ones(16, 2000)], dim=1)
    with torch.no_grad():
        assert spread(SOUND_ENCODERS["sound-8k-small"]()(view)[2]) > 3 * COLLAPSED_STD


# The method


def test_W_zero_gives_log_N():
    model = double(Contrast(toy_method()))
    for weights in model.pair.predictions:
        torch.nn.init.zeros_(weights.weight)
    whole = sounds(*[WINDOW] * 6)
    assert model(whole).item() == pytest.approx(math.log(6 * TOY_FRAMES.count(WINDOW)), abs=1e-12)
    short = sounds(WINDOW, 100, 60)
    cells = sum(TOY_FRAMES.count(length) for length in (WINDOW, 100, 60))
    assert model(short).item() == pytest.approx(math.log(cells), abs=1e-12)


@pytest.mark.parametrize("negatives", ["batch", "label", "sample"])
def test_the_loss_is_that_of_loops(negatives: str):
    """Every step, frame and candidate by itself, fp64."""
    batch = replace(sounds(WINDOW, 130, 90, WINDOW + 50, 20), labels=torch.tensor([0, 1, 0, 1, 1]))
    model = double(Contrast(toy_method(negatives=negatives)))
    z, c, _ = model.encoder(model.views(batch)[0])
    counts = [TOY_FRAMES.count(min(int(n), WINDOW)) for n in batch.sizes[:, 0]]
    group = {"batch": [0] * 5, "label": [0, 1, 0, 1, 1], "sample": [0, 1, 2, 3, 4]}[negatives]
    steps = []
    for k, predict in enumerate(model.pair.predictions, 1):
        losses = []
        for b, count in enumerate(counts):
            others = torch.cat([z[o, : counts[o]] for o in range(5) if group[o] == group[b]])
            for t in range(count - k):
                prediction = predict(c[b, t])
                losses.append(torch.logsumexp(others @ prediction, 0) - z[b, t + k] @ prediction)
        steps.append(torch.stack(losses).mean())
    torch.testing.assert_close(model(batch), torch.stack(steps).mean(), rtol=1e-10, atol=1e-10)


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match=r"12 steps.*or fewer steps"):
        cpc_audio(encoder=SOUND_ENCODERS["sound-small"](), size=2000)
    with pytest.raises(UsageError, match="speaker"):
        toy_method(negatives="speaker")
    with pytest.raises(UsageError, match="no encoder of sound"):
        cpc_audio(encoder="small", size=64)
    with pytest.raises(UsageError, match="label"):
        Contrast(toy_method(negatives="label"))(sounds(WINDOW, WINDOW))


# Log-mel features


def test_log_mel_is_that_of_a_slow_DFT():
    """Sums of cosines, frame by frame and triangle by triangle, fp64; 1e-3 of logs near 0, fp32 inside."""
    batch = toy_sounds(3).batch([0, 1, 2])
    window, hop, points, bands = 25, 10, 32, 5
    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, 2595 * math.log10(1 + 500 / 700), bands + 2)]
    for row, found in enumerate(log_mel(batch.inputs, batch.sizes, rate=RATE, bands=bands)):
        sound = batch.inputs[row, 0, : batch.sizes[row, 0]].numpy() / 32768
        frames = []
        for start in range(0, len(sound) - window + 1, hop):
            part = [sound[start + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / window)) for n in range(window)]
            power = [
                abs(sum(x * np.exp(-2j * math.pi * k * n / points) for n, x in enumerate(part))) ** 2
                for k in range(points // 2 + 1)
            ]
            logs = []
            for low, peak, high in zip(edges, edges[1:], edges[2:], strict=False):
                hertz = [k * 1000 / points for k in range(points // 2 + 1)]
                weights = [max(0.0, min((f - low) / (peak - low), (high - f) / (high - peak))) for f in hertz]
                logs.append(math.log(max(sum(w * p for w, p in zip(weights, power, strict=True)), FLOOR)))
            frames.append(logs)
        expected = np.concatenate([np.mean(frames, axis=0), np.std(frames, axis=0)])
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_no_band_of_the_mel_scale_is_empty(rate: int):
    points = 1 << (round(0.025 * rate) - 1).bit_length()
    assert (triangles(rate, bands=40, bins=points // 2 + 1).sum(0) > 0).all()


def test_D21_log_mel_of_silence_and_of_a_click_is_finite():
    batch = sounds(400, 3)
    batch.inputs[0] = 0
    found = log_mel(batch.inputs, batch.sizes, rate=8000)
    assert found.isfinite().all() and found[0, 0] == pytest.approx(math.log(FLOOR))
    alone = log_mel(batch.inputs[1:, :, :3], batch.sizes[1:], rate=8000)
    torch.testing.assert_close(found[1:], alone)
    with pytest.raises(UsageError, match="bands"):
        log_mel(batch.inputs, batch.sizes, rate=8000, bands=0)


def test_sounds_of_one_frame_have_nothing_to_predict():
    method = cpc_audio(encoder="sound-8k-small", size=4096)
    frame, hop = SHORT.receptive_field, SHORT.hop
    assert method.extract.pair.enough(torch.tensor([[10], [frame], [frame + hop - 1], [frame + hop], [50000]])) == 2


@pytest.mark.parametrize("representation", ["context", "cells", "last"])
def test_evaluation_of_sound_sees_what_is_asked_for(representation: str):
    net = cpc_audio(encoder="sound-8k-small", size=4096, representation=representation).encoder
    z, c, found = net(torch.stack([torch.randn(2, 700), torch.ones(2, 700)], 1))
    expected = {"context": c.mean(1), "cells": z.mean(1), "last": c[:, -1]}[representation]
    torch.testing.assert_close(found, expected)
