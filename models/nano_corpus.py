"""Text as numbers of its characters: what any Python carries, or a text file, in two parts.

The standard library's English is split by topic (`models.english`), because its topics repeat each other; a
file is split as nanoGPT does, the last tenth held out. This file needs no torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.english import pydoc_english

HELD_OUT = 0.1
"""Share of the characters."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NanoCorpus:
    """Two streams of token ids and what the ids stand for."""

    source: str
    """Where it is from, for people."""
    symbols: tuple[str, ...]
    """Text of each id."""
    train: NDArray[np.int64]
    """(tokens,) ids."""
    heldout: NDArray[np.int64]
    """(tokens,) ids."""
    sha256: str
    """Of both parts' text."""

    @property
    def vocab_size(self) -> int:
        """Symbols of both parts together."""
        return len(self.symbols)

    def refuse_short(self, block_size: int) -> None:
        """Check that both parts hold a window and what follows it.

        Raises
        ------
        ValueError
            For a part of fewer than block_size + 1 tokens.
        """
        for name, part in (("training", self.train), ("held-out", self.heldout)):
            if len(part) <= block_size:
                raise ValueError(
                    f"the {name} part of {self.source} has {len(part):,} tokens; a block_size of "
                    f"{block_size} needs {block_size + 1} or more: use a longer text or a block_size of "
                    f"at most {min(len(self.train), len(self.heldout)) - 1}"
                )


def character_corpus(train: str, heldout: str, *, source: str) -> NanoCorpus:
    """Characters of two texts, numbered in the order of their code points.

    >>> corpus = character_corpus("abba", "cab", source="letters")
    >>> corpus.symbols, corpus.train.tolist(), corpus.heldout.tolist()
    (('a', 'b', 'c'), [0, 1, 1, 0], [2, 0, 1])

    Raises
    ------
    ValueError
        When a part is empty.
    """
    if not train or not heldout:
        raise ValueError(
            f"{source} gives {len(train)} characters to train on and {len(heldout)} held out; both need at "
            "least 1: use a longer text"
        )
    symbols = tuple(sorted(set(train) | set(heldout)))
    number = {symbol: i for i, symbol in enumerate(symbols)}
    return NanoCorpus(
        source=source,
        symbols=symbols,
        train=np.array([number[c] for c in train], dtype=np.int64),
        heldout=np.array([number[c] for c in heldout], dtype=np.int64),
        sha256=hashlib.sha256(f"{train}\f{heldout}".encode()).hexdigest(),
    )


def embedded_corpus() -> NanoCorpus:
    """English of the running Python's `pydoc_data.topics`; whole topics are held out.

    Raises
    ------
    ValueError
        When this Python has no topics.
    """
    text = pydoc_english(heldout_share=HELD_OUT)
    return character_corpus("\n".join(text.train), "\n".join(text.heldout), source="pydoc_data.topics")


def file_corpus(path: Path) -> NanoCorpus:
    """A UTF-8 text file, its last tenth held out.

    Raises
    ------
    ValueError
        When the file is absent, not UTF-8 or too short to be split.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise ValueError(f"there is no text file {path}; give the path of one") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; convert it to UTF-8") from error
    cut = int(len(text) * (1 - HELD_OUT))  # as nanoGPT cuts
    return character_corpus(text[:cut], text[cut:], source=path.name)
