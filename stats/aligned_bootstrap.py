"""Sentence-level uncertainty with the languages held fixed: one resample of documents for everything.

Sentences are aligned, so the same draw of documents serves every language and every variant: what the
languages have in common about a document cancels from their differences. Everything here is a sum over
sentences or a function of such sums, so all replicates come from one product (1 + resamples, documents) x
(documents, columns), whose row 0 is the data. A statistic is then a function applied along axis 0.

Intervals are percentiles, widened for the number of documents D (Hesterberg's expanded percentiles). Plain
percentiles are too short by sqrt((D - 1) / D) and by normal instead of t quantiles: of skewed documents they
covered .87 at D = 8 and .93 at D = 30, the widened ones .93 and .94 (mean, gap and ratio of two languages).
BCa covered .85 and .91, widened BCa .91 and .93: its acceleration, estimated from few documents, adds noise
(`tests/test_disparity_simulation.py`). The interval speaks of other documents in these languages, never of
other languages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from stats.rows import FloatArray, IntArray, TestRow

RESAMPLES = 2_000
"""Fewest resamples; the tail of a 95 % interval then holds 50."""
FEWEST_DOCUMENTS = 5
"""Under five clusters there are at most 35 distinct resamples, and no interval."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its interval, or the reason why there is none."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    """Documents."""
    method: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """Documents drawn with replacement, kept so that every question uses the same draws."""

    code: IntArray
    """(sentences,) document of each sentence, 0..D-1."""
    weights: FloatArray
    """(1 + R, D) how often each document counts: once in row 0, the data, then in R resamples."""

    @property
    def documents(self) -> int:
        return int(self.weights.shape[1])

    @property
    def resamples(self) -> int:
        return len(self.weights) - 1

    def by_document(self, values: npt.ArrayLike) -> FloatArray:
        """(D, ...) sums over the sentences of each document of (..., sentences) values."""
        array = np.asarray(values, dtype=np.float64)
        if array.shape[-1] != len(self.code):
            raise ValueError(
                f"{array.shape} values for {len(self.code)} sentences; sentences are the last axis"
            )
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            raise ValueError(
                f"{wrong} of {array.size} values are not finite; name them before they are summed"
            )
        order = np.argsort(self.code, kind="stable")
        first = np.searchsorted(self.code[order], np.arange(self.documents))
        sums: FloatArray = np.add.reduceat(np.moveaxis(array, -1, 0)[order], first, axis=0)
        return sums

    def totals(self, values: npt.ArrayLike) -> FloatArray:
        """(1 + R, ...) totals over sentences of (..., sentences) values: the data, then resamples."""
        sums = self.by_document(values)
        flat = self.weights @ sums.reshape(self.documents, -1)
        return flat.reshape(-1, *sums.shape[1:])

    def means(self, values: npt.ArrayLike) -> FloatArray:
        """(1 + R, ...) means a sentence; a resample's number of sentences varies with its documents."""
        totals = self.totals(values)
        count = self.weights @ np.bincount(self.code, minlength=self.documents)
        shaped: FloatArray = totals / count.reshape(-1, *[1] * (totals.ndim - 1))
        return shaped


def interval_row(row: TestRow, found: Interval) -> TestRow:
    """The row with the numbers, method and reason of an interval; n in documents.

    >>> row = TestRow(family="f", hypothesis="change", method="", role="secondary", reason="undefined")
    >>> found = Interval(estimate=1.0, low=0.5, high=1.5, n=8, method="percentiles")
    >>> interval_row(row, found).method, interval_row(row, found).reason
    ('percentiles', None)
    """
    return replace(
        row,
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        n=found.n,
        method=found.method,
        reason=found.reason,
    )


def resample_documents(
    documents: Sequence[Any] | npt.NDArray[Any], *, resamples: int = RESAMPLES, rng: np.random.Generator
) -> Resampled:
    """Draw documents with replacement, `resamples` times.

    Parameters
    ----------
    documents : (sentences,) sequence
        Document of each aligned sentence; sentences of one document stay together.
    resamples : int
        At least RESAMPLES.
    rng : numpy Generator
        Equal generators give equal draws.

    Raises
    ------
    ValueError
        No sentences, or too few resamples.

    References
    ----------
    Field & Welsh (2007), J. R. Stat. Soc. B 69, 369 (cluster bootstrap).

    Examples
    --------
    >>> drawn = resample_documents(["a", "a", "b", "c"], rng=np.random.default_rng(0))
    >>> drawn.documents, drawn.resamples, drawn.totals([1.0, 2.0, 3.0, 4.0])[0]
    (3, 2000, np.float64(10.0))
    """
    if len(documents) == 0:
        raise ValueError("no sentences; pass the document of each aligned sentence")
    if resamples < RESAMPLES:
        raise ValueError(f"{resamples} resamples; at least {RESAMPLES}")
    code = np.unique(np.array(list(documents)), return_inverse=True)[1].astype(np.int64).ravel()
    D = int(code.max()) + 1
    counts = rng.multinomial(D, np.full(D, 1.0 / D), size=resamples).astype(np.float64)
    return Resampled(code=code, weights=np.vstack([np.ones((1, D)), counts]))


