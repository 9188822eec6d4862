"""The rank study from probe to scenario, run as a person runs it, on a base and items that are tiny."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from flows.mechanism import SMOKE, protocol
from flows.mechanism_run import begin
from lab.errors import UsageError
from models.backends import ModelMissing
from models.rank_controls import share_alike
from tests.ladder_command import ask, ladder, start, work_done
from tests.small_rank_study import TRAIN, settings, write_base, write_items

pytestmark = pytest.mark.long

ARMS = [
    "base", "cross_seed", "eva", "inverse", "per_layer", "probe", "shuffled_free", "shuffled_full",
    "shuffled_within 1", "shuffled_within 2", "uniform_equal", "uniform_median", "uniform_p90",
]  # fmt: skip
COUNTS = """
SELECT (SELECT count(*) FROM answer) AS answers, (SELECT count(*) FROM adapter_module) AS modules,
       (SELECT count(*) FROM metric) AS metrics, (SELECT count(*) FROM test) AS tests,
       (SELECT count(*) FROM decision) AS decisions, (SELECT count(*) FROM step) AS steps
"""
DECIDED = "SELECT gate, look, verdict, evidence FROM decision ORDER BY look, gate"
FEW: dict[str, object] = {"arms": "shuffled_within,uniform_equal", "shuffles": 1}
ANSWERS = """
SELECT arm, seed, item, text, round(nll_nats, 9) AS nll FROM answer JOIN step USING (step_id)
ORDER BY ALL
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base, the items and a home in which the study has run once to its end."""
    root = tmp_path_factory.mktemp("ranks")
    done = ladder(*settings(write_base(root / "base"), write_items(root / "items")), home=root / "home")
    assert done.returncode == 0, done.stderr
    assert "Verdicts at 2 " in done.stdout
    return root


@pytest.fixture
def home(small: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(small / "home", tmp_path / "home"))


def again(small: Path, **changes: object) -> list[str]:
    """The run's arguments with changes."""
    return settings(small / "base", small / "items", **changes)


def test_every_arm_of_every_seed_has_its_answers(small: Path) -> None:
    rows = ask("SELECT arm, seed, accuracy_strict, parameters FROM mechanism", home=small / "home")
    for seed in (42, 43):
        assert sorted({row["arm"] for row in rows if row["seed"] in (None, seed)}) == ARMS
    assert all(row["accuracy_strict"] is not None for row in rows)
    counted = ask("SELECT DISTINCT count(*) AS n FROM answer GROUP BY step_id", home=small / "home")
    assert counted == [{"n": 40}]
    same = [row for row in rows if row["arm"].startswith(("per_layer", "shuffled_within", "inverse"))]
    assert len({(row["seed"], row["parameters"]) for row in same}) == 2


def test_realised_ranks_are_the_planned_ones_and_controls_move_them(small: Path) -> None:
    rows = ask(
        "SELECT arm, seed, module, rank, planned_rank FROM adapter_module JOIN step USING (step_id)",
        home=small / "home",
    )
    assert all(row["rank"] == row["planned_rank"] for row in rows if row["arm"] != "eva")
    ranks: dict[tuple[str, int], dict[str, int]] = {}
    for row in rows:
        ranks.setdefault((row["arm"], row["seed"]), {})[row["module"]] = row["rank"]
    assert {len(found) for found in ranks.values()} == {28}
    for (arm, seed), found in ranks.items():
        if arm.startswith("shuffled"):
            assert share_alike(ranks["per_layer", seed], found) < 0.8
    spectra = ask("SELECT count(*) AS n FROM adapter_module WHERE sigma IS NOT NULL", home=small / "home")
    assert spectra == [{"n": 56}]


def test_gates_follow_their_routes_and_a_decision_can_be_computed_again(small: Path) -> None:
    rows = ask(
        "SELECT gate, verdict, next, decision_id FROM decision_path ORDER BY position", home=small / "home"
    )
    assert [row["gate"] for row in rows] == ["probe", "controls", "fair", "placement", "scenario"]
    told = ladder("gates", "mechanism", "--why", rows[3]["decision_id"], home=small / "home")
    assert told.returncode == 0, told.stderr
    assert rows[3]["verdict"] in told.stdout
    assert rows[-1]["next"] == "stop"


