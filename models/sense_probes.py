"""Retrieval and coherence items of the world, and the scorer that knows its topics.

A retrieval item has one candidate of the query's sense, six of sibling senses and three of other lemmas, all
of the query's tier, shuffled: chance is .10 at 1 and .30 at 3, and for who knows the lemma alone 1/7 and 3/7.
With disjoint cues the query draws on one half of the topics and the candidates on the other.

The candidates as a set still tell something: six siblings are of one to three senses, so the correct one is
alone of its sense. A head that scores one candidate at a time cannot use that; `odd_one_out` measures it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.sense_items import CoherenceItem, RetrievalItem, Sense, TextItem
from models.sense_world import CUE_AND_SIBLING, Half, Split, World, WorldSense, sentence

SIBLINGS, OTHERS = 6, 3
"""Distractors of the same lemma and of other lemmas."""
MOVES = 2 / 3
"""Probability that the next context of a coherence item has another sense."""
EXAMPLES = 3
"""Contexts of each sense that a prototype is taken from."""
MINING_SEED = 1
"""Of the items that killers are mined from; those of the test have seed 0."""
WATCHED_SEED = 2
"""Of the dev items that training looks at; those that dev is judged on have seed 0."""


def retrieval_items(
    ours: World,
    split: Split = "test",
    *,
    per_sense: int = 2,
    tiers: Sequence[int] = tuple(CUE_AND_SIBLING),
    disjoint: bool = True,
    seed: int = 0,
) -> tuple[RetrievalItem, ...]:
    """`per_sense` items of each sense of a split and each tier.

    Other lemmas are of the same split and, as a text of the query's topic would be right by all a head can
    know, of other topics. A seed's items for a larger `per_sense` hold those for a smaller one.

    Raises
    ------
    ValueError
        For a count below 1, another tier or split, or a split of fewer than 10 lemmas.

    Examples
    --------
    >>> from models.sense_world import WorldSpec, world
    >>> items = retrieval_items(world(WorldSpec()), per_sense=1)
    >>> item = items[0]
    >>> len(items) // 3, len(item.candidates), sum(one.surface == item.lemma for one in item.candidates)
    (178, 10, 7)
    """
    if per_sense < 1:
        raise ValueError(f"{per_sense} items a sense were asked for; ask for at least 1")
    senses = ours.split_senses(split)
    if len(ours.split_lemmas(split)) < 10:
        raise ValueError(f"split {split!r} has {len(ours.split_lemmas(split))} lemmas; it needs at least 10")
    return tuple(
        _retrieval(ours, sense, senses, tier, f"{split}-{sense.id}-t{tier}-{k}", disjoint, seed)
        for sense in senses
        for tier in tiers
        for k in range(per_sense)
    )


def mining_items(ours: World, *, per_sense: int = 2) -> tuple[RetrievalItem, ...]:
    """Items of the test lemmas from which killers are mined: other sentences than the test's.

    >>> from models.sense_world import WorldSpec, world
    >>> ours = world(WorldSpec())
    >>> tested = {item.query.text for item in retrieval_items(ours, per_sense=1)}
    >>> any(item.query.text in tested for item in mining_items(ours, per_sense=1))
    False
    """
    return retrieval_items(ours, "test", per_sense=per_sense, seed=MINING_SEED)


def watched_items(ours: World) -> tuple[RetrievalItem, ...]:
    """Items of the dev lemmas that training looks at: other sentences than those dev is judged on."""
    return retrieval_items(ours, "dev", per_sense=1, seed=WATCHED_SEED)


def coherence_items(
    ours: World,
    split: Split = "test",
    *,
    per_lemma: int = 2,
    tiers: Sequence[int] = tuple(CUE_AND_SIBLING),
    seed: int = 0,
) -> tuple[CoherenceItem, ...]:
    """`per_lemma` items of each lemma and tier, of two contexts and three in turn.

    Contexts draw on half 1 of the topics; glosses and examples, which are of tier 1, on half 0.

    Raises
    ------
    ValueError
        For a count below 1, another tier or split.

    Examples
    --------
    >>> from models.sense_world import WorldSpec, world
    >>> items = coherence_items(world(WorldSpec()))
    >>> len(items), [len(item.contexts) for item in items[:2]]
    (360, [2, 3])
    """
    if per_lemma < 1:
        raise ValueError(f"{per_lemma} items a lemma were asked for; ask for at least 1")
    found = []
    for lemma in ours.split_lemmas(split):
        inventory = tuple(_inventory(ours, sense, seed) for sense in ours.senses[lemma])
        for tier in tiers:
            for k in range(per_lemma):
                rng = ours.rng("coherence", seed, lemma, tier, k)
                path = _path(ours.senses[lemma], 2 + k % 2, rng)
                contexts = tuple(sentence(ours, sense, tier, rng=rng, half=1) for sense in path)
                found.append(
                    CoherenceItem(
                        id=f"{split}-{lemma}-t{tier}-{k}",
                        lemma=lemma,
                        contexts=contexts,
                        senses=tuple(sense.id for sense in path),
                        inventory=inventory,
                    )
                )
    return tuple(found)


def topic_scorer(ours: World) -> Callable[[RetrievalItem], NDArray[np.float64]]:
    """Cosine of topic counts: what a head could reach that had learned every word's topic and no more.

    A positive control: where this is at chance, the items and not the head are at fault.
    """

    def score(item: RetrievalItem) -> NDArray[np.float64]:
        query, *rest = (topic_counts(ours, one) for one in item.texts())
        return np.array([query @ one for one in rest])

    return score


def odd_one_out(ours: World) -> Callable[[RetrievalItem], NDArray[np.float64]]:
    """The candidate of the lemma whose topics are least like those of the others; blind to the query."""

    def score(item: RetrievalItem) -> NDArray[np.float64]:
        rows = np.array([topic_counts(ours, one) for one in item.candidates])
        same = np.array([one.surface == item.lemma for one in item.candidates])
        alike = (rows @ rows[same].T).sum(axis=1) - np.where(same, (rows * rows).sum(axis=1), 0.0)
        return np.where(same, -alike, -1e9)

    return score


def topic_counts(ours: World, item: TextItem) -> NDArray[np.float64]:
    """(topics,) counts of a text's words of each topic, at length 1; zeros where it has none."""
    counts = np.zeros(len(ours.topics))
    for word in item.text.split():
        topic = ours.topic_of.get(word)
        if topic is not None:
            counts[topic] += 1
    return counts / max(float(np.linalg.norm(counts)), 1e-12)


