"""What a user does: train, evaluate, classify, embed, preview. The same names on the command line and in Python."""

from .classify import classify as classify
from .embed import embed as embed
from .encoder import Encoder as Encoder
from .encoder import load_encoder as load_encoder
from .evaluate import evaluate as evaluate
from .few_shot import evaluate_few_shot as evaluate_few_shot
from .preview import preview as preview
from .train import train as train
