"""The shape of an episode: what an episodic method and the plan that feeds it agree on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Shape:
    """N ways, K shots, q queries a class, T episodes in a step.

    In a batch one episode follows the other; within one come all supports, class by class, then all queries, class by
    class.

    Args:
        ways: Classes of an episode, >= 2.
        shots: Labelled images of a class, >= 1.
        queries: Images of a class that are asked for, >= 1.
        tasks: Episodes in a step, over all processes, >= 1.

    Raises:
        UsageError: A number below its least.

    Example:
        >>> shape = Shape(ways=2, shots=1, queries=2)
        >>> [part.tolist() for part in shape.parted(torch.arange(6))]
        [[[0, 1]], [[2, 3, 4, 5]]]
        >>> [keys.tolist() for keys in shape.keys(1)]
        [[[0, 1]], [[0, 0, 1, 1]]]
    """

    ways: int
    shots: int
    queries: int
    tasks: int = 1

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1), ("tasks", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name)}", where="episode", mend=f"--{name} {least} or more")

    @property
    def images(self) -> int:
        """Images of one episode."""
        return self.ways * (self.shots + self.queries)

    def parted(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of whole episodes `[T * images, ...]` as supports `[T, N * K, ...]` and queries `[T, N * q, ...]`.

        Raises:
            UsageError: Not a whole number of episodes.
        """
        if len(rows) % self.images:
            mend = f"{self.images} rows for each episode"
            raise UsageError(f"{len(rows)} rows are no whole episodes", where="episode", mend=mend)
        episodes = rows.unflatten(0, (-1, self.images))
        return episodes[:, : self.ways * self.shots], episodes[:, self.ways * self.shots :]

    def keys(self, tasks: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Class within its episode, 0 to N - 1, of each support `[T, N * K]` and each query `[T, N * q]`."""
        ways = torch.arange(self.ways, device=device)
        each = ways.repeat_interleave(self.shots), ways.repeat_interleave(self.queries)
        return each[0].expand(tasks, -1), each[1].expand(tasks, -1)
