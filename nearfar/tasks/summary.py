"""What a run leaves behind when it is finished: a measure, a report, and the commands to go on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset
from ..data.inputs import blocks
from ..evaluation import Evaluation, Picture, evaluate_features, thumbnail, write_report
from ..evaluation.log_mel import log_mel
from ..method import Batch
from ..methods import LEARNS_FROM
from ..runs import Run
from ..similarity import unit
from ..views import CentreCrop
from .answers import own_score
from .encoder import Encoder

MOST = 20_000
"""Images of the training part that a finished run's own measure learns from."""

MOST_TOKENS = 2_000
"""Tokens of the bag that text is compared with. 20,000 texts and tokens would be 1.6 GB."""

RAW_SIDE = 32
"""Side, in pixels, of the images whose raw pixels are compared with the encoder's features."""


def side_by_side(
    encoder: Encoder, train: Dataset, test: Dataset, say: Callable[[str], None], *, seed: int, structure: bool = False
) -> Evaluation:
    """Raw pixels, the untrained encoder and the trained one, from few labels and from all; `structure` adds clustering
    and retrieval. Of several pictures a sample, or parts of an image, each also stands alone, as do the maps of AMDIM's
    networks; and the run's own classifier where it has one.
    """
    name, plain = PLAIN[train.kind]
    say(f"measuring {name}, the untrained encoder and the trained encoder on {test.kind} that no probe learns from")
    untrained = encoder.untrained()
    named = {
        name: plain(encoder, train, test),
        "untrained encoder": (untrained(train), untrained(test)),
    }
    learn, ask = encoder.each(train), encoder.each(test)
    named |= {f"trained, {column} alone": (learn[column], ask[column]) for column in learn}
    deep, asked = encoder.scales(train), encoder.scales(test)
    named |= {f"trained, {scale}": (deep[scale], asked[scale]) for scale in deep}
    named["trained encoder"] = (_beside(learn), _beside(ask)) if learn else (encoder(train), encoder(test))
    found = evaluate_features(
        named, torch.as_tensor(train.labels), torch.as_tensor(test.labels), structure=structure, seed=seed
    )
    return replace(found, own=own_score(encoder, test, say))


def _beside(each: dict[str, Tensor]) -> Tensor:
    return torch.cat(list(each.values()), dim=1)


def pixels(encoder: Encoder, dataset: Dataset) -> Tensor:
    """Raw pixels `[N, C * side * side]` of the centre crop, at most 32 x 32; of several pictures side by side."""
    own, further = encoder.crop, encoder.further(dataset)
    crop = CentreCrop(min(own.size, RAW_SIDE), mean=own.mean, std=own.std)

    def flat(batch: Batch) -> Tensor:
        return crop(batch.inputs, batch.sizes).flatten(1)

    return torch.cat([torch.cat([flat(p), *(flat(p.of(name)) for name in further)], dim=1) for p in _parts(dataset)])


def spectra(encoder: Encoder, dataset: Dataset) -> Tensor:
    """Log-mel features `[N, width]` of each sound."""
    assert dataset.rate is not None
    return torch.cat([log_mel(part.inputs, part.sizes, rate=dataset.rate) for part in _parts(dataset)])


def bags(_: Encoder, train: Dataset, test: Dataset) -> tuple[Tensor, Tensor]:
    """How often each token is in each text, `[N, tokens]`: those most frequent in the training part, in the order of
    the vocabulary; of a small vocabulary all.
    """
    assert train.tokenizer is not None
    counts = torch.zeros(train.tokenizer.vocabulary, dtype=torch.int64)
    for part in _parts(train):
        counts += torch.bincount(part.inputs.flatten().long(), minlength=len(counts))
    kept = counts[1:].argsort(descending=True, stable=True)[:MOST_TOKENS].sort().values + 1
    column = torch.zeros_like(counts)  # 0, which is cut off, for padding and for what is not kept
    column[kept] = torch.arange(1, len(kept) + 1)
    return _bag(train, column), _bag(test, column)


def _bag(dataset: Dataset, column: Tensor) -> Tensor:
    rows = []
    for part in _parts(dataset):
        found = column[part.inputs.flatten(1).long()]
        empty = torch.zeros(len(found), int(column.max()) + 1)
        rows.append(empty.scatter_add_(1, found, torch.ones(found.shape))[:, 1:])
    return torch.cat(rows)


