"""The night: its budget, its queue over several nights, its routes, and what it survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.injection_gates import gates_at
from flows.night_run import as_json, settled
from flows.registry import studies
from lab.fingerprint import canonical
from lab.gates import Gate
from lab.night_queue import Candidate, Past, Prediction, next_fitting, predicted
from lab.records import NightRow, QueueRow
from lab.store import Store
from lab.study import Study
from lab.tables import utc_now
from tests.ladder_command import ask, copy_tree, ladder, shared_server, start
from tests.test_nanodesmo_flow import SMALL, regimes

TINY = {**SMALL, "seeds": [0, 1]}
QUEUE = "SELECT study, state, attempt, note, seconds FROM queue ORDER BY night_id, position"
NIGHTS = "SELECT night_id, state, continues, coalesce(source, '') AS source FROM night ORDER BY started_at"
FOUND = """
SELECT (SELECT count(*) FROM reaction) AS reactions, (SELECT count(*) FROM metric) AS metrics,
       (SELECT count(*) FROM test) AS tests, (SELECT count(*) FROM step) AS steps
"""
DECIDED = "SELECT gate, verdict, sentence, evidence FROM decision ORDER BY gate"


def left_by_a_night(home: Path, folder: Path, **changes: object) -> Path:
    """A home in which an earlier night left one small candidate, and nothing else."""
    told = TINY | {"regimes": str(regimes(folder)), **changes}
    one = Candidate(study="nanodesmo", profile="smoke", settings=told, why="a test")
    home.mkdir(parents=True, exist_ok=True)
    now = utc_now() - timedelta(days=1)
    night = NightRow(
        night_id="earlier",
        profile="smoke",
        budget_seconds=60.0,
        started_at=now,
        deadline=now,
        ended_at=now,
        state="budget",
        continues=None,
        process="elsewhere:1:1",
        flow_run_id=None,
        source=None,
        note=None,
    )
    row = QueueRow(
        night_id="earlier",
        item=one.item,
        position=0,
        study=one.study,
        profile=one.profile,
        settings=canonical(told),
        why=one.why,
        decision_id=None,
        state="left",
        expected_seconds=None,
        expected_from=None,
        missing=None,
        attempt=0,
        flow_run_id=None,
        run_id=None,
        started_at=None,
        seconds=None,
        note=None,
    )
    Store(home).record([night, row])
    return home


def night(*more: str) -> tuple[str, ...]:
    """A night of what is left, that proposes and does not climb."""
    return ("night", "--only-left", "--no-climb", *more)


def until(met: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120.0) -> None:
    """Wait for something to happen while a process lives."""
    deadline = time.monotonic() + seconds
    while not met():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs_kept(home: Path) -> int:
    """Trainings that are kept."""
    return len(list(home.glob("models/nano_run-*/state/trained.json")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home, with spaces and other letters, whose night ran its candidate while its code was edited."""
    folder = tmp_path_factory.mktemp("nächtlich und weit")
    tree = copy_tree(folder / "tree")
    home = left_by_a_night(folder / "home", folder)
    process = start(*night("--budget", "5m"), home=home, tree=tree)
    until(lambda: "/source" in ask(NIGHTS, home=home)[-1]["source"], process)
    for file in ("flows/nanodesmo.py", "models/nano_training.py", "tasks/worker.py"):
        (tree / file).write_text("raise RuntimeError('edited in the night')\n")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert "1 done" in out
    return home


def test_code_edited_during_a_night_changes_nothing_that_runs_in_it(whole: Path) -> None:
    [last] = ask("SELECT source FROM night WHERE night_id <> 'earlier'", home=whole)
    assert "edited in the night" not in (whole / last["source"] / "tasks/worker.py").read_text()
    assert ask("SELECT state FROM run", home=whole) == [{"state": "completed"}]


