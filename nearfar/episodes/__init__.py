"""Few-shot episodes: which images they are made of, and which classes may be seen when."""

from __future__ import annotations

from .listing import Episodes as Episodes
from .listing import stored as stored
from .rotations import with_rotations as with_rotations
from .sampler import EpisodeSampler as EpisodeSampler
from .splits import SPLITS as SPLITS
from .splits import Split as Split
from .splits import open_split as open_split
from .variable import VariableSampler as VariableSampler
