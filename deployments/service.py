"""`ladder up`, `down` and `status`: one server, one worker and every deployment of a home.

What `up` starts is recorded in the home with process numbers and start times, and `down` stops that and
nothing else. `up` on a running home registers again and brings back what is missing, so it is also the
repair. The worker goes first and the server last: a run that is stopped half-way still reports its end.
"""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployments import automations, environment, processes, register, server_database
from deployments.environment import Process, Service
from deployments.processes import marked
from lab import lock
from lab.errors import UsageError
from lab.machine import is_alive
from lab.night_book import NIGHT_LOCK
from lab.store import Store, StoreLockedError
from lab.study import Study

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
USUAL_PORT = 4200
START_TIMEOUT_SECONDS = 180.0
"""A fresh home's database is made first: 18 to 59 s were seen on a loaded machine."""
GRACE_SECONDS = 20.0
"""From SIGTERM to SIGKILL."""
WORKER_NAME = "ladder"
_SERVER_ENVIRONMENT_ONLY = ("PREFECT_API_URL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")
"""Meant for the command that starts the server; its log file takes everything."""

Report = Callable[[str], None]


def up(home: Path, studies: Iterable[Study], *, port: int | None, report: Report) -> Service:
    """Start server and worker unless they run; make the work pool, every deployment and the automations.

    Parameters
    ----------
    home
        The home, which exists.
    studies
        Whose profiles become deployments.
    port
        Of the server; None takes 4200, or any free one when that is taken.
    report
        Gets each line for the person.

    Raises
    ------
    UsageError
        The port is taken, `PREFECT_API_URL` names a server of the person's own, another `up` or `down` is at
        work, or a night runs with a server of its own.
    ChildProcessError
        Server or worker did not start; the end of its log has been reported.
    """
    home = Path(home).expanduser().absolute()
    _refuse_foreign_api(home)
    with _one_at_a_time(home):
        service = environment.running_service(home)
        if service is None:
            night = _night_under_way(home)
            if night is not None and environment.read_service(home) is None:
                raise UsageError(
                    f"a night runs with a server of its own, {night}; let it end, or stop it with Ctrl-C, "
                    "and run `ladder up` again"
                )
            _stop_remains(home, report)
            service = _start_server(home, port, report)
            with client(service.url) as api:
                if night is None:  # else it waits for its server, and its runs are at work
                    why = "its process ended with an earlier server; run it again to resume"
                    _settle_runs(api, why, report)
                _drop_missed(api, report)
        elif port is not None and urlsplit(service.url).port != port:
            raise UsageError(
                f"the server is up at {_page(service.url)}; `ladder down` first, then --port {port}"
            )
        else:
            report(f"The server is already up at {_page(service.url)}.")
        with client(service.url) as api:
            register.prepare_server(api)
            service, launched = _ensure_worker(home, service, report)
            zone = register.local_time_zone()
            names = [*register.register(studies, api), *register.register_scheduled(api, zone)]
            report(f"Registered {len(names)} deployments: {', '.join(names)}.")
            automations.ensure(api)
            if launched is not None:
                _wait_for_worker(home, service, api, launched, report)
    for line in usage(home, service, names):
        report(line)
    return service


def down(home: Path, *, report: Report, grace_seconds: float = GRACE_SECONDS) -> bool:
    """Stop the worker, its runs and the server that `up` started for this home; False when nothing ran.

    A run in progress is asked to end; it reports itself as crashed and can be resumed.

    Raises
    ------
    UsageError
        Another `up` or `down` is at work, or a run in a terminal uses the server.
    """
    home = Path(home).expanduser().absolute()
    service = environment.read_service(home)
    if service is None:
        report("Nothing to stop: `ladder up` has started nothing for this home.")
        return False
    using = _runs_in_terminals(home, service)
    if using and service.server.alive():
        raise UsageError(
            f"a run in a terminal uses this server (process {', '.join(map(str, using))}); let it end, or "
            "interrupt it with Ctrl-C, then `ladder down`"
        )
    with _one_at_a_time(home):
        return _stop_remains(home, report, grace_seconds=grace_seconds)


