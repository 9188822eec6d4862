"""Runs of a night: each a run of its deployment, in a process of its own, watched and stopped in time.

Where a worker serves the deployment it takes the run; else the run is executed here, by the same engine in a
child process. Either way the run has a page, a parent and parameters of its own, and an idempotency key: the
same key gives the run that was made before, so a night killed after the launch launches nothing twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Crashed

from lab.errors import UsageError

STOP_GRACE_SECONDS = 8.0
"""Between asking a run to end and killing it: less than the 15 s that a night may exceed its budget by."""
TAIL_LINES = 5
LAST_EVENTS_SECONDS = 15.0
WORKER_FRESH_SECONDS = 90.0
"""A worker that was heard of within this is taken to be at work; it says so every 30 s."""


@dataclass
class Launched:
    """A run under way."""

    flow_run_id: str
    name: str
    log: Path
    process: subprocess.Popen[bytes] | None
    """None: a worker has it."""
    owner_end: int = -1
    was_lost: bool = False
    """Whether the key gave a run that had ended without being done, or that nobody works on."""

    def state(self) -> tuple[str, str] | None:
        """Type of the final state and what it says; None while it runs."""
        with client() as api:
            found = api.read_flow_run(UUID(self.flow_run_id))
            if found.state is not None and found.state.is_final():
                return found.state.type.value, found.state.message or ""
            if self.process is None or self.process.poll() is None:
                return None
            why = f"its process ended with code {self.process.returncode}: {_tail(self.log)}"
            api.set_flow_run_state(UUID(self.flow_run_id), Crashed(message=why), force=True)
            return "CRASHED", why

    def wait(self, deadline: float) -> tuple[str, str] | None:
        """The final state; None when `time.monotonic()` reaches the deadline first."""
        pause = 0.2
        while (found := self.state()) is None:
            left = deadline - time.monotonic()
            if left <= 0.0:
                return None
            time.sleep(min(left, pause))
            pause = min(2.0, 1.2 * pause)
        if self.process is not None:  # its last events are still being handed over
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=LAST_EVENTS_SECONDS)
        self.let_go()
        return found

    def stop(self, why: str) -> None:
        """End the run: it is asked first, then killed; its page says why, and what is done stays done."""
        identity = UUID(self.flow_run_id)
        with client() as api:
            if self.process is None:
                api.set_flow_run_state(identity, Cancelling(message=why), force=True)
                deadline = time.monotonic() + STOP_GRACE_SECONDS
                while self.state() is None and time.monotonic() < deadline:
                    time.sleep(0.2)
            else:
                self._end_process()
            api.set_flow_run_state(identity, Cancelled(message=why), force=True)
        self.let_go()

    def _end_process(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(timeout=STOP_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def let_go(self) -> None:
        """Close the pipe whose end tells the child that its night is gone."""
        if self.owner_end >= 0:
            os.close(self.owner_end)
            self.owner_end = -1


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
    served: bool,
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
    served
        Whether a worker will take it.

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
        raise UsageError(
            f"the server has no deployment {deployment}; register them with `ladder up`"
        ) from error
    assert isinstance(run, FlowRun)
    log = home / "logs" / f"night-{key.replace('/', '-')}.log"
    under_way = Launched(flow_run_id=str(run.id), name=name, log=log, process=None)
    state = run.state
    if state is not None and state.is_final():
        return replace(under_way, was_lost=not state.is_completed())
    if served:
        return under_way
    if state is not None and not state.is_scheduled():  # of an earlier night, whose runs died with it
        with client() as api:
            api.set_flow_run_state(run.id, Crashed(message="its night is gone"), force=True)
        return replace(under_way, was_lost=True)
    return _executed(str(run.id), name, log, source)


def _executed(flow_run_id: str, name: str, log: Path, source: Path) -> Launched:
    log.parent.mkdir(parents=True, exist_ok=True)
    read_end, owner_end = os.pipe()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.night_child", str(read_end), flow_run_id],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(read_end,),
            start_new_session=True,
            cwd=source,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
    os.close(read_end)
    return Launched(flow_run_id=flow_run_id, name=name, log=log, process=process, owner_end=owner_end)


def served(deployment: str, *, fresh_seconds: float = WORKER_FRESH_SECONDS) -> bool:
    """Whether a worker is at work on the deployment's pool."""
    with client() as api:
        try:
            found = api.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise UsageError(
                f"the server has no deployment {deployment}; register them with `ladder up`"
            ) from error
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
