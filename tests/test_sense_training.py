"""Training a head in a small world: the same bits, the same budget, the best state, and what ends it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import sense_training
from models.sense_conditions import TrainingArm, TrainingSet, draws, training_set
from models.sense_head import entropy_floor
from models.sense_items import MOST_NEGATIVES, Bundle, RetrievalItem, TextItem
from models.sense_losses import contrast_loss
from models.sense_probes import retrieval_items
from models.sense_recipe import HeadRecipe, HeadShape, Phase
from models.sense_texts import Network, Numbering, Read, Texts
from models.sense_tokens import Lookup, Marked, marked, vocabulary, words_of
from models.sense_training import (
    NO_TEXT,
    Questions,
    Trained,
    cosines,
    lesson,
    new_network,
    questions,
    relative_entropy,
    train,
)
from models.sense_world import WorldSpec, world

pytestmark = pytest.mark.usefixtures("one_thread")

OURS = world(
    WorldSpec(
        topics=6, topic_words=16, function_words=20, train_lemmas=24, test_lemmas=10, dev_lemmas=10, cues=8
    )
)
ARM = TrainingArm(name="B", share=0.7, sentences=4)
MADE = training_set(OURS, ARM, 1)
SMALLER = training_set(OURS, TrainingArm(name="A", share=0.2, sentences=2), 1)
DEV = retrieval_items(OURS, "dev", per_sense=1)
TEST = retrieval_items(OURS, "test", per_sense=2, tiers=(1, 2))
SHAPE = HeadShape(hidden=16, out=16)
SHORT = HeadRecipe(steps=6, batch=16, learning_rate=5e-3, shape=SHAPE, dev_every=3)
LEARNS = replace(SHORT, steps=60, batch=32, dev_every=10)


def reader(lookup: Lookup = "learned", made: TrainingSet = MADE) -> Read:
    return Read(vocabulary=vocabulary(made.texts, lookup, buckets=256))


def run(
    recipe: HeadRecipe = SHORT, *, made: TrainingSet = MADE, seed: int = 0, read: Read | None = None
) -> Trained:
    own = read or reader("hashed" if recipe.lookup == "hashed" else "learned", made)
    return train(made, recipe, own, questions(DEV, own), seed=seed)


@cache
def short() -> Trained:
    return run()


@cache
def learned() -> Trained:
    return run(LEARNS)


def bits(found: Trained) -> list[Any]:
    """All that a training gives, but its seconds."""
    state = {name: value.tolist() for name, value in found.network.state_dict().items()}
    return [state, found.looks, found.best_step, found.steps_to_threshold]


def reached(network: Network, items: Sequence[RetrievalItem], read: Read) -> tuple[float, float]:
    """Top1 and loss of a network, item by item in plain arithmetic."""
    asked = questions(items, read)
    z = network.vectors(asked.texts)[0].double().numpy()
    hits, losses = [], []
    for row, item in enumerate(items):
        own = [float(z[int(asked.query[row])] @ z[int(c)]) for c in asked.candidates[row] if c != NO_TEXT]
        hits.append(int(np.argmax(own)) in item.correct)
        odds = [math.exp(one / LEARNS.temperature) for one in own]
        losses.append(-math.log(sum(odds[i] for i in item.correct) / sum(odds)))
    return float(np.mean(hits)), float(np.mean(losses))


def test_the_same_call_gives_the_same_bits_and_another_seed_others() -> None:
    assert bits(run()) == bits(short())
    assert bits(run(seed=1)) != bits(short())


def test_the_caller_s_generators_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is looked at
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    torch_next = torch.rand(3)
    torch.random.set_rng_state(before[0])
    again = run()
    assert torch.equal(torch.rand(3), torch_next)
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002
    torch.manual_seed(6)
    assert bits(again) == bits(run())


def test_a_small_world_is_learned() -> None:
    found, read = learned(), reader()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = new_network(LEARNS, read, questions(DEV, read).texts).eval()
    before, after = reached(start, TEST, read), reached(found.network, TEST, read)
    assert after[0] > before[0] + 0.1
    assert after[1] < before[1]
    assert found.looks[-1].loss_nats < found.looks[0].loss_nats


def test_the_state_that_is_kept_is_the_best_on_dev() -> None:
    found = learned()
    best = max(found.looks, key=lambda one: (one.dev_top1, -one.dev_loss_nats))
    assert found.best_step == best.step
    top1, loss = reached(found.network, DEV, reader())
    assert top1 == pytest.approx(best.dev_top1, abs=1e-6)
    assert loss == pytest.approx(best.dev_loss_nats, rel=1e-4)
    assert not found.network.training


def test_training_ends_after_as_many_looks_without_a_better_state_as_the_patience() -> None:
    recipe = replace(SHORT, steps=200, dev_every=2, patience=2, learning_rate=0.2)
    found = run(recipe)
    last = found.looks[-1].step
    assert last < 200
    assert sum(one.step > found.best_step for one in found.looks) == 2
    assert found.best_step == last - 4
    top1, loss = reached(found.network, DEV, reader())
    best = next(one for one in found.looks if one.step == found.best_step)
    assert (top1, loss) == pytest.approx((best.dev_top1, best.dev_loss_nats), rel=1e-4)


def test_dev_is_looked_at_every_few_steps_and_at_the_end_and_the_rate_falls_to_0() -> None:
    found = run(replace(SHORT, steps=7))
    assert [one.step for one in found.looks] == [3, 6, 7]
    rates = [one.learning_rate for one in found.looks]
    wanted = [5e-3 * (1 + math.cos(math.pi * step / 7)) / 2 for step in (3, 6, 7)]
    assert rates == pytest.approx(wanted, abs=1e-9)


def test_the_step_that_first_reaches_the_threshold_is_told() -> None:
    for threshold, wanted in ((0.0, 3), (1.01, None)):
        assert run(replace(SHORT, threshold=threshold)).steps_to_threshold == wanted
    found = learned()
    above = [one.step for one in found.looks if one.dev_top1 >= LEARNS.threshold]
    assert found.steps_to_threshold == (above[0] if above else None)


@pytest.mark.parametrize("made", [MADE, SMALLER], ids=["B", "A"])
def test_every_set_is_trained_on_the_same_number_of_bundles(
    made: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def counted(anchors: Tensor, candidates: Tensor, *senses: Tensor, **more: Any) -> Tensor:
        seen.append((len(anchors), len(candidates)))
        return contrast_loss(anchors, candidates, *senses, **more)

    monkeypatch.setattr(sense_training, "contrast_loss", counted)
    run(made=made)
    assert [n for n, _ in seen] == [SHORT.batch] * SHORT.steps
    order = draws(made, SHORT.steps * SHORT.batch, seed=0).reshape(SHORT.steps, -1)
    negatives = [sum(len(made.bundles[i].within_lemma) for i in one) for one in order]
    assert [m - n for n, m in seen] == negatives


def test_a_lesson_numbers_each_text_and_each_sense_once() -> None:
    read = reader()
    found = lesson(MADE, read)
    assert found.bundles.shape == found.senses.shape == (len(MADE.bundles), 2 + MOST_NEGATIVES)
    numbers = Numbering()
    senses: dict[str, int] = {}
    for row, bundle in enumerate(MADE.bundles):
        held = [bundle.anchor, bundle.positive, *bundle.within_lemma]
        wanted = [numbers.number(marked(one)) for one in held]
        assert found.bundles[row, : len(held)].tolist() == wanted
        assert found.bundles[row, len(held) :].tolist() == [NO_TEXT] * (2 + MOST_NEGATIVES - len(held))
        labels = [senses.setdefault(one.sense_id, len(senses)) for one in held]
        assert found.senses[row, : len(held)].tolist() == labels
        assert bool((found.senses[row, len(held) :] == NO_TEXT).all())
    assert len(found.texts) == len(numbers.texts) == len(set(numbers.texts))


def test_questions_of_unequal_length_are_padded_and_padding_never_scores() -> None:
    early = next(one for one in DEV if one.correct[0] < 5)
    few = [replace(early, candidates=early.candidates[: early.correct[0] + 2]), *DEV[1:3]]
    found = questions(few, reader())
    assert found.candidates.shape == (3, 10)
    assert len(few[0].candidates) < 10
    short_one = len(few[0].candidates)
    assert bool((found.candidates[0, short_one:] == NO_TEXT).all())
    assert [row.nonzero().flatten().tolist() for row in found.correct] == [list(one.correct) for one in few]
    scores = cosines(short().network.vectors(found.texts)[0], found)
    assert bool((scores[0, short_one:] == -torch.inf).all())
    assert bool(scores[0, :short_one].isfinite().all())


@pytest.mark.parametrize(
    ("dev_every", "message"), [(1, "the dev loss after step 1 is nan"), (9, "the loss of step 2 is nan")]
)
def test_a_loss_that_is_no_number_is_an_error_that_names_the_step(dev_every: int, message: str) -> None:
    """Also where it was the last step that left no numbers."""
    recipe = replace(SHORT, learning_rate=1e36, dev_every=dev_every)
    with pytest.raises(ValueError, match=f"{message}; lower the learning rate"):
        run(recipe)
    if dev_every == 1:
        with pytest.raises(ValueError, match=message):
            run(replace(recipe, steps=1))


def test_a_set_without_bundles_is_refused() -> None:
    empty = replace(MADE, bundles=(), repeats=())
    read = reader()
    with pytest.raises(ValueError, match="draws of 0 bundles; there must be at least 1 of both"):
        train(empty, SHORT, read, questions(DEV, read), seed=0)


def test_without_items_there_is_no_question() -> None:
    with pytest.raises(ValueError, match="there are no retrieval items; give at least 1"):
        questions([], reader())


def two_words(place: int, sense: str) -> TextItem:
    return TextItem(text=f"bank w{place}", span=(0, 4), surface="bank", sense_id=sense)


def of_two_words(bundles: int) -> TrainingSet:
    held = [two_words(i, f"bank.{1 + i // 2}") for i in range(4)]
    made = [
        Bundle(id=f"{a}", lemma="bank", anchor=held[a], positive=held[b], within_lemma=(held[c],),
               cross_lemma=(), anchor_sense=held[a].sense_id)
        for a, b, c in ((0, 1, 2), (2, 3, 0))
    ]  # fmt: skip
    return replace(MADE, texts=tuple(held), bundles=tuple(made[:bundles]), repeats=(1,) * bundles)


PLAIN = replace(SHORT, steps=1, batch=2, dev_every=1, shape=replace(SHAPE, dropout=0.0))


def test_the_seed_is_that_of_the_first_state_too() -> None:
    """Of one bundle there is one order, and without dropout nothing else is drawn."""
    one, same, other = (run(PLAIN, made=of_two_words(1), seed=seed) for seed in (0, 0, 1))
    assert bits(one) == bits(same)
    assert one.looks[0].loss_nats != other.looks[0].loss_nats


def test_the_floor_is_added_by_its_weight() -> None:
    """Of texts of two words attention has at most ln 2 < 1 nat, so the floor is always short of it."""
    made = of_two_words(2)
    plain, more = (run(replace(PLAIN, entropy_weight=w), made=made) for w in (0.0, 0.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        read = reader(made=made)
        start = new_network(PLAIN, read, lesson(made, read).texts)
    _, w = start.vectors(lesson(made, read).texts)
    floor = float(entropy_floor(w[[0, 1, 2, 2, 3, 0]]))
    assert floor >= 1 - math.log(2) - 1e-6
    assert more.looks[0].loss_nats - plain.looks[0].loss_nats == pytest.approx(0.5 * floor, rel=1e-4)


@pytest.mark.parametrize("loss", ["triplet", "hinge"])
def test_the_other_losses_learn_too(loss: str) -> None:
    found = run(replace(SHORT, loss=loss, batch=32, steps=60, dev_every=20))  # type: ignore[arg-type]
    assert found.looks[-1].loss_nats < found.looks[0].loss_nats


@pytest.mark.parametrize("phase", ["rotated", "unrotated"])
def test_a_head_with_a_phase_is_trained_with_its_angles(phase: Phase) -> None:
    recipe = replace(SHORT, shape=replace(SHAPE, phase=phase))
    found, read = run(recipe), reader()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = new_network(recipe, read, questions(DEV, read).texts)
    before, after = start.state_dict()["head.angle.weight"], found.network.state_dict()["head.angle.weight"]
    assert not torch.equal(before, after)


def test_hashed_words_give_unseen_words_states_that_learned_ones_do_not_have() -> None:
    recipe = replace(SHORT, lookup="hashed", buckets=256)
    found = run(recipe)
    new = [Marked(text=f"bank {word}", span=(0, 4)) for word in ("quokka", "zyzzyva")]
    for lookup, network in (("hashed", found.network), ("learned", short().network)):
        read = reader("hashed" if lookup == "hashed" else "learned")
        told = read(new)
        z, _ = network.vectors(told)
        assert torch.equal(z[0], z[1]) == (lookup == "learned")
        assert told.known == 0.0


def frozen(texts: Sequence[Marked]) -> Texts:
    """States as an encoder's: a fixed random vector of each word, in float16."""
    read = [words_of(one) for one in texts]
    width = max(len(one.words) for one in read)
    states = torch.zeros(len(read), width, 16, dtype=torch.float16)
    mask, target = (torch.zeros(len(read), width, dtype=torch.bool) for _ in range(2))
    for n, one in enumerate(read):
        for t, word in enumerate(one.words):
            rng = np.random.default_rng(list(word.encode()))
            states[n, t] = torch.from_numpy(rng.normal(size=16)).half()
            mask[n, t], target[n, t] = True, one.target[t]
    return Texts(states=states, mask=mask, target=target, known=1.0)


