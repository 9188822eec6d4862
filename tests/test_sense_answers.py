"""Answers as arrays: ranks by hand, ties by chance, what is no measurement; keys of heads and exams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.products import Products
from lab.records import MetricRow, RetrievalRow, TrainLogRow
from models.sense_conditions import CONDITIONS, halved
from models.sense_files import write_items
from models.sense_probes import coherence_items, mining_items, retrieval_items
from models.sense_recipe import HeadRecipe
from models.sense_sources import SenseSource, digest
from tasks.sense_answers import Asked, answers, answers_of, asked, unlearned
from tasks.sense_mining import killer_rows, mined
from tasks.sense_rows import baseline_rows, exam_rows, training_rows
from tasks.sense_training import (
    BASELINES,
    EXAM,
    HeadExam,
    HeadJob,
    Verifier,
    baselines_key,
    item_set,
    verification_key,
)
from tests.small_sense_world import FAULTS, OURS, SOURCE, SPEC, at_fault, exam, items, who


def test_ranks_and_margins_are_those_of_a_sorted_list() -> None:
    bodies = [exam(seed) for seed in (1, 2)]
    found = answers_of(bodies, who()).ranked
    assert found is not None
    for s, one in enumerate(bodies):
        for i, (scores, item) in enumerate(zip(one["scores"], who().retrieval, strict=True)):
            order = [place for _, place in sorted((-own, place) for place, own in enumerate(scores))]
            assert found.best_rank[s, i] == 1 + min(order.index(place) for place in item.correct)
            wrong = max(own for place, own in enumerate(scores) if place not in item.correct)
            assert found.margin[s, i] == pytest.approx(max(scores[p] for p in item.correct) - wrong)
    outcomes = answers_of(bodies, who()).outcomes
    assert outcomes.top1 is not None
    np.testing.assert_array_equal(outcomes.top1, found.best_rank <= 1)


def test_contexts_decided_rightly_are_counted_by_item() -> None:
    found = answers_of([exam(3)], who()).right
    assert found is not None
    wanted = [
        sum(a == b for a, b in zip(own, item.senses, strict=True))
        for own, item in zip(exam(3)["decided"], who().coherence, strict=True)
    ]
    assert found.tolist() == [wanted]


def test_attention_has_no_table_where_one_query_has_no_entropy() -> None:
    whole, one = exam(1), exam(2)
    assert answers_of([whole, one], who()).entropy is not None
    one["attention"][4]["entropy"] = None
    assert answers_of([whole, one], who()).entropy is None


@pytest.mark.parametrize("name", FAULTS)
def test_scores_and_decisions_that_are_no_measurement_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=FAULTS[name]):
        answers_of([exam(1), at_fault(name)], who())


def test_an_exam_that_is_not_there_is_refused(tmp_path: Path) -> None:
    Products(tmp_path, EXAM).write("aa", exam(1))
    assert answers(tmp_path, ["aa"], who()).ranked is not None
    for keys, message in ((["aa", "bb"], "1 of 2 exams are missing"), ([], "0 of 0 exams are missing")):
        with pytest.raises(ValueError, match=message):
            answers(tmp_path, keys, who())


def test_a_head_that_is_no_measurement_is_one_row_with_its_reason() -> None:
    [row] = exam_rows(at_fault("constant"), items(), "k", every_item=True)
    assert isinstance(row, MetricRow)
    assert (row.name, row.value) == ("top1", None)
    assert "a constant scorer ranks by file order alone" in str(row.reason)


def values(rows: Sequence[Any]) -> dict[tuple[str, str], float | None]:
    return {(one.unit, one.name): one.value for one in rows if isinstance(one, MetricRow)}


def test_rows_of_an_exam_are_means_over_its_items_and_tiers() -> None:
    rows = exam_rows(exam(1), items(), "k", every_item=True)
    found, told = values(rows), answers_of([exam(1)], who())
    assert told.ranked is not None
    hits, tiers = told.ranked.top(1)[0], np.array(who().tiers)
    assert found["*", "top1"] == pytest.approx(hits.mean())
    for tier in (1, 2, 3):
        assert found[f"tier/{tier}", "top1"] == pytest.approx(hits[tiers == tier].mean())
    assert found["*", "mrr"] == pytest.approx((1 / told.ranked.best_rank[0]).mean())
    assert found["*", "cue_mass"] == 0.25
    assert found["*", "lemma_mass"] == pytest.approx(0.1)
    assert found["*", "coherence_step"] == told.coherences[0].step_accuracy
    each = [one for one in rows if isinstance(one, RetrievalRow)]
    assert [one.rank for one in each] == told.ranked.best_rank[0].tolist()
    assert not any(
        isinstance(one, RetrievalRow) for one in exam_rows(exam(1), items(), "k", every_item=False)
    )


def test_words_that_are_shown_are_lemma_cue_or_other() -> None:
    one = {"item": "i", "tier": 2, "words": ["old", "bank", "tree"], "target": [False, True, False],
           "cues": [True, False, False], "weights": [0.5, 0.3, 0.2]}  # fmt: skip
    found = values(exam_rows({**exam(1), "shown": [one]}, items(), "k", every_item=False, examples=True))
    assert found["shown/tier 2/i/00/old", "attention_cue"] == 0.5
    assert found["shown/tier 2/i/01/bank", "attention_lemma"] == 0.3
    assert found["shown/tier 2/i/02/tree", "attention_other"] == 0.2


def test_a_training_that_never_reached_its_threshold_says_so() -> None:
    look = {"step": 3, "loss_nats": 2.0, "dev_loss_nats": 2.1, "dev_top1": 0.2, "attention_entropy": 0.9,
            "learning_rate": 0.1}  # fmt: skip
    facts = {"looks": [look], "best_step": 3, "steps_to_threshold": None, "texts": 9, "bundles": 8,
             "proposed": 0, "accepted": 0, "parameters": 70}  # fmt: skip
    rows = training_rows(facts, "k")
    assert [one.iteration for one in rows if isinstance(one, TrainLogRow)] == [3]
    [never] = [one for one in rows if isinstance(one, MetricRow) and one.name == "steps_to_threshold"]
    assert (never.value, never.reason) == (None, "never reached")
    assert values(rows)["step/3", "dev_top1"] == 0.2


def by_orders(scores: Sequence[float], correct: Sequence[int], k: int) -> float:
    """Share of all orders of equal candidates in which a right one is among the first k."""
    hits = []
    for order in permutations(range(len(scores))):
        ranked = sorted(order, key=lambda place: -scores[place])  # stable: `order` breaks ties
        hits.append(any(place in correct for place in ranked[:k]))
    return float(np.mean(hits))


def baseline_body(scores: Mapping[str, Any], roles: Mapping[str, str], **coherence: Any) -> dict[str, Any]:
    return {"scores": dict(scores), "roles": dict(roles), "coherence": coherence}


def test_ties_of_a_baseline_are_broken_by_chance(tmp_path: Path) -> None:
    """Against every order of the candidates, on items cut to five or six."""
    few = []
    for one in who().retrieval[:8]:
        places = sorted({*one.correct, *range(5)})
        cut = tuple(one.candidates[i] for i in places)
        right = tuple(i for i, text in enumerate(cut) if text.sense_id == one.query.sense_id)
        few.append(replace(one, candidates=cut, correct=right))
    small = Asked(retrieval=tuple(few), coherence=())
    rng = np.random.default_rng(4)
    scores = [rng.integers(0, 3, len(one.candidates)).astype(float).tolist() for one in few]
    Products(tmp_path, BASELINES).write("aa", baseline_body({"coarse": scores}, {"coarse": "baseline"}))
    found = unlearned(tmp_path, "aa", small).baselines["coarse"]
    for k, table in ((1, found.top1), (3, found.top3)):
        assert table is not None
        wanted = [by_orders(own, one.correct, k) for own, one in zip(scores, few, strict=True)]
        np.testing.assert_allclose(table[0], wanted, atol=1e-12)
        assert len(set(wanted)) > 2


def test_a_baseline_that_ties_everything_gets_what_chance_gets(tmp_path: Path) -> None:
    flat = [[0.5] * len(one.candidates) for one in who().retrieval]
    Products(tmp_path, BASELINES).write("aa", baseline_body({"flat": flat}, {"flat": "baseline"}))
    found = unlearned(tmp_path, "aa", who()).baselines
    for ours, chance in (
        (found["flat"].top1, found["chance"].top1),
        (found["flat"].top3, found["chance"].top3),
    ):
        assert ours is not None
        assert chance is not None
        np.testing.assert_allclose(ours, chance, atol=1e-12)
    assert found["flat"].top1 is not None
    np.testing.assert_allclose(found["flat"].top1, 0.1)


def test_roles_part_baselines_shortcuts_and_ceiling_and_blind_ones_are_both(tmp_path: Path) -> None:
    names = {
        "word_jaccard": "baseline",
        "longest": "baseline",
        "filler": "shortcut",
        "topics_known": "ceiling",
    }
    scores = {name: exam(n)["scores"] for n, name in enumerate(names)}
    right = [1.0] * len(who().coherence)
    Products(tmp_path, BASELINES).write(
        "aa", baseline_body(scores, names, word_jaccard=right, topics_known=right)
    )
    found = unlearned(tmp_path, "aa", who())
    assert set(found.baselines) == {"word_jaccard", "longest", "chance"}
    assert set(found.shortcuts) == {"longest", "filler"}
    assert found.ceiling is not None
    assert found.ceiling.top1 is not None
    assert found.baselines["word_jaccard"].coherence is not None
    assert found.baselines["word_jaccard"].top1 is not None
    assert found.baselines["longest"].coherence is None
    rows = baseline_rows(tmp_path, "aa", items())
    assert set(rows) == {"word_jaccard", "longest", "chance", "filler", "topics_known"}
    steps = sum(who().steps)
    assert values(rows["word_jaccard"]("k"))["*", "coherence_step"] == pytest.approx(len(right) / steps)
    assert values(rows["filler"]("k"))["*", "top1"] == pytest.approx(found.shortcuts["filler"].hits.mean())


def test_a_baseline_that_scored_other_items_is_refused(tmp_path: Path) -> None:
    short = exam(1)["scores"][:-1]
    Products(tmp_path, BASELINES).write("aa", baseline_body({"few": short}, {"few": "baseline"}))
    with pytest.raises(ValueError, match="score every candidate"):
        unlearned(tmp_path, "aa", who())


def test_killers_are_what_the_miner_fails_and_the_chosen_are_asked_alone(tmp_path: Path) -> None:
    mining = item_set(SOURCE, "mining", per_sense=1, per_lemma=1)
    every = asked(mining)
    assert every.retrieval == mining_items(OURS, per_sense=1)
    miner = HeadExam(job=job(), items=mining)
    told = exam(7, of=every)
    Products(tmp_path, EXAM).write(miner.key, told)
    found = mined(tmp_path, miner)
    ranked = answers_of([told], every).ranked
    assert ranked is not None
    failed = {one.id for one, rank in zip(every.retrieval, ranked.best_rank[0], strict=True) if rank > 3}
    assert len(found.ids) > 0
    assert set(found.ids) <= failed
    few = asked(replace(mining, chosen=found.ids))
    assert {one.id for one in few.retrieval} == set(found.ids)
    assert [one.id for one in few.retrieval] == [one.id for one in every.retrieval if one.id in found.ids]
    counted = values(killer_rows(found, "k"))
    assert counted["*", "killers"] == len(found.ids)
    assert sum(n for n in counted.values() if n is not None) == len(every.retrieval)


def job(source: SenseSource = SOURCE, **changes: Any) -> HeadJob:
    fields: dict[str, Any] = {
        "source": source, "train_digest": "t", "dev_digest": "d", "arm": CONDITIONS["B"], "seed": 42,
        "recipe": asdict(HeadRecipe()),
    }  # fmt: skip
    return HeadJob(**{**fields, **changes})


def test_arms_of_the_same_data_are_one_head_whatever_they_are_called() -> None:
    named = replace(CONDITIONS["B"], name="large-hard-weighted-none")
    assert job(arm=named).key == job().key
    assert job(arm=halved(CONDITIONS["B"])).key != job().key


def test_the_condition_names_the_file_of_bundles_so_it_is_part_of_the_head() -> None:
    files = replace(SOURCE, bundles=(("A", "a.jsonl"), ("B", "b.jsonl")))
    a, b = replace(CONDITIONS["B"], name="A"), CONDITIONS["B"]
    assert job(files, arm=a).key != job(files, arm=b).key
    assert job(files, arm=replace(b, name="B-again")).key == job(files, arm=b).key


@pytest.mark.parametrize(
    "changes",
    [
        {"train_digest": "other"}, {"dev_digest": "other"}, {"seed": 43}, {"mislabelled": 0.1},
        {"recipe": asdict(HeadRecipe(steps=7))}, {"encoder_digest": "e"}, {"arm": CONDITIONS["A"]},
    ],
    ids=str,
)  # fmt: skip
def test_all_that_can_change_a_head_changes_its_key(changes: dict[str, Any]) -> None:
    assert job(**changes).key != job().key
    assert HeadExam(job=job(**changes), items=items()).key != HeadExam(job=job(), items=items()).key
    assert baselines_key(items(), job(**changes)) != baselines_key(items(), job())
    assert verification_key(job(**changes), (1, 0, 0)) != verification_key(job(), (1, 0, 0))


def test_a_verifier_is_part_of_the_head_by_its_own_head_and_thresholds() -> None:
    told = Verifier(job=job(), cosine=0.5, gap=0.05)
    keys = [
        job(verifier=one).key
        for one in (
            None,
            told,
            replace(told, cosine=0.6),
            replace(told, gap=0.1),
            replace(told, job=job(seed=7)),
        )
    ]
    assert len(set(keys)) == len(keys)


def test_where_an_encoder_lies_is_no_part_of_a_head_but_its_weights_are() -> None:
    here, there = (job(recipe=asdict(HeadRecipe(encoder=e)), encoder_digest="w") for e in ("a/m", "b/m"))
    assert here.key == there.key


def test_what_is_asked_is_part_of_an_exam() -> None:
    kinds = [
        items(), replace(items(), per_sense=2), replace(items(), per_lemma=2), replace(items(), split="dev"),
        replace(items(), digest="x"), replace(items(), chosen=("a",)), replace(items(), chosen=("a", "b")),
    ]  # fmt: skip
    assert len({HeadExam(job=job(), items=one).key for one in kinds}) == len(kinds)
    turned = replace(items(), chosen=("b", "a"))
    assert HeadExam(job=job(), items=turned).key == HeadExam(job=job(), items=kinds[-1]).key


def test_items_of_files_have_the_digest_of_the_files(tmp_path: Path) -> None:
    write_items(tmp_path / "retrieval.jsonl", retrieval_items(OURS, per_sense=1)[:6])
    source = SenseSource(world=SPEC, data=str(tmp_path))
    found = item_set(source, "test", per_sense=1, per_lemma=1)
    assert found.digest == digest(source, "test") != items().digest
    assert (len(asked(found).retrieval), asked(found).coherence) == (6, ())
    assert answers_of([exam(1, of=asked(found))], asked(found)).right is None


def test_coherence_items_alone_have_no_ranks(tmp_path: Path) -> None:
    write_items(tmp_path / "coherence.jsonl", coherence_items(OURS, per_lemma=1)[:9])
    of = asked(item_set(SenseSource(world=SPEC, data=str(tmp_path)), "test", per_sense=1, per_lemma=1))
    found = answers_of([exam(1, of=of)], of)
    assert found.ranked is None
    assert found.outcomes.top1 is None
    assert found.right is not None
    assert found.right.shape == (1, 9)
