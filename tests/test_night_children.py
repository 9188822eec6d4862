"""The process of a night's runs: used again, replaced when a run fails, ended with its night."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.states import Pending

from deployments.service import client
from lab.clock import elapsed
from lab.home import OWN_SERVER
from tasks import launching, night_child, night_children
from tasks.launching import Launched
from tasks.night_children import Child, Children
from tests.ladder_command import ROOT, shared_server

FLOWS = """
import atexit
import os
import time
from prefect import flow

@flow
def trial(kind: str) -> None:
    print("process", os.getpid(), flush=True)
    if kind == "fails and stays":
        atexit.register(time.sleep, 120.0)
    if kind.startswith("fails"):
        raise ValueError("it was asked to")
    if kind == "beats":
        from prefect.settings import get_current_settings
        print("beats", get_current_settings().flows.heartbeat_frequency, flush=True)
    if kind == "large":
        global held
        held = bytearray(b"x") * 2**31
    if kind == "long":
        time.sleep(120.0)
    if kind.startswith("reads "):
        from models.caching_trial import told
        from tasks.killable import worker
        print("read", "run", *told(path=kind[6:]), flush=True)
        with worker() as process:
            found = process.call(
                "models.caching_trial:told", {"path": kind[6:]}, seconds=60.0, report=print
            )
        print("read", "worker", *found, flush=True)
"""
CACHES = """
import functools, os
from pathlib import Path

def told(path, *, report=None):
    return os.getpid(), read(path)

@functools.lru_cache
def read(path):
    return (Path(path) / "text").read_text()
"""
Execute = Callable[[str], Launched]


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    source = tmp_path / "source"
    source.mkdir()
    for package in ("flows", "lab", "stats", "tasks", "deployments"):
        (source / package).symlink_to(ROOT / package)
    (source / "models").mkdir()
    (source / "models" / "__init__.py").write_text(f"__path__.append({str(ROOT / 'models')!r})\n")
    (source / "models" / "caching_trial.py").write_text(CACHES)
    (source / "trial_flows.py").write_text(FLOWS)
    monkeypatch.setenv("PREFECT__FLOW_ENTRYPOINT", "trial_flows.trial")
    monkeypatch.setenv("PREFECT_API_URL", shared_server())
    monkeypatch.setattr(launching, "client", lambda: client(shared_server()))
    found = Children(source, tmp_path / "logs")
    yield found
    found.dismiss()
    found.close()


@pytest.fixture
def execute(children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Give a run of the trial flow to the children."""
    monkeypatch.syspath_prepend(str(tmp_path / "source"))
    from trial_flows import trial

    def begun(kind: str) -> Launched:
        with client(shared_server()) as api:
            run = api.create_flow_run(trial, parameters={"kind": kind}, state=Pending())
        log = tmp_path / "logs" / f"{run.id}.log"
        found = Launched(flow_run_id=str(run.id), deployment="s/p", home=tmp_path, log=log, children=children)
        found.execute()
        return found

    return begun


def process_of(run: Launched) -> int:
    [line] = [line for line in run.log.read_text().splitlines() if line.startswith("process ")]
    return int(line.split()[1])


def process_id(line: str) -> str:
    return line.split()[2]


def ended(run: Launched) -> str:
    found = run.wait(elapsed() + 60.0)
    assert found is not None
    return found[0]


def test_runs_follow_each_other_in_one_process_each_with_its_own_log(execute: Execute) -> None:
    first = execute("ends")
    assert ended(first) == "COMPLETED"
    second = execute("ends")
    assert ended(second) == "COMPLETED"
    assert process_of(first) == process_of(second)
    assert second.flow_run_id not in first.log.read_text()


def test_a_run_that_fails_takes_its_process_with_it(execute: Execute) -> None:
    first = execute("fails")
    assert ended(first) == "FAILED"
    second = execute("ends")
    assert ended(second) == "COMPLETED"
    assert process_of(first) != process_of(second)


def test_a_process_that_is_killed_while_it_rests_is_replaced(execute: Execute) -> None:
    first = execute("ends")
    assert ended(first) == "COMPLETED"
    assert first.child is not None
    while not first.child.is_through:
        time.sleep(0.1)
    os.kill(first.child.process.pid, signal.SIGKILL)
    second = execute("ends")
    assert ended(second) == "COMPLETED"
    assert process_of(first) != process_of(second)


