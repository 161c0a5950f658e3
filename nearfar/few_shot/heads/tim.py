"""Transductive information maximisation (TIM and alpha-TIM): weights that are sure of each query, not of one class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import UsageError
from .supports import membership, reciprocal_length
from .transductive import Prior, averaging, floor, joined, shares

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam, as published."""
SMALLEST = 1e-12
"""Added to a probability before its logarithm, as in the published code."""


def tim(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    query_prior: Prior,
    steps: int = 1000,
    rate: float = 1e-4,
    temperature: float = 15.0,
    weights: tuple[float, float, float] = (0.1, 1.0, 0.1),
    centre: Tensor | None = None,
) -> Tensor:
    """Log-probabilities of the classes, by weights fitted to supports and queries (TIM-GD).

    `p_ic = softmax over c of -temperature / 2 * |x_i - w_c|^2` with x of length 1 and w from the class means. Adam
    minimises, with the three `weights` a, b, c and with P the mean of p over the queries,
    `a * mean over supports of -log p_iy + b * KL(P || prior) + c * mean over queries of entropy(p_i)`.

    `query_prior="uniform"` is the paper: KL to equal shares is the negative entropy of P, up to a constant. It is an
    assumption, true in balanced benchmarks; where it fails results fall, often below `centroid`.
    "unknown" is ours: the prior is what the class means count among the queries, each class with one more,
    `(count_c + 1) / (Q + ways)`. Without any prior the entropy of the queries draws all of them into one class. With
    unknown shares `alpha_tim` is the published choice.

    Differs from the paper: slopes are in closed form, for all episodes at once. Its other solver (TIM-ADM) isn't here.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`, all queries of an episode.
        ways: Classes of an episode.
        query_prior: "uniform", "unknown", or shares of the classes among the queries `[T, ways]`, which sum to 1.
        steps: Of Adam, >= 0; 0 is `centroid`. It is far from converged at the end, so steps and rate are part of the
            method.
        rate: Of Adam, constant, > 0.
        temperature: Factor of half the squared distance, > 0.
        weights: Of supports, marginal and queries' entropies, >= 0.
        centre: Mean feature of the training classes `[D]`, subtracted before all features get length 1; None: nothing
            is subtracted.

    Returns:
        `[T, Q, ways]`; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together, or a prior that is none.

    Source: Boudiaf et al., Transductive Information Maximization For Few-Shot Learning, 2020, section 2,
    https://arxiv.org/abs/2008.11297; numbers from the authors' configuration.

    Example:
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> query = torch.tensor([[[3.0, 1.0], [1.0, 4.0]]])
        >>> tim(support, labels, query, ways=2, query_prior="uniform", steps=10).argmax(-1).tolist()
        [[0, 1]]
    """
    member = membership(support, labels, query, ways)
    images = joined(support, query, centre)
    images *= reciprocal_length(images)
    prior = shares(query_prior, member)
    log_prior = (_counted(images, member) if prior is None else prior + SMALLEST).log()[..., None]
    of_support, of_marginal, of_query = weights

    def slope(chance: Tensor) -> Tensor:
        marginal = (chance.mean(dim=2, keepdim=True) + SMALLEST).log()
        return (chance + SMALLEST).log_().mul_(-of_query).add_(of_marginal * (marginal - log_prior))

    return _fitted(images, member, slope, steps, rate, temperature, of_support)


