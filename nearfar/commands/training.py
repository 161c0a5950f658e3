"""Commands that train, and what one wants to know before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..flags import SEVERAL
from .app import app, named


@app.command
def train(
    data: str,
    /,
    *,
    out: Path = Path("runs/run"),
    config: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    **settings: str,
) -> None:
    """Train an encoder without needing a label. The same command again goes on with a stopped run.

    Parameters
    ----------
    data
        Folder, manifest (.csv, .jsonl), Parquet, .npy or .npz, or "digits": images, or what the method learns from
        (sound, text, sequences, pictures with captions).
    out
        Run folder.
    config
        YAML file with settings; flags come before it.
    dry_run
        Say what would happen and stop there.
    settings
        Any setting: see `nearfar settings`; and those of the method: see `nearfar methods NAME`.
    """
    from ..tasks import train

    train(data, out=out, config=config, dry_run=dry_run, say=None, **named(settings))


@app.command
def ablate(
    data: str,
    /,
    *,
    base: str = "amdim",
    vary: Annotated[tuple[str, ...], SEVERAL] = ("all",),
    seeds: int = 3,
    epochs: int | None = None,
    minutes: float | None = None,
    out: Path = Path("runs/ablation"),
    test: str | None = None,
    **settings: str,
) -> None:
    """Find out which of the five parts matters: swap one at a time, over several seeds.

    Parameters
    ----------
    data
        Labelled images, as for train; labels only measure.
    base
        Method that is varied.
    vary
        Parts: views, encoder, extraction, similarity, loss, all; or single variants such as views:no-flip.
    seeds
        Trainings of each variant.
    epochs
        Of every training.
    minutes
        Of every training, in place of epochs.
    out
        Folder of the study. The same command again goes on with it.
    test
        Labelled images that all are measured on; without it a fifth of the data, drawn by class.
    settings
        Those of train.
    """
    from ..tasks import ablate

    ablate(
        data, base=base, vary=vary, seeds=seeds, epochs=epochs, minutes=minutes, out=out, test=test, say=None,
        **named(settings),
    )  # fmt: skip


@app.command
def preview(data: str, /, *, out: Path = Path("preview.png"), images: int = 8, **settings: str) -> None:
    """Draw a contact sheet of what the model will see.

    Parameters
    ----------
    data
        Images, as for train.
    out
        PNG file to write.
    images
        Number of images.
    settings
        Those of train.
    """
    from ..tasks import preview

    preview(data, out=out, images=images, say=print, **named(settings))


@app.command
def scan(data: str, /, *, label: str = "label") -> None:
    """Look at data without training: sizes, classes, unreadable files, duplicates.

    Parameters
    ----------
    data
        Images, as for train.
    label
        Column that holds the labels, of a manifest or of Parquet.
    """
    from ..console import counting
    from ..data import scan

    # however many are unreadable: to name them is what it is for
    print(scan(data, label=label, max_bad=sys.maxsize, progress=counting("looked at", print)).details())
