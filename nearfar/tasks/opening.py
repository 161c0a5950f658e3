"""Data of any kind, as a method asks for it: images, sound, text, sequences, or several columns of a sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..console import counting
from ..data import Dataset, load, scan
from ..data.inputs import Inputs
from ..data.source import LABEL
from ..encoders.amdim import STEMS
from ..errors import UsageError
from ..methods import LEARNS_FROM, METHODS
from ..settings import TrainSettings
from ..views import CentreCrop
from ..views.sequences import Steps
from ..views.sound import Waveform
from ..views.text import Sentences

Transform = CentreCrop | Waveform | Sentences | Steps
"""The transform of evaluation and use: `(inputs, sizes) -> view`, with `to_dict` and `from_dict`."""

TRANSFORMS: dict[str, Any] = {"waveform": Waveform, "sentences": Sentences, "steps": Steps}
"""By the word `kind` in a stored transform; without it a centre crop."""


@dataclass(frozen=True)
class Opened:
    """Data that was read.

    Args:
        dataset: The samples.
        told: What was found, in a line.
        size: `size` of the method: pixels of a view, samples of a window of sound, tokens of a sentence, steps.
        channels: Channels of an image, of each where a sample has several; 1 of sound; shape of an observation.
    """

    dataset: Dataset
    told: str
    size: int
    channels: int | tuple[int, ...]


def columns_of(settings: TrainSettings) -> tuple[str, ...]:
    """What the method looks at: `image`, `sound`, `text` or `sequence`, or several columns, `image` first."""
    own = tuple(settings.method_settings.get("columns") or ())
    if own and (own[0] != "image" or "text" in own):
        mend = "pictures alone, image first: --columns image,image2; for captions --method clip"
        raise UsageError(f"columns {', '.join(own)}", where="columns", mend=mend)
    return own or LEARNS_FROM.get(settings.method, ("image",))


def pictures_of(settings: TrainSettings) -> tuple[str, ...]:
    """Columns of a method whose samples are several pictures; () of any other."""
    columns = columns_of(settings)
    return columns if len(columns) > 1 and "text" not in columns else ()


def read(data: str | Path, settings: TrainSettings, say: Callable[[str], None]) -> Opened:
    """The data that a method learns from.

    Raises:
        DataError: No data, or data of another kind.
    """
    columns = columns_of(settings)
    check_label(settings.label, columns[0])
    if columns == ("image",):
        return _images(data, settings, say)
    given: dict[str, Any] = {"labels": settings.labels, "max_bad": settings.max_bad}
    given["progress"] = counting("decoded", say)
    if columns[0] == "image":
        return _pairs(data, settings, columns, given)
    if columns[0] == "sound":
        return _sound(data, settings, given)
    return _text(data, settings, given) if columns[0] == "text" else _sequences(data, settings, given)


def _images(data: str | Path, settings: TrainSettings, say: Callable[[str], None]) -> Opened:
    given: dict[str, Any] = {"labels": settings.labels, "label": settings.label or LABEL, "max_bad": settings.max_bad}
    found = scan(data, pixels=False, **given)
    size = settings.size or _usual_size(settings.encoder, found.longest)
    dataset = load(data, size=store_size(size), progress=counting("decoded", say), **given)
    told = found.summary() + _dark("images", dataset.inputs)
    return Opened(dataset, told, size, dataset.inputs.shape[1])


def _usual_size(encoder: str, longest: int) -> int:
    """Pixels of a view where none are asked for; AMDIM's network without padding takes three sizes alone."""
    usual = longest if longest <= 64 else 224
    return min(STEMS, key=lambda size: abs(size - usual)) if encoder.startswith("amdim") else usual


def _pairs(data: str | Path, settings: TrainSettings, columns: tuple[str, ...], given: dict[str, Any]) -> Opened:
    from ..data.pairs import load_pairs

    size = settings.size or 64
    length = caption_length(settings)
    given |= {"columns": columns, "tokenizer": settings.tokenizer or "bytes", "length": length}
    given["label"] = settings.label or LABEL
    dataset = load_pairs(data, size=store_size(size), **given)
    others = {name: column.inputs for name, column in dataset.columns.items() if column.kind == "images"}
    pictures = {columns[0]: dataset.inputs, **others}
    depths = tuple(one.shape[1] for one in pictures.values())
    channels = depths[0] if len(set(depths)) == 1 else depths
    told = f"{len(dataset):,} samples of {' and '.join(columns)}" + _labelled(dataset)
    return Opened(dataset, told + "".join(_dark(*one) for one in pictures.items()), size, channels)


def _dark(name: str, images: Inputs) -> str:
    """A remark on images that use a quarter of the grey levels at most, as depth in millimetres of 16 bits does."""
    some = np.unique(np.linspace(0, len(images) - 1, num=256).astype(np.int64))
    brightest = int(images[some].max())
    return f"; {name}: no pixel above {brightest} of 255, spread deep ones over all 16 bits first" * (brightest < 64)


