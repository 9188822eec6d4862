"""Ablation of blocks both ways, documents as unit: effects, contrasts, correlations, faults."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from stats.disparity import find
from stats.layer_effects import analyse_layers
from stats.rows import FloatArray, TestRow
from tests.test_disparity import ALIGNED, BITS, CODES, DRAWN, INT4

REFERENCE = Path(__file__).parent / "reference" / "disparity_bootstrap.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
RNG = np.random.default_rng(11)
GAIN = np.array([1.2, 3.4, 0.3, 2.2, 2.0, 1.9])
NOISE = 0.05 * RNG.normal(size=(6, 10, 100))
PROTECTED = INT4 - GAIN[:, None, None] + NOISE
ONLY = BITS + 0.5 * GAIN[:, None, None] + NOISE
DIAGNOSTICS = {"kurtosis": (5.0, 9.0, 2.0, 7.0, 8.0, 3.0), "flat": (1.0,) * 6}


def analyse(protected: FloatArray, **rest: object) -> list[TestRow]:
    rng = np.random.default_rng(1)
    return analyse_layers(ALIGNED, INT4, protected, margin=0.2, drawn=DRAWN, rng=rng, **rest)  # type: ignore[arg-type]


ROWS = analyse(PROTECTED, only=ONLY, diagnostics=DIAGNOSTICS)


def test_effects_are_differences_of_mean_loss_per_block_and_language() -> None:
    saved, cost = (INT4 - PROTECTED).mean(axis=2), (ONLY - BITS).mean(axis=2)
    for b in range(6):
        assert find(ROWS, "protect_block", f"block {b}").estimate == pytest.approx(saved[b].mean())
        assert find(ROWS, "quantise_block", f"block {b}").estimate == pytest.approx(cost[b].mean())
        for place, code in enumerate(CODES):
            row = find(ROWS, "protect_block", f"block {b}:{code}")
            assert row.estimate == pytest.approx(saved[b, place])
            assert row.low is not None
            assert row.high is not None
            assert row.low <= (row.estimate or 0.0) <= row.high


def test_blocks_that_differ_from_the_mean_are_detected_with_holm_over_blocks() -> None:
    away = GAIN - GAIN.mean()
    for b in range(6):
        row = find(ROWS, "protect_contrast", f"block {b}")
        assert row.estimate == pytest.approx(away[b], abs=0.02)
        assert row.verdict == "DETECTED"
        assert row.negligible == (abs(away[b]) < 0.2)
        assert row.p is not None
        assert row.p_adjusted is not None
        assert row.p_adjusted >= row.p
    assert (ROWS[-1].hypothesis, ROWS[-1].verdict) == ("verdict", "DETECTED")


def test_blocks_that_are_alike_are_not_told_apart() -> None:
    alike = analyse(INT4 - 1.0 + np.random.default_rng(3).normal(size=(6, 10, 100)))
    assert {r.verdict for r in alike if r.role == "decides"} <= {"EQUIVALENT", "INCONCLUSIVE"}
    assert alike[-1].verdict in ("EQUIVALENT", "INCONCLUSIVE")


def test_unprotected_blocks_are_exactly_zero_with_p_one() -> None:
    rows = analyse(np.stack([INT4] * 4))
    for b in range(4):
        row = find(rows, "protect_contrast", f"block {b}")
        assert (row.estimate, row.low, row.high, row.p, row.verdict) == (0.0, 0.0, 0.0, 1.0, "EQUIVALENT")


def test_the_correlation_with_a_diagnostic_is_rs_spearman() -> None:
    row = find(ROWS, "diagnostic_correlation", "*", "kurtosis")
    assert row.estimate == pytest.approx(R["spearman"], abs=1e-12)
    assert row.role == "diagnostic"
    assert row.low is not None
    assert row.high is not None
    assert row.low <= (row.estimate or 0.0) <= row.high
    flat = find(ROWS, "diagnostic_correlation", "*", "flat")
    assert flat.estimate is None
    assert flat.reason == "6 blocks, or all equal: no rank correlation"


def test_one_bad_loss_leaves_no_contrast_and_is_named() -> None:
    broken = PROTECTED.copy()
    broken[2, CODES.index("yo"), 5] = np.nan
    rows = analyse(broken)
    assert {row.verdict for row in rows} == {"INVALID"}
    assert "block 2 protected: yo: 1 of 100 losses of the variant" in (rows[-1].reason or "")


def test_shapes_and_diagnostics_are_checked() -> None:
    for call, why in (
        (lambda: analyse(PROTECTED[:, :9]), "shapes"),
        (lambda: analyse(PROTECTED[:1]), "two blocks or more"),
        (lambda: analyse(PROTECTED, only=ONLY[:5]), "shapes"),
        (lambda: analyse(PROTECTED, diagnostics={"k": (1.0,) * 5}), "diagnostic k"),
        (lambda: analyse(PROTECTED, diagnostics={"k": (np.nan,) * 6}), "diagnostic k"),
    ):
        with pytest.raises(ValueError, match=why):
            call()  # type: ignore[no-untyped-call]
