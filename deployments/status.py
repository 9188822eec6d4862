"""What a home is doing now, as data: `ladder status` prints it and `--json` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments import environment
from lab.errors import UsageError
from lab.store import Store, StoreLockedError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

LAST_RUNS = 10
STORE_WAIT_SECONDS = 1.0
_RUNS_OF_THE_STORE = f"""
    SELECT study || ' · ' || model AS name, study || '/' || profile AS deployment, state,
           strftime(started_at, '%Y-%m-%d %H:%M:%S') AS started,
           epoch(coalesce(ended_at, now() AT TIME ZONE 'UTC') - started_at) AS seconds
    FROM run ORDER BY started_at DESC LIMIT {LAST_RUNS}
"""


@dataclass(frozen=True, kw_only=True)
class DeploymentStatus:
    """A registered deployment."""

    name: str
    schedules: tuple[str, ...]
    """Each as text; empty for one that only people start."""
    paused: bool


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A flow run."""

    name: str
    deployment: str | None
    """None for a run started in a terminal."""
    state: str
    started: str | None
    """UTC; None before it starts."""
    seconds: float | None
    """How long it ran, or has been running."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """All that `ladder status` shows."""

    home: str
    url: str | None
    """Of the API; None when `ladder up` has nothing recorded."""
    server: str
    """running, not answering, gone or down."""
    worker: str
    """running, gone or down."""
    deployments: tuple[DeploymentStatus, ...]
    runs: tuple[RunStatus, ...]
    """The last ones, newest first; of the server if it runs, else of the store."""
    store: str | None
    """Why the store cannot be read now, with its holder; None when it can."""
    waiting: int
    """Batches in the outbox."""
    rejected: int
    """Batches that cannot be stored."""


def status(home: Path) -> Status:
    """Look at a home; nothing is started, but waiting batches are taken into the store as by any reader.

    Parameters
    ----------
    home
        The home, which exists.
    """
    home = Path(home).expanduser().absolute()
    service = environment.read_service(home)
    running = environment.running_service(home)
    store = Store(home)
    problem = store_problem(store)
    deployments: tuple[DeploymentStatus, ...] = ()
    runs: tuple[RunStatus, ...] = ()
    if running is not None:
        deployments, runs = _ask_server(running.url)
    elif problem is None:
        runs = tuple(RunStatus(**row) for row in store.read(_RUNS_OF_THE_STORE, wait_seconds=0.0).to_dicts())
    return Status(
        home=str(home),
        url=service.url if service else None,
        server=_server_state(service, running),
        worker=_worker_state(service),
        deployments=deployments,
        runs=runs,
        store=problem,
        waiting=len(store.outbox.waiting()),
        rejected=count_rejected(store),
    )


def store_problem(store: Store, *, wait_seconds: float = STORE_WAIT_SECONDS) -> str | None:
    """Why the store cannot be read, with its holder; None when it can. Waiting batches are taken first."""
    try:
        store.read("SELECT 1", wait_seconds=wait_seconds)
    except (StoreLockedError, UsageError, OSError) as error:
        return str(error)
    return None


def count_rejected(store: Store) -> int:
    """Batches that were set aside because they cannot be stored."""
    return len(list(store.outbox.rejected.glob("*.batch")))


def lines(found: Status) -> list[str]:
    """A status as lines for a terminal."""
    page = "" if found.url is None else f"   {found.url.removesuffix('/api')}"
    text = [f"home    {found.home}", f"server  {found.server}{page}", f"worker  {found.worker}"]
    text.append(f"store   {found.store or 'readable'}")
    text.append(f"outbox  {found.waiting} waiting, {found.rejected} rejected")
    for deployment in found.deployments:
        when = ", ".join(deployment.schedules) or "no schedule"
        text.append(f"  {deployment.name}  ({when}{', paused' if deployment.paused else ''})")
    for run in found.runs:
        took = "" if run.seconds is None else f", {run.seconds:.0f} s"
        text.append(f"  {run.started or 'not started'}  {run.state:<10}  {run.name}{took}")
    if found.server == "down":
        text.append("`ladder up` starts server and worker.")
    elif "running" not in (found.server, found.worker) or found.server != found.worker:
        text.append("`ladder up` brings back what is gone.")
    return text


def _server_state(service: environment.Service | None, running: environment.Service | None) -> str:
    if service is None:
        return "down"
    if running is not None:
        return "running"
    return "not answering" if service.server.alive() else "gone"


def _worker_state(service: environment.Service | None) -> str:
    if service is None or service.worker is None:
        return "down"
    return "running" if service.worker.alive() else "gone"


def _ask_server(url: str) -> tuple[tuple[DeploymentStatus, ...], tuple[RunStatus, ...]]:
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(url) as api:
        flows = {flow.id: flow.name for flow in api.read_flows()}
        registered = api.read_deployments()
        names = {found.id: f"{flows.get(found.flow_id, '?')}/{found.name}" for found in registered}
        deployments = tuple(
            DeploymentStatus(
                name=names[found.id],
                schedules=tuple(_schedule(entry) for entry in found.schedules),
                paused=bool(found.paused),
            )
            for found in sorted(registered, key=lambda found: names[found.id])
        )
        # a night that runs is older than what it has run
        found_runs = [run for kinds in (_UNFINISHED, _ENDED) for run in _of_states(api, kinds)][:LAST_RUNS]
    runs = tuple(
        RunStatus(
            name=run.name,
            deployment=names.get(run.deployment_id) if run.deployment_id else None,
            state=run.state_name or "unknown",
            started=f"{run.start_time:%Y-%m-%d %H:%M:%S}" if run.start_time else None,
            seconds=_seconds(run),
        )
        for run in found_runs
    )
    return deployments, runs


_UNFINISHED = ("RUNNING", "PENDING", "PAUSED", "CANCELLING", "SCHEDULED")
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def _of_states(api: SyncPrefectClient, kinds: Sequence[str]) -> list[FlowRun]:
    """Runs in these states, the newest first, without those that a schedule has for later."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    found = api.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": list(kinds)}}}),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
    return [run for run in found if not (run.auto_scheduled and run.state_name == "Scheduled")]


def _seconds(run: Any) -> float | None:
    """How long a run took; a running one counts from its start, the server only adds up what is over."""
    if run.start_time is None:
        return None
    if run.end_time is not None:
        return float(run.total_run_time.total_seconds())
    return float((datetime.now(UTC) - run.start_time).total_seconds())


def _schedule(entry: Any) -> str:
    schedule, off = entry.schedule, "" if entry.active else ", off"
    for kind in ("cron", "rrule", "interval"):
        if getattr(schedule, kind, None) is not None:
            return f"{kind} {getattr(schedule, kind)} {getattr(schedule, 'timezone', None) or 'UTC'}{off}"
    return f"{schedule}{off}"
