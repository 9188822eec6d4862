"""A small world of senses, and exams of its items made by hand, sound ones and ones at fault."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from models.sense_sources import SenseSource
from models.sense_world import WorldSpec, world
from tasks.sense_answers import Asked, asked
from tasks.sense_training import ItemSet, item_set

SPEC = WorldSpec(
    topics=6, topic_words=16, function_words=20, train_lemmas=24, test_lemmas=10, dev_lemmas=10, cues=8
)
OURS = world(SPEC)
SOURCE = SenseSource(world=SPEC)


@cache
def items() -> ItemSet:
    """The test items: one a sense, a lemma and a tier."""
    return item_set(SOURCE, "test", per_sense=1, per_lemma=1)


@cache
def who() -> Asked:
    return asked(items())


def key_of(of: Asked) -> list[list[float]]:
    """1 for right candidates, 0 for the others."""
    return [[float(i in one.correct) for i in range(len(one.candidates))] for one in of.retrieval]


def exam(seed: int, skill: float = 1.0, of: Asked | None = None) -> dict[str, Any]:
    """What a head answers: normal noise, and `skill` more for right candidates; 19 of 20 contexts right."""
    known, rng = of or who(), np.random.default_rng([seed, round(10 * abs(skill))])
    scores = [(rng.normal(size=len(own)) + skill * np.array(own)).round(6).tolist() for own in key_of(known)]
    decided = [
        [
            one.sense_id if rng.random() < 0.95 else str(rng.choice([s.sense_id for s in item.inventory]))
            for one in item.contexts
        ]
        for item in known.coherence
    ]
    attention = [
        {"item": one.id, "entropy": 0.5 + 0.01 * seed, "cue_mass": None if n % 2 else 0.25, "lemma_mass": 0.1}
        for n, one in enumerate(known.retrieval)
    ]
    return {
        "scores": scores, "attention": attention, "shown": [], "spread": {"mean_cosine": 0.1}, "known": 0.9,
        "decided": decided, "reshown": decided,
    }  # fmt: skip


def at_fault(name: str, of: Asked | None = None) -> dict[str, Any]:
    """An exam with one of `FAULTS`."""
    known = of or who()
    sound, gold = exam(5, 1.6, known), [list(one.senses) for one in known.coherence]
    changes: Mapping[str, dict[str, Any]] = {
        "missing": {"scores": []},
        "short": {"scores": [own[:-1] for own in sound["scores"]]},
        "constant": {"scores": [[0.25 for _ in own] for own in sound["scores"]]},
        "key": {"scores": key_of(known)},
        "scaled key": {"scores": [[0.1 + 0.7 * one for one in own] for own in key_of(known)]},
        "no decisions": {"decided": []},
        "echo": {"decided": gold, "reshown": [[f"not {sense}" for sense in own] for own in gold]},
        "one sense": {"decided": [["bank.1"] * len(own) for own in gold]},
    }
    return {**sound, **changes[name]}


FAULTS = {
    "missing": "0 lists of scores do not fit",
    "short": "lists of scores do not fit the .* items; score every candidate",
    "constant": "a constant scorer ranks by file order alone",
    "key": "these are the answers, not scores",
    "scaled key": "these are the answers, not scores",
    "no decisions": "no decisions for 30 items; a missing scorer has no coherence",
    "echo": "change with the answers shown: the scorer reads them",
    "one sense": "a constant scorer decides nothing",
}
"""Fault -> what is said of it, a pattern."""
