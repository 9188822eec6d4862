"""Verdicts of the sense study on answers made by hand: what is no measurement is INVALID, never a pass."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.products import Products
from models.sense_conditions import FACTORS, factorial
from models.sense_files import write_items
from models.sense_probes import coherence_items
from models.sense_sources import SenseSource
from stats.rows import TestRow as Row
from tasks.sense_analysis import KIND, PUBLISHED, Question, analyse, question_key, rows_of
from tasks.sense_answers import Asked, asked
from tasks.sense_training import BASELINES, EXAM, ItemSet, item_set
from tests.small_sense_world import FAULTS, OURS, SOURCE, SPEC, at_fault, exam, items, who

WORST = ("missing", "constant", "key", "echo")
SEEDS = (1, 2, 3)
SKILL = {"A": 0.5, "B": 1.6, "C": 1.8}
"""Of an arm: what right candidates score above the others, in SD of the noise."""


def unlearned(of: Asked, *, filler: float = 0.0, ceiling: float = 9.0) -> dict[str, Any]:
    """Scores of noise, of one tie, of a shortcut and of what knows the answer almost always."""
    flat = [[0.5] * len(one.candidates) for one in of.retrieval]
    guess = [len(item.contexts) / len(item.inventory) for item in of.coherence]
    return {
        "scores": {
            "word_jaccard": exam(9, 0.0, of)["scores"],
            "flat": flat,
            "filler": exam(8, filler, of)["scores"] if filler else flat,
            "topics_known": exam(7, ceiling, of)["scores"],
        },
        "roles": {
            "word_jaccard": "baseline", "flat": "baseline", "filler": "shortcut", "topics_known": "ceiling",
        },
        "coherence": {"word_jaccard": guess, "flat": guess},
    }  # fmt: skip


def study(
    home: Path,
    kind: str,
    *,
    faults: Mapping[str, str] | None = None,
    arms: Sequence[str] = ("A", "B", "C"),
    seeds: Sequence[int] = SEEDS,
    known: dict[str, Any] | None = None,
    of: ItemSet | None = None,
    skill: float | None = None,
    **more: Any,
) -> Question:
    """Exams in a home, the first seed's of some arms at fault, and the question about them."""
    told = of or items()
    held = asked(told)
    exams: dict[str, dict[int, str]] = {}
    for arm in arms:
        exams[arm] = {}
        for seed in seeds:
            key = f"{arm}-{seed}-{told.digest[:4]}"
            own = exam(seed, SKILL.get(arm, 3.0) if skill is None else skill, held)
            if faults and arm in faults and seed == seeds[0]:
                own = at_fault(faults[arm], held)
            Products(home, EXAM).write(key, own)
            exams[arm][seed] = key
    Products(home, BASELINES).write("bb", known or unlearned(held))
    return Question(
        kind=kind, items=told, exams=exams, baselines="bb", margin=0.02, alpha=0.05, limits={},
        judged=tuple(arm for arm in arms if arm in SKILL), **more,
    )  # fmt: skip


def answered(home: Path, question: Question) -> list[Row]:
    key = question_key(question)
    assert analyse.fn(str(home), "test", question, key) == key
    return rows_of(home, key)


def deciding(rows: Sequence[Row], family: str = "sense_scaling") -> dict[str, Row]:
    return {one.contrast: one for one in rows if one.family == family and one.role == "decides"}


def verdicts(rows: Sequence[Row]) -> dict[str, str | None]:
    return {one.contrast: one.verdict for one in rows if one.hypothesis == "ship"}


def test_what_is_measured_and_good_is_detected_and_ships(tmp_path: Path) -> None:
    found = deciding(answered(tmp_path, study(tmp_path, "compare")))
    assert [found[name].verdict for name in ("B-A", "C-A")] == ["DETECTED", "DETECTED"]
    estimate = found["B-A"].estimate
    assert estimate is not None
    assert estimate > 0.1
    rows = answered(tmp_path, study(tmp_path, "ship"))
    assert verdicts(rows)["B"] == verdicts(rows)["C"] == "DETECTED"


