"""Scores of candidates by rules that learn nothing: the lemma, length, source, shared words, TF-IDF.

A score array has one entry a candidate, in file order; a higher one is better and the earlier of two equal
ones comes first (`ranking`). A head has to beat all of them.

lemma_only
    1 for a candidate of the query's lemma.
longest, nearest_length
    Characters; the fewest characters of difference from the query.
same_source, source_rate
    1 for the query's source; how often candidates of a source are correct, counted on other lemmas.
word_jaccard, word_tfidf, char_tfidf
    Texts with the lemma masked. TF-IDF with the weights of scikit-learn's TfidfVectorizer, by its defaults
    (word) or of character 3- to 5-grams within words (analyzer "char_wb"); cosine.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.sense_items import RetrievalItem, TextItem
from models.sense_leakage import jaccard

Scores = NDArray[np.float64]
Scorer = Callable[[RetrievalItem], Scores]
Analyzer = Literal["word", "char"]

NGRAMS = (3, 5)
"""Shortest and longest of character TF-IDF."""
_WORD = re.compile(r"\w\w+")


def ranking(scores: Scores) -> NDArray[np.intp]:
    """Places of candidates, best first; ties in file order.

    >>> ranking(np.array([0.5, 1.0, 0.5, 1.0])).tolist()
    [1, 3, 0, 2]
    """
    return np.argsort(-scores, kind="stable")


def chance(item: RetrievalItem, k: int) -> float:
    """Probability that the first k of a random order hold a correct one: 1 - C(n - m, k) / C(n, k).

    n candidates, m of them correct; k at most n.

    Raises
    ------
    ValueError
        For a k below 1.

    Examples
    --------
    >>> sense = {"surface": "bank", "span": (0, 4)}
    >>> texts = [TextItem(text=f"bank {i}", sense_id=f"bank.{i}", **sense) for i in range(10)]
    >>> query = TextItem(text="bank", sense_id="bank.4", **sense)
    >>> item = RetrievalItem(id="1", lemma="bank", query=query, candidates=tuple(texts), correct=(4,))
    >>> chance(item, 1), round(chance(item, 3), 12)
    (0.1, 0.3)
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    n, wrong = len(item.candidates), len(item.candidates) - len(item.correct)
    ways = math.comb(n, min(k, n))
    return (ways - math.comb(wrong, min(k, n))) / ways


def lemma_only(item: RetrievalItem) -> Scores:
    """1 where the surface is the query's or the lemma, or one begins with the other; else 0.

    Beginnings of three letters or more, so "banks" is of "bank"; "went" is not of "go".
    """
    known = {item.lemma.lower(), item.query.surface.lower()}
    return _each(item, lambda one: float(any(_same_word(one.surface.lower(), name) for name in known)))


def longest(item: RetrievalItem) -> Scores:
    """Characters of a candidate."""
    return _each(item, lambda one: float(len(one.text)))


def nearest_length(item: RetrievalItem) -> Scores:
    """Minus the difference in characters from the query."""
    return _each(item, lambda one: -float(abs(len(one.text) - len(item.query.text))))


def same_source(item: RetrievalItem) -> Scores:
    """1 where the source is the query's."""
    return _each(item, lambda one: float(one.source == item.query.source))


def word_jaccard(item: RetrievalItem) -> Scores:
    """Jaccard index of the word sets of query and candidate, lemma masked; 0 for two without words."""
    asked = frozenset(tokens(masked(item.query, item.lemma), "word"))
    return _each(item, lambda one: jaccard(asked, frozenset(tokens(masked(one, item.lemma), "word"))))


def source_rate(items: Sequence[RetrievalItem]) -> Scorer:
    """A scorer by the share of a source's candidates that are correct, among other lemmas; 0 for none."""
    right: Counter[tuple[str, str]] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        for place, one in enumerate(item.candidates):
            for lemma in (item.lemma, ""):
                seen[lemma, one.source] += 1
                right[lemma, one.source] += place in item.correct

    def rate(lemma: str, source: str) -> float:
        others = seen["", source] - seen[lemma, source]
        return (right["", source] - right[lemma, source]) / others if others else 0.0

    return lambda item: _each(item, lambda one: rate(item.lemma, one.source))


