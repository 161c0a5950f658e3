"""What a training may begin with: the encoder of a finished run, or the answers of one."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

from torch import nn

from ..errors import UsageError
from ..extract import KnownClasses
from ..method import Contrast, Method
from ..methods import METHODS
from ..runs import Run, match_tensors, read_tensors
from ..settings import TrainSettings
from .encoder import stored_method

Networks = tuple[nn.Module, nn.Module]


def begin_with(method: Method, run: str, *, encoder: str) -> None:
    """Gives the encoder of a method the weights of a finished run's.

    Raises:
        UsageError: The run is not finished, or its encoder is another.
        IntegrityError: Its weights don't fit: another size or number of channels.
    """
    folder = Run.open(Path(run))
    path, theirs = _finished(folder), folder.settings["encoder"]
    if theirs != encoder:
        raise UsageError(f"its encoder is {theirs}, not {encoder}", where=f"init {run}", mend=f"--encoder {theirs}")
    weights = read_tensors(path)
    match_tensors(method.encoder.state_dict(), weights, where=path)
    method.encoder.load_state_dict(weights)


def answers_of(run: str | None, settings: TrainSettings, classes: list[str] | None) -> Networks | None:
    """Encoder and classifier of a finished run that told the same classes apart, for the methods that have a teacher.

    Raises:
        UsageError: The method has no teacher, the run no classifier, or it knows other classes.
    """
    if run is None:
        return None
    function = METHODS.get(settings.method)
    if function is not None and "teacher" not in inspect.signature(function).parameters:
        raise UsageError(f"{settings.method} has no teacher of this kind", where="teacher", mend="--method rfs")
    folder = Run.open(Path(run))
    _finished(folder)
    model = Contrast(stored_method(folder))
    if not isinstance(model.pair, KnownClasses):
        raise UsageError(
            f"a run of {folder.settings['method']} has no classifier", where=f"teacher {run}", mend="a run of rfs"
        )
    if folder.info["classes"] != classes:
        raise UsageError(
            "it knows other classes than the data has", where=f"teacher {run}", mend="a run with the same --split"
        )
    checkpoint = folder.load()
    if checkpoint is None:
        raise UsageError("its checkpoints are gone, and its classifier with them", where=f"teacher {run}")
    weights = {name: one for name, one in checkpoint.tensors["model"].items() if not name.startswith("slow.")}
    match_tensors(model.state_dict(), weights, where=checkpoint.path)
    model.load_state_dict(weights)
    return model.encoder, nn.Sequential(model.head, model.pair.classes)


def fingerprint(run: str | None) -> str | None:
    """Hash of a finished run's encoder, so that a training can tell when what it began with has changed."""
    if run is None:
        return None
    return hashlib.sha256(_finished(Run.open(Path(run))).read_bytes()).hexdigest()[:32]


def _finished(run: Run) -> Path:
    path = run.path / "encoder.safetensors"
    if not path.exists():
        mend = "the `nearfar train` command again goes on with it"
        raise UsageError("the run is not finished", where=run.path, mend=mend)
    return path
