"""Separability of regimes: what its rows say of simulated trainings, its verdicts and its error rates.

Full figures: `python -m tests.separability_campaign`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.regime_series import COMMON, STATE, RunSeries
from stats.rows import TestRow
from stats.separability import DIFFERENCES, separability_rows
from stats.signatures import combined_row, signature_rows
from stats.window_features import SMOOTHED, seed_windows, with_smoothed
from tests.separability_campaign import World, campaign, study, training

BIG = World(state=6.0, memory=0.0)


def simulated(world: World, *, seed: int = 1) -> list[RunSeries]:
    rng = np.random.default_rng(seed)
    return [training(world, number, rng) for number in range(world.seeds)]


def rows_of(series: list[RunSeries], **options: int) -> list[TestRow]:
    return separability_rows(
        series, rng=np.random.default_rng(0), alpha=0.05, margin=0.05, **({"permutations": 20} | options)
    )


def found(rows: list[TestRow], hypothesis: str, contrast: str = "r4") -> TestRow:
    (row,) = (row for row in rows if row.hypothesis == hypothesis and row.contrast == contrast)
    return row


def changed(run: RunSeries, channels: Mapping[str, float | None]) -> RunSeries:
    """Channels multiplied; None makes them undefined."""

    def factor(name: str) -> float:
        by = channels.get(name, 1.0)
        return float("nan") if by is None else by

    return replace(
        run,
        channels={name: factor(name) * values for name, values in run.channels.items()},
        occurrences=tuple(
            replace(one, twin={name: factor(name) * values for name, values in one.twin.items()})
            for one in run.occurrences
        ),
    )


def test_rescaled_channels_change_no_row() -> None:
    series = simulated(World(common=1.0, state=2.0, seeds=2, regimes=2))
    scaled = [changed(run, {"loss_nats": 1e5, "gate": -1e-3}) for run in series]
    for a, b in zip(rows_of(series), rows_of(scaled), strict=True):
        assert (a.hypothesis, a.contrast, a.verdict) == (b.hypothesis, b.contrast, b.verdict)
        assert b.estimate == pytest.approx(a.estimate, abs=1e-9)
        assert b.p == pytest.approx(a.p, abs=1e-9)


def test_the_step_number_says_nothing_beside_twins_and_all_beside_the_steps_before() -> None:
    rows = rows_of(simulated(World(seeds=3)))
    step, before = found(rows, "step"), found(rows, "step_before")
    assert (step.estimate, step.p) == (0.5, 1.0)
    assert before.estimate == 1.0
    assert before.p == pytest.approx(1 / 64)  # (1 / 4)^3, mirrored labellings are the same
    assert before.reason == "AUC 1 in all 3 seeds: no t interval"


def test_a_regime_that_changes_nothing_to_the_last_bit_gives_one_half_and_p_of_one() -> None:
    series = simulated(World(seeds=3, regimes=1))
    same = [
        replace(
            run,
            occurrences=tuple(
                replace(one, twin={name: run.channels[name][one.start : one.end] for name in one.twin})
                for one in run.occurrences
            ),
        )
        for run in series
    ]
    rows = rows_of(same)
    for name in ("common", "state", "common_state"):
        assert (found(rows, name, "r0").estimate, found(rows, name, "r0").p) == (0.5, 1.0)
    assert found(rows, "signature", "r0").verdict == "EQUIVALENT"
    assert found(rows, "signatures", "*").verdict == "EQUIVALENT"


def test_a_strong_state_effect_is_detected_in_its_regime_alone_and_seen_in_the_confusions() -> None:
    rows = rows_of(simulated(BIG))
    assert found(rows, "signature").verdict == "DETECTED"
    assert [found(rows, "signature", f"r{k}").verdict != "DETECTED" for k in range(4)] == [True] * 4
    total = found(rows, "signatures", "*")
    assert total.verdict == "DETECTED"
    assert (total.reason or "").startswith("DETECTED: r4")
    assert (found(rows, "confusion", "r4:r4").estimate or 0.0) > 0.8
    for true in ("r0", "clean"):
        shares = [row.estimate or 0.0 for row in rows if row.contrast.startswith(f"{true}:")]
        assert sum(shares) == pytest.approx(1.0)
    alone = found(rows, "state_alone")
    assert (alone.role, alone.p_adjusted) == ("diagnostic", None)
    assert (alone.p or 1.0) <= 0.05
    accuracy = found(rows, "accuracy", "common_state")
    assert (accuracy.p or 1.0) <= 0.001
    assert "labellings, windows exchanged" in accuracy.method


def test_without_a_state_the_common_rows_stand_and_the_others_say_why() -> None:
    series = [changed(run, dict.fromkeys(STATE)) for run in simulated(World(common=3.0, seeds=3))]
    rows = rows_of(series)
    assert (found(rows, "common").estimate or 0.0) > 0.9
    assert found(rows, "common").method.count("self_norm") == 0
    for name in ("state", "common_state", "shuffled", "beyond_common", "state_alone", "beyond_step"):
        row = found(rows, name)
        assert (row.estimate, row.p) == (None, None)
        assert "no state channel in 3 of 3 seeds" in (row.reason or "")
    assert found(rows, "signature").verdict == "INVALID"
    assert found(rows, "signatures", "*").verdict == "INVALID"
    assert found(rows, "accuracy", "common").estimate is not None
    assert found(rows, "confusion", "*").reason is not None


def test_a_channel_that_is_constant_or_undefined_is_no_feature_and_the_row_says_so() -> None:
    series = simulated(World(seeds=2, regimes=2))
    series[1] = changed(series[1], {"gate": 0.0, "self_drift": None})
    rows = rows_of(series)
    assert "without gate constant, self_drift undefined" in found(rows, "state", "r1").method
    assert found(rows, "state", "r1").estimate is not None
    assert "without" not in found(rows, "common", "r1").method


def test_one_window_is_inconclusive_and_windows_without_twins_are_invalid() -> None:
    series = simulated(World(seeds=2, windows=1, regimes=2))
    rows = rows_of(series)
    row = found(rows, "signature", "r1")
    assert (row.verdict, row.reason) == ("INCONCLUSIVE", "1 window of it; one is held out, so two are needed")
    assert found(rows, "signatures", "*").verdict == "INCONCLUSIVE"
    assert found(rows, "accuracy", "common").reason is not None
    whole = simulated(World(seeds=2, regimes=2))
    lost = [
        replace(
            run,
            occurrences=tuple(
                replace(one, twin={}) if one.regime == "r1" else one for one in run.occurrences
            ),
        )
        for run in whole
    ]
    rows = rows_of(lost)
    assert (found(rows, "signature", "r1").verdict, found(rows, "signature", "r1").reason) == (
        "INVALID",
        "no twin",
    )
    assert found(rows, "signature", "r0").verdict != "INVALID"
    assert "r1: no twin" in (found(rows, "signatures", "*").reason or "")


def test_too_few_windows_and_nothing_left_to_add_are_said() -> None:
    rows = rows_of(simulated(replace(BIG, common=30.0, seeds=2, windows=2, regimes=2)))
    state, told = found(rows, "signature", "r0"), found(rows, "signature", "r1")
    assert (found(rows, "common", "r1").estimate, told.verdict) == (1.0, "EQUIVALENT")
    assert "nothing is left to add" in (told.reason or "")
    assert state.verdict == "INCONCLUSIVE"
    assert "2 seeds with these windows reach p = 0.5 after Holm at the least" in (state.reason or "")
    for row in rows:
        if row.role == "diagnostic" and row.hypothesis not in DIFFERENCES:
            assert 0.0 <= (row.low or 0.0) <= (row.high or 1.0) <= 1.0


def test_one_seed_has_p_values_but_no_interval_and_is_inconclusive() -> None:
    rows = rows_of(simulated(replace(BIG, seeds=1)))
    row = found(rows, "signature")
    assert (row.verdict, row.low) == ("INCONCLUSIVE", None)
    assert row.p is not None
    assert "two or more" in (row.reason or "")


def test_undefined_steps_are_left_out_of_window_and_twin_alike() -> None:
    run = simulated(World(seeds=1, regimes=1))[0]
    first = run.occurrences[0]
    loss = run.channels["loss_nats"].copy()
    loss[first.start + 3] = np.nan
    twin = {**first.twin, "gate": first.twin["gate"].copy()}
    twin["gate"][5] = np.inf
    damaged = replace(
        run,
        channels={**run.channels, "loss_nats": loss},
        occurrences=(replace(first, twin=twin), *run.occurrences[1:]),
    )
    kept = seed_windows(damaged, reference=20).pairs[0]
    assert kept.window.shape == kept.twin.shape == (first.length - 2, len(COMMON) + len(STATE))
    assert not np.isin([first.start + 3, first.start + 5], kept.steps).any()


def test_smoothed_channels_leave_the_fork_with_the_runs_mean() -> None:
    run = simulated(World(seeds=1, regimes=1))[0]
    whole = with_smoothed(
        replace(
            run,
            occurrences=tuple(
                replace(one, twin={name: run.channels[name][one.start : one.end] for name in one.twin})
                for one in run.occurrences
            ),
        )
    )
    for one in whole.occurrences:
        for name in SMOOTHED:
            same = whole.channels[name][one.start : one.end]
            assert one.twin[name].tolist() == same.tolist()


def test_a_state_that_smooths_the_common_channels_adds_to_a_step_but_not_to_their_past() -> None:
    rows = rows_of(simulated(World(common=1.0, smooths=True, regimes=2)))
    assert found(rows, "signature", "r1").verdict == "DETECTED"
    assert abs(found(rows, "beyond_smoothed", "r1").estimate or 1.0) < 0.05
    assert found(rows, "beyond_smoothed", "r1").role == "diagnostic"


def test_the_regimes_p_is_the_largest_of_three_and_holm_is_taken_of_these() -> None:
    bare = TestRow(
        family="separability",
        hypothesis="",
        method="m",
        role="diagnostic",
        estimate=0.2,
        low=0.1,
        high=0.3,
        n=5,
    )

    def regime(name: str, *p: float) -> list[TestRow]:
        asked = ("common_state", "beyond_step", "beyond_common")
        return [replace(bare, hypothesis=h, contrast=name, p=q) for h, q in zip(asked, p, strict=True)]

    rows = regime("a", 0.001, 0.02, 0.003) + regime("b", 0.03, 0.001, 0.001)
    made = signature_rows(rows, (), alpha=0.05, margin=0.05)
    assert [(row.p, row.p_adjusted) for row in made] == [(0.02, 0.04), (0.03, 0.04)]
    assert [row.verdict for row in made] == ["DETECTED"] * 2
    at_zero = [replace(row, low=-0.01) for row in rows]
    assert [row.verdict for row in signature_rows(at_zero, (), alpha=0.05, margin=0.05)] == [
        "INCONCLUSIVE"
    ] * 2
    small = [replace(row, estimate=0.02, low=0.01, high=0.03) for row in rows]
    assert [row.negligible for row in signature_rows(small, (), alpha=0.05, margin=0.05)] == [True] * 2
    none = [replace(row, p=0.9, estimate=0.0, low=-0.01, high=0.01) for row in rows]
    assert combined_row(
        signature_rows(none, (), alpha=0.05, margin=0.05), alpha=0.05, margin=0.05
    ).verdict == ("EQUIVALENT")


def test_with_no_state_effect_few_studies_are_detected_and_with_a_strong_one_most() -> None:
    small = World(common=1.0, seeds=3, regimes=2, length=20)
    null = campaign(replace(small, batch=0.5), 30, seed=6)
    most = scipy_stats.binom.isf(1e-4, 30, 0.05)
    assert null.verdicts.get("DETECTED", 0.0) * 30 <= most
    for level in (0.05, 0.25, 0.5):
        assert np.mean(null.p["beyond_common"] <= level) * 60 <= scipy_stats.binom.isf(1e-4, 60, level)
    strong = campaign(replace(small, state=5.0, memory=0.0), 8, seed=7)
    assert strong.last["DETECTED"] >= 0.75


def test_two_hundred_permutations_of_five_seeds_take_under_ten_seconds() -> None:
    rng = np.random.default_rng(8)
    started = time.process_time()
    rows = study(World(common=1.0), rng, permutations=200)
    assert time.process_time() - started < 10.0
    assert found(rows, "accuracy", "common_state").p is not None


def test_bad_input_is_refused_with_what_to_do() -> None:
    run = simulated(World(seeds=1, regimes=1))[0]
    with pytest.raises(ValueError, match="alpha between 0 and"):
        separability_rows([run], rng=np.random.default_rng(0), alpha=0.7, margin=0.05)
    with pytest.raises(ValueError, match="5 clean steps or more"):
        rows_of([run], reference=4)
    with pytest.raises(ValueError, match="occur twice"):
        rows_of([run, run])
