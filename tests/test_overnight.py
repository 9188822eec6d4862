"""The night: its budget, its queue over several nights, its routes, and what it survives."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from prefect.states import Completed

from deployments.service import client
from flows.overnight import refuse_unknown
from lab.errors import UsageError
from lab.home import home_id
from lab.night_queue import Candidate, Past, Prediction, budget_seconds, next_fitting, predicted
from lab.records import QueueRow
from lab.store import Store
from tests.ladder_command import (
    ask,
    copy_tree,
    free_port,
    ladder,
    server_url,
    start,
    start_server,
)
from tests.small_night import (
    DECIDED,
    FOUND,
    NIGHTS,
    QUEUE,
    asked,
    left_by_a_night,
    night,
    prepared,
    prepared_server,
    runs_kept,
    until,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home, with spaces and other letters, whose night ran its candidate while its code was edited."""
    folder = tmp_path_factory.mktemp("nächtlich und weit")
    tree = copy_tree(folder / "tree")
    home = left_by_a_night(folder / "home", asked(folder))
    process = start(*night("--budget", "5m"), home=home, tree=tree)
    until(lambda: "/source" in ask(NIGHTS, home=home)[-1]["source"], process)
    for file in ("flows/nanodesmo.py", "models/nano_training.py", "tasks/worker.py"):
        (tree / file).write_text("raise RuntimeError('edited in the night')\n")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert "1 done" in out
    return home


@pytest.mark.long
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
        "SELECT decision_id, next_parameters FROM decision "
        "WHERE next = 'nanodesmo' AND next_parameters <> '{}'",
        home=whole,
    )
    assert len(proposed) == len({row["next_parameters"] for row in gates})  # two gates, one wish, one run
    assert {row["decision_id"] for row in proposed} <= {row["decision_id"] for row in gates}
    [first] = [row for row in ask(NIGHTS, home=whole) if row["night_id"] != "earlier"]
    assert (first["state"], first["continues"]) == ("completed", "earlier")
    assert (whole / "report.html").stat().st_size > 10_000


def test_the_run_of_a_night_has_the_night_as_its_parent(whole: Path) -> None:
    [run] = ask("SELECT flow_run_id, parent_flow_run_id FROM run", home=whole)
    [last] = ask("SELECT flow_run_id FROM night WHERE night_id <> 'earlier'", home=whole)
    assert run["parent_flow_run_id"] == last["flow_run_id"]
    assert run["flow_run_id"] is not None


def test_a_second_night_learns_from_the_first_how_long_it_takes(whole: Path) -> None:
    rows = ask("SELECT item, seconds, missing, study, profile, cpu FROM queue JOIN run USING (run_id, study, "
               "profile) JOIN environment USING (environment_id)", home=whole)  # fmt: skip
    past = [Past(item=r["item"], study=r["study"], profile=r["profile"], cpu=r["cpu"], missing=r["missing"],
                 seconds=r["seconds"]) for r in rows]  # fmt: skip
    one = Candidate(study="nanodesmo", profile="smoke", settings={}, why="a test")
    found = predicted(one, missing=1.0, past=past, declared=1e6, cpu=rows[0]["cpu"])
    assert found.source == "learnt from 1 run"
    assert found.seconds == pytest.approx(rows[0]["seconds"], rel=0.05)


@pytest.mark.slow
def test_a_stopped_and_a_killed_night_are_gone_on_with_and_end_as_if_nothing_had_been(
    whole: Path, tmp_path: Path
) -> None:
    waits = Candidate(study="mechanism", profile="smoke", settings={}, why="a test")
    home = left_by_a_night(tmp_path / "home", asked(tmp_path), waits)
    first = start(*night("--budget", "20s"), home=home, extra=prepared_server())
    until(lambda: bool(list(home.glob("nights/*/source/lab"))), first)
    begun = time.monotonic()
    second = ladder(*night("--budget", "1m"), home=home, extra=prepared_server())
    assert second.returncode == 2, second.stdout
    assert f"(PID {first.pid})" in second.stderr
    assert "a night runs already: night " in second.stderr
    out, err = first.communicate(timeout=120)
    assert first.returncode == 4, err
    assert time.monotonic() - begun < 20.0 + 15.0  # on time, with a step in flight
    assert "stopped at the deadline" in out
    notes = {row["study"]: row["note"] for row in ask(QUEUE, home=home) if row["note"]}
    assert notes["mechanism"].startswith("needs about ")  # what waited says why it was not run
    kept = runs_kept(home)
    [row] = [row for row in ask(QUEUE, home=home) if row["attempt"] == 1]
    assert row["state"] == "left"
    assert [run["state"] for run in ask("SELECT state FROM run", home=home)] == ["cancelled"]

    only = ("--study", "nanodesmo")
    process = start(*night("--budget", "5m", *only), home=home, extra=prepared_server())
    until(lambda: runs_kept(home) > kept, process)
    others = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(others, timeout=20)
    assert alive == []  # its run dies with it

    done = ladder(*night("--budget", "5m", *only), home=home, extra=prepared_server())
    assert "1 done" in done.stdout, done.stderr
    states = [row["state"] for row in ask(NIGHTS, home=home)]
    assert states == ["budget", "budget", "crashed", "completed"]
    assert ask(FOUND, home=home) == ask(FOUND, home=whole)
    assert ask(DECIDED, home=home) == ask(DECIDED, home=whole)


