"""Windows as a classifier sees them: each beside its twin, in SDs of the clean steps right before both.

A twin leaves the run at its window's start, so window and twin share those clean steps and are normalised
alike: neither the time of the window nor the trend of a channel tells one from the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stats.regime_deltas import twin_values
from stats.regime_series import COMMON, STATE, Occurrence, RunSeries
from stats.rows import FloatArray

SMOOTHED = tuple(f"{name}_smoothed" for name in COMMON)
"""Running means of the common channels: what a state that only remembers them can hold."""
SHARE = 0.2
"""Of a step in its running mean; the self-state's own rate."""
LEAST_REFERENCE = 5
"""Clean steps before a window that its normalisation needs."""
LEAST_STEPS = 2
"""Steps of a window on which every channel is defined, beside those of its twin."""
CONSTANT = 1e-9
"""A channel whose SD before a window is at most this share of its largest value there does not vary."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowPair:
    """One window beside its twin."""

    regime: str
    number: int
    window: FloatArray
    """(n, F) normalised features."""
    twin: FloatArray
    """(n, F) of the same steps."""
    steps: FloatArray
    """(n,) step numbers."""
    before: FloatArray
    """(reference,) numbers of the clean steps right before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedWindows:
    """All usable windows of one seed."""

    seed: int
    channels: tuple[str, ...]
    """Of the F features."""
    pairs: tuple[WindowPair, ...]
    dropped: tuple[str, ...]
    """Channels that are no feature of this seed, each with the reason."""
    unusable: tuple[tuple[str, str], ...]
    """(regime, why) of each window left out."""

    def columns(self, wanted: Sequence[str]) -> list[int]:
        """Places of the features among these channels."""
        return [place for place, name in enumerate(self.channels) if name in wanted]

    def of(self, regime: str) -> list[WindowPair]:
        """Pairs of a regime."""
        return [pair for pair in self.pairs if pair.regime == regime]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Raw:
    """A window before its channels are chosen."""

    one: Occurrence
    window: FloatArray
    """(length, channels)"""
    twin: FloatArray
    before: FloatArray
    """(reference, channels)"""
    steps: FloatArray
    """(reference,)"""


def running_mean(values: FloatArray, start: float | None = None) -> FloatArray:
    """m_t = (1 - SHARE) m_(t-1) + SHARE x_t from m_0 = x_0, or from `start` before x_0; (n,) -> (n,).

    A step that is not finite leaves the mean as it is; before the first finite one it is NaN.

    Examples
    --------
    >>> running_mean(np.array([1.0, np.nan, 6.0])).tolist(), running_mean(np.array([6.0]), 1.0).tolist()
    ([1.0, 1.0, 2.0], [2.0])
    """
    found, mean = np.empty(len(values)), float("nan") if start is None else start
    for place, value in enumerate(values.tolist()):
        if math.isfinite(value):
            mean = (1.0 - SHARE) * mean + SHARE * value if math.isfinite(mean) else value
        found[place] = mean
    return found


def with_smoothed(run: RunSeries) -> RunSeries:
    """The run with SMOOTHED channels; a twin's go on from the run's at the step before its window."""
    channels, twins = dict(run.channels), [dict(one.twin) for one in run.occurrences]
    for name, smoothed in zip(COMMON, SMOOTHED, strict=True):
        if name not in run.channels:
            continue
        channels[smoothed] = running_mean(np.asarray(run.channels[name], dtype=np.float64))
        for one, twin in zip(run.occurrences, twins, strict=True):
            if name in twin:
                start = float(channels[smoothed][one.start - 1]) if one.start else None
                twin[smoothed] = running_mean(np.asarray(twin[name], dtype=np.float64), start)
    occurrences = tuple(replace(one, twin=twin) for one, twin in zip(run.occurrences, twins, strict=True))
    return replace(run, channels=channels, occurrences=occurrences)


