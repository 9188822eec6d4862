"""The studentised range against R's ptukey and qtukey, SciPy, and its own identities."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stats.studentized_range import range_sf, scale_grid, studentized_range_isf, studentized_range_sf

PRINTED = Path(__file__).parent / "reference" / "mixed_tukey.txt"


def printed(kind: str) -> list[tuple[int, float, float, float]]:
    lines = [line.split() for line in PRINTED.read_text().splitlines() if line.startswith(kind)]
    return [(int(k), float(df), float(x), float(value)) for _, k, df, x, value in lines]


def test_tail_probabilities_are_those_r_prints() -> None:
    # Below 3 degrees of freedom R's ptukey is off by 2e-5 (two groups, where t is exact); SciPy is sharper.
    cases = printed("sf")
    assert len(cases) == 96
    for groups, df, q, value in cases:
        assert studentized_range_sf(q, groups, df) == pytest.approx(value, abs=2e-6 if df >= 3 else 3e-5)


def test_quantiles_are_those_r_prints() -> None:
    # Below 4 degrees of freedom R's qtukey is off by up to 3 % (SciPy agrees with ours to 1e-12 there).
    cases = [case for case in printed("isf") if case[1] > 4]
    assert len(cases) == 32
    for groups, df, p, value in cases:
        assert studentized_range_isf(p, groups, df) == pytest.approx(value, rel=2e-5)


@pytest.mark.parametrize(
    ("groups", "df", "q"), [(3, 3.0, 20.0), (3, 58.0, 3.4), (4, 12.7, 5.0), (3, 2.4, 9.0), (2, 2.4, 6.0)]
)
def test_tail_probabilities_are_scipys_to_nine_digits(groups: int, df: float, q: float) -> None:
    assert studentized_range_sf(q, groups, df) == pytest.approx(
        float(stats.studentized_range.sf(q, groups, df)), rel=1e-9
    )


@pytest.mark.parametrize("df", [1.0, 2.5, 58.0, 1e4, math.inf])
@pytest.mark.parametrize("t", [0.3, 2.0, 6.0])
def test_two_groups_give_the_two_sided_t_test(df: float, t: float) -> None:
    expected = 2 * stats.t.sf(t, df) if math.isfinite(df) else 2 * stats.norm.sf(t)
    assert studentized_range_sf(math.sqrt(2) * t, 2, df) == pytest.approx(float(expected), rel=1e-9)


def test_quantile_and_tail_probability_are_inverse() -> None:
    for groups in (2, 3, 5):
        for df in (2.0, 7.3, 58.0, math.inf):
            for alpha in (0.2, 0.05, 0.0016, 1e-6):
                q = studentized_range_isf(alpha, groups, df)
                assert studentized_range_sf(q, groups, df) == pytest.approx(alpha, rel=1e-8)


def test_far_tails_keep_their_relative_size() -> None:
    # Two groups: 2 (1 - Phi(w / sqrt 2)), far below the spacing of floats at 1.
    w = np.array([10.0, 12.0])
    assert range_sf(w, 2) == pytest.approx(2 * stats.norm.sf(w / math.sqrt(2)), rel=1e-8)


def test_scale_weights_integrate_the_chi_distribution() -> None:
    for df in (1.0, 4.4, 58.0, 3000.0):
        s, weight = scale_grid(df)
        assert float(weight.sum()) == pytest.approx(1.0, abs=1e-10)
        assert float(weight @ s**2) == pytest.approx(1.0, abs=1e-9)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="degrees of freedom must be above 0"):
        scale_grid(0.0)
    with pytest.raises(ValueError, match="at least 2"):
        studentized_range_sf(1.0, 1, 5.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        studentized_range_isf(0.0, 3, 5.0)
