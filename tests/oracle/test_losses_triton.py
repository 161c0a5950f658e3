"""The InfoNCE kernels for a GPU, run by triton's interpreter on the CPU, against the tiles of plain torch in fp64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nearfar import similarity
from nearfar.losses import infonce, triton_infonce
from nearfar.method import Pairs

triton = pytest.importorskip("triton")
RULES = [("mean_log", "all"), ("log_sum", "all"), ("mean_log", "negatives"), ("log_sum", "negatives")]
EVERYTHING = ["two_views", "classes", "one_sided", "no_keys", "queue", "queue_and_keys", "episodes"]


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    """CPU tensors go to the kernels; bf16, which the interpreter would multiply as integers, is multiplied as bf16."""
    from triton.runtime.interpreter import (  # pyright: ignore[reportMissingImports]
        InterpreterBuilder,
        TensorHandle,
    )

    multiply = InterpreterBuilder.create_dot

    def widened(tensor):
        if str(tensor.dtype.scalar) != "bf16":
            return tensor
        bits = torch.from_numpy(tensor.data.copy().view("int16"))
        return TensorHandle(bits.view(torch.bfloat16).float().numpy(), triton.language.float32)

    def dot(self, a, b, *rest):
        return multiply(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
    monkeypatch.setattr(triton_infonce, "fits", lambda vectors, score, rule: vectors.dtype == torch.float32)
    # Small enough for several blocks, of several runs, of several visits.
    monkeypatch.setattr(triton_infonce, "_block", lambda size, copies, memory: (32, 32, 4))
    monkeypatch.setattr(triton_infonce, "PROGRAMS", 4)
    yield
    torch.set_float32_matmul_precision("highest")


def _pairs(shape: str, n: int = 45, m: int = 83, width: int = 20) -> Pairs:
    """Pairs in fp64; rows of several, of one and of no positives, and slots that are equal."""
    draw = torch.Generator().manual_seed(7)

    def rows(*size: int) -> torch.Tensor:
        return torch.randn(*size, width, generator=draw, dtype=torch.float64).requires_grad_()

    def keys(*size: int, high: int) -> torch.Tensor:
        # Beyond 2^32, and equal in the lower half: all 64 bits are compared.
        return torch.randint(high, size, generator=draw) * 2**40 - 2**45

    if shape in ("two_views", "classes"):
        x, slot = rows(n), torch.arange(n)
        key = torch.arange(n) % max(n // 2, 1) if shape == "two_views" else keys(n, high=5)
        return Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot)
    if shape == "episodes":
        key, slot = keys(3, n, high=9), torch.arange(3 * n).reshape(3, n)
        x = rows(3, n)
        return Pairs(x, x, key, key, anchor_slot=slot, other_slot=slot, gather=False)
    left, right, own = rows(n), rows(m), rows(n)
    if shape == "no_keys":  # nothing can be positive but what is given
        return Pairs(left, right, anchor_slot=keys(n, high=30), other_slot=keys(m, high=30), positive=own)
    if shape == "queue":
        return Pairs(left, right.detach(), positive=own.detach(), gather=False)
    named = Pairs(left, right, keys(n, high=40), keys(m, high=30))
    if shape == "queue_and_keys":
        return replace(named, positive=own)
    return replace(named, anchor_slot=keys(n, high=30), other_slot=keys(m, high=30))


def _found(pairs: Pairs, dtype: torch.dtype, measure, degrees: float, rule: dict) -> dict[str, torch.Tensor]:
    """Loss, and its gradients by what they are of, the learned temperature among them."""
    names = [name for name in ("anchor", "other", "positive") if getattr(pairs, name) is not None]
    leaves = {name: getattr(pairs, name).detach().to(dtype) for name in names}
    if pairs.other is pairs.anchor:
        leaves["other"] = leaves["anchor"]
    for name in names:
        leaves[name].requires_grad_(getattr(pairs, name).requires_grad)
    temperature = torch.tensor(degrees, dtype=dtype, requires_grad=True)
    loss = infonce(replace(pairs, **leaves), measure, temperature=temperature, **rule)
    learned = {name: t for name, t in {**leaves, "temperature": temperature}.items() if t.requires_grad}
    slopes = torch.autograd.grad(loss, list(learned.values()))
    return {"loss": loss.detach(), **dict(zip(learned, slopes, strict=True))}


def _check(pairs: Pairs, measure=similarity.cosine, *, degrees=0.1, value=1e-6, slope=1e-5, floor=1e-3, **rule) -> None:
    """Distance of the loss and of each gradient, relative to what is wanted, to `floor` where that is less."""
    want = _found(pairs, torch.float64, measure, degrees, rule)
    for name, got in _found(pairs, torch.float32, measure, degrees, rule).items():
        away = (got - want[name]).norm() / want[name].norm().clamp(min=floor)
        assert away < (value if name == "loss" else slope), name


@pytest.mark.parametrize(("positives", "denominator"), RULES)
@pytest.mark.parametrize("shape", EVERYTHING)
def test_every_rule_and_shape(shape, positives, denominator):
    _check(_pairs(shape), positives=positives, denominator=denominator)


@pytest.mark.parametrize(("positives", "denominator"), RULES)
@pytest.mark.parametrize("shape", ["classes", "one_sided", "queue_and_keys", "episodes"])
def test_scores_without_a_bound(shape, positives, denominator):
    _check(_pairs(shape), similarity.dot, degrees=1.0, positives=positives, denominator=denominator)


def test_a_similarity_with_two_more_coordinates():
    _check(_pairs("one_sided"), similarity.negative_distance, degrees=10.0)


@pytest.mark.parametrize("shape", ["two_views", "one_sided"])
@pytest.mark.parametrize("degrees", [0.01, 0.02, 0.05, 0.5, 1.0])
def test_every_temperature(shape, degrees):
    # A score of 1/temperature carries the rounding of a cosine times 1/temperature into its exponential.
    rounding = max(1.0, 0.05 / degrees)
    _check(_pairs(shape), degrees=degrees, value=1e-6 * rounding, slope=1e-5 * rounding)


@pytest.mark.parametrize("measure", ["cosine", "dot"])
@pytest.mark.parametrize("shape", ["two_views", "classes", "one_sided", "queue"])
def test_bf16_operands_where_torch_is_told_medium(shape, measure):
    torch.set_float32_matmul_precision("medium")
    degrees = 0.2 if measure == "cosine" else 60.0
    _check(_pairs(shape, width=128), getattr(similarity, measure), degrees=degrees, value=1e-4, slope=5e-3)


@pytest.mark.parametrize("width", [2, 16, 300])
def test_widths_of_one_part_and_of_several(width):
    for shape in ("two_views", "one_sided"):
        _check(_pairs(shape, n=17, m=19, width=width))


def test_a_width_of_1():
    _check(_pairs("one_sided", width=1), similarity.dot, degrees=1.0)


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33])
def test_few_rows_and_blocks_that_end_with_them(n):
    _check(_pairs("two_views", n=n))
    _check(_pairs("one_sided", n=n, m=5))


@pytest.mark.parametrize(("programs", "block"), [(1, (16, 16, 4)), (512, (16, 16, 4)), (512, (64, 64, 4))])
def test_any_division_into_programs(monkeypatch, programs, block):
    monkeypatch.setattr(triton_infonce, "_block", lambda size, copies, memory: block)
    monkeypatch.setattr(triton_infonce, "PROGRAMS", programs)
    for measure in (similarity.cosine, similarity.dot):
        _check(_pairs("one_sided", n=18, m=35), measure, degrees=0.5)


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_all_rows_equal(denominator):
    x, key, slot = torch.ones(40, 8, dtype=torch.float64), torch.arange(20).repeat(2), torch.arange(40)
    pairs = Pairs(x.requires_grad_(), x, key, key, anchor_slot=slot, other_slot=slot)
    for measure in (similarity.cosine, similarity.dot):
        degrees = 0.5 if measure is similarity.cosine else 8.0
        _check(pairs, measure, degrees=degrees, floor=1.0, denominator=denominator)  # all gradients are 0


def test_rows_without_positives_or_negatives_take_no_part():
    x, slot = torch.eye(6, dtype=torch.float64), torch.arange(6)
    for key in (torch.arange(6), torch.zeros(6, dtype=torch.int64)):  # nothing positive; nothing negative
        pairs = Pairs(x.clone().requires_grad_(), x, key, key, anchor_slot=slot, other_slot=slot)
        for measure in (similarity.cosine, similarity.dot):
            for denominator in ("all", "negatives"):
                _check(replace(pairs, other=pairs.anchor), measure, floor=1.0, denominator=denominator)
