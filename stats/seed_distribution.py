"""Are the seeds what their sources claim, and do the sources differ: rows that end in one verdict.

Each source is held against the uniform distribution by eight components: Kolmogorov-Smirnov,
Anderson-Darling, chi-square at 16, 64 and 256 bins, autocorrelation at lags 1 to 10, runs, and the bias of
each of 32 bits. Their smallest p value, times the number of components that could be computed, is the
source's omnibus: Bonferroni, so it holds its level however dependent the components are. Sources are compared
in pairs. The verdict takes Holm over all omnibus and pair tests together.

What a difference between seeds could do at most to a metric is the data-processing bound, and that one uses
the *theoretical* distance of the declared distributions: a sample shows a distance, it bounds no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

from stats.multiplicity import correct_rows, holm
from stats.rows import FloatArray, IntArray, TestRow
from stats.uniformity import (
    Statistic,
    anderson_darling_uniform,
    autocorrelation,
    bit_shares,
    chi_square_uniform,
    ks_two_sample,
    ks_uniform,
    ks_upper_bound,
    runs_about_half,
    total_variation_from_uniform,
    unit_interval,
)

FAMILY = "seed_sources"
BINS = (16, 64, 256)
LAGS = tuple(range(1, 11))
MIN_DRAWS = 20
"""Fewer draws of any source make the verdict INVALID."""
SINGLE: tuple[tuple[str, str, Callable[[FloatArray], Statistic]], ...] = (
    ("ks", "Kolmogorov-Smirnov, exact", ks_uniform),
    ("anderson_darling", "Anderson-Darling, known parameters", anderson_darling_uniform),
    ("runs", "Wald-Wolfowitz runs about 1/2", runs_about_half),
)
KS_MARGIN = 0.05
"""EQUIVALENT needs every upper bound on the distance of two sources under this; about 3,600 draws each do."""


def seed_source_tests(seed32: IntArray, name: str) -> list[TestRow]:
    """All tests of one source against the uniform distribution on 32 bits.

    Parameters
    ----------
    seed32 : (draws,) integers in [0, 2^32)
        In the order drawn.
    name : str
        The source; written as `contrast`.

    Returns
    -------
    list of TestRow
        One `diagnostic` row a test (metric: its name; estimate: distance, correlation, share of ones or
        number of runs), Holm over the lags and over the bits in `p_adjusted`; last the `omnibus` row, which
        decides. A test that these draws do not allow keeps its row with the reason and leaves the omnibus.

    Examples
    --------
    >>> import numpy as np
    >>> seeds = np.random.default_rng(1).integers(0, 2**32, size=500)
    >>> rows = seed_source_tests(seeds, "PCG64")
    >>> rows[0].metric, rows[-1].hypothesis, len(rows)
    ('ks', 'omnibus', 49)
    >>> rows[-1].p > 0.05, seed_source_tests(seeds % 1001, "short")[-1].p < 1e-9
    (True, True)
    """
    u = unit_interval(seed32)
    if len(u) < MIN_DRAWS:
        return [_omnibus_row(name, len(u), (), 0, f"{len(u)} draws, under {MIN_DRAWS}")]
    rows = _single_rows(u, name)
    lags, bits = _autocorrelation_rows(u, name), _bit_rows(seed32, name)
    components = [row.p for row in rows if row.p is not None]
    undefined = len(rows) - len(components)
    components += [
        min(row.p_adjusted for row in group if row.p_adjusted is not None) for group in (lags, bits)
    ]
    return [*rows, *lags, *bits, _omnibus_row(name, len(u), components, undefined, None)]


def _row(
    metric: str, contrast: str, method: str, n: int, found: Statistic | str, adjusted: float | None = None
) -> TestRow:
    """A diagnostic row of one test, or of the reason why these draws do not allow it."""
    tested = found if isinstance(found, Statistic) else None
    return TestRow(
        family=FAMILY,
        hypothesis="uniformity",
        metric=metric,
        contrast=contrast,
        method=method,
        role="diagnostic",
        estimate=tested.estimate if tested else None,
        statistic=tested.statistic if tested else None,
        df1=tested.df if tested else None,
        p=tested.p if tested else None,
        p_adjusted=adjusted,
        n=n,
        reason=None if isinstance(found, Statistic) else found,
    )


def _attempt(test: Callable[[FloatArray], Statistic], u: FloatArray) -> Statistic | str:
    """The result, or the reason why these draws do not allow the test."""
    try:
        return test(u)
    except ValueError as error:
        return str(error)


def _single_rows(u: FloatArray, name: str) -> list[TestRow]:
    rows = [_row(metric, name, method, len(u), _attempt(test, u)) for metric, method, test in SINGLE]
    for bins in BINS:
        found = _attempt(partial(chi_square_uniform, bins=bins), u)
        rows.append(_row(f"chi_square_{bins}", name, "chi-square, equal bins", len(u), found))
    return rows


def _autocorrelation_rows(u: FloatArray, name: str) -> list[TestRow]:
    found = [autocorrelation(u, lag) for lag in LAGS]
    adjusted = holm([result.p for result in found])
    method = "autocorrelation, known mean and variance"
    return [
        _row(f"autocorrelation_lag_{lag}", name, method, result.n, result, p)
        for lag, result, p in zip(LAGS, found, adjusted, strict=True)
    ]


def _bit_rows(seed32: IntArray, name: str) -> list[TestRow]:
    shares, p_values = bit_shares(seed32)
    n = len(seed32)
    rows = []
    for bit, (share, p, adjusted) in enumerate(zip(shares, p_values, holm(p_values.tolist()), strict=True)):
        found = Statistic(estimate=float(share), statistic=float(round(share * n)), p=float(p), n=n)
        rows.append(_row(f"bit_{bit:02d}", name, "exact binomial share of ones", n, found, adjusted))
    return rows


def _omnibus_row(
    name: str, n: int, components: Sequence[float], undefined: int, reason: str | None
) -> TestRow:
    method = f"smallest p, Bonferroni over {len(components)} components"
    if undefined:
        method += f" ({undefined} undefined)"
    return TestRow(
        family=FAMILY,
        hypothesis="omnibus",
        metric="seed32",
        contrast=name,
        method=method,
        role="decides",
        p=None if reason else min(1.0, len(components) * min(components)),
        n=n,
        reason=reason,
    )


def compare_seed_sources(draws: Mapping[str, IntArray], *, alpha: float = 0.05) -> list[TestRow]:
    """Two-sample Kolmogorov-Smirnov of every pair of sources.

    Parameters
    ----------
    draws : mapping of str to (draws,) integers in [0, 2^32)
        Two sources or more.
    alpha : float
        The upper bound has level 1 - alpha.

    Returns
    -------
    list of TestRow
        A pair each; estimate: observed distance; high: upper confidence bound on the true one, one-sided
        (`stats.uniformity.ks_upper_bound`); margin: the bound to stay under.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> rows = compare_seed_sources({name: rng.integers(0, 2**32, size=8192) for name in ("A", "B", "C")})
    >>> [row.contrast for row in rows], all(row.high < row.margin for row in rows)
    (['A-B', 'A-C', 'B-C'], True)
    """
    if len(draws) < 2:
        raise ValueError(f"{len(draws)} source ({', '.join(draws)}); a comparison needs two or more")
    units = {name: unit_interval(seeds) for name, seeds in draws.items()}
    return [_pair_row(f"{a}-{b}", units[a], units[b], alpha) for a, b in combinations(draws, 2)]


def _pair_row(contrast: str, left: FloatArray, right: FloatArray, alpha: float) -> TestRow:
    few = min(len(left), len(right)) < MIN_DRAWS
    found = None if few else ks_two_sample(left, right)
    return TestRow(
        family=FAMILY,
        hypothesis="two_sample_ks",
        metric="seed32",
        contrast=contrast,
        method="two-sample Kolmogorov-Smirnov, Hoeffding upper bound",
        role="decides",
        estimate=found.estimate if found else None,
        high=ks_upper_bound(found.estimate, len(left), len(right), alpha) if found else None,
        statistic=found.statistic if found else None,
        p=found.p if found else None,
        alpha=alpha,
        margin=KS_MARGIN,
        n=len(left) + len(right),
        reason=None if found else f"{len(left)} and {len(right)} draws, under {MIN_DRAWS}",
    )


def seed_sources_verdict(draws: Mapping[str, IntArray], *, alpha: float = 0.05) -> list[TestRow]:
    """Every test of every source and pair, then the verdict.

    INVALID when a source has under 20 draws; DETECTED when Holm over all omnibus and pair tests rejects one;
    EQUIVALENT when every pair's upper bound lies under 0.05 (an intersection-union test, so no further
    correction); else INCONCLUSIVE.

    Parameters
    ----------
    draws : mapping of str to (draws,) integers in [0, 2^32)
        Two sources or more, in the order drawn.
    alpha : float
        Level of the family and of the bounds.

    Returns
    -------
    list of TestRow
        The rows of `seed_source_tests` and `compare_seed_sources` with `p_adjusted` over the deciding ones;
        the last row is the verdict.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(2)
    >>> fair = {name: rng.integers(0, 2**32, size=8192) for name in ("PRNG", "TRNG")}
    >>> seed_sources_verdict(fair)[-1].verdict
    'EQUIVALENT'
    >>> seed_sources_verdict(fair | {"SHORT": fair["PRNG"] % 1001})[-1].verdict
    'DETECTED'
    """
    pairs = compare_seed_sources(draws, alpha=alpha)
    rows = [row for name, seeds in draws.items() for row in seed_source_tests(seeds, name)] + pairs
    deciding = correct_rows([row for row in rows if row.role == "decides"], "holm").rows
    corrected = iter(deciding)
    rows = [replace(next(corrected), alpha=alpha) if row.role == "decides" else row for row in rows]
    undefined = [row for row in deciding if row.p is None]
    smallest = min((row.p_adjusted for row in deciding if row.p_adjusted is not None), default=None)
    largest = max((row.high for row in deciding if row.high is not None), default=None)
    if undefined:
        verdict = "INVALID"
    elif smallest is not None and smallest <= alpha:
        verdict = "DETECTED"
    else:
        verdict = "EQUIVALENT" if largest is not None and largest < KS_MARGIN else "INCONCLUSIVE"
    closing = TestRow(
        family=FAMILY,
        hypothesis="verdict",
        metric="seed32",
        method="Holm over sources and pairs; every upper bound on the distance under the margin",
        role="verdict",
        high=largest,
        p_adjusted=smallest,
        alpha=alpha,
        margin=KS_MARGIN,
        n=sum(len(seeds) for seeds in draws.values()),
        verdict=verdict,
        reason="; ".join(f"{row.contrast}: {row.reason}" for row in undefined) or None,
    )
    return [*rows, closing]


def data_processing_rows(
    kinds: Mapping[str, tuple[str, float | None]], ranges: Mapping[str, float]
) -> list[TestRow]:
    """Largest difference of means that the seeds could cause: |difference| <= R * TV.

    With text = f(seed), a metric of range R differs between two sources by at most R times the total
    variation of their seeds. The distance of two sources is at most the sum of theirs from the uniform, and
    at most 1.

    Parameters
    ----------
    kinds : mapping of str to (kind, dose)
        What each source is declared to be; see `stats.uniformity.total_variation_from_uniform`.
    ranges : mapping of str to float
        Largest minus smallest possible value of each metric, in its units.

    Returns
    -------
    list of TestRow
        A metric and pair each; estimate: the bound in the metric's units.

    Examples
    --------
    >>> kinds = {"PRNG": ("prng", None), "TRNG": ("trng", None), "BIASED": ("biased_bits", 0.05)}
    >>> rows = data_processing_rows(kinds, {"distinct_2": 1.0})
    >>> [(row.contrast, round(row.estimate, 3)) for row in rows]
    [('PRNG-TRNG', 0.0), ('PRNG-BIASED', 0.224), ('TRNG-BIASED', 0.224)]
    """
    rows = []
    for a, b in combinations(kinds, 2):
        found, reason = None, None
        try:
            found = min(
                1.0, total_variation_from_uniform(*kinds[a]) + total_variation_from_uniform(*kinds[b])
            )
        except ValueError as error:
            reason = str(error)
        for metric, size in ranges.items():
            rows.append(
                TestRow(
                    family="data_processing_bound",
                    hypothesis="largest_difference",
                    metric=metric,
                    contrast=f"{a}-{b}",
                    method="range times theoretical total variation of the declared seeds",
                    role="diagnostic",
                    estimate=None if found is None else size * found,
                    reason=reason,
                )
            )
    return rows
