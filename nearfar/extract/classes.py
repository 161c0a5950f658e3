"""Comparison with one learned vector a class: plain classification, told in pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..method import Batch, Memory, Pairs
from .prototypes import Prototypes


class KnownClasses(nn.Module):
    """Every view of an image against one prototype a class; and where these are told, against the four turns of the
    image, and the answers of a teacher.

    Args:
        width: Width of the embeddings.
        classes: Number of classes.
        turns: Views 0 to 3 are the image turned by 0, 90, 180, 270 degrees; which one is a second question.
        distil: Temperature of the answers of the teacher, whose scores are the slow embeddings; None: no teacher.
        own: Weight of the classes, in [0, 1]; the teacher has the rest, the turns 1. 0: labels are not looked at.
    """

    def __init__(self, width: int, classes: int, *, turns: bool, distil: float | None, own: float) -> None:
        super().__init__()
        self.classes = Prototypes(width, classes)
        self.turns = Prototypes(width, 4) if turns else None
        self.distil, self.own = distil, own

    def forward(self, online: list[Tensor], slow: list[Tensor], batch: Batch, memory: Memory | None) -> list[Pairs]:
        """One comparison for the classes, then one for the turns, then one with the teacher, of those there are.

        Raises:
            UsageError: The batch has no labels, or one beyond the number of classes.
        """
        anchors, views, pairs = torch.cat(online), len(online), []
        if self.own:
            key = known_labels(batch, len(self.classes.weight)).repeat(views)
            pairs.append(self.classes.against(anchors, key, weight=self.own))
        if self.turns is not None:
            turn = torch.arange(views, device=anchors.device).repeat_interleave(len(online[0]))
            pairs.append(self.turns.against(anchors, turn))
        if self.distil is not None:
            target = torch.softmax(torch.cat(slow) / self.distil, dim=1)
            pairs.append(self.classes.against(anchors, target=target, weight=1 - self.own))
        return pairs


def known_labels(batch: Batch, classes: int) -> Tensor:
    """The labels of a batch, int64 `[B]`, on its device.

    Raises:
        UsageError: There are none, or one is not below `classes`.
    """
    if batch.labels is None:
        raise UsageError("this method learns from labels and the data has none", where="labels")
    if len(batch.labels) and int(batch.labels.max()) >= classes:
        highest = int(batch.labels.max())
        raise UsageError(f"label {highest} with {classes} classes", where="classes", mend=f"classes={highest + 1}")
    return batch.labels
