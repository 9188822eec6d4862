"""Shares of counted things: an interval for one, and a test that several are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from stats.rows import FloatArray, IntArray

SMALLEST_EXPECTED = 5.0
"""Below this expected count in any cell the chi-square table is replaced by random tables."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A proportion with its interval."""

    estimate: float
    low: float
    high: float
    n: int
    method: str


@dataclass(frozen=True, kw_only=True)
class EqualShares:
    """Test that several groups have one share."""

    statistic: float
    df: float
    p: float
    method: str


def wilson(successes: int, n: int, *, alpha: float = 0.05) -> Share:
    """Wilson's score interval for a proportion, without continuity correction.

    Centre (s + z^2/2) / (n + z^2), half width z sqrt(s (n - s) / n + z^2/4) / (n + z^2). Keeps its level
    where shares lie near 0 or 1, as failure and identity rates do. Reference: Wilson (1927); R's
    prop.test(correct = FALSE).

    Parameters
    ----------
    successes, n : int
        0 <= successes <= n, n >= 1.
    alpha : float
        The interval has level 1 - alpha.

    Examples
    --------
    >>> share = wilson(48, 48)
    >>> share.estimate, round(share.low, 4), share.high
    (1.0, 0.9259, 1.0)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n}; allowed: 0 to n of n >= 1")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha {alpha}; allowed: between 0 and 1, e.g. 0.05")
    z = -float(special.ndtri(alpha / 2))
    centre = (successes + z * z / 2) / (n + z * z)
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4) / (n + z * z)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Share(estimate=successes / n, low=low, high=high, n=n, method="Wilson interval")


def equal_shares(
    successes: Sequence[int], n: Sequence[int], *, rng: np.random.Generator, n_draws: int = 9999
) -> EqualShares:
    """Pearson's chi-square for a 2 x groups table; small counts by random tables with the same margins.

    The table of chi-square on groups - 1 degrees of freedom is used where every expected count reaches 5.
    Elsewhere p = (b + 1) / (m + 1) over m tables drawn from the multivariate hypergeometric distribution, b
    of them with a statistic at least as large: valid at every size. R: chisq.test(correct = FALSE) and
    chisq.test(simulate.p.value = TRUE).

    Parameters
    ----------
    successes, n : sequences of int
        One a group, two groups or more, n >= 1.
    rng : numpy Generator
        For the random tables.

    Raises
    ------
    ValueError
        When there is nothing to compare: fewer than two groups, no success at all, or nothing else.

    Examples
    --------
    >>> result = equal_shares([20, 30], [100, 100], rng=np.random.default_rng(0))
    >>> round(result.statistic, 6), round(result.p, 6), result.method
    (2.666667, 0.10247, 'chi-square')
    """
    hits, sizes = np.asarray(successes, dtype=np.int64), np.asarray(n, dtype=np.int64)
    if len(hits) < 2 or len(hits) != len(sizes) or (hits < 0).any() or (hits > sizes).any():
        raise ValueError(f"{list(successes)} of {list(n)}; pass two groups or more, 0 to n of n each")
    total, rows = int(hits.sum()), int(sizes.sum())
    if total in (0, rows) or (sizes == 0).any():
        raise ValueError(f"{total} of {rows} over {len(hits)} groups: nothing to compare")
    observed = float(_chi_square(hits, sizes))
    df = float(len(hits) - 1)
    smallest = float(sizes.min()) * min(total, rows - total) / rows
    if smallest >= SMALLEST_EXPECTED:
        return EqualShares(
            statistic=observed, df=df, p=float(special.chdtrc(df, observed)), method="chi-square"
        )
    drawn = _chi_square(rng.multivariate_hypergeometric(sizes, total, size=n_draws), sizes)
    reached = int((drawn >= observed * (1 - 1e-9)).sum())
    p = (reached + 1) / (n_draws + 1)
    return EqualShares(statistic=observed, df=df, p=p, method="chi-square, random tables")


def _chi_square(hits: IntArray, sizes: IntArray) -> FloatArray:
    """Pearson's statistic of each row of `hits`; the last axis is the group."""
    share = hits.sum(axis=-1, keepdims=True) / sizes.sum()
    deviation = (hits - sizes * share) ** 2 / (sizes * share * (1 - share))
    total: FloatArray = deviation.sum(axis=-1)
    return total


def p_at_least(rate: float, share: float, pairs: int) -> float:
    """Exact one-sided p that pairs agree at this rate or more; a share between two numbers counts as more.

    Examples
    --------
    >>> round(p_at_least(0.99, 388 / 400, 400), 6)  # R: 1 - pbinom(11, 400, 0.01)
    0.000849
    """
    wrong = math.floor(pairs * (1.0 - share) + 1e-9)
    return float(special.bdtrc(wrong - 1, pairs, 1.0 - rate)) if wrong else 1.0
