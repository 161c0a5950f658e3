"""Episodes of any number of ways and shots, in the manner of Meta-Dataset."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UsageError
from ..randomness import uniforms
from .listing import Episodes
from .sampler import EPISODES, Members, assemble, least_numbers, picks

SIZES, WEIGHTS, CLASSES, IMAGES = 3, 4, 5, 6  # the purposes after those of `EpisodeSampler`


class VariableSampler:
    """Episodes whose ways and shots vary and whose classes are unequally large, one at a time.

    Ways `N ~ U{5, ..., min(50, C)}`. With n_c images of class c, queries of each `q = min(10, min_c floor(n_c / 2))`,
    support `S = min(500, sum_c ceil(beta min(100, n_c - q)))` with `beta ~ U(0, 1]`, and shots
    `k_c = min(1 + floor(r_c (S - N)), n_c - q)`, r_c in proportion to `n_c exp(a_c)` with `a_c ~ U[log 1/2, log 2)`.

    Args:
        labels: Class of each image of the data set, whole numbers `[N]`.
        ways: Fewest and most classes of an episode; never more than there are.
        shots: Most that a class adds to the size of the support.
        queries: Most queries of a class.
        support: Largest support, no less than the most ways.
        seed: Another seed, other episodes.

    Raises:
        UsageError: Labels that are no list of whole numbers, or a number out of range.
        DataError: Fewer classes than the fewest ways, or a class with one image.

    Differs from the paper: classes are drawn uniformly for every data set; the hierarchies of ImageNet and Omniglot are
    not used.

    Triantafillou et al., Meta-Dataset: a dataset of datasets for learning to learn from few examples, 2020, section 3.2
    and the appendix on sampling, https://arxiv.org/abs/1903.03096.

    Example:
        >>> sampler = VariableSampler([label for label in range(8) for _ in range(20 + label)])
        >>> episode = sampler.draw(3)
        >>> len(episode), 5 <= episode.ways <= 8, episode.query.shape[1] == 10 * episode.ways
        (1, True, True)
    """

    def __init__(
        self,
        labels: ArrayLike,
        *,
        ways: tuple[int, int] = (5, 50),
        shots: int = 100,
        queries: int = 10,
        support: int = 500,
        seed: int = 0,
    ) -> None:
        fewest, most = ways
        least_numbers(ways=(fewest, 2), shots=(shots, 1), queries=(queries, 1))
        self.members = Members.of(labels)
        self.members.require(fewest, 2, "one shot and one query")
        self.ways = fewest, min(most, len(self.members.labels))
        if most < fewest or support < self.ways[1]:
            raise UsageError(
                f"{fewest} to {most} ways with a support of at most {support}",
                where="episodes",
                mend="the most ways no less than the fewest, the support no less than the most ways",
            )
        self.shots, self.queries, self.support, self.seed = shots, queries, support, seed

    def draw(self, number: int) -> Episodes:
        """Episode `number`, >= 0: T is 1.

        Raises:
            UsageError: A number below 0.
        """
        least_numbers(number=(number, 0))
        numbers = np.array([number])
        draw_ways, draw_size = uniforms(self.seed, EPISODES, numbers, SIZES, 2)[0]
        ways = self.ways[0] + int(draw_ways * (self.ways[1] - self.ways[0] + 1))
        pool = np.array([len(self.members.labels)])
        chosen = picks(uniforms(self.seed, EPISODES, numbers, CLASSES, ways), pool)
        images = self.members.counts[chosen[0]]
        queries = min(self.queries, int(images.min()) // 2)
        parts = np.floor(draw_size * np.minimum(self.shots, images - queries)) + 1  # ceil(beta x) with beta in (0, 1]
        weights = images * 2.0 ** (2 * uniforms(self.seed, EPISODES, numbers, WEIGHTS, ways)[0] - 1)
        beyond_one = min(self.support, int(parts.sum())) - ways
        shots = np.minimum(1 + np.floor(weights / weights.sum() * beyond_one).astype(np.int64), images - queries)
        return assemble(
            self.members,
            chosen,
            shots[None],
            np.full_like(chosen, queries),
            seed=self.seed,
            numbers=numbers,
            purpose=IMAGES,
        )