def _sound(data: str | Path, settings: TrainSettings, given: dict[str, Any]) -> Opened:
    from ..data.sound import load_sound

    dataset = load_sound(data, rate=settings.rate, label=settings.label or LABEL, **given)
    seconds = float(dataset.sizes.sum()) / (dataset.rate or 1)
    told = f"{len(dataset):,} sounds, {seconds / 60:.1f} minutes at {(dataset.rate or 0) / 1000:g} kHz"
    return Opened(dataset, told + _labelled(dataset), _own_size(settings), 1)


def _text(data: str | Path, settings: TrainSettings, given: dict[str, Any]) -> Opened:
    from ..data.text import load_text

    sentences, size = own(settings, "sentences", 1), _own_size(settings)
    dataset = load_text(data, sentences=sentences, length=size, tokenizer=settings.tokenizer or "bytes", **given)
    told = f"{len(dataset):,} runs of {sentences} sentences" if sentences > 1 else f"{len(dataset):,} sentences"
    return Opened(dataset, told + _labelled(dataset), size, 1)


def _sequences(data: str | Path, settings: TrainSettings, given: dict[str, Any]) -> Opened:
    from ..data.sequences import load_sequences

    dataset = load_sequences(data, **given)
    shape = dataset.inputs.shape[2:]
    told = f"{len(dataset):,} sequences, {int(dataset.sizes.sum()):,} steps of {' x '.join(map(str, shape)) or '1'}"
    channels = shape[0] if len(shape) == 1 else shape
    return Opened(dataset, told + _labelled(dataset), _own_size(settings), channels or 1)


def _labelled(dataset: Dataset) -> str:
    return f", {len(dataset.classes)} classes" if dataset.classes else ", unlabelled"


def own(settings: TrainSettings, name: str, otherwise: Any) -> Any:
    """A keyword argument of the method, as it is set or by its default."""
    default = inspect.signature(METHODS[settings.method]).parameters.get(name)
    return settings.method_settings.get(name, otherwise if default is None else default.default)


def caption_length(settings: TrainSettings) -> int:
    """Longest caption, in tokens."""
    return own(settings, "length", 64)


def _own_size(settings: TrainSettings) -> int:
    """The size asked for, or the method's own."""
    return settings.size or own(settings, "size", 0)


def reopen(
    data: str | Path, transform: Transform, *, channels: int, labels: bool | None = None, label: str | None = None
) -> Dataset:
    """Data for a trained encoder, decoded as its transform wants it; text sentence by sentence."""
    check_label(label, "image" if isinstance(transform, CentreCrop) else "sound" * isinstance(transform, Waveform))
    if isinstance(transform, CentreCrop):
        return load(data, size=store_size(transform.size), channels=channels, labels=labels, label=label or LABEL)
    if isinstance(transform, Waveform):
        from ..data.sound import load_sound

        return load_sound(data, rate=transform.rate, labels=labels, label=label or LABEL)
    if isinstance(transform, Sentences):
        from ..data.text import load_text
        from ..data.tokens import Tokenizer

        tokenizer = Tokenizer.from_dict(transform.tokenizer)
        return load_text(data, length=transform.length, tokenizer=tokenizer, labels=labels)
    from ..data.sequences import load_sequences

    return load_sequences(data, labels=labels)


def check_label(label: str | None, kind: str) -> None:
    """Raises UsageError where a column of labels is named that would not be looked at."""
    if label is not None and kind not in ("image", "sound"):
        raise UsageError(
            f"the column {label!r} is not looked at: only images and sound may have labels of several kinds",
            where="label",
            mend="call the column label, and leave --label out",
        )


def whole(dataset: Dataset, size: int) -> Transform:
    """The transform of evaluation for data that are no images: all of a sample, nothing random."""
    if dataset.rate is not None:
        return Waveform(dataset.rate)
    return text_transform(dataset, size) if dataset.kind == "text" else Steps()


def text_transform(dataset: Dataset, length: int) -> Sentences:
    """That of text, by the tokenizer of a data set."""
    assert dataset.tokenizer is not None
    return Sentences(dataset.tokenizer.to_dict(), length)


def transform_from(settings: dict[str, Any]) -> Transform:
    """A stored transform.

    Raises:
        UsageError: A kind that this version doesn't know.
    """
    kind = settings.get("kind", "")
    if not kind:
        return CentreCrop.from_dict(settings)
    if kind not in TRANSFORMS:
        raise UsageError(f"an input transform of kind {kind!r}", where="run", mend="a newer nearfar wrote this run")
    return TRANSFORMS[kind].from_dict(settings)


def store_size(view: int) -> int:
    """Longer side of stored images for a view: a third more, so that a crop of three quarters needs no enlarging."""
    return view if view <= 64 else -(-view * 4 // 3 // 8) * 8
