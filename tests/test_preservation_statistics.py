"""Budgets compared by signs over languages or documents, their effect on the gap, and the budget chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.aligned_bootstrap import cluster_se, resample_documents
from stats.disparity import find
from stats.language_tests import label_permutations, shift_test
from stats.preservation import analyse_preservation, choose_budget
from tests.test_disparity import ALIGNED, CODES, DRAWN, INT4, LOW

RNG = np.random.default_rng(7)
KEPT = INT4 - np.where(LOW, 1.5, 0.5)[:, None] + 0.3 * RNG.normal(size=(10, 100))
ROWS = analyse_preservation(
    ALIGNED,
    {"5 %": (INT4, KEPT), "same": (INT4, INT4)},
    margin=0.3,
    drawn=DRAWN,
    rng=np.random.default_rng(1),
)


def test_the_benefit_is_the_mean_saving_and_its_p_is_scipys() -> None:
    saved = (INT4 - KEPT).mean(axis=1)
    row = find(ROWS, "benefit", "5 %")
    peer = scipy_stats.permutation_test(
        (saved,), lambda a, axis: a.mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert row.estimate == pytest.approx(saved.mean())
    assert row.p == pytest.approx(peer.pvalue)
    assert row.verdict == "DETECTED"
    for code, value in zip(CODES, saved, strict=True):
        assert find(ROWS, "benefit_of_language", f"5 %:{code}").estimate == pytest.approx(value)


def test_the_effect_on_the_gap_permutes_labels_of_the_savings() -> None:
    row = find(ROWS, "benefit_on_gap", "5 %")
    test = shift_test((INT4 - KEPT).mean(axis=1), label_permutations(LOW))
    assert (row.estimate, row.p) == (pytest.approx(test.estimate), test.p())
    assert (row.low, row.high) == pytest.approx(test.interval(0.05))
    assert row.estimate == pytest.approx(1.0, abs=0.1)


def test_the_same_variant_on_both_sides_is_exactly_zero() -> None:
    row = find(ROWS, "benefit", "same")
    assert (row.estimate, row.low, row.high, row.p) == (0.0, 0.0, 0.0, 1.0)
    assert row.verdict == "EQUIVALENT"
    assert find(ROWS, "benefit_on_gap", "same").p == 1.0


def test_exchanging_control_and_treated_flips_the_sign() -> None:
    rows = analyse_preservation(
        ALIGNED, {"5 %": (KEPT, INT4)}, margin=0.3, drawn=DRAWN, rng=np.random.default_rng(1)
    )
    for name in ("benefit", "benefit_fixed_languages", "benefit_on_gap"):
        a, b = find(ROWS, name, "5 %"), find(rows, name, "5 %")
        assert (b.estimate, b.p) == (pytest.approx(-(a.estimate or 0.0)), a.p)
        assert (b.low, b.high) == pytest.approx((-(a.high or 0.0), -(a.low or 0.0)), abs=1e-9)


def test_holm_runs_over_the_budgets_and_an_undefined_one_stays_in() -> None:
    broken = KEPT.copy()
    broken[3, 3] = np.inf
    pairs = {"5 %": (INT4, KEPT), "10 %": (INT4, KEPT), "20 %": (INT4, broken)}
    rows = analyse_preservation(ALIGNED, pairs, margin=0.3, drawn=DRAWN)
    assert find(rows, "benefit", "5 %").p_adjusted == pytest.approx(3 * 2 / 1024)
    gone = find(rows, "benefit", "20 %")
    assert (gone.verdict, gone.p_adjusted) == ("INVALID", None)
    assert gone.reason == "zh: 1 of 100 losses of the variant are no number above 0"


def test_over_documents_it_speaks_of_these_languages_only() -> None:
    """Half the languages gain and half lose as much: nothing over languages, a gain over documents."""
    effect = np.where(np.arange(10) % 2 == 0, 2.0, -1.6)[:, None]
    treated = INT4 - effect - 0.02 * RNG.normal(size=(10, 100))
    verdicts = {}
    for unit in ("language", "document"):
        rows = analyse_preservation(
            ALIGNED, {"q": (INT4, treated)}, margin=0.05, drawn=DRAWN, unit=unit,  # type: ignore[arg-type]
            rng=np.random.default_rng(0),
        )  # fmt: skip
        verdicts[unit] = find(rows, "benefit", "q").verdict
    assert verdicts == {"language": "INCONCLUSIVE", "document": "DETECTED"}


def test_the_smallest_budget_within_one_standard_error_is_chosen() -> None:
    drawn = resample_documents(range(40), rng=np.random.default_rng(0))
    noise = RNG.normal(size=(10, 40))
    se = float(cluster_se((1.0 + noise).mean(axis=0), drawn))
    changes = {5.0: 1.0 + 1.01 * se, 10.0: 1.0 + 0.99 * se, 20.0: 1.0, 30.0: 1.0 + 0.5 * se}
    chosen = choose_budget(list(changes), [level + noise for level in changes.values()], drawn)
    assert (chosen.percent, chosen.best) == (10.0, 20.0)
    assert chosen.se == pytest.approx(se)
    assert chosen.means == pytest.approx([level + noise.mean() for level in changes.values()])


def test_budgets_that_cannot_be_compared_are_refused() -> None:
    drawn = resample_documents(range(5), rng=np.random.default_rng(0))
    good, bad = np.zeros((2, 5)), np.full((2, 5), np.nan)
    for percents, changes, why in (
        ([5.0], [good, good], "one array a different budget"),
        ([5.0, 5.0], [good, good], "one array a different budget"),
        ([5.0, 10.0], [good, bad], "budgets \\[10.0\\]"),
    ):
        with pytest.raises(ValueError, match=why):
            choose_budget(percents, changes, drawn)
    with pytest.raises(ValueError, match="two or more"):
        choose_budget([5.0], [good], resample_documents([1] * 5, rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match="losses for a baseline"):
        analyse_preservation(ALIGNED, {"q": (INT4, good)}, margin=0.3, drawn=DRAWN)
    with pytest.raises(ValueError, match="unit 'word'"):
        analyse_preservation(ALIGNED, {}, margin=0.3, drawn=DRAWN, unit="word")  # type: ignore[arg-type]
    assert replace(ALIGNED).languages == CODES
