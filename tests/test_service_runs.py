"""Runs of a real server and worker that die, fail or are cancelled: noticed, told, ended, gone on with."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.states import Cancelling

from deployments import automations, environment, processes, service
from lab.store import Store
from tests.served_coin import NIGHT, Lab, begin, served, state_of, wait_for

ENDED_SECONDS = 25.0
"""From a person's click to the end of every process; after 30 s Prefect would kill what is left."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from served(tmp_path_factory)


def at_work(found: environment.Service) -> list[environment.Process]:
    """Processes of runs."""
    return [one for one in processes.marked(found.mark) if one not in (found.server, found.worker)]


def training(found: environment.Service) -> list[environment.Process]:
    """Processes of `tasks.killable` among them."""
    return [one for one in at_work(found) if "tasks.worker" in psutil.Process(one.pid).cmdline()]


def cancel(lab: Lab, run: UUID) -> float:
    """Cancel a run as its page does; returns how many seconds until all that worked on it had ended."""
    found = environment.read_service(lab.home)
    assert found is not None
    working = at_work(found)
    began = time.monotonic()
    with service.client(found.url) as api:
        api.set_flow_run_state(run, Cancelling(message="by a person"))
    wait_for(lambda: not any(one.alive() for one in working), "what worked on the run ends")
    took = time.monotonic() - began
    wait_for(lambda: state_of(lab, run).is_final(), "the run is cancelled")
    assert state_of(lab, run).is_cancelled()
    return took


def heartbeats(lab: Lab, run: UUID) -> int:
    """How many heartbeats of a run the server has taken."""
    database = sqlite3.connect(lab.home / "prefect" / "prefect.db")
    [(found,)] = database.execute(
        "SELECT count(*) FROM events WHERE event = 'prefect.flow-run.heartbeat' AND resource_id = ?",
        (f"prefect.flow-run.{run}",),
    ).fetchall()
    database.close()
    return int(found)


@pytest.mark.slow
def test_a_run_whose_worker_and_process_are_gone_is_marked_as_crashed(lab: Lab) -> None:
    found = lab.up()
    with service.client(found.url) as api:
        [usual] = api.read_automations_by_name(automations.DEAD_RUNS)
        hasty = automations.dead_runs(30)
        hasty.trigger.within = timedelta(seconds=15)  # the run dies before its second heartbeat
        api.update_automation(usual.id, hasty)
    try:
        run = begin(lab, "coin-toss/long")
        wait_for(lambda: heartbeats(lab, run), "the server has heard of the run")
        assert found.worker is not None
        gone = [found.worker, *at_work(found)]
        for process in gone:
            os.kill(process.pid, signal.SIGKILL)
        assert processes.wait_gone(gone, timeout_seconds=30.0)
        assert state_of(lab, run).is_running()
        wait_for(lambda: state_of(lab, run).is_final(), "the server notices")
        assert state_of(lab, run).is_crashed()
        assert "no sign of life" in str(state_of(lab, run).message)
    finally:
        with service.client(found.url) as api:
            api.update_automation(usual.id, automations.dead_runs(automations.beat_seconds()))
        lab.up()


