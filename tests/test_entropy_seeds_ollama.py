"""The laptop profile against a local server that speaks Ollama's protocol, faults included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.entropy_seeds import LAPTOP, STUDY, EntropySeeds, entropy_seeds
from lab.store import Store
from models.backends import ModelMissing, ServerUnreachable
from models.ollama_backend import OllamaBackend
from tasks.generation import generate
from tests.ollama_server import Fault, OllamaServer

pytestmark = pytest.mark.usefixtures("prefect_server", "repeatable_sources")


def small(server: OllamaServer | str, **changes: object) -> EntropySeeds:
    """The laptop profile on 12 prompts and one stream, without conversations."""
    host = server if isinstance(server, str) else server.url
    fewer = {"prompts": "smoke", "looks": (2, 4), "conversations": 0}
    return replace(LAPTOP, host=host, single_stream=True, required_pairs=5, **(fewer | changes))


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, without 17 s between those of a task and 5 s between those of a request."""
    assert isinstance(generate.retry_delay_seconds, list)
    assert len(generate.retry_delay_seconds) == generate.retries
    monkeypatch.setattr(generate, "retry_delay_seconds", [0.05] * generate.retries)
    defaults = OllamaBackend.__init__.__kwdefaults__
    assert len(defaults["retry_delays_seconds"]) == 2  # three attempts each
    monkeypatch.setitem(defaults, "retry_delays_seconds", (0.05, 0.05))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path))
    return Store(tmp_path)


@pytest.mark.long
def test_the_laptop_profile_reaches_its_verdicts(store: Store) -> None:
    with OllamaServer() as server:
        result = entropy_seeds(small(server))
    verdicts = {row["gate"]: row["verdict"] for row in result["decisions"]}
    assert verdicts["positive_control"] == "DETECTED"
    assert "seed_effect" in verdicts
    sent = [body for path, body in server.requests if path == "/api/generate"]
    assert {body["options"]["temperature"] for body in sent} == {0.7, 1.3}
    assert all(body["think"] is False for body in sent)
    seeds = store.read("SELECT DISTINCT seed32 FROM generation")["seed32"].to_list()
    assert {body["options"]["seed"] for body in sent} == set(seeds)
    served = store.read("SELECT DISTINCT server_version, model_digest FROM generation").rows()
    assert served == [("0.40.12", server.models["qwen3:0.6b"].digest)]


def test_each_fault_is_a_row_with_its_name_and_the_run_goes_on(store: Store) -> None:
    faults = [
        *[Fault(kind="status")] * 3,  # three attempts each, where another attempt can help
        Fault(kind="hang"),
        *[Fault(kind="truncate")] * 3,
        Fault(kind="empty"),
        *[Fault(kind="malformed")] * 3,
    ]
    with OllamaServer(faults=lambda number: faults[number] if number < len(faults) else None) as server:
        entropy_seeds(small(server, timeout_seconds=2.0))
    names = "SELECT DISTINCT split_part(reason, ':', 1) AS name FROM generation WHERE name <> '' ORDER BY 1"
    assert store.read(names)["name"].to_list() == [
        "EmptyReply",
        "GenerationTimeout",
        "MalformedReply",
        "ServerError",
        "TruncatedReply",
    ]


@pytest.mark.slow
def test_what_may_succeed_later_is_asked_again_and_what_cannot_is_not(store: Store) -> None:
    faults = [*[Fault(kind="status")] * 3, Fault(kind="empty")]
    with OllamaServer(faults=lambda number: faults[number] if number < len(faults) else None) as server:
        entropy_seeds(small(server))
        asked = len(server.requests)
        entropy_seeds(small(server))
        again = [path for path, _ in server.requests[asked:] if path == "/api/generate"]
    assert len(again) == 1
    left = store.read("SELECT split_part(reason, ':', 1) FROM generation WHERE reason IS NOT NULL")
    assert left.rows() == [("EmptyReply",)]


def test_an_absent_server_is_named_and_recorded_with_its_reason(store: Store) -> None:
    with pytest.raises(ServerUnreachable, match="ollama serve"):
        entropy_seeds(small("http://127.0.0.1:9"))
    [(experiment, reason)] = store.read("SELECT experiment, reason FROM step").rows()
    assert experiment == "identify"
    assert reason.startswith("ServerUnreachable: ")
    assert store.read("SELECT state, split_part(note, ':', 1) FROM run").rows() == [
        ("failed", "ServerUnreachable")
    ]


