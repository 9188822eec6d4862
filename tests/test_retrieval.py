"""Ranks, chance, margins and coherence against R, and the scorers that are refused."""

from __future__ import annotations

import csv
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from stats.coherence import coherence, nearest_senses
from stats.retrieval import (
    Key,
    answer_key,
    by_tier,
    chance_reciprocal_rank,
    chance_top,
    killer_share,
    margins,
    ranked,
)
from stats.rows import FloatArray

REFERENCE = Path(__file__).parent / "reference" / "retrieval.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}


def r_items() -> tuple[list[FloatArray], Key]:
    scores, correct = [], []
    for i in range(1, 41):
        size = 3 + i % 8
        scores.append(np.round(np.sin(1.7 * i + 2.3 * np.arange(1, size + 1)), 1))
        correct.append({3 * i % size} | ({5 * i % size} if i % 3 == 0 else set()))
    return scores, answer_key(correct, [len(own) for own in scores])


SCORES, KEY = r_items()


def padded() -> FloatArray:
    s = np.full(KEY.correct.shape, np.nan)
    s[KEY.present] = np.concatenate(SCORES)
    return s


def test_ranks_and_margins_are_those_of_rs_order() -> None:
    found = ranked(SCORES, KEY)
    spread = margins(found.margin)
    numbers = {
        "top1": found.top(1).mean(),
        "top3": found.top(3).mean(),
        "mrr": found.reciprocal_rank.mean(),
        "rank": found.best_rank.mean(),
        "expected1": found.top_expected(1).mean(),
        "expected3": found.top_expected(3).mean(),
        "margin_mean": spread.mean,
        "margin_sd": spread.sd,
        "margin_p5": spread.p5,
        "margin_p50": spread.p50,
        "margin_p95": spread.p95,
    }
    assert numbers == pytest.approx({name: R[name] for name in numbers}, rel=1e-12)


def test_chance_is_rs_hypergeometric_and_its_reciprocal_rank_all_placements() -> None:
    for n in (4, 7, 10):
        for c in (1, 2, 3):
            for k in (1, 3):
                assert float(chance_top(n, c, k)) == pytest.approx(R[f"chance_{n}_{c}_{k}"], rel=1e-12)
            assert chance_reciprocal_rank(n, c) == pytest.approx(R[f"chance_mrr_{n}_{c}"], rel=1e-12)


