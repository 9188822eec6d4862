"""Baselines against scikit-learn's printed numbers, by hand on small items, and in the order of ties."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from models.sense_baselines import (
    LEXICAL,
    QUERY_BLIND,
    Scorer,
    baselines,
    chance,
    fit_tfidf,
    lemma_only,
    longest,
    masked,
    nearest_length,
    ranking,
    same_source,
    source_rate,
    tfidf,
    word_jaccard,
)
from models.sense_files import read_retrieval
from models.sense_items import RetrievalItem, TextItem
from models.sense_probes import retrieval_items
from models.sense_shortcuts import filler, fillers, role_classifier, shortcuts
from models.sense_world import WorldSpec, world

REFERENCE = Path(__file__).parent / "reference"
ITEMS = read_retrieval(REFERENCE / "sense_retrieval.jsonl").items
PRINTED = list(csv.reader((REFERENCE / "sense_sklearn.txt").read_text().splitlines(), delimiter="\t"))
ORDERS = {(row[0], row[2]): [int(i) for i in row[3].split()] for row in PRINTED if row[1] == "order"}
NUMBERS = {
    (row[0], int(row[1])): dict(zip(PRINTED[0][2:], map(float, row[2:]), strict=True))
    for row in PRINTED[1:]
    if row[1] != "order"
}


def text(words: str, sense: str = "bank.1", source: str = "") -> TextItem:
    start = words.lower().index("bank")
    surface = words[start : start + 4]
    return TextItem(text=words, span=(start, start + 4), surface=surface, sense_id=sense, source=source)


def item(query: TextItem, *candidates: TextItem, lemma: str = "bank", name: str = "1") -> RetrievalItem:
    right = tuple(i for i, one in enumerate(candidates) if one.sense_id == query.sense_id)
    return RetrievalItem(id=name, lemma=lemma, query=query, candidates=candidates, correct=right)


@pytest.mark.parametrize("name", [*LEXICAL, "role_classifier"])
def test_scores_are_those_of_scikit_learn(name: str) -> None:
    score = {**baselines(ITEMS), **shortcuts(ITEMS)}[name]
    for one in ITEMS:
        wanted = [NUMBERS[one.id, place][name] for place in range(len(one.candidates))]
        np.testing.assert_allclose(score(one), wanted, rtol=0, atol=1e-12)
        assert ranking(score(one)).tolist() == ORDERS[one.id, name]
    assert len(NUMBERS) == sum(len(one.candidates) for one in ITEMS) == 22


def test_the_fixture_holds_ties_that_file_order_breaks() -> None:
    tied = [
        name for name in LEXICAL for one in ITEMS
        if len(np.unique(baselines(ITEMS)[name](one))) < len(one.candidates)
    ]  # fmt: skip
    assert set(tied) == set(LEXICAL)


def test_equal_scores_keep_file_order_and_better_ones_come_first() -> None:
    assert ranking(np.array([0.0, 0.0, 0.0])).tolist() == [0, 1, 2]
    assert ranking(np.array([0.0, 1.0, 0.0, 1.0])).tolist() == [1, 3, 0, 2]
    assert ranking(np.zeros(500)).tolist() == list(range(500))


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from(["river", "money", "old", "loan", "weir", "reed"]), min_size=1, max_size=8),
    st.randoms(),
)
def test_the_order_of_a_text_s_words_changes_no_score(words: list[str], rng: random.Random) -> None:
    turned = list(words)
    rng.shuffle(turned)
    asked = text("the bank by the old weir")
    made = item(asked, text(" ".join([*words, "bank"])), text(" ".join(["Bank", *turned]), "bank.2"))
    for score in (word_jaccard, tfidf([made], "word"), tfidf([made], "char")):
        first, second = score(made)
        assert first == second
        assert ranking(score(made)).tolist() == [0, 1]


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["river", "money", "old", "loan", "weir", "reed"]), min_size=1, max_size=8))
def test_a_text_is_most_like_itself(words: list[str]) -> None:
    asked = text(" ".join([*words, "bank"]))
    made = item(asked, text(" ".join(["BANK", *words])), text("bank of sand", "bank.2"))
    for score in (word_jaccard, tfidf([made], "word"), tfidf([made], "char")):
        assert score(made)[0] == pytest.approx(1)
        assert 0 <= score(made)[1] <= 1


def test_the_lemma_is_masked_in_every_case_and_place_but_not_inside_words() -> None:
    one = TextItem(text="Banks, the bank; BANKS bankers", span=(0, 5), surface="Banks", sense_id="1")
    assert masked(one, "bank").split() == [",", "the", ";", "bankers"]
    same = item(text("bank"), text("a Bank"), text("my bank", "bank.2"))
    assert word_jaccard(same).tolist() == [0.0, 0.0]
    assert tfidf([same], "char")(same).tolist() == [0.0, 0.0]


def test_terms_that_were_never_counted_are_passed_over() -> None:
    fitted = fit_tfidf(["old river", "old money"], "word")
    assert dict(fitted.vector("new weir")) == {}
    assert fitted.vector("new river") == {"river": 1.0}


def test_lengths_and_sources_are_scored_as_their_names_say() -> None:
    made = item(
        text("a bank", source="news"),
        text("a bank by the river", source="web"),
        text("my bank", "bank.2", source="news"),
        text("bank", "bank.2", source="web"),
    )
    assert longest(made).tolist() == [19.0, 7.0, 4.0]
    assert nearest_length(made).tolist() == [-13.0, -1.0, -2.0]
    assert same_source(made).tolist() == [0.0, 1.0, 0.0]


def test_the_rate_of_a_source_is_counted_on_other_lemmas() -> None:
    right, wrong = text("a bank", source="web"), text("my bank", "bank.2", source="news")
    first = item(text("bank"), right, wrong)
    second = item(text("bank"), wrong, right, lemma="shore", name="2")
    assert source_rate([first, second])(first).tolist() == [1.0, 0.0]
    assert source_rate([first])(first).tolist() == [0.0, 0.0]


def test_the_lemma_alone_tells_other_lemmas_apart_and_nothing_more() -> None:
    def surface(word: str, sense: str) -> TextItem:
        return TextItem(text=f"the {word}", span=(4, 4 + len(word)), surface=word, sense_id=sense)

    made = item(
        surface("BANK", "bank.1"),
        *(surface(word, sense) for word, sense in (("crane", "c"), ("Banks", "bank.1"), ("bank", "bank.2"))),
    )
    assert lemma_only(made).tolist() == [0.0, 1.0, 1.0]
    go = item(surface("Went", "go.1"), surface("goes", "go.1"), surface("went", "go.2"), lemma="go")
    assert lemma_only(go).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("n", "m"), [(10, 1), (10, 3), (4, 3)])
def test_chance_is_the_share_of_random_orders_that_hit(n: int, m: int) -> None:
    made = item(text("bank"), *(text(f"bank {i}", f"bank.{1 + (i >= m)}") for i in range(n)))
    rng = np.random.default_rng(0)
    first = np.array([rng.permutation(n) for _ in range(20_000)])
    for k in (1, 3, n + 1):
        found = float((first[:, :k] < m).any(axis=1).mean())
        assert chance(made, k) == pytest.approx(found, abs=0.012)
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        chance(made, 0)


def test_all_eight_are_there_and_need_items() -> None:
    assert set(baselines(ITEMS)) == {"lemma_only", *QUERY_BLIND, *LEXICAL}
    with pytest.raises(ValueError, match="there are no items"):
        baselines([])


WORLD_ITEMS = retrieval_items(world(WorldSpec()), per_sense=2)


def first_right(score: Scorer, items: Sequence[RetrievalItem]) -> int:
    return sum(int(ranking(score(one))[0]) in one.correct for one in items)


def test_roles_and_fillers_say_nothing_in_the_world() -> None:
    for name, score in shortcuts(WORLD_ITEMS).items():
        assert binomtest(first_right(score, WORLD_ITEMS), len(WORLD_ITEMS), 0.1).pvalue > 1e-3, name


def worded(one: TextItem, word: str) -> TextItem:
    return replace(one, text=f"{one.text} {word}")


def test_correct_candidates_with_a_word_of_their_own_are_caught() -> None:
    rng = random.Random(0)
    marked = [
        replace(
            one,
            candidates=tuple(
                worded(c, "indeed") if i in one.correct and rng.random() < 0.5 else c
                for i, c in enumerate(one.candidates)
            ),
        )
        for one in WORLD_ITEMS
    ]
    assert first_right(role_classifier(marked), marked) > 0.4 * len(marked)


def test_fillers_that_follow_the_query_are_caught() -> None:
    items = [
        replace(
            one,
            query=worded(one.query, "indeed perhaps"),
            candidates=tuple(
                worded(c, "indeed perhaps" if i in one.correct else "though still")
                for i, c in enumerate(one.candidates)
            ),
        )
        for one in WORLD_ITEMS
    ]
    assert first_right(filler(items), items) > 0.4 * len(items)


def test_fillers_are_the_words_of_most_texts() -> None:
    made = item(text("the bank of sand"), text("the bank of mud"), text("a bank in the sun", "bank.2"))
    assert fillers([made], 2) == {"the", "of"}
    assert filler([made], 2)(made).tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="0 filler words"):
        fillers([made], 0)


def test_roles_of_one_lemma_are_told_by_no_other() -> None:
    made = item(text("bank"), text("a bank"), text("my bank", "bank.2"))
    with pytest.raises(ValueError, match=r"items are of lemmas \['bank'\]"):
        role_classifier([made])
    with pytest.raises(ValueError, match="of lemma 'bank' is not among those counted on"):
        role_classifier(WORLD_ITEMS[:60])(made)