def test_a_run_that_ended_after_its_night_was_killed_is_not_run_again(tmp_path: Path) -> None:
    one = asked(tmp_path)
    home = left_by_a_night(tmp_path / "home", one)
    store = Store(home)
    [row] = [QueueRow(**row) for row in store.read("SELECT * FROM queue").to_dicts()]
    with client(prepared_server()["PREFECT_API_URL"]) as api:
        run = api.create_flow_run_from_deployment(
            api.read_deployment_by_name("nanodesmo/smoke").id,
            idempotency_key=f"{home_id(home)}/earlier/{one.item}/1",
        )
        api.set_flow_run_state(run.id, Completed(), force=True)
        store.record([replace(row, state="running", attempt=1, flow_run_id=str(run.id))])
        done = ladder(*night("--budget", "1m"), home=home, extra=prepared_server())
        assert done.returncode == 0, done.stderr
        [new] = [row for row in store.read("SELECT * FROM queue").to_dicts() if row["night_id"] != "earlier"]
        assert (new["state"], new["attempt"], new["flow_run_id"]) == ("done", 1, str(run.id))
        api.delete_flow_run(run.id)
    assert ask("SELECT count(*) AS n FROM run", home=home) == [{"n": 0}]


@pytest.mark.slow
def test_a_server_restarted_in_the_middle_of_a_night_is_waited_for(whole: Path, tmp_path: Path) -> None:
    home = left_by_a_night(tmp_path / "home", asked(tmp_path))
    port = free_port()
    server = start_server(tmp_path / "prefect", port)
    try:
        process = start(*night("--budget", "5m"), home=home, extra=prepared(server_url(port)))
        until(lambda: runs_kept(home) >= 2, process)
        server.kill()
        server.wait()
        time.sleep(5.0)  # requests fail meanwhile
        server = start_server(tmp_path / "prefect", port)
        out, err = process.communicate(timeout=300)
    finally:
        server.terminate()
        server.wait()
    assert process.returncode == 0, out + err
    assert "1 done" in out
    assert ask(FOUND, home=home) == ask(FOUND, home=whole)
    assert ask(DECIDED, home=home) == ask(DECIDED, home=whole)


@pytest.mark.long
def test_a_run_that_fails_or_is_refused_is_recorded_and_the_night_goes_on(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("short")
    absent = str(tmp_path / "absent.txt")
    gone = Candidate(study="a_study_of_old", profile="smoke", settings={}, why="a test")
    home = left_by_a_night(
        tmp_path / "home", gone, asked(tmp_path, corpus=absent), asked(tmp_path, corpus=str(short))
    )
    done = ladder(*night("--budget", "2m"), home=home, extra=prepared_server())
    assert done.returncode == 1, done.stdout
    unknown, refused, failed = [row for row in ask(QUEUE, home=home) if row["note"]]
    assert (unknown["state"], "unknown study 'a_study_of_old'" in unknown["note"]) == ("refused", True)
    assert (refused["state"], "absent.txt" in refused["note"]) == ("refused", True)
    assert failed["state"] == "left"
    assert "needs 17 or more" in failed["note"]
    assert "the next night tries again" in failed["note"]


def test_a_night_that_was_due_long_ago_starts_nothing() -> None:
    one = Candidate(study="a", profile="smoke", settings={}, why="")
    pair = (one, Prediction(seconds=10.0, source="declared"))
    assert next_fitting([pair], left=-5.0, whole=100.0) is None
    assert next_fitting([pair], left=50.0, whole=100.0) == pair
    larger = replace(one, study="b"), Prediction(seconds=500.0, source="declared")
    assert next_fitting([larger], left=50.0, whole=100.0) == larger
    assert next_fitting([larger], left=2.0, whole=100.0) is None  # it would be stopped as it starts
    nearly = replace(one, study="c"), Prediction(seconds=99.0, source="declared")
    assert next_fitting([nearly], left=97.0, whole=98.0) == nearly  # no night of this length could hold it


@pytest.mark.parametrize("budget", ["8", "0s", "3 days"])
def test_a_budget_that_is_none_is_bad_input(budget: str, tmp_path: Path) -> None:
    done = ladder("night", f"--budget={budget}", home=tmp_path / "home")
    assert done.returncode == 2
    assert "such as 8h, 90m or 45s" in done.stderr


@pytest.mark.parametrize("budget", ["8761h", "99999999999999h", "9" * 400 + "s"])
def test_a_budget_over_a_year_is_refused_by_the_flow(budget: str) -> None:
    assert budget_seconds("8760h") == timedelta(days=365).total_seconds()
    with pytest.raises(UsageError, match="is over a year; allowed: 1s to 8760h"):
        refuse_unknown(budget, "smoke", ())
