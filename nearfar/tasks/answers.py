"""What a finished run knows beside its encoder: its head, and where it has one its classifier; from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..encoders.norm import BatchNorm
from ..errors import IntegrityError, UsageError
from ..evaluation import Score, features
from ..evaluation.protocol import accuracy
from ..extract import KnownClasses
from ..method import Contrast, Method
from ..runs import Checkpoint, Run, match_tensors
from .build import Shape
from .encoder import Encoder, stored_method, stored_shape


@dataclass(frozen=True)
class Answers:
    """A finished run that tells classes apart.

    Args:
        encoder: View -> list of feature maps.
        classifier: Feature maps -> scores `[B, C]`.
        classes: Names of the C classes.
        shape: What it was told of its data.
    """

    encoder: nn.Module
    classifier: nn.Module
    classes: list[str]
    shape: Shape


def answers_of(run: Run) -> Answers | None:
    """Encoder and classifier of a finished run as training left them; None where its method has no classifier.

    Raises:
        UsageError: Its checkpoints, which hold the classifier, are gone.
        IntegrityError: The weights don't fit.
    """
    model = Contrast(stored_method(run))
    if not isinstance(model.pair, KnownClasses):
        return None
    checkpoint = last_checkpoint(run, "classifier")
    weights = {name: one for name, one in checkpoint.tensors["model"].items() if not name.startswith("slow.")}
    match_tensors(model.state_dict(), weights, where=checkpoint.path)
    model.load_state_dict(weights)
    classifier = nn.Sequential(model.head, model.pair.classes)
    return Answers(model.encoder, classifier, run.info["classes"], stored_shape(run))


def last_checkpoint(run: Run, wanted: str) -> Checkpoint:
    """The last checkpoint of a finished run.

    Raises:
        UsageError: There is none; `wanted` is what was looked for in it.
    """
    checkpoint = run.load()
    if checkpoint is None:
        gone = f"its checkpoints are gone, and its {wanted} with them"
        raise UsageError(gone, where=run.path, mend="train it again, and keep its folder checkpoints")
    return checkpoint


def hidden_widths(head: nn.Module) -> tuple[int, ...]:
    """Widths of the layers at the beginning of a head that are linear, batch norm, ReLU."""
    layers = getattr(head, "layers", None)
    parts = list(layers) if isinstance(layers, nn.Sequential) else []
    widths = []
    for linear, norm, relu in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if not (isinstance(linear, nn.Linear) and isinstance(norm, BatchNorm) and isinstance(relu, nn.ReLU)):
            break
        widths.append(linear.out_features)
    return tuple(widths)


def take_head(method: Method, run: Run) -> None:
    """Gives the layers of a method's head the weights of those at the beginning of a finished run's.

    Raises:
        UsageError: The run's checkpoints, which hold its head, are gone.
        IntegrityError: The weights don't fit.
    """
    head = method.extract.head
    expected = head.state_dict()
    if not expected:
        return
    checkpoint = last_checkpoint(run, "head")
    model = checkpoint.tensors["model"].items()
    stored = {name.removeprefix("head."): one for name, one in model if name.startswith("head.")}
    match_tensors(expected, {name: one for name, one in stored.items() if name in expected}, where=checkpoint.path)
    head.load_state_dict({name: stored[name] for name in expected})


def own_score(encoder: Encoder, test: Dataset, say: Callable[[str], None]) -> Score | None:
    """Accuracy of a run's own classifier; None where it has none, or it tells other classes apart.

    A classifier that is lost with its checkpoints is said.
    """
    run = Run.open(encoder.run)
    try:
        answers = answers_of(run)
    except (UsageError, IntegrityError) as error:
        say(f"warning: the run's own classifier is not measured: {error.what}")
        return None
    if answers is None or answers.classes != test.classes:
        return None
    device = encoder.device
    net, classifier = answers.encoder.to(device.device), answers.classifier.to(device.device)

    def scores(view: Tensor) -> Tensor:
        with device.autocast():
            maps = net(view)
        return classifier([one.float() for one in maps])

    found = features(scores, test, encoder.transform, device=device.device).argmax(dim=1)
    told = f"the run's own classifier, trained with the encoder ({run.settings['method']}), on the centre crop"
    return accuracy(found, torch.as_tensor(test.labels), told)
