"""English text found on any machine: the language reference in `pydoc_data.topics` of the standard library.

About 80 topics, 430 KB. Three things are done to it, so that what a small model learns reads like words:

- whitespace is collapsed and lines of pure markup (underlines, table rules) are dropped;
- only prose is kept: paragraphs of at least `MIN_WORDS` words in which at least `MIN_PROSE_SHARE` of the
  characters are letters or spaces, so most signatures, grammar rules, tables and code go;
- asterisks of emphasis are removed and typographic quotes and dashes become ASCII.

`specialnames`, `compound` and others repeat whole topics (about 85 KB), so a split by topics alone would
test on trained text. A paragraph is therefore kept once, held-out topics first: none of theirs is in the
training part. The text differs between Python patch releases, so its SHA-256 is part of the identity of
what is trained on it.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIN_PROSE_SHARE = 0.8
"""Least share of letters and spaces in a kept paragraph."""
MIN_WORDS = 5
"""Fewest words in a kept paragraph."""

_ASCII = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents to train on and documents held out; one document a topic."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    heldout_topics: tuple[str, ...]
    """Names of the held-out topics, sorted."""
    sha256: str
    """Of both parts, in order."""

    @property
    def train_bytes(self) -> int:
        """UTF-8 bytes of the training part."""
        return sum(len(text.encode()) for text in self.train)

    @property
    def heldout_bytes(self) -> int:
        """UTF-8 bytes of the held-out part."""
        return sum(len(text.encode()) for text in self.heldout)


def pydoc_english(*, seed: int = 0, heldout_share: float = 0.1) -> Corpus:
    """Corpus of the running Python's `pydoc_data.topics`.

    Parameters
    ----------
    seed
        Of the choice of held-out topics.
    heldout_share
        Largest share of the characters that may be held out, between 0 and 1.

    Raises
    ------
    ValueError
        When the topics are missing (some system packages strip them) or hold no prose.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError(
            "this Python has no module pydoc_data.topics, the text the embedded models are trained on; "
            "use a Python with its full standard library (python.org builds and uv have it)"
        ) from error
    return split_topics(topics, seed=seed, heldout_share=heldout_share)


def split_topics(topics: Mapping[str, str], *, seed: int, heldout_share: float) -> Corpus:
    """Clean topics and split them by whole topics, in sorted order of their names.

    Topics are visited in a seeded order and held out while they fit into the share, so one long topic cannot
    fill it. A topic whose paragraphs all occur elsewhere leaves no document.

    Raises
    ------
    ValueError
        When the share is outside (0, 1) or either part would be empty.

    >>> corpus = split_topics({"a": "one two three four five " * 9, "b": "six seven eight nine ten"},
    ...                       seed=0, heldout_share=0.2)
    >>> corpus.heldout_topics, corpus.heldout
    (('b',), ('six seven eight nine ten',))
    """
    if not 0 < heldout_share < 1:
        raise ValueError(f"heldout_share is {heldout_share}; it must lie between 0 and 1, both excluded")
    cleaned = {name: _prose(topics[name]) for name in sorted(topics)}
    chosen = _choose(cleaned, seed, heldout_share)
    seen: set[str] = set()
    heldout = _documents([cleaned[name] for name in cleaned if name in chosen], seen)
    train = _documents([cleaned[name] for name in cleaned if name not in chosen], seen)
    if not train or not heldout:
        raise ValueError(
            f"{len(topics)} topics gave {len(train)} documents to train on and {len(heldout)} held out; both "
            "need at least 1: use a Python with its full standard library"
        )
    text = "\f".join(["\n".join(train), "\n".join(heldout)])
    return Corpus(
        train=train,
        heldout=heldout,
        heldout_topics=tuple(sorted(chosen)),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def _choose(cleaned: Mapping[str, Sequence[str]], seed: int, share: float) -> set[str]:
    sizes = {name: sum(map(len, paragraphs)) for name, paragraphs in cleaned.items()}
    budget = share * sum(sizes.values())
    names = list(sizes)
    random.Random(seed).shuffle(names)
    chosen: set[str] = set()
    for name in names:
        if 0 < sizes[name] <= budget:
            budget -= sizes[name]
            chosen.add(name)
    return chosen


def _prose(text: str) -> list[str]:
    lines = text.translate(_ASCII).splitlines()
    lines = [line for line in lines if not line.strip() or re.search(r"\w", line)]
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    collapsed = (" ".join(paragraph.replace("*", "").split()) for paragraph in paragraphs)
    return [paragraph for paragraph in collapsed if _is_prose(paragraph)]


def _is_prose(paragraph: str) -> bool:
    if len(paragraph.split()) < MIN_WORDS:
        return False
    return sum(c.isalpha() or c == " " for c in paragraph) >= MIN_PROSE_SHARE * len(paragraph)


def _documents(topics: Sequence[Sequence[str]], seen: set[str]) -> tuple[str, ...]:
    documents = []
    for paragraphs in topics:
        fresh = []
        for paragraph in paragraphs:
            if paragraph not in seen:
                seen.add(paragraph)
                fresh.append(paragraph)
        if fresh:
            documents.append(" ".join(fresh))
    return tuple(documents)
