"""Keyed InfoNCE on an NVIDIA GPU: the passes over all pairs in one kernel each, where triton is installed.

In place of `rows.Statistics.add` over all tiles and of `gradients`, with the same results to rounding. Nothing N x M is
written: statistics read (N + M) D numbers and write 6 N; a gradient pass reads the same and writes N D.

    pass                     products   exponentials
    statistics               2 N M D    N M
    gradient, each side      4 N M D    N M (2 N M for both roles at once without a bound)

NT-Xent, 2 + 4 products a pair and coordinate, visits the full square: a program owns its rows, so there are no atomics
and the same inputs give the same bits. With N = M = 65,536 and D = 128 that is 3.3 TFLOP, against 17 GB for one matrix
of scores: bound by arithmetic, by exponentials next (16 a clock on each multiprocessor), by memory never. Where few
rows meet many columns, several programs share a row, and their sums are added in order.

**Unmeasured on a GPU as of now**: the kernels are tested in triton's interpreter and compiled for compute capability
8.0, 8.6 and 9.0; block sizes are chosen by what fits, not by the clock. They are not tuned at run time: the order of
sums, and so every bit of a result, would depend on it.

Arithmetic is fp32 with embeddings multiplied as `torch.get_float32_matmul_precision()` has it: "highest", three TF32
products (fp32 but for the last bits); "high", TF32; "medium", bf16. Sums are fp32 always.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..device import has_kernels
from .rows import LogSum, Rule, Statistics
from .tiles import Meeting, Score, Side

LOG2E = math.log2(math.e)
PRECISIONS = {"highest": "tf32x3", "high": "tf32", "medium": "tf32"}  # "medium" has bf16 operands
PROGRAMS = 512
"""Programs wanted, a few for each multiprocessor of a large GPU; a constant: the order of sums depends on it."""
WIDEST = 1024
"""Embeddings wider than this go by tiles: there products outweigh all else, and theirs are not computed twice."""
SHARED_MEMORY = 232_448
"""Bytes that a program may have on a Hopper GPU, for the interpreter."""
SCRATCH = 4096
"""Bytes left for keys, slots and sums on their way between threads; 3072 were seen."""


def fits(vectors: Tensor, score: Score, rule: Rule) -> bool:
    """Whether the kernels compute this: fp32 on an NVIDIA GPU, no curve, one pass of statistics."""
    return (
        vectors.dtype == torch.float32
        and 0 < vectors.shape[-1] <= WIDEST
        and score.curve is None
        and rule.denominator != "own_and_negatives"
        and has_kernels(vectors.device)
    )


def add_statistics(found: Statistics, met: Meeting) -> None:
    """Adds all pairs to the statistics of the rows."""
    rows, columns, score = met.rows, met.columns, met.score
    (episodes, n, width), m = rows.vectors.shape, columns.vectors.shape[1]
    if 0 in (episodes, n, m):
        return
    from . import triton_kernels

    left, right, keys, slots = _operands(rows, columns)
    plan = _plan(left, n, m, episodes)
    into = rows.vectors.new_empty((6, plan.runs, episodes, n), dtype=torch.float32)
    _launch(
        triton_kernels.statistics,
        (plan.blocks * episodes, plan.runs),
        *(left, right, *keys, *slots, into, n, m, width, plan.run),
        LOG2E / score.temperature,
        BOUNDED=found.bounded,
        **plan.constants,
    )
    count, pulled, near, pull, far, push = into.unbind()
    found.count += count.sum(0)
    found.score += pulled.sum(0)
    _merge(found.positives, near, pull, found.bounded)
    _merge(found.negatives, far, push, found.bounded)


def add_gradients(
    met: Meeting,
    rule: Rule,
    *,
    numbers: Tensor,
    into_rows: Tensor | None = None,
    into_columns: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """As `gradients.add_gradients`."""
    factors = _factors(numbers, rule, met.score.bounded)
    if into_rows is not None or into_columns is None:
        _add(met.rows, met.columns, factors, None, met.score, rule, into=into_rows, into_scores=into_scores)
        into_scores = None
    if into_columns is not None:
        _add(met.columns, met.rows, None, factors, met.score, rule, into=into_columns, into_scores=into_scores)


def add_symmetric_gradients(
    met: Meeting,
    rule: Rule,
    *,
    numbers: Tensor,
    column_numbers: Tensor,
    into_rows: Tensor | None = None,
    into_scores: Tensor | None = None,
) -> None:
    """As `gradients.add_symmetric_gradients`."""
    mine, theirs = (_factors(x, rule, met.score.bounded) for x in (numbers, column_numbers))
    _add(met.rows, met.columns, mine, theirs, met.score, rule, into=into_rows, into_scores=into_scores)


def _add(
    owner: Side,
    visited: Side,
    owner_factors: Tensor | None,
    visited_factors: Tensor | None,
    score: Score,
    rule: Rule,
    *,
    into: Tensor | None,
    into_scores: Tensor | None,
) -> None:
    """Adds to the owner what the losses of the sides with factors do to it, and to the scores' sum what is theirs."""
    (episodes, n, width), m = owner.vectors.shape, visited.vectors.shape[1]
    if 0 in (episodes, n, m) or (into is None and into_scores is None):
        return
    from . import triton_kernels

    left, right, keys, slots = _operands(owner, visited)
    plan = _plan(left, n, m, episodes)
    sums = left.new_empty((plan.runs, episodes, n, width), dtype=torch.float32)
    told = None if into_scores is None else sums.new_empty((plan.runs, episodes, n))
    _launch(
        triton_kernels.gradients,
        (plan.blocks * episodes, plan.runs, plan.constants["PARTS"]),
        *(left, right, *keys, *slots, owner_factors, visited_factors, sums, told, n, m, width, plan.run),
        LOG2E / score.temperature,
        BOUNDED=score.bounded,
        LOG_SUM=rule.positives == "log_sum",
        NEGATIVES=rule.denominator == "negatives",
        **plan.constants,
    )
    if into is not None:
        into += sums.sum(0)
    if into_scores is not None and told is not None:
        # With both sides' losses each pair is met again from its other end, here or in another process.
        share = 1.0 if owner_factors is None or visited_factors is None else 0.5
        into_scores += told.sum() * (share / score.temperature)


