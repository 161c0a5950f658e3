"""What the loader hands over and every part of a method may look at."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What the loader hands over. Nothing random is in it: randomness is addressed by (seed, epoch, ids).

    Args:
        inputs: What is looked at, each sample at the beginning of its canvas: uint8 images `[B, C, H, W]`, sound int16
            `[B, 1, samples]`, tokens of sentences int `[B, S, L]`, sequences float32 `[B, T, ...]`.
        sizes: How much of each canvas is filled, int64: height and width `[B, 2]`, samples or steps `[B, 1]`, tokens
            of each sentence `[B, S]`.
        ids: Number of each sample in its data set, int64 `[B]`.
        labels: Class of each sample, int64 `[B]`, or None.
        seed: Seed of the run.
        epoch: Epoch, from 0; of an episodic run the step, since an image may be in many episodes of an epoch.
        columns: What else belongs to the samples: name -> (inputs, sizes).
    """

    inputs: Tensor
    sizes: Tensor
    ids: Tensor
    labels: Tensor | None = None
    seed: int = 0
    epoch: int = 0
    columns: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def of(self, column: str) -> Batch:
        """The same samples with another column as their inputs."""
        inputs, sizes = self.columns[column]
        return replace(self, inputs=inputs, sizes=sizes)

    def head(self, count: int) -> Batch:
        """Its first samples, without their labels."""
        columns = {name: (inputs[:count], sizes[:count]) for name, (inputs, sizes) in self.columns.items()}
        kept = {"inputs": self.inputs[:count], "sizes": self.sizes[:count], "ids": self.ids[:count]}
        return replace(self, **kept, labels=None, columns=columns)

    def to(self, device: torch.device) -> Batch:
        """Ids and labels on a device; inputs and sizes stay where views are drawn."""
        quickly = device.type == "cuda"  # to a GPU without waiting for what it does; back one has to wait
        labels = None if self.labels is None else self.labels.to(device, non_blocking=quickly)
        return replace(self, ids=self.ids.to(device, non_blocking=quickly), labels=labels)
