"""Runs compared over seeds: R's numbers, Holm, verdicts, missing runs, and error rates."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.over_seeds import mean_over_seeds, seeds_by_t
from stats.paired_seeds import seeds_to_settle
from stats.rows import TestRow
from stats.run_comparisons import any_differs_row, comparison_rows, lowest_of_all_row

REFERENCE = Path(__file__).parent / "reference" / "run_comparisons.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
Values = dict[str, dict[int, float | None]]


def r_runs() -> Values:
    """The losses that `run_comparisons.R` makes."""
    s = np.arange(1, 7)
    made = {
        "a": 1.9 + 0.02 * np.sin(3 * s),
        "b": 1.98 + 0.02 * np.sin(3 * s) + 0.03 * np.cos(5 * s),
        "c": 1.91 + 0.02 * np.sin(3 * s) + 0.01 * np.sin(7 * s),
        "d": 1.92 + 0.06 * np.sin(11 * s),
    }
    return {run: dict(enumerate(values.tolist(), start=1)) for run, values in made.items()}


PAIRS = [("a", "b"), ("a", "c"), ("a", "d")]


def compare(
    values: Values,
    pairs: list[tuple[str, str]] = PAIRS,
    *,
    margin: float | None = 0.05,
    role: str = "decides",
    reasons: dict[str, str] | None = None,
) -> list[TestRow]:
    return comparison_rows(
        values, pairs, family="controls", metric="valid_loss_nats", margin=margin, role=role, reasons=reasons
    )


def deciding(rows: list[TestRow]) -> list[TestRow]:
    return [row for row in rows if row.hypothesis == "difference"]


def combined(rows: list[TestRow], rule: str = "any") -> TestRow:
    rule_of = any_differs_row if rule == "any" else lowest_of_all_row
    return rule_of(rows, hypothesis="answer", family="controls")


def seeds(*values: float | None) -> dict[int, float | None]:
    return dict(enumerate(values))


def test_every_number_is_that_of_r() -> None:
    rows = compare(r_runs())
    for row, tost in zip(rows[::2], rows[1::2], strict=True):
        other = row.contrast[-1]
        found = {
            "estimate": row.estimate,
            "t": row.statistic,
            "p": row.p,
            "low": row.low,
            "high": row.high,
            "mde": row.mde,
            "holm": row.p_adjusted,
            "tost_p": tost.p,
            "tost_low": tost.low,
            "tost_high": tost.high,
        }
        expected = {name: R[f"{name}_{other}"] for name in found}
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert (row.n, row.df2, tost.role, tost.hypothesis) == (6, 5.0, "equivalence", "difference_tost")


def test_a_mean_over_seeds_is_that_of_r() -> None:
    bare = TestRow(family="f", hypothesis="h", method="t", role="secondary", alpha=0.05, reason="undefined")
    row = mean_over_seeds([value for value in r_runs()["a"].values() if value is not None], bare)
    expected = [R["mean"], R["mean_low"], R["mean_high"], R["mean_p"]]
    assert [row.estimate, row.low, row.high, row.p] == pytest.approx(expected, rel=1e-9)
    assert row.reason is None


def test_a_mean_without_a_hypothesis_has_no_p_and_without_seeds_no_number() -> None:
    bare = TestRow(family="f", hypothesis="h", method="t", role="secondary", reason="undefined")
    untested = mean_over_seeds([1.0, 2.0], bare, tested=False)
    assert (untested.p, untested.statistic, untested.estimate) == (None, None, 1.5)
    gone = mean_over_seeds([math.nan, math.inf], bare)
    assert (gone.estimate, gone.n, gone.reason) == (None, 0, "2 of 2 seeds left out: undefined there")
    assert mean_over_seeds([], bare).reason == "no seed has it"
    one = mean_over_seeds([3.0], bare)
    assert (one.estimate, one.low, one.p) == (3.0, None, None)
    assert one.reason == "1 seed; an interval over seeds needs two or more"


@pytest.mark.parametrize("tests", [1, 6])
@pytest.mark.parametrize("ratio", [5, 2.5, 1, 0.5, 0.2])
def test_seeds_that_settle_are_those_of_r(ratio: float, tests: int) -> None:
    found = seeds_by_t(1.0, margin=ratio, tests=tests)
    assert found == R[f"settle_{ratio:g}_{tests}"]
    flips = seeds_to_settle(1.0, margin=ratio, tests=tests)
    assert found is not None
    assert flips is not None
    assert found <= flips  # sign flips need as many and at least six


def test_a_spread_beyond_any_number_of_seeds_has_no_number_to_settle() -> None:
    assert seeds_by_t(1.0, margin=1e-4) is None
    with pytest.raises(ValueError, match="above 0"):
        seeds_by_t(0.0, margin=0.1)


def test_verdicts_of_the_four_kinds() -> None:
    runs: Values = {
        "self": seeds(1.80, 1.82, 1.81, 1.83),
        "far": seeds(1.90, 1.93, 1.91, 1.92),
        "near": seeds(1.801, 1.819, 1.812, 1.829),
        "wild": seeds(1.60, 2.10, 1.75, 1.95),
    }
    names = ["far", "near", "wild", "gone"]
    rows = deciding(compare(runs, [("self", name) for name in names], reasons={"gone": "diverged"}))
    assert [row.verdict for row in rows] == ["DETECTED", "EQUIVALENT", "INCONCLUSIVE", "INVALID"]
    assert rows[0].p_adjusted == pytest.approx(4 * (rows[0].p or 0.0))  # the missing run stays in the family
    assert rows[3].reason == "gone: diverged"
    assert rows[3].estimate is None
    assert rows[2].n_to_settle is not None
    assert rows[2].n_to_settle > 4


def test_seeds_that_settle_a_comparison_allow_for_the_others_beside_it() -> None:
    alone, beside = compare(r_runs(), [("a", "d")])[0], deciding(compare(r_runs()))[2]
    sd = float(np.std([(r_runs()["a"][s] or 0.0) - (r_runs()["d"][s] or 0.0) for s in range(1, 7)], ddof=1))
    assert alone.n_to_settle == seeds_by_t(sd, margin=0.05)
    assert beside.n_to_settle == seeds_by_t(sd, margin=0.05, tests=3)
    assert (beside.n_to_settle or 0) > (alone.n_to_settle or 0)


def test_the_order_of_seeds_and_of_runs_changes_only_signs() -> None:
    runs = r_runs()
    turned = {run: dict(reversed(values.items())) for run, values in runs.items()}
    assert compare(turned) == compare(runs)
    one, other = compare(runs, [("a", "b")])[0], compare(runs, [("b", "a")])[0]
    assert (one.low, one.high) == pytest.approx((-(other.high or 0.0), -(other.low or 0.0)))
    assert one.p == pytest.approx(other.p)


def test_seeds_that_only_one_run_has_are_left_out_and_named() -> None:
    runs: Values = {"a": seeds(1.0, 1.1, 1.2, None), "b": seeds(1.5, None, 1.6, 1.7)}
    row = compare(runs, [("a", "b")])[0]
    assert (row.n, row.reason) == (2, "without seeds 1, 3, which one of the two lacks")
    assert row.estimate == pytest.approx(-0.45)


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ({"a": seeds(1.0, 2.0)}, "b: no values"),
        ({"a": seeds(1.0, 2.0), "b": seeds(None, None)}, "b: no values"),
        ({"a": seeds(1.0, 2.0), "b": seeds(1.0, math.nan)}, "b: seed 1 is nan"),
        ({"a": seeds(1.0, None), "b": seeds(None, 1.0)}, "a and b share no seed"),
    ],
)
def test_a_comparison_without_numbers_is_invalid_with_the_reason(runs: Values, why: str) -> None:
    (row,) = compare(runs, [("a", "b")])
    assert (row.verdict, row.reason, row.p_adjusted) == ("INVALID", why, None)


def test_one_seed_is_inconclusive_and_differences_of_exactly_zero_are_equivalent() -> None:
    (one,) = compare({"a": seeds(1.0), "b": seeds(1.0)}, [("a", "b")])
    assert (one.verdict, one.p) == ("INCONCLUSIVE", None)
    assert one.reason == "1 seed; an interval over seeds needs two or more"
    (same,) = compare({"a": seeds(1.0, 2.0), "b": seeds(1.0, 2.0)}, [("a", "b")])
    assert (same.verdict, same.p, same.low, same.high) == ("EQUIVALENT", 1.0, 0.0, 0.0)
    (shifted,) = compare({"a": seeds(1.0, 2.0), "b": seeds(2.0, 3.0)}, [("a", "b")])
    assert (shifted.verdict, shifted.estimate) == ("INCONCLUSIVE", -1.0)


def test_without_a_margin_there_is_no_equivalence_and_the_role_is_kept() -> None:
    rows = compare(r_runs(), margin=None, role="secondary")
    assert {row.role for row in rows} == {"secondary"}
    assert len(rows) == 3
    assert all(row.n_to_settle is None and row.verdict != "EQUIVALENT" for row in rows)


@pytest.mark.parametrize("pairs", [[], [("a", "b"), ("a", "b")], [("a", "a")]])
def test_pairs_that_make_no_family_are_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="each once and of two runs"):
        compare(r_runs(), pairs)


def test_a_margin_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0, or None"):
        compare(r_runs(), margin=0.0)


def test_any_difference_is_detected_equivalent_only_if_all_are_and_invalid_if_one_is() -> None:
    base = seeds(1.80, 1.82, 1.81, 1.83)
    near, far, wild = (
        seeds(1.801, 1.819, 1.812, 1.829),
        seeds(1.9, 1.93, 1.91, 1.92),
        seeds(1.6, 2.1, 1.7, 1.9),
    )

    def answer(**others: dict[int, float | None]) -> TestRow:
        return combined(compare({"base": base, **others}, [(name, "base") for name in others]))

    assert answer(near=near, far=far).verdict == "DETECTED"
    assert answer(near=near, far=far).reason == "differs: far-base"
    assert answer(near=near).verdict == "EQUIVALENT"
    assert answer(near=near, wild=wild).verdict == "INCONCLUSIVE"
    assert answer(near=near, wild=wild).reason == "open: wild-base"
    assert answer(far=far, gone={}).verdict == "INVALID"
    assert answer(far=far, gone={}).reason == "gone: no values: gone-base"
    assert answer(far=far).p == answer(far=far).p_adjusted


def test_lowest_of_all_asks_every_control_without_correction() -> None:
    own = seeds(1.80, 1.82, 1.81, 1.83)
    far, just = seeds(1.90, 1.93, 1.91, 1.92), seeds(1.83, 1.87, 1.82, 1.86)
    near, above = seeds(1.801, 1.819, 1.812, 1.829), seeds(1.7, 1.71, 1.72, 1.70)

    def answer(**controls: dict[int, float | None]) -> TestRow:
        return combined(compare({"self": own, **controls}, [("self", name) for name in controls]), "lowest")

    rows = compare({"self": own, "far": far, "just": just}, [("self", "far"), ("self", "just")], margin=0.01)
    assert all((row.high or 0.0) < 0.0 for row in deciding(rows))
    assert combined(rows, "lowest").verdict == "DETECTED"
    assert combined(rows, "lowest").p == max(row.p or 0.0 for row in deciding(rows))
    assert answer(far=far, near=near).verdict == "INCONCLUSIVE"
    assert answer(far=far, near=near).reason == "not shown to be below in: self-near"
    assert answer(near=near).verdict == "EQUIVALENT"
    assert answer(far=far, above=above).verdict == "INCONCLUSIVE"
    assert answer(far=far, above=above).p == 1.0
    assert answer(far=far, gone={}).verdict == "INVALID"


def test_a_difference_inside_the_margin_that_is_detected_is_negligible() -> None:
    runs: Values = {"self": seeds(1.80, 1.82, 1.81, 1.83), "b": seeds(1.805, 1.8251, 1.8149, 1.835)}
    rows = compare(runs, [("self", "b")])
    assert (rows[0].verdict, rows[0].negligible) == ("DETECTED", True)
    assert combined(rows, "lowest").negligible is True
    assert combined(rows).negligible is True


def test_rows_of_another_family_are_no_evidence() -> None:
    with pytest.raises(ValueError, match="none of family 'memory' decides"):
        any_differs_row(compare(r_runs()), hypothesis="memory_matters", family="memory")


def test_equal_runs_are_called_different_and_runs_at_the_margin_equivalent_at_most_at_alpha() -> None:
    rng = np.random.default_rng(0)
    trials, wrong, beaten, equal = 300, 0, 0, 0
    for _ in range(trials):
        base = rng.normal(1.9, 0.05, 5)
        made = {name: base + rng.normal(0.0, 0.02, 5) for name in "sxy"}
        made |= {"m": made["s"] + rng.normal(0.05, 0.02, 5), "z": base + 1.0}
        runs: Values = {name: dict(enumerate(values.tolist())) for name, values in made.items()}
        wrong += combined(compare(runs, [("s", "x"), ("s", "y")], margin=None)).verdict == "DETECTED"
        beaten += (
            combined(compare(runs, [("s", "x"), ("s", "z")], margin=None), "lowest").verdict == "DETECTED"
        )
        equal += (compare(runs, [("s", "m")])[1].p or 0.0) <= 0.05
    spread = math.sqrt(0.05 * 0.95 / trials)
    assert wrong / trials < 0.05 + 4.0 * spread
    assert 0 < beaten / trials < 0.025 + 4.0 * spread  # z never hides that x is not beaten
    assert abs(equal / trials - 0.05) < 4.0 * spread


@settings(max_examples=60)
@given(st.lists(st.integers(-999, 999), min_size=2, max_size=6), st.floats(0.01, 0.5))
def test_an_equivalent_difference_has_its_interval_inside_the_margin(d: list[int], margin: float) -> None:
    values: Values = {"a": {k: v / 999.0 for k, v in enumerate(d)}, "b": dict.fromkeys(range(len(d)), 0.0)}
    rows = compare(values, [("a", "b")], margin=margin)
    if rows[0].verdict == "EQUIVALENT" and len(rows) == 2:
        assert rows[1].low is not None
        assert rows[1].high is not None
        assert -margin - 1e-9 <= rows[1].low
        assert rows[1].high <= margin + 1e-9


def test_intervals_over_seeds_cover() -> None:
    rng = np.random.default_rng(1)
    bare = TestRow(family="f", hypothesis="h", method="t", role="secondary", alpha=0.1, reason="undefined")
    rows = [mean_over_seeds(rng.normal(0.3, 1.0, 4), bare) for _ in range(1500)]
    share = np.mean([(row.low or 0.0) <= 0.3 <= (row.high or 0.0) for row in rows])
    assert abs(share - 0.9) < 4.0 * math.sqrt(0.09 / 1500)