def _runs_in_terminals(home: Path, service: Service) -> list[int]:
    """Processes of runs under way that the worker did not start, as far as the store can be read."""
    try:
        found = Store(home).read("SELECT process FROM run WHERE state = 'running'", wait_seconds=1.0)
    except (StoreLockedError, UsageError):
        return []
    own = {process.pid for process in marked(service.mark)}
    pids = [int(name.rsplit(":", 2)[1]) for name in found["process"].to_list() if is_alive(name)]
    return [pid for pid in pids if pid not in own]


def usage(home: Path, service: Service, names: list[str]) -> list[str]:
    """What a person types next, as lines."""
    example = next((name for name in names if name.endswith("/smoke")), names[0] if names else "FLOW/PROFILE")
    usual = home == Path("var").absolute()
    command = "ladder env" if usual else f"LADDER_HOME={shlex.quote(str(home))} ladder env"
    return [
        f"Pages: {_page(service.url)}   logs: {home / 'logs'}",
        f'In a shell, once: eval "$({command})"',
        f"Then: prefect deployment run '{example}' --watch",
        "Nights start by themselves: `ladder status` says when; pages, Deployments, switch them off and on.",
    ]


@contextmanager
def client(url: str) -> Iterator[SyncPrefectClient]:
    """A client of one server, whatever Prefect's own settings say."""
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(url) as api:
        yield api


def _page(url: str) -> str:
    return url.removesuffix("/api")


def _refuse_foreign_api(home: Path) -> None:
    url = os.environ.get("PREFECT_API_URL")
    recorded = environment.read_service(home)
    if url and (recorded is None or recorded.url != url):
        raise UsageError(
            f"PREFECT_API_URL is set to {url}, so commands would speak to that server and not to the one "
            "`ladder up` starts; unset PREFECT_API_URL, or use that server without `ladder up`"
        )


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    environment.prefect_home(home).mkdir(parents=True, exist_ok=True)
    try:
        with lock.held(environment.prefect_home(home) / "service.lock"):
            yield
    except lock.HeldError as held:
        raise UsageError(f"`ladder up` or `ladder down` is at work on this home: {held.holder}") from None


