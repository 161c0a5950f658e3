"""`nearfar classify`: from a few sorted images to a table of labels for many."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..data import Dataset, duplicates_across, load, safe_name
from ..data.folder import list_folder
from ..errors import DataError, UsageError
from ..few_shot.checks import UNKNOWN, check_head, check_names
from ..few_shot.classifier import Answers, FewShotClassifier
from ..runs.atomic import disk_errors, replace
from .encoder import Encoder, load_encoder
from .opening import store_size

COLUMNS = ("path", "label", "probability", "second", "second_probability", "nearest_example", "note")
MISTAKEN = 0.25
"""Share of held-out examples of a class that are taken for one other, two at least, from which on the two are said to
look alike."""
NAMED = 5
"""The most pairs of classes, or of copies, that a warning names."""


def classify(
    run: str | Path,
    support: str | Path,
    photos: str | Path,
    *,
    out: str | Path,
    head: str = "lr",
    unknown: float | str | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Path:
    """Writes a label for every photo, learned from a handful of sorted examples; nothing is trained but the head.

    Args:
        run: Run folder.
        support: Examples, one folder a class.
        photos: Images to label, in any folders. One that can't be read keeps its row, with the reason and no label.
        out: CSV file to write: path, label, probability, second, second_probability, nearest_example, note.
        head: As in `FewShotClassifier`.
        unknown: As in `FewShotClassifier`: share of photos of known classes that may be called "unknown", or "auto".
        device: As in `train`.
        say: Called with messages.

    Returns:
        The file.

    Raises:
        UsageError: A file that is no `.csv`, lies in the run folder or is one of the inputs; an unknown head, a share
            that can't be, or a class with the name "unknown" beside a share.
        DataError: No photos, examples without labels or of one class, or an encoder that gives NaN.
    """
    check_head(head)
    _check_table(Path(out), Path(run), (support, photos))
    share = _share(unknown)
    with disk_errors(Path(out)):
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(run, device=device).of_images()
    about_folders = _about_folders(Path(support))
    examples = encoder.load(support, labels=True)
    check_names(examples.classes or (), share)
    classifier = FewShotClassifier(encoder, head=head, unknown=share).fit(examples)
    asked = _photos(photos, encoder)
    for warning in [*about_folders, *_about_examples(classifier, examples), *_about_overlap(examples, asked)]:
        say(f"warning: {warning}")
    answers = classifier.answer(asked)
    rows = _rows(classifier, examples, asked, answers)
    with disk_errors(Path(out)):
        replace(Path(out), lambda part: _write(part, rows))
    for line in _summary(classifier, rows, asked):
        say(line)
    say(f"\nwrote {out}: {_counted(len(asked), 'label')}" + (f", {len(asked.bad)} unreadable" if asked.bad else ""))
    say(
        f"next: sort {out} by probability, look at the least certain, put some of them into the right folders of "
        f"{support}, and give the same command again"
    )
    return Path(out)


def _check_table(out: Path, run: Path, inputs: tuple[str | Path, ...]) -> None:
    """Raises UsageError where the table would replace what is no table."""
    if out.is_dir():
        raise UsageError("this is a folder", where=f"--out {out}", mend=f"name a file in it: {out / 'labels.csv'}")
    if out.suffix.lower() != ".csv":
        mend = f"give a name that ends in .csv, such as {out.with_suffix('.csv')}"
        raise UsageError("the table is a CSV file, and this is no name of one", where=f"--out {out}", mend=mend)
    if out.resolve().is_relative_to(run.resolve()):
        raise UsageError("this is inside the run folder", where=f"--out {out}", mend="write the table somewhere else")
    if out.resolve() in [Path(one).resolve() for one in inputs]:
        raise UsageError("this is the list that is read", where=f"--out {out}", mend="choose another name")


def _share(unknown: float | str | None) -> float | str | None:
    """The share as a number, where it comes as text."""
    try:
        return unknown if unknown is None or unknown == "auto" else float(unknown)
    except ValueError:
        raise UsageError(f"unknown={unknown!r}", where="unknown", mend='a share such as 0.05, or "auto"') from None


def _photos(photos: str | Path, encoder: Encoder) -> Dataset:
    """All that can be read, however few: what cannot has its row."""
    size, channels = store_size(encoder.crop.size), encoder.channels
    return load(photos, size=size, channels=channels, labels=False, max_bad=2**62)


def _about_folders(support: Path) -> list[str]:
    """Class folders that are not what they look like.

    Raises:
        DataError: Images beside the class folders.
    """
    names = sorted(name for name, _, _ in list_folder(support).images) if support.is_dir() else []
    loose, sorted_in = (
        [name for name in names if "/" not in name],
        {name.split("/")[0] for name in names if "/" in name},
    )
    if loose and sorted_in:
        raise DataError(
            f"{_counted(len(loose), 'image')} beside the class folders: {_some(loose)}",
            where=support,
            mend="move it into the folder of its class, or out" if len(loose) == 1 else "move them into class folders",
        )
    if not sorted_in:
        return []
    told = []
    folders = {one.name for one in support.iterdir() if one.is_dir() and not one.name.startswith(".")}
    if empty := sorted(folders - sorted_in):
        told.append(f"no images in {_some(empty)}: {'these are' if len(empty) > 1 else 'it is'} left out")
    if deep := [name for name in names if name.count("/") > 1]:
        inner, outer = deep[0].rpartition("/")[0], deep[0].split("/")[0]
        more = f"{_counted(len(deep), 'example')} {'lies' if len(deep) == 1 else 'lie'} deeper than in a class folder"
        told.append(f"{more}: those of {safe_name(inner)} are taken for the class {safe_name(outer)}")
    return told


def _about_examples(classifier: FewShotClassifier, examples: Dataset) -> list[str]:
    """What makes answers doubtful, as far as the examples show it."""
    told = [f"{safe_name(name)} cannot be read and is left out of the examples: {why}" for name, why in examples.bad]
    told += _about_copies(examples)
    counts = np.bincount(classifier.labels_).tolist()
    lone = [str(name) for name, count in zip(classifier.classes_, counts, strict=True) if count == 1]
    if lone:
        told.append(f"one example only of {', '.join(map(safe_name, lone))}; two or more a class are much better")
    if not classifier.calibrated_:
        told.append("probabilities are not calibrated: no class has two examples; they only tell which is likelier")
    alike = sorted(_alike(classifier), key=lambda pair: -pair[2] / pair[3])
    for one, other, mistaken, count in alike[:NAMED]:
        told.append(
            f"{safe_name(one)} and {safe_name(other)} look alike: {mistaken} of {count} examples of "
            f"{safe_name(one)}, held out, were taken for {safe_name(other)}"
        )
    more = len(alike) - NAMED
    return told + ([f"and {_counted(more, 'more pair')} of classes that look alike"] if more > 0 else [])


def _about_copies(examples: Dataset) -> list[str]:
    """Examples that are one file: of one class, and of several, where at least one is in the wrong folder."""
    assert examples.labels is not None
    firsts: dict[bytes, int] = {}
    pairs: dict[bool, list[str]] = {True: [], False: []}
    for place, value in enumerate(examples.hashes):
        first = firsts.setdefault(value.tobytes(), place)
        if first != place:
            pair = f"{safe_name(examples.names[first])} = {safe_name(examples.names[place])}"
            pairs[bool(examples.labels[first] == examples.labels[place])].append(pair)
    meanings = {True: "examples given twice", False: "examples in two classes, one of which is wrong"}
    return [
        f"{meanings[same]}: {', '.join(found[:NAMED])}" + (f", and {len(found) - NAMED} more" * (len(found) > NAMED))
        for same, found in pairs.items()
        if found
    ]


def _alike(classifier: FewShotClassifier) -> list[tuple[str, str, int, int]]:
    """Class, other class, examples of the one that were taken for the other, and how many were held out."""
    found, names = [], [str(name) for name in classifier.classes_]
    for row, mistaken in enumerate(classifier.confusion_):
        worst = int(np.delete(mistaken, row).max())
        if worst >= max(2, MISTAKEN * mistaken.sum()):
            other = next(column for column, n in enumerate(mistaken) if column != row and n == worst)
            found.append((names[row], names[other], worst, int(mistaken.sum())))
    return found


def _about_overlap(examples: Dataset, asked: Dataset) -> list[str]:
    shared = duplicates_across(examples, asked)
    return [f"{len(shared)} of the photos are examples too; their labels are no test of anything"] if shared else []


def _rows(classifier: FewShotClassifier, examples: Dataset, asked: Dataset, answers: Answers) -> list[tuple[str, ...]]:
    """One row a photo, in the order of their names."""
    same = {photo: example for example, photo in duplicates_across(examples, asked)}
    order = np.argsort(-answers.probability, axis=1, kind="stable")
    rows: list[tuple[str, tuple[str, ...]]] = [(name, (*[""] * 5, why)) for name, why in asked.bad]
    for place, name in enumerate(asked.names):
        notes = [f"the same file as example {safe_name(same[name])}"] if name in same else []
        cells = [
            text
            for one in order[place, :2]
            for text in (safe_name(str(classifier.classes_[one])), f"{answers.probability[place, one]:.4f}")
        ]
        if answers.unknown[place]:  # the likeliest class is then the second guess
            cells, notes = [UNKNOWN, "", *cells[:2]], ["like none of the examples", *notes]
        example = safe_name(classifier.examples_[answers.nearest[place]])
        rows.append((name, (*cells, example, "; ".join(notes))))
    return [(safe_name(name), *cells) for name, cells in sorted(rows)]


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        table.writerows(rows)


def _summary(classifier: FewShotClassifier, rows: list[tuple[str, ...]], asked: Dataset) -> list[str]:
    """A line for each class: examples and photos."""
    given = [row[1] for row in rows]
    counts = np.bincount(classifier.labels_).tolist()
    right, held = int(np.trace(classifier.confusion_)), int(classifier.confusion_.sum())
    lines = [f"{right} of {_counted(held, 'example')}, held out in turn, told right"] if held else []
    width = max(len(safe_name(str(name))) for name in [*classifier.classes_, UNKNOWN])
    for name, count in zip(classifier.classes_, counts, strict=True):
        text = safe_name(str(name))
        lines.append(f"  {text:{width}}  {_counted(given.count(text), 'photo')}  ({_counted(count, 'example')})")
    if classifier.unknown is not None:
        lines.append(f"  {UNKNOWN:{width}}  {_counted(given.count(UNKNOWN), 'photo')}")
    return [f"{_counted(len(asked), 'photo')}, {len(classifier.classes_)} classes", *lines]


def _counted(count: int, what: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def _some(names: list[str]) -> str:
    """The first of them, harmless."""
    return ", ".join(map(safe_name, names[:NAMED])) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
