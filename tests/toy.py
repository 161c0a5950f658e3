"""The toy set and net of `nearfar.contract`, and a slow twin of its neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nearfar.contract import SIDE as SIDE
from nearfar.contract import Tiny as Tiny
from nearfar.contract import stripes as stripes
from nearfar.data import Dataset


def plain_stripes(count: int = 192, *, seed: int = 0) -> Dataset:
    """White on black under noise, for methods to which colours would be enough."""
    return stripes(count, seed=seed, coloured=False)


def knn_accuracy(features: Tensor, labels: np.ndarray, *, k: int = 5) -> float:
    """Leave-one-out nearest neighbours by cosine, majority of k: slow and obvious."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    scores = unit @ unit.T
    scores.fill_diagonal_(-2)
    right = 0
    for row, label in zip(scores, labels, strict=True):
        votes = np.bincount(labels[row.topk(k).indices.numpy()], minlength=labels.max() + 1)
        right += int(votes.argmax() == label)
    return right / len(labels)