def _retrieval(
    ours: World,
    sense: WorldSense,
    senses: Sequence[WorldSense],
    tier: int,
    name: str,
    disjoint: bool,
    seed: int,
) -> RetrievalItem:
    rng = ours.rng("retrieval", seed, name, "disjoint" if disjoint else "shared")
    halves: tuple[tuple[Half, Half], ...] = ((0, 1), (1, 0))
    asked, answering = rng.choice(halves) if disjoint else (None, None)
    siblings = [other for other in ours.senses[sense.lemma] if other.id != sense.id]
    rng.shuffle(siblings)
    same = [siblings[i % len(siblings)] for i in range(SIBLINGS)]
    shown = [sense, *same, *_other_lemmas(sense, senses, rng)]
    rng.shuffle(shown)
    query = sentence(ours, sense, tier, rng=rng, half=asked)
    return RetrievalItem(
        id=name,
        lemma=sense.lemma,
        query=query,
        candidates=tuple(sentence(ours, one, tier, rng=rng, half=answering) for one in shown),
        correct=(shown.index(sense),),
        tier=tier,
    )


def _other_lemmas(sense: WorldSense, senses: Sequence[WorldSense], rng: random.Random) -> list[WorldSense]:
    """Senses of three other lemmas, none of the query's topic."""
    found: dict[str, WorldSense] = {}
    while len(found) < OTHERS:
        drawn = rng.choice(senses)
        if drawn.lemma != sense.lemma and drawn.topic != sense.topic:
            found.setdefault(drawn.lemma, drawn)
    return list(found.values())


def _inventory(ours: World, sense: WorldSense, seed: int) -> Sense:
    rng = ours.rng("examples", seed, sense.id)
    examples = tuple(sentence(ours, sense, 1, rng=rng, half=0) for _ in range(EXAMPLES))
    return Sense(sense_id=sense.id, gloss=sense.gloss, examples=examples)


def _path(senses: Sequence[WorldSense], length: int, rng: random.Random) -> list[WorldSense]:
    path = [rng.choice(senses)]
    while len(path) < length:
        others = [sense for sense in senses if sense.id != path[-1].id]
        path.append(rng.choice(others) if rng.random() < MOVES else path[-1])
    return path
