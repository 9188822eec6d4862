"""May a condition ship? Blockers with their intervals, one row each, and one verdict.

All must hold: top1, top3 and coherence reach their thresholds (the mean over seeds is judged, its interval
is printed and the reason says where it crosses the threshold); on each of them the condition beats every
baseline, the interval of the difference lying above zero; margins have not collapsed; tier 1 is not worse
than the control by the margin. Passing all of several is no multiple testing (intersection-union), so nothing
is corrected. Blockers that hold are DETECTED, others INCONCLUSIVE.

Checks come first and none of them is a blocker: a shortcut (query-blind, role, length, filler) that is not
shown to be at chance, a missing metric, no baseline, no audit, or whatever the caller found broken makes the
verdict INVALID, because the numbers then measure something else and retraining would not mend that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stats.retrieval import COLLAPSED, margins
from stats.rows import FloatArray, TestRow
from stats.sense_rows import difference
from stats.shortcut_audit import Shortcut, shortcut_rows
from stats.two_way_bootstrap import RESAMPLES, Crossed, crossed, two_way

METRICS = ("top1", "top3", "coherence")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is asked, fixed in the plan."""

    top1: float = 0.30
    top3: float = 0.50
    coherence: float = 0.80
    tier1_margin: float = 0.02
    """Loss of top1 on tier 1 against the control that is allowed."""
    shortcut_margin: float = 0.05
    """A shortcut is at chance when its interval ends below chance plus this."""
    alpha: float = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class TestSet:
    """Who the items are; the same for every scorer."""

    __test__ = False  # not a test class for pytest

    lemmas: Sequence[Any] | npt.NDArray[Any]
    """(I,) of the retrieval items."""
    tiers: Sequence[int] | npt.NDArray[np.int64]
    """(I,)"""
    coherence_lemmas: Sequence[Any] | npt.NDArray[Any] = ()
    """(J,) of the coherence items."""
    coherence_steps: npt.ArrayLike = 1.0
    """(J,) contexts of each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """One scorer on the test set; one row a seed, or one row for a scorer without seeds."""

    top1: FloatArray | None
    """(S, I) 1 or 0; None where it could not be measured, said in `checks`."""
    top3: FloatArray | None
    coherence: FloatArray | None = None
    """(S, J) contexts decided rightly in each item; None for a baseline that decides none."""
    margin: FloatArray | None = None
    """(S, I) margins, for the collapse alarm; of the condition only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """All that the verdict on one condition rests on."""

    condition: str
    test: TestSet
    ours: Outcomes
    baselines: Mapping[str, Outcomes]
    shortcuts: Mapping[str, Shortcut]
    control: str = "A"
    control_outcomes: Outcomes | None = None
    """Of the control; None only when the condition is the control."""
    checks: Mapping[str, str] = field(default_factory=dict)
    """Name of a failed check -> what it found, e.g. a text shared across splits, a constant scorer."""


def ship_rows(
    evidence: Evidence,
    *,
    rng: np.random.Generator,
    limits: Limits | None = None,
    resamples: int = RESAMPLES,
    family: str = "ship",
) -> list[TestRow]:
    """Every blocker and check of one condition, and the verdict last.

    Returns
    -------
    list of TestRow
        Contrast is the condition, or `B-baseline`. Role `decides`: `threshold` of each metric (margin: the
        threshold; p one-sided against it, shown), `better_than_baseline` of each baseline and metric it has,
        `shortcut_at_chance` (contrast `B:shortcut`; estimate above chance), `no_collapse` (estimate:
        smallest SD of a seed's margins), `tier1_non_inferior` (interval at 1 - 2 alpha); `check` of each
        failed check. Role `verdict`: `ship`.

    Raises
    ------
    ValueError
        Shapes or values that `crossed` or `difference` refuses.

    References
    ----------
    Berger (1982), Technometrics 24, 295 (intersection-union). Intervals: `stats.two_way_bootstrap`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def hits(p, seeds=10, items=600):
    ...     return (rng.random((seeds, items)) < p).astype(float)
    >>> lemmas = np.arange(600) // 10
    >>> test = TestSet(lemmas=lemmas, tiers=np.arange(600) % 3 + 1, coherence_lemmas=lemmas)
    >>> a = Outcomes(top1=hits(0.2), top3=hits(0.4), coherence=hits(0.6))
    >>> b = Outcomes(top1=hits(0.4), top3=hits(0.6), coherence=hits(0.7), margin=hits(0.5))
    >>> shortcut = Shortcut(hits=hits(0.1, 1)[0], chance=np.full(600, 0.1), lemmas=lemmas)
    >>> words = Outcomes(top1=hits(0.1, 1), top3=hits(0.3, 1))
    >>> found = Evidence(condition="B", test=test, ours=b, baselines={"word Jaccard": words},
    ...                  shortcuts={"length": shortcut}, control_outcomes=a)
    >>> rows = ship_rows(found, rng=rng)
    >>> for row in rows:
    ...     print(row.hypothesis, row.metric, row.contrast, row.verdict)
    threshold top1 B DETECTED
    threshold top3 B DETECTED
    threshold coherence B INCONCLUSIVE
    better_than_baseline top1 B-word Jaccard DETECTED
    better_than_baseline top3 B-word Jaccard DETECTED
    shortcut_at_chance top1 B:length DETECTED
    no_collapse margin B DETECTED
    tier1_non_inferior top1 B-A DETECTED
    ship * B INCONCLUSIVE
    """
    limits = limits or Limits()
    bare = TestRow(
        family=family,
        hypothesis="check",
        contrast=evidence.condition,
        method="two-way bootstrap over seeds and lemmas",
        role="decides",
        alpha=limits.alpha,
        reason="undefined",
    )
    rows = [_threshold(evidence, metric, limits, bare, rng, resamples) for metric in METRICS]
    rows += _better(evidence, bare, rng, resamples)
    rows += shortcut_rows(
        evidence.shortcuts,
        margin=limits.shortcut_margin,
        alpha=limits.alpha,
        rng=rng,
        resamples=resamples,
        family=family,
        condition=evidence.condition,
    )
    rows.append(_collapse(evidence, bare))
    rows.append(_tier1(evidence, limits, bare, rng, resamples))
    rows += [
        replace(bare, metric=name, method="check", verdict="INVALID", reason=found)
        for name, found in evidence.checks.items()
    ]
    return [*rows, ship_verdict(rows, evidence.condition)]


