"""What a training may begin with: the encoder of a finished run, the beginning of its head, or its answers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ..episodes import Split
from ..errors import UsageError
from ..extract import KnownClasses
from ..method import Method, advance
from ..methods import METHODS
from ..runs import Run, match_tensors, read_tensors
from ..settings import TrainSettings
from .answers import Answers, answers_of, hidden_widths, take_head
from .build import Shape
from .encoder import stored_method


def begin_with(method: Method, run: str, *, encoder: str, head: bool) -> None:
    """Gives the encoder of a method the weights of a finished run's, and with `head` those of its layers to its head.

    Raises:
        UsageError: The run is not finished, its encoder is another, or its head is gone.
        IntegrityError: Its weights don't fit: another size or number of channels.
    """
    folder = Run.open(Path(run))
    path, theirs = _finished(folder), folder.settings["encoder"]
    if theirs != encoder:
        raise UsageError(f"its encoder is {theirs}, not {encoder}", where=f"init {run}", mend=f"--encoder {theirs}")
    take_weights(method, read_tensors(path), where=path)
    if head:
        take_head(method, folder)


def head_of(settings: TrainSettings) -> tuple[int, ...] | None:
    """Widths of the layers of a run's head that a method may go on from; None where it doesn't, or begins with none.

    Raises:
        UsageError: The run is not finished.
    """
    if settings.init is None or not takes(settings, "init_head"):
        return None
    folder = Run.open(Path(settings.init))
    _finished(folder)
    return hidden_widths(stored_method(folder).extract.head)


def take_weights(method: Method, weights: dict[str, Tensor], *, where: object) -> None:
    """Gives the encoder these weights, and its layers that ramp their beginning back.

    Raises:
        IntegrityError: The weights don't fit.
    """
    match_tensors(method.encoder.state_dict(), weights, where=where)
    method.encoder.load_state_dict(weights)
    advance(method.encoder, 0.0)


def teacher_of(settings: TrainSettings, shape: Shape) -> Answers | None:
    """The finished run whose answers are learned, for the methods that have a teacher.

    Raises:
        UsageError: The method has no teacher, the run no classifier, or it was trained on images of another kind.
    """
    run = settings.teacher
    if run is None:
        return None
    if not takes(settings, "teacher"):
        mend = "--method distil, or --method rfs"
        raise UsageError(f"{settings.method} has no teacher of this kind", where="teacher", mend=mend)
    folder = Run.open(Path(run))
    _finished(folder)
    answers, where = answers_of(folder), f"teacher {run}"
    if answers is None:
        method = folder.settings["method"]
        raise UsageError(f"a run of {method} has no classifier", where=where, mend="a run of finetune, rfs or distil")
    theirs = answers.shape
    if theirs.channels != shape.channels:
        raise UsageError(f"its images have {theirs.channels} channels, these {shape.channels}", where=where)
    if theirs.size != shape.size:
        told = f"it was trained on views of {theirs.size} px, and would see views of {shape.size} px"
        raise UsageError(told, where=where, mend=f"--size {theirs.size}")
    return answers


def check_teacher(method: Method, teacher: Answers | None, settings: TrainSettings, classes: list[str] | None) -> None:
    """Raises UsageError where a method needs a teacher and has none, or learns labels that are not the teacher's."""
    pair = method.extract.pair
    if teacher is None and isinstance(pair, KnownClasses) and not pair.own:
        what = f"{settings.method} learns the answers of a finished run, and none is named"
        raise UsageError(what, where="teacher", mend="--teacher RUN, a run of finetune or rfs")
    if teacher is not None and method.extract.labels and teacher.classes != classes:
        raise UsageError(
            "it knows other classes than the data has",
            where=f"teacher {settings.teacher}",
            mend="a run with the same --split, or --method distil, which needs no labels",
        )


def takes(settings: TrainSettings, name: str) -> bool:
    """Whether the method has a keyword argument of this name."""
    function = METHODS.get(settings.method)
    return function is not None and name in inspect.signature(function).parameters


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
