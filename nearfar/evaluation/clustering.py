"""Do the classes show up as clusters, though no label was used?"""

from __future__ import annotations

from numpy.typing import ArrayLike
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from ..errors import UsageError
from ..similarity import unit
from .protocol import Score, labelled

RESTARTS = 10


def clustering(
    x: ArrayLike | Tensor, y: ArrayLike | Tensor, *, clusters: int | None = None, seed: int = 0
) -> dict[str, Score]:
    """Agreement of k-means clusters with the classes: `{"nmi": ..., "ari": ...}`.

    NMI `I(c; y) / ((H(c) + H(y)) / 2)` in [0, 1]; adjusted Rand index: 0 for a random partition, 1 for the classes.

    Args:
        x: Features `[N, D]`; they are set to unit length, so that k-means is by cosine.
        y: Labels int `[N]`, >= 0; used for the score only.
        clusters: None: as many as there are classes, which is itself knowledge of the labels, and is said.
        seed: Of the starting points.

    Raises:
        UsageError: More clusters than images.
    """
    x, y = labelled(x, y, "clustering")
    wanted = clusters or len(y.unique())
    if wanted > len(x):
        raise UsageError(f"{wanted} clusters of {len(x)} samples", where="clustering", mend=f"clusters <= {len(x)}")
    found = KMeans(wanted, random_state=seed).set_params(n_init=RESTARTS).fit_predict(unit(x).cpu().numpy())
    truth = y.cpu().numpy()
    number = f"{wanted} clusters{'' if clusters else ' (as many as classes)'}"
    protocol = (
        f"k-means on unit features of {len(x)} samples, {number}, best of {RESTARTS} starts (seed {seed}) by inertia"
    )
    return {
        "nmi": Score(
            float(normalized_mutual_info_score(truth, found)), None, None, f"NMI, arithmetic mean; {protocol}"
        ),
        "ari": Score(float(adjusted_rand_score(truth, found)), None, None, f"adjusted Rand index; {protocol}"),
    }
