"""Work in processes that can be stopped: a call has a time limit, and one that exceeds it is killed.

Prefect's own timeouts do not interrupt a blocking call in a worker thread. A `Worker` is a process that stays
for the next call, so that importing torch and loading a model are paid once; after a limit was exceeded or a
crash it is replaced. As many run as there are processor cores (`tasks.slots`), each with one thread: sums are
then the same whatever the machine.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from lab.errors import TimeLimitError, WorkError
from tasks.slots import Slots

ALARM_SLACK_SECONDS = 30.0
"""The worker's own alarm comes this much after the caller's limit, in case the caller is stopped."""
FORGETTING, FORGET_SECONDS = "models.caches:forget", 10.0
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2 * 10**9),
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
"""glibc then keeps what a training step frees and does not fault it in again: 8 % of a step."""


class Worker:
    """One process that takes calls one after the other.

    Parameters
    ----------
    source
        Folder of the packages that it imports; those of this process without.
    priority
        Its niceness, 0 to 19.
    """

    def __init__(self, *, source: Path | None = None, priority: int = 0) -> None:
        reading, writing = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.worker", str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            pass_fds=[writing],
            cwd=source,
            env={**os.environ, **_THREADS, **MEMORY, **({"PYTHONPATH": str(source)} if source else {})},
            start_new_session=True,
        )
        if priority:
            _lower(self._process.pid, priority)
        os.close(writing)
        self._answers = reading
        self._unread = b""
        self._is_busy = False
        self.near = ""

    def call(
        self,
        function: str,
        arguments: Mapping[str, object],
        *,
        seconds: float,
        report: Callable[[Any], None],
    ) -> Any:
        """Call `models.module:function` with plain data and wait for its answer.

        Parameters
        ----------
        function
            Takes the arguments by name, and `report`, to be called with plain data along the way.
        seconds
            Time limit.
        report
            Called with what the function reports.

        Raises
        ------
        TimeLimitError
            The limit was exceeded; the process is gone.
        WorkError
            The function raised or the process died; the message says what it said.
        """
        deadline = time.monotonic() + seconds
        call = {
            "function": function,
            "arguments": arguments,
            "deadline_seconds": seconds + ALARM_SLACK_SECONDS,
        }
        assert self._process.stdin is not None
        self._is_busy = True
        with contextlib.suppress(BrokenPipeError):  # it is dead; the answer below says how
            self._process.stdin.write(json.dumps(call).encode() + b"\n")
            self._process.stdin.flush()
        while True:
            answer = self._next_answer(deadline, seconds)
            if "report" in answer:
                report(answer["report"])
                continue
            self._is_busy = False
            if "error" in answer:
                raise WorkError(f"{answer['error']['type']}: {answer['error']['message']}")
            return answer["result"]

    def _next_answer(self, deadline: float, seconds: float) -> dict[str, Any]:
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0.0 or not select.select([self._answers], [], [], left)[0]:
                self.kill()
                raise TimeLimitError(f"stopped at its time limit of {seconds:g} s")
            chunk = os.read(self._answers, 2**20)
            if not chunk:
                self.kill()
                raise WorkError(self._how_it_died())
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _how_it_died(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process died by {how}" + (f": {said[-1][:300]}" if said else "")

    @property
    def is_ready(self) -> bool:
        """Whether it can take a call: it lives, and no call was left unanswered."""
        return not self._is_busy and self._process.poll() is None

    def forget(self) -> bool:
        """Empty its caches (`models.caches`); whether it did."""
        self.near = ""
        try:
            self.call(FORGETTING, {}, seconds=FORGET_SECONDS, report=lambda _: None)
        except (WorkError, TimeLimitError):
            return False
        return True

    def resident_bytes(self) -> int:
        """Memory that it holds; 0 when it is gone."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def kill(self) -> None:
        """End the process and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Kill it and let go of its files."""
        self.kill()
        for file in (self._process.stdin, self._log):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):
                    file.close()
        os.close(self._answers)


def _lower(pid: int, priority: int) -> None:
    """Lower the priority of a session's first process, and of the session where the kernel groups by it.

    Linux with `sched_autogroup_enabled` gives each session an equal share whatever the niceness within it.
    """
    os.setpriority(os.PRIO_PROCESS, pid, priority)
    for _ in range(10):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(priority))
        except BlockingIOError:  # who is not root may change one in a tenth of a second
            time.sleep(0.1)
        except OSError:  # no Linux, or none that groups
            return
        else:
            return


_slots = Slots(os.cpu_count() or 1)
_lock = threading.Lock()
_idle: list[Worker] = []
_busy: set[Worker] = set()
_stops = 0
"""How often everything was stopped: who still waits for a process since before gets none."""


@contextlib.contextmanager
def worker(near: str = "") -> Iterator[Worker]:
    """A process for some calls; waits while as many are busy as `tasks.slots` lets run at once.

    Parameters
    ----------
    near
        What the calls are about: the process that had it last is taken if it is idle, for what it holds.

    Raises
    ------
    WorkError
        Everything was stopped while this waited.
    """
    asked = _stops
    with _slots.held():
        with _lock:
            if asked != _stops:
                raise WorkError("stopped with its run, before it began")
            found = _ready(near)
            found.near = near
            _busy.add(found)
        try:
            yield found
        finally:
            with _lock:
                _busy.remove(found)
                if found.is_ready:
                    _idle.append(found)
                else:  # killed, or left in the middle of a call by an error of the caller
                    found.close()


def _ready(near: str) -> Worker:
    for found in _idle[:]:
        if not found.is_ready:  # it died while it waited
            _idle.remove(found)
            found.close()
    same = [found for found in _idle if found.near == near]
    if not _idle:
        return Worker()
    chosen = same[0] if same else _idle[0]
    _idle.remove(chosen)
    return chosen


def rest(most_bytes: int) -> None:
    """Between two runs: idle processes stay for calls to come, and forget all but their imports.

    One that holds more memory than `most_bytes` then, or cannot forget, ends.
    """
    with _lock:
        for found in _idle[:]:
            if not found.forget() or found.resident_bytes() > most_bytes:
                _idle.remove(found)
                found.close()


@atexit.register
def stop_all() -> None:
    """End every process, and what waits for one; calls from now on start new ones."""
    global _stops
    with _lock:
        _stops += 1
        for found in _busy:
            found.kill()
        while _idle:
            _idle.pop().close()
