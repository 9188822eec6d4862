"""Elementary tests of 32-bit seeds against the uniform distribution with known parameters, one function each.

A seed s becomes u = (s + 1/2) / 2^32, in (0, 1). Nothing is estimated from the data, so the tables for known
parameters apply (Lilliefors' do not). Every function returns a `Statistic` or raises `ValueError`; which of
them enter a verdict is decided in `stats.seed_distribution`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from scipy import special

from stats.rows import FloatArray, IntArray

SEED_BITS = 32
EXACT_TWO_SAMPLE = 2000
"""Up to this many draws a source the two-sample KS p is exact; beyond, Kolmogorov's limit."""


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A statistic with its p value; `estimate` is the quantity that has a meaning of its own."""

    estimate: float
    statistic: float
    p: float
    n: int
    df: float | None = None


def unit_interval(seed32: IntArray) -> FloatArray:
    """Seeds as numbers in (0, 1): (s + 1/2) / 2^32.

    >>> unit_interval(np.array([0, 2**31])).tolist()
    [1.1641532182693481e-10, 0.5000000001164153]
    """
    seeds = np.asarray(seed32)
    if seeds.ndim != 1 or not np.issubdtype(seeds.dtype, np.integer):
        raise ValueError(f"seeds of shape {seeds.shape} and type {seeds.dtype}; pass one row of integers")
    if len(seeds) and not (int(seeds.min()) >= 0 and int(seeds.max()) < 1 << SEED_BITS):
        raise ValueError(f"seeds from {seeds.min()} to {seeds.max()}; allowed: 0 to {(1 << SEED_BITS) - 1}")
    return (seeds.astype(np.float64) + 0.5) / float(1 << SEED_BITS)


def ks_uniform(u: FloatArray) -> Statistic:
    """Kolmogorov-Smirnov distance from U(0, 1), p of its exact distribution to 5 digits or more.

    SciPy's `kstwo`: Simard and L'Ecuyer (2011), J. Stat. Softw. 39(11).

    >>> result = ks_uniform(np.array([0.1, 0.4, 0.7]))
    >>> round(result.estimate, 6), round(result.p, 6)
    (0.3, 0.886222)
    """
    n = len(u)
    ordered = np.sort(u)
    rank = np.arange(n)
    distance = float(max((ordered - rank / n).max(), ((rank + 1) / n - ordered).max()))
    return Statistic(estimate=distance, statistic=distance, p=float(scipy.stats.kstwo.sf(distance, n)), n=n)


def anderson_darling_uniform(u: FloatArray) -> Statistic:
    """Anderson-Darling A^2 against U(0, 1), known parameters.

    A^2 = -n - (1/n) sum (2i - 1) (ln u_(i) + ln(1 - u_(n+1-i))). The p value is Marsaglia and Marsaglia's
    (2004, J. Stat. Softw. 9(2)) limit with their correction for n, and beyond A^2 of about 7 the leading term
    of the tail. R's goftest::ad.test, the witness, lacks that term. The correction leaves p at 0.0006 / n
    where it should vanish.

    >>> result = anderson_darling_uniform(np.array([0.1, 0.4, 0.7]))
    >>> round(result.statistic, 6), round(result.p, 4)
    (0.366028, 0.876)
    """
    n = len(u)
    ordered = np.sort(u)
    weights = 2 * np.arange(1, n + 1) - 1
    logs = np.log(ordered) + np.log1p(-ordered[::-1])
    squared = -n - float((weights * logs).sum()) / n
    return Statistic(estimate=squared, statistic=squared, p=anderson_darling_p(squared, n), n=n)


def anderson_darling_p(squared: float, n: int) -> float:
    """Upper tail probability of A^2 for n draws: 1 - (limit + correction), kept in [0, 1].

    >>> round(anderson_darling_p(2.492, 10_000), 3), round(anderson_darling_p(3.857, 10_000), 3)
    (0.05, 0.01)
    """
    tail = _limit_tail(squared)
    return min(1.0, max(0.0, tail - _finite_n(1 - tail, n)))


def _limit_tail(z: float) -> float:
    """1 - P(A^2 < z) for n to infinity (Marsaglia and Marsaglia's adinf)."""
    if z <= 0:
        return 1.0
    if z < 2:
        series = (2.00012, 0.247105, -0.0649821, 0.0347962, -0.011672, 0.00168691)
        return 1 - math.exp(-1.2337141 / z) / math.sqrt(z) * _horner(series, z)
    series = (1.0776, -2.30695, 0.43424, -0.082433, 0.008056, -0.0003146)
    fitted = -math.expm1(-math.exp(_horner(series, z))) if z < 32 else 0.0
    # A^2 is sum_j chi2_1 / (j (j + 1)) in the limit, and only j = 1 counts far out. The fitted curve falls
    # too fast there: 3e-20 in place of 8e-8 at z = 15.
    far = math.sqrt(3) * 2 * float(special.ndtr(-math.sqrt(2 * z)))
    return max(fitted, far)


def _finite_n(x: float, n: int) -> float:
    """Marsaglia and Marsaglia's errfix: what to add to the limit x for n draws."""
    if x > 0.8:
        return _horner((-130.2137, 745.2337, -1705.091, 1950.646, -1116.360, 255.7844), x) / n
    edge = 0.01265 + 0.1757 / n
    if x < edge:
        t = x / edge
        return math.sqrt(t) * (1 - t) * (49 * t - 102) * (0.0037 / n**2 + 0.00078 / n + 0.00006) / n
    t = (x - edge) / (0.8 - edge)
    shape = _horner((-0.00022633, 6.54034, -14.6538, 14.458, -8.259, 1.91864), t)
    return shape * (0.04213 + 0.01365 / n) / n


def _horner(coefficients: tuple[float, ...], x: float) -> float:
    """Polynomial with the lowest power first."""
    total = 0.0
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def chi_square_uniform(u: FloatArray, bins: int) -> Statistic:
    """Pearson's chi-square over equal bins of (0, 1), df = bins - 1.

    The approximation holds for equal bins from n >= 10 and n^2 / bins >= 10 (Koehler and Larntz 1980); fewer
    draws are refused.

    >>> result = chi_square_uniform((np.arange(64) % 48 + 0.5) / 48, bins=16)
    >>> result.statistic, result.df, round(result.p, 6)
    (7.5, 15.0, 0.942263)
    """
    n = len(u)
    if n < 10 or n * n < 10 * bins:
        raise ValueError(f"{n} draws in {bins} bins; the chi-square approximation needs n^2 / bins >= 10")
    counts = np.bincount((u * bins).astype(np.int64), minlength=bins)
    statistic = float(((counts - n / bins) ** 2).sum() * bins / n)
    p = float(special.chdtrc(bins - 1, statistic))
    return Statistic(estimate=statistic, statistic=statistic, p=p, n=n, df=float(bins - 1))


def autocorrelation(u: FloatArray, lag: int) -> Statistic:
    """Serial correlation at `lag` with the known mean 1/2 and variance 1/12.

    r = 12 sum (u_t - 1/2)(u_(t+lag) - 1/2) / (n - lag); under independence the terms are uncorrelated, so
    z = r sqrt(n - lag) is standard normal in the limit. Two-sided.

    >>> result = autocorrelation(np.array([0.25, 0.75] * 32), lag=1)
    >>> result.estimate, round(result.statistic, 3)
    (-0.75, -5.953)
    """
    pairs = len(u) - lag
    if lag < 1 or pairs < 2:
        raise ValueError(f"lag {lag} with {len(u)} draws; allowed: 1 to {len(u) - 2}")
    centred = u - 0.5
    r = 12 * float(centred[:-lag] @ centred[lag:]) / pairs
    z = r * math.sqrt(pairs)
    return Statistic(estimate=r, statistic=z, p=_two_sided(z), n=pairs)


def runs_about_half(u: FloatArray) -> Statistic:
    """Wald-Wolfowitz runs above and below 1/2, conditional on how many lie on each side; two-sided normal.

    With n1, n2 on the sides: mean 1 + 2 n1 n2 / n, variance 2 n1 n2 (2 n1 n2 - n) / (n^2 (n - 1)).

    >>> result = runs_about_half(np.array([0.1, 0.9] * 10))
    >>> result.estimate, round(result.statistic, 4)
    (20.0, 4.1352)
    """
    above = u > 0.5
    n, upper = len(u), int(above.sum())
    if upper in (0, n) or n < 2:
        raise ValueError(f"{upper} of {n} draws above 1/2; runs need draws on both sides")
    product = 2 * upper * (n - upper)
    variance = product * (product - n) / (n * n * (n - 1))
    if variance <= 0:
        raise ValueError(f"{n} draws allow one number of runs only; runs need more draws")
    runs = 1 + int(np.count_nonzero(above[1:] != above[:-1]))
    z = (runs - 1 - product / n) / math.sqrt(variance)
    return Statistic(estimate=float(runs), statistic=z, p=_two_sided(z), n=n)


def _two_sided(z: float) -> float:
    return min(1.0, 2 * float(special.ndtr(-abs(z))))


def bit_shares(seed32: IntArray) -> tuple[FloatArray, FloatArray]:
    """Share of ones in each of the 32 bits, lowest bit first, and the exact two-sided binomial p of each.

    >>> shares, p = bit_shares(np.array([3, 1, 1, 1, 1, 1]))
    >>> shares[:3].tolist(), p[:3].tolist()
    ([1.0, 0.16666666666666666, 0.0], [0.03125, 0.21875, 0.03125])
    """
    unit_interval(seed32)  # refuses what is no seed
    n = len(seed32)
    ones = ((np.asarray(seed32)[:, None] >> np.arange(SEED_BITS)) & 1).sum(axis=0)
    fewer = np.minimum(ones, n - ones)
    p = np.minimum(1.0, 2 * scipy.stats.binom.cdf(fewer, n, 0.5))
    return ones / n, p.astype(np.float64)


def ks_two_sample(left: FloatArray, right: FloatArray) -> Statistic:
    """Largest difference of two empirical distribution functions, two-sided.

    Exact p up to 2,000 draws each without ties, Kolmogorov's limit beyond (SciPy's `ks_2samp`).

    >>> result = ks_two_sample(np.array([0.1, 0.2, 0.3]), np.array([0.15, 0.6, 0.7, 0.8]))
    >>> result.estimate, round(result.p, 6)
    (0.75, 0.228571)
    """
    exact = max(len(left), len(right)) <= EXACT_TWO_SAMPLE
    found = scipy.stats.ks_2samp(left, right, method="exact" if exact else "asymp")
    distance = float(found.statistic)
    return Statistic(estimate=distance, statistic=distance, p=float(found.pvalue), n=len(left) + len(right))


def ks_upper_bound(distance: float, n_left: int, n_right: int, alpha: float) -> float:
    """Upper confidence bound, level 1 - alpha, on the distance of the two distributions themselves.

    D + sqrt(ln(1 / alpha) (1/n + 1/m) / 2). Where the true difference F - G is largest it has one sign and
    one place t, neither of them random; there the empirical difference falls short of the true one by more
    than e with probability at most exp(-2 e^2 / (1/n + 1/m)) (Hoeffding 1963), and D is no smaller. Valid in
    every sample; shorter than two DKW bands, which cover all places at once.

    >>> round(ks_upper_bound(0.0, 1500, 1500, 0.05), 4), round(ks_upper_bound(0.012, 8192, 8192, 0.05), 4)
    (0.0447, 0.0311)
    """
    if not 0.0 < alpha < 1.0 or min(n_left, n_right) < 1:
        raise ValueError(
            f"alpha {alpha} with {n_left} and {n_right} draws; allowed: 0 < alpha < 1, draws >= 1"
        )
    return min(1.0, distance + math.sqrt(-math.log(alpha) * (1 / n_left + 1 / n_right) / 2))


def total_variation_from_uniform(kind: str, dose: float | None = None) -> float:
    """Theoretical total variation between one 32-bit seed of a declared source and the uniform one.

    0 for `prng`, `trng`, `hmix`, `pcg64`, `philox`, `tiled` and `lag1` by stated assumption: their single
    seed is uniform (a PRNG's over its streams), whatever successive seeds do to each other. 1 - k / 2^32 for
    k equally likely values: `constant` 1, `short_range` 1001, `quantised8` 256. `biased_bits` with
    P(1) = 1/2 + dose, bits independent: half of sum over k ones of C(32, k) |p^k q^(32-k) - 2^-32|.

    >>> total_variation_from_uniform("trng"), total_variation_from_uniform("biased_bits", 0.0)
    (0.0, 0.0)
    >>> round(total_variation_from_uniform("biased_bits", 0.05), 4)
    0.2236
    >>> 1 - total_variation_from_uniform("short_range") == 1001 / 2**32
    True
    """
    support = {"constant": 1, "short_range": 1001, "quantised8": 256}
    if kind in ("prng", "trng", "hmix", "pcg64", "philox", "tiled", "lag1"):
        return 0.0
    if kind in support:
        return 1 - support[kind] / float(1 << SEED_BITS)
    if kind != "biased_bits":
        raise ValueError(f"no theoretical distribution is declared for source {kind!r}")
    if dose is None or not 0.0 <= dose <= 0.5:
        raise ValueError(f"biased_bits with dose {dose}; allowed: 0 to 0.5")
    uniform = 2.0**-SEED_BITS
    terms = [
        math.comb(SEED_BITS, k) * abs(math.pow(0.5 + dose, k) * math.pow(0.5 - dose, SEED_BITS - k) - uniform)
        for k in range(SEED_BITS + 1)
    ]
    return math.fsum(terms) / 2