def test_a_head_learns_on_frozen_states_and_has_no_table() -> None:
    read = Read(vocabulary=None, encoder=frozen)
    recipe = replace(SHORT, steps=20, dev_every=10)
    found = run(recipe, read=read)
    assert found.network.table is None
    assert found.looks[-1].loss_nats < found.looks[0].loss_nats
    top1, loss = reached(found.network, DEV, read)
    best = max(found.looks, key=lambda one: (one.dev_top1, -one.dev_loss_nats))
    assert (top1, loss) == pytest.approx((best.dev_top1, best.dev_loss_nats), rel=1e-4)
    words = frozen([marked(DEV[0].query)])
    mean = words.states[0].float().mean(0)
    torch.testing.assert_close(found.network.mean_states(words)[0], mean / mean.norm())


def test_an_encoder_of_another_width_is_refused() -> None:
    recipe = replace(SHORT, shape=replace(SHAPE, hidden=8))
    with pytest.raises(ValueError, match="states have 16 numbers, the head takes 8; set hidden to 16"):
        run(recipe, read=Read(vocabulary=None, encoder=frozen))


def test_a_reader_needs_a_vocabulary_or_an_encoder() -> None:
    with pytest.raises(ValueError, match="neither a vocabulary nor an encoder; give one of them"):
        Read(vocabulary=None)([Marked(text="bank")])


