"""Writes ordinary, special and damaged images for the tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(height: int = 48, width: int = 64, *, seed: int = 0) -> Image.Image:
    """A coloured picture with large shapes and some noise, no two seeds alike."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [
        np.sin(rows / random.uniform(4, 12) + columns / random.uniform(4, 12) + random.uniform(0, 6)) for _ in "rgb"
    ]
    values = 128 + 80 * np.stack(waves, axis=-1) + random.normal(0, 12, (height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def write(path: Path, picture: Image.Image | None = None, **options: Any) -> Path:
    """Saves a picture, a photo of its own by default, in the format of the suffix; makes folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or photo(seed=zlib.crc32(str(path).encode("utf-8", "surrogateescape")))).save(path, **options)
    return path


def folder(root: Path, *names: str) -> Path:
    """A folder with a photo under each name."""
    for name in names:
        write(root / name)
    return root


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def oriented(picture: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The picture stored so that this EXIF orientation shows it upright, and the tag."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture.transpose(undo[orientation]) if orientation in undo else picture, exif
