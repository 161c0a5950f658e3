"""A toy set of text: documents keep to their subject, most of whose words are no one's. A letter is a word."""

from __future__ import annotations

import numpy as np

from nearfar.data import Dataset
from nearfar.data.survey import digest
from nearfar.data.tokens import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SUBJECTS, OWN, SENTENCES, LENGTH = 4, 8, 5, 12  # 8 letters of each subject, 30 of none


def toy_text(count: int = 192, seed: int = 0) -> Dataset:
    """Classes 0-3: the subject, told by 1 or 2 of the 4 to 12 letters of a sentence. Documents of 2 to 5 sentences."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % SUBJECTS
    texts = [[_sentence(rng, label) for _ in range(rng.integers(2, SENTENCES + 1))] for label in labels]
    tokens, sizes = np.zeros((count, SENTENCES, LENGTH), np.int16), np.zeros((count, SENTENCES), np.int64)
    for row, found in enumerate(texts):
        tokens[row, : len(found)], sizes[row, : len(found)] = Tokenizer()(found, length=LENGTH)
    return Dataset(
        inputs=tokens,
        sizes=sizes,
        ids=np.arange(count),
        names=[f"toy.txt:{number}" for number in range(count)],
        hashes=np.stack([np.frombuffer(digest("\0".join(found).encode()), np.uint8) for found in texts]),
        labels=labels.astype(np.int64),
        classes=["one", "two", "three", "four"],
        kind="text",
        tokenizer=Tokenizer(),
    )


def _sentence(rng: np.random.Generator, label: int) -> str:
    """Letters in any order."""
    own, others = list(LETTERS[OWN * label : OWN * (label + 1)]), list(LETTERS[OWN * SUBJECTS :])
    words = [*rng.choice(own, rng.integers(1, 3)), *rng.choice(others, rng.integers(3, LENGTH - 1))]
    return "".join(rng.permutation(words))
