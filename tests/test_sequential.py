"""Spending and look levels against R's mvtnorm, gsDesign's published default, and simulated paths."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stats.sequential import hwang_shih_decani, look_levels, nominal_levels

PRINTED = Path(__file__).parent / "reference" / "sequential_spending.txt"
LOOKS = {"laptop": (10, 20, 40), "smoke": (4, 8, 16), "thirds": (1, 2, 3), "two": (5, 20)}


def printed(name: str, kind: str) -> list[float]:
    for line in PRINTED.read_text().splitlines():
        if line.split()[:2] == [name, kind]:
            return [float(value) for value in line.split()[2:]]
    raise AssertionError(f"R printed no {kind} of {name}")


@pytest.mark.parametrize("name", LOOKS)
def test_spending_and_two_sided_levels_are_those_of_r(name: str) -> None:
    looks = LOOKS[name]
    spent = [hwang_shih_decani(k / looks[-1]) for k in looks]
    assert spent == pytest.approx(printed(name, "spent"), rel=1e-7)
    found = list(look_levels(looks, groups=2).values())
    assert found == pytest.approx(
        printed(name, "levels"), rel=2e-5
    )  # pmvnorm's own error is about 1e-8 / .001


def test_the_plan_spends_the_published_0016_0060_and_0500() -> None:
    assert [round(hwang_shih_decani(k / 40), 4) for k in (10, 20, 40)] == [0.0016, 0.006, 0.05]


def test_bounds_of_gsdesigns_default_design_are_reproduced() -> None:
    # gsDesign(): k = 3, one-sided .025, HSD gamma -4: Z 3.0107, 2.5465, 1.9992; nominal .0013, .0054, .0228
    levels = look_levels((1, 2, 3), groups=2).values()
    bounds = [float(stats.norm.isf(level / 2)) for level in levels]
    assert [round(z, 4) for z in bounds] == [3.0107, 2.5465, 1.9992]
    assert [round(level / 2, 4) for level in levels] == [0.0013, 0.0054, 0.0228]


def test_omnibus_levels_spend_the_error_in_four_million_paths_of_r() -> None:
    levels = list(look_levels((10, 20, 40), groups=3).values())
    assert levels == pytest.approx(printed("plane", "levels"), rel=1e-4)
    spent = [hwang_shih_decani(t) for t in (0.25, 0.5, 1.0)]
    for found, expected in zip(printed("plane", "spent"), spent, strict=True):
        assert abs(found - expected) < 4.5 * math.sqrt(expected / 4e6)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_simulated_paths_cross_at_rate_alpha(dimensions: int) -> None:
    rng = np.random.default_rng(6)
    t, n = np.array([0.25, 0.5, 1.0]), 200_000
    levels = nominal_levels(tuple(hwang_shih_decani(float(x)) for x in t), (0.25, 0.5, 1.0), dimensions)
    steps = rng.normal(size=(n, 3, dimensions)) * np.sqrt(np.diff(t, prepend=0.0))[None, :, None]
    square = (np.cumsum(steps, axis=1) ** 2).sum(axis=2) / t
    crossed = (square > stats.chi2.isf(levels, dimensions)).any(axis=1).mean()
    assert abs(crossed - 0.05) < 4.5 * math.sqrt(0.05 * 0.95 / n)


def test_looks_that_share_more_than_their_samples_stay_below_alpha() -> None:
    # A prompt:source variance is common to all looks; here half the last look's variance.
    rng = np.random.default_rng(7)
    n, t = 200_000, np.array([0.25, 0.5, 1.0])
    levels = list(look_levels((10, 20, 40), groups=3).values())
    noise = np.cumsum(rng.normal(size=(n, 3, 2)) * np.sqrt(np.diff(t, prepend=0.0))[None, :, None], axis=1)
    means = noise / t[None, :, None] + rng.normal(size=(n, 1, 2))
    square = (means**2).sum(axis=2) / (1.0 / t + 1.0)
    crossed = (square > stats.chi2.isf(levels, 2)).any(axis=1).mean()
    assert levels[-1] - 0.002 < crossed < 0.05


def test_levels_lie_between_what_a_look_adds_and_what_is_spent() -> None:
    for gamma in (-8.0, -4.0, 0.0, 1.0):
        spent = [hwang_shih_decani(k / 40, gamma=gamma) for k in (10, 20, 40)]
        levels = list(look_levels((10, 20, 40), gamma=gamma).values())
        added = np.diff(spent, prepend=0.0)
        for level, least, most in zip(levels, added, spent, strict=True):
            assert least - 1e-12 <= level <= most + 1e-12


def test_one_look_is_the_plain_test() -> None:
    assert look_levels((20,), alpha=0.01) == {20: pytest.approx(0.01)}


def test_spending_rises_from_nothing_to_alpha_and_gamma_zero_spends_in_proportion() -> None:
    grid = [hwang_shih_decani(x / 20) for x in range(21)]
    assert grid[0] == 0.0
    assert grid[-1] == pytest.approx(0.05)
    assert all(a < b for a, b in pairwise(grid))
    assert hwang_shih_decani(0.3, gamma=0.0) == pytest.approx(0.015)
    assert hwang_shih_decani(0.3, gamma=1e-9) == pytest.approx(0.015)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="information fraction 1"):
        hwang_shih_decani(1.01)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        hwang_shih_decani(0.5, alpha=0.0)
    for looks in ((), (20, 10), (10, 10), (0, 5)):
        with pytest.raises(ValueError, match="rising numbers of samples"):
            look_levels(looks)
    with pytest.raises(ValueError, match="1 groups"):
        look_levels((10,), groups=1)
