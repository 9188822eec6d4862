"""Two one-sided tests: is a difference inside the declared margin?

The margin is fixed in the plan, in within-cell SD units. Every primary contrast must pass
(intersection-union), so no further correction is due. At an interim look alpha is that look's nominal level,
which makes the interval a repeated one: over all looks, an effect at the margin is called equivalent with
probability at most alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special


@dataclass(frozen=True, kw_only=True)
class EquivalenceTest:
    """Two one-sided t tests and the interval they amount to."""

    estimate: float
    low: float
    """Interval at level 1 - 2 alpha; equivalent exactly when it lies inside the margin."""
    high: float
    t_low: float
    """Against estimate <= -margin."""
    t_high: float
    """Against estimate >= margin."""
    p: float
    """The larger of the two one-sided p values."""
    margin: float
    alpha: float
    equivalent: bool


def tost(estimate: float, se: float, df: float, margin: float, alpha: float) -> EquivalenceTest:
    """Two one-sided tests of |difference| >= margin.

    t_low = (estimate + margin) / se, t_high = (estimate - margin) / se, p = max(P(T > t_low), P(T < t_high)).

    Parameters
    ----------
    estimate, se, margin
        In the same units; margin above 0.
    df
        Degrees of freedom of `se`.
    alpha
        Level of each one-sided test.

    Raises
    ------
    ValueError
        When se, margin or df is not above 0 or alpha not in (0, 0.5).

    References
    ----------
    Schuirmann (1987), J. Pharmacokinet. Biopharm. 15, 657. Witnesses: R's one-sided `t.test` with
    `mu = -margin` and `mu = margin` (TOSTER's formula), statsmodels' `DescrStatsW.ttost_mean`.

    Examples
    --------
    >>> test = tost(0.02, 0.05, 58.0, 0.2, 0.05)
    >>> round(test.p, 6), round(test.low, 4), round(test.high, 4), test.equivalent
    (0.00033, -0.0636, 0.1036, True)
    """
    if not (se > 0.0 and margin > 0.0 and df > 0.0):
        raise ValueError(f"se {se}, margin {margin}, df {df}; each must be above 0")
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha = {alpha}; must lie between 0 and 0.5")
    t_low, t_high = (estimate + margin) / se, (estimate - margin) / se
    reach = -float(special.stdtrit(df, alpha)) * se
    p = max(float(special.stdtr(df, -t_low)), float(special.stdtr(df, t_high)))
    return EquivalenceTest(
        estimate=estimate,
        low=estimate - reach,
        high=estimate + reach,
        t_low=t_low,
        t_high=t_high,
        p=p,
        margin=margin,
        alpha=alpha,
        equivalent=p < alpha,
    )


def all_equivalent(tests: Sequence[EquivalenceTest]) -> bool:
    """Intersection-union: every difference is inside the margin. No tests, no equivalence.

    References
    ----------
    Berger (1982), Technometrics 24, 295: each at level alpha, the conjunction is a level-alpha test.

    Examples
    --------
    >>> inside = tost(0.0, 0.05, 58.0, 0.2, 0.05)
    >>> outside = tost(0.19, 0.05, 58.0, 0.2, 0.05)
    >>> all_equivalent([inside, inside]), all_equivalent([inside, outside]), all_equivalent([])
    (True, False, False)
    """
    return bool(tests) and all(test.equivalent for test in tests)