@dataclass(frozen=True, kw_only=True)
class TfIdf:
    """Weights of terms, counted on a collection of texts.

    idf(t) = ln((1 + n) / (1 + df(t))) + 1 with df(t) of the n texts that hold t; a text is the vector of
    tf(t) idf(t) at length 1. Terms the collection does not hold are passed over.
    """

    analyzer: Analyzer
    idf: Mapping[str, float]

    def vector(self, text: str) -> Mapping[str, float]:
        """Term -> weight; empty for a text of no known term."""
        counts = Counter(term for term in tokens(text, self.analyzer) if term in self.idf)
        weights = {term: count * self.idf[term] for term, count in counts.items()}
        length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
        return {term: weight / length for term, weight in weights.items()}


def fit_tfidf(texts: Iterable[str], analyzer: Analyzer) -> TfIdf:
    """Weights counted on `texts`.

    >>> weights = fit_tfidf(["old river", "old money"], "word").idf
    >>> {term: round(weight, 3) for term, weight in sorted(weights.items())}
    {'money': 1.405, 'old': 1.0, 'river': 1.405}
    """
    counts: Counter[str] = Counter()
    n = 0
    for text in texts:
        counts.update(set(tokens(text, analyzer)))
        n += 1
    idf = {term: math.log((1 + n) / (1 + count)) + 1 for term, count in counts.items()}
    return TfIdf(analyzer=analyzer, idf=MappingProxyType(idf))


def tfidf(items: Sequence[RetrievalItem], analyzer: Analyzer) -> Scorer:
    """A scorer by the cosine of query and candidate, lemma masked.

    The collection is every different masked text of `items`. An item of another collection is scored by the
    same weights.
    """
    texts = dict.fromkeys(masked(one, item.lemma) for item in items for one in item.texts())
    fitted = fit_tfidf(texts, analyzer)
    vector = cache(fitted.vector)

    def score(item: RetrievalItem) -> Scores:
        asked = vector(masked(item.query, item.lemma))
        return _each(item, lambda one: _dot(asked, vector(masked(one, item.lemma))))

    return score


def baselines(items: Sequence[RetrievalItem]) -> Mapping[str, Scorer]:
    """Name -> scorer, of all eight; source rates and TF-IDF are counted on `items`, without their senses
    except for source rates.

    Raises
    ------
    ValueError
        Without items.
    """
    if not items:
        raise ValueError("there are no items to count on; give at least 1")
    return MappingProxyType(
        {
            "lemma_only": lemma_only,
            "longest": longest,
            "nearest_length": nearest_length,
            "same_source": same_source,
            "source_rate": source_rate(items),
            "word_jaccard": word_jaccard,
            "word_tfidf": tfidf(items, "word"),
            "char_tfidf": tfidf(items, "char"),
        }
    )


QUERY_BLIND = ("longest", "nearest_length", "same_source", "source_rate")
"""Blind to the query's words; two of them use its length or source."""
LEXICAL = ("word_jaccard", "word_tfidf", "char_tfidf")


def masked(item: TextItem, lemma: str) -> str:
    """The text without its span and without any other word that is its surface or the lemma, case apart.

    >>> masked(TextItem(text="Banks: a bank", span=(0, 5), surface="Banks", sense_id="1"), "bank").split()
    [':', 'a']
    """
    start, end = item.span
    text = f"{item.text[:start]} {item.text[end:]}"
    for name in {item.surface, lemma}:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", " ", text, flags=re.IGNORECASE)
    return text


def tokens(text: str, analyzer: Analyzer) -> list[str]:
    """Terms of a text, in lower case.

    word
        Runs of two or more letters or digits.
    char
        n-grams of each run between spaces with a space before and after it; one that is no longer than n
        gives itself, once.

    >>> tokens("A river", "word"), tokens("ab", "char")
    (['river'], [' ab', 'ab ', ' ab '])
    """
    if analyzer == "word":
        return _WORD.findall(text.lower())
    return [gram for word in text.lower().split() for gram in _grams(f" {word} ")]


@cache
def _grams(word: str) -> tuple[str, ...]:
    found: list[str] = []
    for n in range(NGRAMS[0], NGRAMS[1] + 1):
        if len(word) <= n:
            found.append(word)
            break
        found += [word[i : i + n] for i in range(len(word) - n + 1)]
    return tuple(found)


def _same_word(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) >= 3 and long.startswith(short))


def _each(item: RetrievalItem, score: Callable[[TextItem], float]) -> Scores:
    return np.array([score(one) for one in item.candidates], dtype=np.float64)


def _dot(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Rounded once, so that texts of the same words in another order tie."""
    return math.fsum(weight * other[term] for term, weight in one.items() if term in other)
