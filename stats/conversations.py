"""A conversation as one unit: what the analysis takes for several turns that answer one another.

Later turns are written in the light of earlier ones, so turns are no independent samples. Declared: the value
of a conversation is the mean of its turns' values, each turn with the same weight however long it is. It is
undefined where any turn's value is: a mean over those left would compare conversations of different turns.
A conversation with a failed turn failed, one with a turn under the least number of words is excluded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stats.diversity import METRICS


def as_unit(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One description of a whole conversation.

    Parameters
    ----------
    turns : sequence of mapping
        What `stats.diversity.describe` says of each turn, in order; `with_thinking` where a turn has metrics
        of its reasoning too, from `stats.thinking`.

    Returns
    -------
    dict
        The same members. `words` is the sum over turns, `sha256` of the turns' hashes, `metrics` the means of
        METRICS; `with_thinking`, there when a turn has it, takes the metrics of the other turns as they are.

    Examples
    --------
    >>> from stats.diversity import describe
    >>> turns = [describe("one two three four five six seven eight nine ten " * n) for n in (1, 3)]
    >>> unit = as_unit(turns)
    >>> unit["metrics"]["length_words"], unit["words"]
    ([20.0, None], 40)
    >>> unit["metrics"]["mtld"]
    [None, 'turn 1: no factor: all words are different']
    >>> as_unit([turns[0], describe(None, "GenerationTimeout: none in 180 s")])["failure"]
    'turn 2: GenerationTimeout: none in 180 s'
    """
    if not turns:
        raise ValueError("a conversation without turns; give at least one")
    failure, excluded = (_first(name, turns) for name in ("failure", "excluded"))
    if failure is not None:
        return {"failure": failure, "excluded": failure, "words": None, "sha256": None, "metrics": {}}
    hashes = json.dumps([turn["sha256"] for turn in turns])
    unit = {
        "failure": None,
        "excluded": excluded,
        "words": sum(turn["words"] for turn in turns),
        "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        "metrics": _means([turn["metrics"] for turn in turns]),
    }
    if any(turn.get("with_thinking") for turn in turns):
        whole = [turn.get("with_thinking") or turn["metrics"] for turn in turns]
        unit["with_thinking"] = _means(whole)
    return unit


def _first(name: str, turns: Sequence[Mapping[str, Any]]) -> str | None:
    """The first turn's reason, with its number."""
    found = (f"turn {t}: {turn[name]}" for t, turn in enumerate(turns, start=1) if turn[name])
    return next(found, None)


def _means(turns: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, list[float | str | None]]:
    return {name: _mean([turn[name] for turn in turns]) for name in METRICS}


def _mean(turns: Sequence[Sequence[Any]]) -> list[float | str | None]:
    missing = [f"turn {t}: {reason}" for t, (value, reason) in enumerate(turns, start=1) if value is None]
    return [None, missing[0]] if missing else [math.fsum(value for value, _ in turns) / len(turns), None]
