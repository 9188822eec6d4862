"""Shared texts are found all and only, as by comparing every pair; labels that conflict; hashes of files."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sense_leakage import (
    PlacedText,
    jaccard,
    label_conflicts,
    manifest,
    manifest_text,
    refuse_shared,
    shared_texts,
    words,
)


def one(
    text: str, where: str = "", *, sense: str = "bank.1", surface: str = "bank", lemma: str = ""
) -> PlacedText:
    return PlacedText(
        where=where or text, lemma=lemma or where or text, surface=surface, sense_id=sense, text=text
    )


SENTENCES = st.lists(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8).map(" ".join), max_size=12, unique=True
)


@settings(max_examples=200)
@given(SENTENCES, SENTENCES, st.sampled_from([0.5, 0.8, 1.0]))
def test_all_pairs_are_found_that_comparing_every_pair_finds(
    first: list[str], second: list[str], threshold: float
) -> None:
    splits = {"train": [one(text) for text in first], "test": [one(text) for text in second]}
    found = {
        (words(pair.first.text), words(pair.second.text))
        for pair in shared_texts(splits, threshold=threshold)
    }
    wanted = {
        (words(a), words(b))
        for a, b in itertools.product(first, second)
        if len(words(a) & words(b)) >= threshold * len(words(a) | words(b))
    }
    assert found == wanted


def test_the_limit_itself_counts_as_shared() -> None:
    near = {"train": [one("a b c d")], "test": [one("a b c d e")]}
    assert [pair.jaccard for pair in shared_texts(near)] == [0.8]
    assert shared_texts({"train": [one("a b c d")], "test": [one("a b c e")]}) == ()


def test_case_and_punctuation_hide_no_shared_text_and_one_split_may_repeat_its_own() -> None:
    [pair] = shared_texts({"train": [one("The bank, again!")], "dev": [one("again the BANK")]})
    assert pair.jaccard == 1
    assert "Jaccard 1.00" in pair.said
    assert shared_texts({"train": [one("the bank", "1"), one("the bank", "2")], "dev": []}) == ()
    [pair] = shared_texts({"train": [one("...", "1")], "dev": [one("...", "2")]})
    assert "(the same text)" in pair.said


def test_a_large_split_is_compared_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(3000)]
    texts = [one(" ".join(rng.choices(vocabulary, k=15)), str(i)) for i in range(4000)]
    copied = one(texts[7].text + " and", "copy")

    class Counted(frozenset[str]):
        met = 0

        def __and__(self, other: object) -> frozenset[str]:
            type(self).met += 1
            return frozenset.__and__(self, other)  # type: ignore[operator]

    monkeypatch.setattr("models.sense_leakage.words", lambda text: Counted(words(text)))
    [pair] = shared_texts({"train": texts[:3000], "test": [*texts[3000:], copied]})
    assert (pair.first.where, pair.second.where) == ("7", "copy")
    assert 0 < Counted.met < 0.05 * 3000 * 1001


def test_a_text_of_two_senses_is_a_conflict_only_under_one_surface() -> None:
    first = one("the bank by the old spring", "1")
    assert label_conflicts([first, one("The bank by the old spring", "2")]) == ()
    [pair] = label_conflicts([first, one("The bank by the old spring", "2", sense="bank.2", surface="Bank")])
    assert (pair.first.where, pair.second.where) == ("1", "2")
    assert label_conflicts([first, one(first.text, "3", sense="spring.1", surface="spring")]) == ()


def test_a_shared_lemma_or_text_is_refused_with_both_places() -> None:
    train = [one("a bank by the river", "train.jsonl, line 3", lemma="bank")]
    with pytest.raises(
        ValueError, match=r"^test.jsonl, line 9: lemma 'bank' of split 'test' is in split 'train'"
    ):
        refuse_shared({"train": train, "test": [one("else", "test.jsonl, line 9", lemma="bank")]})
    with pytest.raises(
        ValueError, match=r"1 pairs .* the first train.jsonl, line 3: .* and test.jsonl, line 8"
    ):
        refuse_shared(
            {"train": train, "test": [one("the river by a bank", "test.jsonl, line 8", lemma="shore")]}
        )
    refuse_shared({"train": train, "test": [one("something else", "test.jsonl, line 8", lemma="shore")]})


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="it must be above 0 and at most 1"):
        shared_texts({"train": [one("a")]}, threshold=threshold)


def test_two_empty_sets_share_nothing() -> None:
    assert jaccard(frozenset(), frozenset()) == 0


def test_a_manifest_has_the_hash_of_every_file_and_changes_with_a_byte(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b"one\n")
    (tmp_path / "a.jsonl").write_bytes(b"two\n")
    paths = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    told = json.loads(manifest_text(manifest(paths, root=tmp_path)))
    assert [(row["path"], row["size_bytes"]) for row in told] == [("a.jsonl", 4), ("b.jsonl", 4)]
    assert told[1]["sha256"] == hashlib.sha256(b"one\n").hexdigest()
    before = manifest(paths)
    (tmp_path / "b.jsonl").write_bytes(b"One\n")
    assert manifest(paths)[0] == before[0]
    assert manifest(paths)[1] != before[1]
    with pytest.raises(ValueError, match=r"c.jsonl is no file"):
        manifest([tmp_path / "c.jsonl"])
