"""Texts as words and numbers: the marked lemma, learned and hashed lookup, padding, what is refused."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sense_items import TextItem
from models.sense_tokens import (
    FIRST,
    MOST_WORDS,
    PAD,
    TARGET,
    UNKNOWN,
    Lookup,
    Marked,
    Vocabulary,
    Words,
    encode,
    marked,
    vocabulary,
    words_of,
)

RIVER = TextItem(text="The river bank, green.", span=(10, 14), surface="bank", sense_id="bank.1")
MONEY = TextItem(text="a bank of the town", span=(2, 6), surface="bank", sense_id="bank.2")
LEARNED = vocabulary([RIVER, MONEY], "learned")


def read(*texts: TextItem | Marked) -> list[Words]:
    return [words_of(one if isinstance(one, Marked) else marked(one)) for one in texts]


def test_words_are_runs_of_letters_or_single_signs_in_lower_case_and_the_span_marks_the_lemma() -> None:
    found = words_of(marked(RIVER))
    assert found.words == ("the", "river", "bank", ",", "green", ".")
    assert found.target == (False, False, True, False, False, False)
    assert words_of(Marked(text="Ünique co-op", span=(7, 12))).words == ("ünique", "co", "-", "op")
    assert words_of(Marked(text="Ünique co-op", span=(7, 12))).target == (False, True, True, True)


def test_a_word_that_the_span_only_touches_is_a_target_and_its_neighbours_are_not() -> None:
    assert words_of(Marked(text="riverbank is", span=(5, 9))).target == (True, False)
    assert words_of(Marked(text="ab cd ef", span=(3, 5))).target == (False, True, False)
    assert words_of(Marked(text="(bank)", span=(1, 5))).target == (False, True, False)


def test_a_gloss_has_no_target() -> None:
    assert words_of(Marked(text="bank of a river")).target == (False,) * 4


@pytest.mark.parametrize("place", [0, 3, 60, 118, 119])
def test_a_long_text_is_cut_to_the_words_around_its_target(place: int) -> None:
    words = [f"w{i}" for i in range(120)]
    start = sum(len(word) + 1 for word in words[:place])
    found = words_of(Marked(text=" ".join(words), span=(start, start + len(words[place]))))
    assert len(found.words) == MOST_WORDS
    assert [word for word, hit in zip(found.words, found.target, strict=True) if hit] == [words[place]]
    first = words.index(found.words[0])
    assert found.words == tuple(words[first : first + MOST_WORDS])
    assert first == min(max(0, place - MOST_WORDS // 2), 120 - MOST_WORDS)


def test_a_long_text_without_a_target_keeps_its_beginning() -> None:
    text = " ".join(f"w{i}" for i in range(120))
    assert words_of(Marked(text=text)).words == tuple(f"w{i}" for i in range(MOST_WORDS))


def test_learned_words_are_numbered_by_first_occurrence_and_the_lemma_has_no_number() -> None:
    assert list(LEARNED.places) == ["the", "river", ",", "green", ".", "a", "of", "town"]
    assert list(LEARNED.places.values()) == list(range(FIRST, FIRST + 8))
    assert LEARNED.size == FIRST + 8
    assert LEARNED.numbers("bank") == LEARNED.numbers("unheard") == (UNKNOWN,)


def test_the_rows_hold_padding_target_and_unknown_words_and_the_known_share_leaves_targets_out() -> None:
    found = encode(read(RIVER, MONEY, Marked(text="a new bank", span=(6, 10))), LEARNED)
    assert found.rows.shape == (3, 6, 1)
    assert found.rows[0, :, 0].tolist() == [3, 4, TARGET, 5, 6, 7]
    assert found.rows[1, :, 0].tolist() == [8, TARGET, 9, 3, 10, PAD]
    assert found.rows[2, :, 0].tolist() == [8, UNKNOWN, TARGET, PAD, PAD, PAD]
    assert np.array_equal(found.target, found.rows[..., 0] == TARGET)
    assert found.known == pytest.approx(10 / 11)


@pytest.mark.parametrize("lookup", ["learned", "hashed"])
def test_lemmas_look_alike_whatever_they_are(lookup: Lookup) -> None:
    known = vocabulary([RIVER, MONEY], lookup, buckets=64)
    one, other = Marked(text="the bank of", span=(4, 8)), Marked(text="the quorum of", span=(4, 10))
    found = encode(read(one, other), known).rows
    assert np.array_equal(found[0], found[1])
    plain = encode(read(Marked(text="the bank of"), Marked(text="the quorum of")), known).rows
    assert np.array_equal(plain[0], plain[1]) == (lookup == "learned")


@settings(max_examples=60)
@given(word=st.text("abcdeé1", min_size=1, max_size=12), buckets=st.integers(2, 500))
def test_hashed_numbers_are_those_of_a_plain_loop_over_n_grams(word: str, buckets: int) -> None:
    known = vocabulary([], "hashed", buckets=buckets)
    whole = "<" + word + ">"
    grams = [whole]
    for size in (3, 4, 5):
        for start in range(len(whole)):
            if start + size <= len(whole):
                grams.append(whole[start : start + size])
    wanted = sorted({3 + zlib.crc32(gram.encode("utf-8")) % buckets for gram in grams})
    assert list(known.numbers(word)) == wanted
    assert wanted[0] >= FIRST
    assert known.size == FIRST + buckets > wanted[-1]


def test_hashed_words_that_are_spelled_alike_share_buckets_and_words_not_read_are_counted() -> None:
    known = vocabulary([], "hashed", buckets=100_000)
    bank, banks, tree = (set(known.numbers(word)) for word in ("bankers", "bankers'", "willows"))
    assert len(bank & banks) > len(bank) / 2
    assert not bank & tree
    assert encode(read(Marked(text="words never seen")), known).known == 0.0


def test_a_text_of_the_lemma_alone_has_no_unknown_words() -> None:
    assert encode(read(Marked(text="bank", span=(0, 4))), LEARNED).known == 1.0


@pytest.mark.parametrize("texts", [[], [Words(words=(), target=())], [*read(RIVER), *read(Marked(text=" "))]])
def test_texts_without_words_are_refused(texts: list[Words]) -> None:
    with pytest.raises(ValueError, match="give at least 1 word each"):
        encode(texts, LEARNED)


def test_lookups_that_cannot_be_are_refused() -> None:
    other: str = "counted"
    with pytest.raises(ValueError, match="unknown lookup 'counted'; allowed are learned, hashed"):
        vocabulary([RIVER], other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 buckets; give at least 2"):
        vocabulary([RIVER], "hashed", buckets=1)


def test_an_empty_vocabulary_knows_no_word() -> None:
    known = vocabulary([], "learned")
    assert known == Vocabulary(lookup="learned", size=FIRST, places={})
    assert encode(read(Marked(text="any words")), known).known == 0.0


def test_recipe_tokens_and_steps_need_no_torch() -> None:
    names = ("models.sense_tokens", "models.sense_recipe", "models.sense_steps")
    code = f"import sys, {', '.join(names)}; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
