"""Few-shot heads: fitted to the supports of an episode, they score its queries. All work on many episodes at once.

`HEADS["lr"](support, labels, query, ways=5)`: support `[T, S, D]`, labels int64 `[T, S]` in [0, ways), query
`[T, Q, D]` -> scores `[T, Q, ways]`, the highest is the answer; -inf for a class without support. Features go in as
they are, any normalisation is the head's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ...errors import UsageError
from .bd_cspn import bd_cspn
from .centroid import centroid
from .cosine_classifier import cosine_classifier
from .laplacian import laplacian_shot
from .logistic import logistic
from .nearest import nearest
from .ridge import ridge
from .soft_kmeans import soft_kmeans
from .tim import alpha_tim, tim
from .transport import pt_map, rooted


@dataclass(frozen=True)
class Head:
    """A head under a name, with all that has to be said of it beside a result.

    Args:
        function: `(support, labels, query, *, ways, ...) -> scores`.
        about: One sentence of protocol, printed with results.
        transductive: True where the answer to a query depends on the other queries of its episode.
        uses_prior: True where `query_prior` has to be given.
        needs_centre: True where `centre`, the mean feature of the training classes, has to be given.
        prepare: What the head begins with, where that is a map of each feature by itself, `[..., D] -> [..., D]`; over
            many episodes it is then done once for each image.
    """

    function: Callable[..., Tensor]
    about: str
    transductive: bool = False
    uses_prior: bool = False
    needs_centre: bool = False
    prepare: Callable[[Tensor], Tensor] | None = None

    def __call__(self, support: Tensor, labels: Tensor, query: Tensor, *, ways: int, **options: object) -> Tensor:
        """Scores of the queries, `[T, Q, ways]`.

        Raises:
            UsageError: `centre` or `query_prior` is needed and was not given.
        """
        if self.needs_centre and options.get("centre") is None:
            mend = "centre=features.mean(dim=0), features of the training classes"
            raise UsageError("the head subtracts a centre, and none was given", where="centre", mend=mend)
        if self.uses_prior and options.get("query_prior") is None:
            mend = 'query_prior="unknown", "uniform" or shares of the classes [T, ways]'
            raise UsageError("the head has to know what is known of the queries", where="query_prior", mend=mend)
        if self.prepare is not None:
            support, query = self.prepare(support), self.prepare(query)
        return self.function(support, labels, query, ways=ways, **options)


HEADS: dict[str, Head] = {
    "ncm": Head(
        centroid,
        "nearest class mean: features L2-normalised, class means of them (not normalised again), squared distance",
    ),
    "ncm-raw": Head(
        partial(centroid, normalise=False),
        "nearest class mean of features as they are, squared distance: what a prototypical network is trained for",
    ),
    "cosine": Head(
        partial(centroid, normalise=False, distance="cosine"),
        "cosine to the class mean of features as they are",
    ),
    "cl2n": Head(
        centroid,
        "nearest class mean: mean feature of the training classes subtracted, L2-normalised, squared distance",
        needs_centre=True,
    ),
    "nn": Head(nearest, "class of the nearest support by cosine"),
    "ridge": Head(ridge, "ridge regression on one-hot classes, penalty 1, no intercept, features L2-normalised"),
    "lr": Head(
        logistic,
        "multinomial logistic regression at its optimum, C = 1, free intercept, features L2-normalised",
    ),
    "finetune": Head(
        cosine_classifier,
        "cosine classifier, scale 2, from class means by 100 full-batch steps of SGD (rate 0.01, momentum 0.9, weight "
        "decay 0.001)",
    ),
    "soft-kmeans": Head(
        soft_kmeans,
        "soft k-means from the class means, temperature 5, 30 rounds, features L2-normalised",
        transductive=True,
    ),
    "bd-cspn": Head(
        bd_cspn,
        "BD-CSPN: queries shifted onto the supports' mean, class means mended by all queries, cosine, features "
        "L2-normalised",
        transductive=True,
    ),
    "laplacian": Head(
        laplacian_shot,
        "LaplacianShot: means and shift of BD-CSPN, graph of 3 neighbours, weight 0.7, 20 rounds, features "
        "L2-normalised",
        transductive=True,
    ),
    "tim": Head(
        tim,
        "TIM-GD: 1,000 steps of Adam at 1e-4, temperature 15, weights 0.1, 1, 0.1, features L2-normalised",
        transductive=True,
        uses_prior=True,
    ),
    "alpha-tim": Head(
        alpha_tim,
        "alpha-TIM: alpha 2, 1,000 steps of Adam at 1e-4, temperature 15, weights 1, 1, 1, features L2-normalised",
        transductive=True,
    ),
    "pt-map": Head(
        partial(pt_map, power=None),
        "PT-MAP: power 0.5, supports and queries centred apart, 20 rounds of transport, temperature 10, rate 0.2",
        transductive=True,
        uses_prior=True,
        prepare=rooted,
    ),
}
"""The heads by name."""
