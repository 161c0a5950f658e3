"""Commands that use a trained encoder."""

from __future__ import annotations

from pathlib import Path

from .app import app


@app.command
def embed(run: Path, data: str, /, *, out: Path, device: str = "auto") -> None:
    """Write a vector for every image, as Parquet that other tools open.

    Parameters
    ----------
    run
        Run folder.
    data
        Images, as for train.
    out
        Parquet file to write.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from ..tasks import embed

    embed(run, data, out=out, device=device)


@app.command
def classify(
    run: Path,
    support: str,
    photos: str,
    /,
    *,
    out: Path,
    head: str = "lr",
    unknown: str | None = None,
    device: str = "auto",
) -> None:
    """Label many images from a handful of sorted examples, as a CSV table.

    Parameters
    ----------
    run
        Run folder.
    support
        Examples, one folder a class.
    photos
        Images to label.
    out
        CSV file to write.
    head
        What is fitted to the examples: lr, ncm, ridge, nn and others.
    unknown
        Share of images of known classes that may be called unknown, such as 0.05, or auto; without it all get a class.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from ..tasks import classify

    classify(run, support, photos, out=out, head=head, unknown=unknown, device=device)


@app.command
def search(
    run: Path,
    query: str,
    /,
    *,
    data: str | None = None,
    top: int = 12,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Find the images nearest to a description or to an image.

    Parameters
    ----------
    run
        Run folder; for descriptions one of clip or siglip.
    query
        Words, such as "a red fruit", or an image file.
    data
        Images to search; without it those that the run was trained on.
    top
        Number of answers.
    out
        Page to write, .html or .png.
    device
        auto, cpu, cuda, mps, xpu.
    """
    from ..tasks import search

    search(run, query, data=data, top=top, out=out, device=device)
