"""Killers are failures of the miner, told once, with labels that hold, at most two a lemma."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sense_items import RetrievalItem, TextItem
from models.sense_killers import REASONS, Killers, killers, refuse_conflicts
from models.sense_leakage import NEAR, jaccard, words
from models.sense_probes import retrieval_items
from models.sense_world import WorldSpec, world


def text(words: str, sense: str, lemma: str = "bank") -> TextItem:
    return TextItem(text=f"{lemma} {words}", span=(0, len(lemma)), surface=lemma, sense_id=f"{lemma}.{sense}")


def item(
    name: str, query: str = "", *, lemma: str = "bank", sense: str = "1", wrong: int = 4
) -> RetrievalItem:
    other = "2" if sense == "1" else "1"
    candidates = [text(f"{name} wrong w{i}", other, lemma) for i in range(wrong)]
    return RetrievalItem(
        id=name,
        lemma=lemma,
        query=text(query or f"{name} asked so", sense, lemma),
        candidates=(*candidates, text(f"{name} is right", sense, lemma)),
        correct=(wrong,),
    )


def mined(*items: RetrievalItem, margins: list[float] | None = None, most_a_lemma: int = 2) -> Killers:
    """All of them failed, the first the worst unless told."""
    below = margins or [-1.0 + 0.1 * i for i in range(len(items))]
    return killers(items, [4] * len(items), below, most_a_lemma=most_a_lemma)


def told(found: Killers) -> tuple[list[str], dict[str, int]]:
    return [one.id for one in found.items], {why: n for why, n in found.dropped.items() if n}


def test_a_rank_of_three_is_no_failure_and_of_four_is_one() -> None:
    found = killers([item("a"), item("b")], [3, 4], [-0.2, -0.1])
    assert told(found) == (["b"], {"not failed": 1})


def test_killers_are_of_tier_4_and_otherwise_as_they_were() -> None:
    one = replace(item("a"), tier=2)
    assert mined(one).items == (replace(one, tier=4),)


def test_at_most_two_of_a_lemma_are_kept_and_those_are_the_lowest_margins() -> None:
    items = [item(name) for name in "abcd"] + [item("e", lemma="bat")]
    found = mined(*items, margins=[-0.1, -0.4, -0.3, -0.2, -0.05])
    assert told(found) == (["b", "c", "e"], {"enough of the lemma": 2})
    assert told(mined(*items, most_a_lemma=1))[0] == ["a", "e"]


def test_equal_margins_go_by_id_whatever_the_order_of_the_file() -> None:
    items = [item(name) for name in "cab"]
    assert told(mined(*items, margins=[-0.1] * 3))[0] == ["a", "b"]
    assert told(mined(*items[::-1], margins=[-0.1] * 3))[0] == ["a", "b"]


def test_queries_that_are_the_same_or_nearly_are_one_within_a_lemma_only() -> None:
    base = "one two three four five six seven eight"
    items = [
        item("worst", base),
        item("same", base),
        item("near", f"{base} nine"),
        item("case", base.upper()),
        item("bat", base, lemma="bat"),
    ]
    found = mined(*items, most_a_lemma=5)
    assert told(found) == (["worst", "bat"], {"same query": 1, "nearly the same query": 2})


def test_a_jaccard_index_of_eight_tenths_is_near_and_less_is_not() -> None:
    at = mined(item("a", "one two three"), item("b", "one two three four"))  # bank too: 4 of 5 words
    assert told(at) == (["a"], {"nearly the same query": 1})
    below = mined(item("a", "one two"), item("b", "one two three"))
    assert told(below)[0] == ["a", "b"]


def test_a_label_conflict_leaves_out_every_item_that_has_the_text() -> None:
    """Also one that the miner passed, and one whose copy of the text is not the first."""
    clash = replace(item("b"), query=text("b asked so", "1"))
    other = item("c", "b asked so", sense="2")
    again = replace(item("d"), candidates=(*item("d").candidates, text("asked so b", "2")))
    passed = item("e", "a Asked so")
    doubted = item("a", sense="2")
    found = killers([clash, other, again, passed, doubted], [4, 4, 4, 1, 4], [-0.4, -0.3, -0.2, 0.1, -0.5])
    assert told(found) == ([], {"not failed": 1, "label conflict": 4})


def test_a_conflict_of_a_near_text_counts_and_of_another_surface_does_not() -> None:
    base = "one two three four five six seven eight"
    near = mined(item("a", base), item("b", f"{base} nine", sense="2"))
    assert told(near) == ([], {"label conflict": 2})
    moved = "bat bank one two"
    other = TextItem(text=moved, span=(4, 8), surface="bank", sense_id="bank.2")
    under = TextItem(text=moved, span=(0, 3), surface="bat", sense_id="bat.2")
    one, two = item("a"), item("b", lemma="bat")
    items = [
        replace(one, candidates=(*one.candidates, other)),
        replace(two, candidates=(*two.candidates, under)),
    ]
    assert told(mined(*items))[0] == ["a", "b"]


def test_a_set_with_a_label_conflict_is_refused_and_a_mined_one_never_is() -> None:
    clash = [item("a", "asked so by all"), item("b", "asked so by all", sense="2")]
    with pytest.raises(ValueError, match=r"1 texts of 2 items have two senses, the first a: .* and b: "):
        refuse_conflicts(clash)
    refuse_conflicts(mined(*clash, item("c")).items)


PLANS = st.lists(
    st.tuples(
        st.sampled_from(["bank", "bat"]),
        st.sampled_from(["1", "2"]),
        st.lists(st.sampled_from("pqrstu"), min_size=1, max_size=6).map(" ".join),
        st.integers(1, 5),
    ),
    max_size=12,
)


@settings(max_examples=150)
@given(PLANS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_what_is_kept_keeps_every_promise_and_what_is_not_is_counted(
    plans: list[tuple[str, str, str, int]], most: int, order: random.Random
) -> None:
    items = [
        item(f"i{place}", query, lemma=lemma, sense=sense)
        for place, (lemma, sense, query, _) in enumerate(plans)
    ]
    ranks = [rank for *_, rank in plans]
    margins = [0.5 if rank == 1 else -0.1 * rank - 0.01 * place for place, rank in enumerate(ranks)]
    found = killers(items, ranks, margins, most_a_lemma=most)
    kept = {one.id for one in found.items}
    assert tuple(found.dropped) == REASONS
    assert sum(found.dropped.values()) + len(kept) == len(items)
    assert found.dropped["not failed"] == sum(rank <= 3 for rank in ranks)
    refuse_conflicts(found.items)
    for lemma in ("bank", "bat"):
        queries = [words(one.query.text) for one in found.items if one.lemma == lemma]
        assert len(queries) <= most
        assert all(jaccard(a, b) < NEAR for i, a in enumerate(queries) for b in queries[:i])
    places = list(range(len(items)))
    order.shuffle(places)
    turned = killers(
        [items[i] for i in places],
        [ranks[i] for i in places],
        [margins[i] for i in places],
        most_a_lemma=most,
    )
    assert turned.items == found.items


def test_killers_of_the_world_are_hard_items_of_many_lemmas() -> None:
    items = retrieval_items(world(WorldSpec()), per_sense=1)
    rng = np.random.default_rng(0)
    ranks = [int(rng.integers(1, 9)) for _ in items]
    margins = [0.1 if rank == 1 else -0.05 * rank for rank in ranks]
    found = killers(items, ranks, margins)
    assert found.dropped["label conflict"] == 0
    assert sum(found.dropped.values()) + len(found.items) == len(items)
    lemmas = [one.lemma for one in found.items]
    assert max(lemmas.count(lemma) for lemma in set(lemmas)) == 2
    assert {one.tier for one in found.items} == {4}
    refuse_conflicts(found.items)


@pytest.mark.parametrize(
    ("ranks", "margins", "why"),
    [
        ([4], [-0.1], "1 ranks and 1 margins for 2 items"),
        ([4, 6], [-0.1, -0.1], "'b': rank 6; its best correct candidate has a rank from 1 to 5"),
        ([0, 4], [-0.1, -0.1], "rank 0"),
        ([4, 4], [-0.1, float("nan")], "'b': margin nan; it must be finite"),
        ([4, 4], [0.1, -0.1], "rank 4 and margin 0.1 contradict each other"),
        ([4, 1], [-0.1, -0.1], "rank 1 and margin -0.1 contradict each other"),
    ],
)
def test_answers_that_no_miner_gives_are_refused(ranks: list[int], margins: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        killers([item("a"), item("b")], ranks, margins)


def test_an_id_twice_and_no_killers_a_lemma_are_refused() -> None:
    with pytest.raises(ValueError, match="id 'a' is used 2 times"):
        mined(item("a"), item("a"))
    with pytest.raises(ValueError, match="0 killers a lemma"):
        mined(item("a"), most_a_lemma=0)


def test_mining_needs_no_torch() -> None:
    code = "import sys, models.sense_killers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