@pytest.mark.parametrize("fault", WORST)
def test_an_arm_at_fault_makes_its_contrasts_invalid_and_no_others(fault: str, tmp_path: Path) -> None:
    rows = answered(tmp_path, study(tmp_path, "compare", faults={"B": fault}))
    for family in ("sense_scaling", "sense_scaling, top3", "sense_scaling, coherence"):
        found = {one.contrast: one for one in rows if one.family == family and one.hypothesis == "difference"}
        for name in ("B-A", "C-B"):
            assert found[name].estimate is None, (family, name)
            assert re.search(FAULTS[fault], str(found[name].reason)), (family, name)
        assert found["C-A"].estimate is not None
    found = deciding(rows)
    assert [found[name].verdict for name in ("B-A", "C-B", "C-A")] == ["INVALID", "INVALID", "DETECTED"]


@pytest.mark.parametrize("fault", WORST)
def test_an_arm_at_fault_does_not_ship_and_says_why(fault: str, tmp_path: Path) -> None:
    rows = answered(tmp_path, study(tmp_path, "ship", faults={"B": fault}))
    assert verdicts(rows) == {"A": verdicts(rows)["A"], "B": "INVALID", "C": "DETECTED"}
    [ship] = [one for one in rows if one.hypothesis == "ship" and one.contrast == "B"]
    assert re.search(FAULTS[fault], str(ship.reason))
    passed = [one for one in rows if one.contrast == "B" and one.hypothesis == "threshold"]
    assert [one.verdict for one in passed] == ["INVALID"] * 3


@pytest.mark.parametrize("fault", WORST)
def test_a_control_at_fault_lets_nothing_ship(fault: str, tmp_path: Path) -> None:
    rows = answered(tmp_path, study(tmp_path, "ship", faults={"A": fault}))
    assert verdicts(rows) == dict.fromkeys("ABC", "INVALID")
    for ship in (one for one in rows if one.hypothesis == "ship"):
        assert re.search(FAULTS[fault], str(ship.reason))


def test_the_rows_of_two_arms_at_fault_come_in_a_fixed_order(tmp_path: Path) -> None:
    rows = answered(tmp_path, study(tmp_path, "ship", faults={"A": "key", "B": "constant"}))
    checks = [one.metric for one in rows if one.hypothesis == "check" and one.contrast == "B"]
    assert checks == ["B is no measurement", "A is no measurement"]


def test_an_arm_whose_head_failed_is_invalid_with_that_reason(tmp_path: Path) -> None:
    question = study(tmp_path, "compare", arms=("A", "C"), failed={"B": "seed 2: the loss of step 7 is nan"})
    found = deciding(answered(tmp_path, question))
    assert found["B-A"].verdict == "INVALID"
    assert "the loss of step 7 is nan" in str(found["B-A"].reason)
    gone = study(tmp_path, "ship")
    Products(tmp_path, EXAM).path(gone.exams["B"][2]).unlink()
    rows = answered(tmp_path, gone)
    assert verdicts(rows)["B"] == "INVALID"
    assert any("1 of 3 exams are missing" in str(one.reason) for one in rows)


def test_a_baseline_that_ties_everything_gets_chance_and_no_file_order(tmp_path: Path) -> None:
    """Correct candidates first in the file would give file order all of it."""
    rows = answered(tmp_path, study(tmp_path, "ship", known=unlearned(who())))
    by_name = {
        one.contrast: one.estimate
        for one in rows
        if one.hypothesis == "better_than_baseline" and one.metric == "top1"
    }
    assert by_name["B-flat"] == pytest.approx(by_name["B-chance"])
    top1 = next(one.estimate for one in rows if one.hypothesis == "threshold" and one.contrast == "B")
    assert by_name["B-flat"] == pytest.approx(float(top1 or 0.0) - 0.1)


