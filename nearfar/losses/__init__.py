"""The fifth part: losses, `(Pairs, Similarity) -> scalar`."""

from .aligned import aligned_infonce as aligned_infonce
from .attract import attract as attract
from .correlation import correlation as correlation
from .divergence import cross_entropy as cross_entropy
from .divergence import divergence as divergence
from .hinge import hinge as hinge
from .infonce import infonce as infonce
from .learned import LearnedSigmoid as LearnedSigmoid
from .learned import LearnedTemperature as LearnedTemperature
from .nce import NCE as NCE
from .penalty import penalised as penalised
from .reweighted import reweighted as reweighted
from .sigmoid import sigmoid as sigmoid
from .spread import spread as spread
from .variance import variance_covariance as variance_covariance
