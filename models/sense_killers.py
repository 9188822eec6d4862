"""Killers: the test items that a network fails, once repeats and doubtful labels are taken out.

A failure may be hard, or wrongly labelled, or the same failure told twice. What is left after a label filter
and de-duplication, at most a few a lemma, is tier 4. The network that fails them, the miner, has another seed
than those they will test, and they stay out of training: both are up to whoever mines. Nothing needs torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from models.sense_items import RetrievalItem, TextItem
from models.sense_leakage import NEAR, jaccard, label_conflicts, placed, words

FAILED_ABOVE = 3
"""The miner fails an item whose best correct candidate stands below this rank."""
NOT_FAILED, CONFLICT = "not failed", "label conflict"
SAME, NEARLY, ENOUGH = "same query", "nearly the same query", "enough of the lemma"
REASONS = (NOT_FAILED, CONFLICT, SAME, NEARLY, ENOUGH)
"""Why an item is no killer, in the order in which they are asked."""

_Label = tuple[str, str, frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Killers:
    """What was mined, and what was left out."""

    items: tuple[RetrievalItem, ...]
    """Of tier 4, lowest margin first."""
    dropped: Mapping[str, int]
    """Items left out for each of `REASONS`, 0 too; with `items` they make up all that were given."""


def killers(
    items: Sequence[RetrievalItem],
    ranks: Sequence[int],
    margins: Sequence[float],
    *,
    most_a_lemma: int = 2,
) -> Killers:
    """The miner's failures without doubtful labels and repeats, the worst of each lemma.

    A label is in doubt where any text of the item is also, or nearly, a text of another sense under the same
    surface, anywhere in `items`. Queries of one lemma that are the same, or nearly (Jaccard index of word
    sets .8), are one: the one with the lowest margin.

    Parameters
    ----------
    ranks
        The miner's rank of each item's best correct candidate, 1 the first.
    margins
        Its best correct score less its best wrong score, in units of the scores; ties go by id.
    most_a_lemma
        Killers of one lemma, at least 1.

    Raises
    ------
    ValueError
        For lengths that differ, an id twice, a rank that no candidate has, a margin that is not finite or
        contradicts its rank.

    Examples
    --------
    >>> def text(words, sense):
    ...     return TextItem(text=f"bank {words}", span=(0, 4), surface="bank", sense_id=sense)
    >>> def item(name, words):
    ...     wrong = tuple(text(f"{name} {i}", "bank.2") for i in range(4))
    ...     return RetrievalItem(id=name, lemma="bank", query=text(words, "bank.1"),
    ...                          candidates=(*wrong, text(f"{name} right", "bank.1")), correct=(4,))
    >>> mined = killers([item("a", "by a river"), item("b", "by a River"), item("c", "of sand")],
    ...                 [4, 5, 1], [-0.1, -0.3, 0.2])
    >>> [(one.id, one.tier) for one in mined.items], {k: n for k, n in mined.dropped.items() if n}
    ([('b', 4)], {'not failed': 1, 'nearly the same query': 1})
    """
    _check(items, ranks, margins, most_a_lemma)
    doubtful = _conflicting(items)
    dropped = dict.fromkeys(REASONS, 0)
    kept: list[RetrievalItem] = []
    of_lemma: Counter[str] = Counter()
    queries: dict[str, list[TextItem]] = {}
    for place in sorted(range(len(items)), key=lambda i: (margins[i], items[i].id)):
        item = items[place]
        found = queries.setdefault(item.lemma, [])
        if ranks[place] <= FAILED_ABOVE:
            why = NOT_FAILED
        elif any(_label(text) in doubtful for text in item.texts()):
            why = CONFLICT
        else:
            why = _repeats(item.query, found) or (ENOUGH if of_lemma[item.lemma] >= most_a_lemma else "")
        if why:
            dropped[why] += 1
            continue
        of_lemma[item.lemma] += 1
        found.append(item.query)
        kept.append(replace(item, tier=4))
    return Killers(items=tuple(kept), dropped=MappingProxyType(dropped))


def refuse_conflicts(items: Sequence[RetrievalItem]) -> None:
    """Nothing, if no text of these items has two senses under one surface.

    Raises
    ------
    ValueError
        With both places of the first conflict, and how many there are: such items test the labels.
    """
    found = label_conflicts(tuple(placed(items)))
    if found:
        raise ValueError(
            f"{len(found)} texts of {len(items)} items have two senses, the first {found[0].said}; correct "
            "the labels or leave the items out"
        )


def _check(
    items: Sequence[RetrievalItem], ranks: Sequence[int], margins: Sequence[float], most_a_lemma: int
) -> None:
    if not len(items) == len(ranks) == len(margins):
        raise ValueError(
            f"{len(ranks)} ranks and {len(margins)} margins for {len(items)} items; one of each an item"
        )
    if most_a_lemma < 1:
        raise ValueError(f"{most_a_lemma} killers a lemma; at least 1")
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise ValueError(f"id {twice[0]!r} is used {max(Counter(i.id for i in items).values())} times; once")
    for item, rank, margin in zip(items, ranks, margins, strict=True):
        last = len(item.candidates) - len(item.correct) + 1
        if not 1 <= rank <= last or rank != int(rank):
            raise ValueError(
                f"item {item.id!r}: rank {rank}; its best correct candidate has a rank from 1 to {last}"
            )
        if not math.isfinite(margin):
            raise ValueError(f"item {item.id!r}: margin {margin}; it must be finite")
        if (margin > 0 and rank > 1) or (margin < 0 and rank == 1):
            raise ValueError(f"item {item.id!r}: rank {rank} and margin {margin} contradict each other")


def _label(text: TextItem) -> _Label:
    return text.sense_id, text.surface.lower(), words(text.text)


def _conflicting(items: Sequence[RetrievalItem]) -> Collection[_Label]:
    """Sense, surface and word set of every text in conflict; a text may stand in many items."""
    return {
        (one.sense_id, one.surface.lower(), words(one.text))
        for pair in label_conflicts(tuple(placed(items)))
        for one in (pair.first, pair.second)
    }


def _repeats(query: TextItem, found: Sequence[TextItem]) -> str:
    """Why the query is one of those found already; empty where it is not."""
    if any(query.text == other.text for other in found):
        return SAME
    mine = words(query.text)
    return NEARLY if any(jaccard(mine, words(other.text)) >= NEAR for other in found) else ""
