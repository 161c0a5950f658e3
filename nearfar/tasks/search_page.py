"""What a search found, on one page: HTML that opens offline, or a PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from ..data import safe_name
from ..runs.atomic import disk_errors, replace, write_text

CELL, GAP, EDGE, HEAD, LINE = 128, 12, 20, 58, 34  # pixels
PAPER, INK, FAINT = (255, 255, 255), (32, 33, 36), (120, 124, 130)
COLUMNS = 6
TEMPLATE = "search.html.j2"


@dataclass(frozen=True)
class Hit:
    """One picture of the page: its PNG, what it is called, and its score."""

    png: bytes
    name: str
    score: str


def write_page(path: Path, *, title: str, hits: Sequence[Hit], about: str) -> None:
    """Writes the page whole or not at all; text from outside is escaped.

    Args:
        path: `.png`, or anything else for HTML.
        title: What was asked.
        hits: Best first.
        about: Where it was looked for, in a line.

    Raises:
        DeviceError: The disk refuses.
    """
    title, about = safe_name(title), safe_name(about)
    with disk_errors(path):
        if path.suffix.lower() == ".png":
            sheet = _sheet(title, hits, about)
            replace(path, lambda part: sheet.save(part, format="PNG"))
        else:
            write_text(path, _html(title, hits, about))


def _html(title: str, hits: Sequence[Hit], about: str) -> str:
    text = files("nearfar.tasks").joinpath(TEMPLATE).read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(text)
    rows = [
        (f"data:image/png;base64,{base64.b64encode(hit.png).decode()}", safe_name(hit.name), hit.score) for hit in hits
    ]
    return page.render(title=title, about=about, hits=rows)


def _sheet(title: str, hits: Sequence[Hit], about: str) -> Image.Image:
    large, small = ImageFont.load_default(15), ImageFont.load_default(11)
    across, down = min(len(hits), COLUMNS), -(-len(hits) // COLUMNS)
    width = 2 * EDGE + max(across * (CELL + GAP) - GAP, 3 * CELL)
    sheet = Image.new("RGB", (width, HEAD + EDGE + down * (CELL + LINE + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((EDGE, 12), _fitting(title, large, width - 2 * EDGE), fill=INK, font=large)
    pen.text((EDGE, 34), _fitting(about, small, width - 2 * EDGE), fill=FAINT, font=small)
    for number, hit in enumerate(hits):
        left = EDGE + number % COLUMNS * (CELL + GAP)
        top = HEAD + number // COLUMNS * (CELL + LINE + GAP)
        picture = Image.open(io.BytesIO(hit.png)).convert("RGB")
        scale = CELL / max(picture.size)
        picture = picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
        sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
        pen.text((left, top + CELL + 2), hit.score, fill=INK, font=small)
        pen.text((left, top + CELL + 16), _fitting(safe_name(hit.name), small, CELL), fill=FAINT, font=small)
    return sheet


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a text as there is room for. The font has no glyphs beyond Latin 1."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
