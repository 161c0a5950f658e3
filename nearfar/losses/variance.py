"""VICReg's loss: two views agree, every feature varies, and no two features vary together.

Bardes, Ponce & LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, ICLR 2022,
https://arxiv.org/abs/2105.04906. Loss: eq. 1 to 6. Released code: https://github.com/facebookresearch/vicreg.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..distributed import total
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .correlation import both_sides, centred, off_diagonal

EPS = 1e-4
"""Added to the variance before the root, so that a feature that doesn't vary has a slope; the paper's."""


def variance_covariance(
    pairs: Pairs,
    similarity: Similarity,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    form: Literal["code", "paper"] = "code",
) -> Tensor:
    """Invariance, variance and covariance of two views' embeddings Z and Z', `[N, D]`.

        loss = invariance * s + variance * (v + v') + covariance * (c + c')

        s = 1/N sum over n of |z_n - z'_n|^2                              code: 1/(N D)
        v = 1/D sum over j of max(0, 1 - sqrt(var_j + 1e-4))              code: half of it
        c = 1/D sum over i != j of C_ij^2,    C the covariances of Z

    Variances and covariances are over N - 1. Paper and released code have the same weights, 25, 25 and 1, for terms of
    different sizes; the results were published with the code, so its form is the default. In the paper's form the
    first term is D times as large, the second twice.

    N: the samples of all processes, for each of the three. Gradients are those of the loss times the number of
    processes, as `infonce`'s are. Covariances are never made where one process has fewer samples than there are
    features: N x N numbers serve, not D x D.

    Args:
        pairs: With a positive of each anchor, `[N, D]`. Others play no part.
        similarity: Its two maps are applied; there are no scores, so its curve plays no part. The paper's is `dot`.
        invariance: The paper's lambda, >= 0.
        variance: The paper's mu, >= 0.
        covariance: The paper's nu, >= 0.
        form: "code" or "paper".

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: Another form, pairs without positives, or of another shape.

    Example:
        >>> from nearfar import similarity
        >>> z = torch.ones(4, 8)  # collapsed: 25 times 0.99
        >>> round(variance_covariance(Pairs(z, z[:0], positive=z), similarity.dot).item(), 4)
        24.75
    """
    if form not in ("code", "paper"):
        raise UsageError(f"{form!r} is unknown", where="form", mend="code, paper")
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        sides = both_sides(pairs, similarity)
        width = sides[0].shape[-1]
        moved, count = centred(torch.cat(sides, dim=-1))
        several = (count - 1).clamp(min=1)
        apart = total((sides[0] - sides[1]).square().sum()) / count
        lacking = torch.relu(1 - (total(moved.square().sum(dim=0)) / several + EPS).sqrt()).sum() / width
        together = sum(off_diagonal(side, side, several) for side in moved.chunk(2, dim=-1)) / width
        if form == "code":
            apart, lacking = apart / width, lacking / 2
        return invariance * apart + variance * lacking + covariance * together
