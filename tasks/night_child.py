"""Runs of a night, one after the other, in a process of their own: `python -m tasks.night_child LINE_FD`.

It imports what runs need, reads from standard input which run is its own and where its log is, and executes
it as a worker would; then it forgets what it read and says on the line that it is free for the next. A run
that fails ends it, and so does one that leaves much in memory. When its night dies, however that happens, the
line closes and this process ends with all it started, so that no run goes on that no night knows of.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
import threading

import psutil

from lab.home import OWN_SERVER
from models import caches
from tasks import killable

BEFOREHAND = ("prefect.flow_engine", "prefect.task_runners", "flows.registry", "lab.report")
FREE = b"."
KEPT_BYTES = 2**31
"""Resident memory above which this process, or one that works for it, is not kept for the next run.

oneDNN keeps what it compiled for each shape of a product, some 100 MB a model that is sampled from.
"""


def main() -> None:
    """Execute the runs that are named."""
    line = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    _keep_lines()
    for name in BEFOREHAND:
        importlib.import_module(name)
    importlib.import_module("flows.registry").studies()
    if not select.select([sys.stdin], [], [], 0.0)[0]:  # there is time; a run may do without it
        importlib.import_module("torch")
    while told := sys.stdin.readline().strip():
        order = json.loads(told)
        _speak_into(order["log"])
        sys.argv = ["prefect.engine", order["flow_run_id"]]
        with _heartbeats():
            runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)  # exits if the run failed
        killable.rest(KEPT_BYTES)
        caches.forget()
        if psutil.Process().memory_info().rss > KEPT_BYTES:
            return
        line.send(FREE)


def _heartbeats() -> contextlib.AbstractContextManager[object]:
    """None where the server ends with the night: nobody listens, and their thread ends up to 1 s late."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    if not os.environ.get(OWN_SERVER):
        return contextlib.nullcontext()
    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def _speak_into(log: str) -> None:
    """Standard output and error go to the end of a file."""
    sys.stdout.flush()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for one in (1, 2):
        os.dup2(file, one)
    os.close(file)


def _keep_lines() -> None:
    """The lab's own lines go to the run's log file too, which is this process's standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    for name in ("tasks", "flows"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)


def _end_with(line: socket.socket) -> None:
    line.recv(1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
