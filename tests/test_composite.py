"""Composite metrics: R's numbers, what leaves them unchanged, what is undefined, and what rows compare."""

from __future__ import annotations

import csv
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from stats.composite import (
    METRICS,
    Composite,
    attractor_distance,
    clean_z,
    composite,
    composite_rows,
    curvature,
)
from stats.regime_series import Occurrence, RunSeries
from stats.rows import FloatArray, TestRow

REFERENCE = Path(__file__).parent / "reference" / "composite.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
N, START, END = 60, 40, 48


def r_run(s: int) -> tuple[RunSeries, FloatArray]:
    """A seed as `composite.R` makes it."""
    t = np.arange(float(N))
    inside = (t >= START) & (t < END)
    k = np.arange(1, 4)[None, :]
    path = np.sin(0.7 * t[:, None] * k + s) + 0.4 * np.cos(t[:, None] ** 2 * k) + 0.8 * inside[:, None]
    effect = 1 + np.sin(2.1 * t * s) - 0.4 * inside
    effect[t % 3 != 0] = np.nan
    channels = {"entropy_nats": np.cos(1.9 * t + s) + 0.5 * inside, "effect_kl_nats": effect}
    window = Occurrence(regime="fog", number=0, start=START, end=END, twin={})
    return RunSeries(seed=s, channels=channels, occurrences=(window,)), path


MADE = [r_run(s) for s in (1, 2, 3)]
RUNS, PATHS = [one for one, _ in MADE], {one.seed: path for one, path in MADE}


def of(run: RunSeries, path: FloatArray, first: int = 6) -> Composite:
    return composite(
        path,
        entropy=run.channels["entropy_nats"],
        effect=run.channels["effect_kl_nats"],
        clean=run.clean & (np.arange(N) >= first),
    )


def by_metric(rows: list[TestRow]) -> dict[str, TestRow]:
    return {row.metric: row for row in rows}


def test_every_metric_of_a_step_is_that_of_r() -> None:
    found = of(RUNS[1], PATHS[2])
    for step in (21, 42, 57):
        for name in METRICS:
            assert getattr(found, name)[step] == pytest.approx(R[f"{name}_{step}"], rel=1e-8), name


def test_rows_are_those_of_r() -> None:
    rows = by_metric(composite_rows(RUNS, PATHS, reference=20))
    assert list(rows) == list(METRICS)
    for name, row in rows.items():
        found = [row.estimate, row.low, row.p, row.p_adjusted]
        expected = [R[f"{what}_{name}"] for what in ("mean", "low", "p", "holm")]
        assert found == pytest.approx(expected, rel=1e-8), name
        assert (row.family, row.hypothesis, row.contrast) == ("composite", "inside_minus_clean", "fog")
        assert (row.role, row.n, row.reason) == ("secondary", 3, None)
        assert row.method == "t over seeds of means over 3 occurrences"


def test_nothing_is_carried_forward_to_steps_without_a_probe() -> None:
    found = of(RUNS[0], PATHS[1])
    probed = np.arange(N) % 3 == 0
    for name in ("C_z", "valence", "R", "R_z", "intensity"):
        assert not np.isfinite(getattr(found, name)[~probed]).any(), name
    assert np.isfinite(found.C_z[probed]).all()
    assert np.flatnonzero(np.isfinite(found.valence))[0] == 3  # at step 0 nothing has moved
    assert np.flatnonzero(np.isfinite(found.R))[0] == 6  # the second probe with a valence
    assert np.isfinite(found.velocity).sum() == N - 1
    assert np.isfinite(found.curvature).sum() == N - 2


def test_the_change_of_valence_is_between_probes() -> None:
    found = of(RUNS[0], PATHS[1])
    assert found.R[9] == pytest.approx(abs(found.valence[9] - found.valence[6]))


def test_valence_is_minus_the_sum_of_its_components_and_intensity_lies_between_0_and_1() -> None:
    found = of(RUNS[2], PATHS[3])
    total = found.D_z + found.S_z + found.U_z + found.C_z
    np.testing.assert_allclose(found.valence, -total)
    defined = found.intensity[np.isfinite(found.intensity)]
    assert ((defined > 0.0) & (defined < 1.0)).all()
    expected = 1.0 / (1.0 + np.exp(-0.5 * (found.R_z + found.kappa_z)))
    np.testing.assert_allclose(found.intensity, expected)


def test_what_happens_inside_a_window_moves_neither_attractor_nor_scale() -> None:
    run, path = MADE[0]
    moved = path.copy()
    moved[START:END] += 100.0
    before, after = of(run, path), of(run, moved)
    outside = np.arange(N) < START
    for name in ("distance", "D_z", "U_z", "C_z"):
        np.testing.assert_array_equal(getattr(before, name)[outside], getattr(after, name)[outside])
    assert after.distance[START:END].min() > 50.0


def test_turning_shifting_and_scaling_the_path() -> None:
    path = PATHS[1]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    np.testing.assert_allclose(curvature(4.0 * path @ turn + 7.0), curvature(path), atol=1e-9)
    clean = RUNS[0].clean
    scaled = path * np.array([1.0, 100.0, 0.01]) + 5.0
    np.testing.assert_allclose(attractor_distance(scaled, clean), attractor_distance(path, clean), rtol=1e-9)
    back = curvature(path[::-1])
    np.testing.assert_allclose(
        back[2:], curvature(path)[2:][::-1], atol=1e-12
    )  # a path walked back bends alike


