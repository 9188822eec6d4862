"""The ship blockers of one trained head alone: points against thresholds, intervals over lemmas.

One head speaks of no other seed, so what is said here is of these weights and other lemmas. Whether a
condition ships is decided over seeds (`stats.ship_blockers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stats.aligned_bootstrap import Interval, interval_row, intervals, resample_documents
from stats.retrieval import COLLAPSED, margins
from stats.rows import FloatArray, TestRow
from stats.ship_blockers import METRICS, Limits, Outcomes, TestSet, ship_verdict

FAMILY = "ship, one head"


def one_head_rows(
    name: str,
    test: TestSet,
    ours: Outcomes,
    baselines: Mapping[str, Outcomes],
    control: Outcomes | None,
    *,
    rng: np.random.Generator,
    limits: Limits | None = None,
    audit: Sequence[TestRow] = (),
) -> list[TestRow]:
    """Every blocker of one head, and the verdict last.

    Parameters
    ----------
    name : str
        Contrast of the rows.
    ours, baselines, control : Outcomes
        (1, items) arrays; the control is the head of condition A and the same seed, None for A itself.
    audit : sequence of TestRow
        Checks of the items, such as `stats.shortcut_audit.shortcut_rows`, which the verdict asks too.

    Returns
    -------
    list of TestRow
        As `stats.ship_blockers.ship_rows`, with intervals over lemmas.

    References
    ----------
    Intervals: `stats.aligned_bootstrap`, lemmas as documents.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> lemmas = np.arange(600) // 10
    >>> test = TestSet(lemmas=lemmas, tiers=np.arange(600) % 3 + 1, coherence_lemmas=lemmas)
    >>> def hits(p):
    ...     return (rng.random((1, 600)) < p).astype(float)
    >>> ours = Outcomes(top1=hits(0.4), top3=hits(0.6), coherence=hits(0.7), margin=rng.random((1, 600)))
    >>> words = Outcomes(top1=hits(0.1), top3=hits(0.3))
    >>> a = Outcomes(top1=hits(0.2), top3=hits(0.4))
    >>> rows = one_head_rows("B_seed42", test, ours, {"words": words}, a, rng=rng)
    >>> [(row.hypothesis, row.metric, row.verdict) for row in rows if row.verdict != "DETECTED"]
    [('threshold', 'coherence', 'INCONCLUSIVE'), ('ship', '*', 'INCONCLUSIVE')]
    """
    limits = limits or Limits()
    bare = TestRow(family=FAMILY, hypothesis="threshold", contrast=name, method="over lemmas", role="decides",
                   alpha=limits.alpha, reason="undefined")  # fmt: skip
    rows = []
    for metric in METRICS:
        limit = float(getattr(limits, metric))
        row = replace(bare, metric=metric, margin=limit)
        values = getattr(ours, metric)
        if values is None:
            rows.append(replace(row, verdict="INVALID", reason=f"{metric} was not measured"))
            continue
        found = _mean(values[0], test, metric, limits.alpha, rng)
        passed = found.estimate is not None and found.estimate >= limit
        rows.append(replace(interval_row(row, found), verdict="DETECTED" if passed else "INCONCLUSIVE"))
    rows += _better(bare, test, ours, baselines, limits, rng)
    rows.append(_collapse(bare, ours))
    if control is not None:
        rows.append(_tier1(bare, test, ours, control, limits, rng))
    rows += [replace(row, family=FAMILY) for row in audit if row.role == "decides"]
    return [*rows, ship_verdict(rows, name)]


def _mean(values: FloatArray, test: TestSet, metric: str, alpha: float, rng: np.random.Generator) -> Interval:
    """Mean over items; of coherence, right contexts per context."""
    of_steps = metric == "coherence"
    drawn = resample_documents(list(test.coherence_lemmas if of_steps else test.lemmas), rng=rng)
    totals = drawn.totals(values)
    counts = np.broadcast_to(
        np.asarray(test.coherence_steps if of_steps else 1.0, dtype=np.float64), values.shape
    )
    return intervals((totals / drawn.totals(counts))[:, None], drawn, alpha)[0]


def _better(
    bare: TestRow,
    test: TestSet,
    ours: Outcomes,
    baselines: Mapping[str, Outcomes],
    limits: Limits,
    rng: np.random.Generator,
) -> list[TestRow]:
    if not baselines:
        row = replace(bare, hypothesis="better_than_baseline", verdict="INVALID")
        return [replace(row, reason="no baseline was scored")]
    rows = []
    for name, baseline in baselines.items():
        if all(getattr(baseline, metric) is None for metric in METRICS):
            row = replace(bare, hypothesis="better_than_baseline", contrast=f"{bare.contrast}-{name}")
            rows.append(replace(row, verdict="INVALID", reason=f"{name} was not scored"))
        for metric in METRICS:
            mine, theirs = getattr(ours, metric), getattr(baseline, metric)
            if mine is None or theirs is None:
                continue
            found = _mean(mine[0] - theirs[0], test, metric, limits.alpha, rng)
            held = found.low is not None and found.low > 0.0
            row = replace(bare, hypothesis="better_than_baseline", metric=metric,
                          contrast=f"{bare.contrast}-{name}")  # fmt: skip
            rows.append(replace(interval_row(row, found), verdict="DETECTED" if held else "INCONCLUSIVE"))
    return rows


def _collapse(bare: TestRow, ours: Outcomes) -> TestRow:
    row = replace(bare, hypothesis="no_collapse", metric="margin", margin=COLLAPSED,
                  method=f"SD of margins >= {COLLAPSED:g}")  # fmt: skip
    if ours.margin is None:
        return replace(row, verdict="INVALID", reason="margins were not measured")
    sd = margins(ours.margin[0]).sd
    if sd is None:
        return replace(row, verdict="INVALID", reason="1 item; margins of one item have no spread")
    return replace(row, estimate=sd, reason=None, verdict="DETECTED" if sd >= COLLAPSED else "INCONCLUSIVE")


def _tier1(
    bare: TestRow,
    test: TestSet,
    ours: Outcomes,
    control: Outcomes,
    limits: Limits,
    rng: np.random.Generator,
) -> TestRow:
    row = replace(bare, hypothesis="tier1_non_inferior", metric="top1", margin=limits.tier1_margin)
    first = np.asarray(test.tiers) == 1
    if ours.top1 is None or control.top1 is None or not first.any():
        return replace(row, verdict="INVALID", reason="top1 of tier 1 was not measured")
    of_first = TestSet(lemmas=np.asarray(test.lemmas)[first], tiers=np.asarray(test.tiers)[first])
    d = (ours.top1[0] - control.top1[0])[first]
    found = _mean(d, of_first, "top1", 2.0 * limits.alpha, rng)
    held = found.low is not None and found.low > -limits.tier1_margin
    return replace(interval_row(row, found), verdict="DETECTED" if held else "INCONCLUSIVE")