def _start_server(home: Path, port: int | None, report: Report) -> Service:
    port = _choose_port(port)
    url = f"http://{HOST}:{port}/api"
    log = home / "logs" / "server.log"
    mark = secrets.token_hex(8)
    variables = {
        **_variables(home, mark),
        # without these the page of a server on another port asks port 4200
        "PREFECT_SERVER_UI_API_URL": url,
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    report(f"Starting the server at {_page(url)} (the first time takes up to a minute).")
    server_database.provide(home)
    server = processes.start(command, log=log, environment=variables, cwd=home)
    service = Service(url=url, mark=mark, server=server, worker=None)
    environment.write_service(home, service)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not environment.answers(url):
        if not server.alive() or time.monotonic() > deadline:
            _stop_remains(home, lambda _: None)
            raise _not_started("server", log, report)
        time.sleep(0.1)
    return service


def _ensure_worker(home: Path, service: Service, report: Report) -> tuple[Service, float | None]:
    """The service with a worker, and when that was launched; None if it ran already."""
    if service.worker is not None and service.worker.alive():
        report("The worker is already up.")
        return service, None
    report("Starting the worker.")
    launched = time.time()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    worker = processes.start(
        [*command, "--pool", register.WORK_POOL, "--name", WORKER_NAME],
        log=home / "logs" / "worker.log",
        environment={
            **_variables(home, service.mark),
            "PREFECT_API_URL": service.url,
            "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "3"),
        },
        cwd=home,
    )
    service = replace(service, worker=worker)
    environment.write_service(home, service)
    return service, launched


def _wait_for_worker(
    home: Path, service: Service, api: SyncPrefectClient, launched: float, report: Report
) -> None:
    """Return when the server has heard from a worker launched at that time."""
    worker: Process | None = service.worker
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        found = api.read_workers_for_work_pool(register.WORK_POOL)
        if any(w.last_heartbeat_time and w.last_heartbeat_time.timestamp() > launched for w in found):
            return
        if worker is None or not worker.alive() or time.monotonic() > deadline:
            raise _not_started("worker", home / "logs" / "worker.log", report)
        time.sleep(0.2)


def _not_started(what: str, log: Path, report: Report) -> ChildProcessError:
    for line in processes.log_tail(log).splitlines():
        report(f"  {line}")
    return ChildProcessError(f"the {what} did not start; the end of its log is above, all of it in {log}")


def _variables(home: Path, mark: str) -> dict[str, str]:
    """The environment of what `up` starts: this one, the home's, and where the lab's packages lie."""
    packages = str(Path(__file__).resolve().parent.parent)
    inherited = {name: value for name, value in os.environ.items() if name not in _SERVER_ENVIRONMENT_ONLY}
    paths = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **inherited,
        **environment.private(home),
        environment.MARK_VARIABLE: mark,
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _choose_port(port: int | None) -> int:
    if port is not None:
        if not _is_free(port):
            raise UsageError(
                f"port {port} is taken; give another with --port, or none and a free one is taken"
            )
        return port
    if _is_free(USUAL_PORT):
        return USUAL_PORT
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _stop_remains(home: Path, report: Report, *, grace_seconds: float = GRACE_SECONDS) -> bool:
    """Stop whatever the record names that still runs, then forget the record."""
    service = environment.read_service(home)
    if service is None:
        return False
    own = [service.server, *([service.worker] if service.worker else [])]
    stages: list[tuple[str, Callable[[], list[Process]]]] = [
        # a worker that is told to end kills its runs, and they could not say how they ended
        ("runs in progress", lambda: [found for found in processes.marked(service.mark) if found not in own]),
        ("worker", lambda: own[1:]),
        ("rest", lambda: [found for found in processes.marked(service.mark) if found != service.server]),
    ]
    stopped = False
    for name, members in stages:
        stopped = _stop_stage(name, members(), report, grace_seconds) or stopped
    if service.server.alive() and environment.answers(service.url):
        with client(service.url) as api:
            _settle_runs(api, "stopped by `ladder down`; run it again to resume", report)
    stopped = _stop_stage("server", [service.server], report, grace_seconds) or stopped
    environment.write_service(home, None)
    return stopped


def _stop_stage(name: str, members: list[Process], report: Report, grace_seconds: float) -> bool:
    alive = [process for process in members if process.alive()]
    if alive:
        report(f"Stopping the {name}.")
        killed = processes.stop(alive, grace_seconds=grace_seconds)
        if killed:
            report(f"{killed} of them did not end within {grace_seconds:.0f} s and had to be killed.")
    return bool(alive)


def _night_under_way(home: Path) -> str | None:
    """Who holds the home's night; None when nobody does."""
    try:
        with lock.held(home / NIGHT_LOCK):
            return None
    except lock.HeldError as held:
        return held.holder


def _settle_runs(api: SyncPrefectClient, why: str, report: Report) -> None:
    """Mark runs that no process works on any more as crashed; else they would show as running for ever.

    Only runs of deployments, which a worker or a night began: one of `ladder run` reports for itself.
    """
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    unfinished = {
        "state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}},
        "deployment_id": {"is_null_": False},
    }
    for run in api.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(unfinished)):
        api.set_flow_run_state(run.id, Crashed(message=why), force=True)
        report(f"Run {run.name} is now marked as crashed: {why}.")


def _drop_missed(api: SyncPrefectClient, report: Report) -> None:
    """Cancel what was due by the clock while no server ran: there is no catching up."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Cancelled
    from prefect.types._datetime import now

    due = {
        "state": {"name": {"any_": ["Scheduled", "Late"]}},
        "expected_start_time": {"before_": now("UTC")},
        "deployment_id": {"is_null_": False},
    }
    for run in api.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(due)):
        if run.auto_scheduled:
            why = "it was due while the server was down, and is not caught up on"
            api.set_flow_run_state(run.id, Cancelled(message=why), force=True)
            report(f"Run {run.name} is cancelled: {why}.")
