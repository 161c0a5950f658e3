"""New classes from a handful of examples: learn from the digits 0 to 4, then tell 7, 8 and 9 apart. About a minute.

The same on the command line:

    nearfar train digits --split examples/digits_split.json --method protonet --encoder conv4 --size 28 --ways 5 \
        --shots 5 --queries 5 --flip 0 --optimizer adamw --lr 0.001 --epochs 10 --out runs/few_shot
    nearfar few-shot runs/few_shot digits --split examples/digits_split.json --ways 3 --shots 1 5 --heads lr ncm
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import nearfar as nf

SPLIT = Path(__file__).with_name("digits_split.json")


def main() -> None:
    """Trains in episodes, measures on classes that training has not seen, and classifies with five examples of each."""
    run = nf.train(
        "digits", split=str(SPLIT), method="protonet", encoder="conv4", size=28, ways=5, shots=5, queries=5, flip=0.0,
        optimizer="adamw", lr=0.001, epochs=10, out="runs/few_shot",
    )  # fmt: skip
    nf.evaluate_few_shot(run, "digits", split=SPLIT, ways=3, heads=("lr", "ncm", "nn"))

    digits = nf.load("digits:test", size=28)
    images, labels = np.asarray(digits.images), np.asarray(digits.labels)
    examples = np.concatenate([np.flatnonzero(labels == digit)[:5] for digit in (7, 8, 9)])
    others = np.concatenate([np.flatnonzero(labels == digit)[5:] for digit in (7, 8, 9)])
    classifier = nf.FewShotClassifier(run).fit(images[examples], labels[examples])
    print(f"15 examples, {len(others)} other images: {classifier.score(images[others], labels[others]):.1%} right")


if __name__ == "__main__":
    main()
