"""Exact tests whose unit is the language: labels permuted, signs flipped, and intervals by inversion.

All three tests here (labels high or low over languages, signs of paired differences, a slope on log share)
ask whether data shifted by theta look arranged by chance. The statistic is linear, so the shift at which
arrangement k ties with the observed one is a linear function of the data, theta_k = row_k . y. Sorting these
n numbers gives every p value at every theta, and with them the exact interval and both one-sided equivalence
tests: no search.

Two-sided p is min(1, 2 min(p_greater, p_less)). In groups of equal size, and for signs, that is the test on
|statistic|; with unequal sizes it is conservative, and its inversion is always one interval, which that of
|statistic| need not be.

The statistic is the raw difference, not a studentised one: that would take the closed form of the interval
and gives nothing here. Share of nulls rejected at .05 when the low-resource languages vary three times as
much: 5 v 5 raw .065, studentised .065; 4 low v 6 high .098 and .097; 6 v 4 .040 and .043. So plan tiers of
equal size: in them the permutation variance of the raw difference is right in large samples even with unequal
variances (Romano 1990). What the exact level rests on: the languages of both tiers alike but for the shift,
and paired differences symmetric about it. Signs of ten lognormal differences of mean zero are rejected .16 of
the time. The figures come from `tests/test_disparity_simulation.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import numpy.typing as npt

from stats.rows import FloatArray

BoolArray = npt.NDArray[np.bool_]

MOST_EXACT = 200_000
"""Arrangements enumerated; 10 v 10 languages have 184,756, 17 signs 131,072. Beyond, a random sample."""
DRAWS = 9_999
"""Random arrangements where there are too many: p then moves in steps of 1 / 10,000."""
TIE = 1e-12
"""Relative to the largest value: shifts this close are ties (rounding of sums of float64)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrangements:
    """What a test compares the data with."""

    weights: FloatArray
    """(L,) estimate = weights . values."""
    rows: FloatArray
    """(n, L) theta_k = rows[k] . values, the shift at which arrangement k ties with the observed one."""
    always: int
    """Arrangements that tie at every shift: the observed one and copies of it."""
    exact: bool
    """All arrangements, or a random sample with the observed one added: p = (b + 1) / (m + 1)."""
    method: str

    @property
    def total(self) -> int:
        """Arrangements, the observed one included."""
        return len(self.rows) + self.always

    @property
    def smallest_p(self) -> float:
        """Smallest two-sided p value that any data can reach."""
        return min(1.0, 2.0 * self.always / self.total)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShiftTest:
    """A test of every shift at once: p values, interval, equivalence."""

    estimate: float
    critical: FloatArray
    """(n,) sorted shifts at which an arrangement ties with the observed one."""
    always: int
    exact: bool
    method: str
    tolerance: float
    """Shifts this close count as equal, in the units of the values."""

    @property
    def total(self) -> int:
        return len(self.critical) + self.always

    def p_greater(self, shift: float = 0.0) -> float:
        """One-sided p of "the shift is at most `shift`": share of arrangements at or above the observed."""
        reached = np.searchsorted(self.critical, shift + self.tolerance, side="right")
        return (self.always + int(reached)) / self.total

    def p_less(self, shift: float = 0.0) -> float:
        """One-sided p of "the shift is at least `shift`"."""
        below = np.searchsorted(self.critical, shift - self.tolerance, side="left")
        return (self.always + len(self.critical) - int(below)) / self.total

    def p(self, shift: float = 0.0) -> float:
        """Two-sided p: min(1, 2 min(p_greater, p_less))."""
        return min(1.0, 2.0 * min(self.p_greater(shift), self.p_less(shift)))

    def interval(self, alpha: float) -> tuple[float | None, float | None]:
        """Shifts not rejected at `alpha`; None for an end that no arrangement bounds.

        With K = floor(alpha N / 2) of N arrangements, the ends are the (K - always + 1)-th smallest and
        largest critical shift. Coverage is 1 - 2 K / N, at least 1 - alpha: .952 for 5 v 5 at alpha .05.
        """
        _check_alpha(alpha)
        place = math.floor(alpha * self.total / 2.0 + 1e-9) - self.always
        if place < 0 or place >= len(self.critical):
            return None, None
        low, high = float(self.critical[place]), float(self.critical[-1 - place])
        near = self.tolerance
        return (0.0 if abs(low) <= near else low), (0.0 if abs(high) <= near else high)

    def p_equivalence(self, margin: float) -> float:
        """The larger p of the two one-sided tests against -margin and +margin (Schuirmann 1987)."""
        if not margin > 0.0:
            raise ValueError(f"margin {margin}; the smallest effect of interest is above 0")
        return max(self.p_greater(-margin), self.p_less(margin))


