"""Few-shot classification: heads that are fitted to the supports of an episode, and their evaluation."""

from __future__ import annotations

from .blocks import predict
from .classifier import FewShotClassifier
from .evaluate import evaluate_episodes
from .heads import HEADS

__all__ = ["HEADS", "FewShotClassifier", "evaluate_episodes", "predict"]
