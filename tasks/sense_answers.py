"""Answers of heads and baselines as arrays: who was asked, who was right, by how much.

A head whose scores are missing, constant or the answer key itself is refused by `stats`; here that becomes
the reason why its arm says nothing. A baseline that ties everything is no error: it gets what chance gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lab.products import Products
from models.sense_baselines import QUERY_BLIND
from models.sense_items import CoherenceItem, RetrievalItem, without_killers
from models.sense_probes import mining_items
from models.sense_world import world
from stats.coherence import Coherence, coherence
from stats.retrieval import Key, Ranked, answer_key, chance_top, ranked
from stats.rows import FloatArray
from stats.ship_blockers import Outcomes, TestSet
from stats.shortcut_audit import Shortcut
from tasks.sense_training import BASELINES, EXAM, ItemSet, items_of


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The items of a split."""

    retrieval: tuple[RetrievalItem, ...]
    coherence: tuple[CoherenceItem, ...]

    @property
    def key(self) -> Key:
        """Which candidates are right."""
        return answer_key(
            [item.correct for item in self.retrieval], [len(item.candidates) for item in self.retrieval]
        )

    @property
    def lemmas(self) -> list[str]:
        """(I,) of the retrieval items."""
        return [item.lemma for item in self.retrieval]

    @property
    def tiers(self) -> list[int]:
        """(I,) 1 where none was told."""
        return [item.tier or 1 for item in self.retrieval]

    @property
    def steps(self) -> list[int]:
        """(J,) contexts of each coherence item."""
        return [len(item.contexts) for item in self.coherence]

    @property
    def test_set(self) -> TestSet:
        """Who the items are."""
        return TestSet(
            lemmas=self.lemmas,
            tiers=self.tiers,
            coherence_lemmas=[item.lemma for item in self.coherence],
            coherence_steps=np.array(self.steps, dtype=np.float64) if self.coherence else 1.0,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """One arm's answers, seeds in order."""

    ranked: Ranked | None
    """(S, I) arrays; None where there are no retrieval items."""
    coherences: tuple[Coherence, ...]
    """One a seed; empty where there are no coherence items."""
    entropy: FloatArray | None
    """(S, I) H(w) / ln T of the query."""
    known: float | None
    """Least share, over seeds, of the words asked that the training texts hold; None without items."""

    @property
    def outcomes(self) -> Outcomes:
        """As the blockers take them."""
        found = self.ranked
        return Outcomes(
            top1=None if found is None else found.top(1),
            top3=None if found is None else found.top(3),
            coherence=self.right,
            margin=None if found is None else found.margin,
        )

    @property
    def right(self) -> FloatArray | None:
        """(S, J) contexts decided rightly."""
        if not self.coherences:
            return None
        return np.stack([one.right for one in self.coherences]).astype(np.float64)


@lru_cache(maxsize=8)
def asked(items: ItemSet) -> Asked:
    """The items themselves, those chosen if any were."""
    if items.split == "mining":
        every = mining_items(world(items.source.world), per_sense=items.per_sense)
        found = every if items.chosen is None else tuple(i for i in every if i.id in set(items.chosen))
        return Asked(retrieval=found, coherence=())
    both = items_of(items)
    if items.chosen is not None:
        wanted = set(items.chosen)
        return Asked(retrieval=tuple(i for i in both.retrieval if i.id in wanted), coherence=())
    return Asked(retrieval=tuple(without_killers(both.retrieval)), coherence=both.coherence)


def answers(home: Path, keys: Sequence[str], items: Asked) -> Answers:
    """The answers of one arm's heads.

    Parameters
    ----------
    keys
        Products of the exams, one a seed.

    Raises
    ------
    ValueError
        For scores or decisions that are no measurement: missing, constant, or the answers themselves.
    """
    bodies = [Products(home, EXAM).read(key) for key in keys]
    if not bodies or any(body is None for body in bodies):
        raise ValueError(f"{sum(body is None for body in bodies)} of {len(keys)} exams are missing")
    return answers_of(bodies, items)


def answers_of(bodies: Sequence[Mapping[str, Any]], items: Asked) -> Answers:
    """As `answers`, of exams in hand."""
    found = None
    if items.retrieval:
        table = np.stack([_padded(body["scores"], items) for body in bodies])
        found = ranked(table, items.key)
    gold = [item.senses for item in items.coherence]
    decided = tuple(
        coherence([tuple(one) for one in body["decided"]], gold,
                  reshown=[tuple(one) for one in body["reshown"]])
        for body in bodies
        if items.coherence
    )  # fmt: skip
    entropy = [[one["entropy"] for one in body["attention"]] for body in bodies]
    defined = bool(items.retrieval) and all(value is not None for row in entropy for value in row)
    return Answers(ranked=found, coherences=decided, entropy=np.array(entropy) if defined else None,
                   known=_least_known(bodies))  # fmt: skip


def _least_known(bodies: Sequence[Mapping[str, Any]]) -> float | None:
    shares = [body["known"] for body in bodies if body.get("known") is not None]
    return min(shares) if shares else None


def _padded(scores: Sequence[Sequence[float]], items: Asked) -> FloatArray:
    sizes = [len(item.candidates) for item in items.retrieval]
    if [len(own) for own in scores] != sizes:
        raise ValueError(
            f"{len(scores)} lists of scores do not fit the {len(sizes)} items; score every candidate"
        )
    table = np.zeros((len(sizes), max(sizes)))
    for row, own in enumerate(scores):
        table[row, : len(own)] = own
    return table


@dataclass(frozen=True, kw_only=True, eq=False)
class Unlearned:
    """What has not learned: baselines to beat, shortcuts that must fail, and the ceiling."""

    baselines: Mapping[str, Outcomes]
    shortcuts: Mapping[str, Shortcut]
    ceiling: Outcomes | None
    """Of the scorer that knows every word's topic; only the world has one."""


def unlearned(home: Path, key: str, items: Asked) -> Unlearned:
    """Baselines, with chance among them, shortcuts and ceiling, ties broken by chance."""
    body = Products(home, BASELINES).read(key)
    if body is None:
        raise ValueError("the scores of the baselines are gone or damaged; run the study again")
    known = items.key if items.retrieval else None
    roles: Mapping[str, str] = body["roles"]
    baselines: dict[str, Outcomes] = {}
    for name, right in body["coherence"].items():
        baselines[name] = Outcomes(top1=None, top3=None, coherence=np.array([right]))
    shortcuts: dict[str, Shortcut] = {}
    if known is not None:
        correct = known.correct.sum(axis=1)
        chance = {k: chance_top(known.sizes, correct, k) for k in (1, 3)}
        baselines["chance"] = Outcomes(top1=chance[1][None], top3=chance[3][None])
        for name, scores in body["scores"].items():
            top = {k: _expected(scores, items, known, k) for k in (1, 3)}
            decided = baselines[name].coherence if name in baselines else None
            if roles[name] != "shortcut":
                baselines[name] = Outcomes(top1=top[1][None], top3=top[3][None], coherence=decided)
            if roles[name] == "shortcut" or name in QUERY_BLIND:
                shortcuts[name] = Shortcut(hits=top[1], chance=chance[1], lemmas=items.lemmas)
    ceiling = baselines.pop(CEILING, None)
    return Unlearned(baselines=baselines, shortcuts=shortcuts, ceiling=ceiling)


CEILING = "topics_known"


def _expected(scores: Any, items: Asked, known: Key, k: int) -> FloatArray:
    """(I,) probability of a hit in the first k with ties broken by chance."""
    table = _padded(scores, items)
    there = known.present
    right = np.where(known.correct, table, -np.inf).max(axis=1, keepdims=True)
    above = (there & (table > right)).sum(axis=1)
    level = (there & (table == right)).sum(axis=1)
    level_correct = (known.correct & (table == right)).sum(axis=1)
    hit: FloatArray = np.where(above >= k, 0.0, chance_top(level, level_correct, k - above))
    return hit
