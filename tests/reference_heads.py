"""The slow, obvious twins of the inductive few-shot heads: one episode, one query and one class at a time."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression


def unit(x):
    """Rows of length 1; zero stays zero."""
    return np.array([row / np.linalg.norm(row) if np.linalg.norm(row) > 0 else row for row in x])


def scores_by(support, labels, query, ways, score):
    """`score(supports of the class, query)` for each query and class; -inf for a class without support."""
    table = np.full((len(query), ways), -np.inf)
    for c in range(ways):
        members = support[labels == c]
        for q in range(len(query)):
            if len(members):
                table[q, c] = score(members, query[q])
    return table


def nearest_mean(support, labels, query, ways, *, distance="l2", normalise=True, centre=None):
    """`-|q - mean|^2`, or the cosine of q and the mean."""
    if centre is not None:
        support, query = support - centre, query - centre
    if normalise:
        support, query = unit(support), unit(query)

    def score(members, q):
        mean = members.mean(axis=0)
        if distance == "cosine":
            return float(unit([mean])[0] @ unit([q])[0])
        return -float(((q - mean) ** 2).sum())

    return scores_by(support, labels, query, ways, score)


def nearest_support(support, labels, query, ways):
    """Cosine to the nearest support of each class."""
    return scores_by(unit(support), labels, unit(query), ways, lambda members, q: max(float(m @ q) for m in members))


def ridge(support, labels, query, ways, *, penalty=1.0, normalise=True):
    """The normal equations in D dimensions, class by class."""
    if normalise:
        support, query = unit(support), unit(query)
    table = np.full((len(query), ways), -np.inf)
    for c in set(labels.tolist()):
        damped = support.T @ support + penalty * np.eye(support.shape[1])
        table[:, c] = query @ np.linalg.solve(damped, support.T @ (labels == c).astype(float))
    return table


def logistic(support, labels, query, ways, *, C=1.0, normalise=True):
    """Scikit-learn at a tolerance of 1e-9; its binary model has one vector where the multinomial one has two."""
    if normalise:
        support, query = unit(support), unit(query)
    present = np.unique(labels)
    table = np.full((len(query), ways), -np.inf)
    if len(present) == 1:
        table[:, present[0]] = 0
        return table
    model = LogisticRegression(C=2 * C if len(present) == 2 else C, tol=1e-9, max_iter=100_000).fit(support, labels)
    logits = model.decision_function(query)
    table[:, present] = np.stack([-logits, logits], axis=1) / 2 if len(present) == 2 else logits
    return table


def cosine_classifier(support, labels, query, ways, *, steps=100, learning_rate=0.01, scale=2.0):
    """Weights in D dimensions, autograd, torch's own SGD."""
    support, query, labels = torch.tensor(unit(support)), torch.tensor(unit(query)), torch.tensor(labels)
    present = labels.unique()
    weight = torch.stack([support[labels == c].mean(dim=0) for c in present]).requires_grad_()
    sgd = torch.optim.SGD([weight], lr=learning_rate, momentum=0.9, dampening=0.9, weight_decay=0.001)
    target = torch.searchsorted(present, labels)
    for _ in range(steps):
        sgd.zero_grad()
        F.cross_entropy(scale * support @ F.normalize(weight, dim=1).T, target).backward()
        sgd.step()
    table = np.full((len(query), ways), -np.inf)
    with torch.no_grad():
        table[:, present.numpy()] = (scale * query @ F.normalize(weight, dim=1).T).numpy()
    return table
