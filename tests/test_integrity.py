"""Shares against R and enumeration, and every way in which outcomes can fail or flag the integrity gate."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from stats.integrity import Outcome, integrity_rows
from stats.proportions import equal_shares, wilson
from stats.rows import TestRow

PRINTED = (Path(__file__).parent / "reference" / "integrity_proportions.txt").read_text().splitlines()
WITNESS = list(csv.DictReader(PRINTED, delimiter="\t"))
ARMS = ("PRNG", "TRNG", "HMIX")


def table(case: str) -> tuple[list[int], list[int]]:
    numbers = [int(number) for number in case.split("/")]
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "row", [row for row in WITNESS if row["what"] == "wilson"], ids=lambda row: row["case"]
)
def test_wilson_agrees_with_r_and_scipy(row: dict[str, str]) -> None:
    (successes,), (n,) = table(row["case"])
    share = wilson(successes, n)
    assert share.low == pytest.approx(float(row["first"]), rel=1e-12)
    assert share.high == pytest.approx(float(row["second"]), rel=1e-12)
    peer = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((peer.low, peer.high), abs=1e-12)


@pytest.mark.parametrize("row", WITNESS[7:], ids=lambda row: f"{row['what']} {row['case']}")
def test_equal_shares_agree_with_r(row: dict[str, str]) -> None:
    found = equal_shares(*table(row["case"]), rng=generator(), n_draws=100_000)
    assert found.statistic == pytest.approx(float(row["first"]), rel=1e-12)
    wanted = "random_tables" if found.method.endswith("random tables") else "chi_square"
    if row["what"] == wanted:
        p = float(row["second"])
        slack = 4 * math.sqrt(p / 100_000) if wanted == "random_tables" else 1e-12
        assert found.p == pytest.approx(p, abs=slack)


def test_small_counts_agree_with_the_enumeration_of_every_table() -> None:
    """5 missing of 3 x 48 texts, all in one arm: each way to spread 5 over 3 arms has its chance."""
    weights = {}
    for spread in itertools.product(range(6), repeat=3):
        if sum(spread) == 5:
            weights[spread] = math.prod(math.comb(48, k) for k in spread)
    largest = max(sum(k * k for k in spread) for spread in weights)
    extreme = sum(w for spread, w in weights.items() if sum(k * k for k in spread) == largest)
    exact = extreme / sum(weights.values())
    found = equal_shares([0, 0, 5], [48, 48, 48], rng=generator(), n_draws=200_000)
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact / 200_000))


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.01, 0.05, 0.2]))
def test_wilson_mirrors_and_contains_its_estimate(n: int, part: float, alpha: float) -> None:
    successes = round(n * part)
    share, mirrored = wilson(successes, n, alpha=alpha), wilson(n - successes, n, alpha=alpha)
    assert 0 <= share.low <= share.estimate <= share.high <= 1
    assert share.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_equal_shares_hold_their_level_with_small_counts() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        counts = rng.binomial(40, 0.05, size=3)
        if counts.sum():
            hits += equal_shares(counts.tolist(), [40] * 3, rng=rng, n_draws=199).p <= 0.05
    assert hits / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def outcomes(samples: int = 16, prompts: int = 4, probes: int = 1) -> list[Outcome]:
    """Three arms, prompts of each constraint, every text different and every repeat equal to its sample."""
    found = []
    for a, p, s, probe in itertools.product(range(3), range(prompts), range(samples), range(probes + 1)):
        seed = 10_000 * a + 100 * p + s
        found.append(
            Outcome(
                arm=ARMS[a],
                prompt_id=f"p{p}",
                constraint=("open", "medium", "high", "open")[p % 4],
                seed32=seed,
                sample=s,
                probe=probe,
                text_ok=True,
                reason=None,
                words=45,
                text_sha=f"text {seed}",
            )
        )
    return found


def failing(outcome: Outcome, reason: str = "server error") -> Outcome:
    return replace(outcome, text_ok=False, reason=reason, words=None, text_sha=None)


def judge(found: list[Outcome], required_pairs: int = 100) -> dict[tuple[str, str, str], TestRow]:
    rows = integrity_rows(found, required_pairs=required_pairs, rng=generator())
    assert rows[-1].hypothesis == "verdict"
    return {(row.hypothesis, row.metric, row.contrast): row for row in rows}


def verdict(found: list[Outcome], required_pairs: int = 100) -> tuple[str | None, str]:
    row = judge(found, required_pairs)["verdict", "*", "*"]
    return row.verdict, row.reason or ""


def changed(share: float, change: Callable[[Outcome], Outcome], probe: int | None = None) -> list[Outcome]:
    """The good outcomes with an evenly spread share of them changed."""
    found = []
    for i, outcome in enumerate(outcomes()):
        hit = (i * 37) % 100 < 100 * share and (probe is None or outcome.probe == probe)
        found.append(change(outcome) if hit else outcome)
    return found


def test_good_outcomes_show_that_the_assay_works() -> None:
    assert verdict(outcomes()) == ("DETECTED", "")


def test_no_outcomes_are_invalid() -> None:
    assert verdict([]) == ("INVALID", "no outcomes")


def test_more_than_a_fifth_missing_is_invalid_whether_failed_or_short() -> None:
    half_and_half = changed(0.15, failing)
    for i, outcome in enumerate(half_and_half):
        if outcome.text_ok and i % 10 == 0:
            half_and_half[i] = replace(outcome, words=9)
    found, reason = verdict(half_and_half, 50)
    assert found == "INVALID"
    assert "of the samples are missing; at most 20% may be" in reason
    assert verdict(changed(0.15, failing), 50)[0] == "DETECTED"


def test_missingness_is_counted_by_arm_and_kind() -> None:
    found = outcomes()
    found[0] = failing(found[0], "generation timed out after 180 s")
    found[2] = failing(found[2])
    found[4] = replace(found[4], words=3)
    rows = judge(found)
    counts = {
        kind: rows["share_missing", kind, "PRNG"].estimate
        for kind in ("missing", "failed", "timed_out", "too_short")
    }
    assert counts == {"missing": 3 / 64, "failed": 2 / 64, "timed_out": 1 / 64, "too_short": 1 / 64}
    assert rows["share_missing", "missing", "*"].estimate == 3 / 192
    assert rows["share_missing", "missing", "TRNG"].estimate == 0.0


def losing(arms: Mapping[str, int], samples: int = 160) -> list[Outcome]:
    """Outcomes whose arms lose the first so many samples of each prompt."""
    return [failing(o) if o.sample < arms.get(o.arm, 0) else o for o in outcomes(samples=samples)]


@pytest.mark.parametrize(("lost", "said"), [(3, "INCONCLUSIVE"), (4, "INVALID")])
def test_missingness_that_depends_on_the_arm_is_flagged_and_above_2_percent_an_end(
    lost: int, said: str
) -> None:
    found = losing({"TRNG": lost})
    rows = judge(found)
    assert (rows["missing_depends_on_arm", "missing", "*"].p_adjusted or 1) < 0.01
    assert verdict(found)[0] == said
    assert "missing depends on the arm" in verdict(found)[1]
    assert ("2.5% apart; at most 2% may be" in verdict(found)[1]) == (said == "INVALID")


def test_arms_that_are_not_compared_with_each_other_may_lose_different_shares() -> None:
    found = losing({"TRNG": 20, "HMIX": 20})
    arms = {o.arm for o in found}
    assert {"TRNG", "HMIX"} < arms

    def last(group_of: Callable[[str], str]) -> TestRow:
        return integrity_rows(found, required_pairs=1, rng=generator(), group_of=group_of)[-1]

    assert last(lambda _: "").verdict == "INVALID"
    alike = last(lambda arm: "lossy" if arm in ("TRNG", "HMIX") else arm)
    assert (alike.verdict, "missing depends on the arm (p" in str(alike.reason)) == ("INCONCLUSIVE", True)
    mixed = last(lambda arm: "both" if arm in ("TRNG", "PRNG") else arm)
    assert mixed.verdict == "INVALID"
    assert "missing depends on the arm of both" in str(mixed.reason)


@pytest.mark.parametrize(("each", "said"), [(3, "INVALID"), (60, "INCONCLUSIVE")])
def test_a_primary_metric_undefined_in_one_arm_is_flagged(each: int, said: str) -> None:
    all_there = outcomes(samples=100)
    arm = all_there[0].arm
    lacking = [
        replace(o, undefined=frozenset({"mtld"})) if o.arm == arm and o.sample % each == 0 else o
        for o in all_there
    ]
    rows = integrity_rows(lacking, required_pairs=1, rng=generator())
    assert rows[-1].verdict == said
    assert "without mtld depends on the arm" in str(rows[-1].reason)
    assert integrity_rows(all_there, required_pairs=1, rng=generator())[-1].verdict == "DETECTED"


def test_nothing_missing_leaves_the_dependence_undefined_with_a_reason() -> None:
    row = judge(outcomes())["missing_depends_on_arm", "missing", "*"]
    assert row.p is None
    assert row.reason == "0 of 192 over 3 groups: nothing to compare"


def test_one_text_for_all_seeds_is_invalid() -> None:
    found, reason = verdict([replace(o, text_sha="same") for o in outcomes()])
    assert found == "INVALID"
    assert "PRNG: 6.2% distinct texts over 48 seeds" in reason  # 3 open or medium prompts of 16


def test_repeats_among_short_factual_answers_are_fine() -> None:
    found = [replace(o, text_sha="Paris.") if o.constraint == "high" else o for o in outcomes()]
    assert verdict(found)[0] == "DETECTED"


def test_a_distinct_share_low_by_chance_is_flagged_and_not_invalid() -> None:
    found = [replace(o, text_sha="twin") if o.prompt_id == "p0" and o.sample < 4 else o for o in outcomes()]
    share = judge(found)["distinct_share", "text", "PRNG"]
    assert share.estimate == 45 / 48
    assert verdict(found)[0] == "INCONCLUSIVE"


def test_a_constant_seed_arm_says_nothing_about_distinct_texts() -> None:
    constant = [
        replace(o, arm="CONSTANT", seed32=7, text_sha=f"text {o.prompt_id}")
        for o in outcomes()
        if o.arm == "PRNG"
    ]
    rows = judge(outcomes() + constant)
    row = rows["distinct_share", "text", "CONSTANT"]
    assert row.estimate is None
    assert row.reason == "no open or medium prompt has two different seeds"
    assert rows["verdict", "*", "*"].verdict == "DETECTED"


def test_repeats_that_differ_are_invalid_once_surely_under_99_percent() -> None:
    found, reason = verdict(changed(0.1, lambda o: replace(o, text_sha="other"), probe=1))
    assert found == "INVALID"
    assert "same-seed pairs are identical" in reason
    one = outcomes()
    one[1] = replace(one[1], text_sha="other")
    assert verdict(one)[0] == "DETECTED"  # 191 of 192: the upper bound is .9991


def test_failures_are_no_agreement_and_no_pair() -> None:
    found = [failing(o) if o.sample == 0 else o for o in outcomes()]
    row = judge(found)["same_seed_identity", "text", "*"]
    assert row.n == 192 - 12
    assert row.estimate == 1.0


def test_too_few_pairs_are_inconclusive() -> None:
    assert verdict(outcomes(), 400) == ("INCONCLUSIVE", "192 same-seed pairs, under the 400 required")
    none = [o for o in outcomes() if o.probe == 0]
    row = judge(none)["same_seed_identity", "text", "*"]
    assert (row.estimate, row.reason) == (None, "no pair of two texts, 0 repeats without one")
    assert verdict(none)[0] == "INCONCLUSIVE"


def test_invalid_goes_before_inconclusive() -> None:
    assert verdict([replace(o, text_sha="same") for o in outcomes()], 400)[0] == "INVALID"


def test_rows_are_unique_by_their_key() -> None:
    rows = integrity_rows(outcomes(), rng=generator())
    keys = [(row.family, row.hypothesis, row.metric, row.contrast, row.method, row.role) for row in rows]
    assert len(set(keys)) == len(keys)


def test_bad_outcomes_are_refused() -> None:
    good = outcomes()
    with pytest.raises(ValueError, match="PRNG/p0/0/0 has neither a text nor a reason"):
        replace(good[0], text_ok=False)
    with pytest.raises(ValueError, match="words None"):
        replace(good[0], words=None)
    with pytest.raises(ValueError, match="occurs twice"):
        integrity_rows([*good, good[0]], rng=generator())
    with pytest.raises(ValueError, match="has seed 1, its sample 0"):
        integrity_rows([good[0], replace(good[1], seed32=1)], rng=generator())
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)