def test_texts_are_read_in_parts_of_any_size_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Questions = questions(DEV[:8], reader())
    z, w = short().network.vectors(asked.texts)
    monkeypatch.setattr("models.sense_texts.TEXTS_AT_ONCE", 7)
    parts_z, parts_w = short().network.vectors(asked.texts)
    torch.testing.assert_close(parts_z, z)
    torch.testing.assert_close(parts_w, w)


def test_vectors_are_made_without_dropout_and_training_goes_on_after_them() -> None:
    network, asked = short().network, questions(DEV[:3], reader())
    quiet, _ = network.vectors(asked.texts)
    network.train()
    try:
        loud, _ = network.vectors(asked.texts)
        assert network.training
    finally:
        network.eval()
    assert torch.equal(loud, quiet)


def test_relative_entropy_is_1_for_even_attention_and_leaves_out_texts_of_one_token() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    even = mask / mask.sum(1, keepdim=True)
    assert relative_entropy(even, mask) == pytest.approx(1.0)
    sharp = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert relative_entropy(sharp, mask) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="each of 1 texts has 1 token"):
        relative_entropy(sharp[2:], mask[2:])


def test_looks_are_of_the_steps_since_the_look_before(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []

    def kept(*given: Tensor, **more: Any) -> Tensor:
        found = contrast_loss(*given, **more)
        losses.append(float(found.detach()))
        return found

    monkeypatch.setattr(sense_training, "contrast_loss", kept)
    found = run(replace(SHORT, steps=7))
    steps = [0, *(one.step for one in found.looks)]
    wanted = [float(np.mean(losses[a:b])) for a, b in pairwise(steps)]
    assert [one.loss_nats for one in found.looks] == pytest.approx(wanted)
