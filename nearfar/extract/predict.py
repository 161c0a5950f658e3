"""What lies ahead, told from what came before: rows of a grid from the rows above, steps of time from earlier ones.

Shapes: B samples, L cells (a grid row by row, or steps of time), D width of a cell's z, H width of its context c.

van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, https://arxiv.org/abs/1807.03748;
more directions and narrow targets: Henaff et al., Data-Efficient Image Recognition with Contrastive Predictive Coding,
ICML 2020, https://arxiv.org/abs/1905.09272.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import DataError, UsageError
from ..method import Batch, Memory, Pairs

CELLS = 1 << 20  # more cells than a sample has: id * CELLS + cell is a key of its own in all of the data
PADDED = 4  # times the comparisons of the whole batch, at most, when samples of one label are put beside each other

LONGER = {
    "sound": ("frames", "longer sounds, with several frames each"),
    "text": ("sentences", "whole documents: rows of several sentences, or .txt with empty lines between documents"),
    "sequences": ("steps", "longer sequences, or a smaller --first"),
}
"""What a cell is, by kind of data, and what to do where cells are too few."""


class ZAndContext(nn.Module):
    """z and context of every step side by side, `[z [B, L, D], c [B, L, H], ...] -> [B, L, D + H]`; without weights."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        """What an encoder with time returns -> what `Predict` takes."""
        return torch.cat(maps[:2], dim=-1)


class GridContexts(nn.Module):
    """z and the contexts of every cell of a grid side by side: last map `[B, D, h, w]` -> `[B, h * w, D + n * H]`.

    Args:
        contexts: One causal network `[B, D, h, w] -> [B, H, h, w]` for each of n directions. The cell of row i may see
            rows 0 to i. Network d sees the grid after d quarter turns, so that its "down" is another direction.
    """

    def __init__(self, contexts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.contexts = nn.ModuleList(contexts)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of one view -> what `Predict` takes."""
        z = maps[-1]
        if z.ndim != 4:
            raise UsageError(
                f"rows can't be predicted without a grid, the encoder ends in {list(z.shape)}",
                where="encoder",
                mend="wrap it: encoders.PatchGrid(...)",
            )
        turned = [context(torch.rot90(z, turns, (2, 3))) for turns, context in enumerate(self.contexts)]
        upright = [torch.rot90(c, -turns, (2, 3)) for turns, c in enumerate(turned)]
        return torch.cat([z, *upright], dim=1).flatten(2).mT


