"""Corrections against R's p.adjust and statsmodels; undefined tests leave the family and are counted."""

import gc
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from stats.multiplicity import benjamini_hochberg, correct_rows, holm
from stats.rows import TestRow

PRINTED = Path(__file__).parent / "reference" / "multiplicity_p_adjust.txt"


def printed() -> dict[str, dict[str, list[float]]]:
    families: dict[str, dict[str, list[float]]] = {}
    for name, kind, *values in (line.split() for line in PRINTED.read_text().splitlines() if line[0] != "#"):
        families.setdefault(name, {})[kind] = [float(value) for value in values]
    return families


def row(metric: str, p: float | None, reason: str | None = None) -> TestRow:
    return TestRow(
        family="f", hypothesis="h", metric=metric, method="t", role="decides", p=p, reason=reason, estimate=p
    )


@pytest.mark.parametrize("family", ["plain", "ties", "one", "edges", "long"])
def test_adjusted_values_are_those_r_prints(family: str) -> None:
    values = printed()[family]
    assert holm(values["p"]) == pytest.approx(values["holm"], rel=1e-12)
    assert benjamini_hochberg(values["p"]) == pytest.approx(values["BH"], rel=1e-12)


@pytest.fixture(scope="module")
def _little_to_collect() -> Iterator[None]:
    """`multipletests` collects garbage at every call: 0.2 s of a session that holds a million objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_little_to_collect")
@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_values_are_those_of_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist(), rel=1e-9, abs=1e-300)
    assert benjamini_hochberg(p) == pytest.approx(
        multipletests(p, method="fdr_bh")[1].tolist(), rel=1e-9, abs=1e-300
    )


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_adjusting_keeps_the_order_and_never_lowers_a_p_value(p: list[float], random: object) -> None:
    shuffled = sorted(range(len(p)), key=lambda _: random.random())  # type: ignore[attr-defined]
    for correct in (holm, benjamini_hochberg):
        adjusted = correct(p)
        assert all(p[i] <= adjusted[i] <= 1.0 for i in range(len(p)))
        again = correct([p[i] for i in shuffled])
        assert again == [adjusted[i] for i in shuffled]
    assert all(a >= b for a, b in zip(holm(p), benjamini_hochberg(p), strict=True))


@pytest.mark.parametrize("bad", [None, math.nan, -0.01, 1.01, math.inf])
@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_a_p_value_that_is_no_probability_is_refused(correct: object, bad: float | None) -> None:
    with pytest.raises(ValueError, match=r"p value 1 of 3 is .*exclude undefined tests first"):
        correct([0.1, bad, 0.2])  # type: ignore[operator]


def test_an_empty_family_stays_empty() -> None:
    assert holm([]) == []
    assert benjamini_hochberg([]) == []


def test_an_undefined_test_leaves_the_family_keeps_its_reason_and_is_counted() -> None:
    rows = [row("a", 0.01), row("b", None, "constant"), row("c", 0.04)]
    family = correct_rows(rows)
    assert [r.p_adjusted for r in family.rows] == [0.02, None, 0.04]
    assert family.rows[1] == rows[1]
    assert (family.tested, family.undefined) == (2, 1)
    assert family.note == "2 tests corrected together; 1 undefined, excluded"
    found = correct_rows(rows, "benjamini-hochberg").rows[2].p_adjusted
    assert found == 0.04


def test_a_row_with_neither_p_nor_reason_is_refused() -> None:
    bare = TestRow(family="f", hypothesis="h", metric="a", method="t", role="decides", estimate=1.0)
    with pytest.raises(ValueError, match=r"f/h/a/.* has no p value and no reason"):
        correct_rows([row("b", 0.5), bare])


def test_holm_keeps_the_family_wise_error_under_independence_and_total_dependence() -> None:
    rng = np.random.default_rng(1)
    independent = rng.random((4000, 3))
    dependent = np.repeat(rng.random((4000, 1)), 3, axis=1)
    for p, expected in ((independent, 1 - (1 - 0.05 / 3) ** 3), (dependent, 0.05 / 3)):
        hits = np.mean([min(holm(list(line))) < 0.05 for line in p])
        assert abs(hits - expected) < 4.5 * math.sqrt(expected * (1 - expected) / 4000)
