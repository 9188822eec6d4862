"""The process that the runs of a night take place in, one after the other: what a run imports, the next has.

A run that fails, is stopped or leaves much in memory takes its process with it, and the next has a new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tasks.killable import MEMORY

FREE_SECONDS = 5.0
"""How long a process whose run is done may take to be free for the next; less than a night may be late by."""
LAST_WORDS_SECONDS = 15.0
"""How long one may take to hand over its last events and end."""
NEXT = "night-next.log"
"""Of a process that has no run yet."""


@dataclass
class Child:
    """A process that executes runs, one at a time, as it is told which; it ends with its night."""

    process: subprocess.Popen[bytes]
    log: Path
    """Its standard output and error: of the run it is at, or was at last."""
    line: socket.socket
    """It says there that it is free, and its end is that of the night."""

    def execute(self, flow_run_id: str, log: Path) -> None:
        """Name a run; all that the process says from now on goes to the run's log."""
        if self.log.name == NEXT:
            self.log.replace(log)  # with what its imports said
        else:
            log.write_bytes(b"")
        self.log = log
        with contextlib.suppress(BrokenPipeError):
            self._tell(json.dumps({"flow_run_id": flow_run_id, "log": str(log.absolute())}))

    def _tell(self, told: str) -> None:
        orders = cast(IO[bytes], self.process.stdin)
        orders.write(f"{told}\n".encode())
        orders.flush()

    @property
    def is_through(self) -> bool:
        """Whether it is at no run: it has said that it is free, or has ended."""
        return self.wait_through(0.0)

    def wait_through(self, seconds: float) -> bool:
        """Wait until it is at no run, at most so long; whether it is."""
        return self.process.poll() is not None or self._has_spoken(seconds)

    def _has_spoken(self, seconds: float) -> bool:
        return bool(select.select([self.line], [], [], seconds)[0])

    def rests(self) -> bool:
        """Wait until it is free for the next run; False if it has ended, or takes too long."""
        if not self._has_spoken(FREE_SECONDS) or self.line.recv(1) == b"":
            return False
        return self.process.poll() is None and not self._has_spoken(0.0)  # killed since: the line has its end

    def dismiss(self) -> None:
        """Tell it that there is no other run."""
        with contextlib.suppress(BrokenPipeError):
            self._tell("")

    def see_off(self) -> None:
        """Wait until it has ended by itself, then make sure of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=LAST_WORDS_SECONDS)
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
        """Kill it if it still runs, and let go of its files."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.line.close()
        with contextlib.suppress(BrokenPipeError):
            cast(IO[bytes], self.process.stdin).close()


class Children:
    """The children of a night: one at a time, and one at most on its way out.

    Parameters
    ----------
    source
        Folder of the packages that they import.
    logs
        Folder of their logs.
    """

    def __init__(self, source: Path, logs: Path) -> None:
        self._source, self._logs = source, logs
        self._new: Child | None = None
        """Told no run yet."""
        self._done: Child | None = None
        """Done with a run."""
        self._leaving: Child | None = None
        """Its run failed, so it ends by itself."""

    def prepare(self) -> None:
        """Start a process that waits for its run, unless one is there."""
        if self._new is None and self._done is None:
            self._new = self._started()

    def take(self) -> Child:
        """One that waits for its run, or will."""
        if self._done is not None:
            done, is_free = self._done, self._done.rests()
            self._done = None
            if is_free:
                return done
            done.let_go()
        new, self._new = self._new, None
        if new is not None and new.process.poll() is not None:  # killed from outside, or out of memory
            new.let_go()
            new = None
        return new or self._started()

    def keep(self, child: Child) -> None:
        """One whose run is done: the next run is its own too, if it can take one."""
        self._done = child

    def see_off(self, child: Child) -> None:
        """One whose run failed: it hands over its last events and ends beside what follows."""
        if self._leaving is not None:
            self._leaving.see_off()
        self._leaving = child

    def dismiss(self) -> None:
        """There is no other run."""
        for child in (self._new, self._done):
            if child is not None:
                child.dismiss()

    def close(self) -> None:
        """Wait for those that were dismissed or leave; the one that was not needed goes at once."""
        for child in (self._leaving, self._done):
            if child is not None:
                child.see_off()
        self._leaving = self._done = None
        if self._new is not None:
            self._new.let_go()
            self._new.log.unlink(missing_ok=True)
            self._new = None

    def _started(self) -> Child:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / NEXT
        line, theirs = socket.socketpair()
        with theirs, log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tasks.night_child", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd=self._source,
                env={**os.environ, **MEMORY, "PYTHONPATH": str(self._source)},
            )
        return Child(process=process, log=log, line=line)
