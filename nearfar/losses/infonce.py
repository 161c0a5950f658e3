"""InfoNCE over keyed pairs, and with it NT-Xent, SupCon, MoCo, CLIP, CPC, AMDIM, DCL: one loss, computed in tiles.

Shapes: E episodes, N anchors, M others, D width.

Sources: CPC (van den Oord et al. 2018, eq. 4, https://arxiv.org/abs/1807.03748), NT-Xent (Chen et al. 2020, eq. 1,
https://arxiv.org/abs/2002.05709), SupCon (Khosla et al. 2020, eq. 2 and 3, https://arxiv.org/abs/2004.11362),
AMDIM (Bachman et al. 2019, https://arxiv.org/abs/1906.00910), DCL (Yeh et al. 2022, https://arxiv.org/abs/2110.06848).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..distributed import gather, shares, total, world
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity, unit
from . import cpu_infonce, triton_infonce
from .arguments import check_pairs, checked_rule, checked_temperature
from .gradients import add_gradients, add_own_gradients, add_symmetric_gradients
from .rows import Rows, Rule, Statistics, row_statistics
from .tiles import Meeting, Score, Side, Tile, Visit, own_tile

SAFE_RANGE = 80.0
"""Widest range of scores for exponentials without a running maximum: exp(40) and exp(-40) have room in fp32."""


def infonce(
    pairs: Pairs,
    similarity: Similarity,
    *,
    temperature: float | Tensor = 0.1,
    positives: str = "mean_log",
    denominator: str = "all",
) -> Tensor:
    """Mean over anchors of the negative log share that the positives have of the scores.

        mean_log   loss_i = mean over p in P_i of ( log(denominator) - s_ip ),    s_ij = similarity / temperature
        log_sum    loss_i = log(denominator) - log( sum over p in P_i of exp s_ip )

        all                 denominator = sum over P_i and N_i of exp s_ij      NT-Xent, SupCon, MoCo, CLIP, CPC
        own_and_negatives   denominator = exp s_ip + sum over N_i of exp s_ij   AMDIM; with mean_log only
        negatives           denominator = sum over N_i of exp s_ij              DCL; this loss can be below 0

    P_i: others with the anchor's key, and `pairs.positive[i]`; N_i: the rest; equal slots are in neither. Anchors
    without a positive (for `negatives` also those without a negative) take no part in the mean; where none takes part
    the loss is 0 and so is its gradient. Count them with `(anchor_key[:, None] == other_key).any(1)`, less the slots.

    Memory O((N + M) D): scores live in tiles only. bf16 and fp16 are raised to fp32. No second derivatives.

    In several processes each holds its own anchors, and every process must call. The value is the mean over the
    anchors of all of them. With `pairs.gather` the others of all processes are compared, so keys and slots must number
    samples over all. **Gradients are those of that global mean times the number of processes**: DDP's averaging of
    parameter gradients then gives the gradient of the mean exactly. No gradients are sent for it.

    Args:
        pairs: Who is compared with whom.
        similarity: See `nearfar.similarity`; where `bound` is > 0, scores are taken to lie in [-bound, bound].
        temperature: Divides the scores, > 0. A 0-d tensor may be learned.
        positives: "mean_log" (SupCon's L_out) or "log_sum" (L_in, without its 1/|P|).
        denominator: "all", "own_and_negatives" or "negatives".

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: Unknown choice, temperature <= 0, shapes that do not fit, or pairs that can have no positive.

    Example:
        >>> import torch
        >>> from nearfar import similarity
        >>> from nearfar.method import Pairs
        >>> images = torch.tensor([0, 1, 0, 1])  # two views of two images
        >>> rows = torch.eye(2).repeat(2, 1)
        >>> slots = torch.arange(4)
        >>> pairs = Pairs(rows, rows, images, images, anchor_slot=slots, other_slot=slots)
        >>> round(infonce(pairs, similarity.cosine, temperature=0.5).item(), 4)  # log(1 + 2 exp(-2))
        0.2395
    """
    rule, degrees = checked_rule(positives, denominator), checked_temperature(temperature)
    check_pairs(pairs)
    across = pairs.gather and world() > 1
    if across and pairs.anchor.ndim > 2:
        raise UsageError(
            "episodes are compared within their process", where="pairs.gather", mend="Pairs(..., gather=False)"
        )
    plan = _Plan(
        rule=rule,
        score=Score(degrees, similarity.curve, _bounded(similarity.bound, degrees)),
        anchor_numbers=(_episodes(pairs.anchor_key, 1), _episodes(pairs.anchor_slot, 1)),
        other_numbers=(_episodes(pairs.other_key, 1), _episodes(pairs.other_slot, 1)),
        gather=across,
        gradients=torch.is_grad_enabled(),
    )
    learned = temperature if isinstance(temperature, Tensor) else None
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        return _InfoNCE.apply(*_mapped(pairs, similarity), learned, plan)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    rule: Rule
    score: Score
    anchor_numbers: tuple[Tensor | None, Tensor | None]  # keys and slots, [E, N]
    other_numbers: tuple[Tensor | None, Tensor | None]
    gather: bool
    gradients: bool


class _InfoNCE(torch.autograd.Function):
    """Takes mapped embeddings `[E, N, D]`; without `other` the anchors meet each other, with symmetric scores."""

    @staticmethod
    def forward(
        ctx, anchor: Tensor, other: Tensor | None, positive: Tensor | None, temperature: Tensor | None, plan: _Plan
    ) -> Tensor:
        rows = Side(anchor, *plan.anchor_numbers)
        local = rows if other is None else Side(other, *plan.other_numbers)
        columns = _gathered(local) if plan.gather else local

        own = None if positive is None else own_tile(anchor, positive, plan.score)
        met, pull = Meeting(rows, columns, plan.score), None
        settings = (anchor, plan.score, plan.rule)
        if cpu_infonce.fits(*settings) and not triton_infonce.fits(*settings):
            if plan.gradients and local is not rows and not ctx.needs_input_grad[1]:
                pull = cpu_infonce.Pull(met)
            found = cpu_infonce.row_statistics(own, met, plan.rule, pull)
        else:
            found = _row_statistics(own, met, plan)
        loss, anchors = total(found.total).unbind()
        anchors = anchors.clamp(min=1)
        if plan.gradients and any(ctx.needs_input_grad):
            into = [
                torch.zeros_like(t) if need and t is not None else None
                for t, need in zip((anchor, other, positive, loss), ctx.needs_input_grad, strict=False)
            ]
            _add_all(into, met, local, positive, found.numbers, plan, pull)
            ctx.save_for_backward(*into, anchors)
            ctx.scale = world() / plan.score.temperature
        return loss / anchors

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        anchor, other, positive, scores, anchors = ctx.saved_tensors
        factor = upstream * ctx.scale / anchors
        embeddings = [None if g is None else factor * g for g in (anchor, other, positive)]
        return *embeddings, None if scores is None else -factor * scores, None


def _row_statistics(own: Tile | None, met: Meeting, plan: _Plan) -> Rows:
    statistics = Statistics(met.rows.vectors, bounded=plan.score.bounded)
    alone: list[Visit] = [] if own is None else [(own, False)]
    for tile, _ in alone:
        statistics.add(tile)
    if triton_infonce.fits(met.rows.vectors, plan.score, plan.rule):
        triton_infonce.add_statistics(statistics, met)
    else:
        for tile, mirrored in met:
            statistics.add(tile, mirrored=mirrored)
    return row_statistics(statistics, plan.rule, visit=lambda: chain(alone, met))


def _add_all(
    into: list[Tensor | None],
    met: Meeting,
    local: Side,
    positive: Tensor | None,
    numbers: Tensor,
    plan: _Plan,
    pull: cpu_infonce.Pull | None,
) -> None:
    """Fills the gradients of this process's anchors, others and positives, and of the temperature, up to a factor.

    What other processes' anchors do to this one's others is computed here, from the anchors themselves: instead of
    gradients, their embeddings, keys and four numbers each are gathered.
    """
    anchors, others, positives, scores = into
    rows, columns, settings = met.rows, met.columns, (plan.score, plan.rule)
    one_sided, symmetric = add_gradients, add_symmetric_gradients
    if triton_infonce.fits(rows.vectors, *settings):
        one_sided, symmetric = triton_infonce.add_gradients, triton_infonce.add_symmetric_gradients
    elif cpu_infonce.fits(rows.vectors, *settings):
        one_sided = symmetric = cpu_infonce.add_gradients
    if local is rows:
        everyone = numbers if columns is rows else _gathered_rows(numbers)
        symmetric(met, plan.rule, numbers=numbers, column_numbers=everyone, into_rows=anchors, into_scores=scores)
    elif pull is not None:
        found = pull.gradients(numbers)
        if anchors is not None:
            anchors += found
        if scores is not None:
            scores += (found * rows.vectors).sum() / plan.score.temperature
    else:
        own = others if columns is local else None
        one_sided(met, plan.rule, numbers=numbers, into_rows=anchors, into_columns=own, into_scores=scores)
        if others is not None and columns is not local:
            everyone = Meeting(_gathered(rows), local, plan.score)
            one_sided(everyone, plan.rule, numbers=_gathered_rows(numbers), into_columns=others)
    if positive is not None:
        add_own_gradients(
            rows.vectors,
            positive,
            *settings,
            numbers=numbers,
            into_anchors=anchors,
            into_positive=positives,
            into_scores=scores,
        )


def _mapped(pairs: Pairs, similarity: Similarity) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Anchor, other, positive as `[E, N, D']`; other is None where it is the anchor again and scores are symmetric."""
    given = (pairs.anchor, pairs.other, pairs.positive)
    dtype = torch.float64 if any(t is not None and t.dtype == torch.float64 for t in given) else torch.float32
    symmetric = (
        pairs.other is pairs.anchor
        and similarity.other is similarity.anchor
        and pairs.other_key is pairs.anchor_key
        and pairs.other_slot is pairs.anchor_slot
    )
    # Rows of a queue are unit vectors up to the rounding of their type: to make 65,536 of them so again was a fifth.
    mapped = pairs.other_unit and pairs.other.dtype == dtype and similarity.other is unit
    anchor = _episodes(similarity.anchor(pairs.anchor.to(dtype)), 2)
    other = None if symmetric else _episodes(pairs.other if mapped else similarity.other(pairs.other.to(dtype)), 2)
    positive = None if pairs.positive is None else _episodes(similarity.other(pairs.positive.to(dtype)), 2)
    assert anchor is not None
    return anchor, other, positive


def _bounded(bound: float | None, temperature: float) -> bool:
    """Whether fp32 bears `exp(score)` of all scores in [-bound, bound] / temperature, and their sums, as they are.

    A bound of 0 (a negative distance) says nothing about how low scores go.
    """
    return bound is not None and 0 < 2 * bound / temperature < SAFE_RANGE


def _episodes(tensor: Tensor | None, axes: int) -> Tensor | None:
    """All leading dimensions as one; `axes` are kept."""
    if tensor is None:
        return None
    lead = tensor.shape[: tensor.ndim - axes]
    return tensor.reshape(math.prod(lead), *tensor.shape[tensor.ndim - axes :])


def _gathered(side: Side) -> Side:
    """The side completed from all processes."""
    count = shares(side.vectors.shape[1], side.vectors.device)
    vectors, key, slot = (
        None if t is None else gather(t[0], count).unsqueeze(0) for t in (side.vectors, side.key, side.slot)
    )
    assert vectors is not None
    return Side(vectors, key, slot)


def _gathered_rows(numbers: Tensor) -> Tensor:
    return gather(numbers[0]).unsqueeze(0)
