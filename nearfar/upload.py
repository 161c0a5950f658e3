"""Images on an accelerator that makes their views: sent once a batch as they are stored, or all kept there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .batch import Batch
from .data import Dataset
from .views import Captioned, CentreCrop, ColumnViews, LightAndColour, MixedViews, SupportViews, Turns, Views
from .views.render import views_on

FOLLOW = (Captioned, CentreCrop, ColumnViews, LightAndColour, MixedViews, SupportViews, Turns, Views)
"""Views that are made where the pixels are: all that others do to them is done where a CPU can reach them."""
SHARE = 1 / 4
"""Of the accelerator's free memory that a data set may take."""
BLOCK = 2**26
"""Bytes that are sent at once when a data set moves."""


def made_on(views: object, device: torch.device) -> bool:
    """Whether the views of a batch are made on this device, which is no CPU."""
    return device.type != "cpu" and isinstance(views, FOLLOW) and views_on(device) == device


def sent(batch: Batch, device: torch.device) -> Batch:
    """The batch with its pixels on the device; sizes, ids and tokens stay where views are drawn."""
    columns = {name: (_sent(inputs, device), sizes) for name, (inputs, sizes) in batch.columns.items()}
    return replace(batch, inputs=_sent(batch.inputs, device), columns=columns)


def _sent(inputs: Tensor, device: torch.device) -> Tensor:
    """Pixels on the device. The copy is queued there, ahead of whatever reads it, and nothing waits for it here."""
    if inputs.dtype != torch.uint8 or inputs.device.type != "cpu":
        return inputs
    return inputs.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Resident:
    """A data set with its images on a device: `batch` takes them there.

    Args:
        dataset: All but the images, its inputs `[N, 0]`.
        images: uint8 `[N, C, S, S]`.
    """

    dataset: Dataset
    images: Tensor

    def batch(self, indices: ArrayLike, *, seed: int = 0, epoch: int = 0) -> Batch:
        """As of `Dataset`."""
        places = torch.from_numpy(np.asarray(indices, np.int64)).to(self.images.device)
        return replace(self.dataset.batch(indices, seed=seed, epoch=epoch), inputs=self.images[places])


def resident(dataset: Dataset, device: torch.device, *, free: int) -> Dataset | Resident:
    """The data set with its images on the device, where they take a quarter of `free` bytes at most; else itself."""
    shape = dataset.inputs.shape
    if dataset.inputs.dtype != np.uint8 or math.prod(shape) > SHARE * free:
        return dataset
    images = torch.empty(shape, dtype=torch.uint8, device=device)
    rows = max(BLOCK // math.prod(shape[1:]), 1)
    for start in range(0, len(dataset), rows):
        part = dataset.inputs[np.arange(start, min(start + rows, len(dataset)))]
        images[start : start + rows] = torch.from_numpy(part).to(device)
    return Resident(replace(dataset, inputs=np.empty((len(dataset), 0), np.uint8)), images)
