"""Single steps of a night: a route outlives a kill, a run without a worker, the copy knows its commit."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.schemas.objects import State, StateType
from prefect.states import Running, Scheduled

from flows import night_run
from flows.night_run import Night, Wishes
from lab.clock import elapsed
from lab.errors import UsageError
from lab.home import HOME_ID, home_id
from lab.lock import held
from lab.machine import git_state, is_alive, this_process
from lab.night_book import CANCELLED, NIGHT_LOCK, NightBook
from lab.night_queue import Candidate
from lab.records import QueueRow
from lab.snapshot_source import copy_source
from lab.store import Store
from tasks import launching
from tasks.ahead import Ahead
from tasks.launching import Launched
from tasks.night_children import Child, Children
from tests.night_rows import DECISION, NIGHT, RUN


class Killed(BaseException):
    """As if the process ended here."""


def night(home: Path, *, climb: bool) -> Night:
    book = NightBook(home=home, night=NIGHT)
    wishes = Wishes(profile="smoke", names=(), only_left=True, climb=climb)
    children = Children(home, home)
    return Night(
        home=home,
        wishes=wishes,
        book=book,
        source=home,
        root="n1",
        children=children,
        ahead=Ahead(home),
        ends=elapsed() + 60,
    )


def test_a_run_that_failed_or_was_refused_leads_to_the_next_smaller_profile(tmp_path: Path) -> None:
    Store(tmp_path).record([NIGHT])
    one = night(tmp_path, climb=False)
    large = Candidate(study="mechanism", profile="fast", settings={"seeds": [0]}, why="a test")
    no_base = Candidate(study="entropy_seeds", profile="full", settings={}, why="a test")
    small = Candidate(study="nanodesmo", profile="smoke", settings={}, why="a test")
    for each in (large, no_base, small):
        one.book.add(each)
    under_way = Launched(
        flow_run_id="f1", deployment="s/p", home=tmp_path, log=tmp_path / "log", children=one.children
    )
    one._settle(one.book.rows[large.item], under_way, ("FAILED", "out of memory"), 1.0)
    one._settle(one.book.rows[small.item], under_way, ("CRASHED", "killed"), 1.0)
    one._refuse(no_base, UsageError("no such model"))
    rows = Store(tmp_path).read("SELECT study, profile, settings, state FROM queue ORDER BY position").rows()
    assert rows[3:] == [
        ("mechanism", "smoke", "{}", "queued"),
        ("entropy_seeds", "laptop", "{}", "queued"),
    ]
    assert [row[3] for row in rows[:3]] == ["left", "refused", "left"]


def test_a_run_cancelled_on_its_page_is_left_and_is_no_failure(tmp_path: Path) -> None:
    Store(tmp_path).record([NIGHT])
    one = night(tmp_path, climb=False)
    large = Candidate(study="mechanism", profile="fast", settings={}, why="a test")
    one.book.add(large)
    under_way = Launched(
        flow_run_id="f1", deployment="s/p", home=tmp_path, log=tmp_path / "log", children=one.children
    )
    one._settle(one.book.rows[large.item], under_way, ("CANCELLED", "cancelled by hand"), 1.0)
    rows = Store(tmp_path).read("SELECT study, profile, state, note FROM queue").rows()
    assert rows == [("mechanism", "fast", "left", CANCELLED)]  # and no smaller profile in its place
    assert (one.failed, one.book.failures(large.item)) == (0, 0)


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_the_process_of_a_run_cancelled_on_its_page_is_ended(
    state: str, tmp_path: Path, prefect_server: None
) -> None:
    children = Children(tmp_path, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE, start_new_session=True
    )
    line, theirs = socket.socketpair()
    log = tmp_path / "log"
    log.touch()

    @flow(name="asleep")
    def asleep() -> None:
        pass

    with launching.client() as api:
        run = api.create_flow_run(asleep, state=Running())
        api.set_flow_run_state(run.id, State(type=StateType(state)), force=True)
    one = Launched(
        flow_run_id=str(run.id),
        deployment="s/p",
        home=tmp_path,
        log=log,
        children=children,
        child=Child(process=process, log=log, line=line),
    )
    found = one.wait(elapsed() + 30.0)
    assert found is not None
    assert found[0] == "CANCELLED"
    assert process.poll() is not None
    theirs.close()


def test_a_server_that_does_not_answer_for_a_while_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([httpx.ConnectError("no"), httpx.ReadTimeout("late"), None, ("COMPLETED", "")])

    def state(_: Launched) -> tuple[str, str] | None:
        found = next(told)
        if isinstance(found, httpx.TransportError):
            raise found
        return found

    monkeypatch.setattr(Launched, "state", state)
    children = Children(tmp_path, tmp_path)
    run = Launched(flow_run_id="f1", deployment="s/p", home=tmp_path, log=tmp_path, children=children)
    assert run.wait(elapsed() + 60.0) == ("COMPLETED", "")


def test_the_budget_counts_from_the_command_and_not_from_when_its_server_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = Wishes(profile="smoke", names=(), only_left=True, climb=False)
    monkeypatch.setattr(night_run, "copy_source", lambda folder: tmp_path / "source")
    monkeypatch.setattr(night_run, "command_began", datetime.now(UTC) - timedelta(seconds=40))
    begun = night_run.begin(tmp_path, wishes, budget_seconds=600.0).book.night
    left = (begun.deadline - datetime.now(UTC).replace(tzinfo=None)).total_seconds()
    assert 550.0 < left <= 560.0


def test_homes_that_share_a_server_have_keys_of_their_own_and_one_home_keeps_its(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def launch(deployment: str, parameters: object, *, key: str, home: Path, **_: Any) -> Launched:
        keys.append(key)
        return Launched(
            flow_run_id="f1", deployment=deployment, home=home, log=home, children=Children(home, home)
        )

    monkeypatch.setattr(night_run, "launch", launch)
    asked = Candidate(study="nanodesmo", profile="smoke", settings={}, why="a test", decision_id="d1")
    for home in (tmp_path / "a", tmp_path / "b", tmp_path / "a"):
        home.mkdir(exist_ok=True)
        one = night(home, climb=False)
        one.book.add(asked)
        one._launched(asked)
    first, second, again = keys
    assert first == again
    assert first != second
    (tmp_path / "a" / HOME_ID).write_text("damaged")
    with pytest.raises(UsageError, match="home-id is damaged; delete it"):
        home_id(tmp_path / "a")


@pytest.mark.parametrize(("climb", "state"), [(True, "queued"), (False, "proposed")])
def test_a_route_is_in_the_queue_before_its_run_counts_as_done(
    climb: bool, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = json.dumps({"profile": "full", "seeds": [0]})
    asks = replace(DECISION, next="nanodesmo", next_parameters=route)
    Store(tmp_path).record([NIGHT, RUN, asks])
    one = night(tmp_path, climb=climb)
    item = Candidate(study="entropy_seeds", profile="smoke", settings={}, why="a test")
    one.book.add(item)
    put = one.book.put

    def until_done(row: QueueRow) -> QueueRow:
        if row.state == "done":
            raise Killed
        return put(row)

    monkeypatch.setattr(one.book, "put", until_done)
    under_way = Launched(
        flow_run_id="f1", deployment="s/smoke", home=tmp_path, log=tmp_path, children=one.children
    )
    with pytest.raises(Killed):
        one._settle(one.book.rows[item.item], under_way, ("COMPLETED", ""), 1.0)
    rows = Store(tmp_path).read("SELECT study, profile, state FROM queue ORDER BY position").rows()
    assert rows == [("entropy_seeds", "smoke", "queued"), ("nanodesmo", "full", state)]


def test_a_run_that_no_worker_came_for_is_executed_here_once_none_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Server:
        def read_flow_run(self, identity: object) -> Any:
            return type("Run", (), {"state": Scheduled()})()

        def __enter__(self) -> Server:
            return self

        def __exit__(self, *error: object) -> None:
            """Nothing to close."""

    there = [True, False]
    monkeypatch.setattr(launching, "client", Server)
    monkeypatch.setattr(launching, "served", lambda deployment: there.pop(0))
    begun: list[str] = []
    run = Launched(
        flow_run_id=str(uuid4()),
        deployment="s/smoke",
        home=tmp_path,
        log=tmp_path / "log",
        children=Children(tmp_path, tmp_path),
    )
    monkeypatch.setattr(Launched, "execute", lambda self: begun.append(self.flow_run_id))
    assert run.state() is None
    assert begun == []
    assert run.state() is None
    assert begun == [run.flow_run_id]


def test_a_run_whose_process_outlived_its_worker_is_waited_for_and_one_without_either_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow(name="orphan")
    def orphan() -> None:
        pass

    monkeypatch.setattr(launching, "served", lambda deployment: False)
    with launching.client() as api:
        run = api.create_flow_run(orphan, state=Running())
    mine = replace(RUN, state="running", ended_at=None, flow_run_id=str(run.id), process=this_process())
    Store(tmp_path).record([mine])
    monkeypatch.setattr(launching, "run_deployment", lambda **told: run)
    children = Children(tmp_path, tmp_path)

    def launched() -> Launched:
        return launching.launch(
            "s/smoke", {}, key="k", name="n", source=tmp_path, home=tmp_path, children=children
        )

    found = launched()
    assert (found.was_lost, found.child) == (False, None)
    assert found.state() is None
    host, pid, start = this_process().rsplit(":", 2)
    Store(tmp_path).record([replace(mine, process=f"{host}:{pid}:1{start}")])  # its number is used again
    assert found.state() is None  # it looks every half a minute
    found.last_looked = -1e9
    with held(tmp_path / "lab.lock"):
        assert found.state() is None  # nobody can say while another program has the store
    found.last_looked = -1e9
    assert found.state() == ("CRASHED", launching.GONE)
    with launching.client() as api:
        run = api.read_flow_run(run.id)
    assert launched().was_lost


def test_a_copy_knows_the_commit_it_was_made_of(tmp_path: Path) -> None:
    source = copy_source(tmp_path)
    told = json.loads((source / "commit.json").read_text())
    assert (told["commit"], told["dirty"]) == git_state()
    done = subprocess.run(
        [sys.executable, "-c", "from lab.machine import git_state; print(git_state()[0])"],
        cwd=source, env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(told["commit"])


def test_a_process_is_known_by_what_the_kernel_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psutil

    name = this_process()
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    assert is_alive(name)
    host, pid, start = name.rsplit(":", 2)
    assert not is_alive(f"{host}:{pid}:1{start}")


def test_no_server_is_started_beside_a_night_that_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments import service

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with (
        held(tmp_path / NIGHT_LOCK),
        pytest.raises(UsageError, match="a night runs with a server"),
    ):
        service.up(tmp_path, [], port=None, report=lambda _: None)
