"""The fifth part: losses, `(Pairs, Similarity) -> scalar`."""

from .aligned import aligned_infonce as aligned_infonce
from .divergence import divergence as divergence
from .hinge import hinge as hinge
from .infonce import infonce as infonce
from .learned import LearnedSigmoid as LearnedSigmoid
from .learned import LearnedTemperature as LearnedTemperature
from .nce import NCE as NCE
from .penalty import penalised as penalised
from .sigmoid import sigmoid as sigmoid