def bootstrap_bounds(
    values: FloatArray, drawn: Resampled, alpha: float = 0.05
) -> tuple[FloatArray, FloatArray]:
    """Ends of the expanded percentile interval of each column.

    The quantiles of the resamples at Phi(-z) and Phi(z), z = sqrt(D / (D - 1)) t_{D-1, 1 - alpha/2}: for a
    mean of normal documents that is the t interval. A column whose resamples all equal the estimate has an
    interval of length zero.

    Parameters
    ----------
    values : (1 + R, columns) float array
        A statistic of `Resampled.totals`, applied along axis 0; all finite.
    alpha : float
        1 - level.

    Returns
    -------
    low, high : (columns,) float arrays

    References
    ----------
    Hesterberg (2015), Am. Stat. 69, 371; quantiles of Hyndman and Fan's type 6, as R's `boot.ci`
    places them. Witness: R's `quantile(type = 6)` on the same resamples, and `boot::boot.ci(type = "perc")`
    (`tests/reference/disparity_bootstrap.R`).

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    >>> drawn = resample_documents(np.arange(8), rng=np.random.default_rng(1), resamples=20_000)
    >>> [round(float(end[0]), 1) for end in bootstrap_bounds(drawn.means(y)[:, None], drawn)]  # t: 2.45, 6.55
    [2.5, 6.5]
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; must lie between 0 and 1")
    D = drawn.documents
    observed, draws = values[0], np.sort(values[1:], axis=0)
    z = math.sqrt(D / (D - 1.0)) * float(special.stdtrit(D - 1.0, 1.0 - alpha / 2.0))
    ends = [_quantiles(draws, float(special.ndtr(s))) for s in (-z, z)]
    near = 1e-12 * np.abs(draws).max(axis=0)  # rounding of the sums makes no draw differ
    same = np.abs(draws - observed).max(axis=0) <= near
    return np.where(same, observed, ends[0]), np.where(same, observed, ends[1])


def _quantiles(draws: FloatArray, level: float) -> FloatArray:
    """Quantile of each sorted column, interpolated at (R + 1) level (Hyndman and Fan's type 6)."""
    R = len(draws)
    place = min(max(level * (R + 1.0) - 1.0, 0.0), R - 1.0)
    under = min(int(place), R - 2)
    between: FloatArray = draws[under] + (place - under) * (draws[under + 1] - draws[under])
    return between


def intervals(values: FloatArray, drawn: Resampled, alpha: float = 0.05) -> list[Interval]:
    """`bootstrap_bounds` as one Interval a column; undefined with a reason under FEWEST_DOCUMENTS documents.

    Examples
    --------
    >>> drawn = resample_documents(["a", "b"], rng=np.random.default_rng(0))
    >>> intervals(drawn.means([1.0, 2.0])[:, None], drawn)[0].reason
    '2 documents; an interval needs at least 5'
    """
    D = drawn.documents
    method = f"expanded percentiles, {drawn.resamples} resamples of documents"
    if D < FEWEST_DOCUMENTS:
        reason = f"{D} documents; an interval needs at least {FEWEST_DOCUMENTS}"
        return [
            Interval(estimate=float(e), low=None, high=None, n=D, method=method, reason=reason)
            for e in values[0]
        ]
    low, high = bootstrap_bounds(values, drawn, alpha)
    return [
        Interval(estimate=float(e), low=float(x), high=float(y), n=D, method=method)
        for e, x, y in zip(values[0], low, high, strict=True)
    ]


def ratio_interval(
    numerator: FloatArray, denominator: FloatArray, drawn: Resampled, alpha: float = 0.05
) -> Interval:
    """Ratio of two replicated numbers; undefined where the denominator's interval is not above zero.

    Parameters
    ----------
    numerator, denominator : (1 + R,) float arrays

    Examples
    --------
    >>> drawn = resample_documents(range(6), rng=np.random.default_rng(0))
    >>> up, down = drawn.means([2.0, 4.0, 6.0, 8.0, 6.0, 4.0]), drawn.means([1.0, 2.0, 3.0, 4.0, 3.0, 2.0])
    >>> found = ratio_interval(up, down, drawn)
    >>> found.estimate, found.low, found.high
    (2.0, 2.0, 2.0)
    >>> ratio_interval(up, down - 2.5, drawn).reason
    'undefined: the interval of the denominator, -1 to 1, is not above zero'
    """
    base = intervals(denominator[:, None], drawn, alpha)[0]
    if base.low is None or base.high is None or base.low <= 0.0:
        why = base.reason or (
            f"undefined: the interval of the denominator, {base.low:.3g} to {base.high:.3g}, "
            "is not above zero"
        )
        return Interval(estimate=None, low=None, high=None, n=base.n, method=base.method, reason=why)
    positive = np.where(denominator > 0.0, denominator, np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        ratio = np.clip(numerator / positive, -1e300, 1e300)
    return intervals(ratio[:, None], drawn, alpha)[0]


def cluster_se(values: npt.ArrayLike, drawn: Resampled) -> FloatArray:
    """Standard error over documents of the mean a sentence.

    sqrt(D / (D - 1) sum_d (c_d - n_d m)^2) / S, with c_d the total and n_d the sentences of document d.

    Parameters
    ----------
    values : (..., S) array

    References
    ----------
    Cochran (1977), Sampling Techniques, 6.3 (ratio of cluster totals).

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 4.0, 7.0, 11.0])
    >>> drawn = resample_documents(range(5), rng=np.random.default_rng(0))
    >>> round(float(cluster_se(y, drawn)), 6), round(float(y.std(ddof=1)) / 5**0.5, 6)
    (1.81659, 1.81659)
    """
    D, S = drawn.documents, len(drawn.code)
    if D < 2:
        raise ValueError(f"{D} document; a standard error needs two or more")
    totals = drawn.by_document(values)
    size = np.bincount(drawn.code).reshape(-1, *[1] * (totals.ndim - 1))
    away = totals - size * (totals.sum(axis=0) / S)
    se: FloatArray = np.sqrt(D / (D - 1.0) * (away**2).sum(axis=0)) / S
    return se
