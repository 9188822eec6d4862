"""The bootstrap over documents against R's quantiles of the same resamples, and what alignment buys."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from stats.aligned_bootstrap import (
    Resampled,
    bootstrap_bounds,
    cluster_se,
    intervals,
    ratio_interval,
    resample_documents,
)
from stats.rows import FloatArray

REFERENCE = Path(__file__).parent / "reference" / "disparity_bootstrap.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
SIZES = np.array([3, 1, 4, 2, 5, 2, 3, 4])
LOW = np.array([7.1, 3.3, 9.8, 4.1, 16.2, 5.9, 6.6, 12.4])
HIGH = np.array([3.9, 1.2, 5.1, 2.9, 6.8, 2.2, 3.1, 5.5])


def same_draws_as_r() -> Resampled:
    counts, x = np.zeros((2000, 8)), 42
    for i in range(2000):
        for _ in range(8):
            x = 16807 * x % 2147483647
            counts[i, 8 * x // 2147483647] += 1.0
    return Resampled(code=np.repeat(np.arange(8), SIZES), weights=np.vstack([np.ones((1, 8)), counts]))


def spread_over(totals: FloatArray) -> FloatArray:
    """A value a sentence whose document totals are those given."""
    return np.repeat(totals / SIZES, SIZES)


def test_intervals_of_a_mean_a_gap_and_a_ratio_are_rs_on_the_same_resamples() -> None:
    drawn = same_draws_as_r()
    assert drawn.weights[1, 0] == R["counts_row_1_document_1"]
    assert drawn.weights[1:, 2].sum() == R["counts_sum_column_3"]
    means = drawn.means(np.stack([spread_over(LOW), spread_over(HIGH)]))
    columns = np.column_stack([means[:, 0], means[:, 0] - means[:, 1]])
    found = dict(zip(("mean", "gap"), intervals(columns, drawn), strict=True))
    found["ratio"] = ratio_interval(means[:, 0], means[:, 1], drawn)
    for name, interval in found.items():
        assert interval.estimate == pytest.approx(R[f"{name}_estimate"], rel=1e-12)
        assert interval.low == pytest.approx(R[f"{name}_low"], rel=1e-12)
        assert interval.high == pytest.approx(R[f"{name}_high"], rel=1e-12)
        # boot interpolates on the normal scale between neighbouring draws: 1e-4 apart here
        assert interval.low == pytest.approx(R[f"{name}_boot_low"], rel=1e-4)
        assert interval.high == pytest.approx(R[f"{name}_boot_high"], rel=1e-4)


def test_the_standard_error_over_documents_is_that_of_r() -> None:
    assert float(cluster_se(spread_over(LOW), same_draws_as_r())) == pytest.approx(R["mean_se"], rel=1e-12)


def test_resampled_totals_are_sums_over_the_drawn_sentences() -> None:
    rng = np.random.default_rng(0)
    documents = rng.integers(0, 6, size=40)
    values = rng.normal(size=(3, 2, 40))
    drawn = resample_documents(documents, rng=rng)
    totals, means = drawn.totals(values), drawn.means(values)
    assert totals.shape == (2001, 3, 2)
    for k in (0, 1, 77):
        times = drawn.weights[k][drawn.code]
        assert totals[k] == pytest.approx((values * times).sum(axis=-1))
        assert means[k] == pytest.approx((values * times).sum(axis=-1) / times.sum())
    assert (drawn.weights[1:].sum(axis=1) == drawn.documents).all()


def test_the_order_of_the_sentences_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    documents, values = np.repeat(np.arange(9), 3), rng.normal(size=(2, 27))
    order = rng.permutation(27)
    ends = []
    for places in (np.arange(27), order):
        drawn = resample_documents(documents[places], rng=np.random.default_rng(2))
        ends.append(np.array(bootstrap_bounds(drawn.means(values[:, places]), drawn)))
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)


def test_one_resample_serves_all_languages_so_what_they_share_cancels() -> None:
    rng = np.random.default_rng(3)
    documents, shared = np.repeat(np.arange(30), 2), np.repeat(10.0 * rng.normal(size=30), 2)
    both = np.stack([shared + 1.0, shared])
    drawn = resample_documents(documents, rng=rng)
    means = drawn.means(both)
    alone, gap = intervals(means, drawn)[0], intervals(means[:, :1] - means[:, 1:], drawn)[0]
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high - alone.low > 5.0
    assert (gap.estimate, gap.low, gap.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-9)


def test_documents_count_as_units_not_their_sentences() -> None:
    """Sentences of a document alike: as many documents give the same interval however long they are."""
    totals, width = np.random.default_rng(4).normal(size=12), []
    for length in (1, 9):
        drawn = resample_documents(np.repeat(np.arange(12), length), rng=np.random.default_rng(5))
        low, high = bootstrap_bounds(drawn.means(np.repeat(totals, length))[:, None], drawn)
        width.append(float(high[0] - low[0]))
    assert width[0] == pytest.approx(width[1])


def test_no_change_has_an_interval_of_length_zero() -> None:
    drawn = resample_documents(range(8), rng=np.random.default_rng(0))
    for value in (0.0, 0.1):
        found = intervals(drawn.means(np.full(8, value))[:, None], drawn)[0]
        assert (found.low, found.high) == (found.estimate, found.estimate)


def test_few_documents_have_an_estimate_and_a_reason() -> None:
    drawn = resample_documents(["a", "a", "b", "c", "d"], rng=np.random.default_rng(0))
    found = intervals(drawn.means([1.0, 3.0, 2.0, 2.0, 2.0])[:, None], drawn)[0]
    assert (found.estimate, found.low, found.high) == (2.0, None, None)
    assert found.reason == "4 documents; an interval needs at least 5"
    assert ratio_interval(*[drawn.means([1.0] * 5)] * 2, drawn).reason == found.reason


def test_a_denominator_not_surely_above_zero_has_no_ratio() -> None:
    drawn = resample_documents(range(6), rng=np.random.default_rng(0))
    up = drawn.means([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    for denominator in (-up, up - 3.0):  # below zero, and on both sides of it with a positive estimate
        found = ratio_interval(up, denominator, drawn)
        assert found.estimate is None
        assert found.reason is not None
        assert "not above zero" in found.reason


def test_equal_generators_give_equal_draws_and_bad_input_is_refused() -> None:
    a, b = (resample_documents("aabbcc", rng=np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(a.weights, b.weights)
    for call, why in (
        (lambda: resample_documents([], rng=np.random.default_rng(0)), "no sentences"),
        (lambda: resample_documents("ab", resamples=100, rng=np.random.default_rng(0)), "at least 2000"),
        (lambda: a.totals(np.zeros((2, 5))), "for 6 sentences"),
        (lambda: bootstrap_bounds(a.means(np.zeros(6))[:, None], a, 0.0), "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=why):
            call()  # type: ignore[no-untyped-call]
