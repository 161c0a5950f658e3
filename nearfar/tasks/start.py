"""What a training may begin with: the encoder of a finished run, or the answers of one."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from ..episodes import Split
from ..errors import UsageError
from ..extract import KnownClasses
from ..method import Contrast, Method, advance
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
    take_weights(method, read_tensors(path), where=path)


def take_weights(method: Method, weights: dict[str, Tensor], *, where: object) -> None:
    """Gives the encoder these weights, and its layers that ramp their beginning back.

    Raises:
        IntegrityError: The weights don't fit.
    """
    match_tensors(method.encoder.state_dict(), weights, where=where)
    method.encoder.load_state_dict(weights)
    advance(method.encoder, 0.0)


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


def seen_classes(
    settings: TrainSettings, classes: list[str] | None, split: Split | None, say: Callable[[str], None]
) -> list[str] | None:
    """Names of the classes that the weights will have been trained on: of the data, and of what the run begins with.

    None where that can't be told: some of it had no labels.

    Raises:
        UsageError: What the run begins with has seen classes that the split keeps for later.
    """
    seen: set[str] | None = set(classes) if classes is not None else None
    for name, path in (("init", settings.init), ("teacher", settings.teacher)):
        if path is None:
            continue
        info = Run.open(Path(path)).info
        theirs = info.get("seen", info["classes"])
        if theirs is None and split is not None:
            say(f"warning: what {name} {path} was trained on had no labels, so it may have seen the test classes")
        kept = split.kept_from(theirs or ()) if split is not None else []
        if kept:
            raise UsageError(
                f"it was trained on {len(kept)} classes that {split.name if split else ''} keeps for later, such as "
                f"{kept[0]}",
                where=f"{name} {path}",
                mend=f"a run that was trained with --split {settings.split}",
            )
        seen = None if seen is None or theirs is None else seen | set(theirs)
    return None if seen is None else sorted(seen)


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
