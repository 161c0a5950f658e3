"""No labels in training, five a class in use: the encoder of `make demo` names digits from a handful of examples.

The same on the command line, with a folder of examples sorted by class and a folder of photos:

    nearfar few-shot runs/demo digits:test --shots 1 5 --heads lr ncm nn
    nearfar classify runs/demo examples/ photos/ --out labels.csv --unknown auto
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import nearfar as nf

SETTINGS = Path(__file__).with_name("demo.yaml")


def main() -> None:
    """Trains without labels, measures on 10,000 episodes, and classifies with five examples of each digit."""
    run = nf.train("digits:train", config=SETTINGS, out="runs/demo")  # finished at once where `make demo` has run
    nf.evaluate_few_shot(run, "digits:test", heads=("lr", "ncm", "nn"))

    digits = nf.load("digits:test", size=28)
    images, labels = np.asarray(digits.inputs), np.asarray(digits.labels)
    places = [np.flatnonzero(labels == digit) for digit in range(10)]
    examples, others = (np.concatenate([place[part] for place in places]) for part in (slice(5), slice(5, None)))
    classifier = nf.FewShotClassifier(run, unknown="auto").fit(images[examples], labels[examples])
    answer = classifier.answer(images[others])
    right = classifier.classes_[answer.probability.argmax(axis=1)] == labels[others]
    print(
        f"50 examples, {len(others)} other images: {right.mean():.1%} right, {answer.unknown.mean():.1%} called unknown"
    )


if __name__ == "__main__":
    main()
