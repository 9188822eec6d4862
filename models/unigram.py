"""Unigram model of a language: what a network must beat to have kept anything beyond token frequencies.

Fitted on one part of a language's text and scored on another. With c(w) the count of token w among N, T the
number of distinct tokens seen and V the vocabulary (Witten and Bell's estimate, the rest spread evenly)

    p(w) = (c(w) + T / V) / (N + T)

The mass T / (N + T) given to the even spread follows from how often a new token turned up while counting, so
no constant has to be tuned, and every token has p > 0 also where V is far above N.

References
----------
Witten and Bell (1991), IEEE Transactions on Information Theory 37, 1085-1094 (method C).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from models.windows import Encoded

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Unigram:
    """A fitted model."""

    bits: FloatArray
    """(vocabulary,) -log2 p of each token."""
    fitted_tokens: int
    """N, tokens it was counted on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnigramLosses:
    """Cost of held-out sentences under a unigram model."""

    sentence_bits: FloatArray
    """(sentences,) sum of -log2 p over a sentence's tokens."""
    bits_per_token: float
    """Sum of bits / sum of tokens."""
    bits_per_byte: float
    """Sum of bits / sum of UTF-8 bytes."""


def fit_unigram(tokens: Iterable[int] | IntArray, vocab_size: int) -> Unigram:
    """Count tokens.

    Parameters
    ----------
    tokens
        Ids in 0..vocab_size-1, at least one; no prefix, no padding.
    vocab_size
        V, number of ids a text may contain.

    Raises
    ------
    ValueError
        For no token or an id outside the vocabulary.

    >>> model = fit_unigram([0, 0, 0, 1], vocab_size=4)  # N = 4, T = 2: (3, 1, 0, 0) + 1/2 over 6
    >>> [round(float(p), 4) for p in 2.0**-model.bits]
    [0.5833, 0.25, 0.0833, 0.0833]
    """
    ids = np.fromiter(tokens, dtype=np.int64)
    if not len(ids):
        raise ValueError("no tokens; a unigram model needs at least 1 to count")
    _check(ids, vocab_size)
    counts = np.bincount(ids, minlength=vocab_size)
    seen = int((counts > 0).sum())
    p = (counts + seen / vocab_size) / (len(ids) + seen)
    return Unigram(bits=-np.log2(p), fitted_tokens=len(ids))


def fitted_on(encoded: Encoded, vocab_size: int) -> Unigram:
    """The unigram model of the scored tokens of one part of a language's texts."""
    return fit_unigram(np.concatenate(encoded.targets), vocab_size)


def unigram_losses(model: Unigram, held_out: Encoded) -> UnigramLosses:
    """Score texts the model was not counted on, the same tokens a network is scored on.

    Raises
    ------
    ValueError
        For an id outside the vocabulary.
    """
    ids = np.concatenate(held_out.targets)
    _check(ids, len(model.bits))
    owner = np.repeat(held_out.owner, [len(row) for row in held_out.targets])
    bits = np.bincount(owner, weights=model.bits[ids], minlength=len(held_out)).astype(np.float64)
    total = math.fsum(bits)
    return UnigramLosses(
        sentence_bits=bits,
        bits_per_token=total / int(held_out.tokens.sum()),
        bits_per_byte=total / int(held_out.n_bytes.sum()),
    )


def _check(ids: IntArray, vocab_size: int) -> None:
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise ValueError(
            f"token ids run from {ids.min()} to {ids.max()}; allowed are 0 to {vocab_size - 1}: encode with "
            "the tokenizer of this vocabulary"
        )
