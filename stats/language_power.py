"""Languages a question needs: power, detectable gap and languages that settle, by t tests.

The deciding tests are exact; these plan them. The power of a permutation of 5 v 5 labels lies under the t
test's by what its discreteness costs (`tests/test_disparity_simulation.py`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stats.power import chance_null_equivalent, minimum_detectable_effect, two_sided_power
from stats.rows import FloatArray, TestRow

MOST_LANGUAGES = 1_000
"""A tier larger than this settles nothing that could be run."""


def sized(row: TestRow, values: FloatArray, is_low: Sequence[bool] | None) -> TestRow:
    """The row with power at its margin, detectable effect, and languages that settle it.

    `power` and `mde` (80 % power) at the row's alpha and at the SD found; `n_to_settle` in languages a tier,
    or languages where `is_low` is None and the values are paired differences. All None where nothing varies.

    Examples
    --------
    >>> row = TestRow(family="f", hypothesis="gap", method="t", role="decides", estimate=0.0, margin=0.5,
    ...               alpha=0.05)
    >>> found = sized(row, np.array([0.1, 0.3, 0.5, 0.2, 0.4]), [True, True, False, False, False])
    >>> round(found.mde, 2), round(found.power, 2), found.n_to_settle
    (0.58, 0.69, 4)
    """
    y, alpha = np.asarray(values, dtype=np.float64), row.alpha or 0.05
    low = np.ones(len(y), dtype=bool) if is_low is None else np.asarray(is_low, dtype=bool)
    groups = [y[low]] if is_low is None else [y[low], y[~low]]
    df = len(y) - len(groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    if df < 1 or row.margin is None or squares <= (1e-12 * float(np.abs(y).max(initial=0.0))) ** 2 * len(y):
        return row
    sd = math.sqrt(squares / df)
    se = sd * math.sqrt(sum(1.0 / len(group) for group in groups))
    return replace(
        row,
        mde=minimum_detectable_effect(se, df, alpha),
        power=two_sided_power(row.margin, se, df, alpha),
        n_to_settle=languages_to_settle(sd, margin=row.margin, alpha=alpha, tiers=len(groups)),
    )


def languages_to_settle(
    sd: float, *, margin: float, alpha: float = 0.05, tiers: int = 2, power: float = 0.8
) -> int | None:
    """Fewest languages with which an effect at the margin is DETECTED and none is EQUIVALENT, at `power`.

    By t tests; the exact ones need at least 4 languages a tier, or 6 paired differences.

    Parameters
    ----------
    sd : float
        SD of the languages' values within a tier, or of the paired differences (`tiers` = 1).

    Returns
    -------
    int or None
        Languages a tier; None beyond MOST_LANGUAGES.

    References
    ----------
    Witness: R's noncentral t and its integral over the chi distribution
    (`tests/reference/languages_to_settle.R`).

    Examples
    --------
    >>> languages_to_settle(0.3, margin=0.5), languages_to_settle(1.0, margin=0.5)
    (7, 70)
    >>> languages_to_settle(1.0, margin=0.5, tiers=1)
    36
    """
    if not (sd > 0.0 and margin > 0.0) or tiers not in (1, 2):
        raise ValueError(f"sd {sd}, margin {margin}, {tiers} tiers; numbers above 0 and 1 or 2 tiers are due")

    def settles(n: int) -> bool:
        se, df = sd * math.sqrt(tiers / n), float(tiers * (n - 1))
        null = chance_null_equivalent(se, margin, df, alpha, groups=2, metrics=1)
        return min(two_sided_power(margin, se, df, alpha), null) >= power

    counts = range(4 if tiers == 2 else 6, MOST_LANGUAGES + 1)
    return counts[bisect_left(counts, True, key=settles)] if settles(MOST_LANGUAGES) else None
