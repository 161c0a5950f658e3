"""Commands that measure a trained encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..flags import SEVERAL
from .app import app


@app.command
def evaluate(
    run: Path,
    data: str,
    /,
    *,
    test: str | None = None,
    label: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Measure an encoder on labelled images, sounds or texts: 1, 5 and all labels a class, kNN, clustering.

    Of a run that knows text, on images with captions, recall too.

    Parameters
    ----------
    run
        Run folder.
    data
        Labelled data of the run's kind: one folder a class, a manifest, Parquet, arrays.
    test
        Labelled data for the answers; without it a fifth of the data, drawn by class.
    label
        Column that holds the labels, of a manifest or of Parquet, such as fine_label or speaker.
    seed
        Of the split and of the draws of labels.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from ..tasks import evaluate

    evaluate(run, data, test=test, label=label, seed=seed, device=device)


@app.command
def few_shot(
    run: Path,
    data: str,
    /,
    *,
    split: str | None = None,
    part: str = "test",
    label: str | None = None,
    ways: int = 5,
    shots: Annotated[tuple[int, ...], SEVERAL] = (1, 5),
    queries: int = 15,
    episodes: int = 10_000,
    heads: Annotated[tuple[str, ...], SEVERAL] = ("lr", "ncm"),
    seed: int = 0,
    query_prior: str = "unknown",
    dirichlet: float | None = None,
    against: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    support_views: int = 0,
    query_views: int = 0,
    device: str = "auto",
) -> None:
    """Measure an encoder on new classes from a handful of examples, over thousands of episodes.

    Parameters
    ----------
    run
        Run folder.
    data
        Labelled images, as for evaluate.
    split
        Published split (cifar-fs, fc100, omniglot-vinyals, ...) or JSON file; without it all classes are taken for new.
    part
        train, val or test.
    label
        As in evaluate.
    ways
        Classes of an episode.
    shots
        Labelled images a class; several numbers for several lists of episodes.
    queries
        Images a class that are asked for.
    episodes
        Number of episodes.
    heads
        What is fitted to the examples of an episode: ncm, lr, ridge, nn and others.
    seed
        Of the episodes.
    query_prior
        What transductive heads are told of the classes of the queries: unknown or uniform.
    dirichlet
        Unbalanced queries: concentration of the shares of the classes, such as 2.
    against
        Other run folders to compare with.
    support_views
        Augmented copies in place of each example.
    query_views
        Augmented copies averaged with each query.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from ..tasks import evaluate_few_shot

    evaluate_few_shot(
        run, data, split=split, part=part, label=label, ways=ways, shots=shots, queries=queries, episodes=episodes,
        heads=heads, seed=seed, query_prior=query_prior, dirichlet=dirichlet, against=against,
        support_views=support_views, query_views=query_views, device=device,
    )  # fmt: skip


@app.command
def zero_shot(
    run: Path,
    data: str,
    /,
    *,
    prompts: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = ("a picture of {}",),
    label: str | None = None,
    device: str = "auto",
) -> None:
    """Classify images by the names of the classes alone, with a run that knows pictures and text.

    Parameters
    ----------
    run
        Run folder of clip or siglip.
    data
        Labelled images; nothing is learned from their labels.
    prompts
        Sentences with {} in place of the class's name, such as "a picture of {}".
    label
        As in evaluate.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from ..tasks import zero_shot

    zero_shot(run, data, prompts=prompts, label=label, device=device)
