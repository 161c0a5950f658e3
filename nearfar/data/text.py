"""Text as data: sentences one by one, or several that follow each other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import DataError, UsageError
from .dataset import Dataset
from .survey import Progress, check_bad, digest
from .text_files import Pieces, read_pieces
from .tokens import Tokenizer, build_tokenizer

BLOCK = 8192  # sentences that are made tokens at once
_END = re.compile(
    r"""(?:(?<=[.!?])|(?<=[.!?]["')\]”’]))  # after the mark, and the quote or bracket that closes behind it
        (?<!\b[A-Z]\.)                      # J. S. Bach is one
        \s+(?=["'(\[“‘]?\s?[^\W_a-z])       # before a blank and what begins large: a capital, a digit
        |(?<=[。！？])\s*""",
    re.VERBOSE,
)


def cut(prose: str) -> list[str]:
    """Sentences of prose, without blanks around them; none where there is no text.

    A sentence ends at `.`, `!` or `?` (a quote or bracket may follow) before a blank and anything but a small letter of
    a to z, but not after a single capital letter; and at `。！？`. Abbreviations before a name (Dr. Who) end one too: a
    list of them would fit one language.

    Example:
        >>> cut('He met J. S. Bach. "Why?" he asked. It was 3.5 miles.')
        ['He met J. S. Bach.', '"Why?" he asked.', 'It was 3.5 miles.']
    """
    return [found for sentence in _END.split(prose) if (found := sentence.strip())]


def load_text(
    path: str | Path,
    *,
    sentences: int = 1,
    length: int = 64,
    tokenizer: str | Tokenizer = "bytes",
    labels: bool | None = None,
    max_bad: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Text as tokens, in memory: int `[N, sentences, length]`, 0 where there is none, sizes int64 `[N, sentences]`.

    With `sentences=1` each line or row is a sample as it stands. With more, documents are cut into sentences (`cut`),
    and these into runs of so many, one after the other: no run crosses into another document, none shares a sentence
    with another, and the last one of a document may have fewer, with sizes of 0 behind them. `split` keeps all runs of
    a document on one side.

    Text that is not valid UTF-8 keeps what is, with U+FFFD for the rest. An empty row is a sample of one token; a row
    without text (null) is listed as bad.

    Args:
        path: `.txt`, a sentence (or prose) a line, documents parted by empty lines; `.csv`, `.tsv`, `.jsonl` or
            `.parquet` with a column `text` (or `sentence`), each row a document, and perhaps `label`, `label_name` and
            `split` (`list.csv:train` takes one part); or a folder of such files.
        sentences: Sentences of a sample, >= 1.
        length: Tokens of a sentence at most, >= 1; the rest is cut off.
        tokenizer: By name, see `build_tokenizer`: a vocabulary is that of this text; or one that is there already.
        labels: True: labels are needed; False: none are taken; None: taken where they are evident.
        max_bad: Bad rows that are accepted; None: up to 100 or 1 %, and less than half.
        progress: Called with the number of sentences done, and of all.

    Raises:
        DataError: No text, too much that is bad, no labels where they are needed.
        UsageError: Numbers below 1, or an unknown tokenizer.
        DeviceError: A tokenizer that needs a package that is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "story.txt"
        >>> _ = path.write_text("It rained. Nobody came.\\nThen it stopped.\\n\\nThe end.\\n")
        >>> load_text(path).names, load_text(path, sentences=2).names
        (['story.txt:1', 'story.txt:2', 'story.txt:4'], ['story.txt:1.1', 'story.txt:2.1', 'story.txt:4.1'])
    """
    if min(sentences, length) < 1:
        raise UsageError(f"sentences={sentences}, length={length}", where="load_text", mend="1 or more of each")
    pieces = read_pieces(path, labels=labels)
    check_bad(pieces.bad, len(pieces.texts) + len(pieces.bad), max_bad, str(path))
    texts, names, documents, rows = _cut_all(pieces) if sentences > 1 else _as_they_stand(pieces)
    if not texts:
        raise DataError("nothing but blanks", where=path, mend="text with words in it")
    made = build_tokenizer(tokenizer, texts)
    samples, places = _runs(np.array(documents), sentences)
    count = int(samples[-1]) + 1
    tokens = np.zeros((count, sentences, length), np.int16 if made.vocabulary <= 2**15 else np.int32)
    sizes = np.zeros((count, sentences), np.int64)
    for start in range(0, len(texts), BLOCK):
        at = samples[start : start + BLOCK], places[start : start + BLOCK]
        tokens[at], sizes[at] = made(texts[start : start + BLOCK], length=length)
        if progress is not None:
            progress(min(start + BLOCK, len(texts)), len(texts))
    first = np.flatnonzero(places == 0)
    return Dataset(
        inputs=tokens,
        sizes=sizes,
        ids=np.arange(count),
        names=[names[place] for place in first],
        hashes=_hashes(texts, first),
        labels=None if pieces.labels is None else pieces.labels[np.array(rows)[first]],
        classes=pieces.classes,
        bad=pieces.bad,
        kind="text",
        tokenizer=made,
        groups=None if sentences == 1 else _groups(texts, np.array(documents), first),
    )


def _as_they_stand(pieces: Pieces) -> tuple[list[str], list[str], list[int], list[int]]:
    """Text, name, document and piece of each sentence, where every piece is one."""
    numbers = list(range(len(pieces.texts)))
    return pieces.texts, pieces.names, numbers, numbers


def _cut_all(pieces: Pieces) -> tuple[list[str], list[str], list[int], list[int]]:
    """The same where pieces are cut. A sentence is named by its piece and its number in it, from 1."""
    texts: list[str] = []
    names: list[str] = []
    rows: list[int] = []
    for row, (text, name) in enumerate(zip(pieces.texts, pieces.names, strict=True)):
        found = cut(text)
        texts += found
        names += [f"{name}.{number}" for number in range(1, len(found) + 1)]
        rows += [row] * len(found)
    return texts, names, [pieces.documents[row] for row in rows], rows


def _runs(documents: np.ndarray, sentences: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample of each sentence and its place in it, `[n]` each: a new sample every so many, and with every document."""
    numbers = np.arange(len(documents))
    begins = np.diff(documents, prepend=-1) != 0
    place = (numbers - np.maximum.accumulate(np.where(begins, numbers, 0))) % sentences
    return np.cumsum(place == 0) - 1, place


def _hashes(texts: list[str], first: np.ndarray) -> np.ndarray:
    """Hash of the sentences of each sample, uint8 `[N, 16]`."""
    ends = [*first[1:].tolist(), len(texts)]
    joined = ("\0".join(texts[start:end]) for start, end in zip(first.tolist(), ends, strict=True))
    return np.stack([np.frombuffer(digest(text.encode("utf-8", "surrogatepass")), np.uint8) for text in joined])


def _groups(texts: list[str], documents: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Hash of the document of each sample, uint8 `[N, 16]`."""
    begins = np.flatnonzero(np.diff(documents, prepend=-1))
    return _hashes(texts, begins)[np.searchsorted(begins, first, "right") - 1]
