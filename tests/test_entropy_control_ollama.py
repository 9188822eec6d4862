"""The control experiment against a local server that follows the seed, ignores it, or has other ways."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.entropy_control import LAPTOP, EntropyControl, entropy_control
from lab.store import Store
from tests.ollama_server import Fault, FaultPlan, OllamaServer, always, vocabulary

pytestmark = pytest.mark.usefixtures("prefect_server", "repeatable_sources")

RATES = """
SELECT hypothesis || ' ' || contrast AS name, estimate, n FROM test
WHERE family = 'control' AND role <> 'verdict' AND look = 2
"""


def small(server: OllamaServer) -> EntropyControl:
    """The laptop profile on 4 values a source and 2 prompts: 164 texts at the first look."""
    return replace(
        LAPTOP,
        host=server.url,
        prompts=("creative-1", "technical-1"),
        seeds_per_source=4,
        transfer_samples=5,
        required_pairs=40,
        new_tokens=40,
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path))
    return Store(tmp_path)


def decided(faults: FaultPlan) -> dict[str, Any]:
    """The last decision of a run against a server with these faults."""
    with OllamaServer(faults=faults) as server:
        last: dict[str, Any] = entropy_control(small(server))["decisions"][-1]
    return last


def words(seed: str) -> str:
    """Twenty words that a seed chooses."""
    return " ".join(random.Random(seed).choices(vocabulary(), k=20))


@pytest.mark.long
def test_a_server_that_follows_the_seed_is_detected_with_a_load_before_every_cold_text(store: Store) -> None:
    with OllamaServer() as server:
        [decision] = entropy_control(small(server))["decisions"]
    assert (decision["verdict"], decision["next"]) == ("DETECTED", "entropy_ladder")
    sent = [body for path, body in server.requests if path == "/api/generate"]
    unloads = [place for place, body in enumerate(sent) if not body.get("prompt")]
    assert [sent[place]["keep_alive"] for place in unloads] == [0] * 24
    assert all(sent[place + 1].get("prompt") for place in unloads)
    rates = {row["name"]: row for row in store.read(RATES).to_dicts()}
    for name in ("same_seed_identity cold", "same_seed_identity warm", "swap_agreement *"):
        assert rates[name]["estimate"] == 1.0, name
    assert rates["replay_agreement *"]["n"] == 24
    assert rates["different_values_agree *"]["estimate"] == 0.0
    short = store.read("SELECT max(seed32) FROM generation WHERE arm = 'SHORT'").item()
    assert short <= 1000


@pytest.mark.slow
def test_a_server_that_draws_its_own_seeds_is_invalid_and_the_reason_says_the_rate(store: Store) -> None:
    last = decided(lambda number: Fault(kind="text", message=words(str(number))))
    assert (last["verdict"], last["next"]) == ("INVALID", "direct_injection")
    assert "Seed effects of this backend are void" in last["sentence"]
    assert "same_seed_identity: 0.0%, surely under 99%" in last["sentence"]


@pytest.mark.slow
def test_a_server_with_one_text_for_every_seed_never_shows_that_text_follows_the_value(store: Store) -> None:
    last = decided(always(Fault(kind="text", message=words("always"))))
    assert (last["verdict"], last["next"]) == ("INCONCLUSIVE", "direct_injection")
    assert "texts of different values do not surely differ in most pairs" in last["sentence"]
    apart = "SELECT estimate, n FROM test WHERE hypothesis = 'different_values_agree' AND look = 3"
    assert store.read(apart).rows() == [(1.0, 12)]  # 73 such pairs make it EQUIVALENT; the profiles have 150


@pytest.mark.long
def test_a_server_that_follows_the_label_is_invalid_though_its_repeats_agree(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(always(None))
    order = store.read("SELECT arm, prompt_id, seed32 FROM generation ORDER BY order_index").rows()
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "tapes", again / "tapes")
    monkeypatch.setenv("LADDER_HOME", str(again))

    def by_label(number: int) -> Fault:
        arm, *rest = order[number]
        label = arm.split("_AS_")[-1].split("_")[0]
        return Fault(kind="text", message=words(f"{label} {rest}"))

    last = decided(by_label)
    assert last["verdict"] == "INVALID"
    assert "swap_agreement: 0.0%" in last["sentence"]
    assert "same_seed_identity" not in last["sentence"]
    rates = {row["name"]: row["estimate"] for row in Store(again).read(RATES).to_dicts()}
    assert rates["same_seed_identity *"] == rates["replay_agreement *"] == 1.0


@pytest.mark.parametrize(
    "fault", [Fault(kind="empty"), Fault(kind="text", message="error: model is overloaded")]
)
def test_error_texts_agree_with_nothing_and_too_many_void_the_experiment(store: Store, fault: Fault) -> None:
    last = decided(lambda number: fault if number % 3 == 0 else None)
    assert last["verdict"] == "INVALID"
    assert "of the pairs miss a text" in last["sentence"]
    pairs = "SELECT n FROM test WHERE hypothesis = 'same_seed_identity' AND contrast = '*' AND look = 2"
    assert store.read(pairs).item() < 40
    missing = (
        "SELECT estimate FROM test WHERE hypothesis = 'missing_pairs' AND contrast = 'swap' AND look = 2"
    )
    assert store.read(missing).item() > 0.3


@pytest.mark.slow
def test_the_second_look_only_adds_repeats_and_comes_when_pairs_are_too_few(store: Store) -> None:
    with OllamaServer() as server:
        decisions = entropy_control(replace(small(server), required_pairs=60))["decisions"]
    assert [row["verdict"] for row in decisions] == ["INCONCLUSIVE", "INCONCLUSIVE"]
    assert [row["next"] for row in decisions] == ["next_look", "direct_injection"]
    added = store.read("SELECT arm, count(*) AS texts FROM generation WHERE order_index >= 164 GROUP BY arm")
    assert set(added.rows()) == {
        (f"{s}{state}", 24 // 3) for s in ("PRNG", "TRNG", "HMIX") for state in ("", "_COLD")
    }
