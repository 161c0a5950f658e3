"""Training on few labels: which images of a labelled data set are taken to have one."""

from __future__ import annotations

import hashlib

import numpy as np

from ..data import Dataset
from ..errors import UsageError
from ..method import Method
from ..settings import TrainSettings


def check_share(settings: TrainSettings, method: Method) -> None:
    """Raises UsageError where a share of the labels is asked for and the method needs none."""
    if not method.extract.labels:
        raise UsageError(
            f"{settings.method} learns from all images, without labels",
            where="label_share",
            mend="leave --label-share out, or --method finetune",
        )


def labelled_part(dataset: Dataset, samples: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """Places of the labelled images to train on, in order: `share` of each class, rounded, at least one of each.

    Who is drawn depends on the content of an image and the seed alone, not on order, names or other images, but at the
    edge. A larger share contains a smaller one. The draw has nothing to do with who is held out.

    Args:
        dataset: With labels.
        samples: Places of the images to draw from, int64 `[N]`.
        share: In (0, 1].
        seed: Another seed draws others.
    """
    assert dataset.labels is not None and 0 < share <= 1
    salt, labels = str(seed).encode()[:16], dataset.labels[samples]
    words = [
        hashlib.blake2b(dataset.hashes[place].tobytes(), digest_size=8, salt=salt, person=b"labels").digest()
        for place in samples
    ]
    order = np.lexsort((np.frombuffer(b"".join(words), ">u8"), labels))
    ordered = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)  # of each image within its class
    counts = np.bincount(ordered)
    kept = np.maximum(np.round(share * counts), 1)[ordered]
    return np.sort(samples[order[rank < kept]])
