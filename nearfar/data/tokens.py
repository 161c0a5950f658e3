"""Text as numbers. Token 0 is padding and nothing else; every text has one token or more.

Bytes need nothing but the text. Vocabularies of words are those of Hugging Face tokenizers,
https://huggingface.co/docs/tokenizers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeviceError, UsageError

if TYPE_CHECKING:
    import tokenizers

BYTES = 257  # padding and 256 bytes
BLOCK = 1024  # texts that are in the works at once
UNKNOWN = "[UNK]"
LONGEST = 100  # characters after which a word is cut to learn from; one of a megabyte took 10 minutes and more
_MEND = "'bytes', 'words:20000', 'bpe:8000', or the tokenizer.json of a tokenizer of Hugging Face"


@dataclass(frozen=True)
class Tokenizer:
    """Texts -> tokens. Made by `build_tokenizer`; `to_dict` holds all of it, vocabulary included.

    With "bytes" a token is a byte of UTF-8 plus 1. Otherwise it is the number that `model` gives plus 1; the markers
    that a model may add at both ends are left out, since `lengths` says where a text ends.

    Args:
        name: "bytes", "words", "bpe", or the name of the file it was read from.
        vocabulary: Number of tokens, padding included: all tokens are below it.
        model: What Hugging Face's `Tokenizer.to_str` gives; None: bytes.

    Example:
        >>> tokens, lengths = Tokenizer()(["ab", ""], length=3)
        >>> tokens.tolist(), lengths.tolist()
        ([[98, 99, 0], [33, 0, 0]], [2, 1])
    """

    name: str = "bytes"
    vocabulary: int = BYTES
    model: str | None = None

    def __call__(self, texts: Sequence[str], *, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int64 `[N, length]`, 0 after the end of each text, and how many each has, int64 `[N]`, 1 to `length`.

        A text without a token (empty, or blank where blanks count for nothing) is one unknown token, or a space where
        nothing is unknown. Halves of surrogate pairs, which are no text, become "?".

        Args:
            texts: N texts, of any length.
            length: Tokens a text at most; the rest is cut off.

        Raises:
            UsageError: A length below 1, or one string in place of a list.
        """
        if isinstance(texts, str):
            raise UsageError("one text in place of a list", where="texts", mend="put it in brackets: [text]")
        if length < 1:
            raise UsageError(f"a length of {length} tokens", where="length", mend="1 token or more")
        tokens, lengths = np.zeros((len(texts), length), np.int64), np.ones(len(texts), np.int64)
        for row, found in enumerate(self._numbers(texts, length)):
            lengths[row] = len(found)
            tokens[row, : len(found)] = found
        return tokens, lengths

    def _numbers(self, texts: Sequence[str], length: int) -> Iterator[np.ndarray]:
        """The tokens of each text, cut but not padded."""
        if self.model is None:
            for text in texts:
                encoded = text[:length].encode("utf-8", "replace")[:length] or b" "
                yield np.frombuffer(encoded, np.uint8).astype(np.int64) + 1
            return
        for start in range(0, len(texts), BLOCK):
            block = [_plain(text) for text in texts[start : start + BLOCK]]
            for encoding in self._model.encode_batch_fast(block, add_special_tokens=False):
                yield np.array(encoding.ids[:length] or [self._unknown], np.int64) + 1

    @cached_property
    def _model(self) -> tokenizers.Tokenizer:
        """Without the cuts and the padding that its file may ask for."""
        model = _library().Tokenizer.from_str(self.model or "")
        model.no_truncation()
        model.no_padding()
        return model

    @cached_property
    def _unknown(self) -> int:
        """What stands for nothing: the model's unknown token, or else a space, or else its first token."""
        named = self._model.token_to_id(json.loads(self.model or "{}")["model"].get("unk_token") or UNKNOWN)
        blank = [*self._model.encode(" ", add_special_tokens=False).ids, 0]
        return blank[0] if named is None else named

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON holds it, for the run folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Tokenizer:
        """The inverse of `to_dict`.

        Raises:
            UsageError: A setting is missing or unknown.
        """
        names = {f.name for f in fields(cls)}
        if set(settings) != names:
            raise UsageError(
                f"a tokenizer has the settings {sorted(names)}, found {sorted(settings)}",
                where="tokenizer",
                mend="use the settings that the run was saved with",
            )
        return cls(**settings)


def build_tokenizer(spec: str | Tokenizer, texts: Iterable[str] = ()) -> Tokenizer:
    """A tokenizer by name; where it has a vocabulary, that of `texts`.

    Args:
        spec: "bytes"; "words:N": the N most frequent words, in small letters, punctuation marks on their own;
            "bpe:N": N pieces of words, bytes and the most frequent pairs of pieces, so that nothing is unknown
            (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909); the path of a `tokenizer.json`; or a tokenizer,
            which is given back.
        texts: What the vocabulary is made of.

    Raises:
        UsageError: An unknown name, or a file that is no tokenizer.
        DeviceError: Hugging Face tokenizers are missing.
    """
    if isinstance(spec, Tokenizer):
        return spec
    if spec == "bytes":
        return Tokenizer()
    kind, _, number = spec.partition(":")
    if kind in ("words", "bpe") and re.fullmatch("[1-9][0-9]{0,8}", number):
        return _wrapped(kind, _trained(kind, int(number), texts))
    if not Path(spec).is_file():
        raise UsageError(f"no tokenizer {spec!r}", where="tokenizer", mend=_MEND)
    try:
        model = _library().Tokenizer.from_str(Path(spec).read_text(encoding="utf-8"))
    except Exception as problem:  # the library raises nothing narrower
        raise UsageError(f"no tokenizer in this file: {problem}", where=spec, mend=_MEND) from None
    return _wrapped(Path(spec).name, model)


def _trained(kind: str, size: int, texts: Iterable[str]) -> tokenizers.Tokenizer:
    """A vocabulary of `size` words (and the unknown one) or pieces; the same from the same texts."""
    library = _library()
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    if kind == "words":
        model = library.Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordLevelTrainer(vocab_size=size + 1, show_progress=False, special_tokens=[UNKNOWN])
    else:  # byte pairs, because the pieces of WordPieceTrainer differ from one training to the next
        model = library.Tokenizer(models.BPE())
        model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
    model.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=True)
    cut = (re.sub(rf"\S{{{LONGEST}}}", r"\g<0> ", _plain(text)) for text in texts)
    model.train_from_iterator(cut, trainer)
    return model


def _wrapped(name: str, model: tokenizers.Tokenizer) -> Tokenizer:
    """Numbers may have gaps: the largest one counts, plus 1 for padding."""
    highest = max(model.get_vocab(with_added_tokens=True).values(), default=0)
    return Tokenizer(name, highest + 2, model.to_str())


def _plain(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise DeviceError(
            "this tokenizer needs the package tokenizers",
            where="tokenizer",
            mend="pip install 'nearfar[hf]', or the tokenizer 'bytes'",
        ) from None
    return tokenizers
