"""The eleven experiments of the quantisation study as data: what each asks, waits for and may take.

Whether one succeeded, what it found and what that makes of its research question is computed from stored rows
by the views `experiments` and `research_questions`, which read this table from the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

RESEARCH_QUESTIONS: Mapping[str, str] = MappingProxyType(
    {
        "RQ1": "Does INT4 cost low-resource languages more than high-resource ones?",
        "RQ2": "Does keeping a share of the weights in full precision help?",
        "RQ3": "Which blocks carry the damage, and does keeping them help?",
        "RQ4": "Is the disparity the same in other architectures?",
    }
)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment of the plan."""

    id: str
    question: str
    research_question: str
    """One of `RESEARCH_QUESTIONS`."""
    after: tuple[str, ...]
    """Experiments whose results it needs."""
    decides: bool
    """Whether its verdict is a part of the research question's status."""
    predicted: str
    """What a DETECTED effect above zero means."""
    expected_minutes: float
    """As declared for the full profile."""


EXPERIMENTS = (
    Experiment(
        id="A-001",
        question="What does each language cost the unquantised model?",
        research_question="RQ1",
        after=(),
        decides=False,
        predicted="every language costs less than its own unigram model",
        expected_minutes=5.0,
    ),
    Experiment(
        id="A-002",
        question="What does INT4 cost each language?",
        research_question="RQ1",
        after=("A-001",),
        decides=False,
        predicted="INT4 costs bits in the mean over languages",
        expected_minutes=10.0,
    ),
    Experiment(
        id="A-003",
        question="Does INT4 cost low-resource languages more?",
        research_question="RQ1",
        after=("A-002",),
        decides=True,
        predicted="low-resource languages lose more bits an aligned sentence",
        expected_minutes=5.0,
    ),
    *(
        Experiment(
            id=f"B-00{place}",
            question=f"Does preserving {percent} % of the weights help?",
            research_question="RQ2",
            after=("A-002",),
            decides=True,
            predicted="the selector's weights save more bits than as many random ones",
            expected_minutes=15.0,
        )
        for place, percent in enumerate((5, 10, 20), start=1)
    ),
    Experiment(
        id="B-004",
        question="Which budget is the best?",
        research_question="RQ2",
        after=("B-001", "B-002", "B-003"),
        decides=True,
        predicted="the budget chosen on one half of the sentences saves bits on the other half",
        expected_minutes=5.0,
    ),
    Experiment(
        id="C-001",
        question="Which blocks are critical, in which language?",
        research_question="RQ3",
        after=("A-001",),
        decides=True,
        predicted="some block saves more than the mean block when it alone is kept",
        expected_minutes=20.0,
    ),
    Experiment(
        id="C-002",
        question="Does keeping the critical blocks help more than keeping others?",
        research_question="RQ3",
        after=("C-001",),
        decides=True,
        predicted="the chosen blocks save more than as many others, on sentences they were not chosen on",
        expected_minutes=30.0,
    ),
    Experiment(
        id="D-001",
        question="Does the disparity hold for the second architecture (OPT)?",
        research_question="RQ4",
        after=("A-003",),
        decides=True,
        predicted="low-resource languages lose more bits an aligned sentence",
        expected_minutes=30.0,
    ),
    Experiment(
        id="D-002",
        question="Does the disparity hold for the third architecture (GPT-NeoX)?",
        research_question="RQ4",
        after=("A-003",),
        decides=True,
        predicted="low-resource languages lose more bits an aligned sentence",
        expected_minutes=30.0,
    ),
)
BY_ID: Mapping[str, Experiment] = MappingProxyType({one.id: one for one in EXPERIMENTS})


def in_order(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The experiments that must run for `wanted`, dependencies first.

    >>> in_order(("B-004",))
    ('A-001', 'A-002', 'B-001', 'B-002', 'B-003', 'B-004')
    """
    needed = set(wanted)
    while True:
        more = needed | {before for one in needed for before in BY_ID[one].after}
        if more == needed:
            return tuple(one.id for one in EXPERIMENTS if one.id in needed)
        needed = more
