"""Lead and lag, and alarms: R's numbers, the direction of lags, what is left out, and error rates."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from stats.early_warning import early_warning_rows, trailing_z
from stats.lead_lag import cross_correlation, detrended, lead_lag_rows, mirrored
from stats.regime_series import Occurrence, RunSeries
from stats.rows import FloatArray, TestRow

REFERENCE = Path(__file__).parent / "reference" / "lead_lag.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
LAGS = range(-4, 5)


def r_pair(s: int) -> tuple[FloatArray, FloatArray]:
    """Effect and loss of a seed as `lead_lag.R` makes them."""
    t = np.arange(40.0)
    x = np.sin(0.9 * t * s) + 0.05 * t + np.cos(t**2)
    return x, np.sin(0.9 * (t - 2) * s) - 0.03 * t + np.sin(t**2 + s)


def run(seed: int, effect: FloatArray, loss: FloatArray, every: int = 1) -> RunSeries:
    """A run whose effect is known at every so many steps; entropy is the loss turned over."""
    sparse = np.full(len(effect) * every, np.nan)
    sparse[::every] = effect
    whole = np.repeat(loss, every)
    channels = {"effect_kl_nats": sparse, "loss_nats": whole, "entropy_nats": -whole}
    return RunSeries(seed=seed, channels=channels, occurrences=())


def autoregression(rng: np.random.Generator, phi: float, n: int) -> FloatArray:
    return np.asarray(lfilter([1.0], [1.0, -phi], rng.normal(size=n + 300))[300:], dtype=np.float64)


def loss_rows(runs: list[RunSeries], max_lag: int = 4, shifts: int = 99, first: int = 0) -> list[TestRow]:
    return lead_lag_rows(
        runs,
        rng=np.random.default_rng(0),
        against=("loss_nats",),
        max_lag=max_lag,
        first=first,
        shifts=shifts,
    )


def test_correlations_are_those_of_r() -> None:
    for s in (1, 2, 3):
        expected = [R[f"r_{s}_{k}"] for k in LAGS]
        assert cross_correlation(*r_pair(s), max_lag=4) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("every", [1, 5])
def test_means_over_seeds_and_their_p_are_those_of_r(every: int) -> None:
    rows = loss_rows([run(s, *r_pair(s), every=every) for s in (1, 2, 3)])
    assert [row.contrast for row in rows] == [f"lag {k}" for k in LAGS]
    assert [row.estimate for row in rows] == pytest.approx(
        [R[f"mean_{k}"] for k in LAGS], rel=1e-9, abs=1e-12
    )
    assert [row.p for row in rows] == pytest.approx([R[f"p_{k}"] for k in LAGS], rel=1e-9)
    assert [row.p_adjusted for row in rows] == pytest.approx([R[f"holm_{k}"] for k in LAGS], rel=1e-9)
    assert {(row.family, row.hypothesis, row.role, row.n) for row in rows} == {
        ("lead_lag", "cross_correlation", "diagnostic", 3)
    }


def test_a_positive_lag_means_that_the_effect_comes_first() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for seed in range(4):
        effect = rng.normal(size=80)
        runs.append(run(seed, effect, np.roll(effect, 3) + 0.3 * rng.normal(size=80)))
    rows = loss_rows(runs)
    best = max(rows, key=lambda row: row.estimate or 0.0)
    assert best.contrast == "lag 3"
    assert best.p_adjusted is not None
    assert best.p_adjusted < 0.05
    assert [row.contrast for row in rows if (row.estimate or 0.0) > 2 * (row.high or 0.0)] == ["lag 3"]


def test_swapping_the_series_turns_the_lags_round_and_a_line_changes_nothing() -> None:
    x, y = r_pair(2)
    found = cross_correlation(x, y, max_lag=4)
    assert cross_correlation(y, x, max_lag=4) == pytest.approx(found[::-1])
    assert cross_correlation(5.0 * x + 0.7 * np.arange(40.0) - 3.0, y, max_lag=4) == pytest.approx(found)
    assert cross_correlation(-x, y, max_lag=4) == pytest.approx(-found)
    assert cross_correlation(x, x, max_lag=0) == pytest.approx([1.0])
    assert detrended(3.0 + 2.0 * np.arange(9.0)) == pytest.approx(np.zeros(9), abs=1e-12)


def test_a_mirrored_circle_has_no_jump() -> None:
    x = np.linspace(0.0, 1.0, 30)
    copies = mirrored(x, 200, np.random.default_rng(0))
    assert np.abs(np.diff(copies, axis=1)).max() <= 1 / 29 + 1e-12
    assert set(np.unique(copies)) <= set(x.tolist())


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (np.arange(9.0), np.ones(10), "pass equal lengths"),
        (np.arange(9.0) ** 2, np.arange(9.0) ** 2, "of 10 or more"),
        (np.arange(12.0) ** 2, np.append(np.zeros(11), np.nan), "probed steps alone"),
        (np.arange(12.0) ** 2, np.arange(12.0), "straight line"),
    ],
)
def test_series_that_have_no_correlation_are_refused(x: FloatArray, y: FloatArray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cross_correlation(x, y, max_lag=4)


def test_seeds_that_cannot_be_used_are_named_and_a_metric_without_any_keeps_a_row() -> None:
    x, y = r_pair(1)
    flat, short = run(7, np.ones(40), y), run(8, x[:8], y[:8])
    uneven = run(9, x, y)
    uneven.channels["effect_kl_nats"][5] = np.nan
    rows = loss_rows([run(1, *r_pair(1)), run(2, *r_pair(2)), flat, short, uneven])
    assert len(rows) == 9
    assert rows[0].n == 2
    assert rows[0].reason == (
        "seed 7: effect_kl_nats is constant or a straight line; seed 8: 8 probes, 10 are the fewest for 4 "
        "lags; seed 9: probes are not evenly spaced"
    )
    (none,) = loss_rows([flat])
    assert (none.metric, none.contrast, none.estimate) == ("effect_kl_nats~loss_nats", "*", None)
    vanilla = RunSeries(seed=0, channels={"loss_nats": y}, occurrences=())
    assert loss_rows([vanilla])[0].reason == "seed 0: no effect_kl_nats or no loss_nats"
    alone = loss_rows([run(1, *r_pair(1))])
    assert alone[0].p is None
    assert alone[0].low is not None
    assert alone[0].reason == "1 seed; an interval over seeds needs two or more"


def test_the_first_tenth_is_left_out() -> None:
    x, y = r_pair(1)
    spiked = x.copy()
    spiked[:4] = 1000.0
    kept = lead_lag_rows([run(1, x, y)], rng=np.random.default_rng(0), max_lag=2, shifts=9)
    moved = lead_lag_rows([run(1, spiked, y)], rng=np.random.default_rng(0), max_lag=2, shifts=9)
    assert kept == moved


def test_independent_series_are_rarely_significant_and_mostly_inside_the_band() -> None:
    rng = np.random.default_rng(1)
    trials, small, outside = 120, 0, 0
    for _ in range(trials):
        runs = [run(s, autoregression(rng, 0.9, 60), autoregression(rng, 0.9, 60)) for s in range(5)]
        middle = loss_rows(runs, max_lag=1, shifts=79)[1]
        small += (middle.p or 1.0) <= 0.05
        outside += not (middle.low or 0.0) <= (middle.estimate or 0.0) <= (middle.high or 0.0)
    spread = math.sqrt(0.05 * 0.95 / trials)
    assert small / trials < 0.05 + 4.0 * spread
    assert outside / trials < 0.07 + 4.0 * spread


def alarm_run(seed: int) -> RunSeries:
    """The 60 steps of `lead_lag.R`, s = seed."""
    step = np.arange(60)
    v = np.sin(2.3 * step * seed) + 1.5 * ((step >= 40) & (step < 48) & (step % 2 == 0))
    v[step % 7 == 3] = np.nan
    window = Occurrence(regime="fog", number=0, start=40, end=48, twin={})
    return RunSeries(seed=seed, channels={"self_delta": v}, occurrences=(window,))


def warnings(runs: list[RunSeries], **options: float) -> dict[tuple[str, str], TestRow]:
    settings = {"threshold": 1.2, "reference": 12, "fewest": 5, "shifts": 199, **options}
    rows = early_warning_rows(runs, rng=np.random.default_rng(0), channels={"self_delta": 1}, **settings)  # type: ignore[arg-type]
    return {(row.hypothesis, row.metric): row for row in rows}


@pytest.mark.parametrize("seed", [1, 2])
def test_alarms_are_those_that_r_counts(seed: int) -> None:
    one = alarm_run(seed)
    z = trailing_z(one.channels["self_delta"], one.clean, reference=12, fewest=5)
    assert np.nansum(z) == pytest.approx(R[f"z_{seed}"], rel=1e-9)
    found = warnings([one])
    for metric in ("precision", "recall", "base_rate"):
        row = found[("early_warning", metric)]
        assert row.estimate == pytest.approx(R[f"{metric}_{seed}"], rel=1e-9)
        assert (row.contrast, row.role) == ("self_delta", "diagnostic")


def test_the_mean_over_seeds_is_the_seeds_and_its_interval_stays_between_0_and_1() -> None:
    found = warnings([alarm_run(1), alarm_run(2)])
    row = found[("early_warning", "precision")]
    assert row.estimate == pytest.approx((R["precision_1"] + R["precision_2"]) / 2)
    assert all(0.0 <= (r.low or 0.0) <= (r.high or 0.0) <= 1.0 for r in found.values())
    assert found[("early_warning", "base_rate")].p is None
    assert found[("early_warning_shifted", "recall")].estimate is not None


def test_windows_and_values_to_come_never_enter_a_reference() -> None:
    one = alarm_run(1)
    v, clean = one.channels["self_delta"], one.clean
    changed = v.copy()
    changed[~clean] = 50.0
    changed[55:] = -50.0
    before = trailing_z(v, clean, reference=12, fewest=5)
    after = trailing_z(changed, clean, reference=12, fewest=5)
    untouched = clean & (np.arange(60) < 55)
    np.testing.assert_array_equal(before[untouched], after[untouched])


def test_a_reference_that_is_short_or_flat_judges_nothing() -> None:
    v = np.append(np.full(20, 3.1), 9.0)
    clean = np.ones(21, dtype=np.bool_)
    assert np.isnan(trailing_z(v, clean)).all()
    v[:20] += np.arange(20) % 2
    assert np.flatnonzero(np.isfinite(trailing_z(v, clean))).tolist() == list(range(10, 21))
    assert np.isnan(trailing_z(v[:9], clean[:9])).all()
    with pytest.raises(ValueError, match="2 <= fewest <= reference"):
        trailing_z(v, clean, fewest=1)


def test_no_alarm_has_no_precision_and_a_recall_of_0() -> None:
    found = warnings([alarm_run(1), alarm_run(2)], threshold=99.0)
    assert found[("early_warning", "precision")].reason == "no step alarmed"
    assert found[("early_warning", "recall")].estimate == 0.0
    assert found[("early_warning", "recall")].p == 1.0
    missing = early_warning_rows([alarm_run(1)], rng=np.random.default_rng(0), channels={"gate": 1})
    assert [row.reason for row in missing] == ["no step with a z of gate"] * 3


def test_an_alarm_downwards_is_the_alarm_upwards_of_the_negative() -> None:
    one = alarm_run(1)
    turned = RunSeries(
        seed=1, channels={"self_delta": -one.channels["self_delta"]}, occurrences=one.occurrences
    )
    told = {"threshold": 1.2, "reference": 12, "fewest": 5}
    up = early_warning_rows([one], rng=np.random.default_rng(0), channels={"self_delta": 1}, **told)  # type: ignore[arg-type]
    down = early_warning_rows([turned], rng=np.random.default_rng(0), channels={"self_delta": -1}, **told)  # type: ignore[arg-type]
    assert up == down


def test_a_horizon_counts_the_steps_before_a_window() -> None:
    near, far = warnings([alarm_run(1)]), warnings([alarm_run(1)], horizon=5)
    key = ("early_warning", "base_rate")
    assert (far[key].estimate or 0.0) > (near[key].estimate or 0.0)


def test_alarms_of_noise_are_seldom_significant_and_those_of_windows_always() -> None:
    rng = np.random.default_rng(2)
    window = Occurrence(regime="fog", number=0, start=100, end=130, twin={})

    def p(shift: float) -> float:
        runs = []
        for seed in range(3):
            v = autoregression(rng, 0.5, 160)
            v[100:130] += shift
            runs.append(RunSeries(seed=seed, channels={"self_delta": v}, occurrences=(window,)))
        row = warnings(runs, reference=40, fewest=10, threshold=2.0)[("early_warning", "recall")]
        return 1.0 if row.p is None else row.p

    trials = 150
    small = sum(p(0.0) <= 0.05 for _ in range(trials))
    assert small / trials < 0.05 + 4.0 * math.sqrt(0.05 * 0.95 / trials)
    assert all(p(8.0) <= 0.05 for _ in range(5))
