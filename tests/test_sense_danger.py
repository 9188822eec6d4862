"""Danger of bundles and their tiers: as R computes them, and what holds for any vectors and scores."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.sense_conditions import CONDITIONS, training_set
from models.sense_danger import PERCENTS, danger, danger_scores, tiered, tiers
from models.sense_world import WorldSpec, world

PRINTED = {
    name: float(value)
    for name, value in (
        line.split("\t")
        for line in (Path(__file__).parent / "reference" / "sense_danger.txt").read_text().splitlines()
    )
}
BUNDLES = training_set(world(WorldSpec()), CONDITIONS["A"], 42).bundles[:200]


def vector_of(i: int, k: int) -> np.ndarray:
    return np.sin(1.3 * i + 2.1 * k + 0.7 * np.arange(1, 7) * (1 + (i + k) % 4))


SCORES = [
    danger(vector_of(i, 0), vector_of(i, 1), np.stack([vector_of(i, 2 + k) for k in range(1 + i % 5)]))
    for i in range(1, 91)
]


def test_danger_is_the_one_that_r_computes() -> None:
    np.testing.assert_allclose(SCORES, [PRINTED[f"danger_{i}"] for i in range(1, 91)], rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", ["exact", "rounded", "two"])
def test_percentiles_and_tiers_are_those_of_r(case: str) -> None:
    scores = {"exact": SCORES, "rounded": [round(score, 1) for score in SCORES], "two": SCORES[:2]}[case]
    found = tiers(scores)
    np.testing.assert_allclose(
        [found.p85, found.p97], [PRINTED[f"{case}_p85"], PRINTED[f"{case}_p97"]], rtol=0, atol=1e-13
    )
    assert list(found.tiers) == [PRINTED[f"{case}_tier_{i}"] for i in range(1, len(scores) + 1)]


@given(st.integers(2, 500), st.randoms(use_true_random=False))
def test_different_scores_fall_into_tiers_of_85_12_and_3_percent(count: int, rng: random.Random) -> None:
    scores = list(range(count))
    rng.shuffle(scores)
    found = tiers(scores)
    above = [count - -(-(count - 1) * percent // 100) for percent in PERCENTS]
    assert [sum(tier >= least for tier in found.tiers) for least in (2, 3)] == above
    assert found.shares == pytest.approx((0.85, 0.12, 0.03), abs=1.5 / count)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=80), st.integers(-9, 9), st.integers(0, 3))
def test_tiers_follow_the_order_of_scores_and_nothing_else_of_them(
    scores: list[int], shift: int, doublings: int
) -> None:
    assume(len(set(scores)) > 1)
    found = tiers(scores)
    by_score = sorted(zip(scores, found.tiers, strict=True))
    assert [tier for _, tier in by_score] == sorted(found.tiers)
    assert len(set(by_score)) == len(set(scores))
    assert found.tiers[scores.index(max(scores))] == 3
    assert tiers([2**doublings * score + shift for score in scores]).tiers == found.tiers
    assert sum(found.shares) == pytest.approx(1)


def test_a_percentile_that_is_a_score_is_that_score_exactly() -> None:
    rng = np.random.default_rng(0)
    for count in (101, 201, 301, 701, 1001, 2901):
        scores = np.sort(rng.normal(size=count))
        found = tiers(scores.tolist())
        assert (found.p85, found.p97) == (scores[(count - 1) * 85 // 100], scores[(count - 1) * 97 // 100])


NUMBERS = st.lists(st.floats(-10, 10), min_size=3, max_size=3)


@given(NUMBERS, NUMBERS, st.lists(NUMBERS, min_size=1, max_size=4), st.floats(0.1, 10))
def test_danger_depends_on_directions_alone_and_grows_with_more_negatives(
    first: list[float], right: list[float], wrong: list[list[float]], factor: float
) -> None:
    rows = [np.array(one) for one in (first, right, *wrong)]
    assume(all(np.linalg.norm(one) > 1e-3 for one in rows))
    anchor, positive, negatives = rows[0], rows[1], np.stack(rows[2:])
    found = danger(anchor, positive, negatives)
    assert -2 - 1e-12 <= found <= 2 + 1e-12
    assert danger(factor * anchor, positive, factor * negatives) == pytest.approx(found, abs=1e-12)
    assert danger(anchor, positive, negatives[::-1]) == pytest.approx(found, abs=1e-12)
    assert danger(anchor, positive, negatives[:1]) <= found + 1e-12
    assert danger(anchor, positive, positive[None]) == pytest.approx(0, abs=1e-12)
    [negative] = negatives[:1]
    swapped = danger(anchor, negative, positive[None])
    assert swapped == pytest.approx(-danger(anchor, positive, negative[None]), abs=1e-12)


def test_bundles_get_their_scores_and_tiers_and_none_where_nothing_is_defined() -> None:
    rng = np.random.default_rng(1)
    vectors = {text: rng.normal(size=8) for bundle in BUNDLES for text in bundle.texts()}
    bundles = [replace(BUNDLES[0], within_lemma=(), cross_lemma=()), *BUNDLES[1:]]
    scores = danger_scores(bundles, vectors)
    assert scores[0] is None
    first, right, *wrong = (vectors[text] for text in bundles[7].texts())
    assert scores[7] == danger(first, right, np.stack(wrong))
    made = tiered(bundles, scores)
    known = tiers([score for score in scores if score is not None])
    assert (made[0].danger_score, made[0].difficulty_tier) == (None, None)
    assert [one.difficulty_tier for one in made[1:]] == list(known.tiers)
    assert [one.danger_score for one in made] == list(scores)
    hardest = max(made[1:], key=lambda one: one.danger_score or 0)
    assert hardest.difficulty_tier == 3
    assert [replace(one, danger_score=None, difficulty_tier=None) for one in made] == [
        replace(one, danger_score=None, difficulty_tier=None) for one in bundles
    ]


def test_what_has_no_danger_or_no_tiers_is_refused() -> None:
    one, rows = np.ones(3), np.ones((2, 3))
    for wrong in (one, np.ones((2, 4)), np.ones((0, 3))):
        with pytest.raises(ValueError, match="K at least 1"):
            danger(one, one, wrong)
    for broken in (np.zeros(3), np.array([1.0, np.nan, 0.0]), np.array([np.inf, 1.0, 0.0])):
        with pytest.raises(ValueError, match="not finite or of length 0"):
            danger(broken, one, rows)
    with pytest.raises(ValueError, match="3 scores with 1 different values"):
        tiers([0.2, 0.2, 0.2])
    with pytest.raises(ValueError, match="score 1 is nan"):
        tiers([0.2, float("nan"), 0.1])
    with pytest.raises(ValueError, match="1 scores for 200 bundles"):
        tiered(BUNDLES, [0.1])
    with pytest.raises(ValueError, match=f"bundle '{BUNDLES[0].id}': text .* has no vector"):
        danger_scores(BUNDLES, {})
    flat = {text: np.zeros(3) for bundle in BUNDLES for text in bundle.texts()}
    with pytest.raises(ValueError, match=f"bundle '{BUNDLES[0].id}': a vector is not finite or of length 0"):
        danger_scores(BUNDLES, flat)
