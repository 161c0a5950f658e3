"""What transductive heads share. Classes lie before images, `[T, ways, rows]`: the long axis last is the fast one."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UsageError
from .supports import SHORTEST

SUM = 1e-3
"""How far from 1 the shares of a query prior may sum."""

Prior = str | Tensor
"""Shares of the classes among the queries: "uniform", "unknown", or `[T, ways]`."""


def floor(member: Tensor) -> Tensor:
    """0 for a class with a support, -inf for one without: `[T, ways, 1]`, added to scores."""
    return torch.zeros_like(member[..., :1]).masked_fill(~member.any(dim=2, keepdim=True), -torch.inf)


def averaging(belongs: Tensor) -> Tensor:
    """Weights of the images in the mean of each class `[T, ways, rows]`, all 0 for a class without any."""
    return belongs / belongs.sum(dim=2, keepdim=True).clamp(min=1e-12)


def joined(support: Tensor, query: Tensor, centre: Tensor | None) -> Tensor:
    """Supports, then queries, less the centre: a new tensor `[T, S + Q, D]`."""
    images = torch.cat([support, query], dim=1)
    return images if centre is None else images.sub_(centre.to(images))


def cosines(support: Tensor, query: Tensor, centre: Tensor | None) -> Tensor:
    """Cosines of all images of an episode with each other `[T, S + Q, S + Q]`; 0 with a zero vector.

    A mean is known by its weights on the images. What a head asks of features are products, so this is all it needs:
    one product in D dimensions, however many rounds follow.
    """
    if centre is not None:
        support, query = support - centre.to(support), query - centre.to(query)
    return scaled(gram_of(support, query))


def gram_of(support: Tensor, query: Tensor) -> Tensor:
    """Products of all images of an episode with each other `[T, S + Q, S + Q]`, without a copy of the features."""
    shots, rows = support.shape[1], support.shape[1] + query.shape[1]
    gram = support.new_empty(len(support), rows, rows)
    gram[:, :shots, :shots] = support @ support.transpose(1, 2)
    gram[:, :shots, shots:] = across = support @ query.transpose(1, 2)
    gram[:, shots:, :shots] = across.transpose(1, 2)
    gram[:, shots:, shots:] = query @ query.transpose(1, 2)
    return gram


def scaled(gram: Tensor) -> Tensor:
    """Products of the images scaled to length 1. Changes `gram`."""
    scale = inverse_root(gram.diagonal(dim1=1, dim2=2))
    return gram.mul_(scale[:, :, None]).mul_(scale[:, None, :])


def inverse_root(square: Tensor) -> Tensor:
    """`1 / length` for squared lengths; 0 for a zero vector, whose products then stay 0."""
    return torch.where(square > SHORTEST**2, square.clamp(min=SHORTEST**2).rsqrt(), 0)


def products(weights: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Products of weighted means with the images `[T, ways, rows]`, and squared lengths of the means `[T, ways, 1]`."""
    inner = weights @ gram
    return inner, (inner * weights).sum(dim=2, keepdim=True)


def shift(gram: Tensor, shots: int) -> Tensor:
    """Products after the queries were moved so that their mean is that of the supports (BD-CSPN's cross-class bias).

    What tells the queries of an episode apart stays; a lone query lands on the mean, and nothing is left of it.
    Changes `gram`.
    """
    way = torch.full_like(gram[:, 0], -1 / max(1, gram.shape[1] - shots))
    way[:, :shots] = 1 / shots
    along = (gram @ way[..., None])[..., 0]
    along[:, shots:] += (along * way).sum(dim=1, keepdim=True) / 2
    gram[:, shots:] += along[:, None, :]
    gram[:, :, shots:] += along[:, :, None]
    return gram


def shares(query_prior: Prior, member: Tensor) -> Tensor | None:
    """Shares of the classes among the queries `[T, ways]`, 0 for a class without support; None where unknown.

    Raises:
        UsageError: Another word, another shape, a negative share, or shares that don't sum to 1.
    """
    seen = member.any(dim=2).to(member)
    if isinstance(query_prior, str):
        if query_prior not in ("unknown", "uniform"):
            raise _bad_prior(f'query_prior="{query_prior}"')
        return None if query_prior == "unknown" else seen / seen.sum(dim=1, keepdim=True)
    if query_prior.shape != seen.shape:
        raise _bad_prior(f"query_prior has shape {list(query_prior.shape)}, not {list(seen.shape)}")
    prior = query_prior.to(member)
    if not bool(((prior >= 0).all(dim=1) & ((prior.sum(dim=1) - 1).abs() <= SUM)).all()):
        raise _bad_prior("the shares of query_prior are negative or don't sum to 1")
    prior = prior * seen
    if bool((prior.sum(dim=1) == 0).any()):
        raise _bad_prior("query_prior has all its shares on classes without support")
    return prior / prior.sum(dim=1, keepdim=True)


def _bad_prior(what: str) -> UsageError:
    mend = 'query_prior="unknown", "uniform", or shares [T, ways] that sum to 1'
    return UsageError(what, where="few-shot head", mend=mend)
