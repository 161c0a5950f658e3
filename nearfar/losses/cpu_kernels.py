"""What is done to a tile of scores on a CPU, each in one pass over it.

A tile is `[e, r, c]`, its corner at `episode, row, column` of the whole. `positive` and `kept` are masks of 1 and 0 of
the tile's shape, or None where they would be 0, or 1, everywhere: numba compiles each case for itself.

Constants are float32, because a Python float would turn the arithmetic into float64.
"""

from __future__ import annotations

from math import exp, log, log1p

import numpy as np

from ..compiled import compiled, inlined

f32, i32 = np.float32, np.int32
ZERO, HALF, ONE, LOG2E = f32(0), f32(0.5), f32(1), f32(1.4426950408889634)
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)
INFINITE = f32(np.inf)
EXPONENT_BIAS, MANTISSA = i32(127), i32(23)
C2, C3, C4 = f32(0.5), f32(0.16666666), f32(0.041666295)
C5, C6, C7 = f32(0.008333497), f32(0.001394466), f32(0.00019790341)


@inlined
def exponential(x):
    """`exp(x)` to a part in 5,000,000 for |x| <= 40, in arithmetic that runs on whole vectors; NaN stays NaN.

    2^n by its bits, times a polynomial of least largest error on [-ln 2 / 2, ln 2 / 2].
    """
    n = np.floor(x * LOG2E + HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    p = ((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2
    p = p * (r * r) + r + ONE
    return p * i32((i32(n) + EXPONENT_BIAS) << MANTISSA).view(f32)


@inlined
def _weight(positive, kept, e, i, j):
    """Of a pair as a negative."""
    weight = ONE if kept is None else kept[e, i, j]
    return weight if positive is None else weight - positive[e, i, j]


@inlined
def _push(level):
    return ZERO if level == INFINITE else exponential(-level)


@inlined
def _add_positives(line, positive, count, score, near):
    for j in range(len(line)):
        count[j] += positive[j]
    for j in range(len(line)):
        score[j] += line[j] * positive[j]
    for j in range(len(line)):
        near[j] += exponential(line[j]) * positive[j]


@compiled
def fill_masks(positive, kept, keys, slots, other_keys, other_slots, episode, row, column):
    """Fills `kept` with 0 where slots are equal, else 1, and `positive` with 1 where keys are and the pair is kept."""
    shape = (positive if kept is None else kept).shape
    for e in range(shape[0]):
        at = episode + e
        for i in range(shape[1]):
            if kept is not None:
                slot, slot_row = slots[at, row + i], other_slots[at, column : column + shape[2]]
                for j in range(shape[2]):
                    kept[e, i, j] = ZERO if slot == slot_row[j] else ONE
            if positive is not None:
                key, key_row = keys[at, row + i], other_keys[at, column : column + shape[2]]
                for j in range(shape[2]):
                    positive[e, i, j] = (ONE if kept is None else kept[e, i, j]) if key == key_row[j] else ZERO


@compiled
def add_sums(scores, positive, kept, sums, column_sums, episode, row, column, negatives_alone):
    """Adds to each row the number of its positives, their scores, and exponentials of positives and of negatives.

    `sums` is `[4, E, N]`, `column_sums` None or `[4, E, M]`, which may be the same: then columns are added to as well.
    With `negatives_alone`, 1 or 0 but not None, scores are replaced by what they push with: `exp(score)` or 0.
    """
    span = slice(column, column + scores.shape[2])
    for e in range(scores.shape[0]):
        at = episode + e
        for i in range(scores.shape[1]):
            line, count, score, near, far = scores[e, i], ZERO, ZERO, ZERO, ZERO
            if column_sums is not None:
                far_row = column_sums[3, at, span]
            for j in range(scores.shape[2]):
                share = exponential(line[j])
                pushed = share * _weight(positive, kept, e, i, j)
                far += pushed
                if column_sums is not None:
                    far_row[j] += pushed
                if positive is not None:
                    count += positive[e, i, j]
                    score += line[j] * positive[e, i, j]
                    near += share * positive[e, i, j]
                if negatives_alone is not None:
                    weight = ONE if kept is None else kept[e, i, j]
                    if positive is not None:
                        weight -= negatives_alone * positive[e, i, j]
                    line[j] = share * weight
            if positive is not None and column_sums is not None:
                near_row, score_row = column_sums[2, at, span], column_sums[1, at, span]
                _add_positives(line, positive[e, i], column_sums[0, at, span], score_row, near_row)
            for k, value in enumerate((count, score, near, far)):
                sums[k, at, row + i] += value


@compiled
def to_numbers(sums, numbers, negatives_alone):
    """Fills `rows.Rows.numbers` `[E, N, 4]`; returns the sum of losses and how many rows have one. Formulas: `rows`."""
    total, taking_part = 0.0, 0
    for e in range(sums.shape[1]):
        for i in range(sums.shape[2]):
            row, count, score = numbers[e, i], sums[0, e, i], sums[1, e, i]
            near, far = float(sums[2, e, i]), float(sums[3, e, i])
            if count == 0 or (negatives_alone and far == 0):
                row[0], row[1], row[2], row[3] = INFINITE, INFINITE, ZERO, ZERO  # exp(s - inf) = 0: no slope
                continue
            mean = float(score) / count
            ln = log(far) if far != 0 else -np.inf  # a NaN stays one
            lp = mean if count == 1 else log(near)  # its own score, not log(exp(score)): a tiny loss stays exact
            level = ln if negatives_alone else lp + log1p(exp(ln - lp))
            total += ln - mean if negatives_alone else log1p(exp(ln - lp)) + (lp - mean)
            taking_part += 1
            row[0], row[1], row[2], row[3] = level, lp, ln, 1 / count
    return total, taking_part


@compiled
def to_slopes(scores, positive, kept, numbers, column_numbers, episode, row, column, negatives_alone):
    """Replaces scores by the slopes of the rows' and the columns' losses at them; returns the sum of slope times score.

    `numbers` and `column_numbers` are `rows.Rows.numbers`; without the latter columns have no losses.
    """
    total, columns = 0.0, scores.shape[2]
    push_row, pull_row = np.zeros(columns, f32), np.zeros(columns, f32)
    for e in range(scores.shape[0]):
        at = episode + e
        if column_numbers is not None:
            for j in range(columns):
                push_row[j], pull_row[j] = _push(column_numbers[at, column + j, 0]), column_numbers[at, column + j, 3]
        for i in range(scores.shape[1]):
            push, pull, product = _push(numbers[at, row + i, 0]), numbers[at, row + i, 3], ZERO
            for j in range(columns):
                weight = ONE if kept is None else kept[e, i, j]
                if positive is not None:
                    weight -= negatives_alone * positive[e, i, j]
                slope = exponential(scores[e, i, j]) * (push + push_row[j]) * weight
                if positive is not None:
                    slope -= (pull + pull_row[j]) * positive[e, i, j]
                product += slope * scores[e, i, j]
                scores[e, i, j] = slope
            total += product
    return total
