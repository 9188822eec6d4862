"""What a design can show: power at the margin, smallest detectable effect, samples that would settle it.

All of it follows from the variance components and the numbers of prompts, samples and streams, never from
the effect seen; `observed_power` is the exception, reported and never used. Effects, margins and standard
errors share one unit, which is the within-cell SD when the within variance is 1.

Formulas with a finite df integrate over the error of the estimated SD. With df = inf they are the normal ones
of the design tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy
from scipy import special

from stats.rows import FloatArray
from stats.studentized_range import range_sf, scale_grid, studentized_range_isf

MOST_UNITS = 100_000
"""Samples a cell, or prompts, beyond which a question counts as not to be settled by them."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances in one unit squared; 1, x, y when the unit is the within-cell SD."""

    within: float = 1.0
    prompt_source: float = 0.0
    stream: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many of each; samples are those of one prompt x source x stream cell."""

    prompts: int
    samples: int
    streams: int = 1
    groups: int = 3


def contrast_se(components: Components, size: Size) -> float:
    """Standard error of a difference of two source means in the balanced design.

    sqrt(2 s_w^2 / (P k T) + 2 s_ps^2 / P + 2 s_stream^2 / T), the last term only where T > 1.

    Examples
    --------
    >>> round(contrast_se(Components(), Size(prompts=30, samples=10)), 5)
    0.08165
    """
    P, k, T = size.prompts, size.samples, size.streams
    stream = components.stream / T if T > 1 else 0.0
    return math.sqrt(2.0 * (components.within / (P * k * T) + components.prompt_source / P + stream))


def contrast_df(components: Components, size: Size) -> float:
    """Degrees of freedom of `contrast_se` when estimated: (k-1)(P-1), Satterthwaite's with streams.

    Examples
    --------
    >>> contrast_df(Components(), Size(prompts=30, samples=10))
    58.0
    """
    P, k, T, S = size.prompts, size.samples, size.streams, size.groups
    df_ps = float((S - 1) * (P - 1))
    if T == 1:
        return df_ps
    ms_e = components.within
    ms_ps = ms_e + k * T * components.prompt_source
    ms_st = ms_e + k * P * components.stream
    df_st, df_e = S * (T - 1), P * S * T * k - P * S - S * (T - 1)
    return (ms_ps + ms_st - ms_e) ** 2 / (ms_ps**2 / df_ps + ms_st**2 / df_st + ms_e**2 / df_e)


def two_sided_power(effect: float, se: float, df: float = math.inf, alpha: float = 0.05) -> float:
    """Chance that a two-sided t test of one difference rejects, by the noncentral t.

    References
    ----------
    Witness: R's `power.t.test(strict = TRUE)`.

    Examples
    --------
    >>> round(two_sided_power(2.8016, 1.0), 4)
    0.8
    """
    _check(se, alpha)
    ratio = effect / se
    t = -_t_quantile(alpha / 2.0, df)
    s, weight = scale_grid(df)
    power = float(weight @ (special.ndtr(ratio - t * s) + special.ndtr(-ratio - t * s)))
    return min(1.0, power)  # the weights sum to 1 within 1e-14


def minimum_detectable_effect(
    se: float, df: float = math.inf, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest difference that a two-sided t test finds with the given power.

    Examples
    --------
    In within-cell SD: 15 prompts x 5 samples, 30 x 10 and 30 x 20.

    >>> sizes = [Size(prompts=15, samples=5), Size(prompts=30, samples=10), Size(prompts=30, samples=20)]
    >>> [round(minimum_detectable_effect(contrast_se(Components(), size)), 2) for size in sizes]
    [0.46, 0.23, 0.16]
    """
    _check(se, alpha)
    return _t_ratio(_digits(df), _digits(alpha), power) * se


