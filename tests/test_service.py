"""A real server and worker in a home of their own: up, a run, status, down, and nothing left."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect.states import Completed, Pending, Running, Scheduled

from deployments import environment, processes, register, service, status
from flows.registry import find_study
from lab.errors import UsageError
from tests.served_coin import NIGHT, Lab, served, state_of, wait_for

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from served(tmp_path_factory)


def in_shell(lab: Lab, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would in a shell that took the exports."""
    script = f'eval "$1"; {command}'
    return subprocess.run(
        ["bash", "-c", script, "bash", environment.shell_exports(lab.home)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def start_long_run(lab: Lab) -> environment.Service:
    """Bring the service up, with a run of five minutes under way."""
    found = lab.up()
    (lab.home / "started.txt").unlink(missing_ok=True)
    with service.client(found.url) as api:
        api.create_flow_run_from_deployment(api.read_deployment_by_name("coin-toss/long").id)
    wait_for((lab.home / "started.txt").exists, "the run starts")
    return found


def states_of_runs(lab: Lab) -> list[str]:
    database = sqlite3.connect(lab.home / "prefect" / "prefect.db")
    found = database.execute("SELECT state_type FROM flow_run").fetchall()
    database.close()
    return [state for (state,) in found]


def registered(lab: Lab) -> list[dict[str, Any]]:
    """What the server knows of each deployment, less what changes with every registration."""
    found = environment.read_service(lab.home)
    assert found is not None
    fields = ("name", "entrypoint", "description", "parameters", "parameter_openapi_schema", "pull_steps")
    with service.client(found.url) as api:
        deployments = sorted(api.read_deployments(), key=lambda each: (each.name, each.entrypoint))
        return [
            {field: getattr(each, field) for field in fields}
            | {
                "tags": sorted(each.tags),
                "pool": each.work_pool_name,
                "limit": each.global_concurrency_limit and each.global_concurrency_limit.limit,
                "schedules": [
                    (one.slug, getattr(one.schedule, "cron", None), one.active) for one in each.schedules
                ],
                "strategy": each.concurrency_options and each.concurrency_options.collision_strategy,
            }
            for each in deployments
        ]


@pytest.mark.long
def test_a_run_of_a_deployment_from_a_plain_shell_completes(lab: Lab) -> None:
    lab.up()
    assert any("deployments: coin-toss/smoke, coin-toss/long, " in line for line in lab.said)
    assert any("overnight/nightly, entropy-ladder/nightly" in line for line in lab.said)
    assert "Then: prefect deployment run 'coin-toss/smoke' --watch" in lab.said
    done = in_shell(lab, "prefect deployment run coin-toss/smoke --watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (lab.home / "started.txt").read_text(encoding="utf-8") == str(lab.home)
    refused = in_shell(
        lab, """prefect deployment run coin-toss/smoke --param settings='{"tosses": "many"}'"""
    )
    assert refused.returncode == 1
    assert "'many' is not of type 'integer'" in " ".join(refused.stdout.split())
    found = status.status(lab.home)
    assert (found.server, found.worker, found.store) == ("running", "running", None)
    assert {each.name for each in found.deployments} >= {"coin-toss/long", "coin-toss/smoke", NIGHT}
    assert [run.state for run in found.runs if run.deployment == "coin-toss/smoke"] == ["Completed"]
    assert any("coin-toss/smoke  (no schedule)" in line for line in status.lines(found))
    assert not [run for run in found.runs if run.state == "Scheduled"]  # tonight's is no run yet


def test_a_run_under_way_is_told_before_all_that_ended_since(lab: Lab) -> None:
    with service.client(lab.up().url) as api:
        toss = api.read_deployment_by_name("coin-toss/long").id
        # not to be started by the worker: it is under way before it is seen
        [night, *later] = [
            api.create_flow_run_from_deployment(toss, state=Pending(), name=f"toss {number}")
            for number in range(status.LAST_RUNS + 1)
        ]
        api.set_flow_run_state(night.id, Running(), force=True)
        for run in later:
            api.set_flow_run_state(run.id, Completed(), force=True)
        told = status.status(lab.home).runs
        api.set_flow_run_state(night.id, Completed(), force=True)
    assert (told[0].name, told[0].state, len(told)) == ("toss 0", "Running", status.LAST_RUNS)
    assert told[1].name == f"toss {status.LAST_RUNS}"


def test_up_again_keeps_the_processes(lab: Lab) -> None:
    first = lab.up()
    assert lab.up() == first
    with pytest.raises(UsageError, match=r"the server is up at .*; `ladder down` first, then --port 4999"):
        service.up(lab.home, [lab.study], port=4999, report=lab.said.append)
    assert "The worker is already up." in lab.said[-6:]


def test_the_server_answers_on_this_machine_only(lab: Lab) -> None:
    found = lab.up()
    connections = psutil.Process(found.server.pid).net_connections(kind="inet")
    listening = {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_no_page_of_another_site_may_speak_to_the_server(lab: Lab) -> None:
    service = environment.read_service(lab.home)
    assert service is not None
    own = service.url.removesuffix("/api")
    for origin, expected in ((own, own), ("http://elsewhere.example", None), ("null", None)):
        asked = urllib.request.Request(
            f"{service.url}/deployments/",
            method="OPTIONS",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type",
            },
        )
        try:
            with urllib.request.urlopen(asked, timeout=10) as reply:
                allowed = reply.headers["access-control-allow-origin"]
        except urllib.error.HTTPError as refused:
            allowed = refused.headers["access-control-allow-origin"]
        assert allowed == expected, origin


@pytest.mark.long
def test_prefect_deploy_with_the_yaml_registers_the_same(lab: Lab, tmp_path: Path) -> None:
    found = lab.up()
    with service.client(found.url) as api:  # a person wants no nights for now
        night = api.read_deployment_by_name(NIGHT)
        api.update_deployment_schedule(night.id, night.schedules[0].id, active=False)
    expected = registered(lab)
    [smoke] = [one for one in expected if "coin_toss" in one["tags"] and one["name"] == "smoke"]
    assert smoke["parameters"] == {"settings": {"tosses": 3, "sides": ["heads", "tails"], "seconds": 0.0}}
    schema = smoke["parameter_openapi_schema"]["definitions"]["Coin"]["properties"]
    assert schema["tosses"]["description"] == "How often"
    document = tmp_path / "prefect.yaml"
    studies = [lab.study, find_study("nanodesmo")]
    document.write_text(yaml.safe_dump(register.document(studies)), encoding="utf-8")
    # a shell without the home: the step keeps the variable, and nothing of this machine is stored
    done = in_shell(lab, f"unset LADDER_HOME; prefect --no-prompt deploy --all --prefect-file '{document}'")
    assert done.returncode == 0, done.stdout + done.stderr
    assert registered(lab) == expected
    lab.up()
    assert registered(lab) == expected


def test_down_ends_a_run_whose_worker_was_killed(lab: Lab) -> None:
    found = start_long_run(lab)
    assert found.worker is not None
    os.kill(found.worker.pid, signal.SIGKILL)
    assert processes.wait_gone([found.worker], timeout_seconds=30.0)
    assert status.status(lab.home).worker == "gone"
    assert len(processes.marked(found.mark)) >= 2  # the server, and a run that has lost its parent
    assert service.down(lab.home, report=lab.said.append)
    assert processes.marked(found.mark) == []
    assert status.status(lab.home).server == "down"
    assert not service.down(lab.home, report=lab.said.append)
    assert set(states_of_runs(lab)) <= {"COMPLETED", "CRASHED"}
    assert "CRASHED" in states_of_runs(lab)


@pytest.mark.slow
def test_after_a_power_cut_up_starts_again_and_settles_what_was_running(lab: Lab) -> None:
    found = start_long_run(lab)
    for process in processes.marked(found.mark):
        os.kill(process.pid, signal.SIGKILL)
    assert processes.wait_gone([found.server], timeout_seconds=30.0)
    assert status.status(lab.home).server == "gone"
    assert "RUNNING" in states_of_runs(lab)
    again = lab.up()
    assert again.server != found.server
    assert "RUNNING" not in states_of_runs(lab)
    assert any("is now marked as crashed: its process ended" in line for line in lab.said)


@pytest.mark.slow
def test_what_was_due_while_the_server_was_down_is_not_caught_up_on(lab: Lab) -> None:
    found = lab.up()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with service.client(found.url) as api:
        coin = api.read_deployment_by_name("coin-toss/smoke")
        missed, asked_for = (
            api.create_flow_run_from_deployment(coin.id, state=Scheduled(scheduled_time=tomorrow)).id
            for _ in range(2)
        )
    assert service.down(lab.home, report=lab.said.append)
    database = sqlite3.connect(lab.home / "prefect" / "prefect.db")
    for run, by_the_clock in ((missed, 1), (asked_for, 0)):
        database.execute(
            "UPDATE flow_run SET auto_scheduled = ?, expected_start_time = '2026-01-01 22:00:00.000000', "
            "next_scheduled_start_time = '2026-01-01 22:00:00.000000' WHERE id = ?",
            (by_the_clock, str(run)),
        )
    database.commit()
    database.close()
    again = lab.up()
    assert state_of(lab, missed).is_cancelled()
    assert "not caught up on" in str(state_of(lab, missed).message)
    assert not state_of(lab, asked_for).is_final()
    with service.client(again.url) as api:
        api.delete_flow_run(asked_for)


def test_a_taken_port_and_a_server_of_ones_own_are_refused_before_anything_starts(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken"):
            service.up(tmp_path, [lab.study], port=port, report=lab.said.append)
    monkeypatch.setenv("PREFECT_API_URL", "http://example.invalid/api")
    with pytest.raises(UsageError, match=r"PREFECT_API_URL is set to http://example\.invalid/api"):
        service.up(tmp_path, [lab.study], port=None, report=lab.said.append)
    assert environment.read_service(tmp_path) is None


def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "no-such-database://nowhere")
    said: list[str] = []
    with pytest.raises(ChildProcessError, match="the server did not start"):
        service.up(tmp_path, [lab.study], port=None, report=said.append)
    assert any("ArgumentError" in line for line in said)
    assert environment.read_service(tmp_path) is None


def test_a_number_used_again_by_another_process_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = environment.identify(stranger.pid)
        recycled = replace(found, started=found.started - 1.0)
        recorded = environment.Service(
            url="http://127.0.0.1:9/api", mark="of-nobody", server=recycled, worker=recycled
        )
        environment.write_service(tmp_path, recorded)
        assert not service.down(tmp_path, report=lambda _: None)
        assert stranger.poll() is None
        assert environment.read_service(tmp_path) is None
    finally:
        stranger.communicate(b"\n")


def test_a_process_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    log = tmp_path / "logs" / "deaf.log"
    deaf = processes.start(
        [sys.executable, "-c", script], log=log, environment=dict(os.environ), cwd=tmp_path
    )
    wait_for(lambda: "deaf" in processes.log_tail(log), "the process ignores SIGTERM")
    assert processes.stop([deaf], grace_seconds=0.3) == 1
    assert not deaf.alive()


def test_the_checked_in_yaml_is_what_the_studies_say() -> None:
    from flows.registry import studies

    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == register.document(studies().values()), (
        "write it again: python -m deployments.register > prefect.yaml"
    )


def test_a_profile_that_json_changes_is_refused(lab: Lab) -> None:
    coin = importlib.import_module("coinstudy.coin")
    odd = replace(
        lab.study, profiles={"smoke": coin.Coin(sides=["heads", "tails"])}
    )  # a list returns as tuple
    with pytest.raises(UsageError, match="'smoke' of coin_toss does not survive JSON"):
        register.specifications([odd])