def ship_verdict(rows: Sequence[TestRow], condition: str) -> TestRow:
    """INVALID if any row is, DETECTED if all blockers hold, else INCONCLUSIVE; the reason names them.

    Examples
    --------
    >>> a = TestRow(family="ship", hypothesis="threshold", metric="top1", contrast="B", method="m",
    ...             role="decides", estimate=0.2, verdict="INCONCLUSIVE")
    >>> b = replace(a, metric="top3", verdict="DETECTED")
    >>> found = ship_verdict([a, b], "B")
    >>> found.verdict, found.reason
    ('INCONCLUSIVE', 'fails threshold top1')
    """
    decided = [row for row in rows if row.role == "decides"]
    if not decided:
        raise ValueError(f"{len(rows)} rows and no blocker among them; nothing ships untested")
    of: dict[str, list[TestRow]] = {"INVALID": [], "INCONCLUSIVE": [], "DETECTED": []}
    for row in decided:
        of[row.verdict or "INVALID"].append(row)
    verdict = next(name for name in ("INVALID", "INCONCLUSIVE", "DETECTED") if of[name])
    said = {"INVALID": "invalid", "INCONCLUSIVE": "fails"}
    return TestRow(
        family=decided[0].family,
        hypothesis="ship",
        contrast=condition,
        method=f"all of {len(decided)} blockers and checks",
        role="verdict",
        verdict=verdict,
        reason=None if verdict == "DETECTED" else f"{said[verdict]} {_named(of[verdict], condition)}",
    )


SHOWN = 2
"""Baselines or shortcuts of one metric that a sentence names; the others are counted."""


def _named(rows: Sequence[TestRow], condition: str) -> str:
    """What failed, in a sentence: contrasts of one hypothesis and metric together."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        why = f": {row.reason}" if row.reason and row.verdict == "INVALID" else ""
        than = row.contrast.removeprefix(condition).lstrip("-:")
        groups.setdefault(f"{row.hypothesis} {row.metric}", []).append(f"{than}{why}".lstrip(": "))
    told = []
    for what, others in groups.items():
        shown = ", ".join(one for one in others[:SHOWN] if one)
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        told.append(f"{what} ({shown}{more})" if shown else what)
    return "; ".join(told)


def _crossed_metric(
    evidence: Evidence, metric: str, values: FloatArray, where: npt.NDArray[np.bool_] | None = None
) -> Crossed:
    """The metric's two-way table."""
    test = evidence.test
    if metric == "coherence":
        return crossed(values, test.coherence_lemmas, sizes=test.coherence_steps)
    lemmas = np.asarray(test.lemmas)
    if where is None:
        return crossed(values, lemmas)
    return crossed(values[:, where], lemmas[where])


