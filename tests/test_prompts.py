"""The prompts are as many, as different and as stable as the study's design says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from models.prompts import CONSTRAINTS, CONVERSATIONS, INJECTION, LEVELS, SINGLE_TURN, SMOKE, select

COUNTS = {
    "creative": 4,
    "philosophical": 4,
    "technical": 4,
    "code": 4,
    "factual": 4,
    "summarization": 3,
    "structured": 3,
    "reasoning": 2,
    "naming": 2,
}


def test_there_are_thirty_prompts_in_nine_domains() -> None:
    assert len(SINGLE_TURN) == 30
    assert Counter(prompt.domain for prompt in SINGLE_TURN) == COUNTS


def test_each_domain_has_its_constraint_level() -> None:
    found = {(prompt.domain, prompt.constraint) for prompt in SINGLE_TURN}
    assert found == set(LEVELS.items())
    assert {level for _, level in found} == set(CONSTRAINTS)
    by_level = {level: {domain for domain, its in found if its == level} for level in CONSTRAINTS}
    assert by_level == {
        "open": {"creative", "philosophical", "naming"},
        "medium": {"technical", "summarization"},
        "high": {"code", "factual", "structured", "reasoning"},
    }


def test_ids_are_the_domain_and_a_number_and_no_text_comes_twice() -> None:
    ids = [prompt.prompt_id for prompt in SINGLE_TURN]
    assert ids == [f"{domain}-{i}" for domain, count in COUNTS.items() for i in range(1, count + 1)]
    assert len({prompt.text for prompt in SINGLE_TURN}) == 30
    assert all(prompt.text == prompt.text.strip() for prompt in SINGLE_TURN)


def test_a_summary_has_its_passage_with_it() -> None:
    for prompt in select(["summarization-1", "summarization-2", "summarization-3"]):
        _, _, passage = prompt.text.partition("\n\n")
        assert len(passage.split()) >= 60


def test_there_are_three_conversations_of_three_turns() -> None:
    assert [conversation.domain for conversation in CONVERSATIONS] == [
        "storytelling",
        "debate",
        "worldbuilding",
    ]
    assert all(len(set(conversation.turns)) == 3 for conversation in CONVERSATIONS)
    ids = {conversation.conversation_id for conversation in CONVERSATIONS}
    assert len(ids | {prompt.prompt_id for prompt in SINGLE_TURN}) == 33


def test_smoke_takes_twelve_prompts_from_every_domain() -> None:
    assert len(set(SMOKE)) == len(SMOKE) == 12
    assert {prompt.domain for prompt in select(SMOKE)} == set(COUNTS)


def test_injection_takes_fifteen_prompts_in_the_declared_shares() -> None:
    assert len(set(INJECTION)) == len(INJECTION) == 15
    assert Counter(prompt.domain for prompt in select(INJECTION)) == {
        **dict.fromkeys(("creative", "philosophical", "technical", "code", "factual", "summarization"), 2),
        **dict.fromkeys(("structured", "reasoning", "naming"), 1),
    }


def test_select_keeps_the_order_and_names_an_unknown_id() -> None:
    assert [prompt.prompt_id for prompt in select(["naming-2", "code-1"])] == ["naming-2", "code-1"]
    with pytest.raises(ValueError, match="no prompt 'naming-3'; allowed: creative-1"):
        select(["naming-3"])


@pytest.mark.parametrize("module", ["models.prompts", "models.backends", "models.replay_backend"])
def test_configuration_imports_no_network_library(module: str) -> None:
    heavy = {"torch", "transformers", "ollama", "httpx"}
    script = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