def detection_power(
    effect: float, se: float, df: float, alpha: float, *, groups: int = 3, metrics: int = 1
) -> float:
    """Chance that the decision rule says DETECTED when the extreme sources differ by `effect`.

    The rule: the omnibus F rejects at alpha / metrics (Holm's first step, the other metrics being null) and a
    Tukey interval at level 1 - alpha excludes zero. The other sources lie midway, where the omnibus F has
    least power. With two sources this is the t test. Evaluated on 2^12 Sobol points for
    the means, exactly over the estimated SD; error about .001.

    With one stream a source, simulated rates agree within .01 at every look. With several, df is itself an
    approximation, and at the strict levels of early looks the promise is too high where nothing varies
    between streams or prompts: .01, .19 and .96 simulated (30 prompts, 5 streams) for .05, .31 and .96.

    Examples
    --------
    >>> p = detection_power(0.2, contrast_se(Components(), Size(prompts=30, samples=40)), 58.0, 0.05)
    >>> round(p, 3)
    0.993
    """
    _check(se, alpha)
    means = np.zeros(groups)
    means[0], means[-1] = -0.5, 0.5
    z = _normals(groups) + (math.sqrt(2.0) * effect / se * means)[:, None]
    squares = ((z - z.mean(axis=0)) ** 2).sum(axis=0) / (groups - 1)
    f = float(scipy.stats.f.isf(alpha / metrics, groups - 1, min(df, 1e9)))  # the F quantile takes no inf
    q = studentized_range_isf(alpha, groups, df)
    spread = z.max(axis=0) - z.min(axis=0)
    s = np.minimum(np.sqrt(squares / f), spread / q)  # both reject when the estimated SD is below s
    if math.isinf(df):
        return float(np.mean(s > 1.0))
    return float(np.mean(special.gammainc(0.5 * df, 0.5 * df * s**2)))


def detectable_effect(
    se: float, df: float, alpha: float, *, groups: int = 3, metrics: int = 1, power: float = 0.8
) -> float:
    """Smallest effect that `detection_power` finds with the given power.

    Examples
    --------
    >>> effect = detectable_effect(0.05, 58.0, 0.05)
    >>> round(detection_power(effect, 0.05, 58.0, 0.05), 2)
    0.8
    """
    return _rule_ratio(_digits(df), _digits(alpha), groups, metrics, power) * se


def chance_null_equivalent(
    se: float, margin: float, df: float = math.inf, alpha: float = 0.05, *, groups: int = 3, metrics: int = 3
) -> float:
    """Chance that every contrast of every metric passes the equivalence test when no source differs.

    All pairs of one metric pass when the range of the means stays below margin - t s; metrics are taken as
    independent, which is the worst case.

    Examples
    --------
    All nine contrasts of three sources and three metrics, 30 prompts:

    >>> se = [contrast_se(Components(), Size(prompts=30, samples=k)) for k in (10, 20, 40)]
    >>> [round(chance_null_equivalent(x, 0.2), 2) for x in se]
    [0.03, 0.59, 0.99]
    """
    _check(se, alpha)
    t = -_t_quantile(alpha, df)
    s, weight = scale_grid(df)
    room = np.maximum(0.0, math.sqrt(2.0) * (margin / se - t * s))
    return float(weight @ (1.0 - range_sf(room, groups))) ** metrics


def settles(
    components: Components, size: Size, *, margin: float, alpha: float, metrics: int, power: float = 0.8
) -> bool:
    """Would this size tell either truth with the given power?

    Either truth: an effect at the margin is DETECTED, and no effect at all is EQUIVALENT in every contrast of
    every metric.

    Examples
    --------
    >>> sizes = [Size(prompts=30, samples=20), Size(prompts=30, samples=40)]
    >>> [settles(Components(), size, margin=0.2, alpha=0.05, metrics=3) for size in sizes]
    [False, True]
    """
    se, df = contrast_se(components, size), contrast_df(components, size)
    return (
        chance_null_equivalent(se, margin, df, alpha, groups=size.groups, metrics=metrics) >= power
        and detection_power(margin, se, df, alpha, groups=size.groups, metrics=metrics) >= power
    )


def samples_to_settle(
    components: Components, size: Size, *, margin: float, alpha: float, metrics: int
) -> int | None:
    """Fewest samples a cell with which `size` settles, at power .8; those in `size` are not used.

    None where no number of samples does it, because prompts or streams vary too much: then more prompts or
    more streams are needed (`prompts_to_settle`).

    Examples
    --------
    >>> samples_to_settle(Components(), Size(prompts=30, samples=1), margin=0.2, alpha=0.05, metrics=3)
    26
    >>> wide = Components(prompt_source=0.3)
    >>> samples_to_settle(wide, Size(prompts=30, samples=1), margin=0.2, alpha=0.05, metrics=3) is None
    True
    """
    if size.streams == 1:  # df does not depend on the samples: one bound on margin / se serves them all
        df = contrast_df(components, size)
        bound = _settling_ratio(_digits(df), _digits(alpha), size.groups, metrics)
        return _fewest(lambda n: margin / contrast_se(components, replace(size, samples=n)) >= bound, 1)
    return _fewest(
        lambda n: settles(components, replace(size, samples=n), margin=margin, alpha=alpha, metrics=metrics),
        1,
    )


