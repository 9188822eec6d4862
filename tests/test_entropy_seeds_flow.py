"""The seed study from prompt to decision, run as a person runs it, on a model that is really trained."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lab.products import Products
from tests.ladder_command import COUNTS, DECISIONS, RUN, ask, copy_tree, ladder

GATES = ("positive_control", "a_a", "integrity", "seed_sources", "seed_effect")


def tasks_run(home: Path) -> dict[str, int]:
    """Task runs that did their work in the last flow run, by task."""
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        rows = database.execute(
            """SELECT task.name, task.state_name FROM task_run AS task
               JOIN flow_run AS flow ON flow.id = task.flow_run_id
               WHERE flow.id = (SELECT id FROM flow_run ORDER BY created DESC LIMIT 1)"""
        ).fetchall()
    done: dict[str, int] = {}
    for name, state in rows:
        if state == "Completed":
            kind = name.split()[0]
            done[kind] = done.get(kind, 0) + 1
    return done


def test_the_control_is_detected_the_a_a_arm_is_not_and_every_gate_has_spoken(finished: Path) -> None:
    rows = ask("SELECT gate, verdict, exploratory, evidence, next FROM decision ORDER BY look", home=finished)
    last = {row["gate"]: row for row in rows}
    assert set(last) == set(GATES)
    assert last["positive_control"]["verdict"] == "DETECTED"
    assert last["a_a"]["verdict"] in ("INCONCLUSIVE", "EQUIVALENT")
    assert last["integrity"]["verdict"] == "DETECTED"
    assert not any(row["exploratory"] for row in rows)


def test_every_text_has_its_taped_seed_and_every_number_or_a_reason(finished: Path) -> None:
    [row] = ask(
        """SELECT count(*) AS texts, count(draw) AS taped FROM generation AS g LEFT JOIN seed_draw AS d
           ON d.source = g.arm AND d.stream = g.stream AND d.seed64 = g.seed64
           AND d.purpose = concat_ws('/', g.prompt_id, g.sample, nullif(g.turn, 0))""",
        home=finished,
    )
    assert row["texts"] == row["taped"] > 250
    [row] = ask("SELECT count(*) AS bad FROM metric WHERE (value IS NULL) = (reason IS NULL)", home=finished)
    assert row["bad"] == 0


def test_a_second_run_computes_nothing_and_changes_no_count_or_decision(home: Path) -> None:
    before, decided = ask(COUNTS, home=home), ask(DECISIONS, home=home)
    done = ladder(*RUN, home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert set(tasks_run(home)) <= {"record", "gate", "draw"}  # from its tapes
    assert " 0 made now" in done.stderr
    assert ask(COUNTS, home=home) == before
    assert ask(DECISIONS, home=home) == decided


@pytest.mark.long
def test_editing_a_formula_runs_the_analysis_again_and_nothing_above_it(home: Path, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    formula = tree / "stats" / "equivalence.py"
    text = formula.read_text(encoding="utf-8")
    formula.write_text(text + "\nEDITED = 1\n", encoding="utf-8")
    done = ladder(*RUN, home=home, tree=tree, own_server=True)
    assert done.returncode == 0, done.stderr
    assert set(tasks_run(home)) == {"record", "gate", "draw", "analyse"}  # seeds come from their tapes


@pytest.mark.slow
def test_a_comment_in_a_formula_runs_nothing_again(home: Path, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    formula = tree / "stats" / "equivalence.py"
    formula.write_text(formula.read_text(encoding="utf-8") + "\n# a remark\n", encoding="utf-8")
    assert ladder(*RUN, home=home, tree=tree, own_server=True).returncode == 0
    assert set(tasks_run(home)) <= {"record", "gate", "draw"}  # from its tapes


@pytest.mark.slow
def test_more_samples_generate_only_the_new_ones_and_are_exploratory(home: Path) -> None:
    [before] = ask("SELECT max(sample) + 1 AS samples FROM generation", home=home)
    declared = "SELECT decision_id, next FROM decision WHERE NOT exploratory ORDER BY 1"
    decided = ask(declared, home=home)
    wanted = before["samples"] + 1
    # with this margin no earlier look finds the sources equivalent
    done = ladder(*RUN, "--set", f"samples={wanted}", "--set", "margin_sd=0.001", home=home)
    assert done.returncode == 0, done.stderr
    after = ask("SELECT turn, count(*) AS texts FROM generation WHERE probe = 0 GROUP BY 1", home=home)
    assert {row["turn"]: row["texts"] for row in after} == {
        0: 60 * wanted,
        1: 3 * wanted,
        2: 3 * wanted,
        3: 3 * wanted,
    }
    assert f"look {wanted}, texts: 63 of 63, 63 made now\n" in done.stderr
    assert f"look {wanted}, turns: 9 of 9, 9 made now\n" in done.stderr
    flags = ask(f"SELECT DISTINCT exploratory FROM decision WHERE look = {wanted}", home=home)
    assert flags == [{"exploratory": True}]
    assert ask(declared, home=home) == decided  # what was decided under the plan stands beside it


def test_a_stored_decision_is_computed_again_from_its_evidence(home: Path) -> None:
    [row] = ask("SELECT decision_id, verdict FROM decision WHERE gate = 'seed_effect' LIMIT 1", home=home)
    done = ladder("gates", "entropy_seeds", "--why", row["decision_id"], home=home)
    assert done.returncode == 0
    assert f"Computed again: {row['verdict']}, the same" in done.stdout


@pytest.mark.slow
def test_a_changed_setting_of_the_plan_is_exploratory_and_named(home: Path) -> None:
    done = ladder(*RUN, "--set", "alpha=0.01", home=home)
    assert done.returncode in (0, 3), done.stderr
    assert ask("SELECT field, declared, used FROM deviations", home=home) == [
        {"field": "alpha", "declared": "0.05", "used": "0.01"}
    ]
    [row] = ask("SELECT exploratory FROM latest_run", home=home)
    assert row["exploratory"] is True
    frozen = ladder("freeze", "entropy_seeds", "--set", "alpha=0.01", home=home)
    assert frozen.returncode == 0, frozen.stderr
    again = ladder(*RUN, "--set", "alpha=0.01", home=home)
    assert again.returncode in (0, 3), again.stderr
    mine = "SELECT DISTINCT exploratory FROM decision WHERE plan_hash = (SELECT plan_hash FROM latest_run)"
    assert ask(mine, home=home) == [{"exploratory": True}]  # the texts were there before the plan


@pytest.mark.slow
def test_a_damaged_text_and_a_damaged_analysis_are_made_again(home: Path) -> None:
    decided = ask(DECISIONS, home=home)
    for kind in ("generation", "analysis"):
        damaged = sorted((home / "cache" / kind).rglob("*.json"))[0]
        damaged.write_bytes(damaged.read_bytes()[:-3])
    done = ladder(*RUN, home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert {"generate", "analyse"} <= set(tasks_run(home))
    assert ask(DECISIONS, home=home) == decided


@pytest.mark.slow
def test_another_first_reply_makes_the_later_turns_of_its_conversation_again_and_no_other(home: Path) -> None:
    first = "SELECT step_id, sample_id FROM generation WHERE turn = 1 AND probe = 0 ORDER BY ALL LIMIT 1"
    [row] = ask(first, home=home)
    texts = Products(home, "generation")
    texts.write(
        row["sample_id"], texts.read(row["sample_id"]) | {"text": "a clock said that it was late " * 4}
    )
    before = ask("SELECT turn, sample, sample_id FROM generation WHERE turn > 0", home=home)
    done = ladder(*RUN, home=home)
    assert done.returncode == 0, done.stderr
    made = [line.partition(" made now")[0] for line in done.stderr.splitlines() if "turns:" in line]
    assert sum(line.endswith(", 2") for line in made) == 1
    assert {line[-3:] for line in made if "left" not in line} == {", 0", ", 2"}
    after = ask("SELECT turn, sample, sample_id FROM generation WHERE turn > 0", home=home)
    moved = [new for new in after if new not in before]
    assert len(after) == len(before)
    assert [new["turn"] for new in sorted(moved, key=lambda new: new["turn"])] == [2, 3]
