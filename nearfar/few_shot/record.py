"""What a run folder keeps of few-shot evaluations: another one under the same protocol adds rows and loses none."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IntegrityError

_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError)
_BY_NAME = ("encoders", "warnings", "scores", "against")


def with_earlier(now: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """The record of an evaluation, with the rows of an earlier one under the same protocol that it has not.

    Args:
        now: From `FewShotEvaluation.as_dict`.
        earlier: The record so far, or nothing.
    """
    kept = {
        part: {name: value for name, value in earlier.get(part, {}).items() if name not in now["scores"]}
        for part in _BY_NAME
    }
    return now | {part: {**kept[part], **now[part]} for part in _BY_NAME}


def with_earlier_draws(now: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """The accuracies of all episodes, with those of the file for features that are not among them.

    Args:
        now: From `FewShotEvaluation.draws`.
        file: Written from such arrays under the same protocol; or not there.

    Raises:
        IntegrityError: The file is damaged.
    """
    if not file.exists():
        return now
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as found:
            kept = ~np.isin(found["features"], now["features"])
            return now | {
                name: np.concatenate([found[name][kept], now[name]]) for name in ("features", "accuracy")
            }  # fmt: skip
    except _DAMAGE as problem:
        mend = "delete it; the scores of earlier evaluations are in few_shot.json"
        raise IntegrityError(f"not the accuracies of episodes: {problem}", where=file, mend=mend) from problem
