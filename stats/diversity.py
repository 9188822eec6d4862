"""How varied a text is: one number a metric, or the reason why there is none.

Tokens are the lower-cased words between white space: N tokens, m different ones (types), T characters.
Every metric is computed on the text with its closed `<think>...</think>` blocks removed. The functions take
tokens or text and return `(value, reason)`, exactly one of the two `None`, so that a missing number always
says why it is missing and no caller has to guess at a 0.0 or a NaN. Counting is done by `Counter`, `set` and
`zip`, which run in C: 4,500 texts of 150 words take about a second.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

Value = tuple[float | None, str | None]
"""A number and no reason, or no number and the reason."""

PRIMARY = ("mtld", "distinct_2", "shannon_word")
SECONDARY = ("shannon_char", "repetition_ratio", "length_words")
DEEMPHASISED = ("type_token_ratio",)
METRICS = PRIMARY + SECONDARY + DEEMPHASISED
EXTRA = ("compression_ratio",)
"""Measured and stored beside METRICS, in no family of tests."""

RANGES: dict[str, float] = {"distinct_2": 1.0, "repetition_ratio": 1.0, "type_token_ratio": 1.0}
"""Largest minus smallest possible value, for the metrics whose range does not depend on the text's length."""

MTLD_THRESHOLD = 0.72
MIN_WORDS = 10
"""Texts under this many words are excluded from the analysis and counted by arm."""
MIN_WORDS_MTLD = 10
MIN_WORDS_REPETITION = 50

_THINK_TAG = re.compile(r"</?think>", re.IGNORECASE)
_CLOSED_THINK = re.compile(r"<think>((?!</?think>).)*</think>\s*", re.IGNORECASE | re.DOTALL)


def strip_think(text: str) -> tuple[str | None, str | None]:
    """Text without its closed `<think>...</think>` blocks, or the reason why that text does not exist.

    White space after a block goes with it. Nested blocks are removed from the inside out. A tag that is left
    over has no partner: the answer cannot be told from the reasoning, so the text is a failure.

    Parameters
    ----------
    text : str
        As generated.

    Returns
    -------
    tuple of (str or None, str or None)
        The stripped text and `None`, or `None` and the reason.

    Examples
    --------
    >>> strip_think("<think>two lines, no rhyme</think>\\n\\nA short answer.")
    ('A short answer.', None)
    >>> strip_think("no tags at all")
    ('no tags at all', None)
    >>> strip_think("<think>still going when the tokens ran out")
    (None, 'unclosed <think>: reasoning and answer cannot be told apart')
    """
    if "think>" not in text.lower():
        return text, None
    removed = 1
    while removed:
        text, removed = _CLOSED_THINK.subn("", text)
    left = _THINK_TAG.search(text)
    if left is None:
        return text, None
    if left.group().startswith("</"):
        return None, "</think> without <think>: reasoning and answer cannot be told apart"
    return None, "unclosed <think>: reasoning and answer cannot be told apart"


def tokenize(text: str) -> list[str]:
    """Lower-cased words between white space.

    >>> tokenize("The cat,  the DOG.")
    ['the', 'cat,', 'the', 'dog.']
    """
    return text.lower().split()


def text_failure(text: str) -> str | None:
    """Reason why `text` is not a text: an unpaired think tag, or no words once stripped. `None` for a text.

    >>> text_failure("<think>only thoughts</think> \\n")
    'no words left after stripping'
    >>> text_failure("fine") is None
    True
    """
    stripped, reason = strip_think(text)
    if stripped is None:
        return reason
    return None if stripped.split() else "no words left after stripping"


def exclusion(text: str) -> str | None:
    """Reason why `text` stays out of the analysis: a failure, or under 10 words. `None` when it enters.

    >>> exclusion("Paris.")
    '1 words, under 10'
    """
    failure = text_failure(text)
    if failure is not None:
        return failure
    n_words = len((strip_think(text)[0] or "").split())
    return f"{n_words} words, under {MIN_WORDS}" if n_words < MIN_WORDS else None