def prompts_to_settle(
    components: Components, size: Size, *, margin: float, alpha: float, metrics: int
) -> int | None:
    """Fewest prompts with which `size` settles, at power .8; those in `size` are not used.

    None where no number of prompts does it, because streams vary too much.

    Examples
    --------
    >>> wide = Components(prompt_source=0.3)
    >>> prompts_to_settle(wide, Size(prompts=30, samples=20), margin=0.2, alpha=0.05, metrics=3)
    259
    """
    return _fewest(
        lambda n: settles(components, replace(size, prompts=n), margin=margin, alpha=alpha, metrics=metrics),
        2,
    )


def _fewest(enough: Callable[[int], bool], least: int) -> int | None:
    """Smallest number from `least` on that is enough, None where MOST_UNITS is not."""
    if not enough(MOST_UNITS):
        return None
    high = least
    while not enough(high):
        high *= 2
    low = max(least, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def observed_power(estimate: float, se: float, df: float, alpha: float = 0.05) -> float:
    """Power computed at the estimate itself: a function of p alone, so it adds nothing to it. Reported only.

    Examples
    --------
    An estimate exactly at the edge of significance has observed power of about one half.

    >>> round(observed_power(2.0017, 1.0, 58.0), 2)
    0.5
    """
    return two_sided_power(abs(estimate), se, df, alpha)


def _check(se: float, alpha: float) -> None:
    if not se > 0.0:
        raise ValueError(f"se = {se}; a standard error must be above 0")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; must lie between 0 and 1")


@lru_cache(maxsize=16)
def _normals(groups: int) -> FloatArray:
    """(groups, m) standard normals, evenly spread and the same in every run."""
    points = scipy.stats.qmc.Sobol(groups, rng=np.random.default_rng(20_261_101)).random_base2(12)
    return np.ascontiguousarray(special.ndtri(points).T)


def _t_quantile(p: float, df: float) -> float:
    return float(special.ndtri(p) if math.isinf(df) else special.stdtrit(df, p))


def _digits(value: float) -> float:
    return float(f"{value:.8g}")  # so that rounding errors do not defeat the caches below


@lru_cache(maxsize=4096)
def _t_ratio(df: float, alpha: float, power: float) -> float:
    return _smallest(lambda ratio: two_sided_power(ratio, 1.0, df, alpha), power)


@lru_cache(maxsize=4096)
def _settling_ratio(df: float, alpha: float, groups: int, metrics: int) -> float:
    """Smallest margin over standard error with which `settles` holds at power .8."""
    null = _smallest(
        lambda ratio: chance_null_equivalent(1.0, ratio, df, alpha, groups=groups, metrics=metrics), 0.8
    )
    return max(null, _rule_ratio(df, alpha, groups, metrics, 0.8))


@lru_cache(maxsize=4096)
def _rule_ratio(df: float, alpha: float, groups: int, metrics: int, power: float) -> float:
    return _smallest(
        lambda ratio: detection_power(ratio, 1.0, df, alpha, groups=groups, metrics=metrics), power
    )


def _smallest(chance: Callable[[float], float], power: float) -> float:
    """Effect over standard error at which `chance` reaches `power`."""
    if not 0.0 < power < 1.0:
        raise ValueError(f"power = {power}; must lie between 0 and 1")
    high = 4.0
    while chance(high) < power:
        high *= 2.0
        if high > 1e6:
            raise ValueError(f"no effect is found with power {power}")
    low = 0.0
    if chance(low) >= power:
        raise ValueError(f"power {power} is reached without any effect; ask for more than alpha")
    ratio: float = scipy.optimize.brentq(lambda x: chance(x) - power, low, high, xtol=1e-6)
    return ratio