def test_ctrl_c_while_a_process_is_waited_for_does_not_lose_it(
    execute: Execute, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = execute("ends")
    assert ended(first) == "COMPLETED"
    assert first.child is not None

    def interrupted(_: Child) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(Child, "rests", interrupted)
        with pytest.raises(KeyboardInterrupt):
            children.take()
    children.dismiss()
    children.close()
    assert first.child.process.poll() == 0  # it handed over its last events and ended by itself


def test_a_log_that_is_there_is_begun_anew_and_its_name_may_have_any_sign(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    first = execute("ends")
    assert ended(first) == "COMPLETED"
    assert first.child is not None
    while not first.child.is_through:
        time.sleep(0.1)
    log = tmp_path / "logs" / "two\nlines é.log"
    log.write_text("of an earlier night\n")
    child = first.children.take()
    child.execute("no-such-run", log)  # Prefect says so, and the process ends
    assert child.process.wait(timeout=60.0) == 1
    child.let_go()
    assert "Invalid flow run id" in log.read_text()
    assert "of an earlier night" not in log.read_text()


def test_a_process_that_does_not_end_is_killed(
    execute: Execute, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night_children, "LAST_WORDS_SECONDS", 2.0)
    first = execute("fails and stays")
    assert ended(first) == "FAILED"
    assert first.child is not None
    assert ended(execute("ends")) == "COMPLETED"  # in another, at once
    children.dismiss()
    children.close()
    assert first.child.process.poll() == -signal.SIGKILL


def test_a_file_that_changes_between_two_runs_is_read_again(execute: Execute, tmp_path: Path) -> None:
    """By the process of the runs, and by a worker that both of them had."""
    place = tmp_path / "texts"
    place.mkdir()
    told = []
    for text in ("one", "two"):
        (place / "text").write_text(text)
        run = execute(f"reads {place}")
        assert ended(run) == "COMPLETED"
        told.append([line for line in run.log.read_text().splitlines() if line.startswith("read ")])
    (first, second), (third, fourth) = told
    assert [line.split()[1:] for line in (first, second)] == [
        ["run", process_id(third), "one"],
        ["worker", process_id(fourth), "one"],
    ]
    assert [line.split()[3] for line in (third, fourth)] == ["two", "two"]


def test_a_run_that_leaves_much_in_memory_takes_its_process_with_it(execute: Execute) -> None:
    assert night_child.KEPT_BYTES <= 2**31  # which it keeps, beside what it imported
    first = execute("large")
    assert ended(first) == "COMPLETED"
    second = execute("ends")
    assert ended(second) == "COMPLETED"
    assert process_of(first) != process_of(second)


@pytest.mark.parametrize(("own", "beat"), [("1", "None"), ("", "45")])
def test_runs_send_heartbeats_where_the_server_outlasts_their_night(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, own: str, beat: str
) -> None:
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "45")
    monkeypatch.setenv(OWN_SERVER, own)
    run = execute("beats")
    assert ended(run) == "COMPLETED"
    assert f"beats {beat}\n" in run.log.read_text()


def test_a_run_that_its_process_is_through_with_and_that_has_no_end_has_crashed(
    execute: Execute,
) -> None:
    run = execute("ends")
    assert run.child is not None
    while not run.child.is_through:
        time.sleep(0.1)
    with client(shared_server()) as api:
        api.set_flow_run_state(UUID(run.flow_run_id), Pending(), force=True)
    found = run.wait(elapsed() + 10.0)
    assert found is not None
    assert found[0] == "CRASHED"
    assert "its process went on without it" in found[1]


def test_a_process_that_cannot_begin_is_a_crash_with_what_it_said(
    children: Children, execute: Execute, tmp_path: Path
) -> None:
    (tmp_path / "source" / "lab").unlink()
    (tmp_path / "source" / "lab").mkdir()
    (tmp_path / "source" / "lab" / "__init__.py").write_text("import no_such_module")
    run = execute("ends")
    found = run.wait(elapsed() + 60.0)
    assert found is not None
    assert found[0] == "CRASHED"
    assert "code 1" in found[1]
    assert "No module named 'no_such_module'" in found[1]


def test_the_process_ends_with_its_night(execute: Execute) -> None:
    run = execute("long")
    assert run.child is not None
    deadline = time.monotonic() + 60.0
    while "process " not in run.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    run.child.line.close()  # as when the night is killed
    assert run.child.process.wait(timeout=10.0) != 0
    run.child.let_go()
