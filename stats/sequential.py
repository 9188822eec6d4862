"""Successive looks at growing data without inflating the error: Hwang-Shih-DeCani spending.

Spending gives the error that may be used up by each look. `nominal_levels` turns it into the level at which a
look's ordinary test is judged, by integrating over the path of the statistic through the earlier looks. That
path is the one of independent blocks, where two looks correlate as sqrt(k1 / k2). Where a prompt:source
variance exists the looks share it and correlate more: errors then overlap more, and the overall rate falls
below alpha, at most down to the last look's own level (0.047 for looks 10, 20, 40). Missing rows and
estimated variances act through each look's own p value, so the levels are applied to p (the
significance-level approach).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy

from stats.rows import FloatArray

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)


def hwang_shih_decani(fraction: float, *, alpha: float = 0.05, gamma: float = -4.0) -> float:
    """Error spent when `fraction` of the information is in: alpha (1 - e^(-gamma t)) / (1 - e^(-gamma)).

    Parameters
    ----------
    fraction
        Share of the planned samples, in [0, 1].
    gamma
        -4 is close to O'Brien-Fleming, 1 to Pocock; 0 spends in proportion.

    References
    ----------
    Hwang, Shih & DeCani (1990), Stat. Med. 9, 1439.

    Examples
    --------
    >>> [round(hwang_shih_decani(k / 40), 4) for k in (10, 20, 40)]
    [0.0016, 0.006, 0.05]
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"information fraction {fraction}; must lie in [0, 1]")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; must lie between 0 and 1")
    if abs(gamma) < 1e-12:  # its limit; smaller ones leave no digits
        return alpha * fraction
    return alpha * math.expm1(-gamma * fraction) / math.expm1(-gamma)


def look_levels(
    looks: Sequence[int], *, alpha: float = 0.05, gamma: float = -4.0, groups: int = 3
) -> dict[int, float]:
    """Nominal level of each look, for tests among `groups` sources.

    Parameters
    ----------
    looks
        Samples a cell at each look, rising; the last one is the whole plan.

    Returns
    -------
    dict
        Look -> level at which its omnibus test, its intervals and its equivalence tests are judged.

    Examples
    --------
    >>> {k: round(level, 5) for k, level in look_levels((10, 20, 40)).items()}
    {10: 0.0016, 20: 0.00478, 40: 0.04706}
    >>> look_levels((20,))
    {20: 0.05}
    """
    if not looks or list(looks) != sorted(set(looks)) or looks[0] < 1:
        raise ValueError(f"looks {tuple(looks)}; give rising numbers of samples a cell, from 1")
    if groups < 2:
        raise ValueError(f"{groups} groups; a comparison needs at least 2")
    fractions = tuple(k / looks[-1] for k in looks)
    spent = tuple(hwang_shih_decani(t, alpha=alpha, gamma=gamma) for t in fractions)
    return dict(zip(looks, nominal_levels(spent, fractions, groups - 1), strict=True))


@lru_cache(maxsize=256)
def nominal_levels(
    spent: tuple[float, ...], fractions: tuple[float, ...], dimensions: int = 1
) -> tuple[float, ...]:
    """Levels at which successive chi-square tests use up exactly the error spent.

    The statistic at information t is |W(t)|^2 / t, W a Brownian motion in `dimensions` directions. Level j
    solves P(first rejection at look j) = spent_j - spent_(j-1).

    Parameters
    ----------
    spent
        Cumulative error at each look, rising.
    fractions
        Information at each look, rising to 1.
    dimensions
        1 for a two-sided test of one difference, k - 1 for an omnibus test of k means.

    Returns
    -------
    tuple of float
        Two-sided nominal levels.

    References
    ----------
    Armitage, McPherson & Rowe (1969), J. R. Stat. Soc. A 132, 235, for the recursion; Jennison & Turnbull
    (2000), ch. 16, for the chi-square version. Witnesses: gsDesign's published default design, R's
    `mvtnorm::pmvnorm`, and a simulated Brownian motion.

    Examples
    --------
    gsDesign's default (gamma -4, thirds, one-sided 0.025) has bounds 3.01, 2.55, 2.00:

    >>> spent = tuple(hwang_shih_decani(t) for t in (1 / 3, 2 / 3, 1.0))
    >>> [round(float(scipy.stats.norm.isf(p / 2)), 2) for p in nominal_levels(spent, (1 / 3, 2 / 3, 1.0))]
    [3.01, 2.55, 2.0]
    """
    levels = [spent[0]]
    radius, density = _first_path(spent[0], fractions[0], dimensions)
    for j in range(1, len(spent)):
        step = fractions[j] - fractions[j - 1]
        bound = _bound(spent[j] - spent[j - 1], radius, density, fractions[j], step, dimensions)
        levels.append(float(scipy.stats.chi2.sf(bound**2, dimensions)))
        radius, density = _next_path(bound, radius, density, fractions[j], step, dimensions)
    return tuple(levels)


def _first_path(level: float, t: float, d: int) -> tuple[FloatArray, FloatArray]:
    """Radii |W| not rejected at the first look, and their density times quadrature weights."""
    edge = math.sqrt(float(scipy.stats.chi2.isf(level, d)) * t)
    radius = edge * (_NODES + 1.0) / 2.0
    return radius, _WEIGHTS * edge / 2.0 * scipy.stats.chi.pdf(radius / math.sqrt(t), d) / math.sqrt(t)


def _bound(error: float, radius: FloatArray, density: FloatArray, t: float, step: float, d: int) -> float:
    """Bound of |W| / sqrt(t) that the surviving paths cross with probability `error`."""

    def excess(bound: float) -> float:
        return float(density @ scipy.stats.ncx2.sf(bound**2 * t / step, d, radius**2 / step)) - error

    bound: float = scipy.optimize.brentq(excess, 1e-3, 12.0, xtol=1e-12)
    return bound


def _next_path(
    bound: float, radius: FloatArray, density: FloatArray, t: float, step: float, d: int
) -> tuple[FloatArray, FloatArray]:
    edge = bound * math.sqrt(t)
    after = edge * (_NODES + 1.0) / 2.0
    moves = scipy.stats.ncx2.pdf(after[:, None] ** 2 / step, d, radius[None, :] ** 2 / step)
    return after, _WEIGHTS * edge / 2.0 * (2.0 * after / step * (moves @ density))
