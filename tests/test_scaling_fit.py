"""The power law over sizes: nls's coefficients, exact data, bounds, and what the draws do not tell."""

from __future__ import annotations

import numpy as np
import pytest

from stats.aligned_bootstrap import Interval
from stats.rows import FloatArray
from stats.scaling_fit import LEAST, MOST, ScalingFit, power_law, scaling_fit
from stats.two_way_bootstrap import Crossed, crossed
from tests.from_r import congruential, printed

R = printed("scaling_fit.txt")
INTERVALS = printed("scaling_intervals.txt")
X = np.array([300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0])
K = np.arange(1.0, 7.0)
LAW = 0.75 - 0.5 * (X / 300.0) ** -0.6
CURVES = {
    "exact": (X, LAW),
    "noisy": (X, LAW + 0.02 * np.sin(7.0 * K)),
    "no_floor": (X, 1.0 - 0.8 * (X / 300.0) ** -0.15 - 0.03 * K**0.3 + 0.01 * np.cos(3.0 * K)),
    "five": (X[:5], np.array([0.18, 0.27, 0.35, 0.39, 0.41])),
}
STUDIES = {
    "law": (LAW, 0.12),
    "slow": (0.9 - 0.75 * (X / 300.0) ** -0.2, 0.08),
    "step": (np.array([0.2, 0.6, 0.6, 0.6, 0.6, 0.6]) + 0.002 * np.sin(5.0 * K), 0.1),
    "flat": (0.5 - 0.06 * (X / 300.0) ** -0.5, 0.12),
}
"""Metric at each size, and how far cells stray from it."""


def rss(x: FloatArray, y: FloatArray, floor: float, a: float, b: float) -> float:
    rest = 1.0 - y - floor - a * (x / x[0]) ** -b
    return float(rest @ rest)


@pytest.mark.parametrize("name", CURVES)
def test_coefficients_are_those_of_nls(name: str) -> None:
    x, y = CURVES[name]
    found = [float(value[0]) for value in power_law(x, y[None, :])]
    assert found == pytest.approx([R[f"{name}_{part}"] for part in ("floor", "a", "b")], rel=1e-5)
    assert rss(x, y, *found) <= R[f"{name}_rss"] * (1.0 + 1e-9) + 1e-15


def same_study_as_r(name: str) -> ScalingFit:
    """The law of `scaling_intervals.R`'s shares and draws."""
    law, noise = STUDIES[name]
    s, w = np.ogrid[1:6, 1:8]
    sizes = 1.0 + np.arange(7) % 4
    level = 0.03 * np.sin(3 * s) + 0.05 * np.sin(5 * w)
    cells = [y + level + noise * np.sin(2.1 * s * w + 7 * k) for k, y in zip(K, law, strict=True)]
    data = [Crossed(totals=sizes * share, sizes=sizes, scale=1.0) for share in cells]
    return scaling_fit(X.tolist(), data, rng=congruential(), resamples=400)


@pytest.mark.parametrize("name", STUDIES)
def test_the_law_of_every_resample_and_its_percentiles_are_those_of_nls(name: str) -> None:
    found = same_study_as_r(name)
    of_data = (*(float(x[0]) for x in (found.floor, found.scale, found.exponent)), found.residual_sd)
    wanted = [INTERVALS[f"{name}_{part}"] for part in ("floor", "a", "b", "residual_sd")]
    assert of_data == pytest.approx(wanted, rel=5e-7)
    lists: dict[str, Interval] = {
        "asymptote": found.asymptote(),
        "predicted_1200": found.predicted(1200.0),
        "predicted_38400": found.predicted(38_400.0),
        "doubling": found.doubling(),
    }
    for what, interval in lists.items():
        ends = [INTERVALS[f"{name}_{what}_{end}"] for end in ("estimate", "low", "high")]
        assert [interval.estimate, interval.low, interval.high] == pytest.approx(ends, rel=5e-7, abs=1e-12)
        assert interval.reason is None


@pytest.mark.parametrize("name", STUDIES)
def test_percentiles_of_the_exponent_are_those_of_nls_and_none_where_nls_ends_at_a_bound(name: str) -> None:
    found = same_study_as_r(name)
    interval = found.exponent_interval()
    estimate, low, high = (INTERVALS[f"{name}_exponent_{end}"] for end in ("estimate", "low", "high"))
    assert interval.estimate == pytest.approx(estimate, rel=5e-7)
    assert interval.low == (None if low == LEAST else pytest.approx(low, rel=5e-7))
    assert interval.high == (None if high == MOST else pytest.approx(high, rel=5e-7))
    floor, scale, exponent = found.floor[1:], found.scale[1:], found.exponent[1:]
    at_end = np.isclose(exponent, MOST, rtol=1e-6) | np.isclose(exponent, LEAST, rtol=1e-6)
    assert int((floor == 0.0).sum()) == INTERVALS[f"{name}_draws_without_floor"]
    assert int((scale == 0.0).sum()) == INTERVALS[f"{name}_draws_that_do_not_rise"]
    assert int((at_end & (scale > 0.0)).sum()) == INTERVALS[f"{name}_draws_at_an_end"]


