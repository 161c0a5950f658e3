"""Losses whose value is known on paper. fp64, 1e-10; the pairs are made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar import similarity
from nearfar.losses import infonce
from nearfar.method import Pairs

N, DEGREES = 8, 0.5


def near(value: float):
    return pytest.approx(value, abs=1e-10)


def _two_views(first: Tensor, second: Tensor, key: Tensor | None = None) -> Pairs:
    """All embeddings of two views meet each other."""
    x, n = torch.cat([first, second]), len(first)
    key, slot = torch.arange(n).repeat(2) if key is None else key, torch.arange(2 * n)
    return Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot)


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _eye(n: int, width: int | None = None) -> Tensor:
    return torch.eye(n, width or n, dtype=torch.float64)


# NT-Xent, SimCLR


def test_nt_xent_of_identical_orthonormal_pairs():
    loss = infonce(_two_views(_eye(N, 16), _eye(N, 16)), similarity.cosine, temperature=DEGREES)
    assert loss.item() == near(math.log(1 + (2 * N - 2) * math.exp(-1 / DEGREES)))
    assert loss.item() == pytest.approx(1.06288, abs=5e-6)


@pytest.mark.parametrize("degrees", [0.01, 0.07, 1.0])
def test_nt_xent_of_equal_embeddings_is_chance(degrees):
    rows = torch.ones(N, 16, dtype=torch.float64)
    loss = infonce(_two_views(rows, rows), similarity.cosine, temperature=degrees)
    assert loss.item() == near(math.log(2 * N - 1))


def test_nt_xent_does_not_see_lengths():
    a, b = _noise(N, 16), _noise(N, 16)
    plain, scaled = (infonce(_two_views(s * a, t * b), similarity.cosine).item() for s, t in ((1, 1), (7, 0.3)))
    assert plain == near(scaled)


def test_two_half_losses_of_the_released_simclr_code_add_up_to_twice_the_mean():
    a, b = _noise(N, 16), _noise(N, 16)
    image, both = torch.arange(N), torch.arange(2 * N)
    others = torch.cat([a, b])
    halves = sum(
        infonce(Pairs(view, others, image, image.repeat(2), anchor_slot=slot, other_slot=both), similarity.cosine)
        for view, slot in ((a, both[:N]), (b, both[N:]))
    )
    assert float(halves) == near(2 * infonce(_two_views(a, b), similarity.cosine).item())


def test_dcl_of_orthonormal_pairs_is_below_zero():
    pairs = _two_views(_eye(N, 16), _eye(N, 16))
    loss = infonce(pairs, similarity.cosine, temperature=0.2, denominator="negatives").item()
    assert loss == near(math.log(2 * N - 2) - 1 / 0.2) and loss < 0


# SupCon


def _classes(classes: int = 4, each: int = 6) -> tuple[Tensor, Tensor]:
    key = torch.arange(classes).repeat_interleave(each)
    return _eye(classes)[key], key


def test_supcon_of_collapsed_classes():
    rows, key = _classes()
    slot = torch.arange(len(key))
    loss = infonce(Pairs(rows, rows, key, key, anchor_slot=slot, other_slot=slot), similarity.cosine, temperature=0.1)
    assert loss.item() == near(math.log(5 + 18 * math.exp(-10)))


def test_supcon_of_collapsed_classes_with_the_sum_inside():
    rows, key = _classes()
    slot = torch.arange(len(key))
    pairs = Pairs(rows, rows, key, key, anchor_slot=slot, other_slot=slot)
    inside = infonce(pairs, similarity.cosine, temperature=0.1, positives="log_sum")
    assert inside.item() == near(math.log(1 + 18 / 5 * math.exp(-10)))


def test_supcon_with_one_class_an_image_is_nt_xent():
    a, b = _noise(N, 16), _noise(N, 16)
    names = torch.tensor([907, -3, 2**62, 0, 55, 1, 8, 13]).repeat(2)  # any numbers do as keys
    alike = infonce(_two_views(a, b, names), similarity.cosine)
    assert alike.item() == near(infonce(_two_views(a, b), similarity.cosine).item())


def test_supcon_outside_is_not_below_inside():
    """Jensen: the mean of logarithms is at most the logarithm of the mean, L_out >= L_in."""
    rows, key = _noise(24, 8), torch.arange(4).repeat_interleave(6)
    slot = torch.arange(24)
    pairs = Pairs(rows, rows, key, key, anchor_slot=slot, other_slot=slot)
    outside = infonce(pairs, similarity.cosine).item()
    inside = infonce(pairs, similarity.cosine, positives="log_sum").item() + math.log(5)  # 1/|P| inside the logarithm
    assert outside >= inside


# MoCo


def test_moco_of_a_query_equal_to_its_key_and_an_orthogonal_queue():
    rows = _eye(101, 128)
    pairs = Pairs(rows[:1], rows[1:], positive=rows[:1], gather=False)
    loss = infonce(pairs, similarity.cosine, temperature=0.07)
    assert loss.item() == near(math.log(1 + 100 * math.exp(-1 / 0.07)))


def test_moco_v3_both_directions_of_orthonormal_keys():
    t, rows, key = 0.2, _eye(16), torch.arange(16)
    one = 2 * t * infonce(Pairs(rows, rows.clone(), key, key), similarity.cosine, temperature=t)
    assert (2 * one).item() == near(4 * t * math.log(1 + 15 * math.exp(-1 / t)))


# CLIP


def test_clip_of_orthonormal_matched_pairs_with_its_starting_temperature():
    image, text, key = _eye(32), _eye(32), torch.arange(32)
    there = infonce(Pairs(image, text, key, key), similarity.cosine, temperature=0.07)
    back = infonce(Pairs(text, image, key, key), similarity.cosine, temperature=0.07)
    assert (0.5 * (there + back)).item() == near(math.log(1 + 31 * math.exp(-1 / 0.07)))


# CPC


def test_cpc_of_zero_predictions_is_chance():
    key = torch.arange(32)
    loss = infonce(Pairs(torch.zeros(32, 5).double(), _noise(32, 5), key, key), similarity.dot, temperature=1.0)
    assert loss.item() == near(math.log(32))


def test_cpc_of_one_positive_above_zero_scores():
    s, key = 3.0, torch.arange(32)
    pairs = Pairs(s * _eye(1, 32), _eye(32), key[:1], key)
    assert infonce(pairs, similarity.dot, temperature=1.0).item() == near(math.log(1 + 31 * math.exp(-s)))


# DCL


@pytest.mark.parametrize("s", [-2.0, 0.0, 3.0])
def test_dcl_is_linear_in_the_positive_score(s):
    key = torch.arange(32)
    pairs = Pairs(s * _eye(1, 32), _eye(32), key[:1], key)
    loss = infonce(pairs, similarity.dot, temperature=1.0, denominator="negatives")
    assert loss.item() == near(math.log(31) - s)


# AMDIM, YADIM


def _one_to_cells(images: int, cells: int, anchor: Tensor | None = None) -> Pairs:
    """The global vector of each image meets all cells of all images."""
    image = torch.arange(images)
    anchor = torch.zeros(images, 8, dtype=torch.float64) if anchor is None else anchor
    return Pairs(anchor, _noise(images * cells, 8), image, image.repeat_interleave(cells))


def test_amdim_of_zero_maps():
    loss = sum(
        infonce(_one_to_cells(5, n), similarity.clipped_dot(20.0), temperature=1.0, denominator="own_and_negatives")
        for n in (25, 49, 25)
    )
    assert float(loss) == near(2 * math.log(1 + 25 * 4) + math.log(1 + 49 * 4))
    assert float(loss) == pytest.approx(14.5134, abs=5e-5)


def test_amdim_leaves_the_other_cells_of_the_image_out_of_the_denominator():
    loss = {
        d: infonce(_one_to_cells(5, 25), similarity.dot, denominator=d).item() for d in ("own_and_negatives", "all")
    }
    assert loss == {"own_and_negatives": near(math.log(1 + 25 * 4)), "all": near(math.log(25 * 5))}


def test_yadim_of_zero_maps_is_chance():
    loss = infonce(_one_to_cells(7, 1), similarity.dot, temperature=1.0, denominator="own_and_negatives")
    assert loss.item() == near(math.log(7))


def test_yadim_with_the_similarity_and_negatives_of_nt_xent_is_nt_xent():
    pairs = _two_views(_noise(N, 16), _noise(N, 16))
    yadim = infonce(pairs, similarity.cosine, denominator="own_and_negatives").item()
    assert yadim == near(infonce(pairs, similarity.cosine).item())


# infoPatch


def _episode(scale: float) -> Pairs:
    """One query of class 0, five classes with one support each; infoPatch multiplies cosines by 7."""
    key = torch.arange(5)
    return Pairs(scale * _eye(1, 5), _eye(5), key[:1], key, gather=False)


def test_infopatch_of_zero_scores_is_chance():
    loss = infonce(_episode(0.0), similarity.cosine, temperature=1 / 7, positives="log_sum")
    assert loss.item() == near(math.log(5))


def test_infopatch_of_a_perfect_match():
    loss = infonce(_episode(1.0), similarity.cosine, temperature=1 / 7, positives="log_sum")
    assert loss.item() == near(math.log(1 + 4 * math.exp(-7)))
