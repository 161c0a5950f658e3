"""The five-part study: a base method with one part swapped at a time, over seeds, with intervals."""

from .intervals import Comparison as Comparison
from .intervals import Mean as Mean
from .study import Row as Row
from .study import Study as Study
from .variants import VARIANTS as VARIANTS
