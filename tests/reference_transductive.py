"""Slow, obvious twins of the transductive heads: one episode, one image, one class at a time.

Each takes support `[S, D]`, labels `[S]`, query `[Q, D]` in float64 and returns scores `[Q, ways]`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sphere(x: Tensor) -> Tensor:
    return torch.stack([row / max(float(row.norm()), 1e-12) for row in x]) if len(x) else x


def class_means(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    return torch.stack([support[labels == c].mean(0) for c in range(ways)])


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / (max(float(a.norm()), 1e-12) * max(float(b.norm()), 1e-12))


def distances(query: Tensor, means: Tensor) -> Tensor:
    return torch.stack([torch.stack([(q - m).square().sum() for m in means]) for q in query])


def soft_kmeans(support, labels, query, *, ways, temperature=5.0, rounds=30) -> Tensor:
    support, query = sphere(support), sphere(query)
    means = class_means(support, labels, ways)
    for _ in range(rounds):
        chance = torch.softmax(-temperature * distances(query, means), dim=1)
        new = []
        for c in range(ways):
            total, count = support[labels == c].sum(0), float((labels == c).sum())
            for i in range(len(query)):
                total, count = total + chance[i, c] * query[i], count + float(chance[i, c])
            new.append(total / count)
        means = torch.stack(new)
    return torch.log_softmax(-temperature * distances(query, means), dim=1)


def shifted_and_mended(support, labels, query, ways) -> tuple[Tensor, Tensor]:
    support, query = sphere(support), sphere(query)
    query = query + support.mean(0) - query.mean(0)
    means = class_means(support, labels, ways)
    images = torch.cat([support, query])
    sure = torch.stack(
        [torch.softmax(torch.tensor([10 * cosine(x, m) for m in means], dtype=query.dtype), 0) for x in images]
    )
    belongs = [*labels.tolist(), *sure[len(support) :].argmax(1).tolist()]
    mended = []
    for c in range(ways):
        own = [i for i in range(len(images)) if belongs[i] == c]
        mended.append(sum(sure[i, c] * images[i] for i in own) / sum(sure[i, c] for i in own))
    return query, torch.stack(mended)


def bd_cspn(support, labels, query, *, ways) -> Tensor:
    query, mended = shifted_and_mended(support, labels, query, ways)
    return torch.tensor([[cosine(q, m) for m in mended] for q in query], dtype=query.dtype)


def laplacian_shot(support, labels, query, *, ways, weight=0.7, neighbours=3, rounds=20) -> Tensor:
    query, mended = shifted_and_mended(support, labels, query, ways)
    cost = distances(query, mended)
    count = len(query)
    linked = torch.zeros(count, count, dtype=query.dtype)
    for i in range(count):
        others = sorted((j for j in range(count) if j != i), key=lambda j: float((query[i] - query[j]).norm()))
        for j in others[:neighbours]:
            linked[i, j] = 1
    shares = torch.softmax(-cost, dim=1)
    for _ in range(rounds):
        shares = torch.softmax(-cost + weight * linked @ shares, dim=1)
    return shares.log()


def tim_objective(weight, support, labels, query, *, temperature, weights, prior, alpha) -> Tensor:
    """What TIM (alpha None) and alpha-TIM minimise, as written in the papers."""
    of_support = torch.log_softmax(-temperature / 2 * distances(support, weight), dim=1)
    chance = torch.softmax(-temperature / 2 * distances(query, weight), dim=1)
    marginal = chance.mean(0)
    cross = -torch.stack([of_support[i, y] for i, y in enumerate(labels)]).mean()
    if alpha is None:
        spread = (marginal * ((marginal + 1e-12).log() - prior.log())).sum()
        unsure = -(chance * (chance + 1e-12).log()).sum(1).mean()
    else:
        spread = -(1 - marginal.pow(alpha).sum()) / (alpha - 1)
        unsure = ((1 - chance.pow(alpha).sum(1)) / (alpha - 1)).mean()
    return weights[0] * cross + weights[1] * spread + weights[2] * unsure


def tim(
    support,
    labels,
    query,
    *,
    ways,
    prior=None,
    alpha=None,
    steps=1000,
    rate=1e-4,
    temperature=15.0,
    weights=(0.1, 1.0, 0.1),
) -> Tensor:
    """torch's own Adam, with slopes by autograd. `prior` None: the class means count the queries."""
    support, query = sphere(support), sphere(query)
    weight = class_means(support, labels, ways)
    if prior is None:
        counts = torch.bincount(distances(query, weight).argmin(1), minlength=ways).double()
        prior = (counts + 1) / (counts + 1).sum()
    weight.requires_grad_(True)
    optimizer = torch.optim.Adam([weight], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        settings = {"temperature": temperature, "weights": weights, "prior": prior, "alpha": alpha}
        tim_objective(weight, support, labels, query, **settings).backward()
        optimizer.step()
    return torch.log_softmax(-temperature / 2 * distances(query, weight.detach()), dim=1)


def sinkhorn(scores, rows, columns, *, tolerance=1e-12, rounds=20_000) -> Tensor:
    """Rows and columns scaled in turn until the sums of rows change no more."""
    plan = scores.exp() / scores.exp().sum()
    before = torch.zeros_like(rows)
    for _ in range(rounds):
        if (before - plan.sum(1)).abs().max() <= tolerance:
            break
        before = plan.sum(1)
        plan = plan * (rows / before)[:, None]
        plan = plan * (columns / plan.sum(0))[None, :]
    return plan


def pt_map(support, labels, query, *, ways, shares=None, rounds=20) -> Tensor:
    """As published, QR decomposition and all; `shares` None: no columns to fill."""
    support, query = sphere((support + 1e-6).sqrt()), sphere((query + 1e-6).sqrt())
    triangle = torch.linalg.qr(torch.cat([support, query]).T).R.T
    support, query = triangle[: len(support)], triangle[len(support) :]
    support, query = sphere(support - support.mean(0)), sphere(query - query.mean(0))
    means = class_means(support, labels, ways)

    def transported(means: Tensor) -> Tensor:
        scores = -10 * distances(query, means)
        if shares is None:
            return torch.softmax(scores, dim=1)
        return sinkhorn(scores, torch.ones(len(query), dtype=query.dtype), shares * len(query))

    for _ in range(rounds):
        plan, new = transported(means), []
        for c in range(ways):
            own = support[labels == c]
            new.append((own.sum(0) + (plan[:, c, None] * query).sum(0)) / (len(own) + plan[:, c].sum()))
        means = means + 0.2 * (torch.stack(new) - means)
    return transported(means).log()
