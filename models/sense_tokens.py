"""Texts as numbers: words, the marked lemma among them, and what each word is looked up by.

A word is a run of letters or digits, or a single other sign, in lower case. Words that touch the span are the
target; they all look alike (`TARGET`), so nothing of a lemma is learned that another lemma could not use.

learned
    A word of the training texts has a number of its own; every other one is `UNKNOWN`.
hashed
    A word is the set of its character n-grams, each in one of `buckets` buckets. New words share buckets
    with known ones that are spelled alike (Bojanowski et al. 2017, arXiv:1607.04606).

A frozen encoder's states are in `models.sense_encoder`. Nothing here needs torch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.sense_items import TextItem

Lookup = Literal["learned", "hashed"]
PAD, TARGET, UNKNOWN = 0, 1, 2
FIRST = 3
"""Number of the first word, or bucket."""
NGRAMS = (3, 5)
"""Shortest and longest hashed n-gram; the word itself, between its marks, is one more."""
MOST_WORDS = 48
"""Words of a longer text are kept around its target."""
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A text with or without a lemma in it."""

    text: str
    span: tuple[int, int] | None = None
    """Of the lemma; a gloss has none."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """A text's words."""

    words: tuple[str, ...]
    """In lower case."""
    target: tuple[bool, ...]
    """Whether a word touches the lemma's span."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What words are looked up by."""

    lookup: Lookup
    size: int
    """Rows of the table of embeddings."""
    places: Mapping[str, int]
    """Word of the training texts -> number; hashed words are not looked up by it, only known."""

    def numbers(self, word: str) -> tuple[int, ...]:
        """Rows of a word; its state is their mean.

        >>> known = vocabulary([], "hashed", buckets=100)
        >>> known.numbers("bank") == known.numbers("bank"), len(known.numbers("bank"))
        (True, 10)
        """
        if self.lookup == "learned":
            return (self.places.get(word, UNKNOWN),)
        return _hashed(word, self.size - FIRST)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Texts of one width."""

    rows: NDArray[np.int64]
    """(N, T, G) rows to look up; PAD where a text or a word has no more."""
    target: NDArray[np.bool_]
    """(N, T)"""
    known: float
    """Share of words, targets apart, that the training texts hold; 1 for texts without other words."""


def marked(item: TextItem) -> Marked:
    """The text and span of an item."""
    return Marked(text=item.text, span=item.span)


@lru_cache(maxsize=100_000)
def words_of(one: Marked) -> Words:
    """The words of a text, at most `MOST_WORDS` of them around the target.

    >>> found = words_of(Marked(text="The bank, grey.", span=(4, 8)))
    >>> found.words, found.target.index(True)
    (('the', 'bank', ',', 'grey', '.'), 1)
    """
    start, end = one.span or (0, 0)
    found = [(m.group().lower(), m.start() < end and m.end() > start) for m in _WORD.finditer(one.text)]
    if len(found) > MOST_WORDS:
        middle = next((i for i, (_, hit) in enumerate(found) if hit), 0)
        first = min(max(0, middle - MOST_WORDS // 2), len(found) - MOST_WORDS)
        found = found[first : first + MOST_WORDS]
    return Words(words=tuple(word for word, _ in found), target=tuple(hit for _, hit in found))


def vocabulary(texts: Iterable[TextItem], lookup: Lookup, *, buckets: int = 4096) -> Vocabulary:
    """Words of training texts numbered in order of first occurrence, or hashed ones, which any word has.

    >>> bank = TextItem(text="old bank", span=(4, 8), surface="bank", sense_id="1")
    >>> known = vocabulary([bank], "learned")
    >>> known.size, known.numbers("old"), known.numbers("new")
    (4, (3,), (2,))

    Raises
    ------
    ValueError
        For another way of looking up, or fewer than 2 buckets.
    """
    if lookup not in ("learned", "hashed"):
        raise ValueError(f"unknown lookup {lookup!r}; allowed are learned, hashed")
    if buckets < 2:
        raise ValueError(f"{buckets} buckets; give at least 2")
    places: dict[str, int] = {}
    for item in texts:
        read = words_of(marked(item))
        for word, is_target in zip(read.words, read.target, strict=True):
            if not is_target:
                places.setdefault(word, FIRST + len(places))
    size = FIRST + (buckets if lookup == "hashed" else len(places))
    return Vocabulary(lookup=lookup, size=size, places=MappingProxyType(places))


def encode(texts: Sequence[Words], known: Vocabulary) -> Encoded:
    """Rows to look up for each word of each text.

    Raises
    ------
    ValueError
        Without texts, or for a text without words.
    """
    empty = [place for place, text in enumerate(texts) if not text.words]
    if not texts or empty:
        raise ValueError(f"{len(texts)} texts, {len(empty)} of them without words; give at least 1 word each")
    looked_up = {word: known.numbers(word) for word in {word for text in texts for word in text.words}}
    width = max(len(text.words) for text in texts)
    deep = max(len(numbers) for numbers in looked_up.values())
    rows = np.full((len(texts), width, deep), PAD, dtype=np.int64)
    target = np.zeros((len(texts), width), dtype=np.bool_)
    others = new = 0
    for n, text in enumerate(texts):
        for t, (word, is_target) in enumerate(zip(text.words, text.target, strict=True)):
            numbers = (TARGET,) if is_target else looked_up[word]
            rows[n, t, : len(numbers)] = numbers
            target[n, t] = is_target
            others += not is_target
            new += not is_target and word not in known.places
    return Encoded(rows=rows, target=target, known=1.0 - new / others if others else 1.0)


@lru_cache(maxsize=100_000)
def _hashed(word: str, buckets: int) -> tuple[int, ...]:
    marked = f"<{word}>"
    grams = {marked} | {
        marked[i : i + n] for n in range(NGRAMS[0], NGRAMS[1] + 1) for i in range(len(marked) - n + 1)
    }
    return tuple(sorted({FIRST + zlib.crc32(gram.encode()) % buckets for gram in grams}))
