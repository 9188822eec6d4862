"""What `ladder verify nanodesmo` says: where findings come from, and which answers are none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from deployments.verify_cli import verify as verify_command
from lab import nano_verify
from lab import report_queries_nano as nano
from lab.records import PlanStepRow, StepRow, TestResultRow
from lab.report_group import Asked, ask, read_groups
from lab.store import Store
from tests.small_nano import START, Invented, record_nano

TOLD = Invented()
GONE = {(arm, seed): "killed at its limit" for arm in ("self-analysis",) for seed in TOLD.seeds}


@pytest.fixture
def lab(tmp_path: Path) -> Store:
    lab = Store(tmp_path)
    record_nano(lab, TOLD)
    return lab


def analysed_again(lab: Store, key: str, phase: str) -> str:
    """The answers of a phase once more, later, under another id, as a phase alone leaves them."""
    [step] = lab.read("SELECT * FROM step WHERE step_id = $id", {"id": f"analyse-{phase}-{key}"}).to_dicts()
    tests = lab.read("SELECT * FROM test WHERE step_id = $id", {"id": step["step_id"]}).to_dicts()
    again = StepRow(**step | {"step_id": f"again-{phase}", "recorded_at": START + timedelta(hours=2)})
    rows = [replace(TestResultRow(**row), step_id=again.step_id) for row in tests]
    lab.record([again, PlanStepRow(plan_hash=key, step_id=again.step_id), *rows])
    return again.step_id


def test_findings_are_traced_to_the_analyses_that_gates_judged_and_else_to_the_last(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    key = record_nano(lab, TOLD)
    for phase in ("core", "memory", "generalization"):
        analysed_again(lab, key, phase)
    trace = lab.read("SELECT * FROM figure_trace").to_dicts()
    of = {phase: {row["query"] for row in trace if row["phase"] == phase} for phase in ("core", "memory")}
    assert all(f"'analyse-{phase}-{key}'" in query for phase, queries in of.items() for query in queries)
    second = [row["query"] for row in trace if row["phase"] == "generalization"]
    assert second
    assert all("'again-generalization'" in query for query in second)
    assert len({row["finding"] for row in trace}) == len(trace)


def test_the_trace_fits_80_columns_and_its_queries_give_the_rows_of_the_view(lab: Store) -> None:
    lines = nano_verify.trace(lab)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "leverage · frozen_core · figures/nanodesmo/frozen-weight-test.svg" in lines
    assert "probes · core · no figure of its own" in lines
    queries = [
        " ".join(part.split()) for part in text.replace("\n      ", " ").splitlines() if "FROM" in part
    ]
    trace = lab.read("SELECT * FROM figure_trace").to_dicts()
    assert len(queries) == len(trace)
    assert [lab.read(short).height for short in queries] == [lab.read(row["query"]).height for row in trace]


def test_the_command_prints_the_trace_after_the_checks(
    lab: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_command(tmp_path, "nanodesmo", as_json=False) == 1  # it has no figures
    out = capsys.readouterr().out.splitlines()
    first = next(place for place, line in enumerate(out) if line.startswith("Findings of nanodesmo"))
    assert all(line.startswith(("ok", "FAILED")) for line in out[: first - 1])
    assert "\n".join(nano_verify.trace(lab)) in "\n".join(out[first:])
    verify_command(tmp_path, "nanodesmo", as_json=True)
    assert "Findings" not in capsys.readouterr().out


def test_a_comparison_without_a_number_is_not_well(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    record_nano(lab, Invented(second=False, failed=GONE))
    found = {check.name: check for check in nano_verify.verify(lab, tmp_path, tmp_path / "none.md")}
    assert not found["memory comparison"].ok
    assert found["memory comparison"].said.startswith("INVALID, 0 of 3 comparisons have a number (")
    assert found["controls comparison"].ok


def test_a_suite_that_was_left_out_with_a_reason_is_well(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    key = record_nano(lab, TOLD)
    step = lab.read("SELECT * FROM step WHERE step_id = $id", {"id": f"analyse-memory-{key}"}).to_dicts()[0]
    skip = StepRow(**step | {"step_id": "skip-memory", "experiment": "memory", "arm": None,
                             "reason": "left out; --set memory_suite=true asks it"})  # fmt: skip
    lab.record([skip, PlanStepRow(plan_hash=key, step_id=skip.step_id)])
    [group] = [one for one in read_groups(lab) if one.study == "nanodesmo"]

    def asked(query: str) -> Asked:
        found = ask(lab, query, group.parameters)
        return replace(found, frame=found.frame.clear()) if query == nano.MEMORY else found

    check = nano_verify._comparison(asked, "memory", "memory_matters", nano.MEMORY)
    assert (check.ok, check.said) == (True, "skipped: left out; --set memory_suite=true asks it")
    still = nano_verify._comparison(asked, "controls", "beats_controls", nano.CONTROLS)
    assert "comparisons have a number" in still.said
