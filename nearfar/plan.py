"""What is done at which step: a pure function of (settings, step), so that a run can go on from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import optim
from .distributed import rank, world
from .episodes import EpisodeSampler
from .randomness import permutation
from .schedules import Cosine


@dataclass(frozen=True)
class Plan:
    """What is done at which step: everything the loop needs to know of the settings.

    Args:
        samples: Number of each sample to train on, int64 `[N]`.
        batch: Global batch, over all processes.
        epochs: Passes over the samples; what does not fill a batch waits for the next shuffle. With episodes, as many
            images as in so many passes.
        peak: Learning rate after warm-up.
        warmup_epochs: Epochs of linear warm-up.
        milestones: Epochs after which the learning rate is a tenth of what it was; none: it falls as half a cosine.
        seed: Addresses all randomness.
        monitor_every: Steps between measurements.
        checkpoint_minutes: Minutes between checkpoints; one is written at the end and on request in any case.
        weight_decay: At the beginning and at the end, between which it goes as half a cosine (DINO); None: the
            optimiser's own.
        clip: Largest norm of a parameter's gradient, or None.
        episodes: Draws the episodes that batches are made of, as places among the samples; None: shuffled samples.
    """

    samples: np.ndarray
    batch: int
    epochs: int
    peak: float
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    seed: int = 0
    monitor_every: int = 50
    checkpoint_minutes: float = 5.0
    weight_decay: tuple[float, float] | None = None
    clip: float | None = None
    episodes: EpisodeSampler | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass."""
        return len(self.samples) // self.batch

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def address(self, step: int) -> int:
        """What the randomness of a step is addressed by beside the sample: its epoch; with episodes the step itself,
        since an image may be in several episodes of an epoch.
        """
        return step // self.steps_per_epoch if self.episodes is None else step

    def indices(self, step: int) -> np.ndarray:
        """Numbers of this process's samples at a step, `[batch / processes]`."""
        if self.episodes is not None:
            return self.samples[self._episodes(step, self.episodes)]
        epoch, number = divmod(step, self.steps_per_epoch)
        share = self.batch // world()
        start = number * self.batch + rank() * share
        return self.samples[_order(self.seed, epoch, len(self.samples))[start : start + share]]

    def _episodes(self, step: int, sampler: EpisodeSampler) -> np.ndarray:
        """Places of the images of this process's episodes, each with its supports first."""
        share = self.batch // (sampler.ways * (sampler.shots + sampler.queries)) // world()
        drawn = sampler.draw(step * share * world() + rank() * share, share)
        return np.concatenate([drawn.support, drawn.query], axis=1).ravel()

    def lr(self, step: int) -> float:
        """Learning rate of a step."""
        warmup = round(self.warmup_epochs * self.steps_per_epoch)
        if self.milestones:
            drops = [round(epoch * self.steps_per_epoch) for epoch in self.milestones]
            return optim.staircase(step, drops=drops, warmup=warmup, peak=self.peak)
        return optim.schedule(step, total=self.total, warmup=warmup, peak=self.peak)

    def decay(self, step: int) -> float | None:
        """Weight decay of a step; None: the optimiser's own."""
        return None if self.weight_decay is None else Cosine(*self.weight_decay)(step / self.total)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return permutation(seed, epoch, count)
