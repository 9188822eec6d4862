"""A metric over sizes of training data: error = floor + a (n / n_1)^-b, by least squares, with intervals.

The metric is a share, so 1 - metric is the error and 1 - floor what no amount of this data passes. For a
given exponent b the rest is linear, so b alone is searched, on a grid and then by golden section, for the
data and for all resamples at once; floor and a stay at or above 0. Seeds and lemmas are resampled together,
the same draw for every size. Intervals are percentiles of the draws: a curve through few sizes has no simple
standard error to divide by. They err on the wide side, as noise enters the draws three times
(`stats.two_way_bootstrap`; `tests/two_way_campaign.py` counts). They speak of other seeds and lemmas, never
of other sizes: a prediction beyond the largest size also assumes the law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stats.aligned_bootstrap import Interval
from stats.rows import FloatArray
from stats.two_way_bootstrap import FEWEST_LEMMAS, FEWEST_SEEDS, RESAMPLES, Crossed, draw_counts

FEWEST_SIZES = 5
"""Three numbers are fitted; fewer sizes leave at most one degree of freedom."""
LEAST, MOST = 0.01, 10.0
"""Exponents searched. At an end the data do not tell the exponent: b is below or above it."""
_GRID = np.geomspace(LEAST, MOST, 121)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ScalingFit:
    """The law of one metric over sizes, for the data (row 0) and each resample."""

    sizes: FloatArray
    """(K,) ascending, in bundles or whatever was counted."""
    observed: FloatArray
    """(K,) metric, mean over seeds and items."""
    floor: FloatArray
    """(1 + R,) error that stays at any size."""
    scale: FloatArray
    """(1 + R,) a: error above the floor at the smallest size."""
    exponent: FloatArray
    """(1 + R,) b."""
    n: int
    """Seeds."""
    method: str
    reason: str | None
    """Why there are no intervals."""

    @property
    def residual_sd(self) -> float:
        """sqrt(sum of squared residuals / (K - 3))."""
        rest = self.observed - self._at(self.sizes)[0]
        return math.sqrt(float(rest @ rest) / (len(self.sizes) - 3))

    @property
    def rises(self) -> bool:
        """Whether the fitted metric grows with size at all."""
        return bool(self.scale[0] > 0.0)

    def exponent_interval(self, alpha: float = 0.05) -> Interval:
        """b; an end at LEAST or MOST is None, and the reason says that the draws do not bound it."""
        if not self.rises:
            return self._bare(None, "the metric does not rise with size; no exponent")
        found = self._interval(self.exponent, alpha)
        if found.low is None or found.high is None:
            return found
        free = [
            side
            for side, at in (("below", found.low <= 1.001 * LEAST), ("above", found.high >= 0.999 * MOST))
            if at
        ]
        return Interval(
            estimate=found.estimate,
            low=None if "below" in free else found.low,
            high=None if "above" in free else found.high,
            n=self.n,
            method=self.method,
            reason=f"not bounded {' nor '.join(free)} within {LEAST:g} to {MOST:g}" if free else None,
        )

    def asymptote(self, alpha: float = 0.05) -> Interval:
        """1 - floor: the metric that no amount of this data passes."""
        if not self.rises:
            return self._bare(None, "the metric does not rise with size; no asymptote")
        return self._interval(1.0 - self.floor, alpha)

    def predicted(self, size: float, alpha: float = 0.05) -> Interval:
        """The metric at a size; beyond the largest it extrapolates."""
        if not size > 0.0:
            raise ValueError(f"size {size}; must be above 0")
        return self._interval(self._at(np.array([float(size)]))[:, 0], alpha)

    def doubling(self, alpha: float = 0.05) -> Interval:
        """Gain of the metric from twice the largest size, by the law."""
        last = float(self.sizes[-1])
        two = self._at(np.array([last, 2.0 * last]))
        return self._interval(two[:, 1] - two[:, 0], alpha)

    def size_for(self, target: float) -> float | None:
        """Size at which the law reaches a value of the metric; None where it never does."""
        room = 1.0 - target - float(self.floor[0])
        if not (room > 0.0 and self.rises):
            return None
        log = math.log(float(self.scale[0]) / room) / float(self.exponent[0])
        return float(self.sizes[0]) * math.exp(log) if log < 700.0 else None

    def _at(self, sizes: FloatArray) -> FloatArray:
        u = (sizes / self.sizes[0])[None, :]
        law: FloatArray = 1.0 - self.floor[:, None] - self.scale[:, None] * u ** -self.exponent[:, None]
        return law

    def _bare(self, estimate: float | None, reason: str | None) -> Interval:
        return Interval(estimate=estimate, low=None, high=None, n=self.n, method=self.method, reason=reason)

    def _interval(self, values: FloatArray, alpha: float) -> Interval:
        if self.reason is not None:
            return self._bare(float(values[0]), self.reason)
        low, high = np.quantile(values[1:], [alpha / 2.0, 1.0 - alpha / 2.0])
        return Interval(
            estimate=float(values[0]), low=float(low), high=float(high), n=self.n, method=self.method
        )


def power_law(sizes: FloatArray, metric: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Least-squares floor, a and b of 1 - metric = floor + a (n / n_1)^-b, floor and a at least 0.

    Parameters
    ----------
    sizes : (K,) float array
        Ascending, above 0.
    metric : (R, K) float array
        One curve a row.

    Returns
    -------
    floor, a, b : (R,) float arrays
        Where a is 0 the metric does not rise and b means nothing.

    References
    ----------
    Golub & Pereyra (1973), SIAM J. Numer. Anal. 10, 413 (variable projection); Hestness et al. (2017),
    arXiv:1712.00409 (the law). Witness: R's `nls(algorithm = "port")` (`tests/reference/scaling_fit.R`).

    Examples
    --------
    >>> n = np.array([100.0, 200.0, 400.0, 800.0, 1600.0])
    >>> [round(float(x[0]), 4) for x in power_law(n, 1.0 - (0.2 + 0.6 * (n / 100) ** -0.5)[None, :])]
    [0.2, 0.6, 0.5]
    """
    log_u, error = np.log(sizes / sizes[0]), 1.0 - metric
    losses = np.stack([_linear(error, log_u, np.full(len(error), b))[2] for b in _GRID], axis=1)
    best = losses.argmin(axis=1)
    low = np.log(_GRID[np.maximum(best - 1, 0)])
    high = np.log(_GRID[np.minimum(best + 1, len(_GRID) - 1)])
    for _ in range(60):  # golden section on log b: the bracket shrinks by .618 a turn
        step = _GOLDEN * (high - low)
        left, right = high - step, low + step
        fall = _linear(error, log_u, np.exp(left))[2] <= _linear(error, log_u, np.exp(right))[2]
        low, high = np.where(fall, low, left), np.where(fall, right, high)
    b = np.exp((low + high) / 2.0)
    floor, a, _ = _linear(error, log_u, b)
    return floor, a, b


