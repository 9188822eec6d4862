"""One number a training seed: its mean with Student's interval as a row, and the seeds a t test needs.

The seed is the unit wherever a study trains the same run several times: steps, windows and batches of one run
are not independent answers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stats.paired_seeds import MOST_SEEDS, detectable, paired_t
from stats.power import chance_null_equivalent
from stats.rows import FloatArray, TestRow


def mean_over_seeds(values: Sequence[float] | FloatArray, row: TestRow, *, tested: bool = True) -> TestRow:
    """Mean of one number a seed, with Student's interval, filled into a row.

    mean +- t(1 - alpha/2, n - 1) sd / sqrt(n); p two-sided against 0.

    Parameters
    ----------
    values : (S,) floats
        NaN where a seed has none: left out, and said.
    row : TestRow
        Names the question; its alpha (.05 without) sets the level.
    tested : bool
        Whether 0 is a hypothesis; without it there is no p.

    Returns
    -------
    TestRow
        estimate, low, high, statistic (t), df2, p and n; a reason where something of it is undefined.

    References
    ----------
    Witness: R's `t.test` (`tests/reference/run_comparisons.R`).

    Examples
    --------
    >>> bare = TestRow(family="f", hypothesis="h", method="t", role="secondary", reason="undefined")
    >>> found = mean_over_seeds([0.2, 0.3, float("nan"), 0.4], bare)
    >>> round(found.estimate, 3), round(found.low, 4), round(found.high, 4), round(found.p, 4), found.n
    (0.3, 0.0516, 0.5484, 0.0351, 3)
    >>> found.reason
    '1 of 4 seeds left out: undefined there'
    """
    every = np.asarray(values, dtype=np.float64)
    known = every[np.isfinite(every)]
    lost = len(every) - len(known)
    note = [f"{lost} of {len(every)} seeds left out: undefined there"] if lost else []
    if not len(known):
        return replace(row, n=0, reason=note[0] if note else "no seed has it")
    student = paired_t(known, np.zeros(len(known)), alpha=row.alpha or 0.05)
    if student.reason is not None:
        note.append(student.reason.replace("differences", "values"))
    shown = tested and student.reason is None
    return replace(
        row,
        estimate=student.estimate,
        low=student.low,
        high=student.high,
        statistic=student.statistic if shown else None,
        df2=float(student.df) if shown else None,
        p=student.p if shown else None,
        n=student.n,
        reason="; ".join(note) or None,
    )


def seeds_by_t(sd: float, *, margin: float, alpha: float = 0.05, tests: int = 1) -> int | None:
    """Fewest seeds with which t tests find a difference of `margin`, and equivalence at 0, each at power .8.

    A two-sided t test at alpha / tests (Holm's first step) and two one-sided ones at alpha. As
    `stats.paired_seeds.seeds_to_settle` without the floor that sign flips set (six seeds and more).

    Parameters
    ----------
    sd : float
        SD of the seeds' differences, above 0.
    margin : float
        Smallest effect of interest, in the same unit, above 0.

    Returns
    -------
    int or None
        None beyond MOST_SEEDS.

    References
    ----------
    Witnesses: R's `power.t.test(type = "one.sample", strict = TRUE)` and the chance of equivalence by
    quadrature (`tests/reference/run_comparisons.R`).

    Examples
    --------
    >>> seeds_by_t(0.02, margin=0.05), seeds_by_t(0.02, margin=0.01), seeds_by_t(0.02, margin=0.01, tests=6)
    (4, 36, 52)
    """
    if not (sd > 0.0 and margin > 0.0 and tests >= 1):
        raise ValueError(f"sd {sd}, margin {margin}, {tests} tests; sd and margin are above 0, tests from 1")

    def enough(n: int) -> bool:
        if detectable(sd, n, alpha=alpha / tests) > margin:
            return False
        return chance_null_equivalent(sd / math.sqrt(n), margin, n - 1, alpha, groups=2, metrics=1) >= 0.8

    counts = range(2, MOST_SEEDS + 1)
    return counts[bisect_left(counts, True, key=enough)] if enough(MOST_SEEDS) else None
