"""How far a regime moves each channel: its windows against the clean steps before, and against their twins.

The clean steps before are another time of the training, so a channel with a trend moves against them whatever
the regime does; the twin is the same time without the window. Steps of a window depend on each other, so they
are averaged before anything is counted, and windows of a seed after them: one number a seed enters the t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stats.multiplicity import correct_rows
from stats.paired_seeds import paired_t
from stats.regime_series import Occurrence, RunSeries
from stats.rows import FloatArray, TestRow

FAMILY = "regime_deltas"
BEFORE, TWIN = "against_before", "against_twin"


@dataclass(frozen=True, kw_only=True)
class WindowDelta:
    """One channel in one window beside its reference; numbers or a reason."""

    window: float = 0.0
    """Mean over the window's defined steps."""
    reference: float = 0.0
    """Mean over the reference's."""
    sd: float | None = None
    """Of the channel over the reference's steps (n - 1); None with one step."""
    reason: str | None = None


def check_series(series: Sequence[RunSeries]) -> None:
    """Refuse what is no set of seeds.

    Raises
    ------
    ValueError
        No series, or a seed that occurs twice.
    """
    seeds = [one.seed for one in series]
    if not seeds:
        raise ValueError("no series; pass one RunSeries a seed")
    doubled = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if doubled:
        raise ValueError(f"seeds {doubled} occur twice; pass one RunSeries a seed")


def regimes_of(series: Sequence[RunSeries]) -> list[str]:
    """Ids of the regimes that occur in any seed, sorted: their order in time differs between seeds."""
    return sorted({one.regime for run in series for one in run.occurrences})


def twin_values(run: RunSeries, one: Occurrence, channel: str) -> FloatArray | None:
    """(length,) values of the twin over the window's steps; None where it has none of this channel.

    Raises
    ------
    ValueError
        When the twin ends before its window.
    """
    values = one.twin.get(channel)
    if values is None:
        return None
    if len(values) < one.length:
        raise ValueError(
            f"the twin of {one.regime} {one.number} of seed {run.seed} has {len(values)} steps of {channel}, "
            f"the window {one.length}; give the twin every step from {one.start} to {one.end}"
        )
    return np.asarray(values[: one.length], dtype=np.float64)


def window_delta(run: RunSeries, one: Occurrence, channel: str, *, against: str, before: int) -> WindowDelta:
    """Means of a channel in a window and in its reference.

    Against the twin only steps defined on both sides count, so that both means are of the same steps.
    """
    if channel not in run.channels:
        return WindowDelta(reason="the run has no such channel")
    values = np.asarray(run.channels[channel], dtype=np.float64)
    inside = values[one.start : one.end]
    if against == TWIN:
        other = twin_values(run, one, channel)
        if other is None:
            return WindowDelta(reason="no twin" if not one.twin else "the twin has no such channel")
        both = np.isfinite(inside) & np.isfinite(other)
        inside, other = inside[both], other[both]
        if not len(inside):
            return WindowDelta(reason="no step with a value in window and twin")
    else:
        steps = run.before(one, before)
        if not len(steps):
            return WindowDelta(reason="no clean step before the window")
        inside, other = inside[np.isfinite(inside)], values[steps][np.isfinite(values[steps])]
        if not len(inside) or not len(other):
            where = "the window" if not len(inside) else "the clean steps before"
            return WindowDelta(reason=f"no value in {where}")
    sd = float(other.std(ddof=1)) if len(other) > 1 else None
    return WindowDelta(window=float(inside.mean()), reference=float(other.mean()), sd=sd)


