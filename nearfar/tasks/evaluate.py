"""`nearfar evaluate`: how good an encoder is, on labelled data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..data import Dataset, duplicates_across
from ..errors import DataError
from ..evaluation import Evaluation
from ..runs import Run
from .caption_recall import caption_recall
from .encoder import load_encoder
from .summary import neighbours, report, side_by_side

TEST_SHARE = 0.2
"""Share of the labelled samples that answers are checked on, where no test set is given."""


def evaluate(
    run: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    label: str | None = None,
    seed: int = 0,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Raw pixels, the untrained encoder and the trained one side by side.

    1, 5 and all labels a class, kNN, clustering and retrieval. Of a run that knows text, on data with captions, recall
    of images and captions too; labels may then be missing.

    Args:
        run: Run folder.
        data: Labelled data of the run's kind: one folder a class, a manifest with labels, Parquet, arrays; or captions.
        test: Labelled data for the answers; None: a fifth of `data`, drawn by class, which is then not learned from.
        label: Column that holds the labels, where it is not called label.
        seed: Addresses the split and the draws of labels.
        device: As in `train`.
        say: Called with messages.

    Returns:
        The scores, also in `evaluation.json` and `report.html` of the run folder.

    Raises:
        DataError: No labels, or only one class.
    """
    encoder = load_encoder(run, device=device)
    folder, captions = Run.open(Path(run)), caption_recall(run, data, device=device, say=say)
    if captions is not None and label is None and encoder.load(data).labels is None:
        evaluation = Evaluation({}, labels={}, chance=0.0, classes=0, captions=captions)
        folder.write_json("evaluation.json", evaluation.as_dict())
        say(f"no labels: nothing else is measured\nwrote {folder.path / 'evaluation.json'}")
        return evaluation
    bank = encoder.load(data, labels=True, label=label)
    if encoder.columns and not encoder.further(bank):
        say(f"not all of {', '.join(encoder.columns)} are there: features are of {encoder.columns[0]} alone")
    if test is None:
        learn, ask = bank.split(TEST_SHARE, seed=seed)
        if not len(ask):
            raise DataError("too few samples a class to hold a fifth out", where=data, mend="give others with --test")
        train_part, test_part = bank.subset(learn), bank.subset(ask)
        say(f"{len(learn):,} samples to learn from, {len(ask):,} to answer for (a fifth, drawn by class)")
    else:
        train_part, test_part = bank, encoder.load(test, labels=True, label=label)
        _check_classes(train_part, test_part)
        shared = duplicates_across(train_part, test_part)
        if shared:
            say(f"warning: {len(shared)} samples are in both parts; the scores are too good by as much")
    evaluation = side_by_side(encoder, train_part, test_part, say, seed=seed, structure=True)
    evaluation = replace(evaluation, captions=captions)
    if evaluation.own is not None and test is None and bank.fingerprint == folder.info["fingerprint"]:
        say("warning: the run was trained on some of these samples and their labels; give others with --test")
    folder.write_json("evaluation.json", evaluation.as_dict())
    report(folder, evaluation, neighbours(encoder, test_part) if test_part.kind == "images" else [])
    say(evaluation.as_text())
    say(f"\nwrote {folder.path / 'evaluation.json'}, {folder.path / 'report.html'}")
    return evaluation


def _check_classes(train: Dataset, test: Dataset) -> None:
    missing = sorted(set(test.classes or ()) ^ set(train.classes or ()))
    if missing:
        raise DataError(
            f"classes that only one part has: {', '.join(missing[:5])}",
            where="test",
            mend="give both parts the same class folders",
        )
