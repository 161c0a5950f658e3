"""Names of files: any bytes a disk allows, written so that Parquet, CSV and HTML can hold them, and back."""

from __future__ import annotations

import re

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_FORMULA = "=+-@"  # a spreadsheet takes a cell that starts so for a formula
_ESCAPED = re.compile(r"\\(u[0-9a-f]{4}|[nrt\\])")


def safe_name(name: str) -> str:
    r"""`name` as valid UTF-8 on one line: for Parquet, CSV, HTML (still to be escaped there) and the screen.

    A byte NN that is not UTF-8 becomes `\udcNN`, as Python holds it; control characters and line separators become `\n`
    or `\uNNNN`, and so does a first character that a spreadsheet takes for a formula; a backslash is doubled.
    `original_name` undoes it all.

    Example:
        >>> safe_name("cat.png"), safe_name("two\nlines.png"), safe_name("caf\udce9.png")
        ('cat.png', 'two\\nlines.png', 'caf\\udce9.png')
    """
    text = "".join(map(_escape, name))
    if text[:1] in _FORMULA and text:
        text = f"\\u{ord(text[0]):04x}{text[1:]}"
    return text


def _escape(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 32 or 0x7F <= code < 0xA0 or 0xD800 <= code <= 0xDFFF or code in (0x2028, 0x2029):
        return f"\\u{code:04x}"
    return character


def original_name(text: str) -> str:
    r"""The name that `safe_name` wrote as `text`.

    Example:
        >>> original_name(safe_name("=two\nlines.png"))
        '=two\nlines.png'
    """
    return _ESCAPED.sub(lambda found: _unescape(found[1]), text)


def _unescape(code: str) -> str:
    return chr(int(code[1:], 16)) if code[0] == "u" else _LONG[code]
