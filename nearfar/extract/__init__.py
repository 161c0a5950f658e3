"""The third part: heads that make embeddings, and pairs that say who is compared with whom."""

from .heads import Head as Head
from .heads import linear as linear
from .heads import mlp as mlp
from .pairs import every_view as every_view
from .pairs import own_key as own_key
from .pairs import same_label as same_label