def averages(encoder: Encoder, dataset: Dataset) -> Tensor:
    """The mean observation of each sequence, `[N, width]`."""
    parts = _parts(dataset)
    return torch.cat([p.inputs.float().flatten(2).sum(1) / p.sizes.clamp_min(1).float() for p in parts])


def _parts(dataset: Dataset) -> Iterator[Batch]:
    return (dataset.batch(places) for places in blocks(dataset, 512))


def _each(plain: Callable[[Encoder, Dataset], Tensor]) -> Callable[[Encoder, Dataset, Dataset], tuple[Tensor, Tensor]]:
    """Of the training part and of the test part, each by itself."""
    return lambda encoder, train, test: (plain(encoder, train), plain(encoder, test))


PLAIN: dict[str, tuple[str, Callable[[Encoder, Dataset, Dataset], tuple[Tensor, Tensor]]]] = {
    "images": ("raw pixels", _each(pixels)),
    "sound": ("log-mel", _each(spectra)),
    "text": ("bag of tokens", bags),
    "sequences": ("mean observation", _each(averages)),
}
"""What an encoder has to be better than, for each kind of data: features of the training and of the test part."""


def finish(
    run: Run,
    encoder: Encoder,
    dataset: Dataset,
    samples: np.ndarray,
    held: np.ndarray,
    say: Callable[[str], None],
    *,
    watched: Dataset | None = None,
) -> None:
    """Measures on the held-out part where there are labels, writes `report.html` and says what can be done next.

    Look-alikes are shown among images that were not trained on: those watched (classes of validation) or held out.
    """
    evaluation = None
    if (
        dataset.labels is not None
        and len(np.unique(dataset.labels)) > 1
        and len(held) >= 2 * len(dataset.classes or ())
    ):
        learn = dataset.subset(samples[:: -(-len(samples) // MOST)])
        evaluation = side_by_side(encoder, learn, dataset.subset(held), say, seed=run.settings["seed"])
        run.write_json("evaluation.json", evaluation.as_dict())
        say(evaluation.as_text())
    shown = watched if watched is not None else dataset.subset(held if len(held) >= 12 else samples)
    report(run, evaluation, neighbours(encoder, shown) if shown.kind == "images" else [])
    say(f"\nwrote {run.path / 'report.html'}, {run.path / 'encoder.safetensors'}\nnext:")
    for command in next_commands(run):
        say(f"  {command}")


def next_commands(run: Run) -> list[str]:
    """Commands that a finished run is good for."""
    data, split = run.info["data"], run.info.get("split")
    if split is not None:
        return [f"nearfar few-shot {run.path} {data} --split {run.settings['split']}"]
    columns = LEARNS_FROM.get(run.settings["method"], ("image",))
    commands = [
        f"nearfar evaluate {run.path} LABELLED_{'FOLDER' if columns[0] == 'image' else 'DATA'}",
        f"nearfar embed {run.path} {data} --out {run.path / 'embeddings.parquet'}",
    ]
    if "text" in columns and columns[0] == "image":
        commands.append(f"nearfar search {run.path} 'words that describe a picture' --out found.html")
    return commands + [f"nearfar classify {run.path} EXAMPLES PHOTOS --out labels.csv"] * (columns[0] == "image")


def report(run: Run, evaluation: Evaluation | None, examples: list[list[Picture]]) -> Path:
    """Writes `report.html` from what the run folder holds."""
    about = {**run.settings, "versions": run.record["versions"], **run.info}
    return write_report(
        run.path / "report.html", run=about, curves=run.rows(), evaluation=evaluation, examples=examples, warnings=[],
        next_commands=next_commands(run),
    )  # fmt: skip


def neighbours(encoder: Encoder, dataset: Dataset, *, rows: int = 6, columns: int = 7) -> list[list[Picture]]:
    """A few images and those that the encoder finds nearest, the query first in each row."""
    looked = dataset.subset(np.arange(min(len(dataset), 2000)))
    vectors = unit(encoder(looked))
    queries = np.linspace(0, len(looked) - 1, min(rows, len(looked))).astype(int).tolist()
    order = (vectors[queries] @ vectors.T).topk(min(columns + 1, len(looked))).indices.tolist()
    return [
        [_picture(looked, place) for place in [query, *(near for near in nearest if near != query)][: columns + 1]]
        for query, nearest in zip(queries, order, strict=True)
    ]


def _picture(dataset: Dataset, place: int) -> Picture:
    label = dataset.classes[dataset.labels[place]] if dataset.classes and dataset.labels is not None else ""
    return Picture(thumbnail(dataset.inputs[place], dataset.sizes[place], side=96), dataset.names[place], label)
