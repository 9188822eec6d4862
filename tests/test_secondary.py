"""Secondary questions against R, on data in which the answer is planted, and where there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stats.diversity import measure_text
from stats.interactions import adjust_within_cells, covariate_rows, domain_rows, domain_test
from stats.layout import Undefined
from stats.metric_tests import LabelledRows, label_rows
from stats.multiplicity import holm
from stats.rows import FloatArray, IntArray, TestRow
from stats.secondary import (
    Texts,
    analyse_secondary,
    bound_rows,
    metric_ranges,
    missingness_rows,
    stream_rows,
    turn_rows,
)
from stats.seed_effect import Design

PRINTED = Path(__file__).parent / "reference" / "secondary_interactions.txt"
DOMAINS = (
    (1, 1, 2, 2, 3, 3, 4, 4),
    (1, 1, 1, 2, 2, 3),
    tuple(int(d) for d in np.repeat(np.arange(1, 10), (4, 4, 4, 4, 4, 3, 3, 2, 2))),
)
SAMPLES = (6, 5, 10)
SOURCES = ("HMIX", "PRNG", "TRNG")
DESIGN = Design(primary=("mtld", "distinct_2"), looks=(10,), look=10, sources=SOURCES)


def printed(case: int, what: str) -> list[float]:
    lines = (line.split() for line in PRINTED.read_text().splitlines())
    return next([float(v) for v in values] for c, w, *values in lines if (c, w) == (str(case), what))


def made(case: int) -> tuple[FloatArray, FloatArray, IntArray, IntArray, IntArray]:
    """y, covariate, source, prompt and domain of one case of the R script."""
    domains, k = DOMAINS[case - 1], SAMPLES[case - 1]
    p, s, _ = (index.ravel() for index in np.indices((len(domains), 3, k)))
    p, s, i = p + 1, s + 1, np.arange(1, len(p) + 1)
    domain = np.array(domains)[p - 1]
    x = 60 + 15 * np.sin(0.9 * i**2) + 3 * np.sin(2 * p)
    y = 2 * np.sin(3 * p) + 0.8 * np.sin(5 * (3 * p + s) ** 2) + 1.4 * np.sin(0.7 * i**2)
    y += 0.5 * np.sin(4 * (domain + 7 * s)) + 0.03 * x
    return y, x, s - 1, p - 1, domain - 1


def labelled_case(case: int) -> LabelledRows:
    _, _, source, prompt, _ = made(case)
    names = tuple("abc")
    return label_rows(names, [names[s] for s in source], [f"{p:02d}" for p in prompt], ["s"] * len(prompt))


@pytest.mark.parametrize("case", [1, 2, 3])
def test_the_domain_test_is_that_of_r(case: int) -> None:
    y, _, source, prompt, domain = made(case)
    test = domain_test(y, source, prompt, domain)
    found = [test.statistic, test.df1, test.df2, test.p]
    assert found == pytest.approx(printed(case, "aov"), rel=1e-9)
    assert found == pytest.approx(printed(case, "lmer"), rel=1e-5)  # lmerTest's optimiser stops there


@pytest.mark.parametrize("case", [1, 2, 3])
def test_the_covariates_slope_and_the_adjusted_test_are_those_of_r(case: int) -> None:
    y, x, source, prompt, _ = made(case)
    found = adjust_within_cells(y, x, prompt * 3 + source)
    p = 2 * float(stats.t.sf(abs(found.slope / found.se), found.df))
    assert [found.slope, found.se, found.df, p] == pytest.approx(printed(case, "slope"), rel=1e-8)
    rows = covariate_rows({"y": y, "length_words": x}, ("y",), labelled_case(case))
    row = next(row for row in rows if row.hypothesis == "omnibus")
    assert [row.statistic, row.df1, row.df2, row.p] == pytest.approx(printed(case, "adjusted"), rel=1e-5)
    # the full mixed analysis of covariance uses the slope between cells too, and differs by little
    assert row.statistic == pytest.approx(printed(case, "ancova")[0], rel=0.02)


def texts(
    rng: np.random.Generator,
    *,
    prompts: int = 12,
    samples: int = 8,
    streams: int = 1,
    shift: FloatArray | None = None,
) -> Texts:
    """Balanced texts of two domains; `shift` (2 domains, 3 sources) is added to mtld."""
    p, s, t, _ = (index.ravel() for index in np.indices((prompts, 3, streams, samples)))
    domain = p % 2
    moved = 0.0 if shift is None else shift[domain, s]
    y = 50 + rng.normal(size=prompts)[p] + rng.normal(size=len(p)) + moved
    length = 80 + 10 * rng.normal(size=len(p))
    return Texts(
        values={"mtld": y, "distinct_2": 0.8 + 0.1 * rng.normal(size=len(p)), "length_words": length},
        source=[SOURCES[i] for i in s],
        prompt=[f"p{i:02d}" for i in p],
        stream=[f"t{i}" for i in t],
        domain=[("code", "naming")[i] for i in domain],
    )


def labelled_of(found: Texts) -> LabelledRows:
    return label_rows(SOURCES, found.source, found.prompt, found.stream)


def only(rows: list[TestRow], hypothesis: str, metric: str = "mtld") -> TestRow:
    (row,) = [r for r in rows if (r.hypothesis, r.metric) == (hypothesis, metric)]
    return row


def test_a_source_that_acts_in_one_domain_alone_is_found_there() -> None:
    shift = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = texts(np.random.default_rng(1), shift=shift)
    rows = domain_rows(found.values, DESIGN.primary, labelled_of(found), found.domain)
    row = only(rows, "source_by_domain")
    assert row.p_adjusted is not None
    assert row.p_adjusted < 0.001
    by_name = {r.contrast: r for r in rows if r.metric == "mtld"}
    low, high = by_name["naming: PRNG-TRNG"].low, by_name["naming: PRNG-TRNG"].high
    assert low is not None
    assert high is not None
    assert low < -1 < high < 0
    code = by_name["code: PRNG-TRNG"]
    assert code.low is not None
    assert code.high is not None
    assert code.low < 0 < code.high


def test_an_effect_that_is_the_same_in_all_domains_is_no_interaction() -> None:
    found = texts(np.random.default_rng(2), shift=np.array([[0.0, 0.0, 3.0]] * 2))
    y = found.values["mtld"] - 3.0 * (np.array(found.source) == "TRNG")
    with_effect, without = (
        only(domain_rows({"mtld": column}, ("mtld",), labelled_of(found), found.domain), "source_by_domain")
        for column in (found.values["mtld"], y)
    )
    assert with_effect.p is not None
    assert with_effect.p > 0.01
    assert with_effect.statistic == pytest.approx(without.statistic)


def test_without_an_interaction_its_p_is_uniform() -> None:
    rng, p = np.random.default_rng(3), []
    prompt, source, _ = (index.ravel() for index in np.indices((10, 3, 4)))
    for _ in range(500):
        y = rng.normal(size=(10, 1, 1)) + 0.4 * rng.normal(size=(10, 3, 1)) + rng.normal(size=(10, 3, 4))
        p.append(domain_test(y.ravel(), source, prompt, prompt // 3).p)
    assert stats.kstest(p, "uniform").pvalue > 1e-4


def test_what_a_domain_test_cannot_answer_says_why() -> None:
    source, prompt = np.tile([0, 1], 6), np.repeat(np.arange(3), 4)
    y = np.arange(12, dtype=float) ** 1.5
    with pytest.raises(Undefined, match="3 whole prompts in 3 domains"):
        domain_test(y, source, prompt, prompt)
    with pytest.raises(Undefined, match="no prompt has a text of every source"):
        domain_test(y[:4], np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))


def test_an_effect_through_length_alone_vanishes_when_length_is_taken_out() -> None:
    rng = np.random.default_rng(4)
    found = texts(rng, prompts=20)
    length = found.values["length_words"] + 12.0 * (np.array(found.source) == "TRNG")
    values = {"mtld": found.values["mtld"] + 0.2 * length, "length_words": length}
    plain = analyse_secondary(
        replace(found, values={**found.values, **values}, stream=["one"] * len(length)),
        replace(DESIGN, primary=("mtld",)),
    )
    adjusted = next(r for r in plain if (r.family, r.hypothesis) == ("length_covariate", "omnibus"))
    assert adjusted.p is not None
    assert adjusted.p > 0.01
    slope = only(plain, "slope")
    assert slope.estimate == pytest.approx(0.2, abs=0.03)


@settings(max_examples=30)
@given(st.floats(-3, 3), st.integers(0, 1000))
def test_adjusting_does_not_depend_on_what_the_covariate_was_worth(slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell, y, x = np.repeat(np.arange(6), 5), rng.normal(size=30), rng.normal(size=30)
    plain, moved = adjust_within_cells(y, x, cell), adjust_within_cells(y + slope * x, x, cell)
    assert moved.slope == pytest.approx(plain.slope + slope, abs=1e-9)
    offset = moved.values - plain.values  # the mean of x, which is not taken out, remains
    assert offset == pytest.approx(np.full(30, offset[0]), abs=1e-9)


def test_a_covariate_that_never_varies_leaves_a_row_with_the_reason() -> None:
    found = texts(np.random.default_rng(5))
    values = {**found.values, "length_words": np.full(len(found.source), 60.0)}
    rows = covariate_rows(values, ("mtld",), labelled_of(found))
    assert only(rows, "omnibus").reason == "the covariate does not vary within cells"
    assert only(rows, "slope").estimate is None


def test_reasoning_that_changes_what_the_sources_do_is_found() -> None:
    found = texts(np.random.default_rng(6), prompts=16)
    added = np.random.default_rng(7).normal(size=len(found.source)) + 1.0 * (np.array(found.source) == "HMIX")
    kept = {name: column + added for name, column in found.values.items()}
    rows = analyse_secondary(replace(found, kept=kept), replace(DESIGN, primary=("mtld",)))
    cot = [row for row in rows if row.family == "cot_sensitivity"]
    row = only(cot, "kept_minus_stripped")
    assert row.p_adjusted is not None
    assert row.p_adjusted < 0.001
    assert {r.role for r in cot} == {"secondary"}
    missing = [row for row in analyse_secondary(found, DESIGN) if row.family == "cot_sensitivity"]
    assert [row.reason for row in missing] == ["no text holds reasoning"]


def test_each_stream_is_compared_by_itself_with_holm_over_streams_and_metrics() -> None:
    found = texts(np.random.default_rng(8), streams=3)
    stream, source = np.array(found.stream), np.array(found.source)
    y = found.values["mtld"] + 1.0 * ((stream == "t1") & (source == "PRNG"))
    rows = stream_rows(replace(found, values={**found.values, "mtld": y}), SOURCES, DESIGN)
    tests = [row for row in rows if row.hypothesis == "stream"]
    assert [row.p_adjusted for row in tests] == pytest.approx(
        holm([row.p for row in tests if row.p is not None])
    )
    hits = [
        (row.contrast, row.metric) for row in tests if row.p_adjusted is not None and row.p_adjusted < 0.01
    ]
    assert hits == [("t1", "mtld")]
    one = stream_rows(texts(np.random.default_rng(9)), SOURCES, DESIGN)
    assert one[0].reason == "1 stream; needs two"


def conversations(rng: np.random.Generator, shift: float) -> Texts:
    """5 conversations x 3 sources x 30 samples, each one unit."""
    c, s, _ = (index.ravel() for index in np.indices((5, 3, 30)))
    y = 50 + rng.normal(size=5)[c] + rng.normal(size=len(c)) + shift * (s == 2)
    return Texts(
        values={"mtld": y, "distinct_2": rng.normal(size=len(c)), "length_words": y},
        source=[SOURCES[i] for i in s],
        prompt=[f"c{i}" for i in c],
        stream=["t0"] * len(c),
        domain=["debate"] * len(c),
    )


def test_the_effect_in_conversations_is_held_against_that_in_single_answers() -> None:
    rng = np.random.default_rng(10)
    rows = turn_rows(texts(rng, prompts=20), conversations(rng, 2.0), DESIGN)
    by_name = {(row.metric, row.contrast): row for row in rows}
    assert len(rows) == 6
    row = by_name["mtld", "single - multi: PRNG-TRNG"]
    assert row.estimate == pytest.approx(2.0, abs=0.5)
    assert row.low is not None
    assert row.low > 0
    none = by_name["mtld", "single - multi: HMIX-PRNG"]
    assert none.low is not None
    assert none.high is not None
    assert none.low < 0 < none.high
    assert {r.family for r in rows} == {"turns"}
    adjusted = holm([r.p for r in rows if r.p is not None])
    assert [r.p_adjusted for r in rows] == pytest.approx(adjusted)
    assert turn_rows(texts(rng), None, DESIGN)[0].reason == "no conversations"


def test_missing_texts_that_depend_on_the_arm_are_found_by_reason() -> None:
    arm = ["A"] * 300 + ["B"] * 300
    reason = [None if i % 10 else "timed out" if i < 300 else "empty reply" for i in range(600)]
    reason[1] = reason[301] = "under 10 words"
    rows = missingness_rows(arm, reason, rng=np.random.default_rng(1))
    by_reason = {row.metric: row for row in rows}
    assert set(by_reason) == {"timed out", "empty reply", "under 10 words"}
    table = stats.chi2_contingency([[30, 0], [270, 300]], correction=False)
    assert by_reason["timed out"].p == pytest.approx(float(table.pvalue))
    exact = stats.fisher_exact([[1, 1], [299, 299]]).pvalue
    assert by_reason["under 10 words"].p == pytest.approx(exact, abs=0.02)
    assert [row.p_adjusted for row in rows] == holm([row.p for row in rows if row.p is not None])
    none = missingness_rows(arm, [None] * 600, rng=np.random.default_rng(1))
    assert [row.reason for row in none] == ["no text is missing"]


@settings(max_examples=200)
@given(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=10, max_size=30), st.booleans())
def test_no_text_lies_outside_the_declared_ranges(words: list[str], distinct: bool) -> None:
    text = " ".join(f"{word}{i}" if distinct else word for i, word in enumerate(words))
    found = measure_text(text)
    for metric, size in metric_ranges(30).items():
        value = found[metric][0]
        if value is not None:
            low = 10.0 if metric == "length_words" else 0.0
            assert low - 1e-9 <= value <= low + size + 1e-9


def test_a_text_whose_last_word_alone_repeats_stays_inside_the_range_of_mtld() -> None:
    words = [f"w{i}" for i in range(29)]
    ahead = measure_text(" ".join([*words, "w28"]))["mtld"][0]
    assert ahead is not None
    assert ahead <= metric_ranges(30)["mtld"]


def test_the_bound_stands_beside_the_interval_and_says_when_they_disagree() -> None:
    pair = TestRow(
        family="seed_effect",
        hypothesis="pairwise",
        metric="distinct_2",
        contrast="TRNG-PRNG",
        method="t",
        role="decides",
        estimate=0.02,
        low=0.01,
        high=0.03,
    )
    row = bound_rows({"PRNG": ("prng", None), "TRNG": ("trng", None)}, 150, [pair])[0]
    assert (row.estimate, row.low, row.high) == (0.0, -0.03, -0.01)
    assert row.reason is not None
    wide = bound_rows({"PRNG": ("prng", None), "TRNG": ("constant", None)}, 150, [pair])[0]
    assert wide.estimate == pytest.approx(1.0)
    assert wide.reason is None


def test_nothing_secondary_decides() -> None:
    rng = np.random.default_rng(11)
    rows = analyse_secondary(texts(rng, streams=2), DESIGN, multi=conversations(rng, 0.0))
    assert {row.role for row in rows} <= {"secondary", "diagnostic"}
    assert all(row.verdict is None for row in rows)
