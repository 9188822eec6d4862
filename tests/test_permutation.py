"""The sharp-null test against R's full enumeration, on its level, and on what it must not be used for."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.permutation import draws_for, sharp_null
from stats.rows import FloatArray, TestRow

REFERENCE = Path(__file__).parent / "reference" / "permutation_exact.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
BLOCKS = (
    (5.1, 4.2, 6.3, 5.8, 3.9, 4.4, 3.1),
    (2.2, 3.8, 2.9, 1.7, 2.1, 3.3),
    (7.7, 6.1, 6.9, 5.2, 6.6, 4.8, 7.0),
)
Y = np.concatenate([np.array(block) for block in BLOCKS])
SOURCE = list("aaaabbb" + "aaabbb" + "aaabbbb")
PROMPT = list("1111111" + "222222" + "3333333")

Keyed = dict[tuple[str, str, str], TestRow]


def keyed(
    values: dict[str, FloatArray], source: list[str], prompt: list[str], draws: int = 999, seed: int = 0
) -> Keyed:
    rng = np.random.default_rng(seed)
    rows = sharp_null(values, source=source, prompt=prompt, n_draws=draws, rng=rng, primary=tuple(values)[:3])
    return {(row.hypothesis, row.metric, row.contrast): row for row in rows}


def design(prompts: int, sources: str, samples: int) -> tuple[list[str], list[str]]:
    cells = list(itertools.product(range(prompts), sources, range(samples)))
    return [source for _, source, _ in cells], [str(prompt) for prompt, _, _ in cells]


def p_of(row: TestRow) -> float:
    assert row.p is not None, row.reason
    return row.p


def test_the_statistic_and_estimate_are_those_of_r() -> None:
    row = keyed({"m": Y}, SOURCE, PROMPT)["pairwise", "m", "a-b"]
    assert row.estimate == pytest.approx(R["estimate"], rel=1e-12)
    assert row.statistic == pytest.approx(R["statistic"], rel=1e-12)
    omnibus = keyed({"m": Y}, SOURCE, PROMPT)["omnibus", "m", "*"]
    assert omnibus.statistic == pytest.approx(R["statistic"] ** 2, rel=1e-12)


def test_the_p_value_approaches_the_full_enumeration_of_r() -> None:
    draws = 200_000
    row = keyed({"m": Y}, SOURCE, PROMPT, draws=draws)["pairwise", "m", "a-b"]
    error = np.sqrt(R["p_exact"] * (1 - R["p_exact"]) / draws)
    assert abs(p_of(row) - R["p_exact"]) < 4 * error


def test_with_one_prompt_the_statistic_is_welchs() -> None:
    pair = keyed({"m": Y[:7]}, SOURCE[:7], PROMPT[:7])["pairwise", "m", "a-b"]
    assert pair.statistic == pytest.approx(R["welch_t"], rel=1e-12)
    assert pair.statistic == pytest.approx(scipy_stats.ttest_ind(Y[:4], Y[4:7], equal_var=False).statistic)
    three = np.append(Y[:7], [8.1, 7.2, 9.9])
    omnibus = keyed({"m": three}, list("aaaabbbccc"), ["p"] * 10)["omnibus", "m", "*"]
    assert omnibus.statistic == pytest.approx(R["welch_f_numerator"], rel=1e-12)


def test_the_p_value_agrees_with_scipy_on_one_prompt() -> None:
    def welch(a: FloatArray, b: FloatArray, axis: int = -1) -> FloatArray:
        spread = a.var(axis=axis, ddof=1) / a.shape[axis] + b.var(axis=axis, ddof=1) / b.shape[axis]
        squared: FloatArray = (a.mean(axis=axis) - b.mean(axis=axis)) ** 2 / spread
        return squared

    peer = scipy_stats.permutation_test((Y[:4], Y[4:7]), welch, vectorized=True, alternative="greater")
    row = keyed({"m": Y[:7]}, SOURCE[:7], PROMPT[:7], draws=100_000)["pairwise", "m", "a-b"]
    assert p_of(row) == pytest.approx(peer.pvalue, abs=4 * np.sqrt(peer.pvalue / 100_000))  # 3 of 35


def test_a_missing_value_travels_with_its_text() -> None:
    y = Y.copy()
    y[[1, 15]] = np.nan
    seen = ~np.isnan(y)
    row = keyed({"m": y}, SOURCE, PROMPT, draws=100_000)["pairwise", "m", "a-b"]
    kept = [i for i in range(len(y)) if seen[i]]
    without = keyed({"m": y[seen]}, [SOURCE[i] for i in kept], [PROMPT[i] for i in kept])
    assert row.n == 18
    assert row.statistic == pytest.approx(without["pairwise", "m", "a-b"].statistic, rel=1e-12)
    assert p_of(row) == pytest.approx(_enumerated(y), abs=0.002)


def _enumerated(y: FloatArray) -> float:
    """Full enumeration: all 20 texts are labelled anew, a cell under two values drops its prompt."""
    per_prompt = []
    for start, size, first in ((0, 7, 4), (7, 6, 3), (13, 7, 3)):
        terms = []
        for chosen in itertools.combinations(range(start, start + size), first):
            rest = [i for i in range(start, start + size) if i not in chosen]
            a, b = (np.array([y[i] for i in rows if not np.isnan(y[i])]) for rows in (chosen, rest))
            fine = min(len(a), len(b)) > 1
            spread = a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b) if fine else 0.0
            terms.append((a.mean() - b.mean() if fine else 0.0, spread, fine))
        per_prompt.append(np.array(terms))
    one, two, three = per_prompt
    total = one[:, None, None] + two[None, :, None] + three[None, None, :]
    squared = total[..., 0] ** 2 / total[..., 1]  # the number of prompts cancels
    return float((squared >= squared[0, 0, 0] * (1 - 1e-9)).mean())


def test_a_third_source_never_moves_a_pair() -> None:
    source, prompt = design(4, "abc", 5)
    y = np.random.default_rng(5).normal(size=len(source))
    shifted = np.where(np.array(source) == "c", y + 100, y)
    alone, beside = (keyed({"m": v}, source, prompt)["pairwise", "m", "a-b"] for v in (y, shifted))
    assert (alone.estimate, alone.statistic, alone.p) == (beside.estimate, beside.statistic, beside.p)
    assert p_of(keyed({"m": shifted}, source, prompt)["pairwise", "m", "a-c"]) == 1 / 1000


def test_swapping_two_sources_flips_the_sign_only() -> None:
    swapped = ["b" if label == "a" else "a" for label in SOURCE]
    before = keyed({"m": Y}, SOURCE, PROMPT, draws=20_000)["pairwise", "m", "a-b"]
    after = keyed({"m": Y}, swapped, PROMPT, draws=20_000)["pairwise", "m", "a-b"]
    assert after.estimate == pytest.approx(-(before.estimate or 0), rel=1e-12)
    assert after.statistic == pytest.approx(-(before.statistic or 0), rel=1e-12)
    assert p_of(after) == pytest.approx(p_of(before), abs=0.006)


def test_units_and_prompt_levels_cancel() -> None:
    level = np.array([{"1": 0.0, "2": 50.0, "3": -7.0}[p] for p in PROMPT])
    before = keyed({"m": Y}, SOURCE, PROMPT)["pairwise", "m", "a-b"]
    after = keyed({"m": 3 * Y + level}, SOURCE, PROMPT)["pairwise", "m", "a-b"]
    assert after.statistic == pytest.approx(before.statistic, rel=1e-9)
    assert after.effect == pytest.approx(before.effect, rel=1e-9)
    assert after.p == before.p


def test_max_t_lies_between_the_raw_p_and_bonferroni() -> None:
    rng = np.random.default_rng(3)
    source, prompt = design(6, "abc", 6)
    shift = 0.7 * (np.array(source) == "b")
    values = {name: rng.normal(size=len(source)) + shift for name in ("m1", "m2", "m3", "other")}
    rows = keyed(values, source, prompt, draws=4999)
    for name in ("m1", "m2", "m3"):
        row = rows["omnibus", name, "*"]
        assert row.p_adjusted is not None
        assert p_of(row) <= row.p_adjusted <= 3 * p_of(row) + 3 * np.sqrt(p_of(row) / 4999)
    smallest = min(rows["omnibus", name, "*"].p_adjusted or 1 for name in ("m1", "m2", "m3"))
    assert rows["max_t", "*", "*"].p == smallest
    assert rows["omnibus", "other", "*"].p_adjusted == rows["omnibus", "other", "*"].p


def test_copies_of_a_metric_cost_nothing_under_max_t() -> None:
    rows = keyed({"m": Y, "copy": Y * 2}, SOURCE, PROMPT)
    assert rows["omnibus", "m", "*"].p_adjusted == rows["omnibus", "m", "*"].p


@pytest.mark.parametrize("broken", [np.full(20, np.nan), np.full(20, 3.7)], ids=["missing", "constant"])
def test_an_undefined_metric_is_a_row_with_a_reason_and_leaves_the_family(broken: FloatArray) -> None:
    rows = keyed({"m": Y, "broken": broken}, SOURCE, PROMPT)
    for key in (("omnibus", "broken", "*"), ("pairwise", "broken", "a-b")):
        assert rows[key].p is None
        assert rows[key].p_adjusted is None
        assert rows[key].reason is not None
    assert rows["omnibus", "m", "*"].p_adjusted == rows["omnibus", "m", "*"].p
    assert "broken" in (rows["max_t", "*", "*"].reason or "")


def test_the_number_of_threads_changes_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = keyed({"m": Y}, SOURCE, PROMPT, seed=4)
    monkeypatch.setattr("stats.arrangements.WORTH_THREADS", 0)
    assert keyed({"m": Y}, SOURCE, PROMPT, seed=4) == alone


def test_equal_generators_give_equal_rows() -> None:
    assert keyed({"m": Y}, SOURCE, PROMPT, seed=4) == keyed({"m": Y}, SOURCE, PROMPT, seed=4)
    assert keyed({"m": Y}, SOURCE, PROMPT, seed=4) != keyed({"m": Y}, SOURCE, PROMPT, seed=5)


def _null_rates(simulations: int, samples: int, seed: int) -> dict[str, float]:
    """Shares of rejections at .05 where no text depends on its source; coarse values, 5 % missing."""
    rng = np.random.default_rng(seed)
    source, prompt = design(5, "abc", samples)
    hits = dict.fromkeys(("omnibus", "max_t", "pair", "any_pair"), 0)
    for _ in range(simulations):
        common = rng.normal(size=len(source))
        values = {}
        for name in ("m1", "m2", "m3"):
            column = np.round((common + rng.exponential(size=len(source))) * 4)
            values[name] = np.where(rng.random(len(source)) < 0.05, np.nan, column)
        rows = sharp_null(values, source=source, prompt=prompt, n_draws=199, rng=rng, primary=tuple(values))
        pairs = [row for row in rows if row.hypothesis == "pairwise"]
        hits["omnibus"] += p_of(rows[0]) <= 0.05
        hits["max_t"] += p_of(rows[3]) <= 0.05
        hits["pair"] += p_of(pairs[0]) <= 0.05
        hits["any_pair"] += any((row.p_adjusted or 1) <= 0.05 for row in pairs)
    return {name: count / simulations for name, count in hits.items()}


def _check_null(simulations: int, samples: int) -> None:
    slack = 3.3 * np.sqrt(0.05 * 0.95 / simulations)
    for name, rate in _null_rates(simulations, samples, seed=8).items():
        assert rate <= 0.05 + slack, name
        if name != "any_pair":  # Bonferroni over pairs is conservative
            assert rate >= 0.05 - slack, name


def test_under_the_sharp_null_the_level_is_held() -> None:
    _check_null(300, samples=4)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [3, 8, 20])
def test_under_the_sharp_null_the_level_is_held_in_many_runs(samples: int) -> None:
    _check_null(4000, samples)


def test_it_rejects_where_prompts_respond_though_the_mean_effect_is_zero() -> None:
    """The reason why it never decides: prompt:source variance alone makes it reject far above its level."""
    rng = np.random.default_rng(11)
    source, prompt = design(10, "abc", 20)
    cell = np.unique([f"{p}{s}" for p, s in zip(prompt, source, strict=True)], return_inverse=True)[1]
    hits = 0
    for _ in range(40):
        y = rng.normal(size=len(source)) + 0.3 * rng.normal(size=30)[cell]
        hits += p_of(keyed({"m": y}, source, prompt, draws=199, seed=0)["omnibus", "m", "*"]) <= 0.05
    assert hits >= 0.15 * 40


@pytest.mark.parametrize(("alpha", "draws"), [(0.0016, 12_500), (0.0044, 10_000), (0.0001, 200_000)])
def test_the_number_of_draws_follows_the_level_of_the_look(alpha: float, draws: int) -> None:
    assert draws_for(alpha) == draws


def test_bad_input_is_refused_with_what_was_found() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="'m': 3"):
        sharp_null({"m": Y[:3]}, source=SOURCE, prompt=PROMPT, n_draws=9, rng=rng, primary=("m",))
    with pytest.raises(ValueError, match="1 source found"):
        sharp_null({"m": Y}, source=["a"] * 20, prompt=PROMPT, n_draws=9, rng=rng, primary=("m",))
    with pytest.raises(ValueError, match="infinite"):
        sharp_null({"m": Y * np.inf}, source=SOURCE, prompt=PROMPT, n_draws=9, rng=rng, primary=())
    with pytest.raises(ValueError, match=r"\['x'\]"):
        sharp_null({"m": Y}, source=SOURCE, prompt=PROMPT, n_draws=9, rng=rng, primary=("x",))
    with pytest.raises(ValueError, match="0 draws"):
        sharp_null({"m": Y}, source=SOURCE, prompt=PROMPT, n_draws=0, rng=rng, primary=("m",))
