"""Views of text: the tokens of its sentences. Nothing random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..data.tokens import Tokenizer
from ..errors import UsageError

if TYPE_CHECKING:
    from ..method import Batch


def sentences(batch: Batch) -> list[Tensor]:
    """One view: tokens int64 `[B, S, L]`, L that of the longest sentence of the batch.

    Example:
        >>> from nearfar.method import Batch
        >>> batch = Batch(torch.tensor([[[5, 7, 0, 0], [9, 0, 0, 0]]]), torch.tensor([[2, 1]]), torch.arange(1))
        >>> sentences(batch)
        [tensor([[[5, 7],
                 [9, 0]]])]
    """
    return [_trimmed(batch.inputs, int(batch.sizes.max()))]


@dataclass(frozen=True)
class Sentences:
    """The transform of evaluation and use: the same tokens, and the tokenizer that makes them.

    Args:
        tokenizer: `Tokenizer.to_dict()`, whole.
        length: Tokens of a sentence at most.

    Raises:
        UsageError: A length below 1, or a tokenizer that lacks a setting.

    Example:
        >>> transform = Sentences(Tokenizer().to_dict(), length=8)
        >>> tokens, lengths = Tokenizer.from_dict(transform.tokenizer)(["far", "near"], length=transform.length)
        >>> transform(tokens[:, None], lengths[:, None]).shape
        torch.Size([2, 1, 4])
    """

    tokenizer: Mapping[str, Any]
    length: int

    def __post_init__(self) -> None:
        Tokenizer.from_dict(self.tokenizer)
        if self.length < 1:
            raise UsageError(f"a length of {self.length} tokens", where="Sentences", mend="1 or more")

    def __call__(self, inputs: Tensor | NDArray[Any], sizes: ArrayLike) -> Tensor:
        """Tokens int64 `[B, S, L]`, L that of the longest sentence.

        Args:
            inputs: Tokens `[B, S, L]` of this tokenizer, 0 after the end of each sentence.
            sizes: Tokens of each sentence, `[B, S]`.
        """
        return _trimmed(torch.as_tensor(inputs), min(int(np.asarray(sizes).max()), self.length))

    def to_dict(self) -> dict[str, Any]:
        """Settings as JSON holds them, for the run folder."""
        return {"kind": "sentences", **asdict(self)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Sentences:
        """The inverse of `to_dict`.

        Raises:
            UsageError: A setting is missing, unknown or out of its range.
        """
        names = {"kind", *(f.name for f in fields(cls))}
        if set(settings) != names or settings["kind"] != "sentences":
            raise UsageError(
                f"sentences have the settings {sorted(names)}, found {sorted(settings)}",
                where="input transform",
                mend="use the settings that the run was saved with",
            )
        return cls(settings["tokenizer"], settings["length"])


def _trimmed(tokens: Tensor, length: int) -> Tensor:
    """Without what is padding in all sentences; one place at least."""
    return tokens[..., : max(length, 1)].long()
