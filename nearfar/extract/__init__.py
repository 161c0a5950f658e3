"""The third part: heads that make embeddings, and pairs that say who is compared with whom."""

from .classes import KnownClasses as KnownClasses
from .episodes import class_and_instance as class_and_instance
from .episodes import queries_to_means as queries_to_means
from .episodes import queries_to_supports as queries_to_supports
from .heads import Cells as Cells
from .heads import Head as Head
from .heads import linear as linear
from .heads import mlp as mlp
from .pairs import every_view as every_view
from .pairs import own_key as own_key
from .pairs import same_label as same_label
from .patches import Patches as Patches
from .prototypes import Prototypes as Prototypes
from .spatial import SpatialPairs as SpatialPairs
