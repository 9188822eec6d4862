"""Exact tests over languages against R's re-testing of shifted data; symmetries, verdicts."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.language_power import MOST_LANGUAGES, languages_to_settle, sized
from stats.language_tests import (
    ShiftTest,
    label_permutations,
    require_reachable,
    shift_test,
    sign_flips,
    slope_permutations,
    smallest_p,
    smallest_p_signs,
)
from stats.language_verdicts import concluded, family_verdict, shift_rows
from stats.rows import TestRow

REFERENCE = Path(__file__).parent / "reference"
R = {
    name: float(value)
    for file in ("disparity_exact.txt", "disparity_bootstrap.txt")
    for name, value in csv.reader((REFERENCE / file).read_text().splitlines(), delimiter="\t")
}
Y = np.array([4.31, 2.75, 6.12, 3.08, 5.47, 1.93, 2.66, 3.51, 0.87, 2.24])
X = np.array([4.31, 2.75, 6.12, 3.08, 1.93, 2.66, 3.51, 0.87, 2.24, 5.9])
D = np.array([0.52, 0.11, -0.07, 0.83, 0.34, 0.29, 0.61, 0.02, 0.45, -0.2])
SIZES = np.array([3.0, 7, 2, 5, 4, 6, 3, 8])
TOTALS = np.array([1.2, 4.1, -0.5, 2.2, 0.9, 3.3, 1.8, 2.6])
SHARES = np.log([0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.02])
Z = np.array([1.1, 1.9, 1.4, 2.2, 3.1, 2.5, 3.6])
FIVE = np.arange(10) < 5
TESTS = {
    "labels_5v5": (shift_test(Y, label_permutations(FIVE)), 4.0),
    "labels_4v6": (shift_test(X, label_permutations(np.arange(10) < 4)), 4.0),
    "signs_10": (shift_test(D, sign_flips(10)), 0.6),
    "documents_8": (shift_test(TOTALS, sign_flips(8, sizes=SIZES)), 0.7),
    "slope_7": (shift_test(Z, slope_permutations(SHARES)), 2.0),
}
BARE = TestRow(family="f", hypothesis="gap", method="t", role="decides", contrast="v", reason="undefined")


@pytest.mark.parametrize("name", TESTS)
def test_p_values_intervals_and_equivalence_are_those_of_r(name: str) -> None:
    test, margin = TESTS[name]
    assert test.estimate == pytest.approx(R[f"{name}_estimate"], abs=1e-10)
    assert test.p() == pytest.approx(R[f"{name}_p"], abs=1e-11)
    assert test.p_greater() == pytest.approx(R[f"{name}_greater"], abs=1e-11)
    assert test.p_equivalence(margin) == pytest.approx(R[f"{name}_tost"], abs=1e-11)
    for alpha in (0.05, 0.1):
        expected = (R[f"{name}_low_{alpha}"], R[f"{name}_high_{alpha}"])
        assert test.interval(alpha) == pytest.approx(expected, abs=1e-8)  # R bisects to 1e-9


def test_p_values_agree_with_scipys_permutation_test() -> None:
    peer = scipy_stats.permutation_test(
        (Y[:5], Y[5:]), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis), vectorized=True
    )
    assert TESTS["labels_5v5"][0].p() == pytest.approx(peer.pvalue, abs=1e-12)
    signs = scipy_stats.permutation_test(
        (D,), lambda a, axis: a.mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert TESTS["signs_10"][0].p() == pytest.approx(signs.pvalue, abs=1e-12)


@pytest.mark.parametrize("name", TESTS)
def test_the_interval_holds_exactly_the_shifts_that_are_not_rejected(name: str) -> None:
    test, _ = TESTS[name]
    low, high = test.interval(0.05)
    assert low is not None
    assert high is not None
    assert test.p(low) > 0.05
    assert test.p(high) > 0.05
    assert test.p(low - 1e-6) <= 0.05
    assert test.p(high + 1e-6) <= 0.05
    assert test.p(test.estimate) > 0.99


def test_swapping_the_groups_flips_the_sign_and_nothing_else() -> None:
    test, swapped = (shift_test(Y, label_permutations(low)) for low in (FIVE, ~FIVE))
    low, high = test.interval(0.05)
    assert low is not None
    assert high is not None
    assert swapped.estimate == -test.estimate
    assert swapped.p() == test.p()
    assert swapped.interval(0.05) == pytest.approx((-high, -low))


def test_the_order_of_the_languages_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(10)
    test, moved = TESTS["labels_5v5"][0], shift_test(Y[order], label_permutations(FIVE[order]))
    assert moved.p() == test.p()
    assert moved.interval(0.05) == pytest.approx(test.interval(0.05))


def test_a_shift_of_the_low_group_shifts_the_interval() -> None:
    test, moved = TESTS["labels_5v5"][0], shift_test(Y + 7.0 * FIVE, label_permutations(FIVE))
    assert np.array(moved.interval(0.05)) - 7.0 == pytest.approx(np.array(test.interval(0.05)))
    assert moved.p(7.0) == test.p()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 / 3])
def test_equal_values_are_one_tie_whatever_their_rounding(value: float) -> None:
    same = shift_test(np.full(10, value), label_permutations(FIVE))
    assert same.p() == 1.0
    assert same.estimate == pytest.approx(0.0, abs=1e-6)
    assert same.interval(0.05) == (0.0, 0.0)
    flat = shift_test(np.full(10, value), sign_flips(10))
    assert flat.p() == (1.0 if value == 0.0 else 2 / 1024)
    assert flat.interval(0.05) == pytest.approx((value, value))


def test_too_few_languages_have_no_interval_and_cannot_be_planned() -> None:
    three = shift_test(np.array([9.0, 8, 7, 1, 2, 3]), label_permutations([1, 1, 1, 0, 0, 0]))
    assert three.p() == pytest.approx(R["labels_3v3_smallest"])
    assert three.p() == smallest_p(3, 3) > 0.05
    assert three.interval(0.05) == (None, None)
    row = shift_rows(three, BARE, margin=None, alpha=0.05)[0]
    assert row.reason == "20 arrangements give no 95 % interval"
    with pytest.raises(ValueError, match="3 low v 3 high languages reach p = 0"):
        require_reachable(3, 3)
    assert require_reachable(5, 5, tests=6) == pytest.approx(12 / 252)
    with pytest.raises(ValueError, match="times 7 tests"):
        require_reachable(5, 5, tests=7)


def test_the_smallest_p_is_reached_and_stated() -> None:
    extreme = np.arange(10.0)
    assert shift_test(extreme, label_permutations(~FIVE)).p() == smallest_p(5, 5)
    assert label_permutations(FIVE).smallest_p == smallest_p(5, 5)
    assert shift_test(extreme + 1, sign_flips(10)).p() == smallest_p_signs(10) == sign_flips(10).smallest_p


def test_a_sample_of_arrangements_counts_the_observed_one() -> None:
    y = np.concatenate([np.arange(12.0) + 50, np.arange(12.0)])
    sampled = label_permutations(np.arange(24) < 12, rng=np.random.default_rng(0))
    assert not sampled.exact
    test = shift_test(y, sampled)
    assert test.total == 10_000
    assert test.p() == 2 / 10_000  # (b + 1) / (m + 1) with b = 0, both tails
    assert shift_test(y[:18], sign_flips(18, rng=np.random.default_rng(0))).total == 10_000
    assert shift_test(y[:18] + 1.0, sign_flips(18, rng=np.random.default_rng(0))).p() == 2 / 10_000
    with pytest.raises(ValueError, match="pass rng"):
        label_permutations(np.arange(24) < 12)
    with pytest.raises(ValueError, match="pass rng"):
        sign_flips(18)


def test_a_sample_of_arrangements_comes_near_the_full_enumeration() -> None:
    d = np.random.default_rng(3).normal(0.2, 1.0, 18)
    flipped = (np.arange(2**18)[:, None] >> np.arange(18)) & 1
    p = float((flipped @ d <= 0.0).mean())  # sum of the signed differences at least the observed one
    sampled = shift_test(d, sign_flips(18, rng=np.random.default_rng(4), draws=40_000))
    assert 0.05 < p < 0.5
    assert sampled.p_greater() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 40_000))


@pytest.mark.parametrize(
    ("values", "why"), [([1.0, np.nan] + [0.0] * 8, "values \\[1\\]"), ([1.0] * 9, "one number a unit")]
)
def test_values_that_are_no_numbers_or_too_few_are_refused(values: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        shift_test(np.array(values), label_permutations(FIVE))


def test_labels_shares_sizes_margins_and_levels_are_checked() -> None:
    test = TESTS["signs_10"][0]
    for call, why in (
        (lambda: label_permutations([True, True]), "at least one language in each tier"),
        (lambda: slope_permutations([1.0, 1.0, 1.0]), "not all equal"),
        (lambda: sign_flips(2, sizes=np.array([1.0, 0.0])), "above 0"),
        (lambda: test.p_equivalence(0.0), "above 0"),
        (lambda: test.interval(1.0), "between 0 and 1"),
        (lambda: languages_to_settle(0.0, margin=1.0), "above 0"),
    ):
        with pytest.raises(ValueError, match=why):
            call()  # type: ignore[no-untyped-call]


def judged(y: np.ndarray, margin: float, *, family: int = 1) -> TestRow:
    rows = shift_rows(shift_test(y, label_permutations(FIVE)), BARE, margin=margin, alpha=0.05)
    others = [replace(rows[0], contrast=f"other {i}", p=1.0) for i in range(family - 1)]
    return concluded([*rows, *others], alpha=0.05)[0]


def test_the_four_verdicts_and_their_precedence() -> None:
    apart = np.where(FIVE, 3.0, 0.0) + np.linspace(0.0, 0.2, 10)
    assert judged(apart, 1.0).verdict == "DETECTED"
    assert judged(apart, 1.0).negligible is False
    assert judged(apart, 9.0).verdict == "DETECTED"  # before EQUIVALENT
    assert judged(apart, 9.0).negligible is True
    near = np.tile([0.0, 0.1], 5)
    assert judged(near, 1.0).verdict == "EQUIVALENT"
    assert judged(near, 0.01).verdict == "INCONCLUSIVE"
    assert judged(apart, 1.0, family=7).verdict == "INCONCLUSIVE"  # 7 x 2 / 252 is above .05


def test_a_small_p_alone_is_not_a_detection() -> None:
    row = replace(BARE, estimate=0.3, low=-0.1, high=0.7, p=0.001, reason=None)
    assert concluded([row], alpha=0.05)[0].verdict == "INCONCLUSIVE"
    assert concluded([replace(row, low=0.1)], alpha=0.05)[0].verdict == "DETECTED"
    assert concluded([replace(row, low=None, high=None)], alpha=0.05)[0].verdict == "INCONCLUSIVE"


def test_an_undefined_member_is_invalid_and_keeps_its_place_in_the_family() -> None:
    a = replace(BARE, estimate=1.0, low=0.5, high=1.5, p=0.004, reason=None)
    b = replace(a, contrast="b", p=0.02)
    gone = replace(BARE, contrast="c", reason="en: 1 of 9 losses of the variant are no number above 0")
    rows = concluded([a, b, gone], alpha=0.05)
    assert [row.p_adjusted for row in rows[:2]] == pytest.approx([R["holm_1"], R["holm_2"]])
    assert (rows[2].verdict, rows[2].p_adjusted) == ("INVALID", None)
    whole = family_verdict(rows)
    assert whole.verdict == "INVALID"
    assert whole.reason is not None
    assert "c: en: 1 of 9" in whole.reason


def test_the_languages_that_settle_a_question_are_those_of_r() -> None:
    for line in (REFERENCE / "languages_to_settle.txt").read_text(encoding="utf-8").splitlines():
        tiers, alpha, sd, n = line.split()
        found = languages_to_settle(float(sd), margin=0.5, tiers=int(tiers), alpha=float(alpha))
        assert found == (int(n) if int(n) <= MOST_LANGUAGES else None), line


def test_the_languages_that_settle_a_question_do_by_simulation_and_one_fewer_do_not() -> None:
    settling = languages_to_settle(1.0, margin=1.5)
    assert settling is not None
    rng, sets, reached = np.random.default_rng(5), 20_000, []
    for n in (settling - 1, settling):
        se = np.sqrt(rng.normal(size=(2, sets, 2, n)).var(axis=3, ddof=1).sum(axis=2) / n)
        difference = rng.normal(0.0, np.sqrt(2 / n), size=(2, sets))
        two_sided, one_sided = scipy_stats.t.isf([0.025, 0.05], 2 * n - 2)
        found = np.abs(difference[0] + 1.5) > two_sided * se[0]
        inside = np.abs(difference[1]) < 1.5 - one_sided * se[1]
        reached.append(min(found.mean(), inside.mean()))
    assert reached[0] < 0.8 + 0.01  # 0.01: over 3 standard errors of 20,000 sets
    assert reached[1] > 0.8 - 0.01


def test_a_row_without_variation_or_margin_has_no_detectable_effect() -> None:
    row = replace(BARE, estimate=0.0, margin=1.0, reason=None)
    assert sized(row, np.zeros(10), FIVE.tolist()).mde is None
    assert sized(replace(row, margin=None), Y, FIVE.tolist()).mde is None
    assert isinstance(TESTS["labels_5v5"][0], ShiftTest)