def regime_delta_rows(
    series: Sequence[RunSeries], channels: Sequence[str], *, alpha: float, before: int = 40
) -> list[TestRow]:
    """Mean over seeds of how far each regime moves each channel, in the channel's unit.

    d_s = mean over the windows of seed s of [mean in the window - mean of its reference]; the estimate is the
    mean of d_s, its interval and p Student's over seeds. `effect` is the estimate divided by the mean over
    windows, then seeds, of the channel's SD over the reference's steps.

    Parameters
    ----------
    series : sequence of RunSeries
        One a seed. Steps where a channel is not finite are left out.
    channels : sequence of str
    before : int
        Clean steps right before a window that `against_before` compares with, at most.

    Returns
    -------
    list of TestRow
        Family `regime_deltas`, hypotheses `against_before` and `against_twin`, contrast the regime; Holm over
        regimes x channels within a hypothesis. Without an interval (one seed, seeds that do not differ) or
        without any number, the row says why. A twin that is the same bit for bit gives exactly 0.

    Raises
    ------
    ValueError
        No series, a seed twice, no channel, `before` below 1, a twin shorter than its window.

    References
    ----------
    Witness: R's `t.test` and `p.adjust` (`tests/reference/regime_deltas.R`).

    Examples
    --------
    A channel that rises by 1 a step, and by 5 more in the window of steps 4 and 5:

    >>> def run(seed, more):
    ...     twin = {"loss_nats": np.array([4.0, 5.0])}
    ...     window = Occurrence(regime="fog", number=0, start=4, end=6, twin=twin)
    ...     loss = np.array([0.0, 1.0, 2.0, 3.0, 4.0 + more, 5.0 + more])
    ...     return RunSeries(seed=seed, channels={"loss_nats": loss}, occurrences=(window,))
    >>> for row in regime_delta_rows([run(0, 5.0), run(1, 5.2)], ["loss_nats"], alpha=0.05):
    ...     print(row.hypothesis, round(row.estimate, 3), round(row.low, 2), round(row.high, 2), row.n)
    against_before 8.1 6.83 9.37 2
    against_twin 5.1 3.83 6.37 2
    """
    check_series(series)
    if not channels or before < 1 or not 0.0 < alpha < 1.0:
        raise ValueError(
            f"{len(channels)} channels, {before} steps before, alpha {alpha}; allowed: one channel or more, "
            "1 step or more, alpha between 0 and 1"
        )
    rows: list[TestRow] = []
    for against in (BEFORE, TWIN):
        family = [
            _row(series, regime, channel, against=against, before=before, alpha=alpha)
            for regime in regimes_of(series)
            for channel in channels
        ]
        rows += correct_rows(family).rows
    return rows


def _row(
    series: Sequence[RunSeries], regime: str, channel: str, *, against: str, before: int, alpha: float
) -> TestRow:
    """One regime, channel and reference."""
    found = [
        [
            window_delta(run, one, channel, against=against, before=before)
            for one in run.occurrences
            if one.regime == regime
        ]
        for run in series
    ]
    kept = [[one for one in of_seed if one.reason is None] for of_seed in found]
    kept = [of_seed for of_seed in kept if of_seed]
    bare = TestRow(
        family=FAMILY,
        hypothesis=against,
        metric=channel,
        contrast=regime,
        method=f"t over seeds of means over {_counts(kept)} occurrences",
        role="secondary",
        alpha=alpha,
        n=len(kept),
        reason="undefined",
    )
    if not kept:
        why = sorted({one.reason for of_seed in found for one in of_seed if one.reason})
        return replace(bare, method="t over seeds of means over occurrences", reason="; ".join(why))
    window = np.array([np.mean([one.window for one in of_seed]) for of_seed in kept])
    reference = np.array([np.mean([one.reference for one in of_seed]) for of_seed in kept])
    t = paired_t(window, reference, alpha=alpha)
    return replace(
        bare,
        estimate=t.estimate,
        low=t.low,
        high=t.high,
        effect=_standardised(t.estimate, kept),
        statistic=t.statistic,
        df1=float(t.df) if t.statistic is not None else None,
        p=t.p,
        reason=t.reason,
    )


def _counts(kept: Sequence[Sequence[WindowDelta]]) -> str:
    """ "3", or "2 to 3" where seeds differ."""
    counts = [len(of_seed) for of_seed in kept] or [0]
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _standardised(estimate: float, kept: Sequence[Sequence[WindowDelta]]) -> float | None:
    """Estimate in SDs of the reference's steps; None where none varies."""
    of_seeds = [[one.sd for one in of_seed if one.sd is not None] for of_seed in kept]
    means = [float(np.mean(of_seed)) for of_seed in of_seeds if of_seed]
    sd = float(np.mean(means)) if means else 0.0
    return estimate / sd if sd > 0.0 else None