def _threshold(
    evidence: Evidence,
    metric: str,
    limits: Limits,
    bare: TestRow,
    rng: np.random.Generator,
    resamples: int,
) -> TestRow:
    limit = float(getattr(limits, metric))
    bare = replace(bare, hypothesis="threshold", metric=metric, margin=limit)
    values = getattr(evidence.ours, metric)
    if values is None:
        return replace(bare, verdict="INVALID", reason=f"{metric} was not measured")
    found = two_way(_crossed_metric(evidence, metric, values), rng=rng, resamples=resamples)
    low, high = found.interval(limits.alpha)
    notes = [found.reason] if found.reason else []
    if low is not None and high is not None and low < limit <= high:
        notes.append(f"the interval includes {limit:g}")
    return replace(
        bare,
        method=f"mean over seeds at least {limit:g}; {found.method}",
        estimate=found.estimate,
        low=low,
        high=high,
        p=found.p_greater(limit),
        n=found.seeds,
        verdict="DETECTED" if found.estimate >= limit else "INCONCLUSIVE",
        reason="; ".join(notes) or None,
    )


def _better(evidence: Evidence, bare: TestRow, rng: np.random.Generator, resamples: int) -> list[TestRow]:
    bare = replace(bare, hypothesis="better_than_baseline")
    if not evidence.baselines:
        return [replace(bare, verdict="INVALID", reason="no baseline was scored")]
    rows = []
    for name, baseline in evidence.baselines.items():
        scored = [metric for metric in METRICS if getattr(baseline, metric) is not None]
        named = replace(bare, contrast=f"{evidence.condition}-{name}")
        if not scored:
            rows.append(replace(named, verdict="INVALID", reason=f"{name} was not scored"))
        for metric in scored:
            ours = getattr(evidence.ours, metric)
            if ours is None:
                rows.append(
                    replace(named, metric=metric, verdict="INVALID", reason=f"{metric} was not measured")
                )
                continue
            d = difference(ours, getattr(baseline, metric), (evidence.condition, name))
            found = two_way(_crossed_metric(evidence, metric, d), rng=rng, resamples=resamples)
            low, high = found.interval(bare.alpha or 0.05)
            rows.append(
                replace(
                    named,
                    metric=metric,
                    method=found.method,
                    estimate=found.estimate,
                    low=low,
                    high=high,
                    p=found.p(),
                    n=found.seeds,
                    verdict="INVALID" if low is None else "DETECTED" if low > 0.0 else "INCONCLUSIVE",
                    reason=found.reason,
                )
            )
    return rows


def _collapse(evidence: Evidence, bare: TestRow) -> TestRow:
    bare = replace(bare, hypothesis="no_collapse", metric="margin", method=f"SD of margins >= {COLLAPSED:g}")
    values = evidence.ours.margin
    if values is None:
        return replace(bare, verdict="INVALID", reason="margins were not measured")
    spread = [margins(own).sd for own in np.atleast_2d(values)]
    known = [sd for sd in spread if sd is not None]
    if len(known) < len(spread):
        return replace(bare, verdict="INVALID", reason="1 item; margins of one item have no spread")
    fallen = sum(sd < COLLAPSED for sd in known)
    return replace(
        bare,
        estimate=min(known),
        n=len(known),
        margin=COLLAPSED,
        verdict="INCONCLUSIVE" if fallen else "DETECTED",
        reason=f"{fallen} of {len(known)} seeds collapsed" if fallen else None,
    )


def _tier1(
    evidence: Evidence, limits: Limits, bare: TestRow, rng: np.random.Generator, resamples: int
) -> TestRow:
    contrast = f"{evidence.condition}-{evidence.control}"
    bare = replace(
        bare, hypothesis="tier1_non_inferior", metric="top1", contrast=contrast, margin=limits.tier1_margin
    )
    ours, theirs = evidence.ours, evidence.control_outcomes
    if theirs is None and evidence.condition == evidence.control:
        return replace(bare, verdict="DETECTED", method="none needed", reason="the control itself")
    if theirs is None or theirs.top1 is None or ours.top1 is None:
        return replace(bare, verdict="INVALID", reason=f"top1 of {contrast} was not measured")
    first = np.asarray(evidence.test.tiers) == 1
    if not first.any():
        return replace(bare, verdict="INVALID", reason="no item of tier 1")
    d = difference(ours.top1, theirs.top1, (evidence.condition, evidence.control))
    found = two_way(_crossed_metric(evidence, "top1", d, first), rng=rng, resamples=resamples)
    low, high = found.interval(2.0 * limits.alpha)
    if found.is_constant and found.estimate >= 0.0:  # the same answers: nothing was lost
        return replace(bare, estimate=found.estimate, n=found.seeds, verdict="DETECTED", reason=found.reason)
    held = low is not None and low > -limits.tier1_margin
    return replace(
        bare,
        method=f"non-inferiority by {found.method} at level {1 - 2 * limits.alpha:g}",
        estimate=found.estimate,
        low=low,
        high=high,
        p=found.p_greater(-limits.tier1_margin),
        n=found.seeds,
        verdict="INVALID" if low is None else "DETECTED" if held else "INCONCLUSIVE",
        reason=found.reason,
    )
