"""Statuses come from rows: what the views make of replicates, experiments and failures."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flows.int4_disparity import SMOKE, plan
from flows.quant_gates import DISPARITY, PRESERVATION, TRANSFER
from lab.gates import Gate, rule_on
from lab.plan import plan_hash, plan_text
from lab.records import PlanRow, PlanStepRow, Record, StepRow, TestResultRow
from lab.store import Store
from stats.rows import TestRow

PLAN = plan(SMOKE)
HASH = plan_hash(PLAN)
MOMENT = datetime(2026, 11, 21)


def planned() -> PlanRow:
    return PlanRow(
        plan_hash=HASH,
        study=PLAN.study,
        profile="smoke",
        frozen=True,
        recorded_at=MOMENT,
        text=plan_text(PLAN),
    )


def step(name: str, experiment: str, reason: str | None = None, config: str = "{}") -> list[Record]:
    row = StepRow(
        step_id=name,
        study=PLAN.study,
        experiment=experiment,
        arm=None,
        model=None,
        seed=None,
        config=config,
        code="",
        seconds=2.0,
        device="cpu",
        environment_id="e",
        recorded_at=MOMENT,
        reason=reason,
    )
    return [row, PlanStepRow(plan_hash=HASH, step_id=name)]


def answers(experiment: str, verdicts: list[str], look: int = 96) -> list[Record]:
    """One replicate a verdict; a sign before it is the estimate's, a `~` makes it negligible."""
    rows: list[Record] = []
    for i, said in enumerate(verdicts):
        name = f"{experiment}-{i}-{look}"
        found = TestRow(
            family=experiment,
            hypothesis="experiment",
            metric="delta_bits_per_sentence",
            contrast="int4",
            method="made up",
            role="verdict",
            estimate=-2.0 if said[0] == "-" else 2.0,
            verdict=said.lstrip("+-~"),
            negligible=said[0] == "~" or None,
            n=10,
            reason="planted" if "INVALID" in said else None,
        )
        fields: dict[str, Any] = dict(vars(found))
        model = f"cldr-gpt2 seed {i}"
        rows += step(name, "analyse")
        rows.append(TestResultRow(step_id=name, study=PLAN.study, model=model, look=look, **fields))
    return rows


def told(home: Path, *rows: Record) -> Store:
    lab = Store(home)
    lab.record([planned(), *rows])
    return lab


def experiment(lab: Store, name: str) -> dict[str, Any]:
    [row] = lab.read("SELECT * FROM experiments WHERE experiment = $name", {"name": name}).to_dicts()
    return row


def status(lab: Store, name: str) -> str:
    query = "SELECT status FROM research_questions WHERE research_question = $name"
    [row] = lab.read(query, {"name": name}).to_dicts()
    return str(row["status"])


@pytest.mark.parametrize(
    ("verdicts", "expected", "success"),
    [
        (["+DETECTED", "+DETECTED"], "DETECTED", "success"),
        (["-DETECTED", "-DETECTED"], "DETECTED", "success"),
        (["+DETECTED", "-DETECTED"], "INCONCLUSIVE", "replicates disagree"),
        (["+DETECTED", "EQUIVALENT", "+DETECTED"], "DETECTED", "success"),
        (["EQUIVALENT", "-EQUIVALENT"], "EQUIVALENT", "success"),
        (["~DETECTED", "EQUIVALENT"], "EQUIVALENT", "success"),
        (["EQUIVALENT", "+DETECTED"], "INCONCLUSIVE", "replicates disagree"),
        (["+DETECTED", "+DETECTED", "EQUIVALENT", "EQUIVALENT"], "INCONCLUSIVE", "replicates disagree"),
        (["+DETECTED", "+DETECTED", "INVALID"], "INVALID", "invalid: planted"),
        (["+DETECTED"], "INCONCLUSIVE", "one replicate only"),
    ],
)
def test_replicates_must_agree_in_verdict_and_sign(
    tmp_path: Path, verdicts: list[str], expected: str, success: str
) -> None:
    row = experiment(told(tmp_path, *answers("A-003", verdicts)), "A-003")
    assert (row["verdict"], row["success"], row["replicates"]) == (expected, success, len(verdicts))
    signs = {"+": 1, "-": -1}
    assert row["direction"] == (signs[verdicts[0][0]] if expected == "DETECTED" else None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (["+DETECTED"] * 2, ["+DETECTED"] * 2, "CONFIRMED"),
        (["-DETECTED"] * 2, ["-DETECTED"] * 2, "REFUTED"),
        (["+DETECTED"] * 2, ["-DETECTED"] * 2, "PARTIAL"),
        (["EQUIVALENT"] * 2, ["EQUIVALENT"] * 2, "EQUIVALENT"),
        (["EQUIVALENT"] * 2, ["INCONCLUSIVE"] * 2, "PARTIAL"),
        (["INVALID"] * 2, ["EQUIVALENT"] * 2, "PARTIAL"),
        (["INVALID"] * 2, ["INCONCLUSIVE"] * 2, "INVALID"),
        (["INCONCLUSIVE"] * 2, [], "PENDING"),
        ([], [], "PENDING"),
    ],
)
def test_a_question_has_the_status_of_its_parts(
    tmp_path: Path, first: list[str], second: list[str], expected: str
) -> None:
    lab = told(tmp_path, *answers("D-001", first), *answers("D-002", second))
    assert status(lab, "RQ4") == expected
    assert status(lab, "RQ1") == "PENDING"


