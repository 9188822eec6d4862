"""The curve's rows: what was measured, and an extrapolation only where the law describes it."""

from __future__ import annotations

import numpy as np
import pytest

from stats.rows import TestRow
from stats.scaling_rows import scaling_rows
from stats.two_way_bootstrap import Crossed, crossed

SIZES = {f"B-{k}": 150.0 * 2**k for k in range(6)}
LEMMAS = np.arange(600) // 10


def curve(shares: dict[str, float], seed: int = 0, seeds: int = 6) -> dict[str, Crossed]:
    """Items answered with each size's share, harder and easier lemmas alike in all."""
    rng = np.random.default_rng(seed)
    harder = np.repeat(rng.normal(0.0, 0.05, 60), 10)
    return {
        arm: crossed((rng.random((seeds, 600)) < share + harder).astype(float), LEMMAS)
        for arm, share in shares.items()
    }


def law(floor: float, scale: float, exponent: float) -> dict[str, float]:
    return {arm: 1.0 - floor - scale * (size / 150.0) ** -exponent for arm, size in SIZES.items()}


def doubling(rows: list[TestRow]) -> TestRow:
    [row] = [one for one in rows if one.role == "decides"]
    return row


def test_a_curve_that_still_rises_is_worth_doubling() -> None:
    row = doubling(scaling_rows(SIZES, curve(law(0.1, 0.8, 0.3)), rng=np.random.default_rng(1)))
    assert row.verdict == "DETECTED"
    assert row.low is not None
    assert row.low > 0.0
    true = 0.8 * (32**-0.3 - 64**-0.3)
    assert row.estimate == pytest.approx(true, abs=0.015)


def test_a_curve_that_has_flattened_is_not() -> None:
    row = doubling(scaling_rows(SIZES, curve(law(0.3, 0.5, 1.5)), rng=np.random.default_rng(1)))
    assert row.verdict == "EQUIVALENT"
    assert row.high is not None
    assert row.high < 0.02


def test_a_law_that_does_not_describe_the_curve_extrapolates_nothing() -> None:
    """Flat at chance, then a rise, then flat: what a head shows that first has to see enough words."""
    bend = dict(zip(SIZES, (0.12, 0.13, 0.2, 0.45, 0.7, 0.72), strict=True))
    row = doubling(scaling_rows(SIZES, curve(bend), rng=np.random.default_rng(1)))
    assert row.verdict == "INCONCLUSIVE"
    assert row.reason is not None
    assert "of 6 sizes: it does not describe them" in row.reason


def test_steps_between_sizes_are_measured_on_the_same_seeds_and_items() -> None:
    shares = law(0.1, 0.8, 0.3)
    tables = curve(shares)
    rows = scaling_rows(SIZES, tables, rng=np.random.default_rng(1))
    steps = {row.contrast: row for row in rows if row.hypothesis == "size_step"}
    assert list(steps) == [f"B-{k + 1}-B-{k}" for k in range(5)]
    for name, row in steps.items():
        large, small = name[:3], name[4:]
        means = [float(tables[arm].totals.sum() / (6 * 600)) for arm in (large, small)]
        assert row.estimate == pytest.approx(means[0] - means[1], abs=1e-12)
        assert row.role == "secondary"
        assert row.p is not None


def test_a_fitting_law_is_seldom_called_unfit() -> None:
    unfit = sum(
        doubling(scaling_rows(SIZES, curve(law(0.1, 0.8, 0.3), seed), rng=np.random.default_rng(seed))).reason
        is not None
        for seed in range(20)
    )
    assert unfit <= 3
