"""Reading numbers off generated answers: the harness' printed results, golds, and what files may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.answers import (
    RULES,
    Item,
    completion,
    extract,
    is_correct,
    normalised,
    number,
    prompt,
    read_items,
    until_stop,
)

PRINTED = [
    json.loads(line)
    for line in (Path(__file__).parent / "reference/lm_eval_answers.txt").read_text().splitlines()
]
ANSWERS = [row for row in PRINTED if "text" in row]
GOLDS = [row for row in PRINTED if "gold" in row]


def test_the_table_holds_thirty_answers_and_each_rule_is_right_and_wrong_in_it() -> None:
    assert len(ANSWERS) >= 30
    assert len(GOLDS) >= 10
    for name in ("strict-match", "flexible-extract"):
        assert 5 < sum(row[name]["correct"] for row in ANSWERS) < len(ANSWERS) - 5


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: repr(row["text"])[:30])
def test_strict_and_flexible_read_and_score_what_the_harness_does(row: dict[str, Any]) -> None:
    for rule, name in (("strict", "strict-match"), ("flexible", "flexible-extract")):
        assert rule in RULES
        found = extract(row["text"], rule)
        assert ("[invalid]" if found is None else found) == row[name]["found"]
        assert is_correct(row["text"], row["answer"], rule) is row[name]["correct"]


@pytest.mark.parametrize("row", GOLDS, ids=lambda row: repr(row["gold"])[:30])
def test_a_text_is_normalised_as_the_harness_does(row: dict[str, Any]) -> None:
    assert normalised(row["gold"]) == row["normalised"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 1,050.00", "1050"),
        ("#### $-7.50", "-7.5"),
        ("#### -$7", "-7"),
        ("#### \u221212", "-12"),
        ("#### 20 of 29", "20"),
        ("#### 21\n#### 20.", "20"),
        ("between 20-29", "29"),
        ("it fell by -5", "-5"),
        ("#### .5", "0.5"),
        ("#### -0.0", "0"),
        ("29-9=20\n20*2=40\n####", None),
        ("no number", None),
        ("$.,", None),
    ],
)
def test_numeric_reads_a_value(text: str, value: str | None) -> None:
    assert extract(text, "numeric") == value


def test_numeric_compares_values_where_the_others_compare_spellings() -> None:
    right = [is_correct("#### 20.00", "20", rule) for rule in RULES]
    assert right == [False, False, True]
    assert [is_correct("#### 1e1", "10", rule) for rule in RULES] == [False, False, False]
    with pytest.raises(ValueError, match="gold 'ten' is not a number"):
        is_correct("#### 10", "ten", "numeric")


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "{:,}"]), st.sampled_from(["", ".", " apples"]))
def test_every_rule_reads_back_a_whole_number_however_it_is_written(value: int, style: str, end: str) -> None:
    text = completion(f"some work\n#### {style.format(value)}{end}")
    for rule in RULES:
        assert is_correct(text, str(value), rule)
        assert not is_correct(text, str(value + 1), rule)


@given(st.text(alphabet="0123456789-$.,# \nab"))
def test_no_text_is_an_error_and_what_numeric_reads_is_a_number(text: str) -> None:
    read = {rule: extract(text, rule) for rule in RULES}
    assert read["numeric"] is None or number(read["numeric"]) is not None
    for rule in RULES:
        assert is_correct(text, "20", rule) in (True, False)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown extraction rule 'loose'; allowed are strict, flexible, numeric"
    ):
        extract("#### 1", "loose")  # type: ignore[arg-type]


def test_generation_is_cut_at_the_first_stop_of_the_harness() -> None:
    assert until_stop(" 5\n</s>x Question: y") == " 5\n"
    assert until_stop("no stop") == "no stop"


def test_an_item_knows_its_gold_and_one_without_is_refused() -> None:
    item = Item(item_id="a", question="How much?", answer="5*210=1,050\n#### $1,050.\n")
    assert item.gold == "1050"
    assert prompt(item.question) == "Question: How much?\nAnswer:"
    for answer in ("20", "####", "#### ", "#### twenty", "#### 1/2"):
        with pytest.raises(ValueError, match="is no gold; it must end with a line such as '#### 20'"):
            Item(item_id="a", question="How much?", answer=answer)
    with pytest.raises(ValueError, match="question is empty"):
        Item(item_id="a", question=" ", answer="#### 1")


GOOD = '{"question": "2 and 3?", "answer": "2+3=5\\n#### 5"}'


def test_items_are_read_with_and_without_ids(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(
        GOOD + "\n" + '{"id": 7, "question": "−3\u2028?", "answer": "#### -3"}' + "\n\n", encoding="utf-8"
    )
    assert [(item.item_id, item.gold) for item in read_items(path)] == [("test-1", "5"), ("7", "-3")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[1]", "is list; write one object a line"),
        ('{"question": "a?"}', r"has no text in 'answer'; its fields are question \(str\)"),
        ('{"question": "a?", "answer": 5}', r"answer \(int\)"),
        ("{}", "its fields are none"),
        ('{"question": "", "answer": "#### 5"}', "question is empty"),
        ('{"question": "a?", "answer": "5"}', "is no gold"),
        ('{"question": "a?", "answer": "#### five"}', "is no gold"),
        ('{"id": "one", "question": "a?", "answer": "#### 5"}', "id 'one' was used at .*bad.jsonl, line 1"),
        ('{"id": [1], "question": "a?", "answer": "#### 5"}', "it must be text or a whole number"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"id": "one", "question": "b?", "answer": "#### 1"}}\n{line}\n{GOOD}\n')
    with pytest.raises(ValueError, match=rf"(?s)bad\.jsonl, line 2.*{said}"):
        read_items(path)


def test_a_file_that_is_missing_empty_or_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(ValueError, match=r"x\.jsonl does not exist"):
        read_items(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"x\.jsonl has no items"):
        read_items(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8 at byte 0"):
        read_items(path)
