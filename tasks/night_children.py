"""Processes for the runs of a night: the next one does its imports while a run is at work."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tasks.killable import MEMORY

LAST_EVENTS_SECONDS = 15.0
"""How long a process whose run is done may hand over its last events."""


@dataclass
class Child:
    """A process that executes one run, once it is told which; it ends with its night."""

    process: subprocess.Popen[bytes]
    log: Path
    """Its standard output and error."""
    owner_end: int
    """Of the pipe whose closing tells it that its night is gone."""

    def execute(self, flow_run_id: str, log: Path) -> None:
        """Name the run; what the process has said goes to the run's log, and so does all that follows."""
        self.log.replace(log)
        self.log = log
        with contextlib.suppress(BrokenPipeError), cast(IO[bytes], self.process.stdin) as told:
            told.write(f"{flow_run_id}\n".encode())

    def see_off(self) -> None:
        """Wait until it has ended by itself, then make sure of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=LAST_EVENTS_SECONDS)
        self.let_go()

    def end(self, grace_seconds: float) -> None:
        """Ask all of its processes to end; kill what is left after the grace."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(timeout=grace_seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def let_go(self) -> None:
        """Close the pipe; a process that still runs is killed by it."""
        if self.owner_end >= 0:
            os.close(self.owner_end)
            self.owner_end = -1


class Children:
    """The children of a night: one at work, one at most not told its run yet, one at most on its way out.

    Parameters
    ----------
    source
        Folder of the packages that they import.
    logs
        Folder of their logs.
    """

    def __init__(self, source: Path, logs: Path) -> None:
        self._source, self._logs = source, logs
        self._next: Child | None = None
        self._leaving: Child | None = None

    def prepare(self) -> None:
        """Start a process that waits for its run, unless one does."""
        if self._next is None:
            self._next = self._started()

    def take(self) -> Child:
        """One that waits for its run, or will."""
        found, self._next = self._next, None
        if found is not None and found.process.poll() is not None:  # killed from outside, or out of memory
            found.let_go()
            found = None
        return found or self._started()

    def see_off(self, child: Child) -> None:
        """One whose run is done: it hands over its last events and ends beside what follows."""
        if self._leaving is not None:
            self._leaving.see_off()
        self._leaving = child

    def close(self) -> None:
        """Wait for the one that is leaving; end the one that was not needed."""
        if self._leaving is not None:
            self._leaving.see_off()
            self._leaving = None
        if self._next is not None:
            self._next.let_go()
            self._next.process.wait()
            self._next.log.unlink(missing_ok=True)
            self._next = None

    def _started(self) -> Child:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / "night-next.log"
        read_end, owner_end = os.pipe()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tasks.night_child", str(read_end)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(read_end,),
                start_new_session=True,
                cwd=self._source,
                env={**os.environ, **MEMORY, "PYTHONPATH": str(self._source)},
            )
        os.close(read_end)
        return Child(process=process, log=log, owner_end=owner_end)
