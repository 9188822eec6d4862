"""Contrasts, tiers and the verdict to ship: what passes, what fails, and what must never pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stats.rows import FloatArray, TestRow
from stats.sense_rows import PAIRS, analyse_contrasts, legacy_rows, tier_rows
from stats.ship_blockers import Evidence, Limits, Outcomes, TestSet, ship_rows
from stats.shortcut_audit import Shortcut

ITEMS = 720
LEMMAS = np.arange(ITEMS) // 12
TIERS = np.arange(ITEMS) % 3 + 1
TEST = TestSet(lemmas=LEMMAS, tiers=TIERS, coherence_lemmas=LEMMAS[::3], coherence_steps=np.full(240, 3))


def hits(p: float, seed: int, seeds: int = 10, items: int = ITEMS) -> FloatArray:
    return (np.random.default_rng(seed).random((seeds, items)) < p).astype(np.float64)


def outcomes(top1: float, top3: float, coherence: float, seed: int, seeds: int = 10) -> Outcomes:
    rng = np.random.default_rng([seed, 1])
    steps = rng.binomial(3, coherence, size=(seeds, 240)).astype(np.float64)
    return Outcomes(
        top1=hits(top1, seed, seeds),
        top3=hits(top3, seed + 100, seeds),
        coherence=steps,
        margin=0.2 * rng.normal(size=(seeds, ITEMS)),
    )


CHANCE = np.full(ITEMS, 0.1)
GOOD = Evidence(
    condition="B",
    test=TEST,
    ours=outcomes(0.38, 0.62, 0.85, 1),
    baselines={
        "tf-idf": Outcomes(top1=hits(0.1, 2, 1), top3=hits(0.3, 3, 1)),
        "mean": outcomes(0.2, 0.4, 0.6, 4),
    },
    shortcuts={"length": Shortcut(hits=hits(0.1, 5, 1)[0], chance=CHANCE, lemmas=LEMMAS)},
    control_outcomes=outcomes(0.2, 0.4, 0.6, 6),
)


def judged(evidence: Evidence, limits: Limits | None = None) -> tuple[TestRow, list[TestRow]]:
    rows = ship_rows(evidence, rng=np.random.default_rng(9), limits=limits)
    return rows[-1], rows


def test_what_meets_all_blockers_ships() -> None:
    verdict, rows = judged(GOOD)
    assert (verdict.verdict, verdict.reason, verdict.role) == ("DETECTED", None, "verdict")
    assert [row.verdict for row in rows] == ["DETECTED"] * len(rows)
    assert {(row.hypothesis, row.metric, row.contrast) for row in rows} == {
        ("threshold", "top1", "B"),
        ("threshold", "top3", "B"),
        ("threshold", "coherence", "B"),
        ("better_than_baseline", "top1", "B-tf-idf"),
        ("better_than_baseline", "top3", "B-tf-idf"),
        ("better_than_baseline", "top1", "B-mean"),
        ("better_than_baseline", "top3", "B-mean"),
        ("better_than_baseline", "coherence", "B-mean"),
        ("shortcut_at_chance", "top1", "B:length"),
        ("no_collapse", "margin", "B"),
        ("tier1_non_inferior", "top1", "B-A"),
        ("ship", "*", "B"),
    }
    judged_rows = [row for row in rows if row.hypothesis in ("threshold", "better_than_baseline")]
    assert all(row.low is not None and row.high is not None for row in judged_rows)


def test_the_mean_over_seeds_and_steps_is_what_a_threshold_judges() -> None:
    _, rows = judged(GOOD)
    assert GOOD.ours.top1 is not None
    assert GOOD.ours.coherence is not None
    assert rows[0].estimate == pytest.approx(float(GOOD.ours.top1.mean()))
    assert rows[2].estimate == pytest.approx(float(GOOD.ours.coherence.mean()) / 3.0)
    mean = float(GOOD.ours.top1.mean())
    for limit, verdict in ((mean - 1e-9, "DETECTED"), (mean + 1e-9, "INCONCLUSIVE")):
        row = judged(GOOD, Limits(top1=limit))[1][0]
        assert (row.verdict, row.reason) == (verdict, f"the interval includes {limit:g}")


FAILS = {
    "threshold top1": replace(GOOD, ours=replace(GOOD.ours, top1=hits(0.26, 1))),
    "threshold top3": replace(GOOD, ours=replace(GOOD.ours, top3=hits(0.46, 1))),
    "threshold coherence": replace(
        GOOD, ours=replace(GOOD.ours, coherence=outcomes(0.1, 0.1, 0.75, 1).coherence)
    ),
    "better_than_baseline top1 (tf-idf)": replace(
        GOOD, baselines={"tf-idf": Outcomes(top1=hits(0.375, 2, 1), top3=hits(0.3, 3, 1))}
    ),
    "better_than_baseline coherence (mean)": replace(
        GOOD, baselines={"mean": replace(outcomes(0.2, 0.4, 0.85, 4), top1=None, top3=None)}
    ),
    "no_collapse margin": replace(
        GOOD,
        ours=replace(
            GOOD.ours,
            margin=np.random.default_rng(0).normal(size=(10, ITEMS)) * np.array([[0.2]] * 9 + [[0.009]]),
        ),
    ),
    "tier1_non_inferior top1 (A)": replace(
        GOOD, control_outcomes=replace(outcomes(0.2, 0.4, 0.6, 6), top1=hits(0.4, 1))
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_one_blocker_that_fails_stops_the_ship_and_is_named(name: str) -> None:
    verdict, _ = judged(FAILS[name])
    assert (verdict.verdict, verdict.reason) == ("INCONCLUSIVE", f"fails {name}")


LEAKY = Shortcut(hits=hits(0.3, 7, 1)[0], chance=CHANCE, lemmas=LEMMAS)
SMALL = Shortcut(hits=(np.arange(60) < 8).astype(float), chance=CHANCE[:60], lemmas=LEMMAS[::12])
INVALID = {
    "shortcut_at_chance top1 (role: above chance": replace(GOOD, shortcuts={**GOOD.shortcuts, "role": LEAKY}),
    "shortcut_at_chance top1 (role: not shown to be at chance": replace(GOOD, shortcuts={"role": SMALL}),
    "no shortcut was audited": replace(GOOD, shortcuts={}),
    "no baseline was scored": replace(GOOD, baselines={}),
    "tf-idf was not scored": replace(GOOD, baselines={"tf-idf": Outcomes(top1=None, top3=None)}),
    "coherence was not measured": replace(GOOD, ours=replace(GOOD.ours, coherence=None)),
    "top1 was not measured": replace(GOOD, ours=replace(GOOD.ours, top1=None)),
    "margins were not measured": replace(GOOD, ours=replace(GOOD.ours, margin=None)),
    "top1 of B-A was not measured": replace(GOOD, control_outcomes=None),
    "no item of tier 1": replace(GOOD, test=replace(TEST, tiers=np.full(ITEMS, 2))),
    "check leakage (3 shared texts": replace(GOOD, checks={"leakage": "3 shared texts"}),
    "2 seeds x 60 lemmas": replace(
        GOOD,
        ours=outcomes(0.38, 0.62, 0.85, 1, seeds=2),
        baselines={"tf-idf": Outcomes(top1=hits(0.1, 2, 1), top3=hits(0.3, 3, 1))},
        control_outcomes=outcomes(0.2, 0.4, 0.6, 6, seeds=2),
    ),
}


@pytest.mark.parametrize("why", INVALID)
def test_a_check_that_fails_makes_the_verdict_invalid_whatever_the_blockers_say(why: str) -> None:
    verdict, _ = judged(INVALID[why])
    assert verdict.verdict == "INVALID"
    assert why in str(verdict.reason)


def test_a_check_outranks_a_failing_blocker() -> None:
    both = replace(FAILS["threshold top1"], shortcuts={"role": LEAKY})
    assert judged(both)[0].verdict == "INVALID"


def test_the_control_needs_no_comparison_with_itself() -> None:
    verdict, rows = judged(replace(GOOD, condition="A", control_outcomes=None))
    assert verdict.verdict == "DETECTED"
    assert rows[-2].reason == "the control itself"


def test_non_inferiority_turns_on_its_margin_and_on_tier_one_alone() -> None:
    assert GOOD.ours.top1 is not None
    worse = GOOD.ours.top1.copy()
    worse[:, TIERS != 1] = 0.0
    control = replace(outcomes(0.2, 0.4, 0.6, 6), top1=hits(0.39, 1))
    evidence = replace(GOOD, ours=replace(GOOD.ours, top1=worse), control_outcomes=control)
    row = judged(evidence, Limits(tier1_margin=0.1))[1][-2]
    assert row.low is not None
    assert row.low < -1e-6
    for asked, verdict in ((1e-6 - row.low, "DETECTED"), (-row.low - 1e-6, "INCONCLUSIVE")):
        assert judged(evidence, Limits(tier1_margin=asked))[1][-2].verdict == verdict


ABC = {"A": hits(0.2, 11), "B": hits(0.35, 12), "C": hits(0.35, 13)}


def contrasts(**more: object) -> list[TestRow]:
    given = {"outcomes": ABC, "lemmas": LEMMAS, "rng": np.random.default_rng(4), **more}
    return analyse_contrasts(**given)  # type: ignore[arg-type]


def decided(rows: list[TestRow]) -> dict[str, TestRow]:
    return {row.contrast: row for row in rows if row.role == "decides"}


def test_three_contrasts_are_corrected_together_and_each_has_a_verdict() -> None:
    rows = contrasts(margin=0.05)
    found = decided(rows)
    assert list(found) == ["B-A", "C-B", "C-A"]
    assert [row.verdict for row in found.values()] == ["DETECTED", "EQUIVALENT", "DETECTED"]
    smallest = 2 / 2001
    assert found["B-A"].p == pytest.approx(smallest)
    assert found["B-A"].p_adjusted == pytest.approx(3 * smallest)
    assert found["B-A"].estimate == pytest.approx(float((ABC["B"] - ABC["A"]).mean()))
    assert {row.role for row in rows} == {"decides", "equivalence", "secondary", "diagnostic"}
    table = [row for row in rows if row.hypothesis == "mde" and row.contrast.startswith("B-A:")]
    assert len(table) == 15
    assert all(row.mde is not None and row.estimate is not None and row.mde > row.estimate for row in table)


def test_the_other_way_round_flips_the_sign() -> None:
    one = decided(contrasts(pairs=[("B", "A")]))["B-A"]
    other = decided(contrasts(pairs=[("A", "B")]))["A-B"]
    assert other.estimate == pytest.approx(-(one.estimate or 0.0))
    assert (other.low, other.high) == pytest.approx((-(one.high or 0.0), -(one.low or 0.0)))
    assert other.p == one.p


def test_an_unusable_condition_is_invalid_and_keeps_the_family_of_three() -> None:
    found = decided(contrasts(unusable={"C": "collapsed in 4 of 10 seeds"}))
    assert [row.verdict for row in found.values()] == ["DETECTED", "INVALID", "INVALID"]
    assert found["C-B"].reason == "C: collapsed in 4 of 10 seeds"
    assert found["B-A"].p_adjusted == pytest.approx(3 * (found["B-A"].p or 0.0))


def test_equal_conditions_are_undefined_and_not_infinitely_alike() -> None:
    row = decided(contrasts(outcomes={**ABC, "C": ABC["B"]}))["C-B"]
    assert (row.verdict, row.estimate, row.p) == ("INVALID", 0.0, None)
    assert row.reason == "nothing varies over 10 seeds and 60 lemmas"


def test_coherence_is_contrasted_step_by_step() -> None:
    steps = {
        name: outcomes(0.1, 0.1, p, place).coherence
        for place, (name, p) in enumerate(zip("AB", (0.6, 0.8), strict=True))
    }
    rows = contrasts(
        outcomes=steps, lemmas=LEMMAS[::3], sizes=np.full(240, 3), pairs=[("B", "A")], metric="coherence"
    )
    found = decided(rows)["B-A"]
    assert found.estimate == pytest.approx(0.2, abs=0.05)
    paired = next(row for row in rows if row.hypothesis == "paired_t")
    assert paired.estimate == pytest.approx(found.estimate)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"pairs": []}, "declare one or more"),
        ({"pairs": [("A", "A")]}, "of two conditions"),
        ({"pairs": [*PAIRS, PAIRS[0]]}, "each once"),
        ({"pairs": [("D", "A")]}, r"no outcomes of \['D'\]"),
        ({"margin": 0.0}, "above 0"),
        ({"outcomes": {**ABC, "C": ABC["C"][:9]}}, "the same of both"),
        ({"outcomes": {**ABC, "C": np.where(ABC["C"] > 0, np.nan, 0.0)}}, "not finite"),
    ],
)
def test_contrasts_that_cannot_be_asked_are_refused(more: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        contrasts(**more)


def test_the_legacy_rows_are_two_and_only_of_three_seeds() -> None:
    rows = legacy_rows({name: own[:3] for name, own in ABC.items()})
    assert [(row.contrast, row.role, row.n) for row in rows] == [("B-A", "legacy", 3), ("C-B", "legacy", 3)]
    assert all("p < .05 asks for 2.48, power .8 for 3.26" in str(row.reason) for row in rows)


def test_tiers_are_ordered_on_the_lemmas_that_have_both() -> None:
    rng = np.random.default_rng(5)
    own = (rng.random((10, ITEMS)) < 0.7 - 0.2 * TIERS).astype(np.float64)
    rows = {row.contrast: row for row in tier_rows(own, LEMMAS, TIERS, condition="B", rng=rng)}
    assert rows["B:2"].estimate == pytest.approx(float(own[:, TIERS == 2].mean()))
    assert rows["B:1-2"].estimate == pytest.approx((rows["B:1"].estimate or 0) - (rows["B:2"].estimate or 0))
    apart = np.where(LEMMAS < 30, 1, 2)
    found = tier_rows(own, LEMMAS, apart, condition="B", rng=rng)
    assert [row.contrast for row in found] == ["B:1", "B:2"]
    some = np.where((LEMMAS < 55) & (TIERS == 2), 1, TIERS)
    step = {row.contrast: row for row in tier_rows(own, LEMMAS, some, condition="B", rng=rng)}["B:1-2"]
    assert "10 seeds x 5 lemmas" in step.method
    with pytest.raises(ValueError, match="one an item"):
        tier_rows(own, LEMMAS, TIERS[:5], condition="B", rng=rng)


def test_the_same_answers_as_the_controls_lose_nothing_on_tier_one() -> None:
    same = replace(GOOD, control_outcomes=GOOD.ours)
    rows = ship_rows(same, rng=np.random.default_rng(0))
    [row] = [one for one in rows if one.hypothesis == "tier1_non_inferior"]
    assert (row.verdict, row.estimate) == ("DETECTED", 0.0)
    assert "nothing varies" in str(row.reason)