def test_a_second_run_computes_nothing_and_changes_no_number(small: Path, home: Path) -> None:
    before = ask(COUNTS, home=home), ask(DECIDED, home=home)
    done = ladder(*again(small), home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert work_done(home) == []
    assert (ask(COUNTS, home=home), ask(DECIDED, home=home)) == before


@pytest.fixture(scope="module")
def few(small: Path) -> Path:
    """Another home, in which two controls a seed were trained, one after the other."""
    one_thread_more = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = ladder(*again(small, processes=1, **FEW), home=small / "few", extra=one_thread_more)
    assert done.returncode == 0, done.stderr
    return small / "few"


@pytest.mark.slow
def test_another_store_one_process_and_other_threads_give_the_same_numbers(small: Path, few: Path) -> None:
    whole = {tuple(row.values()) for row in ask(ANSWERS, home=small / "home")}
    part = {tuple(row.values()) for row in ask(ANSWERS, home=few)}
    assert len(part) == 40 * 9
    assert part <= whole


@pytest.mark.slow
def test_an_undertrained_probe_gets_twice_the_steps_once(small: Path, home: Path) -> None:
    done = ladder(*again(small, least_gain=1), home=home)
    assert done.returncode == 3, done.stderr
    rows = ask(
        "SELECT gate, verdict, next, sentence FROM decision_path WHERE plan_hash ="
        " (SELECT plan_hash FROM run ORDER BY started_at DESC LIMIT 1) ORDER BY position",
        home=home,
    )
    assert [(row["gate"], row["verdict"], row["next"]) for row in rows] == [
        ("probe", "INVALID", "probe_again"),
        ("probe_again", "INVALID", "stop"),
    ]
    assert "UNDERTRAINED" in rows[0]["sentence"]
    steps = "SELECT max(iteration) AS steps FROM train_log JOIN step USING (step_id) WHERE arm = 'probe'"
    assert ask(steps, home=home) == [{"steps": 24}]


@pytest.mark.slow
def test_a_policy_that_places_nothing_has_degenerate_controls(small: Path, home: Path) -> None:
    done = ladder(*again(small, probe_rank=1), home=home)  # every rank is 1
    assert done.returncode == 3, done.stderr
    assert "all 28 modules rank 1" in done.stdout.replace("\n", " ").replace("  ", "")


@pytest.mark.slow
def test_an_arm_over_its_limit_is_a_row_with_its_reason(small: Path, home: Path) -> None:
    done = ladder(*again(small, timeout_minutes=0.0005, steps=13), home=home)
    assert done.returncode == 3, done.stderr
    assert "stopped at its time limit" in done.stderr
    reasons = ask("SELECT DISTINCT reason FROM mechanism WHERE reason IS NOT NULL", home=home)
    assert any("stopped at its time limit of 0.03 s" in row["reason"] for row in reasons)


@pytest.mark.slow
def test_a_run_killed_in_the_middle_ends_as_one_that_was_not(small: Path, few: Path, tmp_path: Path) -> None:
    home = tmp_path / "killed"
    process = start(*again(small, **FEW), home=home)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and len(list(home.glob("models/adapter-*/trained.json"))) < 4:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert len(list(home.glob("models/adapter-*/trained.json"))) < 8
    assert ladder(*again(small, **FEW), home=home).returncode == 0
    for query in (COUNTS, DECIDED, ANSWERS):
        assert ask(query, home=home) == ask(query, home=few)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ("uniform_equal",)}, "shuffled_within decides"),
        ({"arms": ("shuffled_within", "best")}, "unknown arm"),
        ({"arms": ("shuffled_within", "shuffled_within")}, "name each once"),
        ({"scale_rule": "rslora"}, "lora_alpha"),
        ({"looks": (1,)}, "the seed is the unit"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(SMOKE, **changes)


def test_a_base_that_cannot_be_had_is_refused_before_any_work(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny = replace(
        SMOKE, model=str(small / "base"), data=str(small / "items"), n_train=TRAIN, n_validation=16
    )
    for change, error, said in (
        ({"model": "no/such-model"}, ModelMissing, "no/such-model"),
        ({"model": "mistralai/Mistral-7B-v0.1"}, ModelMissing, "hf auth login"),
        ({"model": str(small / "items")}, ModelMissing, r"has no config\.json"),
        ({"n_test": 4000}, UsageError, r"test\.jsonl"),
        ({"data": str(tmp_path / "none.jsonl")}, UsageError, r"none\.jsonl"),
    ):
        with pytest.raises(error, match=said):
            begin(protocol(replace(tiny, **cast(dict[str, Any], change))))
    items = Path(shutil.copytree(small / "items", tmp_path / "items"))
    with (items / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "Two and two?"}) + "\n")
    with pytest.raises(UsageError, match=r"train\.jsonl.*113"):
        begin(protocol(replace(tiny, data=str(items))))
    assert not (tmp_path / "home").exists()


def test_a_gated_model_without_a_token_ends_the_command_with_2(tmp_path: Path) -> None:
    done = ladder("run", "mechanism", "--profile", "full", home=tmp_path, extra={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("models/*"))
