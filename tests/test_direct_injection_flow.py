"""The injection study from prompt to decision, run as a person runs it, on a model that is really trained."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.ladder_command import COUNTS, DECISIONS, ask, ladder, start
from tests.test_entropy_seeds_flow import tasks_run

RUN = (
    "run", "direct_injection", "--set", "looks=2,3", "--set", "doses=0,3", "--set", "gaussian_doses=[]",
    "--set", "new_tokens=50", "--set", "control_times=4",
)  # fmt: skip
GATES = ["positive_control", "a_a", "integrity", "injection_effect"]


@pytest.fixture(scope="module")
def injected(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the study has run once to its end, with the model that the seed study trained."""
    home = tmp_path_factory.mktemp("injected") / "home"
    shutil.copytree(finished / "models", home / "models")
    done = ladder(*RUN, home=home)
    assert done.returncode == 0, done.stderr
    assert "Verdicts at" in done.stdout
    return home


@pytest.fixture
def home(injected: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(injected, tmp_path / "home"))


def test_every_gate_has_spoken_and_the_last_one_leads_out_of_the_tree(injected: Path) -> None:
    rows = ask("SELECT gate, look, verdict, exploratory, next FROM decision_path", home=injected)
    last = rows[-1]
    assert [row["gate"] for row in rows if row["look"] == last["look"]] == GATES
    assert last["gate"] == "injection_effect"
    assert last["next"] in ("stop", "direct_injection")
    by_gate = {row["gate"]: row["verdict"] for row in rows}
    assert by_gate["positive_control"] == "DETECTED"
    assert by_gate["a_a"] in ("INCONCLUSIVE", "EQUIVALENT")
    assert by_gate["integrity"] in ("DETECTED", "INCONCLUSIVE")
    assert all(row["exploratory"] for row in rows)  # a smaller design than the profile's plan


def test_every_text_has_its_taped_draw_and_every_changed_distribution_its_divergence(injected: Path) -> None:
    [row] = ask(
        """WITH moded AS (
               SELECT *, json_extract_string(sampling, '$.injection.mode') AS mode FROM generation
           ), how AS (SELECT *, mode IN ('logit_perturb', 'temp_modulate') AS chooses FROM moded)
           SELECT count(*) AS texts, count(source.draw) AS taped, count(*) FILTER (chooses) AS choosing,
                  count(choice.draw) FILTER (chooses) AS chosen
           FROM how LEFT JOIN seed_draw AS source ON source.source IN (arm, arm || '/choice')
            AND source.seed64 = how.seed64 AND source.purpose = prompt_id || '/' || sample
           LEFT JOIN seed_draw AS choice
             ON choice.source = arm || '/choice' AND choice.purpose = prompt_id || '/' || sample""",
        home=injected,
    )
    assert row["texts"] == row["taped"] > 800
    assert row["choosing"] == row["chosen"] > 200
    kl = (
        "SELECT count(*) AS texts, count(DISTINCT name) AS names FROM metric WHERE name LIKE 'token_kl_nats%'"
    )
    [found] = ask(kl, home=injected)
    assert found["names"] == 2
    [bad] = ask("SELECT count(*) AS bad FROM metric WHERE (value IS NULL) = (reason IS NULL)", home=injected)
    assert bad["bad"] == 0


def test_modes_against_the_baseline_are_recorded_and_no_decision_reads_them(injected: Path) -> None:
    families = {row["family"] for row in ask("SELECT DISTINCT family FROM test", home=injected)}
    assert {"dose_response", "token_kl", "injection_effect"} <= families
    sql = ask("SELECT sql FROM decision", home=injected)
    assert not any("dose_response" in row["sql"] for row in sql)
    roles = ask("SELECT DISTINCT role FROM test WHERE family IN ('dose_response', 'token_kl')", home=injected)
    assert roles == [{"role": "secondary"}]


@pytest.mark.long
def test_a_second_run_computes_nothing_and_changes_no_count_or_decision(home: Path) -> None:
    before, decided = ask(COUNTS, home=home), ask(DECISIONS, home=home)
    done = ladder(*RUN, home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert set(tasks_run(home)) <= {"record", "gate"}
    assert " 0 made now" in done.stderr
    assert ask(COUNTS, home=home) == before
    assert ask(DECISIONS, home=home) == decided


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param((2,), id="between batches", marks=pytest.mark.slow),
        pytest.param((1, 2, 5), id="three times", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(
    injected: Path, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    home = tmp_path / "replaying"
    for kept in ("models", "tapes"):
        shutil.copytree(injected / kept, home / kept)
    when = random.Random(20261121)
    for lines in kills:  # in the first batch, between batches, between gates
        process = start(*RUN, home=home)
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stderr.readline(), "the run ended before it was killed"
        time.sleep(when.uniform(0.0, 2.0))
        process.kill()
        process.communicate()
    done = ladder(*RUN, home=home)
    assert done.returncode == 0, done.stderr
    assert ask(COUNTS, home=home) == ask(COUNTS, home=injected)
    verdicts = "SELECT gate, look, verdict, exploratory, sentence FROM decision ORDER BY look, gate"
    assert ask(verdicts, home=home) == ask(verdicts, home=injected)
    texts = "SELECT sample_id, text, order_index FROM generation ORDER BY ALL"
    assert ask(texts, home=home) == ask(texts, home=injected)


def test_a_stored_decision_is_computed_again_from_its_evidence(home: Path) -> None:
    [row] = ask(
        "SELECT decision_id, verdict FROM decision WHERE gate = 'injection_effect' LIMIT 1", home=home
    )
    done = ladder("gates", "direct_injection", "--why", row["decision_id"], home=home)
    assert done.returncode == 0
    assert f"Computed again: {row['verdict']}, the same" in done.stdout


def test_a_backend_that_chooses_its_own_tokens_is_refused_in_one_line(tmp_path: Path) -> None:
    done = ladder("run", "direct_injection", "--set", "backend=ollama", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ollama cannot inject" in done.stderr
    assert not (tmp_path / "lab.duckdb").exists()


def test_the_dry_run_knows_what_is_here(injected: Path, tmp_path: Path) -> None:
    done = ladder("plan", *RUN[1:], "--json", home=injected)
    assert done.returncode == 0, done.stderr
    [told] = json.loads(done.stdout)
    assert {step["units"] - step["cached"] for step in told["steps"]} == {0}
    [empty] = json.loads(ladder("plan", "direct_injection", "--json", home=tmp_path).stdout)
    assert (empty["steps"][0]["name"], empty["steps"][0]["cached"]) == ("train pydoc-0.1m", 0)