def entropy_bits(symbols: Iterable[Hashable]) -> tuple[float, int, int]:
    """Plug-in Shannon entropy in bits, with the number of symbols and of different ones.

    H = -sum p log2 p with p the observed shares; H = log2 N - (1/N) sum c log2 c over the counts c.

    >>> entropy_bits("aabb")
    (1.0, 4, 2)
    """
    counts = Counter(symbols).values()
    total = sum(counts)
    if total == 0:
        raise ValueError("entropy of no symbols; pass at least one, or keep the row with a reason")
    weighted = math.fsum(count * math.log2(count) for count in counts if count > 1)
    return max(0.0, math.log2(total) - weighted / total), total, len(counts)


def shannon_char(text: str) -> Value:
    """Plug-in entropy of the characters, bits a character; case and white space count.

    >>> shannon_char("abab")
    (1.0, None)
    """
    if not text:
        return None, "no characters"
    return entropy_bits(text)[0], None


def shannon_word(tokens: Sequence[str]) -> Value:
    """Entropy of the words in bits with the Miller-Madow correction: plug-in + (m - 1) / (2 N ln 2).

    The plug-in value is too low by about (m - 1) / (2 N) nats; the division by ln 2 turns nats into bits.
    Reference: Miller (1955), Note on the bias of information estimates.

    >>> shannon_word(["a", "b"])  # 1 bit + 1 / (4 ln 2)
    (1.360673760222241, None)
    """
    if not tokens:
        return None, "no words"
    plug_in, n_tokens, n_types = entropy_bits(tokens)
    return plug_in + (n_types - 1) / (2 * n_tokens * math.log(2)), None


def type_token_ratio(tokens: Sequence[str]) -> Value:
    """Types over tokens, m / N. Falls with length by construction, hence de-emphasised.

    >>> type_token_ratio(["a", "b", "a", "a"])
    (0.5, None)
    """
    return (len(set(tokens)) / len(tokens), None) if tokens else (None, "no words")


def distinct_2(tokens: Sequence[str]) -> Value:
    """Unique bigrams over all bigrams, of which there are N - 1 (Li et al. 2016).

    >>> distinct_2(["a", "b", "a", "b", "a"])  # ab, ba of 4
    (0.5, None)
    """
    if len(tokens) < 2:
        return None, f"{len(tokens)} words, no bigram"
    return len(set(itertools.pairwise(tokens))) / (len(tokens) - 1), None


