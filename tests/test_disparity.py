"""What a variant costs each language and each tier: rows of known arrays, exact nulls, faults named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from stats.aligned_bootstrap import Resampled, resample_documents
from stats.disparity import PRIMARY, Aligned, analyse_disparity, collapsed, find, measures
from stats.rows import FloatArray, TestRow

CODES = ("en", "de", "ru", "zh", "ar", "sw", "yo", "am", "km", "is")
LOW = (False,) * 5 + (True,) * 5
SHARES = (0.4, 0.2, 0.15, 0.1, 0.08, 0.03, 0.02, 0.01, 0.006, 0.004)
DOCUMENTS = tuple(f"d{i // 5}" for i in range(100))
RNG = np.random.default_rng(0)
BITS = RNG.gamma(9.0, 8.0, size=(10, 100))
BYTES = RNG.integers(20, 120, size=(10, 100))
TOKENS = RNG.integers(5, 30, size=(10, 100))
CHARACTERS = np.maximum(1, BYTES // np.array([1, 1, 2, 3, 2, 1, 1, 3, 3, 1])[:, None])
ALIGNED = Aligned(
    languages=CODES,
    is_low=LOW,
    documents=DOCUMENTS,
    bits=BITS,
    n_bytes=BYTES,
    characters=CHARACTERS,
    tokens=TOKENS,
    premiums=tuple((BYTES.sum(axis=1) / BYTES[0].sum()).tolist()),
    shares=SHARES,
)
DRAWN = resample_documents(DOCUMENTS, rng=np.random.default_rng(1))
COST = np.where(LOW, 4.0, 2.0) + np.linspace(-0.3, 0.3, 10)
INT4 = BITS + COST[:, None] + RNG.normal(size=(10, 100))


def analyse(
    variants: dict[str, FloatArray], aligned: Aligned = ALIGNED, drawn: Resampled = DRAWN, **rest: object
) -> list[TestRow]:
    rng = np.random.default_rng(2)
    return analyse_disparity(aligned, variants, margin=0.5, drawn=drawn, rng=rng, **rest)  # type: ignore[arg-type]


ROWS = analyse({"int4": INT4, "fp32": BITS})
DELTA = INT4 - BITS


def test_each_measure_is_its_total_change_over_its_denominator() -> None:
    total = DELTA.sum(axis=1)
    expected = {
        PRIMARY: total / 100,
        "relative": total / BITS.sum(axis=1),
        "bits_per_byte": total / BYTES.sum(axis=1),
        "premium_bits_per_byte": total / BYTES[0].sum(),
        "bits_per_character": total / CHARACTERS.sum(axis=1),
        "nats_per_token": total * math.log(2) / TOKENS.sum(axis=1),
    }
    assert measures(ALIGNED) == tuple(expected)
    for measure, values in expected.items():
        found = [find(ROWS, "change", f"int4:{code}", measure) for code in CODES]
        assert [row.estimate for row in found] == pytest.approx(values.tolist(), rel=1e-12)
        gap = find(ROWS, "gap", "int4", measure)
        assert gap.estimate == pytest.approx(values[5:].mean() - values[:5].mean(), rel=1e-9)
        assert gap.role == ("decides" if measure == PRIMARY else "secondary")
        for row in found:
            assert row.low is not None
            assert row.high is not None
            assert row.low < (row.estimate or 0.0) < row.high


def test_a_planted_gap_is_detected_and_described() -> None:
    gap = find(ROWS, "gap", "int4")
    assert gap.verdict == "DETECTED"
    assert gap.p == pytest.approx(2 / 252)
    assert gap.p_adjusted == pytest.approx(4 / 252)  # two variants in the family
    means = DELTA.mean(axis=1)
    ratio, geometric = find(ROWS, "ratio_of_means", "int4"), find(ROWS, "geometric_mean_ratio", "int4")
    assert ratio.estimate == pytest.approx(means[5:].mean() / means[:5].mean())
    logs = np.log(means)
    assert geometric.estimate == pytest.approx(math.exp(logs[5:].mean() - logs[:5].mean()))
    assert find(ROWS, "spread", "int4").estimate == pytest.approx(means.std(ddof=1))
    worst = find(ROWS, "worst_language", f"int4:{CODES[int(means.argmax())]}")
    assert worst.estimate == pytest.approx(means.max())
    assert worst.statistic is not None
    assert 0.2 < worst.statistic <= 1.0
    slope = find(ROWS, "slope_on_log_share", "int4")
    assert slope.estimate == pytest.approx(np.polyfit(np.log(SHARES), means, 1)[0])
    assert slope.p is not None
    assert slope.p < 0.05
    fixed = find(ROWS, "gap_fixed_languages", "int4")
    assert fixed.estimate == pytest.approx(gap.estimate)
    assert fixed.low is not None
    assert gap.low is not None
    assert fixed.low > gap.low  # other sentences move it less than other languages


def test_the_unchanged_model_is_exactly_zero_with_p_one_and_never_nan() -> None:
    gap = find(ROWS, "gap", "fp32")
    assert (gap.estimate, gap.low, gap.high, gap.p, gap.verdict) == (0.0, 0.0, 0.0, 1.0, "EQUIVALENT")
    for row in ROWS:
        if row.contrast.startswith("fp32") and row.hypothesis == "change":
            assert (row.estimate, row.low, row.high) == (0.0, 0.0, 0.0)
    for name in ("ratio_of_means", "geometric_mean_ratio"):
        row = find(ROWS, name, "fp32")
        assert row.estimate is None
        assert row.reason is not None
        assert row.reason.startswith("undefined: ")


def test_the_same_damage_in_both_tiers_is_no_gap() -> None:
    noise = np.random.default_rng(3).normal(size=(10, 100))
    equal = BITS + 3.0 + np.tile([0.1, -0.1], 5)[:, None] + noise
    row = find(analyse({"int4": equal}), "gap", "int4")
    assert row.verdict == "EQUIVALENT"
    assert row.reason is None


def test_swapping_the_tiers_flips_the_gap() -> None:
    swapped = analyse({"int4": INT4}, replace(ALIGNED, is_low=tuple(not low for low in LOW)))
    for hypothesis in ("gap", "gap_fixed_languages"):
        a, b = find(ROWS, hypothesis, "int4"), find(swapped, hypothesis, "int4")
        assert b.estimate == pytest.approx(-(a.estimate or 0.0))
        assert (b.low, b.high) == pytest.approx((-(a.high or 0.0), -(a.low or 0.0)), rel=1e-6)
        assert b.p == a.p


def test_the_order_of_sentences_and_languages_changes_nothing() -> None:
    sentences, codes = (np.random.default_rng(seed).permutation(n) for seed, n in ((4, 100), (5, 10)))
    moved = Aligned(
        languages=tuple(CODES[i] for i in codes),
        is_low=tuple(LOW[i] for i in codes),
        documents=tuple(DOCUMENTS[i] for i in sentences),
        bits=BITS[codes][:, sentences],
        shares=tuple(SHARES[i] for i in codes),
    )
    drawn = resample_documents(moved.documents, rng=np.random.default_rng(1))
    again = analyse({"int4": INT4[codes][:, sentences]}, moved, drawn)
    for row in again:
        if row.hypothesis == "slope_on_log_share":  # random permutations of ten shares
            continue
        before = find(analyse({"int4": INT4}), row.hypothesis, row.contrast, row.metric)
        assert row.estimate == pytest.approx(before.estimate)
        assert (row.low, row.high) == pytest.approx((before.low, before.high))
        assert row.p == before.p
        assert row.verdict == before.verdict


def test_one_bad_loss_makes_the_variant_invalid_and_loses_nothing_else() -> None:
    broken = INT4.copy()
    broken[CODES.index("km"), 7] = np.nan
    rows = analyse({"int4": broken, "int8": BITS + 0.01})
    gap = find(rows, "gap", "int4")
    assert gap.verdict == "INVALID"
    assert gap.reason == "km: 1 of 100 losses of the variant are no number above 0"
    assert find(rows, "change", "int4:km").reason == gap.reason
    assert find(rows, "change", "int4:en").estimate == pytest.approx(DELTA[0].mean())
    assert find(rows, "gap", "int8").verdict == "EQUIVALENT"
    assert find(rows, "gap", "int8").p_adjusted == 1.0
    asked = {(r.hypothesis, r.metric) for r in rows if r.contrast == "int8"}
    assert {(r.hypothesis, r.metric) for r in rows if r.contrast == "int4"} <= asked | {
        ("worst_language", "*")
    } | {("worst_language", PRIMARY)}
    infinite = replace(ALIGNED, bits=np.where(broken == broken, BITS, np.inf))
    assert "losses of the baseline" in (find(analyse({"int4": INT4}, infinite), "gap", "int4").reason or "")


def test_a_collapsed_language_makes_the_variant_invalid_with_its_reason() -> None:
    why = collapsed(bits_per_token=11.9, unigram_bits_per_token=12.5, vocab_size=4096)
    assert why is not None
    rows = analyse({"int2": INT4, "int4": INT4}, unusable={"int2": {"sw": why}})
    assert find(rows, "gap", "int2").reason == f"sw: {why}"
    assert find(rows, "gap", "int2").verdict == "INVALID"
    assert find(rows, "gap", "int4").verdict == "DETECTED"


@pytest.mark.parametrize(
    ("bits", "unigram", "expected"),
    [
        (8.0, 9.0, False),
        (9.0, 9.0, False),
        (9.01, 9.0, True),
        (0.9799 * 12, 13.0, False),
        (0.98 * 12, 13.0, True),
        (math.nan, 9.0, True),
        (math.inf, 9.0, True),
    ],
)
def test_collapse_is_worse_than_unigram_or_near_uniform(bits: float, unigram: float, expected: bool) -> None:
    why = collapsed(bits_per_token=bits, unigram_bits_per_token=unigram, vocab_size=4096)
    assert (why is not None) == expected


def test_few_documents_leave_estimates_and_the_exact_test() -> None:
    documents = tuple(f"d{i // 50}" for i in range(100))
    drawn = resample_documents(documents, rng=np.random.default_rng(0))
    rows = analyse({"int4": INT4}, replace(ALIGNED, documents=documents), drawn)
    assert find(rows, "gap", "int4").verdict == "DETECTED"
    assert find(rows, "gap_fixed_languages", "int4").reason == "2 documents; an interval needs at least 5"
    assert find(rows, "change", "int4:en").estimate == pytest.approx(DELTA[0].mean())


def test_misaligned_or_unlabelled_data_are_refused_by_name() -> None:
    for change, why in (
        ({"bits": BITS[:, :99]}, "bits has shape \\(10, 99\\)"),
        ({"n_bytes": BYTES[:9]}, "n_bytes has shape"),
        ({"tokens": np.zeros((10, 100))}, "an empty sentence"),
        ({"is_low": (True,) * 10}, "at least one language in each tier"),
        ({"languages": ("en",) * 10}, "different codes"),
        ({"shares": (0.1,) * 9}, "shares"),
        ({"premiums": (0.0,) * 10}, "premiums"),
    ):
        with pytest.raises(ValueError, match=why):
            replace(ALIGNED, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="int4: \\(9, 100\\) losses for a baseline"):
        analyse({"int4": INT4[:9]})
    with pytest.raises(ValueError, match="there are hypotheses"):
        find(ROWS, "gaps", "int4")