def test_a_missing_model_is_named_with_what_to_pull(store: Store) -> None:
    with OllamaServer() as server, pytest.raises(ModelMissing, match="ollama pull nonesuch:1b"):
        entropy_seeds(small(server, model="nonesuch:1b"))
    assert "ModelMissing" in store.read("SELECT reason FROM step").item()


@pytest.mark.long
def test_a_server_that_goes_away_leaves_rows_with_a_reason_and_a_run_to_go_on_with(store: Store) -> None:
    server = OllamaServer()
    server.faults = lambda number: server.refuse_from_now_on() if number == 20 else None
    with server, pytest.raises(ServerUnreachable):
        entropy_seeds(small(server))
    gone = "SELECT count(*) FROM generation WHERE starts_with(reason, 'ServerUnreachable: ')"
    assert store.read(gone).item() >= 8
    assert store.read("SELECT state FROM run").item() == "failed"
    with OllamaServer() as again:
        entropy_seeds(small(again))
    assert store.read(gone).item() == 0
    assert len(again.generations()) == store.read("SELECT count(*) FROM generation").item() - 20


@pytest.mark.slow
def test_conversations_go_through_the_chat_interface_stage_by_stage(store: Store) -> None:
    with OllamaServer() as server:
        settings = small(server, conversations=2, looks=(2,))
        entropy_seeds(settings)
        asked = len(server.generations())
        entropy_seeds(settings)
        assert len(server.generations()) == asked
    chats = [body for path, body in server.requests if path == "/api/chat"]
    lengths = [len(body["messages"]) for body in chats]
    first = lengths.count(1)
    assert lengths == [1] * first + [3] * first + [5] * first  # no second turn before the last first one
    rows = store.read(
        "SELECT turn, count(*) FROM generation WHERE turn > 0 AND probe = 0 GROUP BY 1 ORDER BY 1"
    )
    assert rows.rows() == [(1, 12), (2, 12), (3, 12)]
    told = store.read(
        """SELECT b.seed32, a.text FROM generation AS a JOIN generation AS b USING (step_id, sample, probe)
           WHERE a.turn = 1 AND b.turn = 2"""
    )
    second = chats[first : 2 * first]
    assert {body["options"]["seed"]: body["messages"][1]["content"] for body in second} == dict(told.rows())
    compared = "SELECT DISTINCT family, role FROM test WHERE family IN ('multi_turn', 'turns') AND n > 0"
    assert {role for _, role in store.read(compared).rows()} <= {"secondary", "equivalence", "diagnostic"}


@pytest.mark.slow
def test_a_failed_turn_closes_its_conversation_until_it_can_be_asked_again(store: Store) -> None:
    def fault(number: int) -> Fault | None:
        return Fault(kind="status") if number in failing else None

    failing: set[int] = set()
    with OllamaServer(faults=fault) as server:
        settings = small(server, conversations=1, looks=(2,))
        singles = sum(step.units for step in STUDY.steps(settings, store.home) if "generate" in step.name)
        failing |= {singles, singles + 1, singles + 2}  # three attempts at the first turn
        entropy_seeds(settings)
        closed = "SELECT turn, reason FROM generation WHERE turn > 0 AND reason IS NOT NULL ORDER BY turn"
        [(_, first), (_, second), (_, third)] = store.read(closed).rows()
        assert first.startswith("ServerError: ")
        assert second == third == f"ConversationClosed: turn 1 failed ({first})"
        turns = store.read("SELECT count(*) FROM generation WHERE turn > 0").item()
        asked = len(server.generations())
        entropy_seeds(settings)
        assert len(server.generations()) == asked + 3
    assert store.read(closed).rows() == []
    assert store.read("SELECT count(*) FROM generation WHERE turn > 0").item() == turns


@pytest.mark.slow
def test_a_thinking_model_is_measured_with_its_reasoning_and_without(store: Store) -> None:
    with OllamaServer() as server:
        entropy_seeds(small(server, think=None, looks=(2,)))
    [(answers, wholes, longer)] = store.read(
        """SELECT count(*), count(b.value), count(*) FILTER (b.value > a.value)
           FROM metric AS a LEFT JOIN metric AS b
             ON a.step_id = b.step_id AND a.unit = b.unit AND b.name = 'with_thinking.length_words'
           WHERE a.name = 'length_words' AND a.value IS NOT NULL"""
    ).rows()
    assert answers == wholes == longer > 100
    asked = store.read("SELECT hypothesis, p FROM test WHERE family = 'cot_sensitivity' AND p IS NOT NULL")
    assert "reasoning_kept" in asked["hypothesis"].to_list()
