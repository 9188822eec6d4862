"""One difference a training seed: its t interval, ranks among controls, bootstrap, and the seeds it needs.

The seed is the unit: one seed's networks answer all its items, so 4,000 items are not 4,000 observations.
Signs are flipped by `stats.language_tests`; `stats.equivalence` tests equivalence.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from scipy import special

from stats.aligned_bootstrap import Interval
from stats.power import chance_null_equivalent, minimum_detectable_effect
from stats.rows import FloatArray, IntArray

MOST_SEEDS = 10_000
"""A question that needs more seeds than this counts as not to be settled by seeds."""
SAME = 1e-12
"""Differences of seeds closer than this, relative to the values subtracted, do not vary (rounding)."""


@dataclass(frozen=True, kw_only=True)
class PairedT:
    """Mean of the seeds' differences, with Student's interval and test where they vary."""

    estimate: float
    low: float | None
    high: float | None
    sd: float | None
    """Of the differences (n - 1), None with one seed."""
    statistic: float | None
    df: int
    p: float | None
    """Two-sided, against 0."""
    n: int
    """Seeds."""
    reason: str | None = None
    """Why there is no interval."""
    method: str = "paired t over seeds"

    @property
    def se(self) -> float | None:
        """Standard error of the mean, None where nothing varies."""
        return None if self.reason or self.sd is None else self.sd / math.sqrt(self.n)


@dataclass(frozen=True, kw_only=True)
class RankTest:
    """Place of the treatment among its controls, over seeds."""

    estimate: float
    """Mean over seeds of the rank as a share: 0 below all controls, 1 above all, 1/2 by chance."""
    ranks: tuple[float, ...]
    """Of the treatment in each seed, 1 the lowest, mid-ranks for ties."""
    p: float
    """Two-sided, exact."""
    smallest_p: float
    """That these numbers of seeds and controls can reach without ties."""
    n: int
    """Seeds."""
    method: str = "sum of within-seed ranks, exact"


def paired_t(treatment: FloatArray, control: FloatArray, *, alpha: float = 0.05) -> PairedT:
    """Student's t on the differences of seeds: mean +- t(1 - alpha/2, n - 1) sd / sqrt(n).

    Parameters
    ----------
    treatment, control : (S,) float arrays
        One number a seed, e.g. the accuracy.

    Raises
    ------
    ValueError
        No seed, unequal numbers of seeds, a value that is not finite.

    References
    ----------
    Witness: R's `t.test(paired = TRUE)` (`tests/reference/rank_placement.R`).

    Examples
    --------
    >>> found = paired_t(np.array([0.72, 0.75, 0.71, 0.74]), np.array([0.70, 0.71, 0.70, 0.71]))
    >>> round(found.estimate, 4), round(found.low, 4), round(found.high, 4), round(found.p, 4)
    (0.025, 0.0045, 0.0455, 0.0305)
    >>> paired_t(np.array([0.72]), np.array([0.70])).reason
    '1 seed; an interval over seeds needs two or more'
    """
    y, x = np.asarray(treatment, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if y.ndim != 1 or y.shape != x.shape or not len(y):
        raise ValueError(f"shapes {y.shape} and {x.shape}; pass one number a seed for each side")
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise ValueError(f"values {y.tolist()} and {x.tolist()} are not all finite; leave such a seed out")
    d, n = y - x, len(y)
    mean = float(d.mean())
    sd = float(d.std(ddof=1)) if n > 1 else None
    reason = "1 seed; an interval over seeds needs two or more" if sd is None else None
    if sd == 0.0 or (sd and np.ptp(d) <= SAME * max(float(np.abs(y).max()), float(np.abs(x).max()))):
        sd, reason = 0.0, f"the differences of {n} seeds do not vary"
    if sd is None or reason is not None:
        return PairedT(
            estimate=mean, low=None, high=None, sd=sd, statistic=None, df=n - 1, p=None, n=n, reason=reason
        )
    t, df = mean / (sd / math.sqrt(n)), n - 1
    half = -float(special.stdtrit(df, alpha / 2.0)) * sd / math.sqrt(n)
    p = 2.0 * float(special.stdtr(df, -abs(t)))
    return PairedT(estimate=mean, low=mean - half, high=mean + half, sd=sd, statistic=t, df=df, p=p, n=n)


def pooled_d(treatment: FloatArray, control: FloatArray) -> float | None:
    """Cohen's d of two arms as if unpaired: mean difference / sqrt((var + var) / 2), variances over seeds.

    None with one seed, or where neither arm varies. d_z, which the tests rest on, divides by the SD of the
    differences; the two agree only where the arms' seeds correlate at .5.

    References
    ----------
    Cohen (1988), Statistical Power Analysis for the Behavioral Sciences, 2.2.

    Examples
    --------
    >>> round(pooled_d(np.array([0.72, 0.75, 0.71, 0.74]), np.array([0.70, 0.71, 0.70, 0.71])), 3)
    1.846
    """
    y, x = np.asarray(treatment, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if len(y) < 2:
        return None
    sd = math.sqrt((float(y.var(ddof=1)) + float(x.var(ddof=1))) / 2.0)
    largest = max(float(np.abs(y).max()), float(np.abs(x).max()))
    return float((y - x).mean()) / sd if sd > SAME * largest else None


def within_seed_rank(treatment: FloatArray, controls: Sequence[FloatArray] | FloatArray) -> RankTest:
    """Does the treatment stand higher among its controls than one of them would by chance?

    Under the null the treatment of seed s is exchangeable with its K_s controls, so its rank is uniform on
    the K_s + 1 mid-ranks of that seed, ties as they are. The null distribution of the sum over seeds is the
    convolution of these; p is the share of it at least as far from its centre, sum of (K_s + 2) / 2, as seen.

    Parameters
    ----------
    treatment : (S,) float array
    controls : S arrays of (K_s,) floats, or an (S, K) array
        K_s >= 1; the numbers of controls may differ.

    References
    ----------
    van Elteren (1960), Bull. Int. Stat. Inst. 37, 351, for one treated unit a stratum. Witness: R, all
    arrangements by `expand.grid` (`tests/reference/rank_placement.R`).

    Examples
    --------
    The best of five in each of three seeds:

    >>> found = within_seed_rank(np.array([9.0, 9.0, 9.0]), np.array([[1.0, 2.0, 3.0, 4.0]] * 3))
    >>> found.estimate, found.p, found.ranks  # p = 2 / 5^3
    (1.0, 0.016, (5.0, 5.0, 5.0))
    """
    if len(treatment) != len(controls) or not len(treatment):
        raise ValueError(f"{len(treatment)} treated and {len(controls)} seeds of controls; pass one a seed")
    ranks, ways, total, share = [], np.ones(1), 1.0, 0.0
    for own, others in zip(treatment, controls, strict=True):
        values = np.append(np.asarray(others, dtype=np.float64), own)
        if len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"{values.tolist()}; a seed needs finite values and one control or more")
        twice = np.rint(2.0 * scipy.stats.rankdata(values)).astype(np.int64)  # mid-ranks are halves
        ranks.append(float(twice[-1]) / 2.0)
        share += (ranks[-1] - 1.0) / (len(values) - 1)
        ways = np.convolve(ways, np.bincount(twice))
        total *= len(values)
    centre = sum((len(others) + 2) for others in controls)  # of the sum of doubled ranks
    away = np.abs(np.arange(len(ways)) - centre)
    reached = float(ways[away >= abs(2.0 * sum(ranks) - centre) - 0.25].sum())
    return RankTest(
        estimate=share / len(ranks),
        ranks=tuple(ranks),
        p=reached / total,
        smallest_p=min(1.0, 2.0 / total),
        n=len(ranks),
    )


def hierarchical_bootstrap(
    differences: FloatArray,
    *,
    rng: np.random.Generator,
    alpha: float = 0.05,
    resamples: int = 2_000,
    same_items: bool = True,
) -> Interval:
    """Percentile interval of the mean difference when seeds and then items are drawn with replacement.

    The items of a draw serve every arm of a seed, so what arms have in common about an item cancels. With
    `same_items`, seeds are evaluated on the same items and one draw of items serves all seeds too (crossed;
    Owen 2007); otherwise each drawn seed draws items of its own (nested).

    It is shown beside the t interval and decides nothing: percentiles over S seeds are too short by
    sqrt((S - 1) / S) and by normal instead of t quantiles, while item noise, already in the seeds'
    differences, enters a second time. Which wins depends on the data: of 1,000 simulated studies with 1,000
    items the nominal .95 covered .97 at three seeds and .98 at eight with shared items, .95 and .95 without
    (`tests/rank_campaign.py`).

    Parameters
    ----------
    differences : (S, I) float array
        Treatment minus control, one number a seed and item.

    References
    ----------
    Davison & Hinkley (1997), Bootstrap Methods and their Application, 3.8; Owen (2007), Ann. Appl. Stat. 1,
    386.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> d = 0.1 + 0.02 * rng.normal(size=(8, 1)) + 0.3 * rng.normal(size=(8, 500))
    >>> found = hierarchical_bootstrap(d, rng=rng)
    >>> round(found.estimate, 3), round(found.low, 3), round(found.high, 3)
    (0.102, 0.081, 0.123)
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2 or not d.size or not np.isfinite(d).all():
        raise ValueError(f"differences of shape {d.shape}; pass finite numbers, seeds by items")
    S, items = d.shape
    method = f"hierarchical bootstrap of {S} seeds and {items} {'shared ' if same_items else ''}items"
    estimate = float(d.mean())
    if S < 2 or resamples < 1:
        why = "1 seed; seeds cannot be resampled" if S < 2 else "no resamples asked for"
        return Interval(estimate=estimate, low=None, high=None, n=S, method=method, reason=why)
    drawn = np.empty(resamples)
    for r, seeds in enumerate(rng.integers(S, size=(resamples, S))):
        if same_items:
            drawn[r] = d[seeds].mean(axis=0)[rng.integers(items, size=items)].mean()
        else:
            drawn[r] = d[seeds[:, None], rng.integers(items, size=(S, items))].mean()
    low, high = np.quantile(drawn, [alpha / 2.0, 1.0 - alpha / 2.0])
    return Interval(estimate=estimate, low=float(low), high=float(high), n=S, method=method)