def test_items_without_shortcuts_that_work_are_sound(tmp_path: Path) -> None:
    rows = answered(tmp_path, study(tmp_path, "sound", arms=()))
    assert {one.contrast: one.verdict for one in rows if one.role == "decides"} == {
        "filler": "DETECTED",
        "topics known": "DETECTED",
    }
    assert [one.verdict for one in rows if one.role == "verdict"] == ["DETECTED"]


def test_a_shortcut_that_works_makes_the_items_invalid_and_stops_every_arm(tmp_path: Path) -> None:
    known = unlearned(who(), filler=2.0)
    rows = answered(tmp_path, study(tmp_path, "sound", arms=(), known=known))
    [verdict] = [one for one in rows if one.role == "verdict"]
    assert verdict.verdict == "INVALID"
    assert "filler: above chance" in str(verdict.reason)
    rows = answered(tmp_path, study(tmp_path, "ship", known=known))
    assert set(verdicts(rows).values()) == {"INVALID"}


def test_items_that_who_knows_the_topics_fails_are_invalid(tmp_path: Path) -> None:
    known = unlearned(who(), ceiling=-3.0)
    rows = answered(tmp_path, study(tmp_path, "sound", arms=(), known=known))
    [verdict] = [one for one in rows if one.role == "verdict"]
    assert (verdict.verdict, "the items cannot be answered" in str(verdict.reason)) == ("INVALID", True)


def test_without_an_audited_shortcut_nothing_is_sound(tmp_path: Path) -> None:
    known = unlearned(who())
    del known["scores"]["filler"], known["scores"]["topics_known"]
    rows = answered(tmp_path, study(tmp_path, "sound", arms=(), known=known))
    [verdict] = [one for one in rows if one.role == "verdict"]
    assert (verdict.verdict, "no shortcut was audited" in str(verdict.reason)) == ("INVALID", True)


SIZES = {"B-0.1": 100.0, "B-0.4": 400.0, "B-0.7": 700.0, "B-1": 1000.0, "B-2": 2000.0}


def test_a_curve_without_sizes_is_invalid(tmp_path: Path) -> None:
    [row] = answered(tmp_path, study(tmp_path, "curve"))
    assert (row.role, row.verdict, row.estimate) == ("decides", "INVALID", None)
    assert "none was trained" in str(row.reason)


def test_a_curve_with_a_size_at_fault_is_invalid_with_its_reason(tmp_path: Path) -> None:
    question = study(tmp_path, "curve", arms=tuple(SIZES), faults={"B-0.4": "constant"}, sizes=SIZES)
    [row] = answered(tmp_path, question)
    assert row.verdict == "INVALID"
    assert "B-0.4: all candidates tie" in str(row.reason)
    lost = study(tmp_path, "curve", arms=tuple(SIZES)[1:], sizes=SIZES)
    [row] = answered(tmp_path, lost)
    assert (row.verdict, "B-0.1: not measured" in str(row.reason)) == ("INVALID", True)


def test_a_curve_shows_every_size_and_what_twice_the_data_would_add(tmp_path: Path) -> None:
    rows = answered(tmp_path, study(tmp_path, "curve", arms=tuple(SIZES), sizes=SIZES, skill=2.5))
    assert {one.contrast: one.statistic for one in rows if one.hypothesis == "size"} == SIZES
    [row] = [one for one in rows if one.role == "decides"]
    assert (row.hypothesis, row.contrast) == ("doubling", "twice the data")
    assert row.verdict in ("EQUIVALENT", "INCONCLUSIVE")  # the arms are of equal skill
    assert "extrapolated" in row.method


