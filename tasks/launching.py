"""Runs of a night: each a run of its deployment, in another process, watched and stopped in time.

Where a worker serves the deployment it takes the run; else the run is executed here, by the same engine in a
child process. Either way the run has a page, a parent and parameters of its own, and an idempotency key: the
same key gives the run that was made before, so a night killed after the launch launches nothing twice.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Crashed

from lab.clock import elapsed
from lab.errors import UsageError
from lab.runs import is_worked_on
from lab.store import Store, StoreLockedError
from tasks.night_children import Child, Children

logger = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 8.0
"""Between asking a run to end and killing it: less than the 15 s that a night may exceed its budget by."""
BY_HAND = "cancelled by hand"
TAIL_LINES = 5
SHORTEST_PAUSE_SECONDS = 0.2
"""Between two looks at a run's state, at first and after it has said something; up to ten times it after."""
PROGRESS_EVERY_SECONDS = 20.0
"""Between two lines of progress that a night passes on."""
SERVER_PATIENCE_SECONDS = 120.0
"""How long a server that does not answer, as one that is restarted, is waited for."""
WORKER_FRESH_SECONDS = 90.0
"""A worker that was heard of within this is taken to be at work; it says so every 30 s."""
LOOK_EVERY_SECONDS = 30.0
"""Between two looks for the process of a run that a worker has."""
GONE = "its worker and its process are gone"
REFUSALS = (409, 422)
"""HTTP statuses of a server that does not take what it was given."""
_LINE = re.compile(r"\d\d:\d\d:\d\d  (.+)")
"""A line of the lab's own in a run's log (`tasks.night_child`)."""


@dataclass
class Launched:
    """A run under way."""

    flow_run_id: str
    deployment: str
    home: Path
    log: Path
    children: Children
    child: Child | None = None
    """None: a worker has it."""
    told: int = 0
    """Bytes of the log that were passed on."""
    last_progress: float = 0.0
    last_looked: float = 0.0
    """When a run that a worker has was last looked for in the store."""
    was_lost: bool = False
    """Whether the key gave a run that had ended without being done, or that nobody works on."""

    def state(self) -> tuple[str, str] | None:
        """Type of the final state and what it says; None while it runs."""
        is_through = self.child is not None and self.child.is_through
        with client() as api:
            found = api.read_flow_run(UUID(self.flow_run_id))
            if found.state is not None and found.state.is_final():
                return found.state.type.value, found.state.message or ""
            if self.child is None:
                is_waiting = found.state is None or found.state.is_scheduled() or found.state.is_pending()
                if is_waiting and not served(self.deployment):  # no worker came for it, and none is there
                    self.execute()
                if is_waiting or not self._is_gone():
                    return None
                api.set_flow_run_state(UUID(self.flow_run_id), Crashed(message=GONE), force=True)
                return "CRASHED", GONE
            if found.state is not None and found.state.is_cancelling():  # asked on its page; wait() ends it
                api.set_flow_run_state(UUID(self.flow_run_id), Cancelled(message=BY_HAND), force=True)
                return "CANCELLED", BY_HAND
            if not is_through:
                return None
            code = self.child.process.poll()
            how = "went on without it" if code is None else f"ended with code {code}"
            why = f"its process {how}: {_tail(self.log)}"
            api.set_flow_run_state(UUID(self.flow_run_id), Crashed(message=why), force=True)
            return "CRASHED", why

    def _is_gone(self) -> bool:
        """Whether neither a worker nor the process that it started is there; looked at now and then."""
        if elapsed() - self.last_looked < LOOK_EVERY_SECONDS:
            return False
        self.last_looked = elapsed()
        if served(self.deployment):
            return False
        try:
            return not is_worked_on(Store(self.home), self.flow_run_id, wait_seconds=1.0)
        except StoreLockedError:  # asked again half a minute later; the deadline comes first
            return False

    def execute(self) -> None:
        """Run it here."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.child = self.children.take()
        self.child.execute(self.flow_run_id, self.log)

    def wait(self, deadline: float) -> tuple[str, str] | None:
        """The final state; None when `lab.clock.elapsed()` reaches the deadline first.

        Raises
        ------
        httpx.TransportError
            The server has not answered for `SERVER_PATIENCE_SECONDS`.
        """
        pause = SHORTEST_PAUSE_SECONDS
        heard = elapsed()
        while True:
            try:
                found = self.state()
                heard = elapsed()
            except httpx.TransportError:
                found = None
                if elapsed() - heard > SERVER_PATIENCE_SECONDS:
                    raise
            if self._tell():  # its gates have spoken, say: it may end at once
                pause = SHORTEST_PAUSE_SECONDS
            if found is not None:
                break
            left = deadline - elapsed()
            if left <= 0.0:
                return None
            self._pause(min(left, pause))
            pause = min(10 * SHORTEST_PAUSE_SECONDS, 1.2 * pause)
        if self.child is not None and found[0] == "COMPLETED":
            self.children.keep(self.child)
        elif self.child is not None and found[0] == "FAILED":
            self.children.see_off(self.child)
        elif self.child is not None:  # cancelled on its page, say: nobody has told its process
            self.child.end(STOP_GRACE_SECONDS)
            self.child.let_go()
        return found

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until the run's process is through with it."""
        if self.child is None or self.child.is_through:  # then it is the server that is waited for
            time.sleep(seconds)
        else:
            self.child.wait_through(seconds)

    def _tell(self) -> bool:
        """Pass on the lines that the run's process wrote since; those of progress now and then only.

        Whether it wrote any that is not of progress.
        """
        if self.child is None:
            return False
        with self.log.open("rb") as file:
            file.seek(self.told)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.told += len(whole)
        has_news = False
        for line in whole.decode("utf-8", "replace").splitlines():
            said = _LINE.fullmatch(line)
            if said is None:
                continue
            if said[1].endswith(" s left"):
                if time.monotonic() - self.last_progress < PROGRESS_EVERY_SECONDS:
                    continue
                self.last_progress = time.monotonic()
            else:
                has_news = True
            logger.info("  %s", said[1])
        return has_news

    def stop(self, why: str) -> None:
        """End the run: it is asked first, then killed; its page says why, and what is done stays done."""
        identity = UUID(self.flow_run_id)
        with client() as api:
            if self.child is None:
                api.set_flow_run_state(identity, Cancelling(message=why), force=True)
                deadline = time.monotonic() + STOP_GRACE_SECONDS
                while not _has_ended(api, identity) and time.monotonic() < deadline:
                    time.sleep(0.2)
                return  # its worker ends it, or has
            self.child.end(STOP_GRACE_SECONDS)
            self.child.let_go()
            api.set_flow_run_state(identity, Cancelled(message=why), force=True)