def shift_test(values: FloatArray, arrangements: Arrangements) -> ShiftTest:
    """Test of all shifts for one value a unit.

    Parameters
    ----------
    values : (L,) float array
        One number a language (or a document total, for `sign_flips` with sizes); all finite.
    arrangements : Arrangements
        From `label_permutations`, `sign_flips` or `slope_permutations`.

    Raises
    ------
    ValueError
        A value that is not finite, or a wrong number of them.

    References
    ----------
    Fisher (1935); Hartigan (1969), J. Am. Stat. Assoc. 64, 1303 (typical values: signs); Garthwaite (1996),
    Biometrics 52, 1387 (inversion). Witness: R's `combn` and `expand.grid` with p found by re-testing shifted
    data (`tests/reference/disparity_exact.R`).

    Examples
    --------
    The two one-sided tails of 5 v 5 hold 1 of 252 labellings each:

    >>> y = np.array([5.0, 6.0, 7.0, 8.0, 9.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    >>> test = shift_test(y, label_permutations(np.arange(10) < 5))
    >>> round(test.estimate, 9), round(test.p(), 5), test.interval(0.05)
    (5.0, 0.00794, (2.5, 7.5))
    >>> round(test.p_equivalence(9.5), 5)
    0.00397
    """
    y = np.asarray(values, dtype=np.float64)
    if y.shape != arrangements.weights.shape:
        raise ValueError(f"{y.shape} values for {arrangements.weights.shape} units; pass one number a unit")
    if not np.isfinite(y).all():
        places = np.flatnonzero(~np.isfinite(y)).tolist()
        raise ValueError(f"values {places} are not finite; leave such a unit out or call the family INVALID")
    return ShiftTest(
        estimate=float(arrangements.weights @ y),
        critical=np.sort(arrangements.rows @ y),
        always=arrangements.always,
        exact=arrangements.exact,
        method=arrangements.method,
        tolerance=TIE * float(np.abs(arrangements.weights).sum() * np.abs(y).max()),
    )


def smallest_p(n_low: int, n_high: int) -> float:
    """Smallest two-sided p of a permutation of labels over languages: 2 / C(n_low + n_high, n_low).

    >>> [round(smallest_p(n, n), 5) for n in (3, 4, 5, 6)]
    [0.1, 0.02857, 0.00794, 0.00216]
    """
    if n_low < 1 or n_high < 1:
        raise ValueError(f"{n_low} low and {n_high} high languages; each group needs at least one")
    return min(1.0, 2.0 / math.comb(n_low + n_high, n_low))


def smallest_p_signs(n: int) -> float:
    """Smallest two-sided p of flipping the signs of n differences: 2 / 2^n.

    >>> smallest_p_signs(5), smallest_p_signs(10)
    (0.0625, 0.001953125)
    """
    if n < 1:
        raise ValueError(f"{n} differences; a sign-flip test needs at least one")
    return min(1.0, 2.0 / 2.0**n)


def require_reachable(n_low: int, n_high: int, *, alpha: float = 0.05, tests: int = 1) -> float:
    """Refuse a plan whose label permutation cannot reject; return the smallest p it can reach, after Holm.

    Parameters
    ----------
    tests : int
        Size of the family: Holm's first step multiplies by it.

    Raises
    ------
    ValueError
        The smallest p times `tests` lies above alpha.

    Examples
    --------
    >>> round(require_reachable(5, 5, tests=3), 4)
    0.0238
    >>> require_reachable(3, 3)
    Traceback (most recent call last):
    ...
    ValueError: 3 low v 3 high languages reach p = 0.1 at the least, times 1 tests: above alpha = 0.05; ...
    """
    _check_alpha(alpha)
    p = min(1.0, tests * smallest_p(n_low, n_high))
    if p > alpha:
        raise ValueError(
            f"{n_low} low v {n_high} high languages reach p = {smallest_p(n_low, n_high):.3g} at the least, "
            f"times {tests} tests: above alpha = {alpha}; plan 5 v 5 or more, or fewer tests"
        )
    return p


