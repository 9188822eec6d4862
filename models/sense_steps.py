"""Coherence items asked of any scorer of candidates: which of the lemma's senses is each context nearest to?

A context becomes a query, the examples and glosses of all senses its candidates, a gloss as in a dictionary:
"bark: the cry of a dog". A sense's score is the mean over its own. The item that a scorer sees holds the gold
sense, so a scorer could read it: `with_other_answers` gives the same contexts under other golds, and what
changes with them is no decision (`stats.coherence`). Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.sense_baselines import Scorer
from models.sense_items import CoherenceItem, RetrievalItem, Sense, TextItem

SAME = 1e-12
"""Means this near are equal: the mean of n equal scores differs from them by rounding."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One context, to be decided among the examples of its lemma's senses."""

    asked: RetrievalItem
    """The context against every example and gloss of every sense."""
    senses: tuple[str, ...]
    """Of the inventory, in order."""


def steps_of(item: CoherenceItem) -> tuple[Step, ...]:
    """The contexts of an item in order.

    Raises
    ------
    ValueError
        When there is no inventory, or a sense of it has neither example nor gloss.
    """
    refuse_undecidable([item])
    shown = tuple(one for sense in item.inventory for one in _shown(item.lemma, sense))
    known = tuple(sense.sense_id for sense in item.inventory)
    return tuple(
        Step(
            asked=RetrievalItem(
                id=f"{item.id}/{place}",
                lemma=item.lemma,
                query=context,
                candidates=shown,
                correct=tuple(i for i, one in enumerate(shown) if one.sense_id == context.sense_id),
            ),
            senses=known,
        )
        for place, context in enumerate(item.contexts)
    )


def refuse_undecidable(items: Sequence[CoherenceItem]) -> None:
    """Nothing, if every item says which senses its contexts are decided among.

    Raises
    ------
    ValueError
        For an item without an inventory, or a sense of it with neither gloss nor example.
    """
    for item in items:
        if not item.inventory:
            raise ValueError(
                f"coherence item {item.id!r} has no inventory; give the lemma's senses, each with a gloss or "
                "examples"
            )
        bare = [one.sense_id for one in item.inventory if not (one.gloss.strip() or one.examples)]
        if bare:
            raise ValueError(
                f"coherence item {item.id!r}: sense {bare[0]!r} has neither gloss nor example; give one"
            )


def _shown(lemma: str, sense: Sense) -> tuple[TextItem, ...]:
    """A sense's examples, then its gloss after the lemma."""
    if not sense.gloss.strip():
        return sense.examples
    entry = TextItem(
        text=f"{lemma}: {sense.gloss}", span=(0, len(lemma)), surface=lemma, sense_id=sense.sense_id
    )
    return (*sense.examples, entry)


def expected_right(score: Scorer, items: Sequence[CoherenceItem]) -> list[float]:
    """Contexts of each item that a scorer decides rightly, ties shared: of k best senses each counts 1 / k.

    A scorer that ties everything gets what guessing gets.
    """
    found = []
    for item in items:
        right = 0.0
        for step in steps_of(item):
            means = sense_means(score(step.asked), step)
            best = [
                sense
                for sense, mean in zip(step.senses, means, strict=True)
                if math.isclose(mean, max(means), rel_tol=SAME, abs_tol=SAME)
            ]
            right += (step.asked.query.sense_id in best) / len(best)
        found.append(right)
    return found


def sense_means(scores: np.ndarray[tuple[int, ...], np.dtype[np.float64]], step: Step) -> list[float]:
    """Mean score of each sense's examples and gloss."""
    of = [one.sense_id for one in step.asked.candidates]
    return [
        float(np.mean([score for score, sense in zip(scores, of, strict=True) if sense == wanted]))
        for wanted in step.senses
    ]


def with_other_answers(item: CoherenceItem) -> CoherenceItem:
    """The same contexts, each said to have the inventory's next sense.

    Raises
    ------
    ValueError
        Without an inventory.
    """
    known = [sense.sense_id for sense in item.inventory]
    if not known:
        raise ValueError(f"coherence item {item.id!r} has no inventory; there is no other answer to give")
    after = {sense: known[(place + 1) % len(known)] for place, sense in enumerate(known)}
    contexts = tuple(replace(one, sense_id=after[one.sense_id]) for one in item.contexts)
    return replace(item, contexts=contexts, senses=tuple(one.sense_id for one in contexts))
