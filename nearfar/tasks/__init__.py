"""What a user does: train, evaluate, classify, search, embed and others; the commands have the same names."""

from .ablate import ablate as ablate
from .classify import classify as classify
from .embed import embed as embed
from .encoder import Encoder as Encoder
from .encoder import load_encoder as load_encoder
from .evaluate import evaluate as evaluate
from .few_shot import evaluate_few_shot as evaluate_few_shot
from .new_method import new_method as new_method
from .preview import preview as preview
from .search import search as search
from .train import train as train
from .zero_shot import zero_shot as zero_shot
