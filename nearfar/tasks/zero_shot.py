"""`nearfar zero-shot`: classes by their names alone, with a run that knows images and text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import safe_name
from ..errors import UsageError
from ..evaluation import Score
from ..evaluation.protocol import accuracy
from ..similarity import unit
from .two_towers import TwoTowers, load_towers

PROMPTS = ("a picture of {}",)


@dataclass(frozen=True)
class ZeroShot:
    """Accuracy without a labelled image.

    Args:
        score: Share of images whose class's name is the nearest.
        classes: The same for each class, and how many images it has.
        largest: Share of the largest class: what always answering it would give.
    """

    score: Score
    classes: dict[str, tuple[float, int]]
    largest: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        classes = {name: {"accuracy": value, "images": count} for name, (value, count) in self.classes.items()}
        return {"score": self.score.as_dict(), "classes": classes, "largest_class": self.largest}

    def as_text(self) -> str:
        """The result, then a line for each class."""
        width = max(len(safe_name(name)) for name in self.classes)
        chance = f"chance {100 / len(self.classes):.1f}, always the largest class {100 * self.largest:.1f}"
        rows = [
            f"  {safe_name(name):{width}}  {100 * value:5.1f}  ({count:,} images)"
            for name, (value, count) in self.classes.items()
        ]
        return "\n".join(
            [
                f"{self.score} % of {sum(count for _, count in self.classes.values()):,} images named right; {chance}",
                *rows,
            ]
        )


def zero_shot(
    run: str | Path,
    data: str | Path,
    *,
    prompts: Sequence[str] = PROMPTS,
    label: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> ZeroShot:
    """Names each image by the class whose description is nearest; no labelled image is learned from.

        class of x = argmax over c of cos(x, w_c),    w_c = unit of the mean over prompts p of unit text embeddings p(c)

    Args:
        run: Run folder, of `clip` or `siglip`.
        data: Labelled images. What the run was trained on is no test of it.
        prompts: Sentences with `{}` in place of the class's name; `_` in names becomes a blank.
        label: Column that holds the labels, where it is not called label.
        device: As in `train`.
        say: Called with messages.

    Raises:
        UsageError: A run that knows no text, or a prompt without `{}`.
        DataError: No labels, or one class.

    Source: Radford et al. 2021, section 3.1.2 and 3.1.4, https://arxiv.org/abs/2103.00020.
    """
    if not prompts or any(prompt.count("{}") != 1 for prompt in prompts):
        mend = f"a sentence with {{}} for the name, such as {PROMPTS[0]!r}"
        raise UsageError(f"the prompts {list(prompts)}", where="prompts", mend=mend)
    towers = load_towers(run, device=device)
    dataset = towers.image.load(data, labels=True, label=label)
    assert dataset.labels is not None and dataset.classes is not None, "asked for"
    predicted = (towers.images(dataset) @ class_embeddings(towers, dataset.classes, prompts).T).argmax(1)
    told = f"zero-shot, cosine with the mean over {len(prompts)} prompts: {'; '.join(prompts)}"
    right = predicted.numpy() == dataset.labels
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    shares = np.bincount(dataset.labels, weights=right, minlength=len(counts)) / counts.clip(1)
    found = ZeroShot(
        accuracy(predicted, torch.from_numpy(np.asarray(dataset.labels)), told),
        dict(zip(dataset.classes, zip(shares.tolist(), counts.tolist(), strict=True), strict=True)),
        float(counts.max() / counts.sum()),
    )
    say(found.as_text())
    return found


def class_embeddings(towers: TwoTowers, classes: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """One unit vector a class, fp32 `[len(classes), D]`: the mean over its prompts."""
    names = [name.replace("_", " ") for name in classes]
    sentences = [prompt.replace("{}", name) for name in names for prompt in prompts]
    return unit(towers.texts(sentences).unflatten(0, (len(names), len(prompts))).mean(1))