def alpha_tim(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    alpha: float = 2.0,
    steps: int = 1000,
    rate: float = 1e-4,
    temperature: float = 15.0,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    centre: Tensor | None = None,
) -> Tensor:
    """Log-probabilities of the classes, like `tim`, but made for queries whose shares of the classes are unknown.

    Both entropies of the queries are Tsallis', `(1 - sum over c of p_c^alpha) / (alpha - 1)`: that of the marginal,
    subtracted, punishes a class for being rare less than Shannon's. Adam minimises, with the three `weights` a, b, c,
    `a * mean over supports of -log p_iy - b * entropy(P) + c * mean over queries of entropy(p_i)`.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`, all queries of an episode.
        ways: Classes of an episode.
        alpha: > 1; towards 1 it is Shannon's entropy, as in `tim` with a uniform prior. The authors choose it on
            validation classes: 2 for one shot, 7 for five and more.
        steps: Of Adam, >= 0.
        rate: Of Adam, constant, > 0.
        temperature: Factor of half the squared distance, > 0.
        weights: Of supports, marginal and queries' entropies, >= 0.
        centre: Mean feature of the training classes `[D]`, subtracted before all features get length 1; None: nothing
            is subtracted.

    Returns:
        `[T, Q, ways]`; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together, or alpha <= 1.

    Source: Veilleux et al., Realistic Evaluation of Transductive Few-Shot Learning, 2021, section 4,
    https://arxiv.org/abs/2204.11181; numbers from the authors' configuration.

    Example:
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> query = torch.tensor([[[3.0, 1.0], [1.0, 4.0]]])
        >>> alpha_tim(support, labels, query, ways=2, steps=10).argmax(-1).tolist()
        [[0, 1]]
    """
    if alpha <= 1:
        raise UsageError(f"alpha={alpha}", where="alpha_tim", mend="alpha > 1; its limit 1 is tim")
    member = membership(support, labels, query, ways)
    of_support, of_marginal, of_query = weights

    def slope(chance: Tensor) -> Tensor:
        marginal = chance.mean(dim=2, keepdim=True).pow_(alpha - 1)
        return (of_marginal * marginal - of_query * chance.pow(alpha - 1)).mul_(alpha / (alpha - 1))

    images = joined(support, query, centre)
    images *= reciprocal_length(images)
    return _fitted(images, member, slope, steps, rate, temperature, of_support)


def _counted(images: Tensor, member: Tensor) -> Tensor:
    """Shares of the classes among the queries as their nearest class means count them, each class with one more."""
    shots = member.shape[2]
    near = _logits(averaging(member) @ images[:, :shots], images[:, shots:], 1.0) + floor(member)
    nearest = near.argmax(dim=1)[:, None, :] == torch.arange(member.shape[1], device=near.device)[:, None]
    return (nearest.sum(dim=2) + 1).to(member) / (near.shape[2] + near.shape[1])


def _fitted(
    images: Tensor,
    member: Tensor,
    slope: Callable[[Tensor], Tensor],
    steps: int,
    rate: float,
    temperature: float,
    of_support: float,
) -> Tensor:
    """Log-probabilities of the queries `[T, Q, ways]` after Adam from the class means.

    Args:
        images: Supports, then queries, `[T, S + Q, D]`.
        member: Of the supports, `[T, ways, S]`.
        slope: Chances of the queries `[T, ways, Q]` -> Q times the slope of the objective along each, up to a constant
            for each query.
    """
    shots, absent = member.shape[2], floor(member)
    weight = averaging(member) @ images[:, :shots]
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, steps + 1):
        gradient = _gradient(weight, images, member, absent, slope, temperature, of_support)
        first.lerp_(gradient, 1 - BETA1)
        second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        started = (1 - BETA2**step) ** 0.5  # corrects both the root and, as a factor of the rate, the mean
        scale = torch.sqrt(second, out=gradient).add_(EPSILON * started)
        weight.addcdiv_(first, scale, value=-rate * started / (1 - BETA1**step))
    return (_logits(weight, images[:, shots:], temperature) + absent).log_softmax(dim=1).transpose(1, 2)


def _logits(weight: Tensor, images: Tensor, temperature: float) -> Tensor:
    """`-temperature / 2 * |x - w|^2` up to a constant for each image, `[T, ways, rows]`."""
    offset = weight.square().sum(dim=2, keepdim=True).mul_(-temperature / 2)
    return torch.baddbmm(offset, weight, images.transpose(1, 2), alpha=temperature)


def _gradient(
    weight: Tensor,
    images: Tensor,
    member: Tensor,
    absent: Tensor,
    slope: Callable[[Tensor], Tensor],
    temperature: float,
    of_support: float,
) -> Tensor:
    """Slope of the objective along the weights `[T, ways, D]`.

    With e the slope along the logits, `sum over i of temperature * e_ic (x_i - w_c)`. On supports `e = p - y`; on
    queries `e_c = p_c (s_c - sum over k of p_k s_k)`, where s is the slope along the chances p.
    """
    shots, rows = member.shape[2], images.shape[1] - member.shape[2]
    error = torch.softmax(_logits(weight, images, temperature).add_(absent), dim=1)
    own, other = error[..., :shots], error[..., shots:]
    own.sub_(member).mul_(of_support / shots)
    inner = slope(other)
    other.mul_(inner.sub_((other * inner).sum(dim=1, keepdim=True)).mul_(1 / max(1, rows)))
    pulled = error.sum(dim=2, keepdim=True) * weight
    return torch.baddbmm(pulled, error, images, beta=-temperature, alpha=temperature)
