"""Reference language model: an interpolated Kneser-Ney trigram over the same tokens as the networks.

A network that does not beat it has learned nothing beyond which three tokens follow each other. Pure
counting, so it has no seed and no steps. With c the counts, N(. v w) the number of distinct tokens before
(v, w) and D_k = n_1 / (n_1 + 2 n_2) the discount of order k (n_j: entries counted exactly j times there):

    p3(w | u v) = max(c(u v w) - D_3, 0) / c(u v)       + D_3 N(u v .) / c(u v)        p2(w | v)
    p2(w | v)   = max(N(. v w) - D_2, 0) / N(. v .)     + D_2 |w: N(. v w) > 0| / N(. v .) p1(w)
    p1(w)       = max(N(. w) - D_1, 0) / N(. .)         + D_1 |w: N(. w) > 0| / N(. .)  1 / V

A context never seen passes all its mass to the next lower order, so each line sums to 1 over the V tokens.

References
----------
Ney, Essen and Kneser (1994), Computer Speech and Language 8, 1-38 (the discount).
Chen and Goodman (1999), Computer Speech and Language 13, 359-394 (the interpolated form).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DEFAULT_DISCOUNT = 0.5
"""Discount of an order in which no entry occurs once, or none twice; only toy corpora meet it."""

Context = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Discounted counts of one n-gram order."""

    counts: Counter[Context]
    """n-gram -> count (order 3) or number of distinct left neighbours (orders 2 and 1)."""
    totals: Counter[Context]
    """Context -> sum of its counts."""
    types: Counter[Context]
    """Context -> number of distinct tokens that follow it."""
    discount: float


@dataclass(frozen=True, kw_only=True)
class Trigram:
    """A fitted model; `orders` holds orders 1, 2 and 3."""

    vocab_size: int
    orders: tuple[Order, Order, Order]


def fit_trigram(tokens: Sequence[int], vocab_size: int) -> Trigram:
    """Count a token stream.

    Parameters
    ----------
    tokens
        Ids in 0..vocab_size-1, at least two; the first is context only and is taken twice to fill the first
        trigram.
    vocab_size
        Number of distinct ids a text may contain.

    Raises
    ------
    ValueError
        For fewer than two tokens or an id outside the vocabulary.

    >>> model = fit_trigram([0, 1, 2, 0, 1, 2, 0, 1, 1], 3)
    >>> round(sum(probability(model, (0, 1), w) for w in range(3)), 12)
    1.0
    """
    _check(tokens, vocab_size)
    padded = [tokens[0], *tokens]
    trigrams: Counter[Context] = Counter(zip(padded, padded[1:], padded[2:], strict=False))
    bigrams: Counter[Context] = Counter(gram[1:] for gram in trigrams)
    unigrams: Counter[Context] = Counter(gram[1:] for gram in bigrams)
    return Trigram(vocab_size=vocab_size, orders=(_order(unigrams), _order(bigrams), _order(trigrams)))


def probability(model: Trigram, context: Context, token: int) -> float:
    """Probability of `token` after `context` (its last two tokens, oldest first); never 0."""
    p = 1.0 / model.vocab_size
    for k, order in enumerate(model.orders):
        before = context[len(context) - k :]
        total = order.totals[before]
        if total:
            kept = max(order.counts[(*before, token)] - order.discount, 0.0)
            p = (kept + order.discount * order.types[before] * p) / total
    return p


def total_nats(model: Trigram, tokens: Sequence[int]) -> float:
    """Sum of -ln p over every token but the first, which is context only.

    Raises
    ------
    ValueError
        For fewer than two tokens or an id outside the vocabulary.
    """
    _check(tokens, model.vocab_size)
    padded = [tokens[0], *tokens]
    triples = zip(padded, padded[1:], padded[2:], strict=False)
    return -math.fsum(math.log(probability(model, (u, v), w)) for u, v, w in triples)


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Total cost of a text in bits, divided by its UTF-8 bytes: nats / (ln 2 * n_bytes).

    Models with different tokenisers are comparable in it; losses per token are not.

    >>> bits_per_byte(8 * math.log(256), 8)
    8.0
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes is {n_bytes}; bits per byte needs a text of at least 1 byte")
    return nats / (math.log(2) * n_bytes)


def _order(counts: Counter[Context]) -> Order:
    totals: Counter[Context] = Counter()
    types: Counter[Context] = Counter()
    for gram, count in counts.items():
        totals[gram[:-1]] += count
        types[gram[:-1]] += 1
    return Order(counts=counts, totals=totals, types=types, discount=_discount(counts.values()))


def _discount(counts: Iterable[int]) -> float:
    of_counts = Counter(counts)
    once, twice = of_counts[1], of_counts[2]
    return once / (once + 2 * twice) if once and twice else DEFAULT_DISCOUNT


def _check(tokens: Sequence[int], vocab_size: int) -> None:
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} tokens; a trigram model needs at least 2, the first as context")
    low, high = min(tokens), max(tokens)
    if low < 0 or high >= vocab_size:
        raise ValueError(f"token ids run from {low} to {high}; allowed are 0 to {vocab_size - 1}")
