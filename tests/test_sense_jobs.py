"""The worker's calls in this process: kept heads and what they answer, baselines, verification, faults."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.kept import MANIFEST, load_kept
from models.sense_baselines import LEXICAL, QUERY_BLIND
from models.sense_conditions import CONDITIONS, HARD_MIX, TrainingArm, training_set
from models.sense_enrichment import labelled
from models.sense_exam import examine
from models.sense_jobs import (
    WEIGHTS,
    compared,
    examine_head,
    load_head,
    score_baselines,
    train_head,
    verification,
)
from models.sense_probes import coherence_items, mining_items, retrieval_items, watched_items
from models.sense_recipe import HeadRecipe, HeadShape
from models.sense_shortcuts import shortcuts
from models.sense_sources import SenseSource
from models.sense_texts import Read
from models.sense_tokens import marked, vocabulary
from models.sense_training import questions, train
from models.sense_world import WorldSpec, world

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = WorldSpec(
    topics=6, topic_words=16, function_words=20, train_lemmas=24, test_lemmas=10, dev_lemmas=10, cues=8
)
OURS = world(SPEC)
SOURCE = asdict(SenseSource(world=SPEC))
ARM = TrainingArm(name="B", share=0.7, sentences=4)
RECIPE = HeadRecipe(
    steps=6, batch=16, learning_rate=5e-3, shape=HeadShape(hidden=16, out=16), dev_every=3, patience=9
)
TEST = retrieval_items(OURS, per_sense=1)


def nothing(body: Any) -> None:
    """A report that nobody reads."""


def teach(place: Path, *, arm: TrainingArm = ARM, recipe: HeadRecipe = RECIPE, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"mislabelled": 0.0, "verifier": None, "seed": 1, **more}
    return train_head(
        source=SOURCE, arm=asdict(arm), recipe=asdict(recipe), directory=str(place), report=nothing, **given
    )


def answered(place: Path, split: Any = "test", chosen: Any = None, per_sense: int = 1) -> dict[str, Any]:
    return examine_head(
        source=SOURCE, directory=str(place), split=split, per_sense=per_sense, per_lemma=1, chosen=chosen,
        report=nothing,
    )  # fmt: skip


def unlearned(split: Any = "test", *, source: dict[str, Any] = SOURCE, seed: int = 1) -> dict[str, Any]:
    return score_baselines(
        source=source, split=split, per_sense=1, per_lemma=1, arm=asdict(ARM), seed=seed,
        recipe=asdict(RECIPE), report=nothing,
    )  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("heads") / "head"
    teach(place)
    return place


@pytest.mark.parametrize("lookup", ["learned", "hashed"])
def test_a_kept_head_read_back_gives_the_same_answers_bit_for_bit(lookup: Any, tmp_path: Path) -> None:
    recipe = replace(RECIPE, lookup=lookup, buckets=128)
    facts = teach(tmp_path / "head", recipe=recipe)
    made = training_set(OURS, ARM, 1)
    read = Read(vocabulary=vocabulary(made.texts, lookup, buckets=128))
    dev = questions(watched_items(OURS), read)
    trained = train(made, recipe, read, dev, seed=1)
    direct = examine(trained.network, read, TEST, coherence_items(OURS, per_lemma=1))
    assert json.dumps(answered(tmp_path / "head")) == json.dumps(dict(direct))
    assert facts["looks"] == [asdict(one) for one in trained.looks]
    assert (facts["best_step"], facts["bundles"], facts["texts"]) == (
        trained.best_step,
        len(made.bundles),
        len(made.texts),
    )
    assert facts["parameters"] == sum(one.numel() for one in trained.network.parameters())


def test_a_head_that_is_there_is_not_trained_again(kept: Path) -> None:
    before = (kept / WEIGHTS).stat().st_mtime_ns, load_kept(kept)
    assert before[1] is not None
    assert teach(kept) == before[1]["facts"]
    assert ((kept / WEIGHTS).stat().st_mtime_ns, load_kept(kept)) == before


@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_a_damaged_head_is_refused_and_trained_again_to_the_same_bits(name: str, tmp_path: Path) -> None:
    place = tmp_path / "head"
    teach(place)
    whole, answers = load_kept(place), answered(place)
    raw = bytearray((place / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (place / name).write_bytes(bytes(raw))
    with pytest.raises(OSError, match="is gone or damaged; run the study again"):
        answered(place)
    teach(place)
    again = load_kept(place)
    assert again is not None
    assert whole is not None
    assert again["digest"] == whole["digest"]
    assert answered(place) == answers


def test_a_head_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is gone or damaged; run the study again"):
        load_head(tmp_path / "none")


def test_another_head_at_the_same_place_is_read_anew(tmp_path: Path) -> None:
    place = tmp_path / "head"
    teach(place)
    before = answered(place)["scores"]
    (place / WEIGHTS).unlink()
    teach(place, seed=2)
    assert answered(place)["scores"] != before


def test_an_exam_of_chosen_items_asks_these_alone(kept: Path) -> None:
    every = mining_items(OURS, per_sense=1)
    chosen = [every[5].id, every[2].id, every[20].id]
    few, whole = answered(kept, "mining", chosen), answered(kept, "mining")
    assert [one["item"] for one in few["attention"]] == [every[i].id for i in (2, 5, 20)]
    assert few["scores"] == [pytest.approx(whole["scores"][i], abs=2e-6) for i in (2, 5, 20)]
    assert (few["decided"], few["reshown"]) == ([], [])
    assert len(whole["scores"]) == len(every)
    assert whole["scores"] != answered(kept)["scores"]


def test_every_split_is_asked_its_own_items(kept: Path) -> None:
    for split, items in (("dev", retrieval_items(OURS, "dev", per_sense=2)), ("test", TEST)):
        found = answered(kept, split, per_sense=2 if split == "dev" else 1)
        assert [one["item"] for one in found["attention"]] == [item.id for item in items]
        assert len(found["decided"]) == 30  # 10 lemmas, 3 tiers


def test_baselines_shortcuts_and_ceiling_are_told_apart_and_score_every_candidate() -> None:
    found = unlearned()
    names = {
        role: {n for n, own in found["roles"].items() if own == role} for role in set(found["roles"].values())
    }
    assert names["shortcut"] == set(shortcuts(TEST))
    assert names["ceiling"] == {"topics_known"}
    assert names["baseline"] >= {*LEXICAL, *QUERY_BLIND, "untrained_head", "mean_pooling"}
    assert set(names) == {"shortcut", "ceiling", "baseline"}
    assert set(found["scores"]) == set(found["roles"])
    sizes = [len(item.candidates) for item in TEST]
    assert all([len(own) for own in scores] == sizes for scores in found["scores"].values())
    assert set(found["coherence"]) == names["baseline"] | names["ceiling"]
    steps = [len(item.contexts) for item in coherence_items(OURS, per_lemma=1)]
    for right in found["coherence"].values():
        assert all(0 <= own <= most for own, most in zip(right, steps, strict=True))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def top1(scores: list[list[float]]) -> float:
    hits = [int(np.argmax(own)) in item.correct for own, item in zip(scores, TEST, strict=True)]
    return float(np.mean(hits))


def test_who_knows_the_topics_does_better_than_an_untrained_head() -> None:
    found = unlearned()
    assert top1(found["scores"]["topics_known"]) > top1(found["scores"]["untrained_head"]) + 0.2
    right = found["coherence"]
    assert sum(right["topics_known"]) > sum(right["untrained_head"])


def test_the_untrained_head_depends_on_the_seed_and_the_word_overlap_does_not() -> None:
    one, other = unlearned()["scores"], unlearned(seed=2)["scores"]
    assert one["word_jaccard"] == other["word_jaccard"]
    assert one["untrained_head"] != other["untrained_head"]
    assert one == unlearned()["scores"]
    assert one["untrained_head"] != one["mean_pooling"]


def test_verification_draws_two_different_sets_of_labelled_contexts(kept: Path) -> None:
    found = verification(source=SOURCE, directory=str(kept), mix=HARD_MIX, report=nothing)
    assert set(found) == {"calibration", "check"}
    for own in found.values():
        n = len(own["cosine"])
        assert n == len(own["gap"]) == len(own["genuine"]) == len(own["lemma"]) > 0
        assert {True, False} == set(own["genuine"])
        assert all(-1.000001 <= one <= 1.000001 for one in own["cosine"])
        assert set(own["lemma"]) <= set(OURS.split_lemmas("dev"))
    assert found["calibration"]["cosine"] != found["check"]["cosine"]
    assert found == verification(source=SOURCE, directory=str(kept), mix=HARD_MIX, report=nothing)


def test_the_gap_is_the_cosine_less_that_to_the_nearest_sibling(kept: Path) -> None:
    network, read = load_head(kept)
    offers = [one for one in labelled(OURS, "dev", mix=HARD_MIX, seed=0) if len(one.siblings) > 1][:12]
    assert offers
    cosine, gap = compared(network, read, offers)
    for near, away, one in zip(cosine, gap, offers, strict=True):
        z = network.vectors(read([marked(text) for text in (one.item, one.original, *one.siblings)]))[0]
        z = z.double()
        assert near == pytest.approx(float(z[0] @ z[1]), abs=1e-6)
        assert away == pytest.approx(
            float(z[0] @ z[1]) - max(float(z[0] @ other) for other in z[2:]), abs=1e-6
        )


def test_a_verified_arm_takes_the_contexts_whose_cosine_and_gap_reach_the_thresholds(
    kept: Path, tmp_path: Path
) -> None:
    arm = replace(ARM, name="C-verified", enrichment="verified", contexts=2)

    def taken(cosine: float, gap: float) -> tuple[int, int]:
        told = {"directory": str(kept), "cosine": cosine, "gap": gap}
        facts = teach(tmp_path / f"{cosine} {gap}", arm=arm, verifier=told)
        return facts["proposed"], facts["accepted"]

    singles = sum(
        len([one for one in training_set(OURS, ARM, 1).texts if one.sense_id == sense.id]) == 1
        for sense in OURS.split_senses("train")
    )
    assert taken(-1.1, -2.1) == (4 * singles, 2 * singles)
    assert taken(1.1, -2.1) == taken(-1.1, 2.1) == (4 * singles, 0)
    some = taken(-1.1, 0.0)[1]
    assert 0 < some < 2 * singles


def test_wrong_positives_lower_what_is_reached(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=60, batch=32, dev_every=10)
    teach(tmp_path / "clean", recipe=recipe)
    teach(tmp_path / "wrong", recipe=recipe, mislabelled=0.8)
    clean, wrong = (top1(answered(tmp_path / name)["scores"]) for name in ("clean", "wrong"))
    assert clean > wrong + 0.1


def test_arms_come_back_from_json_with_their_tuples(tmp_path: Path) -> None:
    arm = json.loads(json.dumps(asdict(replace(CONDITIONS["B"], share=0.2))))
    assert isinstance(arm["mix"], list)
    given = json.loads(json.dumps(SOURCE))
    facts = train_head(
        source=given, arm=arm, seed=1, recipe=json.loads(json.dumps(asdict(RECIPE))),
        directory=str(tmp_path / "head"), mislabelled=0.0, verifier=None, report=nothing,
    )  # fmt: skip
    assert facts == {
        **teach(tmp_path / "other", arm=replace(CONDITIONS["B"], share=0.2)),
        "seconds": facts["seconds"],
    }
