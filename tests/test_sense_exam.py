"""What a head answers, against cosines and means by hand; coherence by prototypes, and what reads the key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.sense_baselines import Scorer
from models.sense_exam import attention_of, cue_flags, decisions, examine, retrieval_scores, spread
from models.sense_items import CoherenceItem, RetrievalItem, Sense, TextItem
from models.sense_probes import coherence_items, retrieval_items
from models.sense_recipe import HeadShape
from models.sense_steps import expected_right, sense_means, steps_of, with_other_answers
from models.sense_texts import Network, Read
from models.sense_tokens import Marked, marked, vocabulary
from models.sense_world import WorldSpec, world
from stats.coherence import coherence

pytestmark = pytest.mark.usefixtures("one_thread")

OURS = world(WorldSpec(topics=6, topic_words=16, function_words=20, train_lemmas=1, test_lemmas=10, cues=8))
TEST = retrieval_items(OURS, per_sense=1)[:12]
CONTEXTS = coherence_items(OURS, per_lemma=1)[:9]
READ = Read(vocabulary=vocabulary([text for item in TEST for text in item.texts()], "learned"))


@cache
def network() -> Network:
    """Untrained, with words far from each other, so that no two scores are nearly the same."""
    assert READ.vocabulary is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = Network(HeadShape(hidden=16, out=16), READ.vocabulary.size).eval()
        with torch.no_grad():
            assert made.table is not None
            made.table.rows.weight.normal_()
            made.table.rows.weight[0] = 0.0
            made.head.key.weight.mul_(5.0)
    return made


def alone(text: TextItem | Marked) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vector and attention of one text, read by itself."""
    z, w = network().vectors(READ([text if isinstance(text, Marked) else marked(text)]))
    return z[0].double().numpy(), w[0].double().numpy()


def told() -> dict[str, Any]:
    return dict(examine(network(), READ, TEST, CONTEXTS))


def test_scores_are_the_cosines_of_query_and_candidates() -> None:
    found = told()
    for item, scores in zip(TEST, found["scores"], strict=True):
        query = alone(item.query)[0]
        wanted = [
            float(query @ z / np.linalg.norm(query) / np.linalg.norm(z))
            for z in (alone(one)[0] for one in item.candidates)
        ]
        assert scores == pytest.approx(wanted, abs=2e-6)


def test_attention_on_cues_and_lemma_is_what_their_words_weigh() -> None:
    found = told()
    with_cues = 0
    for item, one in zip(TEST, found["attention"], strict=True):
        words = item.query.text.split()
        _, w = alone(item.query)
        entropy = -sum(weight * math.log(weight) for weight in w[: len(words)])
        assert one["item"] == item.id
        assert one["entropy"] == pytest.approx(entropy / math.log(len(words)), abs=1e-5)
        assert one["lemma_mass"] == pytest.approx(w[words.index(item.lemma)], abs=1e-5)
        places = [i for i, word in enumerate(words) if word in item.query.cue_tokens]
        with_cues += bool(places)
        if places:
            assert one["cue_mass"] == pytest.approx(sum(w[i] for i in places), abs=1e-5)
        else:
            assert one["cue_mass"] is None
    assert with_cues > 0


def test_a_query_without_cues_has_no_cue_mass_and_one_token_no_entropy() -> None:
    bare = [replace(one, query=replace(one.query, cue_tokens=())) for one in TEST[:2]]
    assert [one["cue_mass"] for one in examine(network(), READ, bare, [])["attention"]] == [None, None]  # type: ignore[attr-defined]
    single = TextItem(text="bank", span=(0, 4), surface="bank", sense_id=TEST[0].query.sense_id)
    told_of: Any = examine(network(), READ, [replace(TEST[0], query=single)], [])["attention"]
    [found] = told_of
    assert (found["entropy"], found["lemma_mass"]) == (None, 1.0)


