"""Regime deltas against R, against values known by hand, and what they keep under the null."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.regime_deltas import regime_delta_rows, window_delta
from stats.regime_series import Occurrence, RunSeries
from stats.rows import FloatArray, TestRow

REFERENCE = Path(__file__).parent / "reference" / "regime_deltas.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
WINDOWS = (("fog", 0, 10, 15), ("heat", 0, 25, 30), ("fog", 1, 40, 44))
CHANNELS = ("1", "2")


def of_r(seed: int) -> RunSeries:
    t = np.arange(60.0)
    twins = {c: np.cos(1.1 * t * int(c) + 0.9 * seed) - 0.2 * int(c) for c in CHANNELS}
    return RunSeries(
        seed=seed,
        channels={
            c: 0.02 * t * int(c) + np.sin(2.3 * t * int(c) + 1.7 * seed) + 0.1 * seed for c in CHANNELS
        },
        occurrences=tuple(
            Occurrence(
                regime=regime,
                number=number,
                start=start,
                end=end,
                twin={c: twin[start:] for c, twin in twins.items()},  # longer than the window, as allowed
            )
            for regime, number, start, end in WINDOWS
        ),
    )


def one_window(
    values: FloatArray, twin: FloatArray | None, *, start: int = 4, seed: int = 0, end: int = 0
) -> RunSeries:
    window = Occurrence(
        regime="fog",
        number=0,
        start=start,
        end=end or len(values),
        twin={} if twin is None else {"loss_nats": twin},
    )
    return RunSeries(seed=seed, channels={"loss_nats": values}, occurrences=(window,))


def by_hypothesis(rows: list[TestRow]) -> dict[str, TestRow]:
    return {row.hypothesis: row for row in rows}


def test_estimates_intervals_p_effects_and_holm_are_those_of_r() -> None:
    rows = regime_delta_rows([of_r(seed) for seed in range(4)], CHANNELS, alpha=0.05, before=6)
    assert len(rows) == 8
    for against in ("before", "twin"):
        of = [row for row in rows if row.hypothesis == f"against_{against}"]
        assert [(row.contrast, row.metric) for row in of] == [
            (r, c) for r in ("fog", "heat") for c in CHANNELS
        ]
        for place, row in enumerate(of, start=1):
            name = f"{against}_{row.contrast}_{row.metric}"
            found = (row.estimate, row.low, row.high, row.statistic, row.p, row.effect, row.p_adjusted)
            wanted = [R[f"{what}_{name}"] for what in ("estimate", "low", "high", "t", "p", "effect")]
            assert found == pytest.approx([*wanted, R[f"holm_{against}_{place}"]], rel=1e-9)
            assert (row.n, row.role, row.family) == (4, "secondary", "regime_deltas")
    assert rows[0].method == "t over seeds of means over 2 occurrences"


def test_a_twin_that_is_the_same_bit_for_bit_gives_exactly_zero() -> None:
    rng = np.random.default_rng(0)
    series = []
    for seed in range(3):
        loss = rng.normal(size=30)
        series.append(one_window(loss, loss[10:].copy(), start=10, seed=seed))
    row = by_hypothesis(regime_delta_rows(series, ["loss_nats"], alpha=0.05))["against_twin"]
    assert (row.estimate, row.effect, row.p) == (0.0, 0.0, None)
    assert row.reason is not None
    assert "do not vary" in row.reason


def test_undefined_steps_are_left_out_on_both_sides_against_the_twin() -> None:
    nan = np.nan
    run = one_window(np.array([1.0, 3.0, nan, 2.0, 10.0, nan, 12.0]), np.array([4.0, 5.0, nan]))
    rows = by_hypothesis(regime_delta_rows([run], ["loss_nats"], alpha=0.05))
    assert rows["against_before"].estimate == pytest.approx(11.0 - 2.0)  # 1, 3, 2 before
    assert rows["against_twin"].estimate == pytest.approx(10.0 - 4.0)


def test_one_seed_gives_an_estimate_and_a_reason_for_no_interval() -> None:
    rows = regime_delta_rows([of_r(0)], CHANNELS, alpha=0.05)
    assert all(row.estimate is not None and row.low is None and row.p is None for row in rows)
    assert all("two or more" in (row.reason or "") for row in rows)


@pytest.mark.parametrize(
    ("run", "hypothesis", "reason"),
    [
        (one_window(np.arange(8.0), None), "against_twin", "no twin"),
        (one_window(np.arange(8.0), np.full(4, np.nan)), "against_twin", "no step with a value"),
        (
            one_window(np.arange(8.0), np.arange(4.0), start=0, end=4),
            "against_before",
            "no clean step before",
        ),
        (one_window(np.append(np.zeros(4), [np.nan] * 4), np.zeros(4)), "against_before", "in the window"),
        (
            one_window(np.append([np.nan] * 4, np.zeros(4)), np.zeros(4)),
            "against_before",
            "in the clean steps before",
        ),
    ],
)
def test_what_cannot_be_computed_is_a_row_with_a_reason(run: RunSeries, hypothesis: str, reason: str) -> None:
    row = by_hypothesis(regime_delta_rows([run], ["loss_nats"], alpha=0.05))[hypothesis]
    assert (row.estimate, row.p, row.p_adjusted) == (None, None, None)
    assert reason in (row.reason or "")


def test_a_channel_that_the_run_or_the_twin_lacks_is_a_row_with_a_reason() -> None:
    run = one_window(np.arange(8.0), np.arange(4.0))
    rows = regime_delta_rows([run], ["gate"], alpha=0.05)
    assert [row.reason for row in rows] == ["the run has no such channel"] * 2
    with_gate = replace(run, channels={**run.channels, "gate": np.arange(8.0)})
    row = by_hypothesis(regime_delta_rows([with_gate], ["gate"], alpha=0.05))["against_twin"]
    assert row.reason == "the twin has no such channel"


def test_abutting_windows_have_no_clean_step_before_the_second() -> None:
    run = of_r(0)
    first, second = (
        replace(run.occurrences[0], start=10, end=15),
        replace(run.occurrences[0], regime="heat", start=15, end=20),
    )
    rows = regime_delta_rows([replace(run, occurrences=(first, second))], ["1"], alpha=0.05)
    before = {row.contrast: row for row in rows if row.hypothesis == "against_before"}
    assert before["fog"].estimate is not None
    assert before["heat"].reason == "no clean step before the window"


def test_seeds_and_windows_that_lack_a_value_are_left_out_and_counted() -> None:
    whole, part = of_r(0), of_r(1)
    part = replace(part, occurrences=(replace(part.occurrences[0], twin={}), *part.occurrences[1:]))
    gone = replace(of_r(2), occurrences=())
    row = by_hypothesis(regime_delta_rows([whole, part, gone], ["1"], alpha=0.05)[::-1])["against_twin"]
    assert (row.n, row.method) == (2, "t over seeds of means over 1 to 2 occurrences")


def test_the_sign_follows_the_window_and_the_unit_scales_all_but_p_and_effect() -> None:
    series = [of_r(seed) for seed in range(4)]
    scaled = [
        replace(
            run,
            channels={c: -1e3 * values for c, values in run.channels.items()},
            occurrences=tuple(
                replace(one, twin={c: -1e3 * values for c, values in one.twin.items()})
                for one in run.occurrences
            ),
        )
        for run in series
    ]
    for a, b in zip(
        regime_delta_rows(series, CHANNELS, alpha=0.05),
        regime_delta_rows(scaled, CHANNELS, alpha=0.05),
        strict=True,
    ):
        assert a.estimate is not None
        assert a.high is not None
        assert a.effect is not None
        assert (b.estimate, b.low) == pytest.approx((-1e3 * a.estimate, -1e3 * a.high), rel=1e-9)
        assert (b.p, b.effect) == pytest.approx((a.p, -a.effect), rel=1e-9)


def test_under_the_null_p_is_uniform_and_the_interval_covers() -> None:
    rng, studies = np.random.default_rng(5), 400
    p, covered = np.ones(studies), 0
    for study in range(studies):
        series = []
        for seed in range(4):
            loss = np.cumsum(rng.normal(size=24)) * 0.3  # steps depend on each other; seeds do not
            series.append(
                one_window(loss, loss[14] + np.cumsum(rng.normal(size=10)) * 0.3, start=14, seed=seed)
            )
        row = by_hypothesis(regime_delta_rows(series, ["loss_nats"], alpha=0.05))["against_twin"]
        p[study] = row.p or 0.0
        covered += (row.low or 0.0) <= 0.0 <= (row.high or 0.0)
    assert scipy_stats.kstest(p, "uniform").pvalue > 1e-4
    assert scipy_stats.binomtest(covered, studies, 0.95).pvalue > 1e-4


def test_bad_input_is_refused_with_what_to_do() -> None:
    run = of_r(0)
    with pytest.raises(ValueError, match="one RunSeries a seed"):
        regime_delta_rows([], CHANNELS, alpha=0.05)
    with pytest.raises(ValueError, match=r"seeds \[0\] occur twice"):
        regime_delta_rows([run, run], CHANNELS, alpha=0.05)
    with pytest.raises(ValueError, match="one channel or more"):
        regime_delta_rows([run], [], alpha=0.05)
    with pytest.raises(ValueError, match="1 step or more"):
        regime_delta_rows([run], CHANNELS, alpha=0.05, before=0)
    short = one_window(np.arange(8.0), np.arange(3.0))
    with pytest.raises(ValueError, match="has 3 steps of loss_nats, the window 4"):
        window_delta(short, short.occurrences[0], "loss_nats", against="against_twin", before=4)
