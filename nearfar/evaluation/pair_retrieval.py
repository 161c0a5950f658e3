"""Does an image find its caption, and a caption its image?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import UsageError
from ..similarity import unit
from .protocol import Score, matrix, same_width, wilson

ELEMENTS = 2**23
"""Similarities that are ranked at once: 32 MiB."""
WAYS = ("image to text", "text to image")


@dataclass(frozen=True)
class PairRetrieval:
    """Recall both ways.

    Args:
        scores: "image to text recall@1" and so on.
        chance: The same for a search that ranks by chance.
    """

    scores: dict[str, Score]
    chance: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {"scores": {name: score.as_dict() for name, score in self.scores.items()}, "chance": self.chance}

    def as_text(self) -> str:
        """A line for each score, in per cent."""
        lines = [
            f"{name:26} {score!s:>12}   chance {100 * self.chance[name]:.1f}" for name, score in self.scores.items()
        ]
        return "\n".join(lines)


def pair_retrieval(
    images: ArrayLike | Tensor,
    texts: ArrayLike | Tensor,
    *,
    image_keys: ArrayLike | Tensor | None = None,
    text_keys: ArrayLike | Tensor | None = None,
    pairs: ArrayLike | Tensor | None = None,
    at: Sequence[int] = (1, 5, 10),
) -> PairRetrieval:
    """Each image ranks all texts by cosine, each text all images; recall@k is the share that finds a right one among k.

    Right is every candidate with the query's key, so a caption that stands beside several images finds any of them.
    Where candidates are tied with the best right one, the expected value over the orders of the tie is counted: with
    a candidates above, t in the tie and r right ones among them,

        hit = 1 - C(t - r, k - a) / C(t, k - a)

    so embeddings that are all alike score as chance does, whatever their order. Queries without a right answer are
    left out. Chance is the same for a random order of all: `1 - C(M - r, k) / C(M, k)`.

    Args:
        images: Embeddings `[N, D]`.
        texts: Embeddings `[M, D]`.
        image_keys: int `[N]`; None: 0 to N - 1.
        text_keys: int `[M]`; None: 0 to M - 1, row i belongs to image i.
        pairs: Key of an image and key of a text that belong together, int `[P, 2]`; None: those that are equal. With it
            an image may have several texts, of which one belongs to other images too.
        at: The k of recall@k, each >= 1.

    Raises:
        UsageError: Shapes that don't fit, or nobody has a right answer.

    Source: recall@k both ways as for Flickr30K, Karpathy & Fei-Fei, Deep Visual-Semantic Alignments, CVPR 2015,
    section 4.1, https://arxiv.org/abs/1412.2306; ties as here are our choice.

    Example:
        >>> found = pair_retrieval(torch.eye(4), torch.eye(4), at=(1,))
        >>> found.scores["text to image recall@1"].value, round(found.chance["text to image recall@1"], 4)
        (1.0, 0.25)
    """
    x, y = matrix(images, "images"), matrix(texts, "texts")
    same_width(x, y)
    keys = [
        torch.arange(len(rows)) if given is None else torch.as_tensor(given)
        for rows, given in ((x, image_keys), (y, text_keys))
    ]
    for name, rows, key in zip(("image_keys", "text_keys"), (x, y), keys, strict=True):
        if key.shape != (len(rows),):
            raise UsageError(f"{list(key.shape)} keys for {len(rows)} rows", where=name, mend="one key a row")
    if not at or min(at) < 1:
        raise UsageError(f"recall at {list(at)}", where="at", mend="whole numbers from 1 on")
    known = None if pairs is None else torch.as_tensor(pairs)
    both = (known, None if known is None else known.flip(1))
    ways = zip(WAYS, ((x, y), (y, x)), (keys, keys[::-1]), both, strict=True)
    scores: dict[str, Score] = {}
    chance: dict[str, float] = {}
    for way, (queries, bank), (query_keys, bank_keys), belong in ways:
        found, expected = _one_way(unit(queries), unit(bank), query_keys, bank_keys, belong, at)
        if not len(found):
            raise UsageError("no query has a right answer", where="keys", mend="keys that both sides share")
        left_out = len(queries) - len(found)
        for column, k in enumerate(at):
            name, hits = f"{way} recall@{k}", found[:, column]
            low, high = wilson(round(float(hits.sum())), len(hits))
            text = (
                f"{way}: share of {len(hits)} queries with a right one among the {k} nearest of {len(bank)}, cosine; "
            )
            text += "ties by their expected value; 95 % Wilson interval over queries"
            text += f"; {left_out} queries without a right answer left out" * bool(left_out)
            scores[name] = Score(float(hits.mean()), low, high, text)
            chance[name] = float(expected[:, column].mean())
    return PairRetrieval(scores, chance)


def _one_way(
    queries: Tensor, bank: Tensor, query_keys: Tensor, bank_keys: Tensor, pairs: Tensor | None, at: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Hits, and those expected by chance, float64 `[queries with a right answer, len(at)]`."""
    found, expected = [], []
    rows = max(1, ELEMENTS // len(bank))
    for top in range(0, len(queries), rows):
        part = slice(top, top + rows)
        right = _right(query_keys[part], bank_keys, pairs).to(bank.device)
        some = right.any(1)
        right, scores = right[some], queries[part][some] @ bank.T
        best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        close = 8 * torch.finfo(scores.dtype).eps  # equal columns of a product differ in their last bits
        tied = (scores - best).abs() <= close
        above = (scores > best + close).sum(1)
        counts = tied.sum(1), (tied & right).sum(1)
        found.append(torch.stack([_hit(*counts, k - above) for k in at], 1).cpu())
        everything = torch.full_like(above, len(bank))
        expected.append(torch.stack([_hit(everything, right.sum(1), torch.full_like(above, k)) for k in at], 1).cpu())
    return torch.cat(found), torch.cat(expected)


def _right(queries: Tensor, bank: Tensor, pairs: Tensor | None) -> Tensor:
    """Which candidates belong to each query, by keys; bool `[queries, candidates]`."""
    if pairs is None:
        return queries[:, None] == bank
    table = torch.zeros(len(queries), int(torch.cat([bank, pairs[:, 1]]).max()) + 1, dtype=torch.bool)
    row, pair = (queries[:, None] == pairs[:, 0]).nonzero(as_tuple=True)
    table[row, pairs[pair, 1]] = True
    return table[:, bank]


def _hit(count: Tensor, right: Tensor, drawn: Tensor) -> Tensor:
    """Probability that a draw of `drawn` out of `count` holds one of the `right`."""
    count, right, drawn = (t.double() for t in (count, right, drawn))
    wrong = count - right
    misses = (wrong - drawn).clamp(min=0)
    logs = [torch.lgamma(t + 1) for t in (wrong, (count - drawn).clamp(min=0), misses, count)]
    none = (logs[0] + logs[1] - logs[2] - logs[3]).exp()
    return torch.where(drawn <= 0, 0.0, torch.where(drawn > wrong, 1.0, 1 - none))
