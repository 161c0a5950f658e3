"""Which images an episode is made of: a pure function of (seed, number of the episode).

Shapes: T episodes, W ways, k images picked of a class, C classes in the data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.names import safe_name
from ..errors import DataError, UsageError
from ..randomness import uniforms
from .listing import Episodes

EPISODES = -1  # stands where views have their epoch, which is never negative: no stream is shared with them
CLASSES, IMAGES, SHARES = 0, 1, 2  # stand where views have their number
TINY = np.finfo(np.float64).smallest_subnormal
LEAST_ALPHA = 0.01  # below it all gamma variables of an episode may round to 0

Whole = NDArray[np.int64]
Real = NDArray[np.float64]


class EpisodeSampler:
    """N-way K-shot episodes over labelled data: classes, images and their roles uniformly, without replacement.

    Number e is the same whatever block it is drawn in, and on every machine.

    Args:
        labels: Class of each image of the data set, whole numbers `[N]`.
        ways: Classes of an episode, >= 2.
        shots: Labelled images of a class, >= 1.
        queries: Images of a class that are asked for, >= 1.
        seed: Another seed, other episodes.
        dirichlet: None: `queries` of each class. A number alpha >= 0.01: shares of the classes in the `ways * queries`
            queries of an episode are drawn from a symmetric Dirichlet distribution. They become whole numbers by
            largest remainders (ties: the class that comes first); what exceeds the images that a class has left after
            its shots goes to the other classes by the same rule. A class may have none.
        names: Names of the classes by label, for messages; None: numbers.

    Raises:
        UsageError: Labels that are no list of whole numbers, or a number out of range.
        DataError: Fewer classes than ways, or classes with fewer than `shots + queries` images.

    Differs from the paper: for unbalanced queries the authors' code draws support and query independently, so that an
    image may be in both. Here they never share one.

    Veilleux, Boudiaf, Piantanida, Ben Ayed, Realistic evaluation of transductive few-shot learning, 2021,
    https://arxiv.org/abs/2204.11181.

    Example:
        >>> sampler = EpisodeSampler([0] * 20 + [1] * 20 + [2] * 20, ways=2, shots=5, queries=15, seed=0)
        >>> episodes = sampler.draw(0, 100)
        >>> episodes.support.shape, episodes.query.shape
        ((100, 10), (100, 30))
        >>> sampler.draw(41, 1).fingerprint == episodes[41:42].fingerprint
        True
    """

    def __init__(
        self,
        labels: ArrayLike,
        *,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        seed: int = 0,
        dirichlet: float | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        least_numbers(ways=(ways, 2), shots=(shots, 1), queries=(queries, 1))
        if dirichlet is not None and not LEAST_ALPHA <= dirichlet < np.inf:
            mend = f"a number from {LEAST_ALPHA} on, such as 2, or None"
            raise UsageError(f"dirichlet={dirichlet}", where="episodes", mend=mend)
        self.ways, self.shots, self.queries, self.seed = ways, shots, queries, seed
        self.dirichlet = None if dirichlet is None else float(dirichlet)
        self.members = Members.of(labels)
        self.members.require(ways, shots + queries, f"{shots} shots and {queries} queries", names)

    @property
    def fingerprint(self) -> str:
        """Hash of settings and labels, that is of all episodes; 32 hexadecimal digits."""
        settings = f"{self.ways} {self.shots} {self.queries} {self.seed} {self.dirichlet}"
        total = hashlib.blake2b(settings.encode(), digest_size=16)
        for array in (self.members.labels, self.members.counts, self.members.order):
            total.update(array.astype("<i8").tobytes())
        return total.hexdigest()

    def draw(self, first: int, count: int) -> Episodes:
        """Episodes first to first + count - 1.

        Args:
            first: Number of the first, >= 0.
            count: How many, >= 1.

        Raises:
            UsageError: A number out of range.
        """
        least_numbers(first=(first, 0), count=(count, 1))
        numbers = np.arange(first, first + count)
        pool = np.full(count, len(self.members.labels))
        chosen = picks(uniforms(self.seed, EPISODES, numbers, CLASSES, self.ways), pool)
        shots = np.full_like(chosen, self.shots)
        queries = self._queries(numbers, self.members.counts[chosen] - self.shots)
        return assemble(self.members, chosen, shots, queries, seed=self.seed, numbers=numbers, purpose=IMAGES)

    def _queries(self, numbers: Whole, left: Whole) -> Whole:
        """Queries of each class `[T, W]`, where `left` images remain after the shots."""
        if self.dirichlet is None:
            return np.full_like(left, self.queries)
        from scipy.special import gammaincinv  # a third of a second to import

        # Gamma variables over their sum are Dirichlet shares. Each is its distribution's inverse at one uniform number.
        gamma = gammaincinv(self.dirichlet, uniforms(self.seed, EPISODES, numbers, SHARES, self.ways))
        return apportioned(gamma, self.ways * self.queries, left)


@dataclass(frozen=True)
class Members:
    """Images of each class.

    Args:
        labels: Labels that occur, sorted, `[C]`.
        counts: Images of each, `[C]`.
        order: Places of all images, class by class, `[N]`.
    """

    labels: Whole
    counts: Whole
    order: Whole

    @classmethod
    def of(cls, labels: ArrayLike) -> Members:
        """From the label of each image.

        Raises:
            UsageError: Not one whole number an image.
        """
        array = np.asarray(labels)
        if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
            raise UsageError(
                f"labels of type {array.dtype}, shape {list(array.shape)}",
                where="labels",
                mend="one whole number an image, such as Dataset.labels",
            )
        array = array.astype(np.int64)
        known, counts = np.unique(array, return_counts=True)
        return cls(known, counts.astype(np.int64), np.argsort(array, kind="stable").astype(np.int64))

    def require(self, ways: int, images: int, purpose: str, names: Sequence[str] | None = None) -> None:
        """Raises DataError where there are fewer classes than ways, or classes with fewer images."""
        if len(self.labels) < ways:
            mend = f"at most {len(self.labels)} ways, or data with more classes"
            raise DataError(f"{len(self.labels)} classes for {ways} ways", where="labels", mend=mend)
        small = np.flatnonzero(self.counts < images)
        if len(small):
            called = [safe_name(names[int(n)]) if names else f"label {n}" for n in self.labels[small[:5]]]
            named = ", ".join(f"{name} ({count})" for name, count in zip(called, self.counts[small[:5]], strict=True))
            rest = ", ..." if len(small) > 5 else ""
            raise DataError(
                f"{len(small)} of {len(self.labels)} classes have fewer than {images} images: {named}{rest}",
                where=f"{purpose} a class",
                mend="fewer shots or queries, or leave these classes out of the data",
            )

    def places(self, chosen: Whole, pick: Whole) -> Whole:
        """Places in the data set of images `pick [T, W, k]` of the classes `chosen [T, W]`."""
        starts = np.cumsum(self.counts) - self.counts
        return self.order[np.minimum(starts[chosen][..., None] + pick, len(self.order) - 1)]


def picks(uniform: Real, left: Whole) -> Whole:
    """Draws without replacement, in uniformly random order: number i of a row is `pool.pop(floor(u_i * len(pool)))`.

    The rank among those still there is turned into a number of the whole pool by going back through the earlier picks:
    an earlier one of a rank no higher moves it up by one (Lehmer's code).

    Args:
        uniform: In [0, 1), `[..., k]`.
        left: Size of the pool of each row, `[...]`. Where it is below k, the picks beyond it mean nothing.
    """
    count = uniform.shape[-1]
    rank = (uniform * np.maximum(left[..., None] - np.arange(count), 1)).astype(np.int64)
    for earlier in reversed(range(count - 1)):
        rank[..., earlier + 1 :] += rank[..., earlier + 1 :] >= rank[..., earlier, None]
    return rank


def apportioned(weights: Real, total: int, limits: Whole) -> Whole:
    """Whole numbers in proportion to the weights, by largest remainders; they sum to `total`, none is over its limit.

    What exceeds a limit goes to the others in the same way, until nothing does: at most W rounds. Where all that may
    still grow have weight 0, they share alike.

    Args:
        weights: >= 0, `[T, W]`.
        total: Sum of each row, no more than that of its limits.
        limits: `[T, W]`.
    """
    parts = np.zeros_like(limits)
    for _ in range(limits.shape[-1]):
        rest = total - parts.sum(-1, keepdims=True)
        if not rest.any():
            break
        growing = parts < limits
        share = np.where(growing, weights, 0.0)
        share = np.where(share.any(-1, keepdims=True), share, growing)
        share = share / np.maximum(share.max(-1, keepdims=True), TINY)  # first, so that the sum cannot underflow
        shares = rest * share / np.maximum(share.sum(-1, keepdims=True), 1)
        whole = np.floor(shares).astype(np.int64)
        rank = np.argsort(np.argsort(whole - shares, axis=-1, kind="stable"), axis=-1, kind="stable")
        parts = np.minimum(parts + whole + (rank < rest - whole.sum(-1, keepdims=True)), limits)
    assert (parts.sum(-1) == total).all()
    return parts


def assemble(
    members: Members, chosen: Whole, shots: Whole, queries: Whole, *, seed: int, numbers: Whole, purpose: int
) -> Episodes:
    """Draws the images of episodes whose classes, shots and queries are decided, all `[T, W]`.

    The first picks of a class are its support, the next its queries. Supports and queries sum to the same for all rows.
    """
    ways, most = chosen.shape[1], int((shots + queries).max())
    # Pick by pick, not class by class: what a class gets does not depend on how many the largest of the block needs.
    uniform = uniforms(seed, EPISODES, numbers, purpose, most * ways).reshape(-1, most, ways).transpose(0, 2, 1)
    places = members.places(chosen, picks(uniform, members.counts[chosen]))
    step, label = np.arange(most), np.broadcast_to(np.arange(ways)[:, None], places.shape)
    support = step < shots[..., None]
    query = ~support & (step < (shots + queries)[..., None])

    def rows(array: Whole, mask: NDArray[np.bool_]) -> Whole:
        return array[mask].reshape(len(chosen), -1)

    return Episodes(
        support=rows(places, support),
        support_label=rows(label, support),
        query=rows(places, query),
        query_label=rows(label, query),
        classes=members.labels[chosen],
    )


def least_numbers(**least: tuple[int, int]) -> None:
    """Raises UsageError where a value is no whole number or below its least: `name=(value, least)`."""
    for name, (value, lowest) in least.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < lowest:
            raise UsageError(f"{name}={value!r}", where="episodes", mend=f"a whole number, {lowest} or more")