def least_seeds(*, alpha: float = 0.05, tests: int = 1) -> int:
    """Fewest seeds with which sign flips can reject after Holm over `tests`: tests 2^(1 - S) <= alpha.

    Examples
    --------
    >>> least_seeds(), least_seeds(tests=6)
    (6, 8)
    """
    _check(alpha, tests)
    return next(n for n in range(1, 1_100) if tests * 2.0 ** (1 - n) <= alpha)


def detectable(sd: float, seeds: int, *, alpha: float = 0.05) -> float:
    """Smallest difference that a two-sided t test over `seeds` finds with power .8, by the noncentral t.

    In units of `sd`, the SD of the seeds' differences, this is the detectable d_z. Sign flips of fewer than
    `least_seeds` cannot reject whatever the difference.

    References
    ----------
    Witness: R's `power.t.test(type = "one.sample", strict = TRUE)`.

    Examples
    --------
    >>> [round(detectable(1.0, n), 2) for n in (3, 6, 8)]
    [3.26, 1.43, 1.16]
    """
    if seeds < 2 or not sd > 0.0:
        raise ValueError(f"{seeds} seeds with sd {sd}; power needs two seeds or more that differ")
    return minimum_detectable_effect(sd / math.sqrt(seeds), seeds - 1, alpha)


