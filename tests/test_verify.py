"""What `ladder verify` says of any study: what a run leaves is looked at, and what is wrong is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from deployments.verify_cli import verify
from flows.registry import studies
from lab.checks import study_checks
from lab.errors import UsageError
from lab.plan import Plan, freeze, plan_hash
from lab.records import ArtifactRow, DecisionRow, PlanStepRow, RunRow
from lab.store import Store
from tests.night_rows import NOON
from tests.small_study import PROFILE, STUDY, record_study


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which a study was decided and left a file; its plan is the one that is frozen."""
    store = Store(tmp_path)
    record_study(store)
    run = store.read("SELECT * FROM run").row(0, named=True)
    (tmp_path / "weights").write_bytes(b"x")
    sha256 = hashlib.sha256(b"x").hexdigest()
    store.record(
        [
            ArtifactRow(step_id="made", path="weights", kind="checkpoint", sha256=sha256, bytes=1),
            PlanStepRow(plan_hash=run["plan_hash"], step_id="made"),
        ]
    )
    return tmp_path


def failed(home: Path) -> dict[str, str]:
    """What does not hold, by the name of the check."""
    return {check.name: check.said for check in study_checks(Store(home), home, STUDY) if not check.ok}


def test_a_plan_that_was_never_frozen_here_is_all_that_is_wrong(home: Path) -> None:
    assert failed(home) == {
        "plan": f"none of {STUDY}/{PROFILE} is frozen in this home; `ladder freeze {STUDY}`"
    }


def test_a_frozen_plan_is_named_and_a_run_beside_it_is_exploratory(home: Path) -> None:
    study = studies()[STUDY]
    plan: Plan = study.plan(study.profiles[PROFILE])
    freeze(home, plan, now=NOON)
    assert failed(home) == {}
    [check] = [check for check in study_checks(Store(home), home, STUDY) if check.name == "plan"]
    assert plan_hash(plan) in check.said
    assert check.said.endswith("which the run departs from: exploratory")


def test_a_verdict_that_does_not_follow_from_its_evidence_is_found(home: Path) -> None:
    row = DecisionRow(**Store(home).read("SELECT * FROM decision LIMIT 1").row(0, named=True))
    other = "INVALID" if row.verdict != "INVALID" else "DETECTED"
    Store(home).record([replace(row, verdict=other)])
    assert f"{row.gate} is {other}, by its evidence {row.verdict}" in failed(home)["gates"]


def test_a_file_that_is_gone_or_changed_is_named(home: Path) -> None:
    (home / "weights").write_bytes(b"y")
    assert failed(home)["file"] == "weights is not what was written; run the study again"
    (home / "weights").unlink()
    assert failed(home)["file"].startswith("weights is missing")
    assert failed(home)["files"] == "0 of 1 have their SHA-256"


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "folder"])
def test_a_row_that_names_a_place_outside_or_no_file_is_not_followed(home: Path, path: str) -> None:
    (home / "folder").mkdir()
    (home.parent / "outside").write_bytes(b"x")
    row = ArtifactRow(
        step_id="made", path=path, kind="checkpoint", sha256=hashlib.sha256(b"x").hexdigest(), bytes=1
    )
    Store(home).record([row])
    assert failed(home)["file"] == f"{path} is missing; run the study again"


def test_a_home_that_is_named_by_a_detour_has_its_files(home: Path) -> None:
    detour = home / "folder" / ".."
    (home / "folder").mkdir()
    checks = study_checks(Store(home), detour, STUDY)
    assert [check.said for check in checks if check.name == "files"] == ["1 of 1 have their SHA-256"]


def test_a_run_that_did_not_end_is_not_well(home: Path) -> None:
    row = RunRow(**Store(home).read("SELECT * FROM run LIMIT 1").row(0, named=True))
    Store(home).record([replace(row, state="failed", note="OSError: disk full")])
    assert "failed (OSError: disk full); run it again" in failed(home)["run"]


def test_a_later_run_of_a_single_phase_which_asks_no_gate_is_not_the_study(home: Path) -> None:
    row = RunRow(**Store(home).read("SELECT * FROM run LIMIT 1").row(0, named=True))
    later = row.started_at + timedelta(days=1)
    Store(home).record([replace(row, run_id="part", state="completed", started_at=later)])
    assert "gates" not in failed(home)
    Store(home).record([replace(row, run_id="part", state="failed", note="no text", started_at=later)])
    assert "no text" in failed(home)["run"]


def test_the_command_ends_with_1_for_what_fails_or_has_not_run_and_with_2_for_no_study(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(home, STUDY, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith((f"ok      {STUDY} ", f"FAILED  {STUDY} ")) for line in lines)
    for name in set(studies()) - {STUDY, "nanodesmo"}:
        assert verify(home, name, as_json=False) == 1
        assert capsys.readouterr().out == (
            f"FAILED  {name} run: no run of {name} is in the store; `ladder run {name}`\n"
        )
    with pytest.raises(UsageError, match="did you mean entropy_seeds"):
        verify(home, "entropy_seed", as_json=False)