def test_the_key_of_an_analysis_holds_every_exam_and_every_limit(tmp_path: Path) -> None:
    question = study(tmp_path, "ship")
    exams = question.exams
    changes: list[dict[str, Any]] = [
        {"exams": {**exams, "B": {**exams["B"], 2: "other"}}}, {"exams": {**exams, "B": {1: "B-1"}}},
        {"exams": {"A": exams["A"], "X": exams["B"], "C": exams["C"]}}, {"baselines": "cc"},
        {"limits": {"top1": 0.31}}, {"limits": {"top1": 0.32}}, {"margin": 0.03}, {"alpha": 0.01},
        {"kind": "compare"}, {"failed": {"B": "why"}}, {"failed": {"B": "another reason"}},
        {"killers": {"B": {1: "k"}}}, {"killers": {"B": {1: "l"}}}, {"sizes": {"B": 10.0}},
        {"killer_items": replace(items(), chosen=("a",))}, {"killer_items": replace(items(), chosen=("b",))},
        {"factorial": ("x",)}, {"contrasts": {"f": (("B", "A"),)}}, {"judged": ("A",)},
        {"items": replace(items(), per_sense=3)},
    ]  # fmt: skip
    keys = {question_key(replace(question, **one)) for one in changes}
    assert len({question_key(question), *keys}) == len(changes) + 1


def turned(question: Question) -> Question:
    """The same exams, arms and seeds told in another order."""
    exams = {arm: dict(sorted(own.items(), reverse=arm == "B")) for arm, own in question.exams.items()}
    return replace(question, exams=dict(reversed(exams.items())))


def test_neither_the_key_nor_the_rows_depend_on_the_order_of_arms_and_seeds(tmp_path: Path) -> None:
    """Seeds are paired by their number, not by their place."""
    question = study(tmp_path, "compare")
    assert question_key(turned(question)) == question_key(question)
    rows = answered(tmp_path, question)
    Products(tmp_path, KIND).path(question_key(question)).unlink()
    assert answered(tmp_path, turned(question)) == rows


def test_arms_of_different_seeds_are_not_paired(tmp_path: Path) -> None:
    question = study(tmp_path, "compare")
    other = dict(zip((1, 2, 4), question.exams["B"].values(), strict=True))
    with pytest.raises(ValueError, match="they are paired, give all arms the same"):
        answered(tmp_path, replace(question, exams={**question.exams, "B": other}))


def test_an_analysis_that_was_made_is_not_made_again(tmp_path: Path) -> None:
    question = study(tmp_path, "curve")
    key = question_key(question)
    mark = asdict(replace(answered(tmp_path, question)[0], reason="kept"))
    Products(tmp_path, KIND).write(key, {"rows": [mark]})
    assert answered(tmp_path, question)[0].reason == "kept"


def share(told: dict[str, Any], of: Asked) -> float:
    """Top1, item by item."""
    pairs = zip(told["scores"], of.retrieval, strict=True)
    return float(np.mean([int(np.argmax(own)) in one.correct for own, one in pairs]))


def legacy(rows: Sequence[Row]) -> dict[str, Row]:
    return {one.contrast: one for one in rows if one.role == "legacy"}


def test_the_earlier_rule_is_told_of_the_published_seeds_alone(tmp_path: Path) -> None:
    seeds = (7, 456, 42, 123)
    rows = legacy(answered(tmp_path, study(tmp_path, "compare", seeds=seeds)))
    assert set(rows) == {"B-A", "C-B"}
    each = {arm: [share(exam(seed, SKILL[arm]), who()) for seed in PUBLISHED] for arm in "AB"}
    d = np.array(each["B"]) - np.array(each["A"])
    assert rows["B-A"].n == 3
    assert rows["B-A"].estimate == pytest.approx(d.mean())
    assert rows["B-A"].statistic == pytest.approx(d.mean() / (d.std(ddof=1) / np.sqrt(3)))


@pytest.mark.parametrize(
    ("seeds", "arms"), [((42, 123, 7), ("A", "B", "C")), (PUBLISHED, ("A", "B")), (PUBLISHED, ("B", "C"))]
)
def test_without_all_published_seeds_or_conditions_there_is_no_earlier_rule(
    seeds: tuple[int, ...], arms: tuple[str, ...], tmp_path: Path
) -> None:
    failed = {arm: "not trained" for arm in "ABC" if arm not in arms}
    rows = answered(tmp_path, study(tmp_path, "compare", seeds=seeds, arms=arms, failed=failed))
    assert legacy(rows) == {}