def detectable_after_holm(sd: float, seeds: int, *, alpha: float = 0.05, tests: int = 1) -> float | None:
    """The same for sign flips at Holm's first step, alpha / tests; None where they cannot reject.

    Where only the two arrangements with all signs alike reject, power is Phi(d)^S + Phi(-d)^S and the answer
    the larger of this and the t test's. With more arrangements it is the t test's, at which flips of 7 to 12
    seeds have power .72 to .79 (`tests/test_rank_simulation.py`).

    Examples
    --------
    Eight seeds, six contrasts: all signs must agree, which asks for more than the t test at .05 / 6.

    >>> round(detectable_after_holm(1.0, 8, tests=6), 2), round(detectable(1.0, 8, alpha=0.05 / 6), 2)
    (1.92, 1.65)
    >>> detectable_after_holm(1.0, 3) is None
    True
    """
    _check(alpha, tests)
    if seeds < least_seeds(alpha=alpha, tests=tests):
        return None
    by_t = detectable(sd, seeds, alpha=alpha / tests)
    if tests * 2.0 ** (2 - seeds) <= alpha:  # two arrangements in each tail reject as well
        return by_t
    return max(by_t, sd * float(special.ndtri(0.8 ** (1.0 / seeds))))


def seeds_to_settle(sd: float, *, margin: float, alpha: float = 0.05, tests: int = 1) -> int | None:
    """Fewest seeds with which a difference of `margin` is DETECTED and none is EQUIVALENT, each at power .8.

    DETECTED as in `detectable_after_holm`; EQUIVALENT by two one-sided t tests at alpha.

    Parameters
    ----------
    sd : float
        SD of the seeds' differences, above 0.
    margin : float
        Smallest effect of interest, in the same unit.

    Returns
    -------
    int or None
        None beyond MOST_SEEDS.

    Examples
    --------
    >>> seeds_to_settle(0.02, margin=0.01), seeds_to_settle(0.02, margin=0.01, tests=6)
    (36, 52)
    >>> seeds_to_settle(0.02, margin=1e-5) is None
    True
    """
    _check(alpha, tests)
    if not (sd > 0.0 and margin > 0.0):
        raise ValueError(f"sd {sd}, margin {margin}; each must be above 0")

    def enough(n: int) -> bool:
        found = detectable_after_holm(sd, n, alpha=alpha, tests=tests)
        if found is None or found > margin:
            return False
        return chance_null_equivalent(sd / math.sqrt(n), margin, n - 1, alpha, groups=2, metrics=1) >= 0.8

    counts = range(least_seeds(alpha=alpha, tests=tests), MOST_SEEDS + 1)
    if not enough(MOST_SEEDS):
        return None
    return counts[bisect_left(counts, True, key=enough)]


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Items on which two networks disagree."""

    only_first: int
    """Items right under the first network only."""
    only_second: int
    p: float
    """Two-sided, exact binomial of the disagreements at 1/2."""
    n: int
    """Items."""
    method: str = "McNemar, exact"


def mcnemar(first: FloatArray | IntArray, second: FloatArray | IntArray) -> McNemar:
    """Exact McNemar test on paired right (1) or wrong (0) answers: min(1, 2 P(B <= min)), B ~ (b + c, 1/2).

    It compares two trained networks, not two ways of training: other seeds differ by more.

    References
    ----------
    McNemar (1947), Psychometrika 12, 153. Witness: R's `binom.test` on the disagreements.

    Examples
    --------
    >>> found = mcnemar(np.array([1, 1, 1, 1, 1, 1, 0, 1]), np.array([0, 0, 0, 0, 0, 0, 1, 1]))
    >>> found.only_first, found.only_second, found.p
    (6, 1, 0.125)
    """
    x, y = np.asarray(first), np.asarray(second)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"shapes {x.shape} and {y.shape}; pass one answer an item for each network")
    if not (np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        raise ValueError("answers other than 0 and 1; McNemar's test counts right and wrong ones")
    b, c = int((x > y).sum()), int((x < y).sum())
    p = min(1.0, 2.0 * float(special.bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0
    return McNemar(only_first=b, only_second=c, p=p, n=len(x))


def _check(alpha: float, tests: int) -> None:
    if not 0.0 < alpha < 1.0 or tests < 1:
        raise ValueError(f"alpha {alpha}, {tests} tests; alpha lies between 0 and 1, tests from 1 on")
