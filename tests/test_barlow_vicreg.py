"""Barlow Twins and VICReg: their losses against nested loops, closed forms and finite differences."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from toys import toy_batch, toy_method

from nearfar import similarity
from nearfar.errors import UsageError
from nearfar.losses import correlation, variance_covariance
from nearfar.method import Contrast, Pairs
from nearfar.methods import barlow_twins, vicreg

SHAPES = [(7, 4), (4, 7), (5, 5)]  # more samples than features, fewer, as many: two ways to sum squares
both_shapes = pytest.mark.parametrize(("samples", "width"), SHAPES)


def near(value: float):
    return pytest.approx(value, abs=1e-10)


def two_views(first: Tensor, second: Tensor) -> Pairs:
    return Pairs(first, second[:0], positive=second, gather=False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(samples: int, width: int) -> Tensor:
    """Features of mean 0 and variance 1 (over N) that are not correlated: columns of a Hadamard-like basis."""
    basis = torch.linalg.qr(torch.cat([torch.ones(samples, 1, dtype=torch.float64), noise(samples, width)], 1))[0]
    return basis[:, 1:] * math.sqrt(samples)


def column(z: Tensor, j: int) -> list[float]:
    return [float(row[j]) for row in z]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# Barlow Twins.


def slow_correlation(a: Tensor, b: Tensor, redundancy: float, eps: float) -> float:
    """Eq. 1 and 2, one pair of features at a time."""
    loss, width = 0.0, a.shape[1]
    for i in range(width):
        for j in range(width):
            x, y = column(a, i), column(b, j)
            x, y = [v - mean(x) for v in x], [v - mean(y) for v in y]
            below = math.sqrt((mean([v * v for v in x]) + eps) * (mean([v * v for v in y]) + eps))
            c = mean([v * w for v, w in zip(x, y, strict=True)]) / below
            loss += (1 - c) ** 2 if i == j else redundancy * c**2
    return loss


@both_shapes
def test_correlation_is_the_nested_loop(samples: int, width: int) -> None:
    a, b = 3 * noise(samples, width) + 1, noise(samples, width, seed=1)
    found = correlation(two_views(a, b), similarity.dot, redundancy=0.3, scale=2.0, eps=1e-3)
    assert found.item() == near(2 * slow_correlation(a, b, 0.3, 1e-3))


@both_shapes
def test_correlation_gradient_is_that_of_finite_differences(samples: int, width: int) -> None:
    views = [noise(samples, width, seed=seed).requires_grad_() for seed in range(2)]
    assert torch.autograd.gradcheck(
        lambda a, b: correlation(two_views(a, b), similarity.dot, redundancy=0.3, eps=1e-3), views
    )


@pytest.mark.parametrize(("samples", "width"), [(9, 6), (7, 6)])
def test_whitened_views_that_agree_cost_nothing(samples: int, width: int) -> None:
    z = whitened(samples, width)
    assert correlation(two_views(z, 3 * z - 5), similarity.dot, redundancy=0.7, eps=0.0).item() == near(0)


@pytest.mark.parametrize("width", [3, 20])
def test_features_that_all_say_the_same_cost_lambda_D_times_D_minus_1(width: int) -> None:
    z = noise(8, 1) * noise(1, width, seed=1).abs()
    found = correlation(two_views(z, z), similarity.dot, redundancy=0.0051, eps=0.0).item()
    assert found == near(0.0051 * width * (width - 1))


def test_views_without_relation_cost_D() -> None:
    z = whitened(12, 10)
    found = correlation(two_views(z[:, :5], z[:, 5:]), similarity.dot, redundancy=0.5, eps=0.0).item()
    assert found == near(5)


@both_shapes
def test_correlation_does_not_see_size_and_offset_of_a_feature(samples: int, width: int) -> None:
    a, b = noise(samples, width), noise(samples, width, seed=1)
    other = two_views(a * noise(width, seed=2).abs() + 4, b * noise(width, seed=3).abs() - 2)
    plain = correlation(two_views(a, b), similarity.dot, eps=0.0)
    assert correlation(other, similarity.dot, eps=0.0).item() == near(plain.item())


def test_correlation_standardises_as_batch_norm_does() -> None:
    a, b = 0.01 * noise(16, 6), noise(16, 6, seed=1)
    norm = torch.nn.BatchNorm1d(6, affine=False).double()
    c = norm(a).T @ norm(b) / 16
    expected = (1 - c.diagonal()).square().sum() + 0.0051 * (c - torch.diag(c.diagonal())).square().sum()
    assert correlation(two_views(a, b), similarity.dot).item() == near(expected.item())


def test_both_ways_to_sum_squares_agree_where_the_loss_is_wide() -> None:
    """fp32, 512 features of 64 samples: rows that are there twice change no statistic, and make the samples many."""
    a, b = noise(64, 512).float(), noise(64, 512, seed=1).float()
    few = correlation(two_views(a, b), similarity.dot)
    many = correlation(two_views(a.repeat(9, 1), b.repeat(9, 1)), similarity.dot)
    torch.testing.assert_close(few, many, rtol=1e-5, atol=0)


# VICReg.


def slow_vicreg(a: Tensor, b: Tensor, weights: tuple[float, float, float], form: str) -> float:
    """Eq. 1 to 6, one number at a time; what the released code has otherwise told apart by `form`."""
    (n, d), spread, together = a.shape, 0.0, 0.0
    apart = sum(float(x - y) ** 2 for one, two in zip(a, b, strict=True) for x, y in zip(one, two, strict=True)) / n
    for z in (a, b):
        columns = [[v - mean(column(z, j)) for v in column(z, j)] for j in range(d)]
        for i in range(d):
            for j in range(d):
                c = sum(v * w for v, w in zip(columns[i], columns[j], strict=True)) / (n - 1)
                if i == j:
                    spread += max(0.0, 1 - math.sqrt(c + 1e-4)) / d
                else:
                    together += c**2 / d
    if form == "code":
        apart, spread = apart / d, spread / 2
    return weights[0] * apart + weights[1] * spread + weights[2] * together


@both_shapes
@pytest.mark.parametrize("form", ["code", "paper"])
def test_vicreg_is_the_nested_loop(samples: int, width: int, form: str) -> None:
    a, b = 0.9 * noise(samples, width) + 1, noise(samples, width, seed=1)
    weights = (2.0, 30.0, 0.7)
    named = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    found = variance_covariance(two_views(a, b), similarity.dot, **named, form=form).item()
    assert found == near(slow_vicreg(a, b, weights, form))


@both_shapes
def test_vicreg_gradient_is_that_of_finite_differences(samples: int, width: int) -> None:
    views = [(0.7 * noise(samples, width, seed=seed)).requires_grad_() for seed in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: variance_covariance(two_views(a, b), similarity.dot), views)


@pytest.mark.parametrize(("form", "value"), [("code", 24.75), ("paper", 49.5)])
@pytest.mark.parametrize(("samples", "width"), [(8, 3), (3, 8)])
def test_vicreg_of_collapsed_views(form: str, value: float, samples: int, width: int) -> None:
    z = torch.full((samples, width), 0.3, dtype=torch.float64)
    assert variance_covariance(two_views(z, z), similarity.dot, form=form).item() == near(value)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_whitened_views_that_agree_and_vary_enough_cost_nothing(form: str) -> None:
    z = 1.1 * whitened(9, 6)
    assert variance_covariance(two_views(z, z), similarity.dot, form=form).item() == near(0)


def test_the_two_forms_differ_by_the_width_and_by_two() -> None:
    pairs, width = two_views(noise(6, 5), noise(6, 5, seed=1)), 5
    named = ("invariance", "variance", "covariance")
    for name, factor in zip(named, (width, 2, 1), strict=True):
        weights = dict.fromkeys(named, 0.0) | {name: 1.0}
        code, paper = (
            variance_covariance(pairs, similarity.dot, **weights, form=form).item() for form in ("code", "paper")
        )
        assert paper > 0 and paper == near(factor * code)


# Both.

LOSSES = {"barlow": correlation, "vicreg": variance_covariance}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
def test_both_sides_go_through_the_similarity(loss) -> None:
    a, b = noise(6, 4), noise(6, 4, seed=1)
    unit = [torch.nn.functional.normalize(z, dim=1) for z in (a, b)]
    found = loss(two_views(a, b), similarity.cosine)
    assert found.item() == near(loss(two_views(*unit), similarity.dot).item())
    assert abs(found - loss(two_views(a, b), similarity.dot)) > 1e-3
    bilinear = similarity.Bilinear(4).double()
    torch.nn.init.normal_(bilinear.map.weight)
    found = loss(two_views(a, b), bilinear)
    assert found.item() == near(loss(two_views(bilinear.map(a), b), similarity.dot).item())


@every_loss
def test_half_precision_is_raised(loss) -> None:
    a, b = noise(32, 8).bfloat16(), noise(32, 8, seed=1).bfloat16()
    found = loss(two_views(a, b), similarity.dot)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = loss(two_views(a, b), similarity.dot)
    assert found.dtype == torch.float32 and torch.equal(found, again)
    torch.testing.assert_close(found, loss(two_views(a.float(), b.float()), similarity.dot))


@every_loss
@pytest.mark.parametrize(
    "change", [{"positive": None}, {"positive": noise(2, 4)}, {"anchor": noise(1, 6, 4), "positive": noise(1, 6, 4)}]
)
def test_pairs_without_two_views_are_refused(loss, change: dict) -> None:
    with pytest.raises(UsageError, match="pairs"):
        loss(replace(two_views(noise(6, 4), noise(6, 4)), **change), similarity.dot)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="form.*code, paper"):
        variance_covariance(two_views(noise(6, 4), noise(6, 4)), similarity.dot, form="released")


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg"])
def test_a_method_compares_its_two_views_and_refuses_a_third(name: str) -> None:
    method = toy_method(name)
    model = Contrast(method)
    loss = model(toy_batch())
    first, second = model.seen[0]
    expected = model.loss(two_views(first, second), similarity.dot)
    torch.testing.assert_close(loss, expected)
    views = method.views
    with pytest.raises(UsageError, match="3 views"):
        Contrast(replace(method, views=lambda batch: [*views(batch), views(batch)[0]]))(toy_batch())


def test_settings_reach_the_loss() -> None:
    given = {"encoder": "small", "size": 32, "hidden": (16,), "width": 8}
    one, two = barlow_twins(**given, redundancy=0.1, scale=3.0), vicreg(**given, variance=7.0, form="paper")
    assert isinstance(one.loss, partial) and one.loss.keywords == {"redundancy": 0.1, "scale": 3.0}
    assert isinstance(two.loss, partial)
    assert two.loss.keywords == {"invariance": 25.0, "variance": 7.0, "covariance": 1.0, "form": "paper"}
    for method in (one, two):
        layers = method.extract.head.layers
        assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm", "ReLU", "Linear"]
        assert layers[0].bias is None and layers[-1].bias is None and layers[-1].out_features == 8
