"""The scale ladder through its flow: models of a local Ollama server, effects planted or absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import flow
from transformers import LlamaForCausalLM

from flows import ladder_run
from flows.entropy_ladder import LAPTOP, SMOKE, EntropyLadder, LadderRung, entropy_ladder, plan, protocol
from flows.seed_protocol import Protocol
from lab.errors import UsageError
from lab.store import Store
from models.embedded import RUNGS
from models.pretrain import llama_config
from tests.ollama_server import LADDER, OllamaServer

MODELS = ("qwen3:0.6b", "qwen3:1.7b", "llama3.2:3b", "qwen3:8b")
SIZES = (10**8, 10**9, 10**10, 10**11)


def small(host: str, *, models: tuple[str, ...] = MODELS[:2]) -> EntropyLadder:
    """Two rungs at one look."""
    named = zip(models, SIZES, strict=False)
    rungs = tuple(LadderRung(model=name, parameters=n, line="q") for name, n in named)
    smoke = replace(SMOKE, backend="ollama", rungs=rungs, looks=(3,), required_pairs=5, host=host)
    return replace(smoke, permutations=100)


@flow(name="altered-ladder")
def altered(settings: EntropyLadder, change: Callable[[int, Protocol], Protocol]) -> dict[str, Any]:
    """The ladder with protocols changed rung by rung, which no setting can do."""
    protocols = {
        rung.model: change(place, fewer(protocol(settings, rung.model)))
        for place, rung in enumerate(settings.rungs)
    }
    ladder = ladder_run.begin(plan(settings), protocols, settings)
    with ladder.closing():
        ladder.run()
    return ladder.result()


def fewer(given: Protocol) -> Protocol:
    """Half of the prompts."""
    return replace(given, prompts=given.prompts[::2])


def hotter(given: Protocol) -> Protocol:
    """TRNG, under both its labels, at another temperature."""
    arms = tuple(replace(arm, temperature=0.4) if "TRNG" in arm.name else arm for arm in given.arms)
    return replace(given, arms=arms)


@pytest.fixture
def store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None, repeatable_sources: None
) -> Store:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path))
    return Store(tmp_path)


def run(settings: EntropyLadder) -> dict[str, Any]:
    """What the flow returns."""
    return cast(dict[str, Any], entropy_ladder(settings))


def last(result: dict[str, Any], gate: str) -> dict[str, dict[str, Any]]:
    """Model -> its last decision of a gate."""
    return {row["model"]: row for row in result["decisions"] if row["gate"] == gate}


def test_rungs_are_climbed_one_a_run_or_all_in_order_and_compared_after_correction(store: Store) -> None:
    with OllamaServer() as server:
        first = run(replace(small(server.url), climb_to=1))
        assert {row["model"] for row in first["decisions"]} == {MODELS[0]}
        below = len(server.generations())
        result = run(small(server.url))
        assert result["decisions"][: len(first["decisions"])] == first["decisions"]
        asked = len(server.generations())
        assert 0 < below < asked
        again = run(small(server.url))
        assert len(server.generations()) == asked
    assert list(last(result, "climb")) == list(MODELS[:2])
    end = last(result, "ladder_end")[ladder_run.ALL_RUNGS]
    assert (end["verdict"], end["next"]) == ("INCONCLUSIVE", "direct_injection")
    assert [row["decision_id"] for row in again["decisions"]] == [
        row["decision_id"] for row in result["decisions"]
    ]
    families = store.read(
        "SELECT family, count(*) AS n, count(p) AS p FROM test WHERE model = $model GROUP BY ALL ORDER BY 1",
        {"model": ladder_run.ALL_RUNGS},
    ).rows()
    assert {name: n for name, n, _ in families} == {
        "crossover": 1,
        "ladder": 3,
        "meta_analysis": 18,
    }


@pytest.mark.slow
def test_a_part_whose_rungs_are_all_skipped_takes_the_next_one(store: Store) -> None:
    with OllamaServer([model for model in LADDER if model.name == MODELS[1]]) as server:
        result = run(replace(small(server.url), climb_to=1))
    assert {row["model"] for row in result["decisions"]} == {MODELS[1], ladder_run.ALL_RUNGS}


@pytest.mark.slow
def test_a_planted_effect_is_confirmed_by_fresh_texts_from_tapes_of_their_own(store: Store) -> None:
    def plant(place: int, given: Protocol) -> Protocol:
        return hotter(given) if place == 0 else given

    with OllamaServer() as server:
        result = altered(replace(small(server.url), looks=(6,)), plant)
    assert last(result, "scale_up")[MODELS[0]]["verdict"] == "DETECTED"
    assert MODELS[1] not in last(result, "scale_up")
    end = last(result, "ladder_end")[ladder_run.ALL_RUNGS]
    assert end["verdict"] == "DETECTED"
    assert "1 confirmed" in end["sentence"]
    shared = """
    SELECT count(*) FROM seed_draw AS a JOIN seed_draw AS b USING (seed32)
    WHERE a.tape LIKE '%entropy_ladder/%' AND b.tape LIKE '%entropy_ladder-confirmation/%'
      AND a.source = 'PRNG' AND b.source = 'PRNG'
    """
    assert store.read(shared).item() == 0
    fresh = "SELECT count(*) FROM seed_draw WHERE tape LIKE '%entropy_ladder-confirmation/%'"
    assert store.read(fresh).item() > 0
    paths = "SELECT model, list(gate ORDER BY position) AS gates FROM decision_path GROUP BY 1 ORDER BY 1"
    by_model = {row["model"]: row["gates"] for row in store.read(paths).to_dicts()}
    assert by_model[MODELS[0]][-2:] == ["climb", "scale_up"]
    assert (
        by_model[f"{MODELS[0]} · confirmation"][-1] == "seed_sources"
    )  # beside the screen, not in its place


@pytest.mark.slow
def test_an_effect_of_the_screen_that_fresh_texts_lack_is_not_confirmed(store: Store) -> None:
    with OllamaServer() as server:
        ladder = fading(replace(small(server.url, models=MODELS[:1]), looks=(6,)))
    assert last(ladder, "scale_up")[MODELS[0]]["verdict"] != "DETECTED"
    assert last(ladder, "ladder_end")[ladder_run.ALL_RUNGS]["verdict"] == "INCONCLUSIVE"


@flow(name="fading-ladder")
def fading(settings: EntropyLadder) -> dict[str, Any]:
    """An effect planted in the screen only: the confirmation gets the true protocol."""
    true = {rung.model: fewer(protocol(settings, rung.model)) for rung in settings.rungs}
    ladder = ladder_run.begin(plan(settings), {name: hotter(p) for name, p in true.items()}, settings)
    with ladder.closing():
        for rung in settings.rungs:
            ladder.climb(rung)
        ladder.compare("screen")
        ladder.protocols = true
        for model in ladder.to_confirm():
            ladder.confirm(model)
        assert ladder.fresh
        ladder.compare("with confirmations")
        ladder.decide()
    return ladder.result()


@pytest.mark.long
def test_two_equivalent_rungs_in_a_row_end_the_ladder(store: Store) -> None:
    def wide(place: int, given: Protocol) -> Protocol:
        return replace(given, plan=replace(given.plan, margin=3.0))

    with OllamaServer() as server:
        result = altered(small(server.url, models=MODELS), wide)
        assert {body["model"] for body in server.generations()} == set(MODELS[:2])
    assert [row["next"] for row in last(result, "climb").values()] == ["next_rung", "ladder_end"]
    end = last(result, "ladder_end")[ladder_run.ALL_RUNGS]
    assert end["verdict"] == "EQUIVALENT"
    [(model, parameters)] = store.read(
        "SELECT contrast, estimate FROM test WHERE family = 'crossover'"
    ).rows()
    assert (model, parameters) == (MODELS[0], 1e8)
    left_out = store.read("SELECT model, reason FROM step WHERE experiment = 'rung' ORDER BY model").rows()
    assert [name for name, _ in left_out] == sorted(MODELS[2:])
    assert all("two rungs in a row" in reason for _, reason in left_out)


@pytest.mark.slow
def test_a_skipped_rung_parts_two_equivalent_ones(store: Store) -> None:
    def wide(place: int, given: Protocol) -> Protocol:
        return replace(given, plan=replace(given.plan, margin=3.0))

    with OllamaServer() as server:
        result = altered(small(server.url, models=(MODELS[0], "nonesuch:1b", *MODELS[1:3])), wide)
    assert [row["model"] for row in last(result, "climb").values()] == [MODELS[0], *MODELS[1:3]]
    assert last(result, "climb")[MODELS[1]]["next"] == "next_rung"
    assert last(result, "climb")[MODELS[2]]["next"] == "ladder_end"


def test_a_rung_the_machine_lacks_is_a_row_with_a_reason_and_the_others_go_on(store: Store) -> None:
    with OllamaServer() as server:
        result = run(small(server.url, models=("nonesuch:1b", MODELS[0])))
    assert list(last(result, "climb")) == [MODELS[0]]
    reason = "SELECT reason FROM test WHERE family = 'ladder' AND contrast = 'nonesuch:1b'"
    assert "ollama pull nonesuch:1b" in store.read(reason).item()
    assert "nonesuch:1b: ModelMissing" in last(result, "ladder_end")[ladder_run.ALL_RUNGS]["sentence"]


def test_a_ladder_without_any_answer_is_invalid(store: Store) -> None:
    result = run(small("http://127.0.0.1:9", models=MODELS[:2]))
    end = last(result, "ladder_end")[ladder_run.ALL_RUNGS]
    assert end["verdict"] == "INVALID"
    assert "ServerUnreachable" in end["sentence"]


def test_a_model_larger_than_the_memory_is_not_loaded(store: Store) -> None:
    rung = LadderRung(model="pydoc-0.1m", parameters=10**15)
    result = run(replace(SMOKE, rungs=(rung,)))
    assert "GiB of memory, this machine has" in last(result, "ladder_end")[ladder_run.ALL_RUNGS]["sentence"]
    assert not (store.home / "models").exists()


def test_declared_sizes_of_the_smoke_ladder_are_those_of_the_models() -> None:
    counted = {name: LlamaForCausalLM(llama_config(spec)).num_parameters() for name, spec in RUNGS.items()}
    assert {rung.model: rung.parameters for rung in SMOKE.rungs} == counted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rungs": (SMOKE.rungs[0], SMOKE.rungs[0])}, "give each model once"),
        ({"model_contrast": ("pydoc-0.1m", "pydoc-9m")}, "pydoc-9m"),
        ({"rungs": (LadderRung(model="pydoc-9m", parameters=9),)}, "unknown embedded model 'pydoc-9m'"),
    ],
)
def test_rungs_that_cannot_be_climbed_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(SMOKE, **changes)


def test_the_laptop_ladder_names_six_models_four_of_one_line() -> None:
    lines = [rung.line for rung in LAPTOP.rungs]
    assert len(lines) == 6
    assert lines.count("qwen3") == 4
