"""What a file is, told by its first bytes alone; and the short list of formats that are ever handed to a decoder."""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

UNSUPPORTED = (".heic", ".heif", ".avif", ".jp2", ".jxl")  # listed as unsupported instead of passed over
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".dib"]
    + [".ppm", ".pgm", ".pbm", ".pnm", *UNSUPPORTED]
)
_FIRST_BYTES = (
    (b"\xff\xd8\xff", "Jpeg"),
    (b"\x89PNG\r\n\x1a\n", "Png"),
    (b"GIF87a", "Gif"),
    (b"GIF89a", "Gif"),
    (b"II*\0", "Tiff"),
    (b"MM\0*", "Tiff"),
    (b"II+\0", "Tiff"),
    (b"MM\0+", "Tiff"),
    (b"BM", "Bmp"),
)
_OTHERS = (
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"PAR1", "Parquet"),
    (b"\x93NUMPY", "a NumPy array"),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}


def sniff(head: bytes) -> str:
    """The format of an image we decode (`Jpeg`, `Png`, `Gif`, `Tiff`, `Bmp`, `WebP`, `Ppm`), or an empty string.

    Args:
        head: First 32 bytes or more.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "Ppm"
    return next((name for start, name in _FIRST_BYTES if head.startswith(start)), "")


def unsupported(head: bytes) -> str:
    """The name of an image format that is known but not decoded, or an empty string."""
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    if head.startswith(b"\0\0\0\x0cjP  "):
        return "JPEG 2000"
    return "JPEG XL" if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")) else ""


def looks_like(head: bytes) -> str:
    """What a file that is no image seems to be, in words for a person.

    Example:
        >>> looks_like(b"<html>404</html>"), looks_like(b"hello")
        ('HTML', 'text')
    """
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if start.startswith((b"<svg", b"<?xml")):
        return "XML or SVG"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if not head.strip(b"\0"):
        return "zero bytes"
    return "text" if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head[:512]) else "unknown bytes"


def open_pillow(data: bytes, kind: str) -> ImageFile:
    """Pillow's reader for exactly this format, header read and nothing decoded.

    `Image.open` would try formats that are not on our list, and checks sizes against a limit of the whole process.
    """
    plugin = import_module(f"PIL.{kind}ImagePlugin")
    return getattr(plugin, f"{kind}ImageFile")(io.BytesIO(data))