def _factors(numbers: Tensor, rule: Rule, bounded: bool) -> Tensor:
    """`Rows.numbers` as the kernel wants them, `[2, E, N]`: for the push on negatives and the pull on positives."""
    level, lp, _, inverse = numbers.unbind(-1)
    log_sum = rule.positives == "log_sum"
    if bounded:  # bounded scores: neither factor is above exp(2 bound)
        return torch.stack([(-level).exp(), (-lp).exp() if log_sum else inverse])
    return torch.stack([level * LOG2E, lp * LOG2E if log_sum else inverse])


def _launch(kernel: Any, grid: tuple[Any, ...], first: Tensor, *rest: object, **constants: object) -> None:
    with torch.cuda.device_of(first):
        kernel[grid](first, *rest, **constants)


class _Plan(NamedTuple):
    blocks: int  # of rows, in an episode
    runs: int  # programs that share a row
    run: int  # columns for each of them
    constants: dict[str, int | str]


def _plan(vectors: Tensor, n: int, m: int, episodes: int) -> _Plan:
    """Sizes of a launch, by the shapes and the kind of GPU alone."""
    precision = torch.get_float32_matmul_precision()
    widest = 128 if precision == "highest" or vectors.shape[-1] > 256 else 256  # 256 in parts leaves no room for wgmma
    width = min(max(16, 1 << (vectors.shape[-1] - 1).bit_length()), widest)
    parts, memory = -(-vectors.shape[-1] // width), SHARED_MEMORY
    if vectors.is_cuda:
        memory = torch.cuda.get_device_properties(vectors.device).shared_memory_per_block_optin
    copies = int(precision == "highest" or parts > 1)
    rows, columns, warps = _block(width * vectors.element_size(), copies, memory)
    blocks, tiles = -(-n // rows), -(-m // columns)
    runs = max(1, min(PROGRAMS // (blocks * episodes), tiles))
    run = -(-tiles // runs)
    constants = {
        **{"ROWS": rows, "COLUMNS": columns, "WIDTH": width, "PARTS": parts},
        **{"PRECISION": PRECISIONS[precision], "num_warps": warps, "num_stages": 2},
    }
    return _Plan(blocks, -(-tiles // run), run * columns, constants)


def _block(size: int, copies: int, memory: int) -> tuple[int, int, int]:
    """Rows, columns and warps: the largest of which two blocks of columns fit into the shared memory.

    Args:
        size: Bytes of an embedding, or of a part of one.
        copies: Further blocks of each side: 1 for three products of TF32, and where embeddings are read in parts.
        memory: Bytes there are.
    """
    for rows, columns, warps in ((128, 64, 8), (64, 64, 8), (64, 32, 8), (32, 32, 4)):
        if size * (rows + 2 * columns + copies * (rows + columns)) + SCRATCH <= memory:
            return rows, columns, warps
    return 16, 16, 4


def _operands(rows: Side, columns: Side) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
    """Embeddings, keys and slots as the kernels read them; keys are None where either side has none, slots too."""
    low = torch.get_float32_matmul_precision() == "medium"
    left, right = ((side.vectors.to(torch.bfloat16) if low else side.vectors).contiguous() for side in (rows, columns))
    return left, right, _both(rows.key, columns.key), _both(rows.slot, columns.slot)


def _both(mine: Tensor | None, theirs: Tensor | None) -> tuple[Tensor | None, ...]:
    return (None, None) if mine is None or theirs is None else (mine.contiguous(), theirs.contiguous())


def _merge(found: LogSum, peak: Tensor, total: Tensor, bounded: bool) -> None:
    """Adds sums `[runs, E, N]` and their maxima to those found so far."""
    if bounded:
        found.sum += total.sum(0)
        return
    top = torch.maximum(found.peak, peak.amax(0))
    found.sum = found.sum * (found.peak - top).exp() + (total * (peak - top).exp()).sum(0)
    found.peak = top
