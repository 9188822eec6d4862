"""Budgets compared by signs over languages or documents, their effect on the gap, and the budget chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats as scipy_stats

from stats.aligned_bootstrap import cluster_se, resample_documents
from stats.disparity import find
from stats.language_tests import label_permutations, shift_test
from stats.preservation import analyse_preservation, choose_budget
from tests.from_r import printed
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


UNEQUAL = np.repeat(np.arange(1, 9), [3, 1, 4, 2, 5, 2, 3, 4])
BUDGETS: dict[str, tuple[npt.NDArray[np.int64], dict[int, float], int | None]] = {
    "unequal": (UNEQUAL, {20: 1.0, 5: 1.25, 1: 2.5, 10: 1.12, 40: 1.05}, None),
    "smaller_out": (UNEQUAL, {1: 2.4, 5: 1.9, 10: 1.7, 20: 1.0}, None),
    "single": (np.arange(1, 25), {5: 1.3, 10: 1.15, 20: 1.1}, None),
    "worse_between": (UNEQUAL, {5: 1.1, 10: 1.9, 20: 1.0}, 1),
    "tie": (UNEQUAL, {20: 1.0, 10: 1.0, 5: 1.6}, 1),
}
"""Of `budget_choice.R`: documents, level of each budget, and the phase where all share one."""


@pytest.mark.parametrize("name", BUDGETS)
def test_means_standard_error_and_choice_are_those_of_sandwich_and_caret(name: str) -> None:
    documents, levels, shared = BUDGETS[name]
    w, s = np.ogrid[1:5, 1:25]
    changes = []
    for percent, level in levels.items():
        b = percent if shared is None else shared
        of_language, of_document = 0.4 * np.sin(2.2 * w + 0.3 * b), np.sin(1.1 * documents + 0.2 * b)
        changes.append(level + of_language + of_document + 0.5 * np.sin(1.7 * w * s + b))
    drawn = resample_documents(documents, rng=np.random.default_rng(0))
    found, wanted = choose_budget(list(levels), changes, drawn), printed("budget_choice.txt")
    assert found.means == pytest.approx([wanted[f"{name}_mean_{percent}"] for percent in levels], rel=1e-11)
    assert found.se == pytest.approx(wanted[f"{name}_se"], rel=1e-11)
    assert (found.best, found.percent) == (wanted[f"{name}_best"], wanted[f"{name}_percent"])
    assert found.n == wanted[f"{name}_documents"]


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
