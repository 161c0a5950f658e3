"""Accuracy of heads over a list of episodes, from features that were extracted once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..episodes import Episodes
from ..errors import UsageError
from ..evaluation.protocol import Difference, Score, paired_difference, student_interval
from ..signatures import unknown
from .blocks import as_features, predict
from .heads import HEADS

COVERS = (
    "95 %: mean ± t(0.975, T - 1) s / sqrt(T) over T episodes; it covers which episodes were drawn, not the "
    "seed of training, not the choice of a checkpoint, not other classes"
)
PRIORS = ("unknown", "uniform")


def evaluate_episodes(
    bank: Tensor | np.ndarray,
    episodes: Episodes,
    heads: Sequence[str],
    *,
    query_prior: str | Tensor = "unknown",
    centre: Tensor | np.ndarray | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Score]:
    """Mean over episodes of the share of right answers in each, for each head, on the same episodes.

    Args:
        bank: Features float32 or float64 `[N, D]`, a tensor or an array; the episodes' places are its rows.
        episodes: T >= 2 episodes.
        heads: Names of `nearfar.few_shot.HEADS`.
        query_prior: What transductive heads are told of the classes of the queries: "unknown", "uniform", or shares
            `[T, ways]`. Telling them is giving away a part of the answer.
        centre: Mean feature of the training classes `[D]`, for the heads that need it.
        options: Head -> its keyword options.
        progress: Called with the head, the number of episodes done, and of all, again and again.

    Returns:
        Head -> score; `Score.draws` holds the accuracy of each episode, for `paired_difference`.

    Raises:
        UsageError: An unknown head or prior, no centre for a head that needs one, or fewer than two episodes.

    Example:
        >>> from nearfar.episodes import EpisodeSampler
        >>> labels = torch.arange(3).repeat_interleave(20)
        >>> episodes = EpisodeSampler(labels.numpy(), ways=2, shots=1, queries=5).draw(0, 50)
        >>> evaluate_episodes(torch.eye(3)[labels], episodes, ["ncm"])["ncm"].value
        1.0
    """
    check_heads(heads, centre=centre is not None)
    if isinstance(query_prior, str) and query_prior not in PRIORS:
        raise unknown("query prior", query_prior, PRIORS, where="query_prior")
    if len(episodes) < 2:
        raise UsageError(f"{len(episodes)} episodes", where="episodes", mend="two or more; 10,000 give ± 0.2 points")
    bank, scores = as_features(bank), {}
    for name in heads:
        given = dict((options or {}).get(name, {}))
        if HEADS[name].uses_prior:
            given["query_prior"] = query_prior
        if HEADS[name].needs_centre:
            given["centre"] = torch.as_tensor(centre)
        counting = None if progress is None else partial(progress, name)
        right = predict(bank, episodes, HEADS[name], progress=counting, **given).numpy() == episodes.query_label
        draws = right.mean(axis=1)
        low, high = student_interval(draws)
        told = f"; {', '.join(f'{key}={value}' for key, value in given.items() if key != 'centre')}"
        protocol = (
            f"{name}: {HEADS[name].about}{told if len(told) > 2 else ''}; mean of {len(draws):,} episodes; interval"
        )
        scores[name] = Score(float(draws.mean()), low, high, f"{protocol} {COVERS}", tuple(draws.tolist()))
    return scores


def check_heads(heads: Sequence[str], *, centre: bool) -> None:
    """Raises UsageError for no heads, unknown ones, one given twice, and one that needs a centre that is not there."""
    if not heads:
        raise UsageError("no heads", where="heads", mend=f"some of {', '.join(HEADS)}")
    for name in heads:
        if name not in HEADS:
            raise unknown("head", name, HEADS, where="heads")
        if list(heads).count(name) > 1:
            raise UsageError(f"{name} is given twice", where="heads", mend="once is enough")
        if HEADS[name].needs_centre and not centre:
            raise UsageError(
                f"{name} subtracts the mean feature of the training classes, and none are given",
                where="heads",
                mend="name a split, such as --split cifar-fs, or take ncm, which subtracts nothing",
            )


def with_views(bank: Tensor, episodes: Episodes, *, support: int, query: int) -> tuple[Tensor, Episodes]:
    """Episodes whose supports are augmented copies and whose queries are averages over copies.

    With `support` = n > 0 each support is replaced by its views 1 to n, and the image itself is left out (RFS: 5); with
    `query` = n > 0 the feature of a query is the mean of those of the image itself and of its views 1 to n.

    Args:
        bank: Features `[V + 1, N, D]`: of the images, then of V augmented views of each; V >= support, query.
        episodes: Places in [0, N).
        support: Views a support, >= 0.
        query: Views a query, >= 0.

    Returns:
        A bank `[M, D]`, and episodes over its rows.

    Source: Tian et al., Rethinking Few-Shot Image Classification, 2020, section 4.1, https://arxiv.org/abs/2003.11539.
    """
    views, count = bank.shape[0], bank.shape[1]
    assert max(support, query) < views, "too few views in the bank"
    if support:
        shift = count * np.arange(1, support + 1)
        places = (episodes.support[..., None] + shift).reshape(len(episodes), -1)
        labels = np.repeat(episodes.support_label, support, axis=1)
        episodes = replace(episodes, support=places, support_label=labels)
    if query:
        bank = torch.cat([bank, bank[: query + 1].mean(dim=0, keepdim=True)])
        episodes = replace(episodes, query=episodes.query + views * count)
    return bank.flatten(0, 1), episodes


def between_heads(scores: Mapping[str, Score]) -> dict[str, Difference]:
    """`BEST - OTHER` -> by how much the best head is better than each other one, paired episode by episode."""
    best = max(scores, key=lambda name: scores[name].value)
    return {f"{best} - {name}": paired_difference(scores[best], scores[name]) for name in scores if name != best}
