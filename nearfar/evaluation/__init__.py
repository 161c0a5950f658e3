"""How good is an encoder? Each protocol is one function of features and labels; see docs/evaluation.md."""

from .clustering import clustering
from .compare import Evaluation, evaluate_features
from .embeddings import thumbnail, write_embeddings
from .features import features
from .few_labels import few_labels
from .knn import knn, predict_knn
from .linear import fit_linear, linear
from .protocol import Difference, Score, paired_difference
from .report import Picture, write_report
from .retrieval import retrieval
from .stored import stored_features

__all__ = [
    "Difference",
    "Evaluation",
    "Picture",
    "Score",
    "clustering",
    "evaluate_features",
    "features",
    "few_labels",
    "fit_linear",
    "knn",
    "linear",
    "paired_difference",
    "predict_knn",
    "retrieval",
    "stored_features",
    "thumbnail",
    "write_embeddings",
    "write_report",
]
