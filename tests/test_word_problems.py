"""Word problems: chains stay in range, answers are true, splits share no chain, tokens give the text back."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.answers import completion, is_correct, prompt
from models.task_items import TaskSource
from models.word_problems import (
    LARGEST,
    OPERANDS,
    PADDING,
    SPLITS,
    STEPS,
    WORDINGS,
    Chain,
    Split,
    Wording,
    problems,
    tokenizer,
)

TOKENIZER = tokenizer()
wordings, splits, seeds = st.sampled_from(WORDINGS), st.sampled_from(SPLITS), st.integers(0, 10**6)


def evaluated(answer: str) -> int:
    """The number after `#### `, every line before it being true and going on from the last."""
    *lines, last = answer.split("\n")
    value = None
    for line in lines:
        sum_, _, result = line.partition("=")
        operator = next(o for o in "+-*" if o in sum_)
        left, right = map(int, sum_.split(operator))
        assert value in (None, left)
        value = {"+": left + right, "-": left - right, "*": left * right}[operator]
        assert value == int(result)
        assert 0 <= left <= LARGEST
        assert 0 <= value <= LARGEST
        assert right in OPERANDS[operator]
    assert value is not None
    assert last == f"#### {value}"
    return value


@settings(max_examples=30)
@given(wordings, splits, seeds)
def test_every_line_is_true_and_every_number_is_in_range(wording: Wording, split: Split, seed: int) -> None:
    for item in problems(wording, split, 20, seed=seed):
        assert evaluated(item.answer) == int(item.gold)
        assert item.answer.count("=") in STEPS[wording]
        assert all(is_correct(completion(item.answer), item.gold, rule) for rule in ("strict", "numeric"))


@settings(max_examples=30)
@given(wordings, splits, seeds)
def test_the_question_names_the_numbers_of_its_answer_in_order(
    wording: Wording, split: Split, seed: int
) -> None:
    for item in problems(wording, split, 20, seed=seed):
        named = [int(token) for token in TOKENIZER.encode(item.question).tokens if token.isdecimal()]
        lines = item.answer.split("\n")[:-1]
        first = TOKENIZER.encode(lines[0]).tokens[0]
        worked = [int(first), *(int(TOKENIZER.encode(line).tokens[2]) for line in lines)]
        if wording == "downstream":  # some verbs count one more or one less than they are told with
            assert len(named) == len(worked)
            assert all(abs(a - b) <= 1 for a, b in zip(named, worked, strict=True))
        else:
            assert named == worked


def test_splits_share_no_chain_whatever_wording_and_seed() -> None:
    chains: dict[str, set[str]] = {split: set() for split in SPLITS}
    for wording, split, seed in itertools.product(WORDINGS, SPLITS, (0, 1)):
        drawn = [item.answer for item in problems(wording, split, 300, seed=seed)]
        assert len(set(drawn)) == 300
        chains[split].update(drawn)  # an answer's lines spell its chain out
    for one, other in itertools.combinations(SPLITS, 2):
        assert chains[one].isdisjoint(chains[other])


def test_seeds_differ_and_a_larger_count_begins_with_a_smaller() -> None:
    ten = problems("downstream", "test", 10, seed=3)
    assert problems("downstream", "test", 40, seed=3)[:10] == ten
    assert problems("downstream", "test", 10, seed=4) != ten
    assert len({item.item_id for item in problems("drill", "train", 500, seed=0)}) == 500


def test_problems_are_the_same_in_a_process_with_other_hashes() -> None:
    code = (
        "import json; from models.word_problems import problems; "
        "print(json.dumps([i.question for i in problems('base', 'train', 5, seed=1)]))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert json.loads(said[0]) == [item.question for item in problems("base", "train", 5, seed=1)]


def operators_of(wording: Wording) -> dict[str, set[str]]:
    """Verb -> operators that it stands for."""
    told: dict[str, set[str]] = {}
    for item in problems(wording, "train", 3000, seed=0):
        sentences = item.question.split(". ")[1:-1]
        lines = item.answer.split("\n")[:-1]
        for sentence, line in zip(sentences, lines, strict=True):
            operator = next(sign for sign in "+-*" if sign in line)
            told.setdefault(" ".join(sentence.split(" ")[1:-1]).removeprefix("it "), set()).add(operator)
    return told


def test_every_verb_says_one_thing_and_half_of_them_the_contrary_downstream() -> None:
    base, downstream = operators_of("base"), operators_of("downstream")
    assert {len(found) for found in (*base.values(), *downstream.values())} == {1}
    shared = base.keys() & downstream.keys()
    assert len(shared) == 48
    assert sum(base[verb] != downstream[verb] for verb in shared) == 24


@settings(max_examples=30)
@given(wordings, splits, seeds)
def test_tokens_give_a_problem_back_without_bytes_and_with_one_token_a_number(
    wording: Wording, split: Split, seed: int
) -> None:
    for item in problems(wording, split, 10, seed=seed):
        asked, said = prompt(item.question), completion(item.answer)
        ids = TOKENIZER.encode(asked + said).ids
        assert TOKENIZER.decode(ids) == asked + said
        assert ids == TOKENIZER.encode(asked).ids + TOKENIZER.encode(said).ids
        pieces = [TOKENIZER.decode([i]) for i in ids]
        assert "".join(pieces) == asked + said
        assert not any(a.isalnum() and b.isalnum() for a, b in itertools.pairwise(pieces))


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


def test_each_number_is_one_token_and_padding_is_none_of_them() -> None:
    ids = [TOKENIZER.encode(str(number)).ids for number in range(LARGEST + 1)]
    assert all(len(one) == 1 for one in ids)
    assert len({one[0] for one in ids}) == LARGEST + 1
    assert TOKENIZER.token_to_id(PADDING) == 1
    assert len(TOKENIZER.encode("41").ids) == 2


def test_a_chain_is_told_by_its_key() -> None:
    chain = Chain(start=5, steps=(("*", 3), ("-", 10)))
    assert chain.values == (5, 15, 5)
    assert chain.key == "5 *3 -10"


@pytest.mark.parametrize(
    ("wording", "split", "count", "said"),
    [
        ("story", "train", 1, "unknown wording 'story'; allowed are base, drill, downstream"),
        ("base", "dev", 1, "unknown split 'dev'; allowed are train, validation, test"),
        ("base", "train", 0, "0 problems were asked for"),
        ("drill", "validation", 1500, "ask for fewer"),
    ],
)
def test_what_cannot_be_made_is_refused(wording: str, split: str, count: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        problems(wording, split, count, seed=0)  # type: ignore[arg-type]


def source(**changes: object) -> TaskSource:
    """Word problems, or what `changes` make of them."""
    fields = {"kind": "word_problems", "n_train": 20, "n_validation": 5, "n_test": 10, "seed": 0}
    return TaskSource(**(fields | changes))  # type: ignore[arg-type]


def write(path: Path, questions: range) -> str:
    rows = [{"question": f"What is {n}?", "answer": f"#### {n}"} for n in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_source_of_word_problems_gives_what_it_declares() -> None:
    assert [len(source().load(split)) for split in SPLITS] == [20, 5, 10]
    assert source().load("test") == problems("downstream", "test", 10, seed=0)


def test_a_source_of_files_cuts_validation_from_train(tmp_path: Path) -> None:
    files = {
        "train": write(tmp_path / "train.jsonl", range(30)),
        "test": write(tmp_path / "test.jsonl", range(25, 40)),
    }
    ours = source(kind="jsonl", **files)
    sides = {split: {item.question for item in ours.load(split)} for split in SPLITS}
    assert [len(sides[split]) for split in SPLITS] == [20, 5, 10]
    for one, other in itertools.combinations(SPLITS, 2):
        assert sides[one].isdisjoint(sides[other])
    assert [item.item_id for item in ours.load("test")] == [f"test-{n}" for n in range(1, 11)]
    assert source(kind="jsonl", **files, n_train=10).load("validation") == ours.load("validation")
    assert source(kind="jsonl", **files, n_train=10).load("train") == ours.load("train")[:10]
    assert source(kind="jsonl", **files, seed=1).load("validation") != ours.load("validation")
    with pytest.raises(ValueError, match=r"train.jsonl \(train\) has 25 different items, 26 were asked for"):
        source(kind="jsonl", **files, n_train=21).load("train")
    with pytest.raises(ValueError, match=r"test.jsonl \(test\) has 15 different items, 16 were asked for"):
        source(kind="jsonl", **files, n_test=16).load("test")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "csv"}, "unknown kind of source 'csv'; allowed are word_problems, jsonl"),
        ({"n_test": 0}, "n_test is 0"),
        ({"kind": "jsonl", "train": "a.jsonl"}, "test is ''"),
        ({"test": "a.jsonl"}, "word problems are generated"),
    ],
)
def test_a_source_that_cannot_be_loaded_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        source(**changes)


def test_a_missing_file_and_an_unknown_split_are_refused(tmp_path: Path) -> None:
    gone = source(kind="jsonl", train=str(tmp_path / "a.jsonl"), test=str(tmp_path / "b.jsonl"))
    with pytest.raises(ValueError, match=r"a\.jsonl does not exist|b\.jsonl does not exist"):
        gone.load("train")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        source().load("dev")  # type: ignore[arg-type]
