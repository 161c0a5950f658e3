"""A head over thousands of episodes: features are gathered from a bank block by block, never all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, UsageError
from .heads import Head

if TYPE_CHECKING:
    from ..episodes import Episodes

BLOCK_VALUES = {"cpu": 2**22, "cuda": 2**26}
"""Features gathered at once: 16 MiB of float32 on a CPU, 256 MiB on a GPU. Measured on a busy CPU over 400 episodes of
100 rows of 640, nearest mean and logistic regression: 84 and 300 us an episode in blocks of 16, 72 and 231 us in blocks
of 66, 174 and 289 us in blocks of 200, for which the allocator goes to the system each time."""


@torch.no_grad()
def predict(
    bank: Tensor | np.ndarray,
    episodes: Episodes,
    head: Callable[..., Tensor],
    *,
    block: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Tensor:
    """The answer of a head to every query of every episode.

    Args:
        bank: Features `[N, D]`, float32 or float64; the episodes' places are its rows.
        episodes: T episodes.
        head: One of `nearfar.few_shot.heads.HEADS`, or a function called in the same way.
        block: Episodes at once; None: as many as keep the features of a block small. Changes no answer.
        progress: Called with the number of episodes done and of all: before the first block and after each.
        options: Passed on to the head. A tensor with two axes has one row for each episode.

    Returns:
        Classes int64 `[T, Q]` within each episode, on the CPU.

    Raises:
        UsageError: A bank of another type or shape.
        DataError: Features, or a centre among the options, that are no numbers or too large.
    """
    bank = as_features(bank)
    if isinstance(options.get("centre"), Tensor):
        check_features(options["centre"][None], where="centre")
    if isinstance(head, Head) and head.prepare is not None:
        bank, head = head.prepare(bank), replace(head, prepare=None)
    support, labels, query = (
        torch.from_numpy(part).to(bank.device) for part in (episodes.support, episodes.support_label, episodes.query)
    )
    places = torch.cat([support, query], dim=1)
    (count, rows), shots = places.shape, support.shape[1]
    block = block or max(1, BLOCK_VALUES.get(bank.device.type, BLOCK_VALUES["cpu"]) // (rows * bank.shape[1]))
    gathered = bank.new_empty(min(block, count) * rows, bank.shape[1])
    predicted = torch.empty(query.shape, dtype=torch.int64)
    progress = progress or _silent
    progress(0, count)
    for first in range(0, count, block):
        part = slice(first, first + block)
        wanted = places[part].flatten()
        torch.index_select(bank, 0, wanted, out=gathered[: len(wanted)])
        features = gathered[: len(wanted)].unflatten(0, (-1, rows))
        scores = head(features[:, :shots], labels[part], features[:, shots:], ways=episodes.ways, **_of(options, part))
        predicted[part] = scores.argmax(dim=-1).cpu()
        progress(min(first + block, count), count)
    return predicted


def as_features(x: Tensor | np.ndarray, *, where: str = "features") -> Tensor:
    """Features `[N, D]` as a tensor, checked by `check_features`; an array shares its memory where torch can."""
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise UsageError(f"an array of {x.dtype}", where=where, mend='numbers [N, D]: x.astype("float32")')
        x = torch.from_numpy(np.require(x, requirements=["C", "W"]))  # torch warns of arrays that are read-only
    check_features(x, where=where)
    return x


def check_features(x: Tensor, *, where: str = "features") -> None:
    """Raises UsageError unless x is float32 or float64 `[N, D]`, DataError where rows are no numbers or too large.

    Heads square lengths and add a few of them: a row may be as long as a sixteenth of the root of the largest number,
    1e18 in float32.
    """
    if x.ndim != 2 or x.dtype not in (torch.float32, torch.float64):
        what = f"features are {str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
        raise UsageError(what, where=where, mend="float32 or float64 [N, D], a row an image")
    length = torch.linalg.vector_norm(x, dim=1)
    longest = torch.finfo(x.dtype).max ** 0.5 / 16
    if bool((length <= longest).all()):
        return
    broken = int((~x.isfinite().all(dim=1)).sum())
    if broken:
        mend = "see what they come from: a training that diverged, or a division by zero"
        raise DataError(f"{broken} of {len(x):,} rows hold NaN or infinity", where=where, mend=mend)
    large = int((~(length <= longest)).sum())
    what = f"{large} of {len(x):,} rows are longer than {longest:.0e}: their squares overflow"
    raise DataError(what, where=where, mend="divide all features by the same large number")


def _of(options: dict[str, Any], part: slice) -> dict[str, Any]:
    """The options of some episodes."""
    return {k: v[part] if isinstance(v, Tensor) and v.ndim == 2 else v for k, v in options.items()}


def _silent(done: int, total: int) -> None:
    """Says nothing."""
