"""Keyed InfoNCE on an NVIDIA GPU: the two passes of `rows` and `gradients`, one kernel each. Imports triton.

A program owns a block of rows and visits blocks of columns; scores live in registers. Every number has one program that
writes it, in an order that is fixed: no atomics, so the same inputs give the same bits. Exponentials are to the base 2,
with log2(e) in the scale and in the numbers of the rows. `WIDTH` holds an embedding, or one of its `PARTS`.

Grid: (episodes * blocks of rows, runs of columns, parts of the output's width).
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

LN2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1e38)  # finite: the difference of two empty rows' maxima is then 0, not NaN


@triton.jit
def _load(vectors, i, rows, d, width):
    """Rows i and coordinates d, 0 beyond the ends."""
    at = vectors + i.to(tl.int64)[:, None] * width + d[None, :]
    return tl.load(at, mask=(i < rows)[:, None] & (d < width)[None, :], other=0.0)


@triton.jit
def _dots(
    mine,
    theirs,
    owner,
    visited,
    i,
    j,
    n,
    m,
    width,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Dot products of rows i with columns j; embeddings wider than `WIDTH` are read in parts."""
    if PARTS == 1:
        dots = tl.dot(mine, tl.trans(theirs), input_precision=PRECISION)
    else:
        dots = tl.zeros((mine.shape[0], theirs.shape[0]), dtype=tl.float32)
        for part in range(PARTS):
            d = part * WIDTH + tl.arange(0, WIDTH)
            left, right = _load(owner, i, n, d, width), _load(visited, j, m, d, width)
            dots = tl.dot(left, tl.trans(right), dots, input_precision=PRECISION)
    return dots


@triton.jit
def _named(numbers, theirs, at, i, n):
    """Keys or slots of rows i; anything where the other side has none."""
    named = i
    if theirs is not None:
        named = tl.load(numbers + at + i, mask=i < n, other=0)
    return named


@triton.jit
def _pairs(key, slot, column_key, column_slot, at, j, m):
    """Which pairs count, and which are positive; without keys the second is the first and not to be used."""
    usable = (j < m)[None, :]
    if column_slot is not None:
        usable = usable & (slot[:, None] != tl.load(column_slot + at + j, mask=j < m, other=0)[None, :])
    positive = usable
    if column_key is not None:
        positive = usable & (key[:, None] == tl.load(column_key + at + j, mask=j < m, other=0)[None, :])
    return usable, positive


@triton.jit
def _grown(peak, total, scores, counts):
    """A running maximum and the sum under it, with the scores that count added."""
    scores = tl.where(counts, scores, float("-inf"))
    higher = tl.maximum(peak, tl.max(scores, 1))
    return higher, total * tl.exp2(peak - higher) + tl.sum(tl.exp2(scores - higher[:, None]), 1)