def test_one_broken_arm_of_the_factorial_makes_every_effect_invalid(tmp_path: Path) -> None:
    names = tuple("-".join(levels) for levels in factorial())
    question = study(
        tmp_path, "compare", arms=("A", "B", "C", *names), faults={names[3]: "key"}, factorial=names
    )
    found = deciding(answered(tmp_path, question), "factorial")
    assert set(found) == set(FACTORS)
    for row in found.values():
        assert row.verdict == "INVALID"
        assert names[3] in str(row.reason)
        assert FAULTS["key"] in str(row.reason)


def test_a_factorial_without_one_of_its_arms_is_invalid_and_no_crash(tmp_path: Path) -> None:
    names = tuple("-".join(levels) for levels in factorial())
    question = study(tmp_path, "compare", arms=("A", "B", "C", *names[1:]), factorial=names)
    found = deciding(answered(tmp_path, question), "factorial")
    assert {one.verdict for one in found.values()} == {"INVALID"}
    assert all(f"{names[0]}: top1 was not measured" in str(one.reason) for one in found.values())


def test_items_of_coherence_alone_leave_retrieval_invalid(tmp_path: Path) -> None:
    write_items(tmp_path / "coherence.jsonl", coherence_items(OURS, per_lemma=1))
    only = item_set(SenseSource(world=SPEC, data=str(tmp_path)), "test", per_sense=1, per_lemma=1)
    guess = [len(one.contexts) / len(one.inventory) for one in asked(only).coherence]
    known = {"scores": {}, "roles": {}, "coherence": {"word_jaccard": guess}}
    rows = answered(tmp_path, study(tmp_path, "ship", of=only, known=known))
    assert set(verdicts(rows).values()) == {"INVALID"}
    found = {one.metric: one for one in rows if one.hypothesis == "threshold" and one.contrast == "B"}
    assert (found["top1"].verdict, found["coherence"].verdict) == ("INVALID", "DETECTED")
    rows = answered(tmp_path, study(tmp_path, "compare", of=only, known=known))
    assert {one.verdict for one in deciding(rows).values()} == {"INVALID"}
    by_coherence = [one for one in rows if one.family == "sense_scaling, coherence"]
    assert all(one.estimate is not None for one in by_coherence)


def test_killers_are_told_by_seed_and_their_faults_say_nothing_else(tmp_path: Path) -> None:
    mining = item_set(SOURCE, "mining", per_sense=1, per_lemma=1)
    chosen = replace(mining, chosen=tuple(one.id for one in asked(mining).retrieval[:6]))
    few = asked(chosen)
    for seed in SEEDS:
        Products(tmp_path, EXAM).write(f"good-{seed}", exam(seed, 1.0, few))
        Products(tmp_path, EXAM).write(f"bad-{seed}", at_fault("constant", few))
    killers = {
        "B": {seed: f"good-{seed}" for seed in (3, 1, 2)},
        "C": {seed: f"bad-{seed}" for seed in SEEDS},
    }
    question = study(tmp_path, "compare", killers=killers, killer_items=chosen)
    rows = {one.contrast: one for one in answered(tmp_path, question) if one.family == "killers"}
    assert list(rows) == ["B:seed 1", "B:seed 2", "B:seed 3", "B", "C"]
    hits = {seed: share(exam(seed, 1.0, few), few) for seed in SEEDS}
    for seed, own in hits.items():
        assert rows[f"B:seed {seed}"].estimate == pytest.approx(own)
        assert rows[f"B:seed {seed}"].n == 6
    assert rows["B"].estimate == pytest.approx(np.mean(list(hits.values())))
    assert rows["C"].estimate is None
    assert "a constant scorer" in str(rows["C"].reason)
    none = study(tmp_path, "compare", killers=killers, killer_items=replace(mining, chosen=()))
    assert not [one for one in answered(tmp_path, none) if one.family == "killers"]


