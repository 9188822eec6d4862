"""The earlier rule for the rank study, shown beside the scenario and deciding nothing.

S1 when the placement beats the probe by more than .02 (p < .05, d > .5) and its shuffle by more than .01
(p < .05), S2 when only the first holds, S3 when neither; the second alone was not covered. p is Student's,
paired over seeds, two-sided and uncorrected. Which d was meant is not said: the pooled one is used, d_z is
printed, and a criterion that the choice of d turns says so. With three seeds p < .05 asks for d_z above 2.48:
read as d_z, the bound of .5 never binds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stats.paired_seeds import PairedT, paired_t, pooled_d
from stats.rows import FloatArray, TestRow

ALPHA = 0.05
SUPERIORITY, MECHANISM, D = 0.02, 0.01, 0.5
NOT_COVERED = "not covered by that rule"


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One published criterion."""

    student: PairedT
    more_than: float
    """The difference must exceed it, in accuracy."""
    d_more_than: float | None
    """So must d; None where the criterion has none."""
    d_pooled: float | None
    """Difference over the pooled SD of seeds."""
    d_z: float | None
    """Difference over the SD of the seeds' differences."""
    holds: bool | None
    """None where p or d is undefined."""
    reason: str | None
    """Why it is undefined, or that d_z would decide otherwise."""


@dataclass(frozen=True, kw_only=True)
class LegacyScenario:
    """The earlier rule's answer."""

    name: str | None
    """S1, S2, S3 or NOT_COVERED; None where a criterion is undefined."""
    superiority: Criterion
    mechanism: Criterion
    reason: str | None


def criterion(
    treatment: FloatArray, control: FloatArray, *, more_than: float, d_more_than: float | None = None
) -> Criterion:
    """Difference above a bound, p < .05 and, where asked, d above another.

    Parameters
    ----------
    treatment, control : (S,) float arrays
        Accuracy of each seed.

    References
    ----------
    Witness: `tests/reference/rank_placement.R`.

    Examples
    --------
    >>> import numpy as np
    >>> found = criterion(np.array([0.74, 0.78, 0.75]), np.array([0.71, 0.74, 0.72]), more_than=0.02,
    ...                   d_more_than=0.5)
    >>> found.holds, round(found.student.p, 4), round(found.d_pooled, 2), round(found.d_z, 2)
    (True, 0.0099, 1.83, 5.77)
    """
    student = paired_t(treatment, control, alpha=ALPHA)
    d_pooled = pooled_d(treatment, control)
    d_z = None if student.statistic is None else student.statistic / math.sqrt(student.n)
    holds, reason = None, student.reason
    if student.p is not None and d_pooled is not None and d_z is not None:
        large = student.estimate > more_than and student.p < ALPHA
        bound = -math.inf if d_more_than is None else d_more_than
        holds = large and d_pooled > bound
        if large and (d_pooled > bound) != (d_z > bound):
            reason = f"by d_z the criterion would {'fail' if holds else 'hold'}"
    return Criterion(
        student=student,
        more_than=more_than,
        d_more_than=d_more_than,
        d_pooled=d_pooled,
        d_z=d_z,
        holds=holds,
        reason=reason,
    )


def legacy_scenario(per_layer: FloatArray, probe: FloatArray, shuffled: FloatArray) -> LegacyScenario:
    """S1, S2, S3 or what the rule does not cover.

    Parameters
    ----------
    per_layer, probe, shuffled : (S,) float arrays
        Accuracy of each seed; of several shuffles the mean, or the one free shuffle that was published.

    Examples
    --------
    >>> import numpy as np
    >>> placed, probe = np.array([0.74, 0.78, 0.75]), np.array([0.71, 0.74, 0.72])
    >>> legacy_scenario(placed, probe, placed - np.array([0.01, -0.01, 0.0])).name
    'S2'
    >>> legacy_scenario(placed, placed - np.array([0.01, -0.01, 0.0]), probe).name
    'not covered by that rule'
    """
    first = criterion(per_layer, probe, more_than=SUPERIORITY, d_more_than=D)
    second = criterion(per_layer, shuffled, more_than=MECHANISM)
    reasons = [f"{k}: {c.reason}" for k, c in (("probe", first), ("shuffled", second)) if c.reason]
    names = {(True, True): "S1", (True, False): "S2", (False, False): "S3", (False, True): NOT_COVERED}
    known = first.holds is not None and second.holds is not None
    return LegacyScenario(
        name=names[bool(first.holds), bool(second.holds)] if known else None,
        superiority=first,
        mechanism=second,
        reason="; ".join(reasons) or None,
    )


def legacy_scenario_rows(
    found: LegacyScenario, *, treatment: str = "per_layer", shuffled: str, family: str = "legacy_placement"
) -> list[TestRow]:
    """Both criteria, each with the d it used and the other, and the rule's answer; role `legacy`.

    Examples
    --------
    >>> import numpy as np
    >>> placed = np.array([0.74, 0.78, 0.75])
    >>> found = legacy_scenario(placed, placed - 0.03 - np.array([0, 0.01, 0]), placed - 0.01)
    >>> rows = legacy_scenario_rows(found, shuffled="shuffled_free")
    >>> [(row.hypothesis, row.contrast) for row in rows[:3]]  # doctest: +NORMALIZE_WHITESPACE
    [('superiority', 'per_layer-probe'), ('superiority_d_pooled', 'per_layer-probe'),
     ('superiority_d_z', 'per_layer-probe')]
    >>> rows[-1].reason
    'undefined; shuffled: the differences of 3 seeds do not vary'
    """
    rows = []
    for name, control, c in (
        ("superiority", "probe", found.superiority),
        ("mechanism", shuffled, found.mechanism),
    ):
        asks = f"> {c.more_than:g}, p < {ALPHA:g}"
        asks += "" if c.d_more_than is None else f", d pooled > {c.d_more_than:g}"
        holds = {True: "holds", False: "does not hold", None: "undefined"}[c.holds]
        bare = TestRow(
            family=family,
            hypothesis=name,
            metric="accuracy",
            contrast=f"{treatment}-{control}",
            method=f"{c.student.method}; published criterion {asks}: {holds}",
            role="legacy",
            estimate=c.student.estimate,
            low=c.student.low,
            high=c.student.high,
            statistic=c.student.statistic,
            df2=float(c.student.df) if c.student.df else None,
            p=c.student.p,
            alpha=ALPHA,
            n=c.student.n,
            reason=c.reason,
        )
        rows.append(bare)
        for size, value in (("d_pooled", c.d_pooled), ("d_z", c.d_z)):
            rows.append(
                TestRow(
                    family=family,
                    hypothesis=f"{name}_{size}",
                    metric="accuracy",
                    contrast=bare.contrast,
                    method=f"{size.replace('_', ' ')} over seeds",
                    role="legacy",
                    estimate=value,
                    n=c.student.n,
                    reason=None if value is not None else c.student.reason or "neither arm varies over seeds",
                )
            )
    answer = found.name or "undefined"
    closing = TestRow(
        family=family,
        hypothesis="legacy_scenario",
        metric="accuracy",
        contrast=treatment,
        method="S1, S2 or S3 by two published criteria",
        role="legacy",
        n=found.superiority.student.n,
        reason=f"{answer}; {found.reason}" if found.reason else answer,
    )
    return [*rows, closing]
