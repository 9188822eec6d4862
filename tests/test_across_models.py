"""Rungs together: correction over looks and rungs, pooling, slopes and the declared contrast."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.across_models import (
    Effect,
    Rung,
    effects_of,
    model_contrast_rows,
    p_over_looks,
    pooled_rows,
    rung_rows,
    slope_rows,
)
from stats.crossover import analyse_ladder
from stats.meta_analysis import meta_regression, random_effects
from stats.multiplicity import benjamini_hochberg
from stats.rows import TestRow
from stats.sequential import hwang_shih_decani, look_levels
from tests.simulated_ladder import Truth, climb_rung

STAGEWISE = Path(__file__).parent / "reference" / "stagewise_p.txt"
PRINTED = Path(__file__).parent / "reference" / "across_models_metafor.txt"
LOOKS = (10, 20, 40)
PAIR = ("mtld", "HMIX-PRNG")


def pair_row(effect: float, se: float, df: float) -> TestRow:
    return TestRow(
        family="seed_effect",
        hypothesis="pairwise",
        metric=PAIR[0],
        contrast=PAIR[1],
        method="t",
        role="decides",
        estimate=effect,
        effect=effect,
        statistic=effect / se,
        df2=df,
    )


def end_row(verdict: str, p: float | None) -> TestRow:
    return TestRow(
        family="seed_effect",
        hypothesis="verdict",
        method="v",
        role="verdict",
        verdict=verdict,
        p=p,
        reason=None if p is not None else "every text failed",
    )


def rung(size: int, effect: float = 0.1, se: float = 0.05, *, verdict: str = "INCONCLUSIVE") -> Rung:
    rows = [pair_row(effect, se, 58.0), end_row(verdict, None if verdict == "INVALID" else 0.2)]
    return Rung(model=f"m{size}", parameters=10**size, rows=rows)


def test_the_declared_contrast_is_the_welch_test_that_r_prints() -> None:
    for line in PRINTED.read_text().splitlines():
        if "welch" not in line:
            continue
        case, _, *values = line.split()
        n_a, n_b, estimate, _, df, t, p, low, high = map(float, values)
        a = 0.4 * np.sin(1.7 * np.arange(1, n_a + 1)) + 0.3
        b = 0.9 * np.sin(2.1 * np.arange(1, n_b + 1))
        rungs = []
        for name, found in (("a", a), ("b", b)):
            row = pair_row(
                float(found.mean()), float(found.std(ddof=1) / len(found) ** 0.5), len(found) - 1.0
            )
            rungs.append(Rung(model=name, parameters=10, rows=[row, end_row("INCONCLUSIVE", 0.5)]))
        (row,) = model_contrast_rows(rungs, ("a", "b"), [PAIR])
        found_row = (row.estimate, row.df2, row.statistic, row.p, row.low, row.high)
        assert found_row == pytest.approx((estimate, df, t, p, low, high), rel=1e-9), case


@settings(max_examples=60)
@given(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0), st.sampled_from(LOOKS))
def test_a_smaller_nominal_p_never_gives_a_larger_p_over_looks(one: float, two: float, look: int) -> None:
    low, high = sorted((one, two))
    assert p_over_looks(low, look, LOOKS) <= p_over_looks(high, look, LOOKS) + 1e-12
    assert p_over_looks(one, look, LOOKS) >= one - 1e-12


def test_the_p_of_a_stopped_test_is_what_mvtnorm_gives() -> None:
    lines = [line.split() for line in STAGEWISE.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 24
    for looks, look, p, expected in lines:
        planned = tuple(map(int, looks.split(",")))
        found = p_over_looks(float(p), int(look), planned, groups=2)
        assert found == pytest.approx(float(expected), rel=1e-4, abs=1e-8), (looks, look, p)


def test_at_a_looks_own_level_p_is_the_error_spent_by_then() -> None:
    for look, level in look_levels(LOOKS).items():
        spent = hwang_shih_decani(look / LOOKS[-1])
        assert p_over_looks(level * (1 - 1e-9), look, LOOKS) == pytest.approx(spent, rel=1e-6)


def test_a_rung_rejects_at_its_look_exactly_when_its_p_over_looks_lies_under_alpha() -> None:
    for look, level in look_levels(LOOKS).items():
        assert p_over_looks(0.999 * level, look, LOOKS) < 0.05
        assert p_over_looks(1.001 * level, look, LOOKS) >= 0.05


def test_the_standard_error_recovered_from_the_rows_is_that_of_the_fit() -> None:
    one = climb_rung(Truth(shifts=(0.3,), looks=(10,), prompts=12), 0, np.random.default_rng(1))
    pair = next(r for r in one.rows if r.hypothesis == "pairwise" and (r.metric, r.contrast) == PAIR)
    (effect,) = effects_of([one], *PAIR)
    assert pair.effect is not None
    assert pair.statistic is not None
    assert effect.se == pytest.approx(pair.effect / pair.statistic)
    # a t of zero leaves the equivalence test to give the error
    flat = [replace(r, statistic=0.0) if r is pair else r for r in one.rows]
    (again,) = effects_of([replace(one, rows=flat)], *PAIR)
    assert again.se == pytest.approx(effect.se, rel=1e-9)


def test_pooled_rows_and_slopes_are_those_of_the_meta_analysis_over_measured_rungs() -> None:
    estimates, ses = [0.41, 0.28, 0.22, 0.1], [0.05 + 0.01 * i for i in range(4)]
    rungs = [rung(i, effect=estimates[i], se=ses[i]) for i in range(4)]
    lost = [rung(5, verdict="INVALID"), Rung(model="m6", parameters=7, skipped="no server")]
    plain, guarded = pooled_rows([*lost, *rungs], [PAIR])
    expected = random_effects(estimates, ses)
    assert (plain.estimate, plain.low, plain.high, plain.n) == pytest.approx(
        (expected.estimate, expected.low, expected.high, 4), rel=1e-9
    )
    assert (plain.role, guarded.role) == ("secondary", "diagnostic")
    slope = slope_rows([*lost, *rungs], [PAIR], line="")[0]
    x = [0.0, 1.0, 2.0, 3.0]
    assert slope.estimate == pytest.approx(meta_regression(x, estimates, ses).estimate, rel=1e-9)


def test_a_slope_uses_the_rungs_of_its_line_alone() -> None:
    family = [replace(rung(i, effect=0.1 + 0.1 * i + 0.01 * i**2), line="qwen3") for i in range(3)]
    other = [replace(rung(i + 5, effect=-3.0), line="gemma3") for i in range(2)]
    row = slope_rows([*family, *other], [PAIR], line="qwen3")[0]
    assert row.n == 3
    assert row.estimate is not None
    assert row.estimate > 0
    assert row.hypothesis == "slope_on_log10_parameters qwen3"


def test_benjamini_hochberg_runs_over_the_rungs_that_have_an_answer() -> None:
    p = [0.001, 0.02, 0.04, 0.3]
    rungs = [
        Rung(model=f"m{i}", parameters=10**i, rows=[end_row("DETECTED" if v < 0.05 else "INCONCLUSIVE", v)])
        for i, v in enumerate(p)
    ]
    rows = rung_rows([*rungs, rung(9, verdict="INVALID"), Rung(model="x", parameters=9, skipped="too large")])
    by_name = {row.contrast: row for row in rows}
    adjusted = [by_name[f"m{i}"].p_adjusted for i in range(4)]
    assert adjusted == pytest.approx(benjamini_hochberg(p))
    assert [by_name[f"m{i}"].verdict for i in range(4)] == [
        "DETECTED",
        "DETECTED",
        "INCONCLUSIVE",
        "INCONCLUSIVE",
    ]
    assert by_name["m9"].verdict == "INVALID"
    assert by_name["m9"].reason == "every text failed"
    assert (by_name["x"].verdict, by_name["x"].reason) == (None, "too large")
    assert "4 tests corrected together; 2 undefined, excluded" in by_name["m0"].method


def test_a_declared_model_that_was_skipped_leaves_a_row_with_the_reason() -> None:
    rungs = [rung(1), Rung(model="gone", parameters=99, skipped="not pulled")]
    (row,) = model_contrast_rows(rungs, ("gone", "m1"), [PAIR])
    assert (row.p, row.reason) == (None, "no estimate from gone (not pulled)")
    with pytest.raises(ValueError, match="must be two of the rungs"):
        model_contrast_rows(rungs, ("elsewhere", "m1"), [PAIR])


def test_the_whole_analysis_of_a_ladder_names_each_family_once_and_ends_in_one_verdict() -> None:
    rows = analyse_ladder([rung(i) for i in range(3)], [PAIR], declared=("m0", "m1"))
    assert list(dict.fromkeys(row.family for row in rows)) == [
        "ladder",
        "crossover",
        "meta_analysis",
        "scale_slope",
        "model_contrast",
    ]
    assert sum(row.role == "verdict" for row in rows) == 1


def test_a_rung_needs_rows_with_one_verdict_or_a_reason_to_have_none() -> None:
    with pytest.raises(ValueError, match="give one"):
        Rung(model="m", parameters=1)
    with pytest.raises(ValueError, match="must hold one verdict"):
        Rung(model="m", parameters=1, rows=[pair_row(0.1, 0.1, 5.0)])
    with pytest.raises(ValueError, match="at least 1"):
        Rung(model="m", parameters=0, skipped="x")
    with pytest.raises(ValueError, match="names a model twice"):
        rung_rows([rung(1), rung(1)])
    assert effects_of([rung(2), rung(1)], *PAIR)[0] == Effect(
        model="m1", parameters=10, estimate=0.1, se=pytest.approx(0.05), df=58.0
    )
