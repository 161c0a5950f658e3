"""Does a picture find its caption among all, and a caption its picture? `evaluate` asks it of runs that know text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..data import Dataset
from ..data.pairs import TEXT, load_pairs
from ..data.tokens import Tokenizer
from ..errors import MissingColumn
from ..evaluation.pair_retrieval import PairRetrieval, pair_retrieval
from ..runs import Run
from ..views.text import Sentences
from .opening import store_size
from .two_towers import has_text, load_towers


def caption_recall(
    run: str | Path, data: str | Path, *, device: str = "auto", say: Callable[[str], None] = print
) -> PairRetrieval | None:
    """Recall@1, 5 and 10 of images and captions, both ways; None where the run knows no text, or the data have none.

    Equal captions are one answer. Where an image is there several times, each with a caption of its own, any of them
    is right.
    """
    if not has_text(run):
        return None
    towers = load_towers(run, device=device)
    known = towers.text.transform
    assert isinstance(known, Sentences)
    try:
        pairs = load_pairs(
            data,
            size=store_size(towers.image.crop.size),
            channels=towers.image.channels,
            length=known.length,
            tokenizer=Tokenizer.from_dict(known.tokenizer),
            labels=False,
        )
    except MissingColumn:
        return None
    if pairs.fingerprint == Run.open(Path(run)).info["fingerprint"]:
        say("warning: the run was trained on these images and captions; give others")
    keys = answers(pairs)
    found = pair_retrieval(towers.images(pairs), towers.captions(pairs), image_keys=keys, text_keys=keys)
    say(f"{len(pairs):,} images and their captions\n{found.as_text()}")
    return found


def answers(pairs: Dataset) -> np.ndarray:
    """Number of the right answer of each pair, int64 `[N]`: of its image if some are there twice, else its caption."""
    assert pairs.groups is not None
    images, of_image = np.unique(np.asarray(pairs.groups), axis=0, return_inverse=True)
    if len(images) < len(pairs):
        return of_image.reshape(-1)
    tokens = np.asarray(pairs.columns[TEXT].inputs).reshape(len(pairs), -1)
    return np.unique(tokens, axis=0, return_inverse=True)[1].reshape(-1)