def test_tokens_of_an_encoder_are_no_words_so_they_have_no_cue_mass_and_are_not_shown() -> None:
    def states(texts: Sequence[Marked]) -> Any:
        found = READ(texts)
        assert network().table is not None
        with torch.no_grad():
            return replace(found, states=network().table(found.states).half())  # type: ignore[misc]

    bare = Network(HeadShape(hidden=16, out=16), None).eval()
    bare.head.load_state_dict(network().head.state_dict())
    found = examine(bare, Read(vocabulary=None, encoder=states), TEST, [])
    assert found["shown"] == []
    assert {one["cue_mass"] for one in found["attention"]} == {None}  # type: ignore[attr-defined]
    for ours, theirs in zip(told()["scores"], found["scores"], strict=True):  # type: ignore[call-overload]
        assert ours == pytest.approx(theirs, abs=5e-3)  # float16


def test_the_first_two_queries_of_each_tier_are_shown_word_by_word() -> None:
    found = told()["shown"]
    wanted = [one.id for tier in (1, 2, 3) for one in [item for item in TEST if item.tier == tier][:2]]
    assert sorted(one["item"] for one in found) == sorted(wanted)
    by_id = {item.id: item for item in TEST}
    for one in found:
        item = by_id[one["item"]]
        assert list(one["words"]) == item.query.text.split()
        assert [word for word, hit in zip(one["words"], one["target"], strict=True) if hit] == [item.lemma]
        cues = {word for word, hit in zip(one["words"], one["cues"], strict=True) if hit}
        assert cues == set(item.query.cue_tokens)
        assert one["weights"] == pytest.approx(alone(item.query)[1].tolist(), abs=1e-4)


def test_cues_are_found_whatever_their_case() -> None:
    query = TextItem(
        text="The River bank", span=(10, 14), surface="bank", sense_id="1", cue_tokens=("RIVER", "sea")
    )
    other = replace(query, text="Some other bank", span=(11, 15), sense_id="2")
    same = replace(query, text="More of a bank", cue_tokens=())
    item = RetrievalItem(id="a", lemma="bank", query=query, candidates=(same, other), correct=(0,))
    assert cue_flags(item) == (False, True, False)


def participation(z: NDArray[np.float64]) -> float:
    values = np.linalg.svd(z - z.mean(0), compute_uv=False) ** 2
    return float(values.sum() ** 2 / (values**2).sum())


def test_the_spread_is_the_mean_cosine_of_pairs_and_the_participation_ratio() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9, 4)) + np.array([2.0, 0.0, 0.0, 0.0])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = spread(torch.from_numpy(z))
    pairs = [float(z[i] @ z[j]) for i, j in product(range(9), repeat=2) if i != j]
    assert found.mean_cosine == pytest.approx(float(np.mean(pairs)), abs=1e-12)
    assert found.effective_dimensions == pytest.approx(participation(z), rel=1e-9)
    assert 1.0 < found.effective_dimensions < 4.0


@pytest.mark.parametrize("n", [2, 7, 100])
@pytest.mark.parametrize("seed", range(4))
def test_vectors_that_are_all_one_have_no_dimension(n: int, seed: int) -> None:
    z = torch.nn.functional.normalize(
        torch.randn(16, generator=torch.Generator().manual_seed(seed)), dim=0
    ).expand(n, 16)
    found = spread(z)
    assert found.mean_cosine == pytest.approx(1.0, abs=1e-6)
    assert found.effective_dimensions == 0.0


def test_one_vector_has_no_spread() -> None:
    with pytest.raises(ValueError, match="1 vectors; how they lie needs at least 2"):
        spread(torch.ones(1, 4))
    assert examine(network(), READ, TEST[:1], [])["spread"] is None


def test_the_spread_of_an_exam_is_that_of_its_queries() -> None:
    z = np.stack([alone(item.query)[0] for item in TEST])
    found = told()["spread"]
    assert found["effective_dimensions"] == pytest.approx(participation(z), rel=1e-3)


