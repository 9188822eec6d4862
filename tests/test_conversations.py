"""Conversations: seeds and ids of turns, what closes one, and what the analysis takes for a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backends import Sampling
from models.prompts import CONVERSATIONS, select
from stats.conversations import as_unit
from stats.diversity import METRICS, describe, measure_text
from stats.seed_effect import Design
from stats.seed_study import Question, Text, analyse_look
from stats.thinking import measure_with_thinking
from tasks import conversations
from tasks.measuring import measured
from tasks.seed_cells import Arm, Sample, SeedDesign

WORDS = "the clock said that the river was late and the baker knew why it was so late today"
ARMS = (
    Arm(name="PRNG", role="treatment", kind="prng", streams=(42, 123), temperature=0.7),
    Arm(name="TRNG", role="treatment", kind="trng", streams=(42,), temperature=0.7),
    Arm(name="TRNG_AA", role="a_a", kind="trng", streams=(42,), temperature=0.7, base="TRNG"),
)
WITHOUT = SeedDesign(
    study="study",
    model="m",
    digest="d",
    backend="local",
    code="c",
    prompts=select(["creative-1", "code-1"]),
    arms=ARMS,
    sampling=Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=20),
    probe_every=4,
)
WITH = replace(WITHOUT, conversations=CONVERSATIONS)


def answers(turns: Sequence[Sample], text: str = WORDS) -> dict[str, dict[str, Any]]:
    """Outputs with a text each."""
    return {turn.sample_id: {"text": f"{text} {turn.k} {turn.turn}", "reason": None} for turn in turns}


def stages(design: SeedDesign, home: Path, start: int, stop: int) -> list[list[Sample]]:
    """First, second and third turns, every one answered."""
    draws = conversations.conversation_draws(design, home, stop)
    found = [conversations.first_turns(design, draws, start, stop)]
    while following := conversations.next_turns(design, draws, found[-1], answers(found[-1])):
        found.append(following)
    return found


def test_single_turn_texts_are_the_same_with_conversations_and_without(tmp_path: Path) -> None:
    blocks = [design.block(design.draws(tmp_path, 3), 0, 3) for design in (WITH, WITHOUT)]
    assert [sample.sample_id for sample in blocks[0]] == [sample.sample_id for sample in blocks[1]]
    assert [sample.draw for sample in blocks[0]] == [sample.draw for sample in blocks[1]]


def test_every_turn_has_a_seed_of_its_own_that_no_single_turn_text_has(tmp_path: Path) -> None:
    turns = [turn for stage in stages(WITH, tmp_path, 0, 4) for turn in stage if turn.probe == 0]
    assert len(turns) == 3 * 3 * 3 * 4  # replicates x conversations x turns x samples
    for arm, stream in (("PRNG", 42), ("PRNG", 123), ("TRNG", 42)):
        mine = [t for t in turns if (t.cell.arm.name, t.cell.stream) == (arm, stream)]
        assert sorted(t.draw.index for t in mine) == list(range(36))
        assert all(t.draw.purpose == f"{t.cell.prompt.prompt_id}/{t.k}/{t.turn}" for t in mine)
    single = {draw.seed64 for draws in WITH.draws(tmp_path, 50).values() for draw in draws}
    assert not single & {turn.draw.seed64 for turn in turns}


def test_only_treatments_hold_conversations(tmp_path: Path) -> None:
    assert {turn.cell.arm.name for turn in stages(WITH, tmp_path, 0, 1)[0]} == {"PRNG", "TRNG"}


def test_a_later_look_keeps_the_turns_and_adds_its_own(tmp_path: Path) -> None:
    first, again = stages(WITH, tmp_path, 0, 2), stages(WITH, tmp_path, 0, 2)
    more = stages(WITH, tmp_path, 2, 5)
    assert first == again
    ids = [turn.sample_id for stage in (*first, *more) for turn in stage]
    assert len(set(ids)) == len(ids)
    places = [turn.order_index for stage in first for turn in stage]
    assert places == sorted(places)
    singles = [s for look in ((0, 2), (2, 5)) for s in WITH.block(WITH.draws(tmp_path, 5), *look)]
    every = [s.order_index for s in singles] + [t.order_index for stage in (*first, *more) for t in stage]
    assert len(set(every)) == len(every)


def test_a_turn_is_asked_with_all_that_was_said_before_it(tmp_path: Path) -> None:
    [_, _, third] = stages(WITH, tmp_path, 0, 1)
    turn = next(turn for turn in third if turn.cell.prompt.prompt_id == "debate-1")
    said = [(message.role, message.content) for message in turn.history]
    assert said == [
        ("user", CONVERSATIONS[1].turns[0]),
        ("assistant", f"{WORDS} 0 1"),
        ("user", CONVERSATIONS[1].turns[1]),
        ("assistant", f"{WORDS} 0 2"),
    ]
    assert turn.says == CONVERSATIONS[1].turns[2]


@settings(max_examples=30)
@given(place=st.integers(0, len(WORDS)), letter=st.sampled_from("xX ."))
def test_one_other_letter_in_an_earlier_reply_makes_other_later_turns(
    tmp_path_factory: pytest.TempPathFactory, place: int, letter: str
) -> None:
    home = tmp_path_factory.mktemp("home")
    draws = conversations.conversation_draws(WITH, home, 1)
    before = conversations.first_turns(WITH, draws, 0, 1)
    edited = answers(before, WORDS[:place] + letter + WORDS[place:])
    one = conversations.next_turns(WITH, draws, before, answers(before))
    other = conversations.next_turns(WITH, draws, before, edited)
    assert not {turn.sample_id for turn in one} & {turn.sample_id for turn in other}
    assert [turn.draw for turn in one] == [turn.draw for turn in other]


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        (None, "GenerationTimeout: none in 180 s", "turn 1 failed (GenerationTimeout: none in 180 s)"),
        ("<think>cut off", None, "turn 1 failed (unclosed <think>"),
        ("<think>all of it</think> ", None, "turn 1 failed (no words left after stripping)"),
    ],
)
def test_a_failed_turn_closes_its_conversation_and_no_other(
    tmp_path: Path, text: str | None, reason: str | None, said: str
) -> None:
    draws = conversations.conversation_draws(WITH, tmp_path, 1)
    first = conversations.first_turns(WITH, draws, 0, 1)
    outputs = answers(first)
    outputs[first[0].sample_id] = {"text": text, "reason": reason}
    second = conversations.next_turns(WITH, draws, first, outputs)
    assert [turn.closed is not None for turn in second] == [True] + [False] * (len(first) - 1)
    third = conversations.next_turns(
        WITH, draws, second, answers(second[1:]) | conversations.closed_outputs(second)
    )
    rows = conversations.closed_outputs([*second, *third])
    assert len(rows) == 2
    assert all(said in row["reason"] and row["text"] is None for row in rows.values())


def unit_of(values: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    turns = []
    for row in values:
        metrics = {name: [v, None if v is not None else "none"] for name, v in zip(METRICS, row, strict=True)}
        turns.append({"failure": None, "excluded": None, "words": 20, "sha256": "a", "metrics": metrics})
    return as_unit(turns)


@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=len(METRICS), max_size=len(METRICS)),
        min_size=1,
        max_size=4,
    )
)
def test_a_conversation_has_the_mean_of_its_turns_or_the_reason_of_one(
    rows: list[list[float | None]],
) -> None:
    unit = unit_of(rows)
    assert unit["words"] == 20 * len(rows)
    assert unit_of(rows[::-1])["metrics"].keys() == unit["metrics"].keys()
    for name, column in zip(METRICS, zip(*rows, strict=True), strict=True):
        value, reason = unit["metrics"][name]
        if None in column:
            assert value is None
            assert reason == f"turn {column.index(None) + 1}: none"
        else:
            assert value == pytest.approx(np.mean(np.array(column, dtype=float)), rel=1e-12, abs=1e-9)
            assert unit_of(rows[::-1])["metrics"][name] == [pytest.approx(value), None]


def test_a_turn_under_ten_words_excludes_its_conversation_and_a_failed_one_fails_it() -> None:
    good, short = describe(WORDS), describe("three words only")
    assert as_unit([good, short, good])["excluded"] == "turn 2: 3 words, under 10"
    failed = as_unit([good, describe(None, "EmptyReply: none"), describe(None, "ConversationClosed: x")])
    assert failed["failure"] == failed["excluded"] == "turn 2: EmptyReply: none"
    with pytest.raises(ValueError, match="without turns"):
        as_unit([])


def test_reasoning_is_measured_beside_the_answer_and_only_where_there_is_some() -> None:
    reasoned = f"<think>{WORDS}</think>\n\n{WORDS}"
    found = measured({"text": reasoned, "reason": None})
    assert found["metrics"] == describe(WORDS)["metrics"]
    whole = measure_text(f"{WORDS} {WORDS}")
    for name in set(METRICS) - {"shannon_char"}:  # which counts the white space between them
        assert found["with_thinking"][name] == list(whole[name])
    assert "with_thinking" not in measured({"text": WORDS, "reason": None})
    assert "with_thinking" not in measured({"text": None, "reason": "EmptyReply: none"})
    assert measure_with_thinking("<THINK>a") is not None
    unit = as_unit([found, measured({"text": WORDS, "reason": None})])
    length = measured({"text": WORDS, "reason": None})["words"]
    assert unit["with_thinking"]["length_words"] == [1.5 * length, None]
    assert unit["metrics"]["length_words"] == [length, None]


def units(prompts: Sequence[str], shift: float) -> list[Text]:
    """Ten conversations a prompt and source, with a shift of one source in SD."""
    rng = np.random.default_rng(5)
    return [
        Text(
            arm=arm,
            stream=42,
            prompt=prompt,
            constraint="open",
            k=k,
            probe=0,
            seed32=k,
            failure=None,
            excluded="turn 1: 3 words, under 10" if k == 9 else None,
            words=60,
            sha256=f"{arm}{prompt}{k}",
            metrics={name: (float(rng.normal() + shift * (arm == "A")), None) for name in METRICS},
        )
        for arm in ("A", "B")
        for prompt in prompts
        for k in range(10)
    ]


def ask(talks: Sequence[Text]) -> list[Any]:
    question = Question(
        treatments=("A", "B"),
        controls={},
        control_alpha={},
        kinds={"A": ("prng", None), "B": ("trng", None)},
        design=Design(
            primary=("mtld",), secondary=("length_words",), looks=(10,), look=10, sources=("A", "B")
        ),
        required_pairs=1,
        permutations=100,
        seed=1,
    )
    seeds = {name: np.random.default_rng(i).integers(0, 2**32, size=200) for i, name in enumerate("AB")}
    singles = units(("p", "q", "r", "s"), 0.0)
    return analyse_look(singles, seeds, question, conversations=talks)


def test_conversations_are_a_family_of_their_own_that_decides_nothing() -> None:
    with_talks, without = ask(units(("x", "y", "z"), 6.0)), ask([])
    mine = [row for row in with_talks if row.family.startswith("multi_turn")]
    rest = [row for row in with_talks if row not in mine and row.family != "turns"]
    assert rest == [row for row in without if row.family != "turns"]
    assert not {row.role for row in mine} & {"decides", "verdict"}
    [verdict] = [row for row in mine if row.hypothesis == "verdict"]
    assert (verdict.verdict, verdict.n) == ("DETECTED", 54)  # 2 sources x 3 conversations x 9 not excluded


def test_one_conversation_is_a_row_that_says_why_there_is_no_test() -> None:
    [row] = [row for row in ask(units(("x",), 6.0)) if row.family == "multi_turn"]
    assert row.reason == "one conversation; a mean over conversations needs two"
    assert row.n == 18


def test_missing_conversations_are_counted_by_cause_whatever_turn_it_was() -> None:
    talks = units(("x", "y"), 0.0)
    lost = [
        replace(
            talk, failure=f"turn {1 + talk.k % 2}: GenerationTimeout: none in 180 s", excluded="turn 1: x"
        )
        if talk.arm == "A" and talk.k < 6
        else talk
        for talk in talks
    ]
    rows = {row.metric: row for row in ask(lost) if row.family == "multi_turn_missingness"}
    assert set(rows) == {"GenerationTimeout", "under 10 words"}
    assert rows["GenerationTimeout"].p is not None
    assert rows["GenerationTimeout"].p < 0.001


def test_reasoning_is_analysed_where_there_is_some_and_otherwise_a_row_says_so() -> None:
    talks = units(("x", "y"), 0.0)
    [row] = [row for row in ask(talks) if row.family == "cot_sensitivity"]
    assert row.reason == "no text holds reasoning"


def test_no_secondary_question_decides_anything() -> None:
    deciding = {row.family for row in ask(units(("x", "y"), 0.0)) if row.role in ("decides", "verdict")}
    assert deciding == {"integrity", "seed_sources", "seed_effect"}
