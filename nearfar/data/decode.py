"""One encoded image in, upright uint8 pixels out, or a short reason why not."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .formats import looks_like, open_pillow, sniff, unsupported
from .jpeg import decode_jpeg
from .pixels import BadImage, fit, pillow_to_uint8, upright

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 100_000_000
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
# What Pillow's readers have been seen to raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError)
_DAMAGE += (MemoryError, NotImplementedError, struct.error, zlib.error, Warning)


@dataclass(frozen=True)
class Header:
    """What can be told without decoding.

    Args:
        kind: Format, as `formats.sniff` names it.
        height: Rows, upright.
        width: Columns, upright.
        mode: Pillow's name of the pixel type.
        grey: True where colour cannot occur.
        animated: True where there are more frames or pages than the first.
        orientation: EXIF orientation still to be applied, 1 to 8.
    """

    kind: str
    height: int
    width: int
    mode: str
    grey: bool
    animated: bool
    orientation: int


def read(item: bytes | Path) -> bytes:
    """The bytes of a file, or `item` itself where it is bytes.

    Raises:
        BadImage: `unreadable`.
    """
    if isinstance(item, bytes):
        return item
    try:
        return item.read_bytes()
    except OSError as problem:
        raise BadImage("unreadable", problem.strerror or type(problem).__name__) from None


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Format, size and orientation from the header; no memory is taken for pixels.

    Args:
        data: The encoded image.
        max_pixels: Largest height times width that is not refused.

    Raises:
        BadImage: `empty`, `not an image`, `unsupported format`, `damaged`, `too large`.
    """
    if not data:
        raise BadImage("empty")
    kind = sniff(data[:32])
    if not kind:
        name = unsupported(data[:32])
        raise BadImage("unsupported format", name) if name else BadImage("not an image", looks_like(data[:512]))
    with _damage_named(), open_pillow(data, kind) as picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise BadImage("too large", f"{width} x {height} pixels, limit {max_pixels:,}")
        orientation = _orientation(picture, kind, data)
        if 5 <= orientation <= 8:
            width, height = height, width
        animated = bool(getattr(picture, "is_animated", False))
        return Header(kind, height, width, picture.mode, _is_grey(picture), animated, orientation)


def decode(
    item: bytes | Path,
    *,
    channels: int,
    long_side: int,
    background: int = 255,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """One image as uint8 `[channels, h, w]`: first frame, upright, aspect kept, antialiased, never enlarged.

    Deep pixels are scaled by their bit depth, transparent ones laid over `background`, CMYK and palettes become RGB.

    Args:
        item: The encoded image, or its path.
        channels: 1 (luma) or 3 (RGB).
        long_side: Largest height or width of the result, >= 1.
        background: Grey value, 0 to 255, behind transparent pixels.
        max_pixels: Largest height times width that is not refused.

    Raises:
        BadImage: With a `reason`; damaged pixels are never returned.
    """
    data = read(item)
    header = inspect(data, max_pixels=max_pixels)
    with _damage_named():
        if header.kind == "Jpeg":
            size = (header.width, header.height) if header.orientation >= 5 else (header.height, header.width)
            array = decode_jpeg(data, mode=header.mode, size=size, channels=channels, long_side=long_side)
        else:
            array = _decode_other(data, header.kind, channels, background)
    array = fit(upright(array, header.orientation), long_side)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def _decode_other(data: bytes, kind: str, channels: int, background: int) -> np.ndarray:
    if kind == "Png":
        _check_png(data)
    with open_pillow(data, kind) as picture:
        tags = getattr(picture, "tag_v2", {})
        bits = tags.get(_BITS_PER_SAMPLE, 16)
        bits = min(16, bits[0] if isinstance(bits, tuple) else bits)
        picture.load()
        return pillow_to_uint8(picture, bits=bits, channels=channels, background=background)


def _check_png(data: bytes) -> None:
    """Compares the checksum of every chunk, which decoding leaves out (PNG specification, section 5.3)."""
    view, position, kind = memoryview(data), 8, b""
    while kind != b"IEND":
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(data):
            raise BadImage("truncated", "the last chunk of the PNG is missing")
        kind = bytes(view[position + 4 : position + 8])
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise BadImage("damaged", f"wrong checksum in PNG chunk {kind!r}")
        position = end + 4


def _orientation(picture: ImageFile, kind: str, data: bytes) -> int:
    """EXIF orientation. Pillow applies a TIFF's itself, and would decode a whole PNG to look for one."""
    if kind not in ("Jpeg", "Png", "WebP"):
        return 1
    if kind == "Png" and b"eXIf" not in data and b"tiff:Orientation" not in data:
        return 1
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_grey(picture: ImageFile) -> bool:
    if picture.mode == "P" and picture.palette is not None:
        palette = np.frombuffer(bytes(picture.palette.palette), np.uint8)
        step = len(picture.palette.mode)
        return bool((palette[0::step] == palette[1::step]).all() and (palette[0::step] == palette[2::step]).all())
    return picture.mode in ("1", "L", "LA", "La", "F") or picture.mode.startswith("I")


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    """Turns what a decoder raises into `BadImage`."""
    from PIL.Image import DecompressionBombError

    try:
        yield
    except BadImage:
        raise
    except DecompressionBombError as problem:
        raise BadImage("too large", str(problem)) from None
    except _DAMAGE as problem:
        text = str(problem)
        short = any(word in text.lower() for word in ("truncated", "end of file", "not enough", "unexpected end"))
        raise BadImage("truncated" if short else "damaged", text[:120]) from None
