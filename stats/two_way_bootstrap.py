"""Mean over seeds and lemmas that are crossed: a studentised two-way bootstrap, its interval and its p.

Every seed's network answers the same items, and items come in lemmas: seeds x items are no independent
answers. Seeds and lemmas are drawn with replacement, independently (the pigeonhole bootstrap); items stay
with their lemma. As every seed is asked the same items, all replicates come from two count matrices,
(1 + R, S) of seeds and (1 + R, L) of lemmas, whose row 0 is the data.

Plain percentiles of these draws do not keep their level. The draws' variance is
(S-1)/S seeds + (L-1)/L lemmas + 3 rest where the mean's is seeds + lemmas + rest (Owen 2007): too short
where seeds vary and too long where nothing but noise does. So each draw is studentised,
t* = (m* - m) / se*, by the standard error of the two-way table of that very draw, which carries the same
excess, and m / se is referred to the t*. p <= alpha exactly when the interval excludes the null.

The draws vary more in their seeds and lemmas than the mean does, so t* has lighter tails than t: where seeds
vary little beside the noise, the studentised draws alone reject .059 at .05 and .025 at .05 / 3, and .13 with
three seeds. So Student's t with Satterthwaite's degrees of freedom is asked too; on each side the larger p
counts, and the interval is the wider at each end. What that rejects of studies without an effect, and what
percentiles do, is in `tests/two_way_campaign.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from stats.rows import FloatArray, IntArray

RESAMPLES = 2_000
"""Fewest resamples; the smallest two-sided p is then 2 / 2,001."""
FEWEST_SEEDS = 3
FEWEST_LEMMAS = 5
SAME = 1e-12
"""Standard errors below this, relative to the values, are rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossed:
    """Values summed within lemmas; every seed was asked the same items."""

    totals: FloatArray
    """(S, L) sum over the items of a lemma."""
    sizes: FloatArray
    """(L,) what the sums are divided by, alike in every seed: items, or steps."""
    scale: float
    """Largest absolute value, to tell rounding from variation."""

    @property
    def seeds(self) -> int:
        return int(self.totals.shape[0])

    @property
    def lemmas(self) -> int:
        return int(self.totals.shape[1])


