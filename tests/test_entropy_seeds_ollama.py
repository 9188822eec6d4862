"""The laptop profile against a local server that speaks Ollama's protocol, faults included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.entropy_seeds import LAPTOP, EntropySeeds, entropy_seeds
from lab.store import Store
from models.backends import ModelMissing, ServerUnreachable
from tests.ollama_server import Fault, OllamaServer

pytestmark = pytest.mark.usefixtures("prefect_server")


def small(server: OllamaServer | str, **changes: object) -> EntropySeeds:
    """The laptop profile on 12 prompts and one stream."""
    host = server if isinstance(server, str) else server.url
    return replace(
        LAPTOP, host=host, prompts="smoke", looks=(2, 4), single_stream=True, required_pairs=5, **changes
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path))
    return Store(tmp_path)


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
