"""What a user does: train, evaluate, embed, preview. The same names on the command line and in Python."""

from .embed import embed as embed
from .encoder import Encoder as Encoder
from .encoder import load_encoder as load_encoder
from .evaluate import evaluate as evaluate
from .preview import preview as preview
from .train import train as train