class Predict(nn.Module):
    """Pairs of CPC: the prediction that the context of a cell makes of the cell k steps ahead must find it among all.

        score_k(j | i) = (A z_j) . (W_k c_i),    positive j = i + k,    others: every cell of every sample of the batch

    One comparison for each step and direction, each a mean over its anchors. With `similarity.dot` and
    `partial(infonce, temperature=1.0)` the loss is the mean over steps and directions, `log N` of N cells at chance.

    Args:
        width: Width D of z.
        context: Width H of one context.
        steps: Farthest step that is predicted, >= `first`.
        first: Nearest step that is predicted, >= 1. Patches that overlap give themselves away at steps below
            `ceil(patch / stride)`.
        grid: Rows and columns of the cells; a step is a row. None: the cells are steps of time, of any number.
        directions: Directions of the grid, 1 to 4: down, then after each quarter turn; contexts and W are their own.
        target: Width of targets and predictions. None: z itself is the target, A the identity.
        valid: `sizes of the batch -> [B]`, how many cells of each sample are not padding; the others are neither
            anchors nor compared. None: all are valid. For time only.
        within: Whose cells are compared: those of the whole batch (None), of the same sample ("sample"), or of samples
            with the same label ("label": the same speaker). Of several processes each compares its own samples then.
            Labels are padded to the most frequent one of the batch, so each should be there about as often.

    Raises:
        UsageError: Settings out of their range.

    Differs from the papers: the mean over steps and directions, not the sum; every cell of the batch is compared,
    without drawing some; A and W have no bias (A's would change no loss).

    Example:
        >>> import torch
        >>> from nearfar.method import Batch
        >>> predict = Predict(width=4, context=3, steps=2)
        >>> batch = Batch(inputs=torch.zeros(5, 1), sizes=torch.zeros(5, 1), ids=torch.arange(5))
        >>> one, two = predict([torch.zeros(5, 6, 7)], [], batch, None)
        >>> one.anchor.shape, two.anchor.shape, two.other.shape
        (torch.Size([25, 4]), torch.Size([20, 4]), torch.Size([30, 4]))
    """

    def __init__(
        self,
        *,
        width: int,
        context: int,
        steps: int,
        first: int = 1,
        grid: tuple[int, int] | None = None,
        directions: int = 1,
        target: int | None = None,
        valid: Callable[[Tensor], Tensor] | None = None,
        within: Literal["sample", "label"] | None = None,
    ) -> None:
        super().__init__()
        faults = _faults(steps, first, grid, directions, valid, within)
        if faults:
            raise UsageError("; ".join(faults), where="Predict", mend="change these arguments")
        self.width, self.context, self.steps, self.first = width, context, steps, first
        self.grid, self.directions, self.valid, self.within = grid, directions, valid, within
        ahead = directions * (steps - first + 1)
        self.predictions = nn.ModuleList(nn.Linear(context, target or width, bias=False) for _ in range(ahead))
        self.targets = nn.ModuleList(
            nn.Linear(width, target, bias=False) if target else nn.Identity() for _ in range(directions)
        )

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """Of the one view, `[B, L, D + directions * H]`: a comparison for each direction, and in it for each step.

        Raises:
            UsageError: Too few cells for the steps, or `within="label"` without labels or with very uneven ones.
        """
        cells, key = self._grouped(online[0], batch)
        index = self._index(online[0].shape[1], cells.device)
        z, *contexts = cells.split([self.width, *[self.context] * self.directions], dim=-1)
        pairs, predictions = [], iter(self.predictions)
        for turns, (context, target) in enumerate(zip(contexts, self.targets, strict=True)):
            turned, other = torch.rot90(index, turns), target(z)
            for step in range(self.first, self.steps + 1):
                here, ahead = turned[:-step].flatten(), turned[step:].flatten()
                anchor = next(predictions)(context[:, :, here])
                pairs.append(self._pairs(anchor, other, key[:, :, ahead], key))
        return pairs

    def enough(self, sizes: Tensor) -> int:
        """How many samples have a cell that can be predicted, by their `sizes`; the others add nothing to the loss.

        Args:
            sizes: As in a batch, int64 `[N, ...]`.

        Example:
            >>> predict = Predict(width=4, context=3, steps=2, valid=lambda sizes: sizes[:, 0])
            >>> predict.enough(torch.tensor([[1], [2], [9]]))
            2
        """
        return len(sizes) if self.valid is None else int((self.valid(sizes) > self.first).sum())

    def _index(self, cells: int, device: torch.device) -> Tensor:
        """Numbers of the cells as a grid; time is a grid of one column."""
        rows, columns = self.grid or (cells, 1)
        fewest = self.first if self.valid is not None else self.steps
        if rows * columns != cells or cells <= fewest:
            wanted = f"{rows} x {columns}" if self.grid else f"more than {fewest}"
            raise UsageError(
                f"each sample has {cells} cells, {wanted} are needed",
                where="Predict",
                mend="longer windows, or fewer steps" if self.grid is None else "the grid of the encoder",
            )
        return torch.arange(cells, device=device).view(rows, columns)

    def _grouped(self, cells: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cells and their keys as groups that are compared, `[G, S, L, ...]`. Key -1: padding, or no sample."""
        positions = torch.arange(cells.shape[1], device=cells.device)
        key = batch.ids.to(cells.device)[:, None] * CELLS + positions
        if self.valid is not None:
            key = key.where(positions < self.valid(batch.sizes).to(cells.device)[:, None], -1)
        if self.within is None:
            return cells[None], key[None]
        if self.within == "sample":
            return cells[:, None], key[:, None]
        if batch.labels is None:
            raise UsageError(
                "cells are to be compared within a label and the data has none",
                where="labels",
                mend="data with labels, or within=None",
            )
        members = _members(batch.labels.to(cells.device))
        there = members.clamp(min=0)
        return cells[there], key[there].where((members >= 0)[..., None], -1)

    def _pairs(self, anchor: Tensor, other: Tensor, anchor_key: Tensor, other_key: Tensor) -> Pairs:
        """One comparison. Others that are padding have the slot of every anchor, so they take no part."""
        first = 0 if self.within is None else 1
        padded = self.valid is not None or self.within == "label"
        anchor_key, other_key = anchor_key.flatten(first), other_key.flatten(first)
        return Pairs(
            anchor=anchor.flatten(first, 2),
            other=other.flatten(first, 2),
            anchor_key=anchor_key,
            other_key=other_key,
            anchor_slot=torch.zeros_like(anchor_key) if padded else None,
            other_slot=(other_key >= 0).long() if padded else None,
            weight=1 / len(self.predictions),
            gather=self.within is None,
        )


def check_enough(pair: object, sizes: Tensor, kind: str, say: Callable[[str], None]) -> None:
    """Says before the training where little or nothing can be predicted, for the loss wouldn't: it is 0 there.

    Args:
        pair: Pairs of a method; where they are no `Predict` nothing is checked.
        sizes: Of all samples to train on, int64 `[N, ...]`.
        kind: Kind of the data: "sound", "text" or "sequences"; images always have enough.
        say: Is told where less than half of the samples have a cell to predict.

    Raises:
        DataError: None has.
    """
    if not isinstance(pair, Predict):
        return
    enough, (cells, mend) = pair.enough(sizes), LONGER.get(kind, ("cells", "longer samples"))
    told = f"{pair.first + 1} {cells} or more"
    if enough == 0:
        raise DataError(f"none of {len(sizes):,} samples has {told}: nothing can be predicted", where="data", mend=mend)
    if 2 * enough < len(sizes):
        say(f"only {enough:,} of {len(sizes):,} samples have {told}, the rest teach nothing: {mend}")


def _members(labels: Tensor) -> Tensor:
    """Numbers of the samples of each label, `[G, S]`; -1 where a label has fewer than the most frequent."""
    _, group, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    most, samples = int(counts.max()), len(labels)
    if len(counts) * most**2 > PADDED * samples**2:
        raise UsageError(
            f"a batch of {samples} has {len(counts)} labels, one of them {most} times: to compare within labels all"
            f" would be padded to that, {len(counts) * most:,} rows",
            where="labels",
            mend="batches of few labels, each about as often: leave out rare ones (speakers with little), or a smaller"
            " --batch; else compare with the whole batch (within=None, --negatives batch)",
        )
    order = group.argsort(stable=True)
    place = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[group[order]]
    members = labels.new_full((len(counts), most), -1)
    members[group[order], place] = order
    return members


def _faults(
    steps: int, first: int, grid: tuple[int, int] | None, directions: int, valid: object, within: object
) -> list[str]:
    """What is wrong with the settings."""
    faults = []
    if grid is not None and first >= grid[0]:
        told = f"a grid of {grid[0]} x {grid[1]} cells, and the first prediction is {first} rows away"
        return [f"{told}: a larger image (--size), smaller patches or a smaller stride"]
    if not 1 <= first <= steps:
        faults.append(f"steps {first} to {steps}: first 1 or more, and no more than steps")
    if grid is not None and steps >= (grid[0] if directions == 1 else min(grid)):
        faults.append(f"{steps} steps in a grid of {grid[0]} x {grid[1]} cells: fewer steps than rows")
    if not 1 <= directions <= (4 if grid else 1):
        faults.append(f"{directions} directions: 1 to 4 in a grid, 1 in time")
    if valid is not None and grid is not None:
        faults.append("valid: for cells in time, a grid has no padding")
    if within not in (None, "sample", "label"):
        faults.append(f"within={within!r}: None, 'sample' or 'label'")
    return faults
