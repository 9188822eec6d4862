"""Tests and intervals on the source means of a fitted mixed model.

Degrees of freedom are Satterthwaite's, as lmerTest computes them; simultaneous intervals are Tukey's. The
balanced analysis of variance is here too: in balanced data it must give the same F, which checks the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from stats.layout import Layout
from stats.mixed import MixedFit, satterthwaite_df
from stats.rows import FloatArray
from stats.studentized_range import studentized_range_isf, studentized_range_sf


@dataclass(frozen=True, kw_only=True)
class FTest:
    """F statistic, its degrees of freedom and p."""

    statistic: float
    df1: float
    df2: float
    p: float
    method: str


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Mean of one source minus mean of another, in the metric's units."""

    name: str
    """`A-B`."""
    estimate: float
    se: float
    df: float
    t: float
    p: float
    """Two-sided, unadjusted."""
    low: float
    """Unadjusted interval at level 1 - alpha."""
    high: float
    p_tukey: float
    low_tukey: float
    """Simultaneous interval over all pairs at level 1 - alpha."""
    high_tukey: float


def omnibus(fit: MixedFit) -> FTest:
    """F test that all source means are equal.

    The contrasts' covariance is rotated to q independent t statistics with nu_i degrees of freedom each; F is
    the mean of their squares and its denominator matches the mean of F(q, .): with E = sum nu_i / (nu_i - 2)
    it is 2E / (E - q), 2 where a nu_i does not exceed 2, and nu where all agree. In unbalanced data
    df depends on the contrasts the rotation starts from (F does not); they are those of lmerTest's `anova`.

    References
    ----------
    Fai & Cornelius (1996), J. Stat. Comput. Simul. 54, 363; lmerTest's `contestMD` is the witness.

    Examples
    --------
    With two sources F is the square of the paired t on prompt means.

    >>> from stats.layout import arrange
    >>> from stats.mixed import fit_mixed
    >>> from scipy import stats
    >>> layout = arrange(list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> test = omnibus(fit_mixed(y, layout))
    >>> paired = stats.ttest_1samp([2, 1, 1, -1], 0)
    >>> round(test.statistic, 8) == round(float(paired.statistic) ** 2, 8), round(test.df2, 6)
    (True, 3.0)
    >>> round(test.p, 8) == round(float(paired.pvalue), 8)
    True
    """
    S = len(fit.means)
    L = _start_contrasts(fit.layout)
    size, vectors = np.linalg.eigh(L @ fit.covariance @ L.T)
    rotated = vectors.T @ L
    q = S - 1
    F = float(np.sum((rotated @ fit.means) ** 2 / size)) / q
    df2 = pooled_df([satterthwaite_df(fit, row) for row in rotated])
    return FTest(statistic=F, df1=float(q), df2=df2, p=float(special.fdtrc(q, df2, F)), method=fit.method)


def _start_contrasts(layout: Layout) -> FloatArray:
    """Each source but the first against the rows of the first and of those after it (lmerTest, type III)."""
    rows = np.bincount(layout.cell_source, layout.cell_rows)
    L = np.eye(len(rows))[1:]
    for j in range(1, len(rows)):
        rest = [0, *range(j + 1, len(rows))]
        L[j - 1, rest] = -rows[rest] / rows[rest].sum()
    return L


def pooled_df(nu: list[float]) -> float:
    """Denominator degrees of freedom of a mean of squared independent t statistics.

    Examples
    --------
    >>> pooled_df([58.0, 58.0]), round(pooled_df([10.0, 20.0]), 4), pooled_df([2.0, 9.0])
    (58.0, 13.0769, 2.0)
    """
    if max(nu) - min(nu) < 1e-8 * max(nu):
        return float(np.mean(nu))
    if min(nu) <= 2.0:
        return 2.0
    E = sum(v / (v - 2.0) for v in nu)
    return 2.0 * E / (E - len(nu))


