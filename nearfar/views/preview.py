"""A contact sheet of views: the quickest way to see a wrong setting before it costs a training run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .centre import CentreCrop
from .render import normalisation
from .view import View

if TYPE_CHECKING:
    from ..method import Batch

CELL, GAP, EDGE, HEAD = 112, 6, 20, 58  # pixels
PAPER, INK, FAINT = (255, 255, 255), (32, 33, 36), (120, 124, 130)


class Drawn(Protocol):
    """Views of a method that are made of `View`."""

    @property
    def views(self) -> Sequence[View]: ...
    def __call__(self, batch: Batch, /) -> list[Tensor]: ...


def preview_sheet(batch: Batch, views: Drawn, path: str | Path, *, columns: int = 6, rows: int = 8) -> None:
    """Writes a PNG with one row an image: the original, then its views as training sees them, de-normalised.

    Args:
        batch: Where the images come from; seed and epoch are those of its views.
        views: Views of a method. Where there are fewer than columns, those of the next epochs follow.
        path: File to write.
        columns: Views in a row.
        rows: Images, at most as many as the batch has.

    Images of neither 1 nor 3 channels are shown by their first. Patches lie on their grid, a pixel apart. Where a
    method takes its views apart in another way (lightness and colour), they are shown as they are before, and the sheet
    says so.
    """
    count = min(rows, len(batch.inputs))
    first = batch.head(count)
    largest = max(view.size for view in views.views)
    channels = first.inputs.shape[1]
    crop = CentreCrop(largest, mean=(0.0,) * channels, std=(1.0,) * channels)
    tiles, names = [_pixels(crop(first.inputs, first.sizes).numpy())], ["original"]
    for column in range(columns):
        number, later = column % len(views.views), column // len(views.views)
        view, epoch = views.views[number], first.epoch + later
        made, whole = _made(replace(first, epoch=epoch), views, number)
        mean, std = (np.array(v).reshape(1, -1, 1, 1) for v in normalisation(view.mean, view.std, made.shape[-3]))
        tiles.append(_pixels(_laid(made.numpy() * std + mean)))
        names.append(f"view {number + 1}, epoch {epoch}")
    caption = f"{count} images, seed {first.seed}, {largest} px: {_settings(views)}"
    caption += "; before the method takes them apart" * whole
    _sheet(tiles, names, caption).save(path, format="PNG")


def _made(batch: Batch, views: Drawn, number: int) -> tuple[Tensor, bool]:
    """One of the views of a batch, or its patches; where it is taken apart otherwise, the whole, and True."""
    pictures = [view for view in views(batch) if view.ndim in (4, 5) and view.is_floating_point()]
    if len(pictures) == len(views.views):
        return pictures[number], False
    draw = views.views[number].draw(batch.ids, batch.sizes, seed=batch.seed, epoch=batch.epoch, view=number)
    return views.views[number].apply(batch.inputs, draw), True


def _laid(images: NDArray[np.floating]) -> NDArray[np.floating]:
    """Patches `[B, P, C, q, q]` of a square grid side by side, `[B, C, S, S]`; images as they are."""
    if images.ndim == 4:
        return images
    apart = np.pad(images, ((0, 0),) * 3 + ((0, 1), (0, 1)), constant_values=1.0)
    (count, cells, channels), side = apart.shape[:3], apart.shape[-1]
    rows = math.isqrt(cells)
    laid = apart.reshape(count, rows, rows, channels, side, side).transpose(0, 3, 1, 4, 2, 5)
    return laid.reshape(count, channels, rows * side, rows * side)


def _pixels(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values in [0, 1], `[B, C, S, S]` -> uint8 `[B, S, S, 3]`."""
    array = images.transpose(0, 2, 3, 1)
    array = array if array.shape[3] == 3 else array[..., :1].repeat(3, axis=3)
    return (array.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _settings(views: Drawn) -> str:
    """What tells the first view from another in few words."""
    view = views.views[0]
    least, most = (f"{share:.3g}" for share in view.scale)
    share = f"crop {least if least == most else f'{least} to {most}'} of the area"
    share += f" with a {'mirrored ' if view.reflect else ''}margin of {view.pad:g}" if view.pad else ""
    share += f", {view.crop_p:g} of the time" if view.crop_p < 1 else ""
    rates = {"flip": view.flip, "jitter": view.jitter_p, "grey": view.grey_p, "blur": view.blur_p}
    rates["solarise"] = view.solarise_p
    return ", ".join([share, *(f"{name} {rate:g}" for name, rate in rates.items() if rate > 0)])


def _sheet(tiles: list[NDArray[np.uint8]], names: list[str], caption: str) -> Image.Image:
    """Tiles as columns `[rows, S, S, 3]` with their names above, the first set off from the others."""
    step, apart = CELL + GAP, 2 * GAP
    large, small = ImageFont.load_default(13), ImageFont.load_default(11)
    width = 2 * EDGE + max(step * len(tiles) - GAP + apart, round(large.getlength(caption)))
    sheet = Image.new("RGB", (width, HEAD + EDGE + step * len(tiles[0]) - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((EDGE, 12), caption, fill=INK, font=large)
    for column, (images, name) in enumerate(zip(tiles, names, strict=True)):
        left = EDGE + step * column + (apart if column else 0)
        pen.text((left, HEAD - 18), name, fill=FAINT, font=small)
        for row, image in enumerate(images):
            way = Image.Resampling.NEAREST if len(image) <= CELL else Image.Resampling.LANCZOS
            tile = Image.fromarray(image).resize((CELL, CELL), way)
            sheet.paste(tile, (left, HEAD + step * row))
    return sheet
