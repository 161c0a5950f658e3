"""The online measure: how well the encoder does on images that are kept out of training, with labels or without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset
from ..encoders import Towers
from ..episodes import EpisodeSampler
from ..evaluation import knn
from ..evaluation.features import evaluation_mode
from ..few_shot.blocks import predict
from ..few_shot.heads import HEADS
from ..method import Batch, Contrast
from ..randomness import address
from ..similarity import unit
from .encoder import Encoder

MOST = 2000
"""Held-out images looked at, and images of the training part that they are compared with."""


WAYS, SHOTS, QUERIES, EPISODES = 5, 1, 15, 200
"""Of the episodes that the validation classes of a split are watched by."""


class EpisodeProbe:
    """Called at the end of an epoch: accuracy of nearest class means in fixed episodes of classes kept out of training.

    Says nothing where these are fewer than two, or one of them has a single image.

    Args:
        encoder: The encoder in training.
        watched: Images of the validation classes.
        seed: Of the run.
    """

    def __init__(self, encoder: Encoder, watched: Dataset, *, seed: int) -> None:
        assert watched.labels is not None
        counts = np.bincount(watched.labels)
        ways, queries = min(WAYS, len(counts)), min(QUERIES, int(counts.min()) - SHOTS)
        self.encoder, self.chance, self.episodes = encoder, 1 / ways, None
        if ways < 2 or queries < 1:
            return
        sampler = EpisodeSampler(watched.labels, ways=ways, shots=SHOTS, queries=queries, seed=address(seed, 0x9B0BE))
        drawn = sampler.draw(0, EPISODES)
        used, places = np.unique(np.concatenate([drawn.support, drawn.query], axis=1), return_inverse=True)
        places = places.reshape(len(drawn), -1)
        self.watched = watched.subset(used)
        self.episodes = replace(drawn, support=places[:, : ways * SHOTS], query=places[:, ways * SHOTS :])

    def __call__(self) -> dict[str, float]:
        """`one_shot`: mean accuracy, and its chance value."""
        if self.episodes is None:
            return {}
        training = self.encoder.net.training
        self.encoder.net.eval()
        try:
            answers = predict(self.encoder(self.watched), self.episodes, HEADS["ncm"])
        finally:
            self.encoder.net.train(training)
        right = answers == torch.from_numpy(self.episodes.query_label)
        return {"one_shot": float(right.double().mean()), "one_shot_chance": self.chance}


class Probe:
    """Called at the end of an epoch. With labels: weighted kNN of held-out images among images of the training part.
    Without: share of held-out images whose second view is nearest to the first, among all of them.

    Args:
        encoder: The encoder in training.
        model: The method in training.
        dataset: All data.
        samples: Numbers of the training part.
        held: Numbers of the held-out part.
        seed: Of the run.
    """

    def __init__(
        self,
        encoder: Encoder,
        model: Contrast,
        dataset: Dataset,
        samples: np.ndarray,
        held: np.ndarray,
        *,
        seed: int,
    ) -> None:
        self.encoder, self.model, self.dataset, self.seed = encoder, model, dataset, seed
        self.bank, self.held = samples[:: -(-len(samples) // MOST)], held[:: max(-(-len(held) // MOST), 1)]

    def __call__(self) -> dict[str, float]:
        """`knn` or `match`, each with its chance value; nothing where too few images are held out."""
        if len(self.held) < 2:
            return {}
        training = self.encoder.net.training
        self.encoder.net.eval()
        try:
            return self._knn() if self.dataset.labels is not None else self._match()
        finally:
            self.encoder.net.train(training)

    def _knn(self) -> dict[str, float]:
        labels, classes = self.dataset.labels, self.dataset.classes
        assert labels is not None and classes is not None
        result = knn(
            self.encoder(self.dataset.subset(self.bank)),
            labels[self.bank],
            self.encoder(self.dataset.subset(self.held)),
            labels[self.held],
        )
        return {"knn": result.value, "knn_chance": 1 / len(classes)}

    @torch.no_grad()
    def _match(self) -> dict[str, float]:
        first, second = [], []
        for part in np.array_split(self.held, -(-len(self.held) // 256)):
            both = self._two(self.dataset.batch(part, seed=self.seed, epoch=2**31))
            if both is None:
                return {}
            first.append(unit(both[0]))
            second.append(unit(both[1]))
        a, b = torch.cat(first), torch.cat(second)
        nearest = torch.cat([(part @ b.T).argmax(dim=1) for part in a.split(512)])
        right = nearest == torch.arange(len(a), device=a.device)
        return {"match": float(right.float().mean()), "match_chance": 1 / len(a)}

    def _two(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Features of two views of one kind, or embeddings of two kinds; None where the method has a single view."""
        if isinstance(self.model.encoder, Towers):
            with self.encoder.device.autocast(), evaluation_mode():
                embeddings, _ = self.model.embed(batch)
            return embeddings[0].flatten(1), embeddings[-1].flatten(1)
        views = self.model.views(batch)
        if len(views) < 2:
            return None
        device = self.encoder.device.device
        return self.encoder.vectors(views[0].to(device)), self.encoder.vectors(views[-1].to(device))
