"""What heads ask of the supports: who belongs to which class, class means, products of features."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UsageError

SHORTEST = 1e-12
"""A vector shorter than this is taken for zero: it stays as it is when lengths are made 1."""


def membership(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    """1 where a support belongs to a class, else 0: `[T, ways, S]`, in the precision of the support.

    Raises:
        UsageError: Shapes that don't belong together, no support at all, or a label outside [0, ways).
    """
    t, s = support.shape[:2]
    if support.ndim != 3 or query.ndim != 3 or labels.shape != (t, s) or query.shape[::2] != support.shape[::2]:
        shapes = f"support {list(support.shape)}, labels {list(labels.shape)}, query {list(query.shape)}"
        raise UsageError(shapes, where="few-shot head", mend="support [T, S, D], labels [T, S], query [T, Q, D]")
    if s == 0 or ways < 1:
        raise UsageError(f"{s} supports, {ways} ways", where="few-shot head", mend="one support and one way, at least")
    if t and not 0 <= int(labels.min()) <= int(labels.max()) < ways:
        found = f"labels from {int(labels.min())} to {int(labels.max())} in an episode of {ways} ways"
        raise UsageError(found, where="few-shot head", mend=f"number the classes of each episode from 0 to {ways - 1}")
    return (labels[:, None, :] == torch.arange(ways, device=labels.device)[:, None]).to(support)


def reciprocal_length(x: Tensor) -> Tensor:
    """`1 / |x|` of the rows of `[..., D]`, `[..., 1]`; 0 for a row of zeros, so that a product with it stays 0."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(length > SHORTEST, 1 / length.clamp(min=SHORTEST), 0)


def products(support: Tensor, query: Tensor, *, normalise: bool) -> tuple[Tensor, Tensor]:
    """Products of the supports with themselves `[T, S, S]` and of the queries with the supports `[T, Q, S]`.

    All that linear heads know of the features, whatever D. `normalise` divides by the lengths, after the product:
    that saves a copy of the features.
    """
    gram = support @ support.transpose(1, 2)
    cross = (support @ query.transpose(1, 2)).transpose(1, 2)  # at 1 shot 11 us an episode against 18 us the other way
    if not normalise:
        return gram, cross
    columns = reciprocal_length(support)
    rows, columns, queries = columns, columns.transpose(1, 2), reciprocal_length(query)
    return gram.mul_(rows).mul_(columns), cross.mul_(queries).mul_(columns)


def exact(x: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none."""
    return x.to("cpu" if x.device.type == "mps" else x.device, torch.float64)


def only_present(scores: Tensor, members: Tensor) -> Tensor:
    """Scores `[T, Q, ways]` with -inf for the classes without support."""
    return scores.masked_fill(~members.any(dim=2)[:, None, :], -torch.inf)
