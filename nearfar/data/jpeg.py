"""JPEG by libjpeg-turbo, where every warning is an error, and one check that it lacks."""

from __future__ import annotations

import re

import numpy as np

from .formats import open_pillow
from .pixels import BadImage, fitted_size, luma, pillow_to_uint8

# Warnings about a header that decoders agree on; the picture is whole.
_HARMLESS = ("Invalid SOS parameters", "unknown JFIF revision", "Unknown Adobe color transform")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # inside picture data: neither a stuffed byte nor a restart
_RUN = 48  # bytes; with the standard tables two blocks of identical coefficients, which no encoder writes
_REFINE_RUN = 160  # bytes; libjpeg may write up to 1,000 correction bits of zero in a refining scan


def decode_jpeg(data: bytes, *, mode: str, size: tuple[int, int], channels: int, long_side: int) -> np.ndarray:
    """Pixels uint8 `[h, w, channels]`, not yet turned upright, scaled while decoding to no less than twice the target.

    Args:
        data: The file.
        mode: Pillow's name of the colour space: L, RGB or CMYK.
        size: Height and width in the file.
        channels: 1 or 3.
        long_side: Longer side wanted later.

    Raises:
        BadImage: `truncated` or `damaged`.
    """
    from simplejpeg import decode_jpeg as turbo

    height, width = (2 * side for side in fitted_size(*size, long_side))
    space = "GRAY" if channels == 1 and mode != "CMYK" else "RGB"
    options = {"colorspace": space, "min_height": min(height, size[0]), "min_width": min(width, size[1])}
    try:
        array = turbo(data, **options)
    except ValueError as problem:
        text = str(problem)
        if "subsampling level" in text:
            array = _decode_by_pillow(data, channels)
        elif any(harmless in text for harmless in _HARMLESS):
            array = turbo(data, strict=False, **options)
        else:
            raise BadImage("truncated" if "end of JPEG file" in text else "damaged", text) from None
    if zeroed(data):
        raise BadImage("damaged", "a run of zero bytes inside the picture")
    return luma(array) if channels == 1 and array.shape[2] == 3 else array


def _decode_by_pillow(data: bytes, channels: int) -> np.ndarray:
    """For sampling factors that libjpeg-turbo's simple interface does not know (CMYK with 4:2:0)."""
    with open_pillow(data, "Jpeg") as picture:
        return pillow_to_uint8(picture, bits=8, channels=channels, background=255)


def zeroed(data: bytes) -> bool:
    """True where the picture holds a run of zero bytes that no encoder writes: a block of the disk that was lost.

    Zero bits are a valid code, so a decoder goes on without a word if the number of blocks still fits (measured: 4 to
    70 % of 200-byte holes). What they stand for is in the Huffman tables: the first symbol of each. Where it is "end of
    block", a run is just a flat area; anything else would repeat one coefficient all over.
    """
    start = data.find(b"\xff\xda")
    if start < 0 or data.find(bytes(_RUN), start) < 0:
        return False
    progressive, first_symbol = False, {}
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == 0xC4:
            first_symbol.update(_first_symbols(body))
        elif 0xC0 <= marker <= 0xCF:
            progressive = marker == 0xC2
        elif marker == 0xDA:
            found = _MARKER.search(data, position)
            end = found.start() if found else len(data)
            run = _longest_allowed(body, progressive, first_symbol)
            if run and data.find(bytes(run), position, end) >= 0:
                return True
            position = end
        elif marker == 0xD9:
            break
    return False


def _first_symbols(body: bytes) -> dict[int, int]:
    """Symbol of the code of zero bits, by table (class * 16 + number), of a DHT segment (ITU-T T.81, B.2.4.2)."""
    symbols = {}
    while len(body) > 17:
        symbols[body[0]] = body[17]
        body = body[17 + sum(body[1:17]) :]
    return symbols


def _longest_allowed(body: bytes, progressive: bool, first_symbol: dict[int, int]) -> int:
    """Bytes of zero that cannot be in the scan with this header (ITU-T T.81, B.2.3); 0: any number can."""
    parts = body[0]
    tables = {0x10 | (body[2 + 2 * part] & 15) for part in range(parts)}
    first, refining = body[1 + 2 * parts], body[3 + 2 * parts] >> 4
    if progressive and first == 0:
        return 0  # mean values only: flat areas are runs of zeros
    if progressive and refining:
        return _REFINE_RUN
    return _RUN if any(first_symbol.get(table, 0) for table in tables) else 0