def _has_ended(api: SyncPrefectClient, identity: UUID) -> bool:
    state = api.read_flow_run(identity).state
    return state is not None and state.is_final()


@contextlib.contextmanager
def client() -> Iterator[SyncPrefectClient]:
    """A client of the server that this process speaks to."""
    with get_client(sync_client=True) as api:
        yield api


def launch(
    deployment: str,
    parameters: Mapping[str, Any],
    *,
    key: str,
    name: str,
    source: Path,
    home: Path,
    children: Children,
) -> Launched:
    """Start a deployment's run as a subflow of the calling flow.

    Parameters
    ----------
    deployment
        `flow/profile`.
    key
        Idempotency key.
    source
        Folder of the packages that the run imports.
    children
        Whose next one executes it where no worker serves the deployment.

    Raises
    ------
    UsageError
        The server has no such deployment, or refuses the parameters.
    """
    try:
        run = run_deployment(
            name=deployment,
            parameters=dict(parameters),
            timeout=0,
            as_subflow=True,
            idempotency_key=key,
            flow_run_name=name,
            job_variables={"env": {"PYTHONPATH": str(source)}},
        )
    except ObjectNotFound as error:
        raise _unregistered(deployment) from error
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in REFUSALS:
            raise
        said = error.response.text[:300]
        raise UsageError(f"the server refuses the settings for {deployment}: {said}") from error
    assert isinstance(run, FlowRun)
    log = home / "logs" / f"night-{key.replace('/', '-')}.log"
    under_way = Launched(
        flow_run_id=str(run.id), deployment=deployment, home=home, log=log, children=children
    )
    state = run.state
    if state is not None and state.is_final():
        return replace(under_way, was_lost=not state.is_completed())
    if served(deployment):
        return under_way
    if state is not None and not state.is_scheduled():  # of an earlier night, whose runs died with it
        if is_worked_on(Store(home), str(run.id)):  # its process outlived the worker
            return under_way
        with client() as api:
            api.set_flow_run_state(run.id, Crashed(message="its night is gone"), force=True)
        return replace(under_way, was_lost=True)
    under_way.execute()
    return under_way


def _unregistered(deployment: str) -> UsageError:
    return UsageError(f"the server has no deployment {deployment}; register them with `ladder up`")


def served(deployment: str, *, fresh_seconds: float = WORKER_FRESH_SECONDS) -> bool:
    """Whether a worker is at work on the deployment's pool."""
    with client() as api:
        try:
            found = api.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise _unregistered(deployment) from error
        if found.work_pool_name is None:
            return False
        now = datetime.now(UTC)
        return any(
            one.last_heartbeat_time is not None
            and (now - one.last_heartbeat_time).total_seconds() < fresh_seconds
            for one in api.read_workers_for_work_pool(found.work_pool_name)
        )


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return " | ".join(line.strip() for line in lines[-TAIL_LINES:])[-500:] or "it said nothing"