@dataclass(frozen=True, kw_only=True)
class MeanSquares:
    """Of the two-way table seeds x lemmas of one data set, and what follows from them."""

    seeds: float
    """L var(seed means), S - 1 df."""
    lemmas: float
    """S var(lemma means), L - 1 df."""
    rest: float
    """(S - 1)(L - 1) df."""
    S: int
    L: int

    @property
    def variance(self) -> float:
        """Of the mean over both: (MS_seeds + MS_lemmas - MS_rest) / (S L), at least the larger of the two.

        The expected mean square of either is at least that of the rest, so the bound only removes noise.
        """
        return max(self.seeds + self.lemmas - self.rest, self.seeds, self.lemmas) / (self.S * self.L)

    @property
    def df(self) -> float:
        """Satterthwaite's, of `variance`; of the larger mean square alone where that bounds it."""
        total = self.seeds + self.lemmas - self.rest
        if total <= max(self.seeds, self.lemmas):
            return float(self.S - 1 if self.seeds >= self.lemmas else self.L - 1)
        a, b = self.seeds**2 / (self.S - 1), self.lemmas**2 / (self.L - 1)
        return total**2 / (a + b + self.rest**2 / ((self.S - 1) * (self.L - 1)))

    @property
    def components(self) -> tuple[float, float, float]:
        """Variances of seeds, of lemmas (each at least 0) and of the rest, in squared units of the values."""
        return (
            max(0.0, (self.seeds - self.rest) / self.L),
            max(0.0, (self.lemmas - self.rest) / self.S),
            max(0.0, self.rest),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoWay:
    """A mean over seeds and lemmas with all that its draws answer."""

    estimate: float
    """Total over all items and seeds per item and seed."""
    se: float | None
    """Standard error over seeds and lemmas; None with a reason."""
    squares: MeanSquares | None
    studentised: FloatArray
    """(R,) sorted t*; empty where there is no se."""
    means: FloatArray
    """(R,) sorted m*, for plain percentiles."""
    seeds: int
    lemmas: int
    method: str
    reason: str | None = None
    """Why there is neither interval nor p."""

    @property
    def is_constant(self) -> bool:
        """Whether there were enough seeds and lemmas, and nothing varied over them."""
        enough = self.seeds >= FEWEST_SEEDS and self.lemmas >= FEWEST_LEMMAS
        return self.se is None and enough

    def p_greater(self, null: float = 0.0) -> float | None:
        """One-sided p of "at most null": small where the mean lies above it."""
        return None if self.se is None else self._tail((self.estimate - null) / self.se, 1.0)

    def p_less(self, null: float = 0.0) -> float | None:
        """One-sided p of "at least null"."""
        return None if self.se is None else self._tail((self.estimate - null) / self.se, -1.0)

    def p(self, null: float = 0.0) -> float | None:
        """Two-sided: twice the smaller one-sided p."""
        up, down = self.p_greater(null), self.p_less(null)
        return None if up is None or down is None else min(1.0, 2.0 * min(up, down))

    def interval(self, alpha: float = 0.05) -> tuple[float, float] | tuple[None, None]:
        """Ends at level 1 - alpha: m - t*(1 - alpha/2) se and m - t*(alpha/2) se, or Student's if wider.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> found = two_way(crossed(rng.normal(size=(10, 60)), range(60)), rng=rng)
        >>> low, high = found.interval()
        >>> low < found.estimate < high, found.p(low - 1e-6) <= 0.05, found.p(low + 1e-6) > 0.05
        (True, True, True)
        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha = {alpha}; must lie between 0 and 1")
        if self.se is None or self.squares is None:
            return None, None
        R, reach = len(self.studentised), -float(special.stdtrit(self.squares.df, alpha / 2.0))
        # t* that leave out exactly what the p values count: (b + 1) / (R + 1) <= alpha / 2
        b = max(0, math.floor(alpha / 2.0 * (R + 1) + 1e-9) - 1)
        up, down = max(float(self.studentised[R - 1 - b]), reach), min(float(self.studentised[b]), -reach)
        return self.estimate - up * self.se, self.estimate - down * self.se

    def percentiles(self, alpha: float = 0.05) -> tuple[float, float] | tuple[None, None]:
        """Plain percentiles of the draws. They do not keep their level (see above); shown, never decisive."""
        if not len(self.means):
            return None, None
        low, high = np.quantile(self.means, [alpha / 2.0, 1.0 - alpha / 2.0])
        return float(low), float(high)

    def _tail(self, t: float, side: float) -> float:
        """Larger of the shares beyond t, of the draws and of Student's t; side 1 is above, -1 below."""
        if self.squares is None:
            raise ValueError(f"no mean squares: {self.reason}")
        R = len(self.studentised)
        if side > 0:
            reached = R - int(np.searchsorted(self.studentised, t - 1e-12, side="left"))
        else:
            reached = int(np.searchsorted(self.studentised, t + 1e-12, side="right"))
        return max((reached + 1) / (R + 1), float(special.stdtr(self.squares.df, -side * t)))


def crossed(
    values: npt.ArrayLike, lemmas: Sequence[Any] | npt.NDArray[Any], *, sizes: npt.ArrayLike = 1.0
) -> Crossed:
    """Sum values over the items of each lemma.

    Parameters
    ----------
    values : (S, I) array
        One number a seed and item: right or wrong, a difference of two arms, or a count of right steps.
    lemmas : (I,) sequence
        Lemma of each item.
    sizes : (I,) array, optional
        What an item counts for, e.g. its steps; 1 each by default.

    Raises
    ------
    ValueError
        Shapes that do not fit, values that are not finite, sizes not above 0.

    Examples
    --------
    >>> found = crossed([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], ["bank", "bank", "bat"])
    >>> found.totals.tolist(), found.sizes.tolist()
    ([[1.0, 1.0], [2.0, 0.0]], [2.0, 1.0])
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or not x.size or x.shape[1] != len(lemmas):
        raise ValueError(
            f"values {x.shape} for {len(lemmas)} items; pass (seeds, items), one of each or more"
        )
    wrong = x.size - int(np.isfinite(x).sum())
    if wrong:
        raise ValueError(f"{wrong} of {x.size} values are not finite; an item not answered is wrong (0)")
    n = np.broadcast_to(np.asarray(sizes, dtype=np.float64), x.shape[1:])
    if not (np.isfinite(n).all() and (n > 0.0).all()):
        raise ValueError("sizes must be above 0 and finite; leave out items that count for nothing")
    code = np.unique(np.array([str(lemma) for lemma in lemmas]), return_inverse=True)[1].ravel()
    member = (code[:, None] == np.arange(int(code.max()) + 1)).astype(np.float64)  # (I, L)
    return Crossed(totals=x @ member, sizes=n @ member, scale=float(np.abs(x).max()))


def draw_counts(n: int, resamples: int, rng: np.random.Generator) -> FloatArray:
    """(1 + resamples, n) how often each of n units is drawn: once in row 0, the data.

    Examples
    --------
    >>> counts = draw_counts(4, 3, np.random.default_rng(0))
    >>> counts[0].tolist(), counts.sum(axis=1).tolist()
    ([1.0, 1.0, 1.0, 1.0], [4.0, 4.0, 4.0, 4.0])
    """
    place: IntArray = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    counts = np.bincount(place.ravel(), minlength=resamples * n).reshape(resamples, n)
    return np.vstack([np.ones((1, n)), counts.astype(np.float64)])


def mean_squares(table: Crossed, W: FloatArray, V: FloatArray) -> tuple[FloatArray, ...]:
    """Mean and the three mean squares of each weighted two-way table.

    With n_l the sizes, N = sum_l V n, m = sum W V T / (S N) and z_sl = (T_sl - n_l m) L / N: the usual sums
    of squares of z over the drawn rows and columns, so that unequal lemmas enter as in a ratio estimate.

    Parameters
    ----------
    W, V : (1 + R, S) and (1 + R, L) float arrays
        How often each seed and each lemma counts; rows sum to S and to L.

    Returns
    -------
    m, seeds, lemmas, rest : (1 + R,) float arrays

    References
    ----------
    Searle, Casella & McCulloch (1992), Variance Components, 4.7 (two-way crossed, one value a cell); Cochran
    (1977), Sampling Techniques, 6.3 (linearised ratio). Witness: R's `aov` (`tests/reference/two_way.R`).

    Examples
    --------
    >>> table = crossed([[1.0, 2.0], [3.0, 6.0]], ["a", "b"])
    >>> [float(x[0]) for x in mean_squares(table, np.ones((1, 2)), np.ones((1, 2)))]
    [3.0, 9.0, 4.0, 1.0]
    """
    T, n, (S, L) = table.totals, table.sizes, table.totals.shape
    N = V @ n
    of_seed = (V @ T.T) / N[:, None]
    m = (W * of_seed).sum(axis=1) / S
    of_lemma, k = W @ T, (L / N) ** 2
    seeds = L * (W * (of_seed - m[:, None]) ** 2).sum(axis=1) / (S - 1)
    lemmas = S * k * (V * (of_lemma / S - n * m[:, None]) ** 2).sum(axis=1) / (L - 1)
    total = (V * (W @ T**2)).sum(axis=1) - 2.0 * m * (V * n * of_lemma).sum(axis=1) + m**2 * S * (V @ n**2)
    rest = (k * total - (S - 1) * seeds - (L - 1) * lemmas) / ((S - 1) * (L - 1))
    return m, seeds, lemmas, np.maximum(rest, 0.0)


def two_way(table: Crossed, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> TwoWay:
    """Mean over seeds and lemmas, with its studentised two-way bootstrap.

    Parameters
    ----------
    table : Crossed
        Of one arm, or of the differences of two arms on the same items and seeds.
    resamples : int
        At least RESAMPLES.

    Returns
    -------
    TwoWay
        Without se, and with a reason, under FEWEST_SEEDS seeds or FEWEST_LEMMAS lemmas and where nothing
        varies.

    References
    ----------
    Owen (2007), Ann. Appl. Stat. 1, 386 (pigeonhole bootstrap); Hall (1992), The Bootstrap and Edgeworth
    Expansion, 3.5 (bootstrap-t); Satterthwaite (1946), Biometrics Bull. 2, 110. Witness:
    `tests/reference/two_way.R`.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> d = 0.1 + 0.02 * rng.normal(size=(10, 1)) + 0.3 * rng.normal(size=(1, 60)) + rng.normal(size=(10, 60))
    >>> found = two_way(crossed(d, range(60)), rng=rng)
    >>> round(found.estimate, 3), round(found.se, 3), [round(end, 3) for end in found.interval()]
    (0.027, 0.051, [-0.081, 0.135])
    >>> two_way(crossed(d[:2], range(60)), rng=rng).reason
    '2 seeds x 60 lemmas; a two-way interval needs at least 3 x 5'
    """
    if resamples < RESAMPLES:
        raise ValueError(f"{resamples} resamples; at least {RESAMPLES}")
    S, L = table.seeds, table.lemmas
    if S < FEWEST_SEEDS or L < FEWEST_LEMMAS:
        short = f"{S} seed{'' if S == 1 else 's'} x {L} lemma{'' if L == 1 else 's'}"
        return _without(table, f"{short}; a two-way interval needs at least {FEWEST_SEEDS} x {FEWEST_LEMMAS}")
    W, V = draw_counts(S, resamples, rng), draw_counts(L, resamples, rng)
    m, seeds, lemmas, rest = mean_squares(table, W, V)
    squares = MeanSquares(seeds=float(seeds[0]), lemmas=float(lemmas[0]), rest=float(rest[0]), S=S, L=L)
    se = math.sqrt(squares.variance)
    if se <= SAME * table.scale:
        return _without(table, f"nothing varies over {S} seeds and {L} lemmas")
    spread = np.sqrt(np.maximum(seeds + lemmas - rest, np.maximum(seeds, lemmas))[1:] / (S * L))
    told = spread > 1e-6 * se  # a draw in which nothing varies has no t; near a ceiling they are many
    t = (m[1:] - m[0])[told] / spread[told]
    return TwoWay(
        estimate=float(m[0]),
        se=se,
        squares=squares,
        studentised=np.sort(t),
        means=np.sort(m[1:]),
        seeds=S,
        lemmas=L,
        method=f"studentised two-way bootstrap and t, {S} seeds x {L} lemmas",
    )


def _without(table: Crossed, reason: str) -> TwoWay:
    none = np.empty(0)
    return TwoWay(
        estimate=float(table.totals.sum() / (table.seeds * table.sizes.sum())),
        se=None,
        squares=None,
        studentised=none,
        means=none,
        seeds=table.seeds,
        lemmas=table.lemmas,
        method=f"two-way bootstrap, {table.seeds} seeds x {table.lemmas} lemmas",
        reason=reason,
    )