def repetition_ratio(tokens: Sequence[str]) -> Value:
    """1 - unique trigrams over all N - 2 trigrams; null under 50 words.

    >>> repetition_ratio(["a", "b"] * 25)  # aba, bab of 48
    (0.9583333333333334, None)
    >>> repetition_ratio(["a"] * 49)
    (None, '49 words, under 50')
    """
    n_tokens = len(tokens)
    if n_tokens < MIN_WORDS_REPETITION:
        return None, f"{n_tokens} words, under {MIN_WORDS_REPETITION}"
    trigrams = set(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return 1 - len(trigrams) / (n_tokens - 2), None


def mtld(tokens: Sequence[str], threshold: float = MTLD_THRESHOLD) -> Value:
    """Measure of textual lexical diversity: mean words of a stretch that keeps TTR over `threshold`.

    Walking through the text, a factor closes where types over tokens of the running stretch is at or under
    the threshold; the rest at the end counts as the partial factor (1 - TTR) / (1 - threshold). The value is
    N over the number of factors, averaged over the text read forward and backward. A text whose words are all
    different closes no part of a factor: it has no value. Reference: McCarthy and Jarvis (2010).

    Parameters
    ----------
    tokens : sequence of str
        At least 10 words.
    threshold : float
        In (0, 1).

    Returns
    -------
    Value
        Words, or the reason: under 10 words, or no factor.

    Examples
    --------
    >>> mtld(["a", "b", "a"] * 4)  # every third word closes a factor at 2/3
    (3.0, None)
    >>> mtld([str(i) for i in range(40)])
    (None, 'no factor: all words are different')
    """
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold {threshold} of MTLD; allowed: between 0 and 1, e.g. {MTLD_THRESHOLD}")
    n_tokens = len(tokens)
    if n_tokens < MIN_WORDS_MTLD:
        return None, f"{n_tokens} words, under {MIN_WORDS_MTLD}"
    forward = _factors(tokens, threshold)
    if forward == 0.0:  # no word returns, so reading backward finds none either
        return None, "no factor: all words are different"
    return (n_tokens / forward + n_tokens / _factors(tokens[::-1], threshold)) / 2, None


def _factors(tokens: Sequence[str], threshold: float) -> float:
    """Closed factors plus the partial one at the end."""
    closed = 0
    length = 0
    types: set[str] = set()
    for token in tokens:
        length += 1
        types.add(token)
        if len(types) / length <= threshold:  # correctly rounded, so 18 / 25 closes at 0.72
            closed += 1
            length = 0
            types = set()
    return closed + (1 - len(types) / length) / (1 - threshold) if length else float(closed)


def compression_ratio(text: str) -> Value:
    """UTF-8 bytes over bytes after zlib at its default level: higher says more redundant (Shaib et al. 2024).

    >>> compression_ratio("ab" * 500)[0] > 50
    True
    """
    raw = text.encode("utf-8", errors="surrogatepass")
    return (len(raw) / len(zlib.compress(raw)), None) if raw else (None, "no characters")


def pairwise_jaccard(texts: Sequence[str]) -> Value:
    """Similarity within a cell: mean over all pairs of texts of shared types over types of either.

    0 when no two texts share a word, 1 when all use the same words. Texts that fail enter no pair.

    Parameters
    ----------
    texts : sequence of str
        The texts of one cell (model, arm, prompt).

    Returns
    -------
    Value
        In [0, 1]; null with fewer than two texts.

    Examples
    --------
    >>> pairwise_jaccard(["a b c", "b c d", "a b c"])  # 2/4, 1, 2/4
    (0.6666666666666666, None)
    """
    types = [set(tokenize(strip_think(text)[0] or "")) for text in texts if text_failure(text) is None]
    if len(types) < 2:
        return None, f"{len(types)} texts, no pair"
    shares = [
        len(left & right) / len(left | right) for i, left in enumerate(types) for right in types[i + 1 :]
    ]
    return math.fsum(shares) / len(shares), None


def measure_text(text: str) -> dict[str, Value]:
    """All METRICS and EXTRA of one text.

    Parameters
    ----------
    text : str
        As generated; closed think blocks are removed first.

    Returns
    -------
    dict of str to Value
        In the order of METRICS + EXTRA. For a failure every value carries the failure as its reason.

    Examples
    --------
    >>> measured = measure_text("the cat sat on the mat and the dog sat on the rug")
    >>> measured["length_words"], measured["repetition_ratio"]
    ((13.0, None), (None, '13 words, under 50'))
    >>> measure_text(" ")["mtld"]
    (None, 'no words left after stripping')
    """
    stripped, reason = strip_think(text)
    tokens = tokenize(stripped) if stripped is not None else []
    if stripped is None or not tokens:
        failure = reason or "no words left after stripping"
        return dict.fromkeys(METRICS + EXTRA, (None, failure))
    return {
        "mtld": mtld(tokens),
        "distinct_2": distinct_2(tokens),
        "shannon_word": shannon_word(tokens),
        "shannon_char": shannon_char(stripped),
        "repetition_ratio": repetition_ratio(tokens),
        "length_words": (float(len(tokens)), None),
        "type_token_ratio": type_token_ratio(tokens),
        "compression_ratio": compression_ratio(stripped),
    }


def describe(text: str | None, reason: str | None = None) -> dict[str, Any]:
    """All that analysis needs of one output, as plain data.

    Parameters
    ----------
    text : str or None
        As generated; None when there is none.
    reason : str or None
        Why there is none.

    Returns
    -------
    dict
        `failure` and `excluded` (a reason, or None), `words` of the stripped text, `sha256` of the text, and
        `metrics`: name -> [value, reason].

    Examples
    --------
    >>> found = describe("one two three")
    >>> found["failure"], found["excluded"], found["metrics"]["length_words"]
    (None, '3 words, under 10', [3.0, None])
    >>> describe(None, "GenerationTimeout: none in 180 s")["excluded"]
    'GenerationTimeout: none in 180 s'
    """
    if text is None:
        failure = reason or "no text"
        return {"failure": failure, "excluded": failure, "words": None, "sha256": None, "metrics": {}}
    stripped, _ = strip_think(text)
    return {
        "failure": text_failure(text),
        "excluded": exclusion(text),
        "words": None if stripped is None else len(tokenize(stripped)),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "metrics": {name: list(value) for name, value in measure_text(text).items()},
    }
