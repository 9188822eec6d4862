"""What a night does next: candidates, how long each will take, and which of them still fits.

Plain functions of rows, so that a night's choices can be computed again from the tables `night` and `queue`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

from lab.errors import UsageError
from lab.fingerprint import fingerprint

START_SECONDS = 12.0
"""Of a run that finds everything done: its process, its server calls, its gates."""
UNKNOWN_SECONDS = 600.0
"""Of work that nobody has measured and no study has declared."""
NOTHING_OPEN: Mapping[str, float] = MappingProxyType({})

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_HOURS = 8760
"""Of a budget: a year."""


def budget_seconds(budget: str) -> float:
    """A budget in seconds.

    Raises
    ------
    UsageError
        For another form, less than a second or more than a year.

    >>> budget_seconds("8h"), budget_seconds("1.5m"), budget_seconds("45s")
    (28800.0, 90.0, 45.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", budget.strip())
    if found is None or float(found[1]) * _UNITS[found[2]] < 1.0:
        raise UsageError(f"budget {budget!r}; write a number and s, m or h, such as 8h, 90m or 45s")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST_HOURS * 3600.0:
        raise UsageError(f"budget {budget!r} is over a year; allowed: 1s to {LONGEST_HOURS}h")
    return seconds


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A flow that a night may run."""

    study: str
    profile: str
    settings: Mapping[str, object]
    """Fields that differ from the profile's, as JSON values."""
    why: str
    """In words: part of the plan, or the decision that asks for it."""
    decision_id: str | None = None
    """Gate decision whose route it is."""

    @property
    def item(self) -> str:
        """The same for the same work, whoever asks for it."""
        return fingerprint([self.study, self.profile, dict(self.settings)])


@dataclass(frozen=True, kw_only=True)
class Past:
    """A finished run of the queue, for learning."""

    item: str
    study: str
    profile: str
    cpu: str
    missing: float
    """Units that were not here when it began, over the units of the profile as it stands."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How long a candidate will take."""

    seconds: float
    source: str
    """`learnt from N runs`, `declared` or `unknown`."""


def predicted(
    candidate: Candidate, *, missing: float, past: Sequence[Past], declared: float | None, cpu: str
) -> Prediction:
    """Seconds of a candidate: what its profile costs from cold, times what is missing, and its start.

    From cold: the median over runs that had something to do, each divided by what was missing; of the same
    candidate where there are any, else of the same study and profile, all on the same kind of processor.
    Where there are none, what the study declares.

    Parameters
    ----------
    missing
        Units that are not here yet, over the units of the profile as it stands: over 1 for more than that.

    >>> one = Candidate(study="s", profile="p", settings={}, why="plan")
    >>> run = Past(item=one.item, study="s", profile="p", cpu="c", missing=0.5, seconds=62.0)
    >>> predicted(one, missing=1.0, past=[run], declared=None, cpu="c")
    Prediction(seconds=112.0, source='learnt from 1 run')
    >>> predicted(one, missing=0.0, past=[], declared=300.0, cpu="c").seconds
    12.0
    """
    alike = [
        one
        for one in past
        if (one.study, one.profile, one.cpu) == (candidate.study, candidate.profile, cpu) and one.missing > 0
    ]
    alike = [one for one in alike if one.item == candidate.item] or alike
    known = [max(0.0, one.seconds - START_SECONDS) / one.missing for one in alike]
    if known:
        whole, source = median(known), f"learnt from {len(known)} {'runs' if len(known) > 1 else 'run'}"
    elif declared is not None:
        whole, source = declared, "declared"
    else:
        whole, source = UNKNOWN_SECONDS, "unknown"
    return Prediction(seconds=START_SECONDS + missing * whole, source=source)


def ordered(
    waiting: Sequence[tuple[Candidate, Prediction]], telling: Mapping[str, float] = NOTHING_OPEN
) -> list[tuple[Candidate, Prediction]]:
    """Smallest first; of those whose times are within one power of 2, the most informative.

    Parameters
    ----------
    telling
        Study -> questions of it that an hour would settle; one without an open question tells least.

    >>> short, long = Prediction(seconds=40.0, source=""), Prediction(seconds=60.0, source="")
    >>> one = Candidate(study="a", profile="p", settings={}, why="")
    >>> other = Candidate(study="b", profile="p", settings={}, why="")
    >>> [found.study for found, _ in ordered([(other, long), (one, short)])]
    ['a', 'b']
    >>> [found.study for found, _ in ordered([(other, long), (one, short)], {"b": 0.1})]
    ['b', 'a']
    """

    def rank(pair: tuple[Candidate, Prediction]) -> tuple[int, float, float]:
        seconds = pair[1].seconds
        return math.frexp(seconds)[1], -telling.get(pair[0].study, 0.0), seconds

    return sorted(waiting, key=rank)


def next_fitting(
    waiting: Sequence[tuple[Candidate, Prediction]],
    *,
    left: float,
    whole: float,
    telling: Mapping[str, float] = NOTHING_OPEN,
) -> tuple[Candidate, Prediction] | None:
    """The first in order that fits in what is left of the night; else the first that no night could hold.

    A candidate longer than a whole night would never run; it runs to the deadline and goes on next night.

    Parameters
    ----------
    left
        Seconds to the end of the night's work.
    whole
        What was left when the night began.
    telling
        As in `ordered`.

    >>> short, long = Prediction(seconds=10.0, source="declared"), Prediction(seconds=99.0, source="declared")
    >>> one = Candidate(study="a", profile="p", settings={}, why="")
    >>> other = Candidate(study="b", profile="p", settings={}, why="")
    >>> next_fitting([(other, long), (one, short)], left=20.0, whole=50.0)[0].study
    'a'
    >>> next_fitting([(other, long)], left=20.0, whole=50.0)[0].study
    'b'
    >>> next_fitting([(other, long)], left=20.0, whole=200.0) is None
    True
    """
    found = ordered(waiting, telling)
    for pair in found:
        if pair[1].seconds <= left:
            return pair
    for pair in found:
        if pair[1].seconds > whole and left > START_SECONDS:
            return pair
    return None