def test_items_of_neither_kind_leave_their_part_empty() -> None:
    without = examine(network(), READ, TEST[:2], [])
    assert (without["decided"], without["reshown"]) == ([], [])
    found = examine(network(), READ, [], CONTEXTS[:2])
    assert (found["scores"], found["attention"], found["spread"], found["known"]) == ([], [], None, None)
    assert len(found["decided"]) == 2  # type: ignore[arg-type]


def test_the_share_of_known_words_is_that_of_all_texts() -> None:
    assert told()["known"] == 1.0
    nothing = Read(vocabulary=vocabulary([], "learned"))
    bare = Network(HeadShape(hidden=16, out=16), 3).eval()
    assert examine(bare, nothing, TEST[:2], [])["known"] == 0.0


def nearest(item: CoherenceItem, *, examples: bool, gloss: bool) -> list[str]:
    """The sense of each context by prototypes, text by text."""
    prototypes = []
    for sense in item.inventory:
        parts = [alone(one)[0] for one in sense.examples if examples]
        parts += [alone(Marked(text=sense.gloss))[0]] if gloss else []
        mean = np.mean(parts, axis=0)
        prototypes.append(mean / np.linalg.norm(mean))
    return [
        item.inventory[int(np.argmax([alone(one)[0] @ own for own in prototypes]))].sense_id
        for one in item.contexts
    ]


@pytest.mark.parametrize(("examples", "gloss"), [(True, True), (True, False), (False, True)])
def test_a_context_has_the_sense_of_the_nearest_mean_of_examples_and_gloss(
    examples: bool, gloss: bool
) -> None:
    items = [
        replace(
            item,
            inventory=tuple(
                Sense(
                    sense_id=one.sense_id,
                    gloss=one.gloss if gloss else "  ",
                    examples=one.examples if examples else (),
                )
                for one in item.inventory
            ),
        )
        for item in CONTEXTS
    ]
    found = decisions(network(), READ, items)
    assert found == [nearest(item, examples=examples, gloss=gloss) for item in CONTEXTS]
    assert len({sense for own in found for sense in own}) > 2


def test_a_prototype_gives_every_example_the_same_weight_as_the_gloss() -> None:
    """The three means decide differently somewhere, so the test above can tell them apart."""
    found = {
        which: [nearest(item, examples=which[0], gloss=which[1]) for item in CONTEXTS]
        for which in ((True, True), (True, False), (False, True))
    }
    assert len({str(one) for one in found.values()}) == 3


def test_decisions_need_an_inventory_with_something_of_each_sense() -> None:
    item = CONTEXTS[0]
    with pytest.raises(ValueError, match="has no inventory; there is nothing to decide among"):
        decisions(network(), READ, [replace(item, inventory=())])
    empty = replace(item.inventory[0], gloss=" ", examples=())
    with pytest.raises(ValueError, match=f"sense '{empty.sense_id}' has neither example nor gloss"):
        decisions(network(), READ, [replace(item, inventory=(empty, *item.inventory[1:]))])


def test_a_gloss_stands_after_the_lemma_beside_the_examples() -> None:
    item = CONTEXTS[0]
    [first, *_] = steps_of(item)
    entries = [one for one in first.asked.candidates if one.text.startswith(f"{item.lemma}: ")]
    assert [one.text for one in entries] == [f"{item.lemma}: {one.gloss}" for one in item.inventory]
    assert len(first.asked.candidates) == sum(len(one.examples) + 1 for one in item.inventory)
    alone = replace(item, inventory=tuple(replace(one, examples=()) for one in item.inventory))
    assert len(steps_of(alone)[0].asked.candidates) == len(item.inventory)


def test_steps_need_an_example_or_a_gloss_of_each_sense() -> None:
    item = CONTEXTS[0]
    with pytest.raises(ValueError, match="has no inventory"):
        steps_of(replace(item, inventory=()))
    bare = replace(item.inventory[1], examples=(), gloss=" ")
    with pytest.raises(ValueError, match=f"sense '{bare.sense_id}' has neither gloss nor example"):
        steps_of(replace(item, inventory=(item.inventory[0], bare, *item.inventory[2:])))


