"""Addressed randomness: every number is a pure function of where it is used, and nothing is consumed.

A key is a chain of 64-bit mixes, `key <- mix(key + word + STEP)`, one link a word; number k of a key is
`mix(key + (k + 1) STEP)`. So a draw depends on (seed, epoch, sample, view, slot) alone: not on the batch, the order,
the number of workers or devices, or on where a run was resumed.

Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (SplitMix64, here with the constants of
Stafford's variant 13), https://doi.org/10.1145/2660193.2660195.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .compiled import compiled, inlined

STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
WORD = 0xFFFF_FFFF_FFFF_FFFF
UNIFORMS, PERMUTATION, ADDRESS = 1, 2, 3  # first word of each chain, so that no two purposes share a stream


def uniforms(seed: int, epoch: int, ids: ArrayLike, view: int, slots: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 bits, `[B, slots]`; row b depends on ids[b], never on the other rows.

    Args:
        seed: Seed of the run, any integer (taken modulo 2^64, as all words are).
        epoch: Epoch, from 0.
        ids: Number of each sample in its data set, `[B]`.
        view: Number of the view, from 0.
        slots: Numbers a sample. More slots leave the earlier ones as they are.

    Example:
        >>> alone = uniforms(0, 0, [7], view=1, slots=3)
        >>> bool((uniforms(0, 0, [5, 7], view=1, slots=3)[1] == alone[0]).all())
        True
    """
    return _uniforms(_words(UNIFORMS, seed, epoch, view), np.asarray(ids).astype(np.int64).view(np.uint64), slots)


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order in which an epoch visits n samples, int64 `[n]`: the ranks of n random words.

    Example:
        >>> permutation(0, 0, 5).tolist() == permutation(0, 0, 5).tolist()
        True
    """
    return np.argsort(_stream(_words(PERMUTATION, seed, epoch), n), kind="stable").astype(np.int64)


def address(*integers: int) -> int:
    """A hash of integers in [0, 2^63), to seed another generator with: `torch.manual_seed(address(seed, epoch, 3))`.

    The order and the number of integers count: `address(1)`, `address(1, 0)` and `address(0, 1)` differ.
    """
    return int(_key(_words(ADDRESS, *integers))) >> 1


def _words(*integers: int) -> NDArray[np.uint64]:
    return np.array([int(one) & WORD for one in integers], np.uint64)


# Compiled: as operations on arrays they took a fifth of the time of a view of 32 pixels.


@inlined
def _mix(z: np.uint64) -> np.uint64:
    """A bijection of 64-bit words in which each input bit flips every output bit with probability near 1/2."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def _key(words: NDArray[np.uint64]) -> np.uint64:
    """The key of a chain of words."""
    key = np.uint64(0)
    for word in words:
        key = _mix(key + word + STEP)
    return key


@compiled
def _stream(words: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """Numbers 0 to count - 1 of a key."""
    key, stream = _key(words), np.empty(count, np.uint64)
    for k in range(count):
        stream[k] = _mix(key + STEP * np.uint64(k + 1))
    return stream


@compiled
def _uniforms(words: NDArray[np.uint64], last: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """The first 53 bits of the first numbers of the keys that end in each of the last words, `[B, count]`."""
    key, uniforms = _key(words), np.empty((len(last), count))
    for row in range(len(last)):
        own = _mix(key + last[row] + STEP)
        for k in range(count):
            uniforms[row, k] = (_mix(own + STEP * np.uint64(k + 1)) >> np.uint64(11)) * 2.0**-53
    return uniforms
