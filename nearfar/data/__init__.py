"""Data: what a path holds, decoded once, with its faults named."""

from __future__ import annotations

from .dataset import Dataset as Dataset
from .dataset import load as load
from .decode import decode as decode
from .inputs import Column as Column
from .inputs import Ragged as Ragged
from .names import original_name as original_name
from .names import safe_name as safe_name
from .pixels import BadImage as BadImage
from .scan import Scan as Scan
from .scan import duplicates_across as duplicates_across
from .scan import scan as scan
