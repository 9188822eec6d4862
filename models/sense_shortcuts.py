"""Two scorers that audit a set of items: can roles be told without the query, or by filler words alone?

role_classifier
    Multinomial naive Bayes of "correct" against "distractor" on the words of a candidate, lemma masked,
    counted on the items of other lemmas. It never sees the query. A set whose correct candidates are worded
    in a way of their own (a template, a source, a writer) is caught by it.
filler
    Jaccard index of query and candidate on the commonest words alone.

Both are at chance on a sound set, the first a little below: what a lemma lacks, the others have more of.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from models.sense_baselines import Scorer, Scores, masked, tokens
from models.sense_items import RetrievalItem, TextItem
from models.sense_leakage import jaccard

FILLERS = 120
"""Words of the filler lexicon."""


def role_classifier(items: Sequence[RetrievalItem]) -> Scorer:
    """Log odds of "correct" by naive Bayes with add-one smoothing, trained on the other lemmas.

    ln(n1 / n0) + sum over words of ln((c1(w) + 1) / (C1 + V)) - ln((c0(w) + 1) / (C0 + V)), with n the
    candidates of a role, c(w) the occurrences of w in them, C their sum and V the different words of all
    candidates of `items`. It equals scikit-learn's MultinomialNB.

    Raises
    ------
    ValueError
        Without items, or when all are of one lemma. The scorer raises it for an item of another collection.
    """
    counts: dict[tuple[str, bool], Counter[str]] = {}
    roles: Counter[tuple[str, bool]] = Counter()
    for item in items:
        for place, one in enumerate(item.candidates):
            key = (item.lemma, place in item.correct)
            counts.setdefault(key, Counter()).update(_words(one, item))
            roles[key] += 1
    lemmas = {lemma for lemma, _ in roles}
    if len(lemmas) < 2:
        raise ValueError(
            f"items are of lemmas {sorted(lemmas)}; a lemma is scored by others: give at least 2"
        )
    totals = {role: sum((counts[lemma, role] for lemma in lemmas), Counter()) for role in (True, False)}
    known = set(totals[True]) | set(totals[False])
    sizes = {role: sum(roles[lemma, role] for lemma in lemmas) for role in (True, False)}
    lengths = {key: count.total() for key, count in counts.items()}

    def logs(lemma: str, role: bool, words: Sequence[str]) -> float:
        own, total = counts[lemma, role], totals[role]
        length = total.total() - lengths[lemma, role] + len(known)
        prior = math.log(sizes[role] - roles[lemma, role])
        return prior + math.fsum(math.log((total[w] - own[w] + 1) / length) for w in words)

    def score(item: RetrievalItem) -> Scores:
        if item.lemma not in lemmas:
            raise ValueError(f"item {item.id!r} of lemma {item.lemma!r} is not among those counted on")
        found = []
        for one in item.candidates:
            words = [word for word in _words(one, item) if word in known]
            found.append(logs(item.lemma, True, words) - logs(item.lemma, False, words))
        return np.array(found, dtype=np.float64)

    return score


def fillers(items: Sequence[RetrievalItem], count: int = FILLERS) -> frozenset[str]:
    """The words in most of the different texts of `items`, lemma masked; ties in alphabetical order.

    Raises
    ------
    ValueError
        For a count below 1.
    """
    if count < 1:
        raise ValueError(f"{count} filler words were asked for; ask for at least 1")
    texts = dict.fromkeys(masked(one, item.lemma) for item in items for one in item.texts())
    seen = Counter(word for text in texts for word in set(tokens(text, "word")))
    return frozenset(sorted(seen, key=lambda word: (-seen[word], word))[:count])


def filler(items: Sequence[RetrievalItem], count: int = FILLERS) -> Scorer:
    """Jaccard index of query and candidate on the `fillers` of `items`; 0 for two texts without any."""
    lexicon = fillers(items, count)

    def score(item: RetrievalItem) -> Scores:
        asked, *rest = (lexicon & set(_words(one, item)) for one in item.texts())
        return np.array([jaccard(asked, one) for one in rest], dtype=np.float64)

    return score


def shortcuts(items: Sequence[RetrievalItem]) -> Mapping[str, Scorer]:
    """Name -> scorer of both."""
    return {"role_classifier": role_classifier(items), "filler": filler(items)}


def _words(one: TextItem, item: RetrievalItem) -> list[str]:
    return tokens(masked(one, item.lemma), "word")
