"""The optimum of multinomial logistic regression for many episodes at once, from the products of the supports alone.

The best weights are sums of supports (representer theorem). So any features Z `[n, n]` with the same products,
`Z Z^T = S S^T`, take the place of the supports S `[n, D]`, and D plays no part. A column of ones makes the last weight
the offset, which no penalty holds:

    phi(W) = C sum_i -log softmax(W z_i)[y_i] + |held W|^2 / 2,    held = (1, ..., 1, 0)

    gradient  C (P - Y) Z + held W
    Hessian   V -> C (P V Z^T - P sum_c P V Z^T) Z + held V
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STEPS, PRODUCTS, HALVINGS = 100, 200, 30
"""Most Newton steps, products with the Hessian in one of them, and halvings of a step. 4 to 6, 2 to 5 and 0 are usual:
episodes of 5 classes, 1 to 20 shots, C of 1 and 10, features of length 1."""
CLOSE, EXACT = 1e-9, 1e-24
"""Shares of phi. A step that promises to lower it by less than the first is the last: the error of the next would be of
the order of its square. An error below the second is rounding."""


@dataclass(frozen=True)
class Problem:
    """T episodes of n supports.

    Args:
        z: Features and a last column of ones, float64 `[T, n, n + 1]`.
        members: 1 where a support belongs to a class, else 0: Y, `[T, ways, n]`.
        absent: True for classes without support, which are left out, `[T, ways, 1]`.
        held: 1 for weights that the penalty holds, 0 for the offset, `[n + 1]`.
        C: Weight of the likelihood.
    """

    z: Tensor
    members: Tensor
    absent: Tensor
    held: Tensor
    C: float

    def value(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """phi `[T, 1, 1]` and the chances P `[T, ways, n]` at weights `[T, ways, n + 1]`."""
        logs = (weight @ self.z.transpose(1, 2)).masked_fill(self.absent, -torch.inf).log_softmax(dim=1)
        wrong = -torch.where(self.members > 0, logs, 0).sum(dim=(1, 2), keepdim=True)
        return self.C * wrong + _dot(self.held * weight, weight) / 2, logs.exp()

    def slope(self, weight: Tensor, chances: Tensor) -> Tensor:
        """Gradient, `[T, ways, n + 1]`."""
        return torch.baddbmm(self.held * weight, chances - self.members, self.z, alpha=self.C)

    def bend(self, chances: Tensor, direction: Tensor) -> Tensor:
        """Hessian times a direction, `[T, ways, n + 1]`."""
        moved = chances * (direction @ self.z.transpose(1, 2))
        moved = torch.addcmul(moved, chances, moved.sum(dim=1, keepdim=True), value=-1)
        return torch.baddbmm(self.held * direction, moved, self.z, alpha=self.C)

    def inverse(self) -> Tensor:
        """The inverse Hessian at zero, where all classes are alike: the same for each class, `[T, n + 1, n + 1]`."""
        curvature = self.C / (~self.absent).sum(dim=1, keepdim=True)
        return torch.linalg.inv(curvature * (self.z.transpose(1, 2) @ self.z) + self.held.diag())


def solve(gram: Tensor, members: Tensor, *, C: float) -> tuple[Tensor, Tensor]:
    """The A and b of the best logits `A K + b` `[T, ways, rows]`, K the products of the supports with any rows.

    Newton steps, each solved by conjugate gradients. An episode that has converged stays as it is while others go on,
    so none depends on its neighbours.

    Args:
        gram: Products of the supports, float64 `[T, n, n]`, of any rank.
        members: 1 for the class of a support, else 0: Y, float64 `[T, ways, n]`.
        C: > 0.

    Returns:
        A `[T, ways, n]` and b `[T, ways, 1]`.
    """
    root, inverse_root = _root(gram)
    z = torch.cat([root, torch.ones_like(gram[:, :, :1])], dim=2)
    held = z.new_ones(z.shape[2])
    held[-1] = 0
    problem = Problem(z, members, ~members.any(dim=2, keepdim=True), held, C)
    inverse, weight = problem.inverse(), members.new_zeros(*members.shape[:2], z.shape[2])
    value, chances = problem.value(weight)
    done = value <= 0  # one class
    for _ in range(STEPS):
        slope = problem.slope(weight, chances)
        step = _newton_step(problem, chances, slope, inverse, value, done)
        descent, size = _dot(slope, step), torch.ones_like(value)
        for _ in range(HALVINGS):
            tried = torch.addcmul(weight, size, step, value=-1)
            reached, chances = problem.value(tried)
            # Armijo's rule, with room for the rounding of the two values
            short = reached > value - 1e-4 * size * descent + 1e-12 * value
            if not short.any():
                break
            size = torch.where(short, size / 2, size)
        done = done | (descent <= CLOSE * value) | (reached >= value)
        weight, value = tried, reached
        if done.all():
            break
    return weight[:, :, :-1] @ inverse_root, weight[:, :, -1:]


def _newton_step(
    problem: Problem, chances: Tensor, slope: Tensor, inverse: Tensor, value: Tensor, done: Tensor
) -> Tensor:
    """`H^-1 slope` by preconditioned conjugate gradients, the more exact the nearer the optimum; 0 for those done."""
    step, left = torch.zeros_like(slope), slope
    direction = left @ inverse
    size = torch.where(done, 0, _dot(left, direction))
    stop = torch.maximum(size * (size / value).clamp(max=1e-2), EXACT * value)
    for _ in range(PRODUCTS):
        going = size > stop
        if not going.any():
            break
        change = problem.bend(chances, direction)
        stretch = _dot(change, direction)
        length = torch.where(going & (stretch > 0), size / stretch, 0)
        step, left = torch.addcmul(step, length, direction), torch.addcmul(left, length, change, value=-1)
        better = left @ inverse
        shrunk = _dot(left, better)
        direction = torch.addcmul(better, torch.where(going, shrunk / size, 0), direction)
        size = torch.where(going, shrunk, 0)
    return step


def _root(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Z with `Z Z^T = gram`, and its inverse: Cholesky's, or by eigenvalues where supports depend on each other."""
    root, failed = torch.linalg.cholesky_ex(gram)
    dependent, one = failed > 0, torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    inverse = torch.linalg.solve_triangular(root, one, upper=False)
    if dependent.any():
        value, vector = torch.linalg.eigh(gram[dependent])
        kept = value > 1e-14 * value[:, -1:]
        length = value.where(kept, 1).sqrt()
        root[dependent] = vector * (kept * length)[:, None, :]
        inverse[dependent] = (vector * (kept / length)[:, None, :]).transpose(1, 2)
    return root, inverse


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product for each episode, `[T, 1, 1]`."""
    return (a * b).sum(dim=(1, 2), keepdim=True)