def label_permutations(
    is_low: npt.ArrayLike, *, rng: np.random.Generator | None = None, draws: int = DRAWS
) -> Arrangements:
    """All ways to call n_low of the languages low; statistic: mean of the low minus mean of the high.

    With weight w_i = 1 / n_low or -1 / n_high under the observed labels and v_i under labelling k, the low
    group shifted by theta ties where theta_k = (w - v_k) . y / (1 - v_k . low).

    Parameters
    ----------
    is_low : (L,) bool array
        True for a low-resource language; both kinds occur.
    rng : numpy Generator, optional
        Needed beyond MOST_EXACT labellings, where `draws` random ones are used.

    Examples
    --------
    >>> arrangements = label_permutations([True, True, False, False])
    >>> arrangements.total, round(arrangements.smallest_p, 4)
    (6, 0.3333)
    """
    low = np.asarray(is_low, dtype=bool)
    n, k = len(low), int(low.sum())
    if low.ndim != 1 or not 0 < k < n:
        raise ValueError(f"{k} low of {n} languages; a gap needs at least one language in each tier")
    exact = math.comb(n, k) <= MOST_EXACT
    if exact:
        chosen = np.zeros((math.comb(n, k), n), dtype=bool)
        places = np.array(list(combinations(range(n), k)))
        np.put_along_axis(chosen, places, True, axis=1)
    else:
        chosen = _generator(rng, f"{k} v {n - k} languages").permuted(np.tile(low, (draws, 1)), axis=1)
    v = np.where(chosen, 1.0 / k, -1.0 / (n - k))
    w = np.where(low, 1.0 / k, -1.0 / (n - k))
    method = f"permutation of labels over {k} low and {n - k} high languages"
    return _arranged(w, v, low.astype(np.float64), exact, method)


def slope_permutations(
    x: npt.ArrayLike, *, rng: np.random.Generator | None = None, draws: int = DRAWS
) -> Arrangements:
    """All ways to hand the values x to the languages; statistic: the least-squares slope of y on x.

    Examples
    --------
    >>> arrangements = slope_permutations([0.0, 1.0, 2.0])
    >>> float(arrangements.weights @ np.array([5.0, 3.0, 1.0])), arrangements.total
    (-2.0, 6)
    """
    values = np.asarray(x, dtype=np.float64)
    n = len(values)
    if n < 3 or not np.isfinite(values).all() or np.ptp(values) == 0.0:
        raise ValueError(f"x = {values.tolist()}; a slope needs three or more finite values, not all equal")
    exact = math.factorial(n) <= MOST_EXACT
    if exact:
        arranged = np.array(list(permutations(values)))
    else:
        arranged = _generator(rng, f"{n} languages").permuted(np.tile(values, (draws, 1)), axis=1)
    centred = values - values.mean()
    scale = float(centred @ centred)
    v = (arranged - values.mean()) / scale
    return _arranged(centred / scale, v, values, exact, f"permutation of x over {n} languages, slope")


def sign_flips(
    n: int,
    *,
    sizes: FloatArray | None = None,
    rng: np.random.Generator | None = None,
    draws: int = DRAWS,
) -> Arrangements:
    """All 2^n signs of n paired differences, symmetric about the shift under the null.

    Statistic: sum of the values over sum of the sizes. A flip of the set F ties where theta = (sum of the
    values in F) / (sum of the sizes in F): Hartigan's subset means.

    Parameters
    ----------
    sizes : (n,) float array, optional
        Sentences a document, where each value is the total of a document; default 1, a value a language.

    Examples
    --------
    >>> test = shift_test(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), sign_flips(6))
    >>> test.estimate, test.p(), test.interval(0.05)
    (3.5, 0.03125, (1.0, 6.0))
    """
    if n < 1:
        raise ValueError(f"{n} differences; a sign-flip test needs at least one")
    size = np.ones(n) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if size.shape != (n,) or not (size > 0.0).all():
        raise ValueError(f"sizes {size.tolist()[:5]} of {n} units; pass one number above 0 a unit")
    exact = n <= 40 and 2**n <= MOST_EXACT
    if exact:
        flipped = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        flipped = _generator(rng, f"{n} signs").integers(0, 2, size=(draws, n), dtype=np.uint8)
    some = flipped.any(axis=1)
    moved = flipped[some].astype(np.float64)
    return Arrangements(
        weights=np.full(n, 1.0 / size.sum()),
        rows=moved / (moved @ size)[:, None],
        always=int((~some).sum()) + (not exact),
        exact=exact,
        method=f"sign flips of {n} paired differences",
    )


def _arranged(w: FloatArray, v: FloatArray, shape: FloatArray, exact: bool, method: str) -> Arrangements:
    """Rows (w - v) / (1 - v . shape); the observed arrangement and its copies have v . shape = 1."""
    left = 1.0 - v @ shape
    moved = left > 1e-9
    return Arrangements(
        weights=w,
        rows=(w - v[moved]) / left[moved, None],
        always=int((~moved).sum()) + (not exact),
        exact=exact,
        method=method,
    )


def _generator(rng: np.random.Generator | None, what: str) -> np.random.Generator:
    if rng is None:
        raise ValueError(
            f"{what} have more than {MOST_EXACT} arrangements; pass rng to draw a sample of them"
        )
    return rng


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; must lie between 0 and 1")
