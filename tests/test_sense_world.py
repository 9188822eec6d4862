"""The world of senses: its counts, its tiers, and that only topics join a query to its answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from models.sense_baselines import LEXICAL, QUERY_BLIND, Scorer, baselines, ranking
from models.sense_conditions import (
    CONDITIONS,
    ENRICHMENT_ARMS,
    FACTORS,
    SIZE_SHARES,
    TrainingArm,
    TrainingSet,
    draws,
    factorial,
    halved,
    sizes,
    training_set,
)
from models.sense_enrichment import STRAY, Enrichment, enrichments, labelled
from models.sense_items import RetrievalItem, TextItem
from models.sense_leakage import label_conflicts, placed, refuse_shared
from models.sense_probes import coherence_items, odd_one_out, retrieval_items, topic_counts, topic_scorer
from models.sense_world import CUE_AND_SIBLING, SPLITS, TOPICAL, WorldSpec, in_context, sentence, world

WORLD = world(WorldSpec())
TEST = retrieval_items(WORLD)
SHARED = retrieval_items(WORLD, per_sense=1, disjoint=False)
COHERENCE = coherence_items(WORLD)
CUES = {
    sense.id: {word for half in sense.cues for word in half} for s in WORLD.senses.values() for sense in s
}


def content(item: TextItem) -> set[str]:
    return {word for word in item.text.split() if word in WORLD.topic_of}


def ranks(score: Scorer, items: Sequence[RetrievalItem]) -> list[int]:
    """Of the correct candidate, from 0."""
    return [ranking(score(item)).tolist().index(item.correct[0]) for item in items]


@cache
def baseline_ranks(disjoint: bool) -> Mapping[str, list[int]]:
    items = TEST if disjoint else SHARED
    return {name: ranks(score, items) for name, score in baselines(items).items()}


def p_of_chance(found: Sequence[int], k: int, share: float) -> float:
    return float(binomtest(sum(rank < k for rank in found), len(found), share).pvalue)


def share_first(score: Scorer, items: Sequence[RetrievalItem]) -> float:
    return float(np.mean([rank == 0 for rank in ranks(score, items)]))


def test_the_world_has_the_declared_counts() -> None:
    assert [len(half) for topic in WORLD.topics for half in topic] == [30] * 80
    assert len(WORLD.function_words) == 120
    assert [len(WORLD.split_lemmas(split)) for split in SPLITS] == [180, 20, 60]
    assert WORLD.split_senses("test")[0].lemma == WORLD.lemmas[180]
    assert set(map(len, WORLD.senses.values())) == {2, 3, 4}
    words = [*WORLD.topic_of, *WORLD.function_words, *WORLD.lemmas]
    assert len(set(words)) == len(words) == 2400 + 120 + 260
    for senses in WORLD.senses.values():
        assert len({sense.topic for sense in senses}) == len(senses)
        for sense in senses:
            assert [len(half) for half in sense.cues] == [6, 6]
            assert all(set(c) <= set(t) for c, t in zip(sense.cues, WORLD.topics[sense.topic], strict=True))


def test_function_words_fall_as_one_over_their_rank() -> None:
    weights = np.diff(np.array([0.0, *WORLD.zipf]))
    np.testing.assert_allclose(weights, 1 / np.arange(1, 121))
    texts = [one.text for item in TEST for one in item.texts()]
    counts = Counter(word for text in texts for word in text.split() if word not in WORLD.topic_of)
    found = np.array([counts[word] for word in WORLD.function_words], dtype=float)
    np.testing.assert_allclose(found[:5] / found.sum(), weights[:5] / weights.sum(), rtol=0.05)


@pytest.mark.parametrize("tier", CUE_AND_SIBLING)
def test_a_sentence_holds_cues_topic_words_and_sibling_cues_by_its_tier(tier: int) -> None:
    senses = WORLD.split_senses("test")
    made = [sentence(WORLD, senses[i % len(senses)], tier, rng=WORLD.rng("t", i)) for i in range(3000)]
    slots = np.array([len(one.text.split()) - 1 for one in made])
    assert set(slots.tolist()) == set(range(8, 15))
    for one in made:
        start, end = one.span
        assert one.text[start:end] == one.surface == one.sense_id.split(".")[0]
        assert set(one.cue_tokens) <= CUES[one.sense_id]
    total = int(slots.sum())
    cues = sum(len(one.cue_tokens) for one in made)
    risky = sum(one.quality.ambiguity_risk * n for one, n in zip(made, slots, strict=True) if one.quality)
    functions = sum(word in set(WORLD.function_words) for one in made for word in one.text.split())
    pc, pd = CUE_AND_SIBLING[tier]
    for count, share in ((cues, pc), (round(risky), pd), (functions, 1 - pc - pd - TOPICAL)):
        assert binomtest(count, total, share).pvalue > 1e-3


def test_an_item_has_one_correct_six_siblings_and_three_of_other_lemmas_and_topics() -> None:
    topics = {sense.id: sense.topic for senses in WORLD.senses.values() for sense in senses}
    for item in TEST:
        same = [one for one in item.candidates if one.surface == item.lemma]
        others = [one for one in item.candidates if one.surface != item.lemma]
        assert (len(item.correct), len(same), len(others)) == (1, 7, 3)
        assert len({one.surface for one in others}) == 3
        assert topics[item.query.sense_id] not in {topics[one.sense_id] for one in others}
        assert {one.surface for one in item.candidates} <= set(WORLD.split_lemmas("test"))
        assert {one.difficulty_tier for one in item.texts()} == {item.tier}
    places = Counter(item.correct[0] for item in TEST)
    assert min(places[i] for i in range(10)) > 70


def test_query_and_candidates_of_the_disjoint_set_share_no_content_word() -> None:
    assert not any(content(item.query) & content(one) for item in TEST for one in item.candidates)
    assert any(content(item.query) & content(one) for item in SHARED for one in item.candidates)


@pytest.mark.parametrize(("k", "share"), [(1, 0.1), (3, 0.3)])
def test_lexical_and_query_blind_scorers_are_at_chance_unless_cues_are_shared(k: int, share: float) -> None:
    apart, together = baseline_ranks(True), baseline_ranks(False)
    for name in (*LEXICAL, *QUERY_BLIND):
        assert p_of_chance(apart[name], k, share) > 1e-3, name
    for name in LEXICAL:
        assert p_of_chance(together[name], k, share) < 1e-9, name
    for name in QUERY_BLIND:
        assert p_of_chance(together[name], k, share) > 1e-3, name


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 7), (3, 3 / 7)])
def test_knowing_the_lemma_alone_gives_one_in_seven(k: int, share: float) -> None:
    assert p_of_chance(baseline_ranks(True)["lemma_only"], k, share) > 1e-3


def test_knowing_the_topics_solves_easy_items_and_orders_the_tiers() -> None:
    score = topic_scorer(WORLD)
    by_tier = [share_first(score, [one for one in TEST if one.tier == t]) for t in (1, 2, 3)]
    assert by_tier[0] > 0.95
    assert by_tier[0] > by_tier[1] > by_tier[2] > 0.3


def test_candidates_as_a_set_give_the_answer_away_to_who_knows_the_topics() -> None:
    assert share_first(odd_one_out(WORLD), TEST) > 0.5


def test_coherence_contexts_move_and_share_no_content_word_with_gloss_or_examples() -> None:
    assert Counter(len(item.contexts) for item in COHERENCE) == {2: 180, 3: 180}
    steps = [a != b for item in COHERENCE for a, b in pairwise(item.senses)]
    assert binomtest(sum(steps), len(steps), 2 / 3).pvalue > 1e-3
    for item in COHERENCE:
        shown = {
            word
            for sense in item.inventory
            for text in (sense.gloss, *(one.text for one in sense.examples))
            for word in text.split()
        }
        assert not any(content(one) & shown for one in item.contexts)
        assert {sense.sense_id for sense in item.inventory} == {s.id for s in WORLD.senses[item.lemma]}


def test_the_nearest_prototype_by_known_topics_decides_most_coherence_steps() -> None:
    right = []
    for item in COHERENCE:
        prototypes = [sum(topic_counts(WORLD, e) for e in sense.examples) for sense in item.inventory]
        for context, gold in zip(item.contexts, item.senses, strict=True):
            nearest = int(np.argmax([topic_counts(WORLD, context) @ p for p in prototypes]))
            right.append(item.inventory[nearest].sense_id == gold)
    assert 0.8 < float(np.mean(right)) < 0.9


def test_another_process_makes_the_same_world_and_items() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from models.sense_world import *; from models.sense_probes import *; import sys; "
            "w = world(WorldSpec()); print(w.sha256); print(retrieval_items(w)[77].query.text); "
            "print('torch' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    ).stdout.splitlines()
    assert said == [WORLD.sha256, TEST[77].query.text, "False"]
    assert world(WorldSpec(seed=1)).sha256 != WORLD.sha256


def test_more_items_begin_with_those_of_fewer() -> None:
    few, many = (retrieval_items(WORLD, per_sense=n) for n in (1, 2))
    assert few == many[::2]
    assert retrieval_items(WORLD, per_sense=1, seed=1) != few


MADE = {name: training_set(WORLD, arm, 42) for name, arm in CONDITIONS.items()}


def per_sense(made: TrainingSet) -> Mapping[str, int]:
    return Counter(one.sense_id for one in made.texts)


def test_conditions_have_the_declared_sentences_and_tiers() -> None:
    senses = len(WORLD.split_senses("train"))
    for name, share, many, few in (("A", 0.6, 3, 1), ("B", 0.7, 6, 1), ("C", 0.7, 6, 6)):
        counts = Counter(per_sense(MADE[name]).values())
        more = round(share * senses)
        assert counts == Counter({many: more}) + Counter({few: senses - more})
    for name in "AB":
        tiers = Counter(one.difficulty_tier for one in MADE[name].texts)
        for tier, share in enumerate(CONDITIONS[name].mix, start=1):
            assert binomtest(tiers[tier], sum(tiers.values()), share).pvalue > 1e-3
    assert {
        (bundle.difficulty_tier, n) for bundle, n in zip(MADE["B"].bundles, MADE["B"].repeats, strict=True)
    } == {(1, 1), (2, 2), (3, 4)}
    assert (MADE["B"].proposed, MADE["C"].proposed, MADE["C"].accepted) == (0, 820, 820)


def test_conditions_are_nested_and_share_their_streams() -> None:
    texts = {name: {one.text for one in made.texts} for name, made in MADE.items()}
    assert texts["B"] < texts["C"]
    many = {name: {s for s, n in per_sense(MADE[name]).items() if n > 1} for name in "AB"}
    assert many["A"] < many["B"]
    assert len(texts["A"] & texts["B"]) > 0.8 * len(texts["A"])
    assert training_set(WORLD, CONDITIONS["A"], 42) == MADE["A"]
    assert {one.text for one in training_set(WORLD, CONDITIONS["A"], 43).texts}.isdisjoint(texts["A"])


def test_bundles_are_of_training_lemmas_and_of_different_topics() -> None:
    lemmas = set(WORLD.split_lemmas("train"))
    topics = {sense.id: sense.topic for senses in WORLD.senses.values() for sense in senses}
    for bundle in MADE["C"].bundles:
        assert {one.surface for one in bundle.texts()} <= lemmas
        assert all(one.surface == bundle.lemma for one in bundle.within_lemma)
        assert topics[bundle.anchor_sense] not in {topics[one.sense_id] for one in bundle.cross_lemma}


def test_no_text_or_lemma_is_in_two_splits_and_none_has_two_senses() -> None:
    splits = {
        "train": list(placed(MADE["C"].bundles)),
        "dev": list(placed(retrieval_items(WORLD, "dev", per_sense=1))),
        "test": [*placed(TEST), *placed(COHERENCE)],
    }
    refuse_shared(splits)
    assert label_conflicts(splits["train"]) == ()


def test_every_arm_learns_from_the_same_number_of_bundles() -> None:
    for made in MADE.values():
        order = draws(made, 20_000, seed=1)
        assert len(order) == 20_000
        one_round = sum(made.repeats)
        counts = np.bincount(order[:one_round], minlength=len(made.bundles))
        assert counts.tolist() == list(made.repeats)
    assert (draws(MADE["B"], 500, seed=1) == draws(MADE["B"], 800, seed=1)[:500]).all()


def test_the_factorial_crosses_what_the_conditions_differ_in() -> None:
    arms = factorial()
    assert len(arms) == len({replace(arm, name="") for arm in arms.values()}) == 16
    low, high = zip(*FACTORS.values(), strict=True)
    assert replace(arms[low], name="A") == CONDITIONS["A"]
    assert replace(arms[high], name="C") == CONDITIONS["C"]
    flat = training_set(WORLD, arms["large", "hard", "flat", "none"], 42)
    assert flat.bundles == MADE["B"].bundles
    assert set(flat.repeats) == {1}
    assert halved(CONDITIONS["B"]).curriculum == (1, 1, 2)


def test_sizes_grow_by_whole_senses_and_pass_through_b() -> None:
    made = [training_set(WORLD, arm, 42) for arm in sizes()]
    counts = [len(one.bundles) for one in made]
    assert len(counts) == len(SIZE_SHARES) >= 5
    assert counts == sorted(set(counts))
    assert counts[-1] > 19 * counts[0]
    assert made[4].bundles == MADE["B"].bundles
    for small, large in pairwise(made):
        assert {one.text for one in small.texts} < {one.text for one in large.texts}


SENSE = WORLD.split_senses("train")[3]
ORIGINAL = sentence(WORLD, SENSE, 1, rng=WORLD.rng("original"))


def propose(kind: str, count: int = 400) -> tuple[Enrichment, ...]:
    return enrichments(WORLD, SENSE, ORIGINAL, kind, count, mix=(0.0, 1.0, 0.0), seed=3)


def test_a_template_brings_no_new_content_word_and_a_genuine_context_does() -> None:
    assert {frozenset(content(one.item)) for one in propose("template")} == {frozenset(content(ORIGINAL))}
    assert all(one.item.cue_tokens for one in propose("template", 4))
    assert set().union(*(content(one.item) for one in propose("genuine", 5))) - content(ORIGINAL)
    assert all(one.is_genuine for kind in ("template", "genuine") for one in propose(kind))


def test_noisy_contexts_stray_to_siblings_under_the_same_label() -> None:
    made = propose("noisy")
    assert binomtest(sum(not one.is_genuine for one in made), len(made), STRAY).pvalue > 1e-3
    assert {one.item.sense_id for one in made} == {SENSE.id}
    strayed = [one for one in made if not one.is_genuine]
    assert np.mean([bool(content(one.item) & CUES[one.true_sense]) for one in strayed]) > 0.7
    siblings = {sense.id for sense in WORLD.senses[SENSE.lemma]} - {SENSE.id}
    assert {one.sense_id for one in made[0].siblings} == siblings


def test_verified_enrichment_takes_the_first_accepted_and_no_more_than_asked() -> None:
    arm = replace(CONDITIONS["C"], name="verified", enrichment="verified")
    oracle = training_set(WORLD, arm, 42, accept=lambda offers: [one.is_genuine for one in offers])
    assert oracle.proposed == 2 * MADE["C"].proposed
    assert max(per_sense(oracle).values()) == 6
    assert 0.85 * MADE["C"].accepted < oracle.accepted <= MADE["C"].accepted
    nothing = training_set(WORLD, arm, 42, accept=lambda offers: [False] * len(offers))
    assert (nothing.accepted, nothing.bundles) == (0, MADE["B"].bundles)
    with pytest.raises(ValueError, match="accept answered 1 times for 1640 contexts"):
        training_set(WORLD, arm, 42, accept=lambda offers: [True])
    with pytest.raises(ValueError, match="give `accept` to 'verified' only"):
        training_set(WORLD, arm, 42)
    with pytest.raises(ValueError, match="give `accept` to 'verified' only"):
        training_set(WORLD, CONDITIONS["B"], 42, accept=lambda offers: [])


@pytest.mark.parametrize("kind", [arm for arm in ENRICHMENT_ARMS if arm not in ("none", "verified")])
def test_each_kind_of_enrichment_gives_singletons_the_same_number_of_contexts(kind: str) -> None:
    arm = replace(CONDITIONS["C"], name=kind, enrichment=kind)
    made = training_set(WORLD, arm, 42)
    assert per_sense(made) == per_sense(MADE["C"])
    enriched = [bundle for bundle in made.bundles if bundle.bundle_type == "enriched"]
    assert len(enriched) == made.accepted
    assert {bundle.anchor.source for bundle in enriched} == {f"enriched-{kind}"}


def test_thresholds_are_calibrated_on_lemmas_of_no_other_split() -> None:
    found = {one.original.surface for one in labelled(WORLD, mix=(1.0, 0.0, 0.0))}
    assert found == set(WORLD.split_lemmas("dev"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"topic_words": 59}, "topic_words is 59"),
        ({"cues": 11}, "cues is 11"),
        ({"cues": 62}, "62 cues a sense do not fit"),
        ({"topics": 4}, "4 topics"),
        ({"train_lemmas": 0}, "train_lemmas is 0"),
        ({"dev_lemmas": -1}, "dev_lemmas is -1"),
    ],
)
def test_a_world_that_cannot_be_made_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WorldSpec(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.0}, "share is 0.0"),
        ({"sentences": 1}, "1 sentences and 5 contexts"),
        ({"mix": (0.5, 0.5, 0.5)}, "must be shares that sum to 1"),
        ({"curriculum": (0, 1, 1)}, "each weight is at least 1"),
        ({"enrichment": "more"}, "unknown enrichment 'more'; allowed are none, template"),
    ],
)
def test_an_arm_that_names_no_set_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingArm(**({"name": "x", "share": 0.5, "sentences": 3} | changes))  # type: ignore[arg-type]


def test_items_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'val'; allowed are train, dev, test"):
        retrieval_items(WORLD, "val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tier 4; the world has 1, 2, 3"):
        retrieval_items(WORLD, tiers=(4,))
    with pytest.raises(ValueError, match="0 items a sense"):
        retrieval_items(WORLD, per_sense=0)
    with pytest.raises(ValueError, match="split 'dev' has 5 lemmas; it needs at least 10"):
        retrieval_items(world(WorldSpec(dev_lemmas=5)), "dev")
    with pytest.raises(ValueError, match="0 items a lemma"):
        coherence_items(WORLD, per_lemma=0)
    bare = in_context(SENSE, ["x"] * 8, ["function"] * 8, tier=1, rng=WORLD.rng("bare"))
    with pytest.raises(ValueError, match="draws gave 36 different ones; ask for fewer"):
        enrichments(WORLD, SENSE, bare, "template", 37, mix=(1.0, 0.0, 0.0), seed=0)
    with pytest.raises(ValueError, match="unknown kind of context 'verified'"):
        propose("verified")
    with pytest.raises(ValueError, match="0 draws of 987 bundles"):
        draws(MADE["A"], 0, seed=0)
