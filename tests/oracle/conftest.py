"""Set before any test imports a library that imports triton: its own functions are made for the interpreter then."""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
