"""Does a picture find its caption among all, and a caption its picture? `evaluate` asks it of runs that know text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..data import Dataset
from ..data.pairs import TEXT, has_captions, load_pairs
from ..data.tokens import Tokenizer
from ..errors import DataError, NearfarError, UsageError
from ..evaluation.pair_retrieval import PairRetrieval, pair_retrieval
from ..runs import Run
from ..views.text import Sentences
from .opening import store_size
from .two_towers import TwoTowers, has_text, load_towers


def caption_recall(
    run: str | Path, data: str | Path, *, device: str = "auto", say: Callable[[str], None] = print
) -> PairRetrieval | None:
    """Recall@1, 5 and 10 of images and captions, both ways; None where the run knows no text, or the data have none.

    Equal captions are one answer. Where an image is there several times, each with a caption of its own, any of them
    is right: those that the data list with it, and no others that these are listed with. Where it can't be measured,
    `say` is told why: labels are measured all the same.
    """
    if not has_text(run) or not has_captions(data):
        return None
    try:
        towers = load_towers(run, device=device)
        pairs = _pairs(towers, data)
    except (DataError, UsageError) as fault:
        say(f"recall of captions is not measured: {fault.what}")
        return None
    known = _trained_on(towers, Run.open(Path(run)).info["data"], pairs)
    if known:
        say(f"warning: the run's data hold {known:,} of these {len(pairs):,} images; give others")
    image, text = answers(pairs)
    both = np.stack([image, text], axis=1)
    found = pair_retrieval(towers.images(pairs), towers.captions(pairs), image_keys=image, text_keys=text, pairs=both)
    say(f"{len(pairs):,} images and their captions\n{found.as_text()}")
    return found


def _pairs(towers: TwoTowers, data: str | Path) -> Dataset:
    """The data as both networks want it."""
    known = towers.text.transform
    assert isinstance(known, Sentences)
    return load_pairs(
        data,
        size=store_size(towers.image.crop.size),
        channels=towers.image.channels,
        length=known.length,
        tokenizer=Tokenizer.from_dict(known.tokenizer),
        labels=False,
    )


def _trained_on(towers: TwoTowers, place: str, pairs: Dataset) -> int:
    """How many images are among the run's data, byte for byte; 0 where those are gone."""
    try:
        old = _pairs(towers, place)
    except NearfarError:
        return 0
    hashes = {value.tobytes() for value in np.asarray(old.groups)}
    return sum(value.tobytes() in hashes for value in np.asarray(pairs.groups))


def answers(pairs: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Number of the image and of the caption of each pair, int64 `[N]`: equal ones have the same."""
    assert pairs.groups is not None
    tokens = np.asarray(pairs.columns[TEXT].inputs).reshape(len(pairs), -1)
    image, text = (np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1) for rows in (pairs.groups, tokens))
    return image, text
