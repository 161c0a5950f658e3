"""Who meets whom in an episode: queries and class means, queries and supports, supports and their own views.

Shapes: T episodes, N ways, K shots, S = N * K supports, q queries of a class, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..episode import Shape
from ..errors import UsageError
from ..method import Batch, Memory, Pairs
from ..similarity import unit


def queries_to_means(
    online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None, *, episode: Shape
) -> list[Pairs]:
    """Each query meets the mean of each class's supports, as they are (ProtoNet, eq. 1).

    Raises:
        UsageError: The batch is not made of such episodes.
    """
    check_episodes(batch, episode)
    return [_to_means(*episode.parted(online[0]), episode)]


def queries_to_supports(
    online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None, *, episode: Shape
) -> list[Pairs]:
    """Each query meets every support; those of its class are positives (matching networks, infoPatch).

    Raises:
        UsageError: The batch is not made of such episodes.
    """
    check_episodes(batch, episode)
    support, query = episode.parted(online[0])
    support_key, query_key = episode.keys(len(support), support.device)
    return [Pairs(query, support, query_key, support_key, gather=False)]


def class_and_instance(
    online: list[Tensor],
    slow: list[Tensor],
    batch: Batch,
    memory: Memory | None,
    *,
    episode: Shape,
    weights: tuple[float, float],
    shots_as_negatives: bool,
    itself: bool,
) -> list[Pairs]:
    """Unit queries meet the means of unit supports; then supports meet the supports and their views (MGECL).

    Args:
        online: All images `[B, D]`, then further views of the supports alone `[T * S, D]`.
        slow, batch, memory: See `Extract`.
        episode: Shape of an episode.
        weights: Of the two comparisons; one with weight 0 is left out.
        shots_as_negatives: Whether other supports of the anchor's class, and their views, are negatives; else they
            take no part.
        itself: Whether a support is its own positive too.

    Raises:
        UsageError: The batch is not made of such episodes.
    """
    check_episodes(batch, episode)
    (support, query), (of_class, of_instance) = episode.parted(online[0]), weights
    pairs = []
    if of_class:
        pairs.append(_to_means(unit(support), unit(query), episode, of_class))
    if of_instance:
        same = [support, *(view.unflatten(0, (len(support), -1)) for view in online[1:])]
        key, slot = _instances(episode, len(same), shots_as_negatives, itself, support.device)
        lead = (len(support), episode.shots)
        ways = torch.arange(episode.ways, device=support.device).expand(*lead, -1)
        others = torch.cat(same, dim=1).unsqueeze(1).expand(*lead, -1, -1)
        anchors = support.unflatten(1, (episode.ways, episode.shots)).transpose(1, 2)  # [T, K, N, D]
        numbers = (ways, key.expand(*lead, -1), ways, slot.expand(*lead, -1))
        pairs.append(Pairs(anchors, others, *numbers[:2], None, *numbers[2:], weight=of_instance, gather=False))
    return pairs


def check_episodes(batch: Batch, episode: Shape) -> None:
    """UsageError where a batch can't be whole episodes: its length, or supports and queries of several classes."""
    if len(batch.ids) % episode.images:
        raise UsageError(
            f"a batch of {len(batch.ids)} images, episodes of {episode.images}",
            where="episode",
            mend="a whole number of episodes, each as Shape.parted takes it apart",
        )
    if batch.labels is None:
        return
    for part, each in zip(episode.parted(batch.labels), (episode.shots, episode.queries), strict=True):
        of_class = part.unflatten(1, (episode.ways, each))
        if not bool((of_class == of_class[..., :1]).all()):
            raise UsageError(
                "images of several classes in the place of one",
                where="episode",
                mend="batches of episodes: supports class by class, then queries class by class",
            )


def _to_means(support: Tensor, query: Tensor, episode: Shape, weight: float = 1.0) -> Pairs:
    means = support.unflatten(1, (episode.ways, episode.shots)).mean(2)
    ways = torch.arange(episode.ways, device=support.device).expand(len(support), -1)
    query_key = episode.keys(len(support), support.device)[1]
    return Pairs(query, means, query_key, ways, weight=weight, gather=False)


def _instances(
    episode: Shape, views: int, shots_as_negatives: bool, itself: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Keys and slots `[K, views * S]` of the others, for the anchors of one shot number each: shot k of every class.

    The anchor of class c has c for key and slot. Among the others of one shot number a class has one image only, so
    its class can say both who it is and, as a slot, who is left out.
    """
    ways, shots = torch.arange(episode.ways, device=device), torch.arange(episode.shots, device=device)
    of_class, shot = ways.repeat_interleave(episode.shots).repeat(views), shots.repeat(episode.ways * views)
    first = torch.arange(len(shot), device=device) < episode.ways * episode.shots
    mine = shots[:, None] == shot
    out = mine & first & (not itself) | ~mine & (not shots_as_negatives)
    nobody = torch.full_like(of_class, -1)
    return torch.where(mine, of_class, nobody), torch.where(out, of_class, nobody)