def test_a_guess_among_the_lemmas_own_candidates_has_a_seventh_and_three_sevenths() -> None:
    """One right, six of the lemma, three of others, in any order: what lemma-only reaches in the world."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(10) for _ in range(50)]
    key = answer_key([(int(np.flatnonzero(order == 0)[0]),) for order in orders], [10] * 50)
    found = ranked([(order < 7).astype(float) for order in orders], key)
    assert found.top_expected(1) == pytest.approx(np.full(50, 1 / 7))
    assert found.top_expected(3) == pytest.approx(np.full(50, 3 / 7))
    assert found.tied.mean() == 1.0


def test_ties_by_chance_are_the_mean_over_all_orders_of_the_file() -> None:
    scores, right = np.array([0.5, 0.9, 0.5, 0.5, 0.1]), {0, 3}
    hits = {1: 0.0, 2: 0.0, 3: 0.0}
    orders = list(permutations(range(5)))
    for order in orders:
        key = answer_key([[place for place, old in enumerate(order) if old in right]], [5])
        found = ranked([scores[list(order)]], key)
        for k in hits:
            hits[k] += float(found.top(k)[0]) / len(orders)
    expected = ranked([scores], answer_key([right], [5]))
    for k, share in hits.items():
        assert float(expected.top_expected(k)[0]) == pytest.approx(share)


def test_an_array_of_seeds_gives_each_seeds_ranks_and_ignores_the_padding() -> None:
    one, both = ranked(SCORES, KEY), ranked(np.stack([padded(), -padded()]), KEY)
    assert both.best_rank.shape == (2, 40)
    assert (both.best_rank[0] == one.best_rank).all()
    assert both.margin[0] == pytest.approx(one.margin)
    assert (both.best_rank[1] == ranked([-own for own in SCORES], KEY).best_rank).all()


def test_a_rising_transformation_of_the_scores_changes_no_rank() -> None:
    found = ranked([np.exp(3.0 * own) - 5.0 for own in SCORES], KEY)
    assert (found.best_rank == ranked(SCORES, KEY).best_rank).all()


def test_ranks_of_random_scores_reach_chance() -> None:
    rng = np.random.default_rng(1)
    key = answer_key([(0, 4)] * 4_000, [10] * 4_000)
    found = ranked(rng.normal(size=(4_000, 10)), key)
    for k in (1, 3):
        p = float(chance_top(10, 2, k))
        assert abs(float(found.top(k).mean()) - p) < 4 * (p * (1 - p) / 4_000) ** 0.5
    assert float(found.reciprocal_rank.mean()) == pytest.approx(chance_reciprocal_rank(10, 2), abs=0.02)


def echo() -> list[FloatArray]:
    return [KEY.correct[item, :size].astype(float) for item, size in enumerate(KEY.sizes)]


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (None, "a missing scorer"),
        ([], "a missing scorer"),
        ([np.ones(size) for size in KEY.sizes], "a constant scorer"),
        (np.stack([padded(), np.ones(KEY.correct.shape)]), r"of seed \[1\]; a constant scorer"),
        (echo(), "the scorer must not see"),
        ([3.0 * own + place for place, own in enumerate(echo())], "the scorer must not see"),
        ([*SCORES[:-1], np.full(len(SCORES[-1]), np.nan)], "not finite, the first in item 39"),
        (SCORES[:-1], "one score a candidate and item"),
        (np.zeros((40, 3)), "the last axes must be"),
    ],
)
def test_a_scorer_that_is_none_is_an_error(scores: list[FloatArray], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ranked(scores, KEY)


def test_a_perfect_scorer_that_measures_something_is_none_of_these() -> None:
    rng = np.random.default_rng(2)
    found = ranked([own + 0.1 * rng.random(len(own)) for own in echo()], KEY)
    assert found.top(1).mean() == 1.0
    two = answer_key([(0,), (1,)], [2, 2])
    assert ranked([[0.9, 0.1], [0.2, 0.3]], two).top(1).mean() == 1.0
    with pytest.raises(ValueError, match="the scorer must not see"):
        ranked([[1.0, 0.0], [0.0, 1.0]], two)


@pytest.mark.parametrize(
    ("correct", "sizes", "why"),
    [
        ([(0, 0)], [3], "indices from 0, once"),
        ([(3,)], [3], "indices from 0, once"),
        ([()], [3], "0 of 3 candidates are correct"),
        ([(0, 1)], [2], "2 of 2 candidates are correct"),
        ([], [], "at least one"),
        ([(0,)], [3, 3], "1 answers for 2 items"),
    ],
)
def test_a_key_without_a_question_is_refused(
    correct: list[tuple[int, ...]], sizes: list[int], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        answer_key(correct, sizes)


def test_the_collapse_alarm_rings_below_a_hundredth() -> None:
    even = np.linspace(-1.0, 1.0, 201) / float(np.linspace(-1.0, 1.0, 201).std(ddof=1))
    assert margins(0.0099 * even).collapsed
    assert not margins(0.0101 * even).collapsed
    assert margins(np.array([0.3])).collapsed is None
    with pytest.raises(ValueError, match="1 finite"):
        margins(np.array([0.3, np.inf]))


def test_killers_have_wilsons_interval() -> None:
    for hits, n in ((2, 8), (0, 15), (37, 120)):
        found = killer_share([1] * hits + [0] * (n - hits))
        wanted = (R[f"wilson_{hits}_{n}_low"], R[f"wilson_{hits}_{n}_high"])
        assert (found.low, found.high) == pytest.approx(wanted, abs=1e-12)
    with pytest.raises(ValueError, match="0 or 1 for each"):
        killer_share([])


def test_tiers_split_the_last_axis() -> None:
    found = by_tier(np.arange(6.0).reshape(2, 3), [3, 1, 3])
    assert {tier: own.tolist() for tier, own in found.items()} == {
        1: [[1.0], [4.0]],
        3: [[0.0, 2.0], [3.0, 5.0]],
    }
    with pytest.raises(ValueError, match="one an item"):
        by_tier(np.zeros((2, 3)), [1, 2])


def r_contexts() -> tuple[list[list[int]], list[list[int]]]:
    gold, decided = [], []
    for i in range(1, 31):
        t = np.arange(1, 3 + i % 2)
        own = (i * t + t**2) % 3
        gold.append(own.tolist())
        decided.append(np.where(np.sin(2.9 * i + 1.3 * t) > -0.3, own, (own + 1) % 3).tolist())
    return gold, decided


GOLD, DECIDED = r_contexts()


def test_coherence_is_rs() -> None:
    found = coherence(DECIDED, GOLD)
    numbers = {
        "step_accuracy": found.step_accuracy,
        "final": found.final,
        "precision": found.transition_precision,
        "recall": found.transition_recall,
        "f1": found.transition_f1,
    }
    assert numbers == pytest.approx({name: R[name] for name in numbers}, rel=1e-12)


def test_names_of_senses_mean_nothing_to_coherence() -> None:
    name = {0: "river", 1: "money", 2: "row"}
    found = coherence(
        [[name[s] for s in item] for item in DECIDED], [[name[s] for s in item] for item in GOLD]
    )
    assert found.transition_f1 == coherence(DECIDED, GOLD).transition_f1


def test_moves_that_nobody_made_have_no_precision() -> None:
    found = coherence([(0, 0), (1, 1)], [(0, 1), (1, 0)])
    assert (found.transition_precision, found.transition_recall, found.transition_f1) == (None, 0.0, 0.0)
    assert coherence([(0, 0), (1, 1)], [(0, 0), (1, 0)]).transition_recall == 0.0
    still = coherence([(0, 0), (1, 1)], [(0, 0), (0, 0)])
    assert still.transition_recall is None
    assert still.transition_f1 is None


@pytest.mark.parametrize(
    ("decided", "reshown", "why"),
    [
        (None, None, "a missing scorer"),
        ([], None, "a missing scorer"),
        (DECIDED[:-1], None, "do not fit"),
        ([[1] * len(item) for item in GOLD], None, "a constant scorer decides nothing"),
        ([[None, *item[1:]] for item in GOLD], None, "30 of 75 contexts have no decision"),
        (GOLD, None, "show that they are not read off them"),
        (GOLD, [[(s + 1) % 3 for s in item] for item in GOLD], "of 30 of 30 items change with the answers"),
        (DECIDED, [*DECIDED[:-1], [9, 9]], "of 1 of 30 items change"),
        (DECIDED, DECIDED[:-1], "29 items were decided again"),
    ],
)
def test_a_scorer_that_decides_nothing_is_an_error(
    decided: list[list[int]], reshown: list[list[int]] | None, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        coherence(decided, GOLD, reshown=reshown)


def test_a_perfect_scorer_may_show_that_it_does_not_read_the_answers() -> None:
    found = coherence(GOLD, GOLD, reshown=GOLD)
    assert (found.step_accuracy, found.transition_f1, found.final) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("similarities", "why"),
    [
        (None, "a missing scorer"),
        ([[0.5]], "two senses or more"),
        ([[0.5, float("nan")]], "not all finite"),
        ([[0.5, 0.5], [1.0, 1.0, 1.0]], "a constant scorer decides nothing"),
    ],
)
def test_similarities_that_tell_no_sense_are_refused(similarities: list[list[float]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        nearest_senses(similarities)


def test_an_item_of_one_context_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: 2 or more"):
        coherence([(0,), (0, 1)], [(1,), (0, 1)])
