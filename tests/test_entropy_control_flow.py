"""The control experiment as a person runs it, on a model that is really trained, killed ones included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.ladder_command import COUNTS, DECISIONS, ask, ladder, start
from tests.test_entropy_seeds_flow import tasks_run

CONTROL = (
    "run",
    "entropy_control",
    *("--set", "model=pydoc-0.1m"),
    *("--set", "seeds_per_source=6"),
    *("--set", "transfer_samples=6"),
    *("--set", "required_pairs=100"),
)


def emptied(home: Path, to: Path) -> Path:
    """A home with another one's models and tapes, and nothing done."""
    for kept in ("models", "tapes"):
        if (home / kept).exists():
            shutil.copytree(home / kept, to / kept)
    return to


@pytest.fixture(scope="module")
def controlled(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the control experiment has run once."""
    home = tmp_path_factory.mktemp("controlled") / "home"
    shutil.copytree(finished / "models", home / "models")
    done = ladder(*CONTROL, home=home)
    assert done.returncode == 0, done.stderr
    assert "Next: entropy_ladder" in done.stdout
    return home


def test_text_follows_the_value_warm_cold_under_every_label_and_from_the_tape(controlled: Path) -> None:
    [decision] = ask("SELECT verdict, look, exploratory, sentence FROM decision", home=controlled)
    assert (decision["verdict"], decision["look"], decision["exploratory"]) == ("DETECTED", 2, True)
    transfer = decision["sentence"].partition("against all: ")[2]
    assert transfer.startswith("INCONCLUSIVE")
    assert "would" in transfer  # how many texts, or how many prompts, would settle it
    texts = "SELECT prompt_id, seed32, count(DISTINCT text) AS texts FROM generation GROUP BY ALL"
    several = "SELECT count(*) AS several FROM (" + texts + ") WHERE texts > 1"
    assert ask(several, home=controlled) == [{"several": 0}]
    seeds = "SELECT count(DISTINCT seed32) AS seeds, count(DISTINCT text) AS texts FROM generation "
    [row] = ask(seeds + "WHERE arm = 'PRNG' AND prompt_id = 'creative-1'", home=controlled)
    assert row == {"seeds": 6, "texts": 6}


def test_every_text_has_its_taped_seed_and_its_place_in_one_interleaved_order(controlled: Path) -> None:
    [row] = ask(
        """SELECT count(*) AS texts, count(DISTINCT order_index) AS places, max(order_index) AS last,
                  count(seed_draw.draw) AS taped
           FROM generation LEFT JOIN seed_draw
             ON seed_draw.seed64 = generation.seed64 AND seed_draw.stream = generation.stream
            AND seed_draw.source = regexp_extract(arm, '^[A-Z]+')
            AND seed_draw.purpose IN ('value/' || sample, prompt_id || '/' || sample)""",
        home=controlled,
    )
    assert row["texts"] == row["places"] == row["taped"] == row["last"] + 1 == 6 * 5 * 3 * 6 + 60
    [mixed] = ask(
        """SELECT count(*) FILTER (arm <> before) AS changes FROM (
             SELECT arm, lag(arm) OVER (ORDER BY order_index) AS before FROM generation)""",
        home=controlled,
    )
    assert mixed["changes"] > 300


@pytest.mark.long
def test_a_second_run_computes_nothing_and_its_decision_can_be_computed_again(
    controlled: Path, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(controlled, tmp_path / "home"))
    before, decided = ask(COUNTS, home=home), ask(DECISIONS, home=home)
    done = ladder(*CONTROL, home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert set(tasks_run(home)) <= {"record", "gate"}
    assert ask(COUNTS, home=home) == before
    assert ask(DECISIONS, home=home) == decided
    [row] = ask("SELECT decision_id FROM decision", home=home)
    why = ladder("gates", "entropy_control", "--why", row["decision_id"], home=home)
    assert (why.returncode, "Computed again: DETECTED, the same" in why.stdout) == (0, True)
    [plan] = json.loads(ladder("plan", *CONTROL[1:], "--json", home=home).stdout)
    looks = [step for step in plan["steps"] if "generate look" in step["name"]]
    assert [step["units"] - step["cached"] for step in looks] == [0, 180]


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param((3,), id="between batches", marks=pytest.mark.slow),
        pytest.param((2, 3, 5), id="three times", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(
    controlled: Path, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    home = emptied(controlled, tmp_path / "killed")
    for lines in kills:  # the first line comes before the run is recorded
        process = start(*CONTROL, home=home)
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stderr.readline(), "the run ended before it was killed"
        process.kill()
        process.communicate()
    done = ladder(*CONTROL, home=home)
    assert done.returncode == 0, done.stderr
    assert ask(COUNTS, home=home) == ask(COUNTS, home=controlled)
    assert ask(DECISIONS, home=home) == ask(DECISIONS, home=controlled)
    states = ask("SELECT state, count(*) AS runs FROM run GROUP BY ALL ORDER BY state", home=home)
    assert states == [{"state": "completed", "runs": 1}, {"state": "crashed", "runs": len(kills)}]


def test_a_tape_with_a_changed_value_is_refused_before_anything_is_generated(
    controlled: Path, tmp_path: Path
) -> None:
    home = emptied(controlled, tmp_path / "changed")
    [tape] = (home / "tapes").rglob("TRNG-42.jsonl")
    lines = tape.read_text().splitlines()
    lines[3] = lines[3].replace('"seed64": ', '"seed64": 1')
    tape.write_text("\n".join(lines) + "\n")
    done = ladder(*CONTROL, home=home)
    assert done.returncode == 2
    assert "TRNG-42.jsonl, line 4: damaged" in done.stderr
    assert ask("SELECT count(*) AS texts FROM generation", home=home) == [{"texts": 0}]