def test_the_larger_look_stands_and_the_smaller_one_can_still_be_asked(tmp_path: Path) -> None:
    lab = told(
        tmp_path, *answers("A-003", ["INCONCLUSIVE"] * 2), *answers("A-003", ["EQUIVALENT"] * 2, look=192)
    )
    assert experiment(lab, "A-003")["verdict"] == "EQUIVALENT"
    looks = lab.read("SELECT look, verdict FROM experiment_looks ORDER BY look").rows()
    assert looks == [(96, "INCONCLUSIVE"), (192, "EQUIVALENT")]


def test_a_failure_takes_the_verdict_away_until_its_row_is_replaced(tmp_path: Path) -> None:
    rows = answers("A-003", ["EQUIVALENT"] * 2)
    lab = told(tmp_path, *rows, *step("mark", "A-003", "stopped at its time limit of 5 s"))
    row = experiment(lab, "A-003")
    assert row["verdict"] is None
    assert row["success"] == "failed: stopped at its time limit of 5 s"
    assert status(lab, "RQ1") == "PENDING"
    lab.record(step("mark", "A-003"))
    assert experiment(lab, "A-003")["verdict"] == "EQUIVALENT"


def test_a_failure_at_one_look_does_not_void_what_the_next_one_answers(tmp_path: Path) -> None:
    failed = step("mark 96", "A-003", "the worker died", '{"look": 96}')
    whole = answers("A-003", ["EQUIVALENT"] * 2, look=192)
    lab = told(tmp_path, *answers("A-003", ["EQUIVALENT"]), *failed, *whole)
    assert experiment(lab, "A-003")["success"] == "failed: the worker died"
    lab.record(step("mark 192", "A-003", config='{"look": 192}'))
    assert experiment(lab, "A-003")["success"] == "success"
    assert status(lab, "RQ1") == "EQUIVALENT"


HARM, HELP, NONE = ["-DETECTED"] * 2, ["+DETECTED"] * 2, ["EQUIVALENT"] * 2


@pytest.mark.parametrize(
    ("gate", "said", "verdict", "sentence"),
    [
        (PRESERVATION, [HELP, HARM, NONE], "DETECTED", "1 of 3 budgets beat random masks, 1 do worse"),
        (PRESERVATION, [HARM, HARM, HARM], "INCONCLUSIVE", "no budget is shown to beat random masks, 3 of 3"),
        (PRESERVATION, [NONE, NONE, NONE], "EQUIVALENT", "no budget helps beyond the margin"),
        (TRANSFER, [HELP, HARM], "INCONCLUSIVE", "neither shown nor excluded"),
        (TRANSFER, [HARM, HARM], "DETECTED", "both other architectures show one, of the same sign"),
    ],
)
def test_what_harms_is_not_said_to_help(
    tmp_path: Path, gate: Gate, said: list[list[str]], verdict: str, sentence: str
) -> None:
    asked = ("B-001", "B-002", "B-003") if gate is PRESERVATION else ("D-001", "D-002")
    rows = [row for name, one in zip(asked, said, strict=True) for row in answers(name, one)]
    [evidence] = told(tmp_path, *rows).read(gate.sql, {"plan_hash": HASH, "look": 96}).to_dicts()
    found = rule_on(gate, evidence, last_look=True)
    assert found.verdict == verdict
    assert sentence in found.sentence.lower()


@pytest.mark.parametrize(("cost", "is_said"), [(0.2, True), (3.0, False)])
def test_an_equivalence_says_where_there_was_little_to_find(
    tmp_path: Path, cost: float, is_said: bool
) -> None:
    damage = [
        replace(row, estimate=cost, low=cost - 0.1, high=cost + 0.1, margin=1.0)
        if isinstance(row, TestResultRow)
        else row
        for row in answers("A-002", ["+DETECTED"] * 2)
    ]
    lab = told(tmp_path, *damage, *answers("A-003", NONE))
    [evidence] = lab.read(DISPARITY.sql, {"plan_hash": HASH, "look": 96}).to_dicts()
    said = rule_on(DISPARITY, evidence, last_look=True).sentence
    assert ("there was little to find" in said) == is_said


def test_experiments_that_were_not_run_say_so(tmp_path: Path) -> None:
    lab = told(tmp_path)
    rows = lab.read("SELECT experiment, verdict, success FROM experiments").rows()
    assert len(rows) == 11
    assert {row[1:] for row in rows} == {(None, "not run")}


def test_rows_of_another_plan_do_not_count(tmp_path: Path) -> None:
    lab = told(tmp_path)
    moved = [
        replace(row, plan_hash="another") if isinstance(row, PlanStepRow) else row
        for row in answers("A-003", ["EQUIVALENT"] * 2)
    ]
    lab.record(moved)
    assert experiment(lab, "A-003")["success"] == "not run"
