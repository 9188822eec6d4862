"""Does the state's effect move before loss and entropy do, or after them?

Effect and loss at the probed steps, each without its linear trend, seed by seed; seeds are
averaged by Fisher's z. The band shows what independent series with these autocorrelations give: the effect
is mirrored, shifted in a circle, cut to length and its trend taken out again. The mirror joins the ends
without a jump. For independent autoregressions (five seeds, 24 to 180 probes; 150 to 300 data sets) a lag
leaves the .95 band in .05 of cases at phi 0 to .7, .05 to .07 at .9, .06 to .08 at .97; plain circular shifts
gave up to .11 and moving blocks of sqrt(n) up to .26. So the band is for the eye, and p is Student's t on the
seeds' z, .05 to .06 throughout: seeds are independent however slowly a series moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stats.multiplicity import correct_rows
from stats.over_seeds import mean_over_seeds
from stats.regime_series import RunSeries
from stats.rows import FloatArray, TestRow

FLAT = 1e-12
"""A series whose SD is below this share of its largest value does not vary (rounding)."""


def detrended(series: FloatArray) -> FloatArray:
    """Residuals of the straight line by least squares, along the last axis.

    >>> detrended(np.array([1.0, 3.0, 5.0, 9.0])).round(2).tolist()
    [0.4, -0.2, -0.8, 0.6]
    """
    y = np.asarray(series, dtype=np.float64)
    t = np.arange(y.shape[-1]) - (y.shape[-1] - 1) / 2.0
    t /= math.sqrt(float(t @ t))
    centred = y - y.mean(axis=-1, keepdims=True)
    return np.asarray(centred - (centred @ t)[..., None] * t, dtype=np.float64)


def cross_correlation(first: FloatArray, second: FloatArray, *, max_lag: int) -> FloatArray:
    """r_k = sum_t x_t y_(t+k) / sqrt(sum x^2 sum y^2), k = -max_lag to max_lag, of detrended x and y.

    A positive lag means that `first` comes first.

    Parameters
    ----------
    first, second : (n,) or (m, n) float arrays
        Evenly spaced; n at least 2 max_lag + 2.

    Returns
    -------
    (2 max_lag + 1,) float array
        Or (m, 2 max_lag + 1).

    Raises
    ------
    ValueError
        Series too short, of unequal length, not finite, or straight lines.

    References
    ----------
    Box, Jenkins & Reinsel (2008), Time Series Analysis, 12.1. Witness: R's `ccf(second, first)` of residuals
    of `lm` (`tests/reference/lead_lag.R`).

    Examples
    --------
    >>> x = np.array([0.0, 1, 0, -1, 0, 2, 0, -2, 0, 1, 0, -1])
    >>> found = cross_correlation(x, np.roll(x, 1), max_lag=2)
    >>> int(found.argmax()) - 2, round(float(found.max()), 2)
    (1, 0.92)
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    n = x.shape[-1] if x.ndim else 0
    if not n or y.shape[-1:] != (n,) or n < 2 * max_lag + 2 or max_lag < 0:
        raise ValueError(
            f"series of shapes {x.shape} and {y.shape} for lags up to {max_lag}; pass equal lengths of "
            f"{2 * max_lag + 2} or more"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("series with values that are not finite; pass the probed steps alone")
    for series in (x, y):
        if (detrended(series).std(axis=-1) <= FLAT * np.abs(series).max(axis=-1)).any():
            raise ValueError("a series that is constant or a straight line; it correlates with nothing")
    return _correlations(x, y, max_lag)


def _correlations(x: FloatArray, y: FloatArray, max_lag: int) -> FloatArray:
    """Of series that may be straight lines in places: these get 0."""
    n = x.shape[-1]
    x, y = detrended(x), detrended(y)
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))[..., None]
    lags = range(-max_lag, max_lag + 1)
    terms = [(x[..., max(0, -k) : n - max(0, k)] * y[..., max(0, k) : n - max(0, -k)]).sum(-1) for k in lags]
    r = np.stack(terms, axis=-1)
    return np.asarray(np.divide(r, scale, out=np.zeros_like(r), where=scale > 0.0), dtype=np.float64)