def test_other_answers_need_an_inventory() -> None:
    with pytest.raises(ValueError, match="has no inventory; there is no other answer to give"):
        with_other_answers(replace(CONTEXTS[0], inventory=()))


def test_the_same_contexts_are_shown_again_with_other_answers() -> None:
    for item in CONTEXTS:
        other = with_other_answers(item)
        assert [one.text for one in other.contexts] == [one.text for one in item.contexts]
        assert all(a != b for a, b in zip(other.senses, item.senses, strict=True))
        assert other.inventory == item.inventory


def test_a_head_decides_the_same_whatever_answers_are_shown_and_an_echo_does_not() -> None:
    found = told()
    gold = [item.senses for item in CONTEXTS]
    assert found["decided"] == found["reshown"]
    coherence(found["decided"], gold, reshown=found["reshown"])

    def echo(items: Sequence[CoherenceItem]) -> list[list[str]]:
        return [[one.sense_id for one in item.contexts] for item in items]

    other = [with_other_answers(item) for item in CONTEXTS]
    with pytest.raises(ValueError, match="change with the answers shown: the scorer reads them"):
        coherence(echo(CONTEXTS), gold, reshown=echo(other))


def constant(value: float) -> Scorer:
    def score(item: RetrievalItem) -> NDArray[np.float64]:
        return np.full(len(item.candidates), value)

    return score


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.7])
@pytest.mark.parametrize("examples", [(3, 3, 3, 3), (3, 2, 1, 2)])
def test_a_scorer_that_ties_everything_decides_as_many_rightly_as_a_guess(
    value: float, examples: tuple[int, ...]
) -> None:
    items = [
        replace(
            item,
            inventory=tuple(
                replace(one, examples=one.examples[:n])
                for one, n in zip(item.inventory, examples, strict=False)
            ),
        )
        for item in CONTEXTS
    ]
    wanted = [len(item.contexts) / len(item.inventory) for item in items]
    assert expected_right(constant(value), items) == pytest.approx(wanted)


def test_two_best_senses_share_a_context_and_the_best_alone_has_it_all() -> None:
    item = next(one for one in CONTEXTS if len(one.inventory) >= 3)
    gold = item.senses[0]
    wrong = next(one.sense_id for one in item.inventory if one.sense_id != gold)

    def high(*senses: str) -> Scorer:
        return lambda asked: np.array([float(one.sense_id in senses) for one in asked.candidates])

    count = item.senses.count
    assert expected_right(high(gold), [item]) == [float(count(gold))]
    assert expected_right(high(gold, wrong), [item]) == [(count(gold) + count(wrong)) / 2]
    assert expected_right(high(wrong), [item]) == [float(count(wrong))]


def test_a_sense_has_the_mean_score_of_its_examples() -> None:
    [step, *_] = steps_of(CONTEXTS[0])
    scores = np.arange(len(step.asked.candidates), dtype=np.float64) ** 2
    wanted = [
        float(
            np.mean([s for s, one in zip(scores, step.asked.candidates, strict=True) if one.sense_id == own])
        )
        for own in step.senses
    ]
    assert sense_means(scores, step) == pytest.approx(wanted)
    assert step.senses == tuple(one.sense_id for one in CONTEXTS[0].inventory)
    assert step.asked.query == CONTEXTS[0].contexts[0]


def test_attention_of_a_text_without_a_marked_lemma_puts_nothing_on_it() -> None:
    _, texts, _, w, query = retrieval_scores(network(), READ, TEST[:2])
    bare = replace(texts, target=torch.zeros_like(texts.target))
    found = attention_of(TEST[:2], bare, w, query, by_word=True)
    assert [one.lemma_mass for one in found] == [0.0, 0.0]
