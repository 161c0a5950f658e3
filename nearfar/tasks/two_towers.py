"""A trained pair of encoders, of images and of text, with the heads that bring both into one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Dataset
from ..data.tokens import Tokenizer
from ..encoders import Towers
from ..errors import UsageError
from ..evaluation import features
from ..evaluation.features import evaluation_mode
from ..runs import Run, match_tensors
from ..similarity import unit
from ..views.text import Sentences
from .encoder import Encoder, Pictures, load_encoder, stored_method

BLOCK = 256  # texts in the encoder at once


@dataclass(frozen=True)
class TwoTowers:
    """Images and texts as unit vectors of one space, whose dot product is their cosine.

    Args:
        image: Encoder of images.
        text: Encoder of text, whose transform holds the tokenizer.
        heads: Of both, "image" and "text".
    """

    image: Encoder
    text: Encoder
    heads: Towers

    def images(self, dataset: Dataset) -> Tensor:
        """Embeddings of all images, fp32 `[N, D]` on the CPU."""
        head = self.heads["image"]
        device = self.image.device.device
        return unit(features(lambda v: head([self.image.vectors(v)]), dataset, self.image.transform, device=device))

    def captions(self, dataset: Dataset) -> Tensor:
        """Embeddings of the captions of a data set, tokens by this tokenizer, fp32 `[N, D]` on the CPU."""
        head, part = self.heads["text"], Pictures(dataset, "text")
        device = self.text.device.device
        return unit(features(lambda v: head([self.text.vectors(v)]), part, self.text.transform, device=device))

    def pictures(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Embeddings of images uint8 `[B, C, H, W]` of these sizes `[B, 2]`, fp32 `[B, D]` on the CPU."""
        return self._embedded(self.image, self.heads["image"], self.image.transform(images, sizes))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, fp32 `[N, D]` on the CPU."""
        transform = self.text.transform
        assert isinstance(transform, Sentences), "load_towers has looked"
        tokenizer = Tokenizer.from_dict(transform.tokenizer)
        parts = []
        for start in range(0, len(texts), BLOCK):
            tokens, lengths = tokenizer(texts[start : start + BLOCK], length=transform.length)
            view = transform(tokens[:, None], lengths[:, None])
            parts.append(self._embedded(self.text, self.heads["text"], view))
        return torch.cat(parts)

    @torch.no_grad()
    def _embedded(self, encoder: Encoder, head: nn.Module, view: Tensor) -> Tensor:
        with evaluation_mode():
            return unit(head([encoder.vectors(view.to(encoder.device.device))]).float()).cpu()


def has_text(run: str | Path) -> bool:
    """Whether a run has learned from images and text."""
    return "text" in Run.open(Path(run)).info.get("transforms", {})


def load_towers(run: str | Path, *, device: str = "auto") -> TwoTowers:
    """Both encoders of a finished run of images and text (`clip`, `siglip`), with their heads.

    Args:
        run: Run folder.
        device: As in `train`.

    Raises:
        UsageError: No finished run there, one without text, or one whose checkpoints, which hold the heads, are gone.
        IntegrityError: The weights don't fit the nets.
    """
    encoder = load_encoder(run, device=device)
    if not has_text(run):
        raise UsageError(
            f"a run of {Run.open(Path(run)).settings['method']} knows no text",
            where=f"run {run}",
            mend="one of --method clip or siglip, trained on images with captions",
        )
    return TwoTowers(encoder.of("image"), encoder.of("text"), stored_heads(encoder))


def stored_heads(encoder: Encoder) -> Towers:
    """The heads of a finished run that has one for each column, as training left them, on the encoder's device.

    Raises:
        UsageError: It has none, or its checkpoints, which hold the heads, are gone.
        IntegrityError: The weights don't fit.
    """
    folder = Run.open(encoder.run)
    heads = stored_method(folder).extract.head
    if not isinstance(heads, Towers):
        raise UsageError(f"a run of {folder.settings['method']} has one head for all", where=f"run {encoder.run}")
    checkpoint = folder.load()
    if checkpoint is None:
        gone = "its checkpoints are gone, and its heads with them"
        raise UsageError(gone, where=f"run {encoder.run}", mend="train it again")
    stored = checkpoint.tensors["model"].items()
    weights = {name.removeprefix("head."): one for name, one in stored if name.startswith("head.")}
    match_tensors(heads.state_dict(), weights, where=checkpoint.path)
    heads.load_state_dict(weights)
    return heads.eval().to(encoder.device.device)


def best(scores: Tensor, top: int) -> list[int]:
    """Places of the largest scores, best first; of equal ones the first."""
    return np.argsort(-scores.numpy(), kind="stable")[:top].tolist()