def test_floor_and_scale_stay_at_or_above_zero() -> None:
    falls = power_law(X, LAW[None, ::-1])
    assert float(falls[1][0]) == 0.0
    concave = 1.0 - 0.9 * (1.0 - 0.15 * (K - 1.0))  # an error falling in a straight line of log size
    floor, a, b = power_law(X, concave[None, :])
    assert (float(floor[0]), float(a[0]) > 0.0) == (0.0, True)
    assert float(b[0]) > LEAST


def tables(curve: FloatArray, *, seeds: int = 10, seed: int = 0, items: int = 540) -> list[Crossed]:
    rng, lemmas = np.random.default_rng(seed), np.arange(items) // 9
    return [crossed((rng.random((seeds, items)) < p).astype(float), lemmas) for p in curve]


def fit(curve: FloatArray = LAW, *, seeds: int = 10, seed: int = 0) -> ScalingFit:
    return scaling_fit(X.tolist(), tables(curve, seeds=seeds, seed=seed), rng=np.random.default_rng(1))


def test_the_unit_of_size_changes_nothing_but_sizes() -> None:
    data = tables(LAW)
    one = scaling_fit(X.tolist(), data, rng=np.random.default_rng(1))
    other = scaling_fit((1000.0 * X).tolist(), data, rng=np.random.default_rng(1))
    assert one.exponent_interval() == other.exponent_interval()
    assert other.predicted(2e7).estimate == pytest.approx(one.predicted(2e4).estimate)
    assert one.size_for(0.6) == pytest.approx((other.size_for(0.6) or 0.0) / 1000.0)


def test_predictions_invert_and_stop_at_the_asymptote() -> None:
    found = fit()
    top = found.asymptote().estimate
    assert top is not None
    size = found.size_for(0.65)
    assert size is not None
    assert found.predicted(size).estimate == pytest.approx(0.65)
    assert found.size_for(top + 1e-6) is None
    gain = found.doubling()
    assert gain.estimate == pytest.approx(
        (found.predicted(2 * X[-1]).estimate or 0.0) - (found.predicted(X[-1]).estimate or 0.0)
    )
    assert gain.low is not None
    assert gain.low > 0.0
    assert found.residual_sd < 0.02


def test_equal_draws_give_equal_intervals_and_more_seeds_shorter_ones() -> None:
    assert fit().exponent_interval() == fit().exponent_interval()
    width = []
    for seeds in (4, 40):
        found = fit(seeds=seeds).predicted(X[-1])
        assert found.low is not None
        assert found.high is not None
        width.append(found.high - found.low)
    assert width[1] < width[0]


def test_a_metric_that_does_not_rise_has_no_exponent_and_says_so() -> None:
    falling = fit(LAW[::-1])
    for found in (falling.exponent_interval(), falling.asymptote()):
        assert (found.estimate, found.low) == (None, None)
        assert "does not rise with size" in str(found.reason)
    assert falling.size_for(0.9) is None
    flat = fit(np.full(6, 0.4), seed=3).exponent_interval()
    assert flat.reason is not None


def test_an_exponent_that_the_draws_do_not_bound_has_no_end_there() -> None:
    """All of the gain in one step: any large exponent fits."""
    found = fit(np.array([0.2, 0.6, 0.6, 0.6, 0.6, 0.6])).exponent_interval()
    assert found.high is None
    assert found.low is not None
    assert found.reason == f"not bounded above within {LEAST:g} to {MOST:g}"


def test_few_seeds_have_a_law_and_no_interval() -> None:
    found = fit(seeds=2)
    assert found.exponent_interval().estimate is not None
    assert found.exponent_interval().low is None
    assert found.predicted(1e5).reason == "2 seeds x 60 lemmas; an interval needs 3 x 5"


def test_designs_that_tell_no_law_are_refused() -> None:
    data, rng = tables(LAW), np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least 5"):
        scaling_fit(X[:4].tolist(), data[:4], rng=rng)
    with pytest.raises(ValueError, match="must ascend"):
        scaling_fit(X[::-1].tolist(), data, rng=rng)
    with pytest.raises(ValueError, match=r"size 9600\.0: other seeds or items"):
        scaling_fit(X.tolist(), [*data[:5], tables(LAW[:1], seeds=9)[0]], rng=rng)
    with pytest.raises(ValueError, match="shares outside 0 to 1"):
        scaling_fit(X.tolist(), [crossed(np.full((10, 60), 1.5), range(60))] * 6, rng=rng)
    with pytest.raises(ValueError, match="must be above 0"):
        fit().predicted(0.0)
