"""What a state holds: R's numbers, invariances, both nulls, and what has no answer."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from stats.linear_probe import contiguous_folds, linear_probe, own_seed_p, readings_across
from stats.rows import FloatArray, TestRow
from stats.state_probes import dimension_rows, effective_rank, pc1_step, probe_rows, sensitivity_rows

REFERENCE = Path(__file__).parent / "reference" / "state_probes.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
T = np.arange(60.0)


def r_state() -> tuple[FloatArray, FloatArray, FloatArray]:
    """State, target and a state with a dimension that never moves, as `state_probes.R` makes them."""
    k = np.arange(1, 5)[None, :]
    t = T[:, None]
    state = np.sin(0.37 * t * k) + 0.02 * k * t + 0.3 * np.cos(t**2 * k)
    target = state @ np.array([1.0, -0.5, 0.2, 0.0]) + 0.5 * np.sin(T**2) + 0.01 * T
    return state, target, np.column_stack([state[:, :3], np.full(60, 5.0)])


STATE, TARGET, STILL = r_state()


def read(state: FloatArray, target: FloatArray, *, trend: int = 0, gap: int = 0, shifts: int = 19) -> float:
    rng = np.random.default_rng(0)
    return linear_probe(state, target, rng=rng, trend=trend, gap=gap, ridge=0.01, shifts=shifts).r2


def autoregression(rng: np.random.Generator, phi: float, shape: tuple[int, ...]) -> FloatArray:
    noise = rng.normal(size=(shape[0] + 300, *shape[1:]))
    return np.asarray(lfilter([1.0], [1.0, -phi], noise, axis=0)[300:], dtype=np.float64)


def one(rows: list[TestRow], hypothesis: str, metric: str = "*") -> TestRow:
    (row,) = (row for row in rows if (row.hypothesis, row.metric) == (hypothesis, metric))
    return row


def test_readings_are_those_of_r() -> None:
    assert read(STATE, TARGET) == pytest.approx(R["r2_0_0"], rel=1e-9)
    assert read(STATE, TARGET, trend=3) == pytest.approx(R["r2_3_0"], rel=1e-8)
    assert read(STATE, TARGET, trend=1, gap=2) == pytest.approx(R["r2_1_2"], rel=1e-9)
    assert read(STILL, TARGET, gap=1) == pytest.approx(R["r2_still"], rel=1e-9)


@pytest.mark.parametrize(("case", "path"), [(1, STATE), (2, STILL)])
def test_the_shape_of_a_path_is_that_of_r(case: int, path: FloatArray) -> None:
    assert effective_rank(path) == pytest.approx(R[f"rank_{case}"], rel=1e-9)
    assert pc1_step(path) == pytest.approx(R[f"pc1_{case}"], rel=1e-9)


def test_permuting_targets_over_seeds_is_that_of_r() -> None:
    i, j = np.ogrid[1:5, 1:5]
    table = 0.3 * (i == j) + 0.4 * np.sin(3 * i + 5 * j)
    assert own_seed_p(table, rng=np.random.default_rng(0)) == pytest.approx(R["own_seed_p"])


def test_units_of_state_and_target_change_no_reading() -> None:
    scaled = STATE * np.array([1.0, 1000.0, 0.01, 3.0]) + 7.0
    assert read(scaled, -5.0 * TARGET + 2.0, trend=2) == pytest.approx(read(STATE, TARGET, trend=2), rel=1e-9)


def test_a_trend_that_is_taken_out_cannot_be_read() -> None:
    rng = np.random.default_rng(0)
    state, target = (
        rng.normal(size=(200, 3)) + np.arange(200.0)[:, None],
        np.arange(200.0) + rng.normal(size=200),
    )
    assert read(state, target) > 0.9
    assert read(state, target, trend=1) < 0.1


def test_a_gap_keeps_neighbours_of_a_block_out_of_its_training() -> None:
    for train, held in contiguous_folds(61, 5, 4):
        assert np.abs(train[:, None] - held).min() == 5
        assert len(train) + len(held) in (61 - 4, 61 - 8)
    assert sorted(step for _, held in contiguous_folds(61, 5, 4) for step in held) == list(range(61))


def test_what_is_in_the_state_is_found_and_what_is_not_is_not() -> None:
    rng = np.random.default_rng(1)
    state = autoregression(rng, 0.9, (400, 5))
    there = linear_probe(state, state[:, 2] + 0.2 * rng.normal(size=400), rng=rng)
    assert there.r2 > 0.8
    assert there.p == 1 / 200
    absent = linear_probe(state, rng.normal(size=400), rng=rng)
    assert absent.r2 < 0.05
    assert absent.p > 0.01


def test_p_against_shifts_is_near_uniform_for_a_target_that_forgets() -> None:
    rng = np.random.default_rng(2)
    p = np.array(
        [
            linear_probe(autoregression(rng, 0.9, (120, 3)), rng.normal(size=120), rng=rng, shifts=39).p
            for _ in range(300)
        ]
    )
    for level in (0.05, 0.25, 0.5):
        assert np.mean(p <= level) < level + 4.0 * math.sqrt(level * (1 - level) / len(p))
    assert abs(p.mean() - 0.5) < 0.08


def test_the_p_of_rows_keeps_its_level_for_slow_states_and_targets_that_share_a_trend() -> None:
    rng = np.random.default_rng(3)
    trials, small, shifted = 60, 0, 0
    for _ in range(trials):
        shared = np.exp(-np.arange(90.0) / 15)
        paths = {s: autoregression(rng, 0.97, (90, 6)) + 5.0 * shared[:, None] for s in range(5)}
        loss = {s: autoregression(rng, 0.97, (90,)) + 20.0 * shared for s in range(5)}
        rows = probe_rows(paths, {"loss_nats": loss}, rng=rng, gap=2, shifts=39)
        small += (one(rows, "linear_probe", "loss_nats").p or 1.0) <= 0.05
        null = one(rows, "shuffled", "loss_nats")
        shifted += (one(rows, "linear_probe", "loss_nats").estimate or 0.0) > (null.high or 0.0)
    assert small / trials <= 0.05 + 2.0 * math.sqrt(0.05 * 0.95 / trials)
    assert shifted >= small


def test_rows_name_what_is_read_with_both_nulls_and_the_step_without_trend_removal() -> None:
    rng = np.random.default_rng(4)
    clock = np.arange(300.0)[:, None] / 30
    paths = {s: autoregression(rng, 0.8, (300, 3)) + clock for s in range(5)}
    loss = {s: path @ [1.0, -1.0, 0.0] + 0.3 * rng.normal(size=300) for s, path in paths.items()}
    for values in loss.values():
        values[np.arange(300) % 3 > 0] = np.nan
    rows = probe_rows(paths, {"loss_nats": loss}, rng=rng)
    assert [(row.hypothesis, row.metric) for row in rows] == [
        ("linear_probe", "loss_nats"), ("shuffled", "loss_nats"), ("other_seeds", "loss_nats"),
        ("linear_probe", "step"), ("shuffled", "step"), ("effective_rank", "*"), ("pc1_step", "*"),
    ]  # fmt: skip
    found = one(rows, "linear_probe", "loss_nats")
    assert (found.p, found.p_adjusted, found.n, found.role) == (1 / 120, 2 / 200, 5, "secondary")
    assert (found.low or 0.0) > 0.7
    assert one(rows, "other_seeds", "loss_nats").p == 1 / 120
    assert (one(rows, "other_seeds", "loss_nats").estimate or 0.0) < 0.1
    assert (one(rows, "shuffled", "loss_nats").high or 0.0) < 0.3
    assert (one(rows, "linear_probe", "step").estimate or 0.0) > 0.8
    assert "trend left in" in one(rows, "linear_probe", "step").method
    assert (one(rows, "pc1_step").estimate or 0.0) > 0.9
    assert all(row.contrast == "state" for row in rows)


def test_seeds_without_a_moving_state_or_enough_probes_leave_a_reason() -> None:
    rng = np.random.default_rng(5)
    still = probe_rows({0: np.zeros((100, 3))}, {"loss_nats": {0: np.arange(100.0)}}, rng=rng)
    assert [row.estimate for row in still] == [None] * 4
    assert one(still, "effective_rank").reason == "no seed with a state that moves"
    path = {0: rng.normal(size=(100, 3))}
    few = np.full(100, np.nan)
    few[::10] = rng.normal(size=10)
    for target in (few, np.ones(100), np.arange(100.0)):  # too few, flat, nothing beyond its trend
        row = probe_rows(path, {"loss_nats": {0: target}}, rng=rng)[0]
        assert (row.estimate, row.p) == (None, None)
        assert row.reason == "no seed with enough steps of a state and a target that vary"
    with pytest.raises(ValueError, match="pass one value a step"):
        probe_rows(path, {"loss_nats": {0: np.ones(99)}}, rng=rng)


def test_a_gap_in_steps_shrinks_with_the_probes_between_them() -> None:
    rng = np.random.default_rng(12)
    target = np.full(300, np.nan)
    target[::10] = rng.normal(size=30)
    rows = probe_rows({0: rng.normal(size=(300, 2))}, {"loss_nats": {0: target}}, rng=rng, first=0, gap=20)
    assert one(rows, "linear_probe", "loss_nats").estimate is not None  # 2 of the 30 probes, not 20


def test_one_seed_is_tested_against_shifts_alone() -> None:
    rng = np.random.default_rng(6)
    path = {3: rng.normal(size=(200, 2))}
    rows = probe_rows(path, {"loss_nats": {3: path[3][:, 0] + rng.normal(size=200)}}, rng=rng)
    assert one(rows, "linear_probe", "loss_nats").p == 1 / 200
    assert not [row for row in rows if row.hypothesis == "other_seeds"]


def test_permutations_beyond_seven_seeds_are_drawn() -> None:
    rng = np.random.default_rng(7)
    assert own_seed_p(np.eye(9), rng=rng) == 1 / 1000
    assert own_seed_p(np.ones((9, 9)), rng=rng) == 1.0
    assert own_seed_p(np.ones((3, 3)), rng=rng) == 1.0
    with pytest.raises(ValueError, match="seeds, seeds"):
        own_seed_p(np.ones((2, 3)), rng=rng)


def test_the_diagonal_of_readings_across_seeds_is_each_seeds_own() -> None:
    rng = np.random.default_rng(8)
    states = [rng.normal(size=(80, 2)) for _ in range(3)]
    targets = [s[:, 0] + rng.normal(size=80) for s in states]
    table = readings_across(states, targets, trend=1, gap=2)
    own = [
        linear_probe(s, y, rng=rng, trend=1, gap=2, shifts=9).r2 for s, y in zip(states, targets, strict=True)
    ]
    assert table.diagonal() == pytest.approx(own)
    with pytest.raises(ValueError, match="of equal length"):
        readings_across(states, [targets[0], targets[1], targets[2][:-1]])


@pytest.mark.parametrize(
    ("state", "target", "why"),
    [
        (np.ones((20, 2)), np.arange(19.0), "pass finite"),
        (np.full((20, 2), np.nan), np.arange(20.0), "pass finite"),
        (np.ones((20, 2)), np.full(20, 3.0), "nothing to read"),
        (np.ones((9, 2)), np.arange(9.0) ** 4, "2 blocks or more"),
    ],
)
def test_readings_that_mean_nothing_are_refused(state: FloatArray, target: FloatArray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        linear_probe(state, target, rng=np.random.default_rng(0), trend=0)


def test_effective_rank_counts_equal_directions_and_turning_or_scaling_changes_nothing() -> None:
    rng = np.random.default_rng(9)
    basis = np.linalg.qr(rng.normal(size=(200, 7)) - 0.0)[0]
    basis = np.linalg.qr(basis - basis.mean(axis=0))[0]
    for d in (1, 3, 7):
        assert effective_rank(basis[:, :d]) == pytest.approx(d, rel=1e-6)
    path = rng.normal(size=(50, 4)) * np.array([5.0, 2.0, 1.0, 0.1])
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert effective_rank(3.0 * path @ turn + 9.0) == pytest.approx(effective_rank(path))
    assert pc1_step(3.0 * path @ turn + 9.0) == pytest.approx(pc1_step(path))
    with pytest.raises(ValueError, match="never moves"):
        effective_rank(np.ones((5, 3)))


def test_a_clock_is_one_and_noise_is_not() -> None:
    rng = np.random.default_rng(10)
    assert pc1_step(np.exp(np.arange(40.0) / 5)[:, None]) == pytest.approx(1.0)
    assert np.mean([pc1_step(rng.normal(size=(200, 4))) for _ in range(50)]) < 0.15


def test_sensitivities_keep_their_names_and_leave_out_what_is_undefined() -> None:
    rows = sensitivity_rows(
        {0: {"loss": 0.2, "|m|": 0.1}, 1: {"loss": 0.4}, 2: {"loss": math.nan, "|m|": 0.3}}
    )
    assert [(row.family, row.hypothesis, row.metric, row.n) for row in rows] == [
        ("sensitivity", "input", "loss", 2),
        ("sensitivity", "input", "|m|", 2),
    ]
    assert [row.estimate for row in rows] == pytest.approx([0.3, 0.2])
    assert all(row.p is None and row.reason == "1 of 3 seeds left out: undefined there" for row in rows)


def test_dimensions_are_ranked_in_each_seed_and_numbers_of_dimensions_mean_nothing() -> None:
    rng = np.random.default_rng(11)
    effects = {seed: rng.normal(size=8) for seed in range(5)}
    rows = dimension_rows(effects)
    assert [(row.metric, row.p) for row in rows] == [(f"rank {k}", None) for k in range(1, 9)]
    ranked = np.array([sorted(np.abs(found), reverse=True) for found in effects.values()])
    assert [row.estimate for row in rows] == pytest.approx(ranked.mean(axis=0))
    shuffled = {seed: rng.permutation(-found) for seed, found in effects.items()}
    assert dimension_rows(shuffled) == rows
    assert all((row.low or 0.0) < (row.estimate or 0.0) < (row.high or 0.0) for row in rows)
    with pytest.raises(ValueError, match="equal dimension"):
        dimension_rows({0: [1.0], 1: [1.0, 2.0]})
    with pytest.raises(ValueError, match="one seed or more"):
        dimension_rows({})
