"""Optimal transport of queries to classes: Sinkhorn's iteration, and PT-MAP, which lives on it."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UsageError
from .supports import membership, reciprocal_length
from .transductive import Prior, averaging, floor, gram_of, products, scaled, shares

ADDED = 1e-6
"""To a feature before the power, as published."""
TOLERANCE, ROUNDS = 1e-6, 1000
"""Of the transport: share of the mass that may be in a wrong column at the end, and rounds at most; as published."""

FEW = 4
"""Episodes that are done are carried along, unchanged, until they are more than three of four."""


def pt_map(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    query_prior: Prior,
    power: float | None = 0.5,
    temperature: float = 10.0,
    rate: float = 0.2,
    rounds: int = 20,
) -> Tensor:
    """Log-probabilities of the classes: queries are transported to classes that hold as many as `query_prior` says.

    1. Roots of length 1 (`rooted`); supports and queries are centred, each by their own mean; length 1 again.
    2. Chances `p = exp(-temperature * |q_i - m_c|^2 + f_i + g_c)`, with f and g such that each query sums to 1 and each
       class to its share of the queries (`sinkhorn`).
    3. `m_c <- m_c + rate * (mean of class c's supports and of all queries weighted by p_ic - m_c)`; back to 2.

    The published protocol is `query_prior="uniform"` on balanced queries: the method is then *told* how many queries
    each class has. Results must say so, and where the queries are unbalanced it is worse than `centroid`.
    "unknown" leaves g out, so that p is a softmax over the classes: not in the paper.

    Differs from the paper: features may be negative (the published power asks for outputs of a ReLU, where both are
    the same). In place of the QR decomposition the means are known by their weights on the images of the episode, and
    all rounds see products of features only.

    Args:
        support: `[T, S, D]`.
        labels: int64 `[T, S]`, in [0, ways).
        query: `[T, Q, D]`, all queries of an episode. A lone query is centred to 0, and nothing is left of it.
        ways: Classes of an episode.
        query_prior: "uniform", "unknown", or shares of the classes among the queries `[T, ways]`, which sum to 1.
        power: Of the features, > 0; 1 changes nothing. None: they are as `rooted` makes them.
        temperature: Factor of the squared distance, > 0; lambda in the paper.
        rate: Of the means, in (0, 1]; alpha in the paper.
        rounds: >= 0.

    Returns:
        `[T, Q, ways]`; -inf for a class without support.

    Raises:
        UsageError: Shapes or labels that don't belong together, or a prior that is none.

    Source: Hu et al., Leveraging the Feature Distribution in Transfer-based Few-Shot Learning, 2021, section 3,
    https://arxiv.org/abs/2006.03806.

    Example:
        >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
        >>> query = torch.tensor([[[3.0, 1.0], [1.0, 4.0]]])
        >>> pt_map(support, labels, query, ways=2, query_prior="uniform").argmax(-1).tolist()
        [[0, 1]]
    """
    member = membership(support, labels, query, ways)
    prior, absent, shots = shares(query_prior, member), floor(member), support.shape[1]
    if power is not None:
        support, query = rooted(support, power=power), rooted(query, power=power)
    gram = scaled(_centred(gram_of(support, query), shots))
    belongs = torch.cat([member, member.new_zeros(len(member), ways, query.shape[1])], dim=2)
    weights = averaging(belongs)
    potential = None if prior is None else torch.where(prior > 0, 0.0, -torch.inf).to(gram)
    for number in range(rounds + 1):
        inner, square = products(weights, gram)
        near = temperature * (2 * inner[..., shots:] - square) + absent  # |q|^2 is the same for all classes: left out
        if prior is not None and potential is not None:
            # The means move little in a round, and with them the potential: it starts where the last round ended.
            held = prior * near.shape[2]
            potential = _potential(near, None, held, TOLERANCE, ROUNDS, start=potential)
            near = near + potential[..., None]
        if number < rounds:
            belongs[..., shots:] = near.softmax(dim=1)
            weights.lerp_(averaging(belongs), rate)
    return near.log_softmax(dim=1).transpose(1, 2)


def rooted(x: Tensor, *, power: float = 0.5) -> Tensor:
    """`sign(x) (|x| + 1e-6)^power`, scaled to length 1, of features `[..., D]`."""
    powered = x.abs().add_(ADDED).pow_(power).copysign_(x)
    return powered.mul_(reciprocal_length(powered))


def _centred(gram: Tensor, shots: int) -> Tensor:
    """Products of the images after supports and queries were centred, each by their own mean. Changes `gram`."""
    for axis in (1, 2):
        for part in gram.split([shots, gram.shape[axis] - shots], dim=axis):
            part -= part.mean(dim=axis, keepdim=True)
    return gram


def sinkhorn(
    scores: Tensor, rows: Tensor, columns: Tensor, *, tolerance: float = TOLERANCE, rounds: int = ROUNDS
) -> Tensor:
    """The plan of given sums that is closest to `exp(scores)`: `P_ij = exp(s_ij + f_i + g_j)`.

    A round is `f` for the sums of rows, then `g` for the sums of columns, as Sinkhorn does, or where that is
    better a Newton step for g. On well-separated classes the first alone still isn't there after 1,000 rounds, together
    they take about 10. Scores of any size are safe; an episode stops for itself and is worked on no longer. At the end
    the sums of rows are exact.

    Args:
        scores: `[T, R, C]`; -inf where nothing may go.
        rows: Sums of rows `[T, R]`, > 0.
        columns: Sums of columns `[T, C]`, >= 0; with the same total as `rows`.
        tolerance: Stops where what is in a wrong column is no more than this share of the total.
        rounds: At most.

    Returns:
        P `[T, R, C]`.

    Raises:
        UsageError: Shapes that don't belong together, or totals that differ by more than 0.1 %.

    Source: Cuturi, Sinkhorn Distances, 2013, algorithm 1, https://arxiv.org/abs/1306.0895; Brauer et al., A
    Sinkhorn-Newton method for entropic optimal transport, 2017, https://arxiv.org/abs/1710.06635.

    Example:
        >>> plan = sinkhorn(torch.tensor([[[3.0, 0.0], [2.0, 0.0]]]), torch.ones(1, 2), torch.ones(1, 2))
        >>> plan.sum(dim=1).round(decimals=3).tolist()
        [[1.0, 1.0]]
    """
    if rows.shape != scores.shape[:2] or columns.shape != scores.shape[::2]:
        shapes = f"scores {list(scores.shape)}, rows {list(rows.shape)}, columns {list(columns.shape)}"
        raise UsageError(shapes, where="sinkhorn", mend="scores [T, R, C], rows [T, R], columns [T, C]")
    total = rows.sum(dim=1)
    if bool(((total - columns.sum(dim=1)).abs() > 1e-3 * total).any()):
        raise UsageError("the sums of rows and of columns differ in total", where="sinkhorn", mend="equal totals")
    turned = scores.transpose(1, 2)
    start = torch.where(columns > 0, 0.0, -torch.inf).to(turned)
    potential = _potential(turned, rows, columns, tolerance, rounds, start=start)
    return rows[..., None] * torch.softmax(turned + potential[..., None], dim=1).transpose(1, 2)


def _potential(
    scores: Tensor, rows: Tensor | None, columns: Tensor, tolerance: float, rounds: int, *, start: Tensor
) -> Tensor:
    """g `[T, C]` of `sinkhorn`, for scores `[T, C, R]`. f is never needed: a softmax over the classes has it in it.

    g is the maximum of a concave function of C numbers, whose slope is `columns` - what the columns hold. A Newton step
    is taken where it halves what is wrong, else a round of Sinkhorn, which never makes it worse.
    """
    here, found, limit = start, start.clone(), tolerance * columns.sum(dim=1)
    going = torch.arange(len(scores), device=scores.device)
    plan, held, wrong = _filled(scores, here, rows, columns)
    smallest = torch.finfo(held.dtype).tiny  # of an empty column g grows by 87 (float32) a round until it is found
    for _ in range(rounds):
        left = wrong > limit
        count = int(left.sum())
        if count == 0:
            break
        if FEW * count <= len(left):
            found[going[~left]] = here[~left]
            going, scores, columns, limit, here, plan, held, wrong = (
                x[left] for x in (going, scores, columns, limit, here, plan, held, wrong)
            )
            rows = None if rows is None else rows[left]
            left = left[left]
        trial = torch.where(left[:, None], here + _newton(plan, held, rows, columns), here)
        tried = _filled(scores, trial, rows, columns)
        better = (tried[2] < wrong / 2) | ~left
        if bool(better.all()):
            here, (plan, held, wrong) = trial, tried
            continue
        round_ = here + (columns.clamp(min=smallest) / held.clamp(min=smallest)).log()
        here = torch.where(better[:, None], trial, round_)
        plan, held, wrong = _filled(scores, here, rows, columns)
    found[going] = here
    return found


def _filled(scores: Tensor, potential: Tensor, rows: Tensor | None, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of the rows `[T, C, R]`, what the columns hold `[T, C]`, and how much of it is wrong `[T]`."""
    plan = torch.softmax(scores + potential[..., None], dim=1)
    held = _weighted(plan, rows).sum(dim=2)
    return plan, held, (held - columns).abs().sum(dim=1)


def _weighted(plan: Tensor, rows: Tensor | None) -> Tensor:
    """Shares times the sums of the rows; None: each sums to 1."""
    return plan if rows is None else plan * rows[:, None]


def _newton(plan: Tensor, held: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
    """Newton's step `[T, C]`; not a number where it can't be taken. A constant added to g changes nothing: it is 0."""
    curvature = torch.diag_embed(held) - _weighted(plan, rows) @ plan.transpose(1, 2)
    total = columns.sum(dim=1)[:, None, None]
    least = torch.finfo(held.dtype).eps * torch.eye(held.shape[1], dtype=held.dtype, device=held.device)
    step, _ = torch.linalg.solve_ex(curvature + total * (1 / held.shape[1] ** 2 + least), (columns - held)[..., None])
    return step[..., 0]