def tukey_contrasts(fit: MixedFit, alpha: float) -> list[Contrast]:
    """All pairwise differences of source means with unadjusted and Tukey intervals at level 1 - alpha.

    Each contrast has its own Satterthwaite degrees of freedom, as in emmeans: p_tukey is
    P(studentised range > sqrt(2) |t|). With two sources both kinds agree.

    Examples
    --------
    >>> from stats.layout import arrange
    >>> from stats.mixed import fit_mixed
    >>> layout = arrange(list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> (c,) = tukey_contrasts(fit_mixed(y, layout), 0.05)
    >>> c.name, round(c.estimate, 4), round(c.low_tukey, 4), round(c.high_tukey, 4), round(c.p_tukey, 4)
    ('a-b', -0.75, -2.7522, 1.2522, 0.3189)
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; must lie between 0 and 1")
    names = fit.layout.sources
    return [_contrast(fit, i, j, alpha) for i, j in combinations(range(len(names)), 2)]


def _contrast(fit: MixedFit, i: int, j: int, alpha: float) -> Contrast:
    names, groups = fit.layout.sources, len(fit.means)
    weights = np.zeros(groups)
    weights[i], weights[j] = 1.0, -1.0
    estimate = float(weights @ fit.means)
    se = math.sqrt(float(weights @ fit.covariance @ weights))
    df = satterthwaite_df(fit, weights)
    t = estimate / se
    plain = -float(special.stdtrit(df, alpha / 2.0)) * se
    tukey = studentized_range_isf(alpha, groups, df) / math.sqrt(2.0) * se
    return Contrast(
        name=f"{names[i]}-{names[j]}",
        estimate=estimate,
        se=se,
        df=df,
        t=t,
        p=2.0 * float(special.stdtr(df, -abs(t))),
        low=estimate - plain,
        high=estimate + plain,
        p_tukey=studentized_range_sf(math.sqrt(2.0) * abs(t), groups, df),
        low_tukey=estimate - tukey,
        high_tukey=estimate + tukey,
    )


def balanced_anova(y: FloatArray, layout: Layout) -> FTest | None:
    """The F of the analysis of variance with unpooled mean squares; None where the data are not balanced.

    One stream a source: F = MS_source / MS_prompt:source on (k-1, (k-1)(P-1)). With T streams in each:
    F' = MS_source / (MS_prompt:source + MS_stream - MS_residual) with Satterthwaite's degrees of freedom;
    None also where that sum is not above zero.

    Examples
    --------
    >>> from stats.layout import arrange
    >>> layout = arrange(list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> test = balanced_anova(y, layout)
    >>> round(test.statistic, 6), test.df1, test.df2
    (1.421053, 1.0, 3.0)
    """
    if not layout.balanced:
        return None
    P, S, n = layout.prompts, len(layout.sources), layout.n
    cells = np.bincount(layout.cell, y) / layout.cell_rows
    grid = cells.reshape(P, S)  # cells are sorted by prompt, then source
    by_source = grid.mean(axis=0)
    left = grid - by_source - grid.mean(axis=1, keepdims=True) + grid.mean()
    ms_source = n / S * float(np.var(by_source, ddof=1))
    df_ps = (S - 1) * (P - 1)
    ms_ps = n / (P * S) * float(np.sum(left**2)) / df_ps
    noise, df2 = ms_ps, float(df_ps)
    name = "ANOVA, MS_source / MS_prompt:source"
    if layout.levels:
        inside = y - cells[layout.cell]
        sums = np.bincount(layout.level, inside, minlength=layout.levels)
        df_st = layout.levels - S
        ss_st = float(sums @ sums) * layout.levels / n
        df_e = n - P * S - df_st
        ms_st, ms_e = ss_st / df_st, (float(inside @ inside) - ss_st) / df_e
        noise = ms_ps + ms_st - ms_e
        if noise <= 0.0:
            return None
        df2 = noise**2 / (ms_ps**2 / df_ps + ms_st**2 / df_st + ms_e**2 / df_e)
        name = "ANOVA, MS_source / (MS_prompt:source + MS_stream - MS_residual)"
    if noise <= 0.0:
        return None
    F = ms_source / noise
    return FTest(statistic=F, df1=S - 1.0, df2=df2, p=float(special.fdtrc(S - 1, df2, F)), method=name)