def test_a_night_takes_up_what_an_earlier_one_left_and_proposes_what_its_gates_name(whole: Path) -> None:
    rows = ask(
        "SELECT study, profile, state, why, decision_id, run_id, expected_from FROM queue "
        "WHERE night_id <> 'earlier' ORDER BY position",
        home=whole,
    )
    assert rows[0]["state"] == "done"
    assert rows[0]["run_id"] == ask("SELECT run_id FROM run", home=whole)[0]["run_id"]
    assert "left by night earlier" in rows[0]["why"]
    assert rows[0]["expected_from"] == "declared"
    proposed = rows[1:]
    assert proposed
    assert all(row["state"] == "proposed" and row["profile"] != "smoke" for row in proposed)
    gates = ask(
        "SELECT decision_id FROM decision WHERE next = 'nanodesmo' AND next_parameters <> '{}'", home=whole
    )
    assert {row["decision_id"] for row in proposed} == {row["decision_id"] for row in gates}
    [first] = [row for row in ask(NIGHTS, home=whole) if row["night_id"] != "earlier"]
    assert (first["state"], first["continues"]) == ("completed", "earlier")
    assert (whole / "report.html").stat().st_size > 10_000


def test_the_run_of_a_night_has_the_night_as_its_parent(whole: Path) -> None:
    [run] = ask("SELECT flow_run_id, parent_flow_run_id FROM run", home=whole)
    [last] = ask("SELECT flow_run_id FROM night WHERE night_id <> 'earlier'", home=whole)
    assert run["parent_flow_run_id"] == last["flow_run_id"]
    assert run["flow_run_id"] is not None


def test_a_second_night_learns_from_the_first_how_long_it_takes(whole: Path) -> None:
    rows = ask("SELECT seconds, missing, study, profile, cpu FROM queue JOIN run USING (run_id, study, "
               "profile) JOIN environment USING (environment_id)", home=whole)  # fmt: skip
    past = [Past(study=r["study"], profile=r["profile"], cpu=r["cpu"], missing=r["missing"],
                 seconds=r["seconds"]) for r in rows]  # fmt: skip
    one = Candidate(study="nanodesmo", profile="smoke", settings={}, why="a test")
    found = predicted(one, missing=1.0, past=past, declared=1e6, cpu=rows[0]["cpu"])
    assert found.source == "learnt from 1 runs"
    assert found.seconds == pytest.approx(rows[0]["seconds"], rel=0.05)