def lead_lag_rows(
    runs: Sequence[RunSeries],
    *,
    rng: np.random.Generator,
    effect: str = "effect_kl_nats",
    against: Sequence[str] = ("loss_nats", "entropy_nats"),
    max_lag: int = 10,
    first: int | None = None,
    shifts: int = 999,
    alpha: float = 0.05,
) -> list[TestRow]:
    """Cross-correlation of the effect with each channel by lag, with its band under independence.

    Parameters
    ----------
    runs : sequence of RunSeries
        One a seed; the steps with a finite `effect` are the probed ones and must be evenly spaced.
    max_lag : int
        In probes.
    first : int or None
        Steps before this one are left out; None: the first tenth, in which loss and effect both fall or
        rise steeply whatever they have to do with each other.
    shifts : int
        Random ones a seed, for the band.

    Returns
    -------
    list of TestRow
        Family `lead_lag`, hypothesis `cross_correlation`, role `diagnostic`, metric "EFFECT~CHANNEL",
        contrast "lag K" (positive: the effect comes first): estimate tanh of the seeds' mean z, low and high
        the band around 0 (quantiles alpha / 2 of the shifted), p by t over seeds, p_adjusted by Holm over
        the lags of the metric, n seeds. One row without lag and with the reason where no seed can be used.

    References
    ----------
    Fisher (1921), Metron 1, 3 (z); circular shifts: Theiler & Prichard (1996), Physica D 94, 221.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def run(seed):
    ...     effect = rng.normal(size=60)
    ...     loss = np.roll(effect, 2) + 0.5 * rng.normal(size=60)
    ...     channels = {"effect_kl_nats": effect, "loss_nats": loss, "entropy_nats": rng.normal(size=60)}
    ...     return RunSeries(seed=seed, channels=channels, occurrences=())
    >>> rows = lead_lag_rows([run(i) for i in range(4)], rng=rng, max_lag=3)
    >>> best = max(rows, key=lambda row: row.estimate)
    >>> best.metric, best.contrast, round(best.estimate, 1), best.estimate > best.high, best.p_adjusted < 0.05
    ('effect_kl_nats~loss_nats', 'lag 2', 0.8, True, True)
    """
    rows: list[TestRow] = []
    for channel in against:
        bare = TestRow(family="lead_lag", hypothesis="cross_correlation", metric=f"{effect}~{channel}",
                       method=f"mean z over seeds; band: {shifts} circular shifts of the mirrored effect",
                       role="diagnostic", alpha=alpha, n=0, reason="no seed has both series")  # fmt: skip
        usable: list[tuple[FloatArray, FloatArray]] = []
        lost: list[str] = []
        for run in runs:
            pair, why = _probed(run, effect, channel, max_lag, run.steps // 10 if first is None else first)
            if pair is not None:
                usable.append(pair)
            else:
                lost.append(f"seed {run.seed}: {why}")
        note = "; ".join(lost) or None
        if not usable:
            rows.append(replace(bare, reason=note or bare.reason))
            continue
        rows += _lag_rows(usable, replace(bare, reason=note or "undefined"), note, max_lag, shifts, rng)
    return rows


def _probed(
    run: RunSeries, effect: str, channel: str, max_lag: int, first: int
) -> tuple[tuple[FloatArray, FloatArray] | None, str]:
    """Both series at the probed steps, or None and why not."""
    if effect not in run.channels or channel not in run.channels:
        return None, f"no {effect} or no {channel}"
    x, y = run.channels[effect], run.channels[channel]
    steps = np.flatnonzero(np.isfinite(x) & (np.arange(run.steps) >= first))
    if len(steps) < 2 * max_lag + 2:
        return None, f"{len(steps)} probes, {2 * max_lag + 2} are the fewest for {max_lag} lags"
    if len(set(np.diff(steps).tolist())) > 1:
        return None, "probes are not evenly spaced"
    x, y = np.asarray(x[steps], dtype=np.float64), np.asarray(y[steps], dtype=np.float64)
    if not np.isfinite(y).all():
        return None, f"{channel} is not finite at a probed step"
    for name, series in ((effect, x), (channel, y)):
        if float(detrended(series).std()) <= FLAT * float(np.abs(series).max()):
            return None, f"{name} is constant or a straight line"
    return (x, y), ""


def _z(r: FloatArray) -> FloatArray:
    return np.asarray(np.arctanh(np.clip(r, -1.0 + 1e-12, 1.0 - 1e-12)), dtype=np.float64)


def _lag_rows(
    usable: Sequence[tuple[FloatArray, FloatArray]],
    bare: TestRow,
    note: str | None,
    max_lag: int,
    shifts: int,
    rng: np.random.Generator,
) -> list[TestRow]:
    alpha = bare.alpha or 0.05
    z = np.array([_z(cross_correlation(x, y, max_lag=max_lag)) for x, y in usable])  # (S, lags)
    null = np.zeros((shifts, z.shape[1]))
    for x, y in usable:
        null += _z(_correlations(mirrored(detrended(x), shifts, rng), y, max_lag)) / len(usable)
    low, high = np.quantile(null, [alpha / 2.0, 1.0 - alpha / 2.0], axis=0)
    rows = []
    for place, lag in enumerate(range(-max_lag, max_lag + 1)):
        tested = mean_over_seeds(z[:, place], replace(bare, contrast=f"lag {lag}"))
        rows.append(
            replace(
                tested,
                estimate=float(np.tanh(z[:, place].mean())),
                low=float(np.tanh(low[place])),
                high=float(np.tanh(high[place])),
                reason="; ".join(filter(None, (tested.reason, note))) or None,
            )
        )
    return correct_rows(rows).rows


def mirrored(series: FloatArray, shifts: int, rng: np.random.Generator) -> FloatArray:
    """(shifts, n) copies: the series and its reverse in a circle, read from random places.

    >>> mirrored(np.array([1.0, 2.0, 3.0]), 3, np.random.default_rng(0)).tolist()
    [[1.0, 1.0, 2.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]
    """
    circle = np.concatenate([series, series[::-1]])
    start = rng.integers(len(circle), size=(shifts, 1))
    return np.asarray(circle[(start + np.arange(len(series))) % len(circle)], dtype=np.float64)
