"""Addressed randomness: pure, uniform, uncorrelated, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nearfar.randomness import address, permutation, uniforms

WORD = 2**64
GOLDEN_UNIFORMS = [[0.984857397097262, 0.07846805763937725], [0.9786123613592381, 0.8779793453427452]]
GOLDEN_PERMUTATION = [6, 1, 5, 8, 2, 0, 9, 4, 3, 7]
GOLDEN_ADDRESS = 5617663791590485107


def slow_mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def slow_key(*words: int) -> int:
    key = 0
    for word in words:
        key = slow_mix((key + word + 0x9E3779B97F4A7C15) % WORD)
    return key


def slow_word(key: int, number: int) -> int:
    return slow_mix((key + (number + 1) * 0x9E3779B97F4A7C15) % WORD)


def test_uniforms_equal_the_slow_twin():
    ids = [0, 1, 5, 2**40, -3]
    fast = uniforms(3, 9, ids, 1, 7)
    slow = [[(slow_word(slow_key(1, 3, 9, 1, i), k) >> 11) / 2**53 for k in range(7)] for i in ids]
    assert fast.tolist() == slow


def test_permutation_and_address_equal_the_slow_twin():
    key = slow_key(2, 3, 9)
    assert permutation(3, 9, 100).tolist() == sorted(range(100), key=lambda k: slow_word(key, k))
    assert address(4, -1, 2**70 + 5) == slow_key(3, 4, -1, 2**70 + 5) >> 1


def test_splitmix64_published_stream():
    """The first outputs of SplitMix64 with seed 1234567, as its reference implementation prints them."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [slow_word(1234567, k) for k in range(5)] == expected


def test_golden_values_never_change():
    assert uniforms(0, 0, [0, 1], 0, 2).tolist() == GOLDEN_UNIFORMS
    assert permutation(0, 0, 10).tolist() == GOLDEN_PERMUTATION
    assert address(1, 2, 3) == GOLDEN_ADDRESS


def test_rows_do_not_depend_on_the_batch():
    whole = uniforms(1, 2, np.arange(100), 0, 5)
    order = np.random.default_rng(0).permutation(100)
    assert (uniforms(1, 2, order, 0, 5) == whole[order]).all()
    assert (np.concatenate([uniforms(1, 2, [i], 0, 5) for i in range(100)]) == whole).all()
    assert (uniforms(1, 2, np.arange(100), 0, 9)[:, :5] == whole).all()


def test_uniforms_are_uniform_and_in_range():
    numbers = uniforms(0, 0, np.arange(20_000), 0, 10)
    assert numbers.dtype == np.float64 and numbers.min() >= 0 and numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    bits = (numbers * 2**53).astype(np.uint64)[..., None] >> np.arange(53, dtype=np.uint64) & np.uint64(1)
    assert np.abs(bits.mean((0, 1)) - 0.5).max() < 5 * 0.5 / numbers.size**0.5


@pytest.mark.parametrize("other", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_neighbouring_addresses_are_uncorrelated(other):
    """Seeds, epochs, ids or views one apart: correlations within five standard errors, no number shared."""
    seed, epoch, shift, view = other
    ids = np.arange(50_000)
    first, second = uniforms(0, 0, ids, 0, 4), uniforms(seed, epoch, ids + shift, view, 4)
    correlation = np.corrcoef(first.T, second.T)[:4, 4:]
    assert np.abs(correlation).max() < 5 / len(ids) ** 0.5
    assert shift or not np.isin(first, second).any()


def test_slots_are_uncorrelated():
    numbers = uniforms(7, 1, np.arange(50_000), 0, 34)
    correlation = np.corrcoef(numbers.T) - np.eye(34)
    assert np.abs(correlation).max() < 5 / 50_000**0.5


def test_epochs_and_seeds_are_not_one_sum():
    assert not np.isin(uniforms(0, 1, [0], 0, 8), uniforms(1, 0, [0], 0, 8)).any()


def test_permutation_is_a_permutation_and_differs_by_epoch():
    first, second = permutation(0, 0, 1000), permutation(0, 1, 1000)
    assert sorted(first) == list(range(1000)) and first.dtype == np.int64
    assert (first == second).sum() < 10 and (first == permutation(0, 0, 1000)).all()
    assert permutation(0, 0, 0).tolist() == []


def test_permutations_are_uniform():
    counts = np.unique([address(*permutation(0, e, 4)) for e in range(4800)], return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


def test_address_tells_order_and_number_apart():
    seen = [address(), address(0), address(1), address(0, 1), address(1, 0), address(1, 0, 0), address(-1)]
    assert len(set(seen)) == len(seen) and all(0 <= a < 2**63 for a in seen)