def test_a_night_stops_on_time_with_a_step_in_flight_which_the_next_night_resumes(
    whole: Path, tmp_path: Path
) -> None:
    home = left_by_a_night(tmp_path / "home", tmp_path)
    process = start(*night("--budget", "20s"), home=home)
    until(lambda: bool(list(home.glob("nights/*/source/lab"))), process)
    begun = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert time.monotonic() - begun < 20.0 + 15.0
    assert "stopped at the deadline" in out
    kept = runs_kept(home)
    assert kept > 0
    [row] = [row for row in ask(QUEUE, home=home) if row["attempt"] == 1]
    assert row["state"] == "left"
    assert [run["state"] for run in ask("SELECT state FROM run", home=home)] == ["cancelled"]
    done = ladder(*night("--budget", "5m"), home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert "1 done" in done.stdout
    assert ask(FOUND, home=home) == ask(FOUND, home=whole)
    assert ask(DECIDED, home=home) == ask(DECIDED, home=whole)


def test_a_killed_night_takes_its_run_with_it_and_the_next_one_ends_as_if_nothing_had_been(
    whole: Path, tmp_path: Path
) -> None:
    home = left_by_a_night(tmp_path / "home", tmp_path)
    for kept in (3, 20):
        process = start(*night("--budget", "5m"), home=home)
        until(lambda kept=kept: runs_kept(home) >= kept, process)
        others = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _, alive = psutil.wait_procs(others, timeout=20)
        assert alive == []
    done = ladder(*night("--budget", "5m"), home=home, own_server=True)
    assert "1 done" in done.stdout, done.stderr
    states = [row["state"] for row in ask(NIGHTS, home=home)]
    assert states == ["budget", "crashed", "crashed", "completed"]
    assert ask(FOUND, home=home) == ask(FOUND, home=whole)
    assert ask(DECIDED, home=home) == ask(DECIDED, home=whole)


def test_a_second_night_refuses_and_names_the_first(tmp_path: Path) -> None:
    home = left_by_a_night(tmp_path / "home", tmp_path)
    first = start(*night("--budget", "5m"), home=home)
    try:
        until(lambda: bool(list(home.glob("nights/*/source/lab"))), first)
        second = ladder(*night("--budget", "1m"), home=home, own_server=True)
        assert second.returncode == 2, second.stdout
        assert f"(PID {first.pid})" in second.stderr
        assert "a night runs already: night " in second.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


def test_a_run_that_fails_is_recorded_and_the_night_goes_on(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("short")
    home = left_by_a_night(tmp_path / "home", tmp_path, corpus=str(short))
    done = ladder(*night("--budget", "2m"), home=home, own_server=True)
    assert done.returncode == 1, done.stdout
    [row] = [row for row in ask(QUEUE, home=home) if row["note"]]
    assert row["state"] == "left"
    assert "needs 17 or more" in row["note"]
    assert "the next night tries again" in row["note"]
    missing = left_by_a_night(tmp_path / "other", tmp_path, corpus=str(tmp_path / "absent.txt"))
    done = ladder(*night("--budget", "2m"), home=missing, own_server=True)
    assert done.returncode == 1
    [row] = [row for row in ask(QUEUE, home=missing) if row["note"]]
    assert (row["state"], "absent.txt" in row["note"]) == ("refused", True)


def test_a_night_that_was_due_long_ago_starts_nothing() -> None:
    one = Candidate(study="a", profile="smoke", settings={}, why="")
    pair = (one, Prediction(seconds=10.0, source="declared"))
    assert next_fitting([pair], left=-5.0, budget=100.0) is None
    assert next_fitting([pair], left=50.0, budget=100.0) == pair
    larger = replace(one, study="b"), Prediction(seconds=500.0, source="declared")
    assert next_fitting([larger], left=50.0, budget=100.0) == larger


@pytest.mark.parametrize("budget", ["8", "0s", "3 days"])
def test_a_budget_that_is_none_is_bad_input(budget: str, tmp_path: Path) -> None:
    done = ladder("night", f"--budget={budget}", home=tmp_path / "home")
    assert done.returncode == 2
    assert "such as 8h, 90m or 45s" in done.stderr


def _gates(study: Study, settings: Any) -> tuple[Gate, ...]:
    """As a run asks them: injection names the model that follows on the one it was run with."""
    if study.name == "direct_injection":
        return gates_at(settings.model, settings.rungs)
    return study.plan(settings).gates


def routes() -> list[tuple[str, str, str, str, str, dict[str, Any]]]:
    """Study, profile, gate, verdict, flow and settings of every route of every plan that leads to a flow."""
    return [
        (study.name, profile, gate.name, verdict, route.next, dict(route.parameters))
        for study in studies().values()
        for profile, settings in study.profiles.items()
        for gate in _gates(study, settings)
        for verdict, route in gate.routes.items()
        if route.next in studies()
    ]


def test_every_route_to_a_flow_is_launched_and_taken_by_the_server() -> None:
    """Each is created as a run of its deployment, which the server checks against the flow's parameters."""
    from deployments import register
    from deployments.service import client

    assert len(routes()) >= 8
    with client(shared_server()) as api:
        register.prepare_server(api)
        register.register(studies().values(), api)
        for name, of, gate, verdict, flow, parameters in routes():
            told = dict(parameters)
            study = studies()[flow]
            profile = str(told.pop("profile", of))
            if profile not in study.profiles:
                continue  # the night says so and takes no such route
            one = Candidate(study=flow, profile=profile, settings=told, why=f"{name} {gate} {verdict}")
            deployment = api.read_deployment_by_name(f"{study.name.replace('_', '-')}/{profile}")
            run = api.create_flow_run_from_deployment(
                deployment.id, parameters={"settings": as_json(settled(study, one))}
            )
            given = api.read_flow_run(run.id).parameters["settings"]
            assert {field: given[field] for field in told} == json.loads(json.dumps(told))
            api.delete_flow_run(run.id)
