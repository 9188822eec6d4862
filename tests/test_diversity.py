"""Text metrics against lexicalrichness and R, on their null rules, and on properties."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats import diversity

REFERENCE = Path(__file__).parent / "reference"
TEXTS = (REFERENCE / "diversity_texts.txt").read_text().splitlines()
LETTERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=120)


def printed(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def number(name: str, text: str) -> float:
    value, reason = diversity.measure_text(text)[name]
    assert value is not None, reason
    return value


@pytest.mark.parametrize("row", printed("diversity_lexicalrichness.txt"), ids=lambda row: str(row["text"]))
def test_mtld_and_ttr_agree_with_lexicalrichness(row: dict[str, str]) -> None:
    text = TEXTS[int(row["text"])]
    assert number("mtld", text) == pytest.approx(float(row["mtld"]), rel=1e-12)
    assert number("type_token_ratio", text) == pytest.approx(float(row["ttr"]), rel=1e-15)


@pytest.mark.parametrize("row", printed("diversity_ngrams.txt"), ids=lambda row: str(row["text"]))
def test_entropies_and_n_grams_agree_with_r(row: dict[str, str]) -> None:
    text = TEXTS[int(row["text"])]
    for name in ("shannon_word", "shannon_char", "distinct_2"):
        assert number(name, text) == pytest.approx(float(row[name]), rel=1e-13)
    if row["repetition_ratio"] == "NA":
        assert diversity.measure_text(text)["repetition_ratio"][0] is None
    else:
        assert number("repetition_ratio", text) == pytest.approx(float(row["repetition_ratio"]), abs=1e-14)


def test_compression_and_similarity_agree_with_r() -> None:
    *rows, similarity = printed("diversity_whole_text.txt")
    for row in rows:
        expected = int(row["bytes"]) / int(row["compressed"])
        assert number("compression_ratio", TEXTS[int(row["text"])]) == pytest.approx(expected, rel=1e-15)
    assert diversity.pairwise_jaccard(TEXTS)[0] == pytest.approx(float(similarity["bytes"]), rel=1e-12)


def test_a_factor_closes_at_exactly_the_threshold() -> None:
    tokens = [f"w{i}" for i in range(18)] + ["w0"] * 7  # TTR reaches 18/25 = 0.72 at the last word
    assert diversity._factors(tokens, 0.72) == 1.0
    assert diversity._factors(tokens[:-1], 0.72) == pytest.approx((1 - 18 / 24) / 0.28)


def test_the_miller_madow_term_is_in_bits() -> None:
    tokens = ["a", "b", "c", "d"]
    assert diversity.shannon_word(tokens)[0] == pytest.approx(2 + 3 / (2 * 4 * math.log(2)), rel=1e-15)


@pytest.mark.parametrize(
    ("name", "short", "enough"), [("mtld", 9, 10), ("repetition_ratio", 49, 50), ("distinct_2", 1, 2)]
)
def test_a_metric_is_null_with_a_reason_just_under_its_minimum(name: str, short: int, enough: int) -> None:
    value, reason = diversity.measure_text("a " * short)[name]
    assert value is None
    assert reason is not None
    assert str(short) in reason
    assert diversity.measure_text("a " * enough)[name][0] is not None


def test_a_text_without_a_factor_has_no_mtld_but_all_else() -> None:
    measured = diversity.measure_text(" ".join(f"w{i}" for i in range(60)))
    value, reason = measured.pop("mtld")
    assert (value, reason) == (None, "no factor: all words are different")
    assert all(value is not None for value, _ in measured.values())


@pytest.mark.parametrize("text", ["", " \n\t", "<think>a b</think>", "<think>a b", "a </think> b", "<think>"])
def test_a_failed_text_has_a_reason_in_place_of_every_metric(text: str) -> None:
    measured = diversity.measure_text(text)
    assert tuple(measured) == diversity.METRICS + diversity.EXTRA
    assert {value for value, _ in measured.values()} == {None}
    assert {reason for _, reason in measured.values()} == {diversity.text_failure(text)}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a</think>b", "b"),
        ("a <think>x\ny</think> b <THINK>z</THINK>c", "a b c"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<thinking>kept</thinking>", "<thinking>kept</thinking>"),
    ],
)
def test_closed_think_blocks_are_removed(text: str, left: str) -> None:
    assert diversity.strip_think(text) == (left, None)


def test_thoughts_change_no_metric_of_the_answer() -> None:
    text = TEXTS[8]
    assert diversity.measure_text(f"<think>\nlet me see\n</think>\n\n{text}") == diversity.measure_text(text)


def test_the_ten_word_exclusion_counts_words_after_stripping() -> None:
    ten = "one two three four five six seven eight nine ten"
    assert diversity.exclusion(ten) is None
    assert diversity.exclusion(f"<think>{ten}</think> one two") == "2 words, under 10"
    assert diversity.exclusion("<think>x") == diversity.text_failure("<think>x")


@given(LETTERS)
def test_metrics_stay_in_their_ranges_and_are_never_nan(tokens: list[str]) -> None:
    measured = diversity.measure_text(" ".join(tokens))
    for name, (value, reason) in measured.items():
        assert (value is None) != (reason is None)
        assert value is None or (math.isfinite(value) and value >= 0)
        if name in diversity.RANGES and value is not None:
            assert value <= diversity.RANGES[name]
    plug_in, _, n_types = diversity.entropy_bits(tokens)
    assert plug_in <= math.log2(n_types) + 1e-12


@given(LETTERS)
def test_mtld_reads_the_same_backward(tokens: list[str]) -> None:
    value, backward = diversity.mtld(tokens)[0], diversity.mtld(tokens[::-1])[0]
    assert value == backward or value == pytest.approx(backward, rel=1e-12)
    assert value is None or value >= 2  # the shortest stretch that can close a factor is one word twice


@given(LETTERS, st.permutations("abcdefgh"))
def test_renaming_the_words_changes_no_count(tokens: list[str], names: list[str]) -> None:
    renamed = [names["abcdefgh".index(token)] for token in tokens]
    for metric in (diversity.mtld, diversity.distinct_2, diversity.shannon_word, diversity.repetition_ratio):
        before, after = metric(tokens)[0], metric(renamed)[0]
        assert before == after or before == pytest.approx(after, rel=1e-12)


@given(st.lists(LETTERS.map(" ".join), min_size=2, max_size=5))
def test_similarity_ignores_order_and_is_one_for_copies(texts: list[str]) -> None:
    value = diversity.pairwise_jaccard(texts)[0]
    assert value is not None
    assert 0 <= value <= 1
    assert diversity.pairwise_jaccard(texts[::-1])[0] == pytest.approx(value)
    assert diversity.pairwise_jaccard([texts[0]] * 3) == (1.0, None)


def test_similarity_of_a_single_text_has_a_reason() -> None:
    assert diversity.pairwise_jaccard(["a b", "<think>"]) == (None, "1 texts, no pair")


def test_a_threshold_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold 72"):
        diversity.mtld(["a"] * 20, threshold=72)