def _linear(error: FloatArray, log_u: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Best floor and a of each row at its b, both at least 0, and the sum of squared residuals."""
    g = np.exp(-b[:, None] * log_u)  # (R, K)
    mean_g, mean_e = g.mean(axis=1), error.mean(axis=1)
    away = g - mean_g[:, None]
    a = np.maximum((away * error).sum(axis=1) / (away**2).sum(axis=1), 0.0)
    floor = mean_e - a * mean_g
    through = np.maximum((g * error).sum(axis=1) / (g**2).sum(axis=1), 0.0)
    a, floor = np.where(floor < 0.0, through, a), np.maximum(floor, 0.0)
    rest = error - floor[:, None] - a[:, None] * g
    return floor, a, (rest**2).sum(axis=1)


def scaling_fit(
    sizes: Sequence[float],
    tables: Sequence[Crossed],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> ScalingFit:
    """Fit the law to a metric that every seed reached at every size.

    Parameters
    ----------
    sizes : (K,) sequence
        At least FEWEST_SIZES, ascending.
    tables : (K,) sequence of Crossed
        The metric, a share in 0 to 1, on the same items and seeds at each size.

    Raises
    ------
    ValueError
        Too few sizes, sizes that do not ascend, tables of other seeds or items, shares outside 0 to 1.

    Examples
    --------
    >>> from stats.two_way_bootstrap import crossed
    >>> rng = np.random.default_rng(0)
    >>> n = [100, 200, 400, 800, 1600]
    >>> share = [0.8 - 0.6 * (k / 100) ** -0.5 for k in n]
    >>> hits = [(rng.random((10, 600)) < p).astype(float) for p in share]
    >>> fit = scaling_fit(n, [crossed(h, np.arange(600) // 10) for h in hits], rng=rng)
    >>> b, top = fit.exponent_interval(), fit.asymptote()
    >>> b.low < 0.5 < b.high, top.low < 0.8 < top.high, fit.predicted(3200).high < fit.asymptote().high
    (True, True, True)
    """
    x = np.asarray(sizes, dtype=np.float64)
    if len(x) < FEWEST_SIZES or len(x) != len(tables):
        raise ValueError(f"{len(x)} sizes, {len(tables)} tables; pass one each, at least {FEWEST_SIZES}")
    if not (np.isfinite(x).all() and x[0] > 0.0 and (np.diff(x) > 0.0).all()):
        raise ValueError(f"sizes {x.tolist()}; must ascend from above 0")
    first = tables[0]
    for size, table in zip(sizes, tables, strict=True):
        if table.totals.shape != first.totals.shape or not np.array_equal(table.sizes, first.sizes):
            raise ValueError(f"size {size}: other seeds or items than at {sizes[0]}; evaluate all alike")
        if (table.totals < 0.0).any() or (table.totals > table.sizes * (1.0 + 1e-12)).any():
            raise ValueError(f"size {size}: shares outside 0 to 1; the law is one of an error 1 - share")
    S, L = first.seeds, first.lemmas
    few = S < FEWEST_SEEDS or L < FEWEST_LEMMAS
    R = 0 if few else resamples
    W, V = draw_counts(S, R, rng), draw_counts(L, R, rng)
    N = S * (V @ first.sizes)
    metric = np.stack([((W @ table.totals) * V).sum(axis=1) / N for table in tables], axis=1)
    floor, scale, exponent = power_law(x, metric)
    return ScalingFit(
        sizes=x,
        observed=metric[0],
        floor=floor,
        scale=scale,
        exponent=exponent,
        n=S,
        method=f"power law of the error, least squares, percentiles of {R} draws of {S} seeds x {L} lemmas",
        reason=f"{S} seeds x {L} lemmas; an interval needs {FEWEST_SEEDS} x {FEWEST_LEMMAS}" if few else None,
    )
