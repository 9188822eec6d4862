"""The rank study's answers as `aggregated_results.json`, in the published shape; `ladder import` reads it.

Every number is made of one accuracy a seed and arm, so that a reader without the store can make it again.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.durable import write_durably
from lab.earlier_placements import SHUFFLED
from lab.products import Products
from lab.records import ArtifactRow
from stats.rank_scenario import WITHIN
from stats.rows import TestRow
from tasks.rank_analysis import FAMILY, PRIMARY
from tasks.rank_placing import PROBE, TREATMENT, kind_of
from tasks.rank_training import ANSWERS, Exam, read_adapter

KIND = "aggregated_results"
ROUNDING = 1e-12
"""Shares of items this near to a bound lie on it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One arm of one seed."""

    accuracy: float
    """Share of the test items, strict rule."""
    parameters: float
    """Trained; a mean where the arm is one of several."""


Outcomes = Mapping[str, Mapping[int, Outcome]]
"""Arm -> seed -> outcome."""


def outcomes_of(home: Path, exams: Mapping[tuple[int | None, str], Exam]) -> dict[str, dict[int, Outcome]]:
    """Accuracy and size of every arm that answered; the base alone is none."""
    found: dict[str, dict[int, Outcome]] = {}
    for (seed, arm), exam in exams.items():
        if seed is None or exam.job is None:
            continue
        answers = Products(home, ANSWERS).read(exam.key)["answers"]
        right = sum(one[PRIMARY] for one in answers)
        parameters = float(read_adapter(home, exam.job)["parameters"])
        found.setdefault(arm, {})[seed] = Outcome(accuracy=right / len(answers), parameters=parameters)
    return found


def aggregated(
    outcomes: Outcomes, rows: Sequence[TestRow], *, model: str, non_inferiority: float
) -> dict[str, Any]:
    """The file's content.

    Parameters
    ----------
    outcomes
        The probe and every other arm; the probe's seeds are those of the file, an arm that lacks one of them
        is named under `left_out`.
    rows
        Of the analysis; those of role `decides` give the verdicts.
    non_inferiority
        Share of the items that an arm may lose against the probe and pass.

    Examples
    --------
    >>> probe = {42: Outcome(accuracy=0.7, parameters=100.0), 43: Outcome(accuracy=0.8, parameters=100.0)}
    >>> placed = {42: Outcome(accuracy=0.7, parameters=40.0), 43: Outcome(accuracy=0.7, parameters=20.0)}
    >>> body = aggregated({"probe": probe, "per_layer": placed}, [], model="m", non_inferiority=0.025)
    >>> body["probe"]["accuracy"]["mean"], body["seeds"]
    (0.75, [42, 43])
    >>> found = body["compressed"]["per_layer"]
    >>> [round(found[name], 6) for name in ("delta_vs_probe", "param_reduction", "pass_rate")]
    [-0.05, 0.7, 0.5]
    """
    seeds = sorted(outcomes[PROBE])
    whole = {arm: found for arm, found in outcomes.items() if all(seed in found for seed in seeds)}
    arms = {arm: [found[seed] for seed in seeds] for arm, found in whole.items()}
    within = [found for arm, found in arms.items() if kind_of(arm) == WITHIN]
    if within:
        arms[SHUFFLED] = [_mean(of_seed) for of_seed in zip(*within, strict=True)]
    verdicts = {
        row.contrast.split("-", 1)[1]: row.verdict
        for row in rows
        if row.family == FAMILY and row.role == "decides"
    }
    verdicts |= {SHUFFLED: verdicts.get(WITHIN), TREATMENT: verdicts.get(PROBE)}
    first = [arm for arm in (TREATMENT, SHUFFLED) if arm in arms]
    order = [*first, *(arm for arm in arms if arm not in (PROBE, *first))]
    return {
        "model": model,
        "seeds": seeds,
        "definitions": _definitions(non_inferiority, len(within)),
        "left_out": sorted(outcomes.keys() - whole.keys()),
        "probe": {"accuracy": _accuracy(arms[PROBE])},
        "compressed": {
            arm: _variant(arms[arm], arms[PROBE], non_inferiority, verdicts.get(arm)) for arm in order
        },
    }


def _mean(found: Sequence[Outcome]) -> Outcome:
    return Outcome(
        accuracy=statistics.fmean(one.accuracy for one in found),
        parameters=statistics.fmean(one.parameters for one in found),
    )


def _accuracy(found: Sequence[Outcome]) -> dict[str, Any]:
    values = [one.accuracy for one in found]
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "values": values}


def _variant(
    found: Sequence[Outcome], probe: Sequence[Outcome], margin: float, verdict: str | None
) -> dict[str, Any]:
    pairs = list(zip(found, probe, strict=True))
    differences = [one.accuracy - other.accuracy for one, other in pairs]
    return {
        "accuracy": _accuracy(found),
        "delta_vs_probe": statistics.fmean(differences),
        "param_reduction": statistics.fmean(1.0 - one.parameters / other.parameters for one, other in pairs),
        "pass_rate": statistics.fmean(one >= -margin - ROUNDING for one in differences),
        "verdict": verdict,
    }


def _definitions(margin: float, shuffles: int) -> dict[str, str]:
    """What each number is, in words."""
    return {
        "accuracy": "share of the test items that the strict rule reads the gold answer off, one a seed in "
        "the order of `seeds`; std has ddof 1, null with one seed",
        "delta_vs_probe": "mean over seeds of the accuracy minus the probe's",
        "param_reduction": "mean over seeds of 1 - parameters / the probe's parameters",
        "pass_rate": "share of the seeds whose accuracy is at least the probe's of that seed minus "
        f"{margin:g}",
        "verdict": f"of {TREATMENT}: against the probe (non-inferiority by {margin:g}); of another variant: "
        f"of {TREATMENT} against it (difference); null where no such contrast was declared",
        SHUFFLED: f"mean of a seed's {shuffles} shuffles among modules of one projection, which cost what "
        f"{TREATMENT} costs",
    }


def write_results(
    home: Path, body: Mapping[str, Any], *, profile: str, plan_hash: str, step_id: str
) -> ArtifactRow:
    """Write the file under the home's `exports`, in the folder of its analysis; returns its row.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written.
    """
    path = home / "exports" / f"mechanism-{profile}-{plan_hash}" / step_id / f"{KIND}.json"
    content = (json.dumps(body, indent=1, allow_nan=False) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, content)
    return ArtifactRow(
        step_id=step_id,
        path=path.relative_to(home).as_posix(),
        kind=KIND,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )
