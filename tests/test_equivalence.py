"""Equivalence tests against R, statsmodels, and the interval they must agree with."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW

from stats.equivalence import all_equivalent, tost

PRINTED = Path(__file__).parent / "reference" / "equivalence_tost.txt"
CASES = [
    [float(value) for value in line.split()] for line in PRINTED.read_text().splitlines() if line[0] != "#"
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case[0]:.0f}")
def test_both_one_sided_tests_and_the_interval_are_those_r_prints(case: list[float]) -> None:
    _, n, shift, margin, alpha, mean, se, df, t_low, t_high, p, low, high = case
    d = 0.4 * np.sin(np.arange(1, n + 1) * 1.7) + shift
    found = tost(float(d.mean()), float(d.std(ddof=1)) / math.sqrt(n), n - 1, margin, alpha)
    assert [mean, se, df] == pytest.approx([d.mean(), d.std(ddof=1) / math.sqrt(n), n - 1], rel=1e-10)
    assert [found.t_low, found.t_high, found.p] == pytest.approx([t_low, t_high, p], rel=1e-9)
    assert [found.low, found.high] == pytest.approx([low, high], rel=1e-9)


def test_statsmodels_gives_the_same_p() -> None:
    d = 0.4 * np.sin(np.arange(1, 31) * 1.7) + 0.05
    found = tost(float(d.mean()), float(d.std(ddof=1)) / math.sqrt(30), 29, 0.2, 0.05)
    assert found.p == pytest.approx(float(DescrStatsW(d).ttost_mean(-0.2, 0.2)[0]), rel=1e-10)


finite = st.floats(-1, 1)
positive = st.floats(0.01, 0.5)


@settings(max_examples=200)
@given(finite, positive, st.floats(2, 200), positive, st.floats(0.001, 0.2))
def test_equivalent_exactly_when_the_interval_lies_inside_the_margin(
    estimate: float, se: float, df: float, margin: float, alpha: float
) -> None:
    found = tost(estimate, se, df, margin, alpha)
    gap = min(margin - found.high, margin + found.low)
    if abs(gap) > 1e-9:
        assert found.equivalent == (gap > 0)


@settings(max_examples=200)
@given(finite, positive, st.floats(2, 200), positive)
def test_swapping_the_sources_changes_only_signs(
    estimate: float, se: float, df: float, margin: float
) -> None:
    one, two = tost(estimate, se, df, margin, 0.05), tost(-estimate, se, df, margin, 0.05)
    assert two.p == pytest.approx(one.p, rel=1e-12)
    assert [two.low, two.high] == pytest.approx([-one.high, -one.low], rel=1e-12)


def test_an_effect_at_the_margin_is_called_equivalent_at_rate_alpha() -> None:
    rng = np.random.default_rng(2)
    n, trials = 30, 6000
    d = rng.normal(0.8, 1.0, (trials, n))  # margin 0.8; se .18
    hits = np.mean(
        [
            tost(float(line.mean()), float(line.std(ddof=1)) / math.sqrt(n), n - 1, 0.8, 0.05).equivalent
            for line in d
        ]
    )
    assert abs(hits - 0.05) < 4.5 * math.sqrt(0.05 * 0.95 / trials)


def test_all_contrasts_must_pass_and_none_is_not_enough() -> None:
    inside, outside = tost(0.0, 0.05, 58, 0.2, 0.05), tost(0.15, 0.05, 58, 0.2, 0.05)
    assert all_equivalent([inside] * 9)
    assert not all_equivalent([inside] * 8 + [outside])
    assert not all_equivalent([])


@pytest.mark.parametrize(
    ("se", "df", "margin", "alpha"), [(0, 5, 0.2, 0.05), (1, 0, 0.2, 0.05), (1, 5, 0, 0.05), (1, 5, 0.2, 0.5)]
)
def test_impossible_arguments_are_refused(se: float, df: float, margin: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="must"):
        tost(0.0, se, df, margin, alpha)
