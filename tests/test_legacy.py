"""The legacy view against R, and what separates a random prompt alone from the paired t test."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.legacy import IGNORED, MAXIMAL, PAIRED, PROMPT_ONLY, legacy_view, mixed_vs_paired
from stats.rows import FloatArray, TestRow

REFERENCE = Path(__file__).parent / "reference"


def printed(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((REFERENCE / name).read_text().splitlines(), delimiter="\t"))


WITNESS = {(row["set"], row["metric"], row["what"]): row for row in printed("legacy_paired.txt")}
DATA = printed("legacy_data.txt")
SETS = {"balanced": DATA, "unbalanced": [row for row in DATA if row["kept"] == "1"]}


def r(chosen: str, metric: str, what: str, column: str = "statistic") -> float:
    return float(WITNESS[chosen, metric, what][column])


def values_of(chosen: str) -> tuple[dict[str, FloatArray], list[str], list[str]]:
    rows = SETS[chosen]
    values = {metric: np.array([float(row[metric]) for row in rows]) for metric in ("mtld", "length")}
    return values, [row["source"] for row in rows], [row["prompt"] for row in rows]


def view(chosen: str) -> dict[tuple[str, str], TestRow]:
    values, source, prompt = values_of(chosen)
    rows = legacy_view(values, source=source, prompt=prompt)
    return {(row.metric, row.hypothesis): row for row in rows}


def three(chosen: str) -> dict[tuple[str, str], TestRow]:
    values, source, prompt = values_of(chosen)
    rows = mixed_vs_paired(values, source=source, prompt=prompt)
    return {(row.metric, row.method): row for row in rows}


CASES = list(itertools.product(SETS, ("mtld", "length")))


@pytest.mark.parametrize(("chosen", "metric"), CASES)
def test_prompt_mean_tests_agree_with_r(chosen: str, metric: str) -> None:
    rows = view(chosen)
    t, w = rows[metric, "paired_t"], rows[metric, "wilcoxon"]
    assert t.statistic == pytest.approx(r(chosen, metric, "paired_t"), rel=1e-11)
    assert t.p == pytest.approx(r(chosen, metric, "paired_t", "p"), rel=1e-11)
    assert t.p_adjusted == pytest.approx(r(chosen, metric, "paired_t_bh", "p"), rel=1e-11)
    assert (t.low, t.high) == pytest.approx(
        (r(chosen, metric, "interval"), r(chosen, metric, "interval", "df")), rel=1e-11
    )
    assert w.statistic == r(chosen, metric, "wilcoxon")
    assert w.p == pytest.approx(r(chosen, metric, "wilcoxon", "p"), rel=1e-11)


@pytest.mark.parametrize(("chosen", "metric"), CASES)
def test_effect_sizes_and_powers_agree_with_r(chosen: str, metric: str) -> None:
    rows = view(chosen)
    for hypothesis, what, tolerance in (
        ("d_z", "d_z", 1e-11),
        ("observed_power", "observed_power", 1e-6),
        ("detectable_d_z", "mde", 1e-5),
        ("percent_difference", "percent", 1e-9),
    ):
        assert rows[metric, hypothesis].estimate == pytest.approx(r(chosen, metric, what), rel=tolerance), (
            what
        )


@pytest.mark.parametrize(("chosen", "metric"), CASES)
def test_the_random_prompt_alone_agrees_with_lmertest(chosen: str, metric: str) -> None:
    row = three(chosen)[metric, PROMPT_ONLY]
    assert row.statistic is not None
    assert row.statistic**2 == pytest.approx(r(chosen, metric, "prompt_only"), rel=1e-5)
    assert row.df2 == pytest.approx(r(chosen, metric, "prompt_only", "df"), rel=1e-5)
    assert row.p == pytest.approx(r(chosen, metric, "prompt_only", "p"), rel=1e-4)


@pytest.mark.parametrize("chosen", SETS)
def test_the_maximal_model_agrees_with_lmertest_inside(chosen: str) -> None:
    row = three(chosen)["mtld", MAXIMAL]
    assert row.statistic is not None
    assert row.statistic**2 == pytest.approx(r(chosen, "mtld", "maximal"), rel=1e-4)
    assert row.df2 == pytest.approx(r(chosen, "mtld", "maximal", "df"), rel=1e-3)
    assert row.p == pytest.approx(r(chosen, "mtld", "maximal", "p"), rel=1e-3)


@pytest.mark.parametrize("chosen", SETS)
def test_prompts_that_disagree_give_a_hit_under_the_random_prompt_alone(chosen: str) -> None:
    rows = three(chosen)
    assert r(chosen, "mtld", "prompt_only", "p") < 0.05 < r(chosen, "mtld", "maximal", "p")
    assert rows["mtld", "label"].reason == IGNORED == "prompt heterogeneity ignored"
    assert rows["length", "label"].reason == "none rejects"


@given(st.integers(0, 10_000), st.integers(3, 8), st.integers(2, 5), st.floats(0, 1.5))
def test_in_a_balanced_pair_the_maximal_model_is_the_paired_t_test(
    seed: int, prompts: int, samples: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    cells = list(itertools.product(range(prompts), "ab", range(samples)))
    slope = spread * rng.normal(size=prompts)
    y = np.array([slope[p] * (s == "b") + rng.normal() for p, s, _ in cells])
    rows = mixed_vs_paired({"m": y}, source=[s for _, s, _ in cells], prompt=[str(p) for p, _, _ in cells])
    maximal, paired = rows[1], rows[2]
    assert (maximal.method, paired.method) == (MAXIMAL, PAIRED)
    assert maximal.statistic == pytest.approx(paired.statistic, rel=1e-5)
    assert maximal.df2 == pytest.approx(paired.df2, rel=1e-4)
    assert maximal.p == pytest.approx(paired.p, rel=1e-4)


def test_swapping_the_sources_flips_every_sign() -> None:
    values, source, prompt = values_of("unbalanced")
    swapped = ["TRNG" if s == "PRNG" else "PRNG" for s in source]
    before = legacy_view(values, source=source, prompt=prompt)
    after = legacy_view(values, source=swapped, prompt=prompt)
    for first, second in zip(before, after, strict=True):
        if first.hypothesis in ("paired_t", "d_z"):
            assert second.estimate == pytest.approx(-(first.estimate or 0), rel=1e-12)
        assert second.p == (None if first.p is None else pytest.approx(first.p, rel=1e-12))


def test_streams_weigh_alike_whatever_their_number_of_texts() -> None:
    y = np.array([1.0, 1.0, 1.0, 5.0, 2.0, 9.0, 4.0, 7.0])
    labels = {"source": list("aaaabbbb"), "prompt": list("11221212")}
    plain = legacy_view(
        {"m": np.r_[y, [1.0, 2.0]]},
        source=[*labels["source"], "a", "b"],
        prompt=[*labels["prompt"], "1", "1"],
    )
    streams = legacy_view(
        {"m": np.r_[y, [1.0, 2.0]]},
        source=[*labels["source"], "a", "b"],
        prompt=[*labels["prompt"], "1", "1"],
        stream=["s", "s", "s", "s", "s", "s", "t", "s", "s", "s"],
    )
    # b on prompt 1: texts 2, 4, 2; stream s has mean 2, stream t 4: mean 3, where the texts' own mean is 8/3
    a = np.array([1.0, 3.0])
    assert plain[0].estimate == pytest.approx((a - [8 / 3, 8.0]).mean())
    assert streams[0].estimate == pytest.approx((a - [3.0, 8.0]).mean())


def test_ties_and_zeros_in_few_differences_take_every_choice_of_signs() -> None:
    difference = np.array([1.0, 1.0, -2.0, 3.0, 0.0, 4.0, 4.0])
    y = np.column_stack([difference, np.zeros(7)]).ravel()
    row = legacy_view({"m": y}, source=list("ab") * 7, prompt=[str(i // 2) for i in range(14)])[1]
    assert row.statistic == 18.0  # ranks 1.5, 1.5, (3), 4, 5.5, 5.5 of the six that moved
    ranks = np.array([1.5, 1.5, 3.0, 4.0, 5.5, 5.5])
    sums = [float(ranks @ signs) for signs in itertools.product((0, 1), repeat=6)]
    assert row.p == pytest.approx(2 * np.mean([total >= 18.0 for total in sums]), rel=1e-12)


def test_three_sources_give_three_contrasts_and_one_correction_over_all() -> None:
    rng = np.random.default_rng(3)
    cells = list(itertools.product(range(6), "abc", range(3)))
    values = {name: rng.normal(size=len(cells)) for name in ("m1", "m2")}
    rows = legacy_view(values, source=[s for _, s, _ in cells], prompt=[str(p) for p, _, _ in cells])
    tests = [row for row in rows if row.hypothesis == "paired_t"]
    assert [(row.metric, row.contrast) for row in tests] == list(
        itertools.product(("m1", "m2"), ("a-b", "a-c", "b-c"))
    )
    smallest = min(row.p or 1 for row in tests)
    assert min(row.p_adjusted or 1 for row in tests) <= 6 * smallest


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (np.full(8, np.nan), "0 prompts with texts of both sources; a paired t test needs 2"),
        (np.array([1.0, 2, 1, 2, 1, 2, 1, 2]), "the prompts' differences do not vary"),
    ],
    ids=["missing", "constant"],
)
def test_an_undefined_test_is_a_row_with_a_reason(y: FloatArray, reason: str) -> None:
    source, prompt = list("abababab"), list("11223344")
    rows = legacy_view({"m": y}, source=source, prompt=prompt)
    rows += mixed_vs_paired({"m": y}, source=source, prompt=prompt)
    assert rows[0].reason == rows[-2].reason == reason
    for row in rows:
        assert (row.estimate is not None) or row.reason
    assert rows[-1].reason == f"undefined: {PROMPT_ONLY}, {MAXIMAL}, {PAIRED}"


def test_every_row_is_legacy_and_decides_nothing() -> None:
    values, source, prompt = values_of("balanced")
    rows = legacy_view(values, source=source, prompt=prompt)
    rows += mixed_vs_paired(values, source=source, prompt=prompt)
    assert {row.role for row in rows} == {"legacy"}
    assert {row.verdict for row in rows} == {None}
    keys = [(row.hypothesis, row.metric, row.contrast, row.method) for row in rows]
    assert len(set(keys)) == len(keys)


def _rejection_rates(simulations: int) -> dict[str, float]:
    """No mean effect, prompts that disagree by half a within-cell SD: 12 prompts, 2 sources, 8 texts."""
    rng = np.random.default_rng(17)
    cells = list(itertools.product(range(12), "ab", range(8)))
    source, prompt = [s for _, s, _ in cells], [str(p) for p, _, _ in cells]
    hits = dict.fromkeys((PROMPT_ONLY, MAXIMAL, PAIRED), 0)
    for _ in range(simulations):
        slope = 0.5 * rng.normal(size=24)
        y = np.array([slope[2 * p + (s == "b")] for p, s, _ in cells]) + rng.normal(size=len(cells))
        for row in mixed_vs_paired({"m": y}, source=source, prompt=prompt)[:3]:
            hits[row.method] += (row.p or 1) <= 0.05
    return {name: count / simulations for name, count in hits.items()}


def _check_rates(simulations: int) -> None:
    rates = _rejection_rates(simulations)
    slack = 3 * math.sqrt(0.05 * 0.95 / simulations)
    assert rates[PROMPT_ONLY] > 0.15
    assert abs(rates[PAIRED] - 0.05) <= slack
    assert rates[MAXIMAL] == rates[PAIRED]


def test_without_a_mean_effect_only_the_random_prompt_alone_rejects_too_often() -> None:
    _check_rates(300)


@pytest.mark.slow
def test_without_a_mean_effect_only_the_random_prompt_alone_rejects_too_often_in_many_runs() -> None:
    _check_rates(5000)


def test_bad_input_is_refused_with_what_was_found() -> None:
    with pytest.raises(ValueError, match="'m': 2"):
        legacy_view({"m": np.ones(2)}, source=["a", "b", "a"], prompt=["1", "1", "2"])
    with pytest.raises(ValueError, match="two sources"):
        legacy_view({"m": np.ones(2)}, source=["a", "a"], prompt=["1", "2"])
    with pytest.raises(ValueError, match="infinite"):
        legacy_view({"m": np.array([np.inf, 1])}, source=["a", "b"], prompt=["1", "1"])