def seed_windows(
    run: RunSeries, *, reference: int, channels: Sequence[str] = (*COMMON, *STATE)
) -> SeedWindows:
    """Windows of a run and their twins as z = (value - mean) / SD over the clean steps right before.

    A channel that is undefined in a window, in its twin or before them, or that does not vary before one, is
    no feature of this seed, and `dropped` says so. Steps on which a remaining feature is undefined are left
    out of window and twin alike. Windows without a twin, without LEAST_REFERENCE clean steps before, or in
    which no common channel is defined are left out, and `unusable` says so.

    Parameters
    ----------
    run : RunSeries
    reference : int
        Clean steps right before a window, at most; LEAST_REFERENCE or more.

    Raises
    ------
    ValueError
        A reference too short, a twin shorter than its window.

    Examples
    --------
    >>> from stats.regime_series import Occurrence
    >>> loss = np.array([1.0, 3.0, 1.0, 3.0, 2.0, 9.0, 9.0])
    >>> window = Occurrence(regime="fog", number=0, start=5, end=7, twin={"loss_nats": loss[4:6]})
    >>> run = RunSeries(seed=0, channels={"loss_nats": loss}, occurrences=(window,))
    >>> found = seed_windows(run, reference=5, channels=("loss_nats", "gate"))
    >>> found.pairs[0].window.ravel().tolist(), found.pairs[0].twin.ravel().tolist()
    ([7.0, 7.0], [0.0, 7.0])
    >>> found.dropped
    ('gate undefined',)
    """
    if reference < LEAST_REFERENCE:
        raise ValueError(
            f"reference {reference}; a mean and an SD take {LEAST_REFERENCE} clean steps or more"
        )
    raws, unusable = [], []
    for one in run.occurrences:
        found = _raw(run, one, reference, channels)
        if isinstance(found, str):
            unusable.append((one.regime, found))
        else:
            raws.append(found)
    kept, dropped = _choice(raws, channels)
    pairs = []
    for raw in raws if kept else []:
        pair = _pair(raw, kept)
        if len(pair.steps) < LEAST_STEPS:
            unusable.append((raw.one.regime, f"fewer than {LEAST_STEPS} steps with every channel"))
        else:
            pairs.append(pair)
    names = tuple(channels[place] for place in kept)
    return SeedWindows(
        seed=run.seed, channels=names, pairs=tuple(pairs), dropped=dropped, unusable=tuple(unusable)
    )


def _raw(run: RunSeries, one: Occurrence, reference: int, channels: Sequence[str]) -> _Raw | str:
    """A window's values, or why it cannot be used."""
    if not one.twin:
        return "no twin"
    steps = run.before(one, reference)
    if len(steps) < LEAST_REFERENCE:
        return f"{len(steps)} clean steps before it, {LEAST_REFERENCE} are needed"
    window, twin, before = (np.full((n, len(channels)), np.nan) for n in (one.length, one.length, len(steps)))
    for place, name in enumerate(channels):
        if name in run.channels:
            values = np.asarray(run.channels[name], dtype=np.float64)
            window[:, place], before[:, place] = values[one.start : one.end], values[steps]
        other = twin_values(run, one, name)
        if other is not None:
            twin[:, place] = other
    for values in (window, twin, before):
        values[~np.isfinite(values)] = np.nan
    common = [place for place, name in enumerate(channels) if name in COMMON]
    defined = np.isfinite(window[:, common]) & np.isfinite(twin[:, common])
    if common and not (defined.any(axis=0) & np.isfinite(before[:, common]).any(axis=0)).any():
        return "no common channel is defined in it, in its twin and before it"
    return _Raw(one=one, window=window, twin=twin, before=before, steps=steps.astype(np.float64))


def _choice(raws: Sequence[_Raw], channels: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Places of the channels that are features in every window, and the others with the reason."""
    kept, dropped = [], []
    for place, name in enumerate(channels):
        why = ""
        for raw in raws:
            both = np.isfinite(raw.window[:, place]) & np.isfinite(raw.twin[:, place])
            before = raw.before[np.isfinite(raw.before[:, place]), place]
            if both.sum() < LEAST_STEPS or len(before) < LEAST_REFERENCE:
                why = "undefined"
                break
            if before.std(ddof=1) <= CONSTANT * np.abs(before).max():
                why = "constant"
        if why:
            dropped.append(f"{name} {why}")
        else:
            kept.append(place)
    return kept, tuple(dropped)


def _pair(raw: _Raw, kept: list[int]) -> WindowPair:
    """Normalised features of the chosen channels, on the steps where all are defined."""
    before = raw.before[:, kept]
    mean, sd = np.nanmean(before, axis=0), np.nanstd(before, axis=0, ddof=1)
    window, twin = (raw.window[:, kept] - mean) / sd, (raw.twin[:, kept] - mean) / sd
    defined = np.isfinite(window).all(axis=1) & np.isfinite(twin).all(axis=1)
    return WindowPair(
        regime=raw.one.regime,
        number=raw.one.number,
        window=window[defined],
        twin=twin[defined],
        steps=np.arange(raw.one.start, raw.one.end, dtype=np.float64)[defined],
        before=raw.steps,
    )
