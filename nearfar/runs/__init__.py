"""Run folders: what made a result, checkpoints that survive a kill, weights that never unpickle."""

from __future__ import annotations

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .folder import Run
from .record import MARKER
from .weights import match_tensors, read_tensors, refuse_pickles, write_tensors

__all__ = [
    "MARKER",
    "Checkpoint",
    "Run",
    "load_checkpoint",
    "match_tensors",
    "read_tensors",
    "refuse_pickles",
    "save_checkpoint",
    "write_tensors",
]
