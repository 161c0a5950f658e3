"""Codes: the embeddings of a batch shared out evenly among prototypes, and what the other views are asked for.

Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (SwAV), NeurIPS 2020,
https://arxiv.org/abs/2006.09882, section 3.1. Cuturi, Sinkhorn Distances, NIPS 2013, https://arxiv.org/abs/1306.0895.

Shapes: B samples, K prototypes, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..distributed import gather, rank, total, world
from ..errors import UsageError
from ..memory import Queue
from ..method import Batch, Memory, Pairs
from ..similarity import unit
from .swapped import LatePrototypes, swapped

LARGE = 2
"""Views that have codes; those after them are small crops."""

SMALLEST_EPSILON = 0.025  # the widest range of cosines is 2; exp(-2 / 0.025) is a normal number in fp32


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Shares of the prototypes for each sample, such that all prototypes have about as many samples.

        Q = diag(u) exp(S / epsilon) diag(v),    u, v by turns so that columns sum to B / K and rows to 1

    Rows come last, so each sample's shares sum to 1 exactly, and the columns to B / K the nearer the more iterations
    there are. Columns are those of the samples of all processes.

    Args:
        scores: `[B, K]`, cosines; of this process's samples.
        epsilon: Smoothness, > 0: the smaller, the nearer are the shares to 0 and 1. Scores whose range in a column is
            over 80 times as large leave fp32.
        iterations: >= 1.

    Returns:
        `[B, K]`, fp32, or fp64 where the scores are.

    The columns' largest scores are taken away first, which changes nothing in the result: columns are scaled anyway.

    Example:
        >>> sinkhorn(torch.tensor([[1.0, 0.9], [1.0, 0.8]])).round(decimals=1)  # both lean to the first prototype
        tensor([[0.3000, 0.7000],
                [0.7000, 0.3000]])
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    peaks = gather(scores.amax(dim=0, keepdim=True), [1] * world()).amax(dim=0)
    q = ((scores - peaks) / epsilon).exp()
    u, v = q.new_ones(len(q)), q.new_ones(())
    for _ in range(iterations):
        v = 1 / total(u @ q)
        v = v / v.amax()  # u takes a factor back; without it both drift out of range, by K / B in each turn
        u = 1 / (q @ v)
    return u[:, None] * q * v


class Queues(nn.Module):
    """A memory of the last embeddings of each large view, the same on all processes.

    Args:
        width: Width D of an embedding.
        length: Embeddings kept of each view; a multiple of the global batch.
    """

    full: Tensor

    def __init__(self, *, width: int, length: int) -> None:
        super().__init__()
        self.queues = nn.ModuleList(Queue(width=width, length=length) for _ in range(LARGE))
        self.register_buffer("full", torch.zeros((), dtype=torch.bool))  # True once no row is as it began

    def check_batch(self, batch: int) -> None:
        """Raises UsageError where the global batch does not divide the length."""
        self._queue(0).check_batch(batch)

    def rows(self, view: int = 0) -> Tensor:
        """Unit embeddings of a view `[length, D]`, those of this step not among them."""
        return self._queue(view).rows()

    def remember(self, slow: list[Tensor], batch: Batch) -> None:
        """Takes the embeddings of the large views of a step, from all processes."""
        for view in range(LARGE):
            self._queue(view).remember([slow[view]], batch)
        self.full |= self._queue(0).pointer == 0

    def _queue(self, view: int) -> Queue:
        queue = self.queues[view]
        assert isinstance(queue, Queue)
        return queue


class Assigned(nn.Module):
    """Each view is asked for the codes of the other large views: their shares of the prototypes by `sinkhorn`.

    Prototypes are made unit in place before each step. A memory (`Queues`), once full, adds its samples to those that
    are shared out, for batches that are small beside the number of prototypes. One comparison for each view.

    Args:
        width: Width D of an embedding.
        count: Number K of prototypes.
        epsilon: As in `sinkhorn`, at least 0.025.
        freeze: Share of the run in which the prototypes stay as they are, in [0, 1].
        wait: Share of the run before which the memory is not used, in [0, 1].

    Raises:
        UsageError: A value out of its range.
    """

    def __init__(self, width: int, count: int, *, epsilon: float = 0.05, freeze: float = 0.0, wait: float = 0.0):
        super().__init__()
        if not SMALLEST_EPSILON <= epsilon < math.inf or not 0 <= wait <= 1:
            raise UsageError(
                f"epsilon is {epsilon}, and a queue is used after {wait} of the run",
                where="epsilon, wait",
                mend=f"an epsilon of {SMALLEST_EPSILON} or more, and a share in [0, 1]",
            )
        self.prototypes, self.epsilon, self.wait = LatePrototypes(width, count, freeze=freeze), epsilon, wait

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """One comparison for each view, with the weights of the mean over pairs of views."""
        with torch.no_grad():
            weight = self.prototypes.vectors.weight
            weight.copy_(unit(weight))
        prototypes = self.prototypes()
        earlier = self._earlier(memory)
        return swapped(online, [self._codes(slow[v], prototypes, earlier[v]) for v in range(LARGE)], prototypes)

    def _earlier(self, memory: Memory | None) -> list[Tensor | None]:
        """Of each large view the embeddings of earlier steps that this process takes into the sum over all."""
        if memory is None:
            return [None] * LARGE
        assert isinstance(memory, Queues), "codes need a memory for each large view"
        if not memory.full or self.prototypes.progress < self.wait:
            return [None] * LARGE
        return [memory.rows(view)[rank() :: world()] for view in range(LARGE)]

    @torch.no_grad()
    def _codes(self, z: Tensor, prototypes: Tensor, earlier: Tensor | None) -> Tensor:
        rows = unit(z) if earlier is None else torch.cat([unit(z), earlier])
        return sinkhorn(rows @ prototypes.mT, epsilon=self.epsilon)[: len(z)]
