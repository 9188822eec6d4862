"""From an exact test to a row with a verdict: the house rule for families tested over languages or documents.

INVALID when the number is undefined; DETECTED when p, corrected for the family, is at most alpha and the
interval excludes zero; EQUIVALENT when both one-sided tests put the effect inside the margin; else
INCONCLUSIVE. "At most" and not "below": an exact p of alpha has probability alpha under the null. Margins and
detectable effects of these rows are in the units of `estimate`, which the metric names; `effect` stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from stats.language_tests import ShiftTest
from stats.multiplicity import holm
from stats.rows import TestRow


def shift_rows(test: ShiftTest, row: TestRow, *, margin: float | None, alpha: float) -> list[TestRow]:
    """The row of a test and, where a margin is declared, its `_tost` row.

    Parameters
    ----------
    test : ShiftTest
    row : TestRow
        Names the question: family, hypothesis, metric, contrast, role, n; its numbers are filled in here.
    margin : float or None
        Smallest effect of interest, in the units of the values.

    Examples
    --------
    >>> import numpy as np
    >>> from stats.language_tests import label_permutations, shift_test
    >>> bare = TestRow(family="disparity", hypothesis="gap", method="", role="decides", reason="undefined")
    >>> test = shift_test(np.zeros(10), label_permutations(np.arange(10) < 5))
    >>> [(r.hypothesis, r.p, r.low, r.high) for r in shift_rows(test, bare, margin=0.5, alpha=0.05)]
    [('gap', 1.0, 0.0, 0.0), ('gap_tost', 0.003968253968253968, 0.0, 0.0)]
    """
    kind = "exact" if test.exact else f"{test.total - 1} random arrangements"
    method = f"{test.method}, {kind}"
    low, high = test.interval(alpha)
    level = 100.0 * (1.0 - alpha)
    found = replace(
        row,
        method=method,
        estimate=test.estimate,
        low=low,
        high=high,
        p=test.p(),
        alpha=alpha,
        margin=margin,
        reason=None if low is not None else f"{test.total} arrangements give no {level:g} % interval",
    )
    if margin is None:
        return [found]
    low, high = test.interval(2.0 * alpha)
    tost = replace(
        found,
        hypothesis=f"{row.hypothesis}_tost",
        role="equivalence",
        method=f"two one-sided tests, {method}",
        low=low,
        high=high,
        p=test.p_equivalence(margin),
        reason=None,
    )
    return [found, tost]


def concluded(rows: Sequence[TestRow], *, alpha: float) -> list[TestRow]:
    """Holm over the rows of role `decides`, and a verdict for each from its p, interval and `_tost` row.

    The rows given are one family. A row without p keeps its place in it, as if its p were 1, so the family
    never shrinks; it alone is INVALID. A DETECTED effect whose interval lies inside the margin is negligible.

    Examples
    --------
    >>> bare = TestRow(family="f", hypothesis="gap", method="t", role="decides", contrast="a", margin=0.5,
    ...                estimate=0.3, low=0.1, high=0.4, p=0.02)
    >>> gone = replace(bare, contrast="b", estimate=None, low=None, high=None, p=None, reason="NaN in de")
    >>> [(r.contrast, r.p_adjusted, r.verdict, r.negligible) for r in concluded([bare, gone], alpha=0.05)]
    [('a', 0.04, 'DETECTED', True), ('b', None, 'INVALID', None)]
    """
    decides = [row for row in rows if row.role == "decides"]
    adjusted = iter(holm([1.0 if row.p is None else row.p for row in decides]))
    tosts = {(row.hypothesis, row.metric, row.contrast): row for row in rows if row.role == "equivalence"}
    done = []
    for row in rows:
        if row.role != "decides":
            done.append(row)
            continue
        p_adjusted = next(adjusted)
        tost = tosts.get((f"{row.hypothesis}_tost", row.metric, row.contrast))
        done.append(_judged(row, p_adjusted, tost, alpha))
    return done


def _judged(row: TestRow, p_adjusted: float, tost: TestRow | None, alpha: float) -> TestRow:
    if row.p is None:
        return replace(row, verdict="INVALID", p_adjusted=None)
    row = replace(row, p_adjusted=p_adjusted, alpha=alpha)
    bounded = row.low is not None and row.high is not None
    excludes = row.low is not None and row.high is not None and (row.low > 0.0 or row.high < 0.0)
    if p_adjusted <= alpha and excludes:
        return replace(row, verdict="DETECTED", negligible=bounded and _inside(row))
    if tost is not None and tost.p is not None and tost.p <= alpha:
        return replace(row, verdict="EQUIVALENT")
    return replace(row, verdict="INCONCLUSIVE")


def _inside(row: TestRow) -> bool:
    if row.low is None or row.high is None or row.margin is None:
        return False
    return -row.margin < row.low and row.high < row.margin


def family_verdict(rows: Sequence[TestRow], *, hypothesis: str = "verdict") -> TestRow:
    """One answer for a family: INVALID or DETECTED if any is, EQUIVALENT if all are, else INCONCLUSIVE.

    Carries the numbers of the row with the smallest corrected p.

    Examples
    --------
    >>> a = TestRow(family="f", hypothesis="gap", method="t", role="decides", contrast="a", estimate=0.3,
    ...             p=0.5, p_adjusted=0.5, verdict="INCONCLUSIVE")
    >>> b = replace(a, contrast="b", p=0.01, p_adjusted=0.02, verdict="DETECTED")
    >>> found = family_verdict([a, b])
    >>> found.verdict, found.contrast, found.p_adjusted
    ('DETECTED', 'b', 0.02)
    """
    decided = [row for row in rows if row.role == "decides" and row.verdict is not None]
    if not decided:
        raise ValueError(f"{len(rows)} rows and none decided; pass the rows of `concluded`")
    verdicts = [row.verdict for row in decided]
    if "INVALID" in verdicts:
        verdict = "INVALID"
    elif "DETECTED" in verdicts:
        verdict = "DETECTED"
    else:
        verdict = "EQUIVALENT" if set(verdicts) == {"EQUIVALENT"} else "INCONCLUSIVE"
    of = [row for row in decided if row.verdict == verdict] or decided
    best = min(of, key=lambda row: math.inf if row.p_adjusted is None else row.p_adjusted)
    reasons = [f"{row.contrast}: {row.reason}" for row in decided if row.verdict == "INVALID"]
    method = f"{best.method}; Holm over {len(decided)}"
    return replace(
        best,
        hypothesis=hypothesis,
        role="verdict",
        method=method,
        verdict=verdict,
        reason="; ".join(reasons) or best.reason,
    )