@triton.jit
def statistics(
    rows,
    columns,
    row_key,
    column_key,
    row_slot,
    column_slot,
    into,
    n,
    m,
    width,
    run,
    scale,
    BOUNDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of each row: number of positives, sum of their scores, maximum and sum over positives, and over negatives.

    `into` is `[6, runs, episodes, n]`. `scale` is to the base 2, results are natural.
    """
    blocks = tl.cdiv(n, ROWS)
    episode, first = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(1) * run
    i, d = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    rows += episode * n * width
    columns += episode * m * width
    key = _named(row_key, column_key, episode * n, i, n)
    slot = _named(row_slot, column_slot, episode * n, i, n)
    mine = _load(rows, i, n, d, width)
    empty = tl.zeros((ROWS,), dtype=tl.float32)
    count, score, pulled, pushed = empty, empty, empty, empty
    near, far = empty + LOWEST, empty + LOWEST
    for start in range(first, tl.minimum(first + run, m), COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        theirs = _load(columns, j, m, d, width)
        scores = _dots(mine, theirs, rows, columns, i, j, n, m, width, WIDTH, PARTS, PRECISION) * scale
        usable, positive = _pairs(key, slot, column_key, column_slot, episode * m, j, m)
        if column_key is not None:
            count += tl.sum(tl.where(positive, 1.0, 0.0), 1)
            score += tl.sum(tl.where(positive, scores, 0.0), 1)
            if BOUNDED:
                pulled += tl.sum(tl.where(positive, tl.exp2(scores), 0.0), 1)
            else:
                near, pulled = _grown(near, pulled, scores, positive)
            usable = usable & (positive == 0)
        if BOUNDED:
            pushed += tl.sum(tl.where(usable, tl.exp2(scores), 0.0), 1)
        else:
            far, pushed = _grown(far, pushed, scores, usable)
    one = (tl.num_programs(0) // blocks).to(tl.int64) * n
    at, step = into + tl.program_id(1) * one + episode * n + i, tl.num_programs(1) * one
    tl.store(at, count, mask=i < n)
    tl.store(at + step, score * LN2, mask=i < n)
    tl.store(at + 2 * step, near * LN2, mask=i < n)
    tl.store(at + 3 * step, pulled, mask=i < n)
    tl.store(at + 4 * step, far * LN2, mask=i < n)
    tl.store(at + 5 * step, pushed, mask=i < n)


@triton.jit
def _factors(numbers, at, step, i, n):
    """The two numbers of rows i, 0 where the losses of their side are not asked for."""
    level = tl.zeros(i.shape, dtype=tl.float32)
    lowering = level
    if numbers is not None:
        level = tl.load(numbers + at + i, mask=i < n, other=0.0)
        lowering = tl.load(numbers + step + at + i, mask=i < n, other=0.0)
    return level, lowering


@triton.jit
def _push_and_pull(scores, level, lowering, LOG_SUM: tl.constexpr):
    """A row's slope on its negatives, and what is taken from it on its positives."""
    push = tl.exp2(scores - level)
    pull = lowering + tl.zeros_like(push)
    if LOG_SUM:
        pull = tl.exp2(scores - lowering)  # may overflow, but not on a positive, and it is looked at there alone
    return push, pull


@triton.jit
def _slopes(
    dots,
    usable,
    positive,
    level,
    lowering,
    their_level,
    their_lowering,
    scale,
    OWN: tl.constexpr,
    VISITED: tl.constexpr,
    KEYS: tl.constexpr,
    BOUNDED: tl.constexpr,
    LOG_SUM: tl.constexpr,
    NEGATIVES: tl.constexpr,
):
    """Slope of all losses at each score: as rows of the owner, as rows of the visited side, or the sum of both."""
    scores = dots * scale
    if BOUNDED:  # one exponential serves both ends: their numbers are factors
        share = tl.exp2(scores)
        push, pull = share * (level[:, None] + their_level[None, :]), lowering[:, None] + their_lowering[None, :]
        if LOG_SUM:
            pull = share * pull
    elif OWN and VISITED:
        push, pull = _push_and_pull(scores, level[:, None], lowering[:, None], LOG_SUM)
        more, less = _push_and_pull(scores, their_level[None, :], their_lowering[None, :], LOG_SUM)
        push, pull = push + more, pull + less
    elif OWN:
        push, pull = _push_and_pull(scores, level[:, None], lowering[:, None], LOG_SUM)
    else:
        push, pull = _push_and_pull(scores, their_level[None, :], their_lowering[None, :], LOG_SUM)
    if KEYS:
        push = tl.where(positive, -pull if NEGATIVES else push - pull, push)
    return tl.where(usable, push, 0.0)


@triton.jit
def gradients(
    owner,
    visited,
    owner_key,
    visited_key,
    owner_slot,
    visited_slot,
    owner_numbers,
    visited_numbers,
    into,
    told,
    n,
    m,
    width,
    run,
    scale,
    BOUNDED: tl.constexpr,
    LOG_SUM: tl.constexpr,
    NEGATIVES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum over the visited of slope times embedding, for each row of the owner, and of slope times dot product.

    Numbers `[2, episodes, n]` are given of each side whose losses count. `into` is `[runs, episodes, n, width]`, `told`
    `[runs, episodes, n]` or None.
    """
    blocks = tl.cdiv(n, ROWS)
    episode, first = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(1) * run
    one = (tl.num_programs(0) // blocks).to(tl.int64)
    i = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    owner += episode * n * width
    visited += episode * m * width
    key = _named(owner_key, visited_key, episode * n, i, n)
    slot = _named(owner_slot, visited_slot, episode * n, i, n)
    level, lowering = _factors(owner_numbers, episode * n, one * n, i, n)
    mine = _load(owner, i, n, d, width)
    total, told_here = tl.zeros((ROWS, WIDTH), dtype=tl.float32), tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(first, tl.minimum(first + run, m), COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        theirs = _load(visited, j, m, d, width)
        dots = _dots(mine, theirs, owner, visited, i, j, n, m, width, WIDTH, PARTS, PRECISION)
        usable, positive = _pairs(key, slot, visited_key, visited_slot, episode * m, j, m)
        their_level, their_lowering = _factors(visited_numbers, episode * m, one * m, j, m)
        slopes = _slopes(
            dots,
            usable,
            positive,
            level,
            lowering,
            their_level,
            their_lowering,
            scale,
            owner_numbers is not None,
            visited_numbers is not None,
            visited_key is not None,
            BOUNDED,
            LOG_SUM,
            NEGATIVES,
        )
        if told is not None:
            told_here += tl.sum(slopes * dots, 1)
        total = tl.dot(slopes.to(theirs.dtype), theirs, total, input_precision=PRECISION)
    at = tl.program_id(1) * one * n + episode * n + i
    tl.store(into + at[:, None] * width + d[None, :], total, mask=(i < n)[:, None] & (d < width)[None, :])
    if told is not None and tl.program_id(2) == 0:
        tl.store(told + at, told_here, mask=i < n)
