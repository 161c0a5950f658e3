"""nearfar learns embeddings by pulling near what belongs together and pushing far what does not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .data import load as load
    from .data import scan as scan
    from .data.pairs import load_pairs as load_pairs
    from .data.sequences import load_sequences as load_sequences
    from .data.sound import load_sound as load_sound
    from .data.text import load_text as load_text
    from .few_shot.classifier import FewShotClassifier as FewShotClassifier
    from .method import Batch as Batch
    from .method import Contrast as Contrast
    from .method import Extract as Extract
    from .method import Method as Method
    from .method import Pairs as Pairs
    from .method import Teacher as Teacher
    from .methods import METHODS as METHODS
    from .tasks import ablate as ablate
    from .tasks import classify as classify
    from .tasks import embed as embed
    from .tasks import evaluate as evaluate
    from .tasks import evaluate_few_shot as evaluate_few_shot
    from .tasks import load_encoder as load_encoder
    from .tasks import new_method as new_method
    from .tasks import preview as preview
    from .tasks import search as search
    from .tasks import train as train
    from .tasks import zero_shot as zero_shot

_HOMES = {
    "load": "data", "scan": "data", "METHODS": "methods",
    "Batch": "method", "Contrast": "method", "Extract": "method", "Method": "method", "Pairs": "method",
    "Teacher": "method",
    "FewShotClassifier": "few_shot.classifier", "classify": "tasks", "evaluate_few_shot": "tasks",
    "embed": "tasks", "evaluate": "tasks", "load_encoder": "tasks", "preview": "tasks", "train": "tasks",
    "ablate": "tasks", "new_method": "tasks", "search": "tasks", "zero_shot": "tasks",
    "load_pairs": "data.pairs", "load_sequences": "data.sequences", "load_sound": "data.sound",
    "load_text": "data.text",
}  # fmt: skip
_MODULES = ("data", "encoders", "extract", "losses", "memory", "methods", "optim", "schedules", "similarity", "views")
__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that `import nearfar` needs no torch."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
