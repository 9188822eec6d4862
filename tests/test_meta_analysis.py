"""Random-effects mean and slope against metafor, and the properties both must have."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stats.layout import Undefined
from stats.meta_analysis import MetaResult, meta_regression, random_effects

PRINTED = Path(__file__).parent / "reference" / "across_models_metafor.txt"
CASES = ((4, 0.02, 0.3), (6, 0.1, 0.2), (4, 0.4, 0.1), (12, 0.05, -0.1), (3, 0.3, 0.5), (5, 0.001, 0.01))
FIELDS = ("estimate", "se", "low", "high", "df", "t", "p", "tau2", "q", "q_p", "i2")


def printed(case: int, what: str) -> list[float]:
    lines = (line.split() for line in PRINTED.read_text().splitlines())
    return next([float(v) for v in values] for c, w, *values in lines if (c, w) == (str(case), what))


def made(case: int) -> tuple[list[float], list[float], list[float]]:
    """x, estimates and standard errors of a case of the R script."""
    k, spread, mean = CASES[case - 1]
    i = np.arange(1, k + 1)
    y = mean + spread * 3 * np.sin(1.7 * i)
    se = 0.1 * (1 + 0.5 * np.cos(2.3 * i))
    return (5 + 0.7 * i + 0.1 * np.sin(i)).tolist(), y.tolist(), se.tolist()


@pytest.mark.parametrize("case", range(1, len(CASES) + 1))
@pytest.mark.parametrize(("test", "safeguard"), [("knha", False), ("adhoc", True)])
def test_mean_and_slope_are_those_of_metafor(case: int, test: str, safeguard: bool) -> None:
    x, y, se = made(case)
    found = {
        "mean": random_effects(y, se, safeguard=safeguard),
        "slope": meta_regression(x, y, se, safeguard=safeguard),
    }
    for what, result in found.items():
        ours = [getattr(result, field) for field in FIELDS]
        assert ours == pytest.approx(printed(case, f"{what}_{test}"), rel=1e-8, abs=1e-10)


ESTIMATES = st.lists(st.floats(-2, 2), min_size=3, max_size=7)


def draw(y: list[float]) -> tuple[list[float], list[float], list[float]]:
    k = len(y)
    return [float(i + 0.3 * math.sin(i)) for i in range(k)], y, [0.1 + 0.05 * (i % 3) for i in range(k)]


def results(x: list[float], y: list[float], se: list[float]) -> list[MetaResult]:
    return [random_effects(y, se, safeguard=True), meta_regression(x, y, se, safeguard=True)]


@settings(max_examples=40)
@given(ESTIMATES)
def test_changed_signs_change_the_sign_of_the_answer_and_nothing_else(y: list[float]) -> None:
    x, y, se = draw(y)
    for plain, flipped in zip(results(x, y, se), results(x, [-v for v in y], se), strict=True):
        assert flipped.estimate == pytest.approx(-plain.estimate, abs=1e-9)
        assert (flipped.low, flipped.high) == pytest.approx((-plain.high, -plain.low), abs=1e-8)
        assert flipped.p == pytest.approx(plain.p, abs=1e-8)


@settings(max_examples=40)
@given(ESTIMATES, st.floats(0.01, 100))
def test_another_unit_scales_the_answer(y: list[float], unit: float) -> None:
    x, y, se = draw(y)
    scaled = results(x, [unit * v for v in y], [unit * v for v in se])
    for plain, found in zip(results(x, y, se), scaled, strict=True):
        assert found.estimate == pytest.approx(unit * plain.estimate, rel=1e-4, abs=1e-7 * unit)
        assert found.tau2 == pytest.approx(unit**2 * plain.tau2, rel=1e-4, abs=1e-6 * unit**2)


def test_the_safeguard_never_shortens_an_interval() -> None:
    for case in range(1, len(CASES) + 1):
        x, y, se = made(case)
        for plain, guarded in (
            (random_effects(y, se), random_effects(y, se, safeguard=True)),
            (meta_regression(x, y, se), meta_regression(x, y, se, safeguard=True)),
        ):
            assert guarded.se >= plain.se
            assert guarded.se == pytest.approx(plain.se * max(1.0, plain.scale**-0.5))


def test_the_slope_does_not_depend_on_where_x_begins() -> None:
    x, y, se = made(2)
    assert meta_regression([v + 1000 for v in x], y, se).estimate == pytest.approx(
        meta_regression(x, y, se).estimate, rel=1e-9
    )


def test_under_the_null_intervals_of_five_heterogeneous_rungs_cover() -> None:
    rng, n = np.random.default_rng(5), 400
    x, se = np.array([5.0, 5.6, 6.2, 6.7, 7.1]), np.array([0.05, 0.07, 0.1, 0.12, 0.15])
    y = rng.normal(size=(n, 5)) * np.sqrt(0.1**2 + se**2)
    for result in (
        [random_effects(line.tolist(), se.tolist()) for line in y],
        [meta_regression(x.tolist(), line.tolist(), se.tolist()) for line in y],
    ):
        covered = sum(found.low <= 0.0 <= found.high for found in result)
        assert stats.binom.ppf(1e-4, n, 0.935) <= covered <= stats.binom.isf(1e-4, n, 0.96)


def test_what_the_estimates_cannot_answer_is_undefined_and_says_why() -> None:
    with pytest.raises(Undefined, match="1 estimate; a mean needs two"):
        random_effects([0.1], [0.1])
    with pytest.raises(Undefined, match="2 estimates; a slope needs three"):
        meta_regression([1.0, 2.0], [0.1, 0.2], [0.1, 0.1])
    with pytest.raises(Undefined, match="agree exactly"):
        random_effects([0.1, 0.1], [0.1, 0.1])
    with pytest.raises(Undefined, match="all 3 estimates lie at x = 2"):
        meta_regression([2.0] * 3, [0.1, 0.2, 0.3], [0.1] * 3)
    assert random_effects([0.1, 0.1], [0.1, 0.1], safeguard=True).tau2 == 0.0


@pytest.mark.parametrize(
    ("y", "se"), [([0.1, math.nan], [0.1, 0.1]), ([0.1, 0.2], [0.1, 0.0]), ([0.1, 0.2], [0.1, math.inf])]
)
def test_a_number_that_is_none_is_refused(y: list[float], se: list[float]) -> None:
    with pytest.raises(ValueError, match="leave undefined ones out and count them"):
        random_effects(y, se)


def test_unequal_lengths_and_impossible_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="give one of each"):
        random_effects([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="alpha = 1"):
        random_effects([0.1, 0.2], [0.1, 0.1], alpha=1.0)
    with pytest.raises(ValueError, match="one finite number for each"):
        meta_regression([1.0, math.nan, 2.0], [0.1, 0.2, 0.3], [0.1] * 3)
