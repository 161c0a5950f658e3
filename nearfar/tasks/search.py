"""`nearfar search`: images by a description, or look-alikes of an image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..data import BadImage, Dataset, decode, safe_name
from ..data.decode import read
from ..data.formats import SUFFIXES
from ..data.sources import open_source
from ..errors import DataError, UsageError
from ..evaluation import thumbnail
from ..evaluation.features import evaluation_mode
from ..runs import Run
from ..similarity import unit
from ..views import CentreCrop
from .encoder import Encoder, load_encoder
from .opening import store_size
from .search_page import Hit, write_page
from .two_towers import TwoTowers, best, has_text, load_towers

SHOWN = 128
"""Side of the pictures on a page, pixels."""


@dataclass(frozen=True)
class Found:
    """One image of the answer.

    Args:
        name: Name of the image in its data set.
        cosine: Of its embedding with that of the query.
        caption: What the data says of it, or "".
    """

    name: str
    cosine: float
    caption: str = ""


def search(
    run: str | Path,
    query: str | Path,
    *,
    data: str | Path | None = None,
    top: int = 12,
    out: str | Path | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> list[Found]:
    """The images nearest to a description or to an image, best first.

    Args:
        run: Run folder; for descriptions one of `clip` or `siglip`, for images any that learned from images.
        query: Words, or the path of an image file.
        data: Images to search; None: those that the run was trained on.
        top: Number of answers, >= 1.
        out: Page to write, `.html` or `.png`; None: none.
        device: As in `train`.
        say: Called with messages.

    Raises:
        UsageError: A description for a run that knows no text, a page of another kind, `top` < 1.
        DataError: An image or data that can't be read.
    """
    if top < 1 or (out is not None and Path(out).suffix.lower() not in (".html", ".png")):
        raise UsageError(f"top={top}, out={out}", where="search", mend="1 answer or more, a file .html or .png")
    by_image = os.path.isfile(query)  # a long description is no path, and no error
    if not by_image and (os.path.isdir(query) or os.path.splitext(query)[1].lower() in SUFFIXES):
        what = "a folder, not an image" if os.path.isdir(query) else "no such image"
        raise DataError(what, where=query, mend="the path of an image file, or words")
    towers = None if by_image and not has_text(run) else load_towers(run, device=device)
    encoder = towers.image if towers else load_encoder(run, device=device).first()
    crop = encoder.transform
    if not isinstance(crop, CentreCrop):
        raise UsageError("this run has learned from no images", where=f"run {run}", mend="a run of images")
    place: str | Path = Run.open(Path(run)).info["data"] if data is None else data
    gallery = encoder.load(place)
    asked = _picture(encoder, crop, towers, Path(query)) if by_image else _described(towers, str(query))
    scores = (towers.images(gallery) if towers else unit(encoder(gallery))) @ asked
    captions = _captions(place)
    places = best(scores, top)
    found = [Found(gallery.names[at], float(scores[at]), captions.get(gallery.names[at], "")) for at in places]
    for number, one in enumerate(found, 1):
        caption = f"  {safe_name(one.caption)}" if one.caption else ""
        say(f"{number:3}  {one.cosine:6.3f}  {safe_name(one.name)}{caption}")
    if out is not None:
        hits = [_hit(one, gallery, at) for one, at in zip(found, places, strict=True)]
        write_page(Path(out), title=f"{query}", hits=hits, about=f"{len(gallery):,} images of {place}, run {run}")
        say(f"wrote {out}")
    return found


def _described(towers: TwoTowers | None, query: str) -> Tensor:
    if not query.strip():
        raise UsageError("an empty query", where="query", mend="some words, or the path of an image")
    assert towers is not None, "words need towers"
    return towers.texts([query])[0]


def _picture(encoder: Encoder, crop: CentreCrop, towers: TwoTowers | None, path: Path) -> Tensor:
    """The embedding of an image file."""
    channels = encoder.channels if isinstance(encoder.channels, int) else encoder.channels[0]
    try:
        pixels = decode(read(path), channels=channels, long_side=store_size(crop.size))
    except BadImage as bad:
        raise DataError(f"the image can't be read: {bad.what}", where=path, mend="another image") from None
    images, sizes = torch.from_numpy(pixels)[None], torch.tensor([pixels.shape[1:]])
    if towers is not None:
        return towers.pictures(images, sizes)[0]
    view = crop(images, sizes).to(encoder.device.device)
    with torch.no_grad(), evaluation_mode():
        return unit(encoder.vectors(view).float()).cpu()[0]


def _captions(data: str | Path) -> dict[str, str]:
    """Captions by the names of the images, where the data has any."""
    try:
        source = open_source(data, text=True)
    except DataError:
        return {}
    return {name: text for name, text in zip(source.names, source.texts or (), strict=True) if text}


def _hit(found: Found, gallery: Dataset, at: int) -> Hit:
    picture = thumbnail(gallery.inputs[at], gallery.sizes[at], side=SHOWN)
    return Hit(picture, found.caption or found.name, f"{found.cosine:.3f}")