def test_angles_near_0_and_pi_are_exact() -> None:
    small = 1e-9
    path = np.cumsum(
        np.array([[0.0, 0.0], [1.0, 0.0], [math.cos(small), math.sin(small)], [-1.0, 0.0]]), axis=0
    )
    found = curvature(path)
    assert found[2] == pytest.approx(small / math.pi, rel=1e-6)
    assert found[3] == pytest.approx(1.0 - small / math.pi, rel=1e-12)


def test_clean_steps_have_a_root_mean_square_distance_of_one() -> None:
    path, clean = PATHS[1], RUNS[0].clean
    n = int(clean.sum())
    mean_square = float((attractor_distance(path, clean)[clean] ** 2).mean())
    assert mean_square == pytest.approx((n - 1) / n)


def test_a_state_that_stands_still_has_no_distance_and_no_bend() -> None:
    run, _ = MADE[0]
    found = of(run, np.ones((N, 3)))
    assert np.isnan(found.distance).all()
    assert np.isnan(found.curvature).all()
    assert np.isnan(found.valence).all()
    assert (found.velocity[1:] == 0.0).all()
    rows = by_metric(composite_rows([run], {1: np.ones((N, 3))}))
    assert rows["valence"].reason == "no window with defined values in it and before it"
    assert rows["U_z"].estimate is not None
    assert rows["velocity"].estimate == 0.0


def test_one_dimension_turns_by_0_or_pi() -> None:
    found = curvature(np.array([[0.0], [1.0], [3.0], [2.0]]))
    assert found[2:].tolist() == [0.0, 1.0]


def test_a_reference_holds_only_the_clean_steps_right_before() -> None:
    run, path = MADE[0]
    moved = path.copy()
    moved[8:18] += np.sin(np.arange(10))[:, None]  # before the 20 steps of the reference, after `first`
    far = by_metric(composite_rows([run], {1: moved}, reference=20))
    near = by_metric(composite_rows([run], {1: path}, reference=20))
    assert far["velocity"].estimate == pytest.approx(near["velocity"].estimate)
    assert far["distance"].estimate != pytest.approx(near["distance"].estimate)  # the attractor has moved


def test_steps_before_the_first_enter_nothing() -> None:
    run, path = MADE[0]
    early = path.copy()
    early[:24] += 30.0
    for metric in ("velocity", "distance", "D_z"):
        found = [
            by_metric(composite_rows([run], {1: s}, first=25, reference=40))[metric] for s in (path, early)
        ]
        assert found[0].estimate == found[1].estimate, metric


def test_seeds_without_a_state_or_a_window_are_left_out() -> None:
    paths = {1: PATHS[1], 2: PATHS[2]}
    rows = by_metric(composite_rows(RUNS, paths, reference=20))
    assert (rows["distance"].n, rows["distance"].reason) == (2, "1 of 3 seeds left out: undefined there")
    none = composite_rows(RUNS, {})
    assert {row.reason for row in none} == {"no window with defined values in it and before it"}
    assert composite_rows([RunSeries(seed=1, channels=RUNS[0].channels, occurrences=())], paths) == []
    one = by_metric(composite_rows(RUNS[:1], paths, reference=20))
    assert (one["distance"].p, one["distance"].low) == (None, None)
    assert one["distance"].estimate is not None


def test_shapes_that_do_not_fit_are_refused() -> None:
    run, path = MADE[0]
    with pytest.raises(ValueError, match="pass one a step"):
        of(run, path[:-1])
    with pytest.raises(ValueError, match="pass finite states"):
        curvature(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="two clean ones"):
        attractor_distance(path, np.zeros(N, dtype=np.bool_))


def test_a_series_that_does_not_vary_over_clean_steps_has_no_z() -> None:
    clean = np.array([True, True, True, False])
    assert np.isnan(clean_z(np.array([0.1, 0.1, 0.1, 5.0]), clean)).all()
    assert np.isnan(clean_z(np.array([1.0, np.nan, np.nan, 5.0]), clean)).all()


def test_every_component_is_given_for_every_step() -> None:
    found = of(RUNS[0], PATHS[1])
    assert all(getattr(found, field.name).shape == (N,) for field in fields(found))
    assert {"D_z", "S_z", "U_z", "C_z", "R", "R_z", "kappa_z"} <= {field.name for field in fields(found)}


def test_windows_without_an_effect_are_seldom_significant() -> None:
    rng = np.random.default_rng(0)
    trials, small = 60, 0
    for _ in range(trials):
        runs, paths = [], {}
        for seed in range(4):
            path = np.cumsum(rng.normal(size=(160, 3)), axis=0) * 0.1 + rng.normal(size=(160, 3))
            effect = np.where(np.arange(160) % 4 == 0, rng.normal(size=160), np.nan)
            start = int(rng.integers(60, 130))
            window = Occurrence(regime="fog", number=0, start=start, end=start + 20, twin={})
            channels = {"entropy_nats": rng.normal(size=160), "effect_kl_nats": effect}
            runs.append(RunSeries(seed=seed, channels=channels, occurrences=(window,)))
            paths[seed] = path
        rows = composite_rows(runs, paths, reference=40)
        small += any((row.p_adjusted or 1.0) <= 0.05 for row in rows)
    assert small / trials < 0.05 + 4.0 * math.sqrt(0.05 * 0.95 / trials)
