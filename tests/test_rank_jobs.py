"""The worker's calls: one arm whatever the process, kill and resume, kept adapters, audits, answers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel

from models.adapters import adaptable, shapes_of, without_peft_notices
from models.answers import RULES, is_correct
from models.kept import load_kept
from models.lora_recipe import Evaluation
from models.rank_jobs import audit, evaluate, train_arm, train_base
from models.rank_policies import parameters
from tasks import killable
from tests.small_mistral import MODULES, SHORT, as_source, items, saved_base, small_mistral

RECIPE = replace(SHORT, checkpoint_every=3)
RANKS = {name: 1 + place % 4 for place, name in enumerate(adaptable(small_mistral()))}
EVALUATION = asdict(Evaluation(max_new_tokens=12))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_base(tmp_path_factory.mktemp("jobs") / "base")


def nothing(body: Any) -> None:
    """A report that nobody reads."""


def arm(base: str, directory: Path, **more: Any) -> dict[str, Any]:
    """Arguments of a short arm."""
    return {
        "base": base, "source": as_source(), "ranks": RANKS, "recipe": asdict(RECIPE), "seed": 0,
        "initialisation": "nested", "directory": str(directory), **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def kept(base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    where = tmp_path_factory.mktemp("kept") / "arm"
    return train_arm(**arm(base, where), report=nothing), where


def test_an_arm_reports_its_ranks_parameters_and_losses(kept: tuple[dict[str, Any], Path]) -> None:
    facts, _ = kept
    assert facts["realised"] == RANKS
    assert facts["parameters"] == facts["budget"] == parameters(RANKS, shapes_of(small_mistral().config))
    assert facts["truncated"] == 0
    assert facts["loss_last"] < facts["loss_first"]
    assert json.loads(json.dumps(facts, allow_nan=False))["log"] == list(facts["log"])


def test_an_arm_killed_in_another_process_ends_here_in_the_same_bits(
    base: str, kept: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    worker = killable.Worker()

    def kill(point: dict[str, Any]) -> None:
        if point["step"] == 11:
            worker.kill()

    try:
        with pytest.raises(killable.WorkError, match="SIGKILL"):
            worker.call("models.rank_jobs:train_arm", arm(base, tmp_path / "arm"), seconds=120, report=kill)
    finally:
        worker.close()
    assert not (tmp_path / "arm").exists()
    resumed = train_arm(**arm(base, tmp_path / "arm"), report=nothing)
    assert resumed["steps_resumed"] >= 9
    assert (resumed["digest"], resumed["log"]) == (kept[0]["digest"], kept[0]["log"])
    assert [path.name for path in tmp_path.iterdir()] == ["arm"]


@pytest.mark.slow
def test_arms_side_by_side_in_processes_are_those_of_one(
    base: str, kept: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    def run(number: int) -> dict[str, Any]:
        with killable.worker() as worker:
            call = arm(base, tmp_path / f"arm{number}", seed=number % 2)
            done: dict[str, Any] = worker.call(
                "models.rank_jobs:train_arm", call, seconds=300, report=nothing
            )
            return done

    with ThreadPoolExecutor(4) as pool:
        digests = [one["digest"] for one in pool.map(run, range(4))]
    assert digests[0] == digests[2] == kept[0]["digest"]
    assert digests[1] == digests[3] != digests[0]
    killable.stop_all()


def test_an_arm_that_is_there_is_not_trained_again(base: str, kept: tuple[dict[str, Any], Path]) -> None:
    facts, where = kept
    said: list[Any] = []
    again = train_arm(**arm(base, where), report=said.append)
    assert not said
    assert again["digest"] == facts["digest"]
    assert again["seconds"] == facts["seconds"]


def test_files_are_the_same_whenever_they_are_written(
    base: str, kept: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    train_arm(**arm(base, tmp_path / "arm"), report=nothing)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "arm" / name).read_bytes() == (kept[1] / name).read_bytes()
    assert sorted(path.name for path in kept[1].iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "trained.json"
    ]  # fmt: skip


def test_peft_alone_loads_a_kept_adapter(kept: tuple[dict[str, Any], Path]) -> None:
    with without_peft_notices():
        loaded = PeftModel.from_pretrained(small_mistral(), kept[1])
    assert sum("lora_A" in name for name, _ in loaded.named_parameters()) == MODULES


def test_answers_name_every_item_with_rules_costs_and_stops(
    base: str, kept: tuple[dict[str, Any], Path]
) -> None:
    said: list[Any] = []
    found = evaluate(
        base=base, adapter=str(kept[1]), source=as_source(), split="test", evaluation=EVALUATION,
        report=said.append,
    )["answers"]  # fmt: skip
    tests = items("test")
    assert [one["item_id"] for one in found] == [item.item_id for item in tests]
    for item, one in zip(tests, found, strict=True):
        assert {rule: one[rule] for rule in RULES} == {
            rule: is_correct(one["text"], item.gold, rule) for rule in RULES
        }
        assert one["nll_nats"] > 0 < one["tokens"]
    assert said == [{"done": 24, "of": 24}]
    alone = evaluate(
        base=base, adapter=None, source=as_source(), split="test", evaluation=EVALUATION, report=nothing
    )["answers"]
    trained, bare = (np.sum([one["nll_nats"] for one in rows]) for rows in (found, alone))
    assert trained < bare
    assert [one["tokens"] for one in alone] == [one["tokens"] for one in found]


def test_an_audit_has_every_module_with_the_ranks_of_the_plan(
    base: str, kept: tuple[dict[str, Any], Path]
) -> None:
    found = audit(base=base, adapter=str(kept[1]), report=nothing)["modules"]
    assert {one["name"]: one["rank"] for one in found} == RANKS
    assert all(len(one["sigma"]) == one["rank"] and one["udr_spectral"] > 0 for one in found)
    json.dumps(found, allow_nan=False)


def test_eva_keeps_the_budget_to_one_rank_and_lists_every_module(base: str, tmp_path: Path) -> None:
    call = arm(base, tmp_path / "eva", initialisation="eva", ranks=dict.fromkeys(RANKS, 4))
    found = train_arm(**call, report=nothing)
    shapes = adaptable(small_mistral())
    assert set(found["realised"]) == set(RANKS)
    assert found["parameters"] == sum(rank * sum(shapes[name]) for name, rank in found["realised"].items())
    assert 0 < abs(found["parameters"] - found["budget"]) + 1 <= 1 + max(map(sum, shapes.values()))
    answered = evaluate(
        base=base, adapter=call["directory"], source=as_source(), split="validation", evaluation=EVALUATION,
        report=nothing,
    )["answers"]  # fmt: skip
    assert len(answered) == 8


def test_damage_another_base_and_another_plan_are_noticed(
    base: str, kept: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    other = saved_base(tmp_path / "other base")
    with pytest.raises(ValueError, match="trained on another base"):
        audit(base=other, adapter=str(kept[1]), report=nothing)
    with pytest.raises(ValueError, match="no intact adapter"):
        audit(base=base, adapter=str(tmp_path / "nowhere"), report=nothing)
    with pytest.raises(ValueError, match="without a rank"):
        train_arm(**arm(base, tmp_path / "arm", ranks={next(iter(RANKS)): 4}), report=nothing)
    with pytest.raises(ValueError, match="unknown embedded base 'giant'"):
        train_base(name="giant", seed=0, directory=str(tmp_path / "giant"), report=nothing)
    # A refused plan leaves the base in memory without an adapter.
    body = load_kept(kept[1])
    assert body is not None
    again = train_arm(**arm(base, tmp_path / "arm"), report=nothing)
    assert again["digest"] == body["facts"]["digest"]


def test_items_that_are_too_long_are_counted(base: str, tmp_path: Path) -> None:
    recipe = asdict(replace(RECIPE, max_tokens=60, steps=5))
    found = train_arm(**arm(base, tmp_path / "arm", recipe=recipe), report=nothing)
    assert 0 < found["truncated"] < 48