@pytest.mark.slow
def test_a_note_is_sent_when_a_run_fails_once_it_is_said_where_to(lab: Lab) -> None:
    taken: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing on the terminal."""

    found = lab.up()
    with HTTPServer(("127.0.0.1", 0), Listener) as listener, service.client(found.url) as api:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        block = api.read_block_document_by_name(automations.BLOCK, automations.BLOCK_TYPE)
        assert block.data["url"] == automations.NOWHERE
        data = {**block.data, "url": f"http://127.0.0.1:{listener.server_port}/notes"}
        api.update_block_document(block.id, BlockDocumentUpdate(data=data))
        [notes] = api.read_automations_by_name(automations.NOTES)
        assert not notes.enabled
        api.resume_automation(notes.id)
        try:
            good, bad = begin(lab, "coin-toss/smoke"), begin(lab, "coin-toss/smoke", sides=[])
            wait_for(lambda: taken, "the note")
            wait_for(lambda: state_of(lab, good).is_final(), "the other run ends")
            assert state_of(lab, bad).is_failed()
        finally:
            api.pause_automation(notes.id)
            listener.shutdown()
    [note] = taken
    assert "coin-toss/smoke" in note
    assert "a coin without sides" in note
    assert f"{found.url.removesuffix('/api')}/" in note


def kept_steps(lab: Lab) -> dict[str, int]:
    """Unfinished trainings -> the step they are kept at."""
    read = {
        file.parent.parent.name: json.loads(file.read_text(encoding="utf-8"))["body"]
        for file in lab.home.glob("models/nano_run-*/state/trained.json")
    }
    return {name: told["step"] for name, told in read.items() if told.get("valid_loss_nats") is None}


@pytest.mark.long
def test_a_cancelled_run_ends_within_30_s_with_its_trainings_and_goes_on_when_run_again(lab: Lab) -> None:
    found = lab.up()
    long = {"profile": "smoke", "steps": 60_000, "processes": 1}  # minutes a training, one after the other
    run = begin(lab, "nanodesmo/smoke", **long)
    wait_for(lambda: any(step >= 500 for step in kept_steps(lab).values()), "trainings are under way", 180.0)
    assert training(found)
    assert cancel(lab, run) < ENDED_SECONDS
    assert at_work(found) == []
    rows = Store(lab.home).read("SELECT state, note FROM run WHERE flow_run_id = $id", {"id": str(run)})
    assert rows.to_dicts() == [
        {"state": "cancelled", "note": "interrupted; run it again to go on where it stopped"}
    ]
    before = kept_steps(lab)
    again = begin(lab, "nanodesmo/smoke", **long)

    def went_on() -> bool:
        now = kept_steps(lab)
        assert all(now[name] >= step for name, step in before.items())  # from the start it would be 250
        return any(now[name] > step for name, step in before.items())

    wait_for(went_on, "trainings go on")
    assert cancel(lab, again) < ENDED_SECONDS


@pytest.mark.slow
def test_a_cancelled_night_ends_its_run_too_and_leaves_it_to_the_next(lab: Lab) -> None:
    found = lab.up()
    night = begin(lab, NIGHT, budget="1h", profile="fast", studies=["nanodesmo"], climb=False)
    wait_for(lambda: training(found), "the night's run trains", 240.0)  # two cold starts, one after the other
    assert cancel(lab, night) < ENDED_SECONDS
    wait_for(lambda: at_work(found) == [], "nothing is left")
    with service.client(found.url) as api:
        fast = api.read_deployment_by_name("nanodesmo/fast").id
        [child] = [run.id for run in api.read_flow_runs() if run.deployment_id == fast]
    assert state_of(lab, child).is_cancelled()
    rows = Store(lab.home).read(
        "SELECT n.state, q.state AS item FROM night n JOIN queue q USING (night_id) "
        "WHERE q.study = 'nanodesmo'"
    )
    assert rows.to_dicts() == [{"state": "cancelled", "item": "left"}]


@pytest.mark.long
def test_a_night_that_the_worker_runs_completes_and_says_what_is_left(lab: Lab) -> None:
    """Told as `prefect deployment run 'overnight/nightly' --param profile=smoke --param budget=2s` does."""
    lab.up()
    night = begin(lab, NIGHT, budget="2s", profile="smoke", studies=["entropy_control"], climb=False)
    wait_for(lambda: state_of(lab, night).is_final(), "the night ends", 120.0)
    assert state_of(lab, night).is_completed()
    assert "1 left" in str(state_of(lab, night).message)
    [row] = Store(lab.home).read("SELECT state, note FROM queue WHERE study = 'entropy_control'").to_dicts()
    assert row["state"] == "left"
    assert row["note"].startswith("needs about ")
