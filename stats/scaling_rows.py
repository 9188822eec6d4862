"""The data-scaling curve as rows: each size, each step between sizes, the law, and what twice the data adds.

The answer about twice the data is an extrapolation by the law (`stats.scaling_fit`), so it is given only
where the law describes what was measured: it may lie outside the interval of one size at most. The steps
between sizes are measured, on the same seeds and items, and need no law.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from stats.aligned_bootstrap import Interval
from stats.rows import TestRow
from stats.scaling_fit import ScalingFit, scaling_fit
from stats.two_way_bootstrap import Crossed, TwoWay, two_way

MOST_OUTSIDE = 1
"""Sizes at which the law may lie outside the interval: one of six does in a quarter of fitting curves."""


def scaling_rows(
    sizes: Mapping[str, float],
    tables: Mapping[str, Crossed],
    *,
    rng: np.random.Generator,
    metric: str = "top1",
    margin: float = 0.02,
    alpha: float = 0.05,
    family: str = "scaling",
) -> list[TestRow]:
    """Rows of a curve.

    Parameters
    ----------
    sizes : mapping of str to float
        Arm -> size of its training set, ascending.
    tables : mapping of str to Crossed
        Arm -> its outcomes, shares of the same items by the same seeds.
    margin : float
        Least gain from twice the data that is worth having.

    Returns
    -------
    list of TestRow
        Role `secondary`: `size` (statistic: the size), `size_step` (contrast `larger-smaller`), `exponent`,
        `asymptote`. Role `decides`: `doubling`, DETECTED where the gain by the law is at least the margin and
        its interval above 0, EQUIVALENT where the interval ends below the margin, INCONCLUSIVE otherwise and
        wherever the law does not fit.

    Raises
    ------
    ValueError
        As `stats.scaling_fit.scaling_fit`.

    References
    ----------
    Intervals: `stats.two_way_bootstrap`; law: `stats.scaling_fit`.

    Examples
    --------
    >>> from stats.two_way_bootstrap import crossed
    >>> rng = np.random.default_rng(0)
    >>> n = {"a": 100.0, "b": 200.0, "c": 400.0, "d": 800.0, "e": 1600.0}
    >>> hits = {k: (rng.random((10, 600)) < 0.8 - 0.6 * (v / 100) ** -0.5) * 1.0 for k, v in n.items()}
    >>> tables = {k: crossed(h, np.arange(600) // 10) for k, h in hits.items()}
    >>> rows = scaling_rows(n, tables, rng=rng)
    >>> rows[-1].hypothesis, rows[-1].verdict, rows[-1].reason
    ('doubling', 'DETECTED', None)
    """
    bare = TestRow(family=family, hypothesis="size", metric=metric, method="", role="secondary", alpha=alpha,
                   reason="undefined")  # fmt: skip
    measured = {arm: two_way(tables[arm], rng=rng) for arm in sizes}
    rows = [_measured(replace(bare, contrast=arm, statistic=sizes[arm]), measured[arm]) for arm in sizes]
    for small, large in pairwise(sizes):
        gain = two_way(_difference(tables[large], tables[small]), rng=rng)
        rows.append(_measured(replace(bare, hypothesis="size_step", contrast=f"{large}-{small}"), gain))
    fit = scaling_fit(list(sizes.values()), [tables[arm] for arm in sizes], rng=rng)
    last = list(sizes)[-1]
    for name, one in (("exponent", fit.exponent_interval(alpha)), ("asymptote", fit.asymptote(alpha))):
        rows.append(_of_law(replace(bare, hypothesis=name, contrast=last), one))
    outside = law_outside(fit, list(measured.values()), alpha)
    doubling = replace(bare, hypothesis="doubling", contrast="twice the data", role="decides", margin=margin)
    return [*rows, _doubling(doubling, fit, outside)]


def law_outside(fit: ScalingFit, measured: list[TwoWay], alpha: float = 0.05) -> int:
    """Sizes at which the law lies outside the interval of what was measured there."""
    count = 0
    for size, found in zip(fit.sizes, measured, strict=True):
        low, high = found.interval(alpha)
        law = fit.predicted(float(size)).estimate
        if low is not None and high is not None and law is not None:
            count += not low <= law <= high
    return count


def _difference(larger: Crossed, smaller: Crossed) -> Crossed:
    return Crossed(
        totals=larger.totals - smaller.totals,
        sizes=larger.sizes,
        scale=max(larger.scale, smaller.scale),
    )


def _measured(row: TestRow, found: TwoWay) -> TestRow:
    low, high = found.interval(row.alpha or 0.05)
    return replace(
        row, method=found.method, estimate=found.estimate, low=low, high=high, n=found.seeds,
        p=found.p() if row.hypothesis == "size_step" else None, reason=found.reason,
    )  # fmt: skip


def _of_law(row: TestRow, found: Interval) -> TestRow:
    return replace(row, method=found.method, estimate=found.estimate, low=found.low, high=found.high,
                   n=found.n, reason=found.reason)  # fmt: skip


def _doubling(row: TestRow, fit: ScalingFit, outside: int) -> TestRow:
    found = fit.doubling(row.alpha or 0.05)
    row = replace(_of_law(row, found), method=f"{found.method}; extrapolated")
    margin = row.margin or 0.0
    if outside > MOST_OUTSIDE:
        why = f"the law lies outside the interval at {outside} of {len(fit.sizes)} sizes"
        return replace(row, verdict="INCONCLUSIVE", reason=f"{why}: it does not describe them")
    if found.estimate is None or found.low is None or found.high is None:
        return replace(row, verdict="INCONCLUSIVE")
    if found.low > 0.0 and found.estimate >= margin:
        return replace(row, verdict="DETECTED")
    return replace(row, verdict="EQUIVALENT" if found.high < margin else "INCONCLUSIVE")
