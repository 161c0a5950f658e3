"""SigLIP's loss: every pair by itself is told to match or not, so no anchor waits for a sum over the others.

Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023, https://arxiv.org/abs/2303.15343.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..distributed import gather, shares, total, world
from ..errors import UsageError
from ..method import Pairs
from ..similarity import Similarity
from .arguments import check_pairs
from .tiles import Score, Side, Tile, tiles


def sigmoid(
    pairs: Pairs, similarity: Similarity, *, scale: float | Tensor = 10.0, bias: float | Tensor = -10.0
) -> Tensor:
    """Mean over anchors of the sum over others of the logistic loss of each pair.

        loss_i = sum over j of log(1 + exp(-z_ij (scale s_ij + bias))),    z_ij = 1 where keys are equal, otherwise -1

    Equal slots take no part. An anchor may have any number of positives, also none.

    Memory O((N + M) D): scores live in tiles only. bf16 and fp16 are raised to fp32. No second derivatives.

    In several processes each holds its own anchors, and every process must call. The value is the mean over the
    anchors of all of them; with `pairs.gather` the others of all processes are compared. Gradients are those of that
    mean times the number of processes, as `infonce`'s are. The paper passes others from process to process in place of
    gathering them; the result is the same.

    Args:
        pairs: Who is compared with whom, `[N, D]` and `[M, D]`, by keys.
        similarity: See `nearfar.similarity`.
        scale: The paper's t, > 0. A 0-d tensor may be learned.
        bias: The paper's b; near -log of the number of negatives. A 0-d tensor may be learned.

    Returns:
        0-d tensor, fp32, or fp64 where the inputs are.

    Raises:
        UsageError: A scale that is no number > 0, shapes that do not fit, positives row by row, or episodes.

    Source: eq. 1 of the paper, and its algorithm 1.

    Example:
        >>> from nearfar import similarity
        >>> rows, ids = torch.eye(2), torch.arange(2)
        >>> loss = sigmoid(Pairs(rows, rows, ids, ids), similarity.cosine, scale=10.0, bias=-5.0)
        >>> round(loss.item(), 4)  # 2 log(1 + exp(-5))
        0.0134
    """
    steepness = _number(scale, "scale")
    if steepness <= 0:
        raise UsageError(f"a scale of {steepness:g}", where="scale", mend="a number > 0, to begin with 10")
    check_pairs(pairs)
    if pairs.anchor.ndim != 2 or pairs.positive is not None:
        raise UsageError(
            f"anchors of shape {list(pairs.anchor.shape)}" + " and positives" * (pairs.positive is not None),
            where="pairs",
            mend="embeddings [N, D] and [M, D], positives by keys",
        )
    plan = _Plan(
        score=Score(1 / steepness, similarity.curve),
        bias=_number(bias, "bias"),
        keys=(pairs.anchor_key, pairs.other_key),
        slots=(pairs.anchor_slot, pairs.other_slot),
        gather=pairs.gather and world() > 1,
        gradients=torch.is_grad_enabled(),
    )
    dtype = torch.float64 if torch.float64 in (pairs.anchor.dtype, pairs.other.dtype) else torch.float32
    learned = [value if isinstance(value, Tensor) else None for value in (scale, bias)]
    with torch.autocast(pairs.anchor.device.type, enabled=False):
        anchor, other = similarity.anchor(pairs.anchor.to(dtype)), similarity.other(pairs.other.to(dtype))
        return _Sigmoid.apply(anchor, other, *learned, plan)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    score: Score
    bias: float
    keys: tuple[Tensor | None, Tensor | None]  # of anchors and others
    slots: tuple[Tensor | None, Tensor | None]
    gather: bool
    gradients: bool


class _Sigmoid(torch.autograd.Function):
    """Takes mapped embeddings. A slope depends on its own score alone, so one pass gives loss and gradients."""

    @staticmethod
    def forward(ctx, anchor: Tensor, other: Tensor, scale: Tensor | None, bias: Tensor | None, plan: _Plan) -> Tensor:
        rows, local = (
            Side(*(None if t is None else t.unsqueeze(0) for t in side))  # pyright: ignore[reportArgumentType]
            for side in zip((anchor, other), plan.keys, plan.slots, strict=True)
        )
        columns = _gathered(local) if plan.gather else local
        wanted = [plan.gradients and need for need in ctx.needs_input_grad[:4]]
        like = (rows.vectors, local.vectors, anchor.new_zeros(()), anchor.new_zeros(()))
        into = [torch.zeros_like(t) if need else None for t, need in zip(like, wanted, strict=True)]
        anchors, others, steepness, level = into
        loss = anchor.new_zeros(())
        for tile in tiles(rows, columns, plan.score):
            value, slope = _told(tile, plan.bias)
            loss += value
            if level is not None:
                level += slope.sum()
            if steepness is not None:
                steepness += (slope * tile.scores).sum() * plan.score.temperature
            _add(slope, tile, plan.score, rows, columns, anchors, others if columns is local else None)
        if others is not None and columns is not local:
            # What other processes' anchors do to this one's others is computed here, from the anchors themselves.
            everyone = _gathered(rows)
            for tile in tiles(everyone, local, plan.score):
                _add(_told(tile, plan.bias)[1], tile, plan.score, everyone, local, None, others)
        loss, count = total(torch.stack([loss, loss.new_full((), len(anchor))])).unbind()
        ctx.save_for_backward(*into, count.clamp(min=1))
        ctx.temperature = plan.score.temperature
        return loss / count.clamp(min=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *into, count = ctx.saved_tensors
        factor = upstream * world() / count
        anchor, other = (None if g is None else g[0] * (factor / ctx.temperature) for g in into[:2])
        return anchor, other, *(None if g is None else g * factor for g in into[2:]), None


def _told(tile: Tile, bias: float) -> tuple[Tensor, Tensor]:
    """Sum of the losses of a tile, and the slope of each at its logit."""
    logits = tile.scores + bias
    sign = torch.full_like(logits, -1) if tile.positive is None else 2 * tile.positive - 1
    logits *= sign
    loss, slope = -F.logsigmoid(logits), torch.sigmoid(-logits).mul_(-sign)
    if tile.left_out is not None:
        loss, slope = loss.masked_fill(tile.left_out, 0), slope.masked_fill(tile.left_out, 0)
    return loss.sum(), slope


def _add(
    slope: Tensor, tile: Tile, score: Score, rows: Side, columns: Side, anchors: Tensor | None, others: Tensor | None
) -> None:
    """Adds what a tile does to both sides, up to the factor of a dot product in its score."""
    slope = slope if score.curve is None else slope * score.curve.slope(tile.dots)
    if anchors is not None:
        anchors[tile.rows].baddbmm_(slope, columns.vectors[tile.columns])
    if others is not None:
        others[tile.columns].baddbmm_(slope.mT, rows.vectors[tile.rows])


def _gathered(side: Side) -> Side:
    """The side completed from all processes."""
    count = shares(side.vectors.shape[1], side.vectors.device)
    key, slot = (None if t is None else gather(t[0], count).unsqueeze(0) for t in (side.key, side.slot))
    return Side(gather(side.vectors[0], count).unsqueeze(0), key, slot)


def _number(value: float | Tensor, name: str) -> float:
    if isinstance(value, Tensor) and value.ndim:
        raise UsageError(f"a {name} of shape {list(value.shape)}", where=name, mend="a number or a 0-d tensor")
    number = float(value.item() if isinstance(value, Tensor) else value)
    if not math.isfinite(number):
        raise UsageError(f"a {name} of {number}", where=name, mend="a finite number")
    return number