def test_other_metrics_stand_beside_top1_and_decide_nothing(tmp_path: Path) -> None:
    rows = answered(tmp_path, study(tmp_path, "compare", contrasts={"other": (("C", "A"),)}))
    for metric in ("top3", "coherence", "attention_entropy"):
        beside = [one for one in rows if one.family == f"sense_scaling, {metric}"]
        assert {one.contrast for one in beside} == {"B-A", "C-B", "C-A"}
        assert {(one.role, one.verdict, one.margin) for one in beside} == {("secondary", None, None)}
    assert set(deciding(rows, "other")) == {"C-A"}
    right = {
        arm: [
            a == b
            for seed in SEEDS
            for own, item in zip(exam(seed, SKILL[arm])["decided"], who().coherence, strict=True)
            for a, b in zip(own, item.senses, strict=True)
        ]
        for arm in "AB"
    }
    [shown] = [one for one in rows if one.family == "sense_scaling, coherence" and one.contrast == "B-A"]
    assert shown.estimate == pytest.approx(np.mean(right["B"]) - np.mean(right["A"]))
    tiers = {one.contrast for one in rows if one.family == "sense_tiers" and one.hypothesis == "tier"}
    assert tiers == {f"{arm}:{tier}" for arm in "ABC" for tier in (1, 2, 3)}


def test_dev_is_judged_under_another_family(tmp_path: Path) -> None:
    dev = item_set(SOURCE, "dev", per_sense=1, per_lemma=1)
    rows = answered(tmp_path, study(tmp_path, "ship", of=dev))
    assert {one.family for one in rows} == {"ship, dev"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"known": 0.01}, "its heads know 1% of the words asked"),
        ({"scores": [[1e-4 * x for x in own] for own in exam(42, 1.6)["scores"]]}, "1 of .* seeds collapsed"),
    ],
)
def test_heads_that_have_not_learned_are_compared_with_nothing(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    question = study(tmp_path, "compare")
    key = question.exams["B"][min(question.exams["B"])]
    Products(tmp_path, EXAM).write(key, Products(tmp_path, EXAM).read(key) | changes)
    found = deciding(answered(tmp_path, question))
    assert [found[name].verdict for name in ("B-A", "C-B", "C-A")] == ["INVALID", "INVALID", "DETECTED"]
    assert re.search(said, str(found["B-A"].reason))


def test_one_head_is_judged_with_the_audit_of_its_items(tmp_path: Path) -> None:
    fair = study(tmp_path, "one_head", arms=("A", "B"), seeds=(42,))
    rows = answered(tmp_path, replace(fair, judged=("B",)))
    assert {row.hypothesis for row in rows} >= {
        "threshold", "better_than_baseline", "no_collapse", "tier1_non_inferior", "shortcut_at_chance",
        "ship",
    }  # fmt: skip
    assert rows[-1].verdict == "DETECTED"
    leaky = study(tmp_path, "one_head", arms=("A", "B"), seeds=(42,), known=unlearned(who(), filler=3.0))
    told = answered(tmp_path, replace(leaky, judged=("B",), margin=0.03))[-1]  # another key
    assert told.verdict == "INVALID"
    assert "shortcut_at_chance" in str(told.reason)


def test_one_head_whose_scores_are_no_measurement_is_invalid_with_the_reason(tmp_path: Path) -> None:
    broken = study(tmp_path, "one_head", arms=("A", "B"), seeds=(42,), faults={"B": "constant"})
    told = answered(tmp_path, replace(broken, judged=("B",)))[-1]
    assert (told.hypothesis, told.verdict) == ("ship", "INVALID")
    assert "a constant scorer ranks by file order alone" in str(told.reason)


def test_a_size_that_was_lost_is_not_left_out_of_the_curve_in_silence(tmp_path: Path) -> None:
    arms = tuple(f"B-{k}" for k in range(5))
    known = study(tmp_path, "curve", arms=arms, sizes={arm: 100.0 * 2**k for k, arm in enumerate(arms)})
    [row] = answered(tmp_path, replace(known, failed={"B-9": "seed 42: out of memory"}))
    assert row.verdict == "INVALID"
    assert "B-9: seed 42: out of memory" in str(row.reason)
