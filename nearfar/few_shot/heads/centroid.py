"""Nearest class mean."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ...errors import UsageError
from .supports import membership, only_present, reciprocal_length


def centroid(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    distance: Literal["l2", "cosine"] = "l2",
    normalise: bool = True,
    centre: Tensor | None = None,
) -> Tensor:
    """Scores by the distance to the mean of a class: `2 q . m_c - |m_c|^2`, or the cosine of q and m_c.

    The first is `-|q - m_c|^2 + |q|^2`: log-probabilities of a prototypical network, up to a constant for each query.
    Means of vectors of length 1 are not normalised again: their length tells how much the supports agree.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`.
        ways: Classes of an episode.
        distance: "l2" or "cosine".
        normalise: Divides each feature by its length, before the mean; a zero vector stays zero.
        centre: Subtracted from all features first, `[D]`: with `normalise` and "l2" the CL2N of SimpleShot, where it is
            the mean feature of the training classes.

    Returns:
        `[T, Q, ways]`; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together, or an unknown distance.

    Source: Snell et al., Prototypical Networks for Few-shot Learning, 2017, https://arxiv.org/abs/1703.05175; Wang et
    al., SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning, 2019,
    https://arxiv.org/abs/1911.04623.

    Example:
        >>> import torch
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> centroid(support, labels, torch.tensor([[[3.0, 4.0]]]), ways=2).exp().argmax(-1).tolist()
        [[1]]
    """
    if distance not in ("l2", "cosine"):
        raise UsageError(f"unknown distance {distance!r}", where="centroid", mend='"l2" or "cosine"')
    members = membership(support, labels, query, ways)
    if centre is not None:
        support, query = support - centre.to(support), query - centre.to(query)
    weights = members / members.sum(dim=2, keepdim=True).clamp(min=1)
    if normalise:
        weights = weights * reciprocal_length(support).transpose(1, 2)
    means = weights @ support
    if distance == "cosine":
        means = means * reciprocal_length(means)
    scores = (means @ query.transpose(1, 2)).transpose(1, 2)  # 10 us an episode against 16 us for query @ means^T
    if normalise or distance == "cosine":
        scores.mul_(reciprocal_length(query))
    if distance == "l2":
        scores.mul_(2).sub_(means.square().sum(dim=2)[:, None, :])
    return only_present(scores, members)
