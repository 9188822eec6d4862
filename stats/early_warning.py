"""Does an alarm on a channel tell of a window? Precision and recall, beside chance and shifted alarms.

A step alarms when its channel stands more than a threshold above the clean steps before it. Windows are
imposed from outside, so nothing can foretell their beginning: what is counted is whether alarms fall into
windows (or up to `horizon` steps before).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stats.over_seeds import mean_over_seeds
from stats.regime_series import RunSeries
from stats.rows import FloatArray, TestRow

BoolArray = npt.NDArray[np.bool_]

ALARMS: Mapping[str, int] = {
    "effect_kl_nats": 1,
    "self_delta": 1,
    "self_drift": 1,
    "loss_nats": 1,
    "entropy_nats": 1,
    "top1": -1,
    "grad_norm": 1,
}
"""Channel -> the direction that alarms: 1 upwards, -1 downwards."""
FLAT = 1e-12
"""A reference whose SD is below this share of its largest value does not vary (rounding)."""


def trailing_z(values: FloatArray, clean: BoolArray, *, reference: int = 40, fewest: int = 10) -> FloatArray:
    """(value - mean) / SD of the clean values before it.

    Parameters
    ----------
    values : (steps,) float array
        NaN where there is none: neither judged nor in anybody's reference.
    clean : (steps,) bool array
    reference : int
        Clean values before a step that are looked at, the nearest ones; SD with n - 1.
    fewest : int
        Of them without which a step is not judged, 2 or more.

    Returns
    -------
    (steps,) float array
        NaN where a step is not judged: no value, too few clean ones before, or these all alike.

    Examples
    --------
    >>> v = np.array([1.0, 2.0, 3.0, np.nan, 2.0, 9.0])
    >>> trailing_z(v, np.array([1, 1, 1, 1, 1, 0], dtype=bool), fewest=3).round(2).tolist()
    [nan, nan, nan, nan, 0.0, 8.57]
    """
    v, is_clean = np.asarray(values, dtype=np.float64), np.asarray(clean, dtype=np.bool_)
    if v.ndim != 1 or v.shape != is_clean.shape or not 2 <= fewest <= reference:
        raise ValueError(
            f"values {v.shape}, clean {is_clean.shape}, {fewest} of {reference} clean values; pass one flag "
            "a step and 2 <= fewest <= reference"
        )
    known = np.isfinite(v)
    source = np.flatnonzero(known & is_clean)
    padded = np.concatenate([np.full(reference, np.nan), v[source]])
    nearest = np.lib.stride_tricks.sliding_window_view(padded, reference)  # row j: the last of j clean values
    z = np.full(len(v), np.nan)
    before = np.searchsorted(source, np.arange(len(v)))  # clean values before each step
    judged = np.flatnonzero(known & (before >= fewest))
    if not len(judged):
        return z
    past = nearest[before[judged]]
    mean, sd = np.nanmean(past, axis=1), np.nanstd(past, axis=1, ddof=1)
    varies = sd > FLAT * np.nanmax(np.abs(past), axis=1)
    z[judged[varies]] = (v[judged] - mean)[varies] / sd[varies]
    return z


@dataclass(frozen=True, kw_only=True, eq=False)
class _Alarms:
    """Of one seed, at its judged steps."""

    alarm: BoolArray
    event: BoolArray


def early_warning_rows(
    runs: Sequence[RunSeries],
    *,
    rng: np.random.Generator,
    channels: Mapping[str, int] = ALARMS,
    threshold: float = 3.0,
    horizon: int = 0,
    reference: int = 40,
    fewest: int = 10,
    shifts: int = 999,
    alpha: float = 0.05,
) -> list[TestRow]:
    """Precision and recall of alarms about windows, beside the base rate and alarms shifted in time.

    Precision is the share of alarmed steps that lie in a window (or up to `horizon` steps before one), recall
    the share of such steps that alarm, base_rate the share of them among judged steps: what precision is by
    chance. Steps of a run are not independent, so the interval is Student's over seeds, cut to [0, 1], and
    the null shifts each seed's alarms in a circle, which keeps their runs.

    Parameters
    ----------
    channels : mapping of str to int
        Channel -> 1 to alarm upwards, -1 downwards.
    threshold : float
        z (see `trailing_z`, `reference`, `fewest`) beyond which a step alarms.

    Returns
    -------
    list of TestRow
        Family `lead_lag`, hypothesis `early_warning`, role `diagnostic`, contrast = channel, metrics
        precision, recall, base_rate: p one-sided, (b + 1) / (shifts + 1). `early_warning_shifted`: mean and
        quantiles alpha / 2 of the shifted.

    References
    ----------
    p: Phipson & Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9, 39. Witness: counts by hand in the tests.

    Examples
    --------
    >>> from stats.regime_series import Occurrence
    >>> rng = np.random.default_rng(1)
    >>> def run(seed):
    ...     loss = rng.normal(size=200)
    ...     loss[120:140] += 6.0
    ...     window = Occurrence(regime="fog", number=0, start=120, end=140, twin={})
    ...     return RunSeries(seed=seed, channels={"loss_nats": loss}, occurrences=(window,))
    >>> rows = early_warning_rows([run(i) for i in range(3)], rng=rng, channels={"loss_nats": 1})
    >>> [(row.metric, round(row.estimate, 2)) for row in rows[:3]], rows[0].p
    ([('precision', 0.97), ('recall', 1.0), ('base_rate', 0.11)], 0.001)
    """
    rows: list[TestRow] = []
    for channel, sign in channels.items():
        found = [_alarms(run, channel, sign, threshold, horizon, reference, fewest) for run in runs]
        known = [one for one in found if one is not None and len(one.alarm)]
        bare = TestRow(family="lead_lag", hypothesis="early_warning", contrast=channel, metric="precision",
                       method=f"alarm at z > {threshold:g}, t over seeds, {shifts} circular shifts",
                       role="diagnostic", alpha=alpha, n=0,
                       reason=f"no step with a z of {channel}")  # fmt: skip
        if not known:
            rows += [replace(bare, metric=metric) for metric in ("precision", "recall", "base_rate")]
            continue
        rows += _warning_rows(known, bare, shifts, rng)
    return rows


def _alarms(
    run: RunSeries, channel: str, sign: int, threshold: float, horizon: int, reference: int, fewest: int
) -> _Alarms | None:
    if channel not in run.channels:
        return None
    values = sign * np.asarray(run.channels[channel], dtype=np.float64)
    z = trailing_z(values, run.clean, reference=reference, fewest=fewest)
    event = ~run.clean
    for one in run.occurrences:
        event[max(0, one.start - horizon) : one.end] = True
    judged = np.isfinite(z)
    return _Alarms(alarm=z[judged] > threshold, event=event[judged])


def _warning_rows(
    known: Sequence[_Alarms], bare: TestRow, shifts: int, rng: np.random.Generator
) -> list[TestRow]:
    alpha = bare.alpha or 0.05
    hits = np.array([float((one.alarm & one.event).sum()) for one in known])
    drawn = np.stack([_shifted_hits(one, shifts, rng) for one in known], axis=1)  # (shifts, S)
    of = {
        "precision": np.array([float(one.alarm.sum()) for one in known]),
        "recall": np.array([float(one.event.sum()) for one in known]),
    }
    rows, null_rows = [], []
    for metric, total in of.items():
        row = replace(bare, metric=metric)
        some = total > 0
        if not some.any():
            why = "no step alarmed" if metric == "precision" else "no judged step in a window"
            rows.append(replace(row, reason=why))
            continue
        share = np.full(len(known), np.nan)
        share[some] = hits[some] / total[some]
        null = (drawn[:, some] / total[some]).mean(axis=1)
        reached = int((null >= float(share[some].mean()) - 1e-12).sum())
        rows.append(replace(_in_unit(share, row), p=(reached + 1.0) / (shifts + 1.0)))
        low, high = np.quantile(null, [alpha / 2.0, 1.0 - alpha / 2.0])
        null_rows.append(
            replace(row, hypothesis="early_warning_shifted", estimate=float(null.mean()), low=float(low),
                    high=float(high), n=int(some.sum()), reason=None)
        )  # fmt: skip
    base = np.array([float(one.event.mean()) for one in known])
    return [*rows, _in_unit(base, replace(bare, metric="base_rate")), *null_rows]


def _in_unit(values: FloatArray, row: TestRow) -> TestRow:
    """Mean over seeds, its interval cut to [0, 1]."""
    found = mean_over_seeds(values, row, tested=False)
    low = None if found.low is None else max(0.0, found.low)
    return replace(found, low=low, high=None if found.high is None else min(1.0, found.high))


def _shifted_hits(one: _Alarms, shifts: int, rng: np.random.Generator) -> FloatArray:
    """(shifts,) alarms in windows after a random circular shift of the alarms."""
    n = len(one.alarm)
    spectrum = np.fft.rfft(one.event.astype(np.float64)) * np.conj(np.fft.rfft(one.alarm.astype(np.float64)))
    every = np.rint(np.fft.irfft(spectrum, n))  # hits at each shift 0 .. n - 1
    return np.asarray(every[rng.integers(n, size=shifts)], dtype=np.float64)
