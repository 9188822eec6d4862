"""One run of a night in a process of its own: `python -m tasks.night_child OWNER_FD`.

It imports what runs need, reads from standard input which run is its own, and executes it as a worker would.
When its night dies, however that happens, the pipe they share closes and this process ends with all it
started, so that no run goes on that no night knows of.
"""

from __future__ import annotations

import importlib
import logging
import os
import runpy
import select
import signal
import sys
import threading

BEFOREHAND = ("prefect.flow_engine", "prefect.task_runners", "flows.registry", "lab.report")


def main() -> None:
    """Execute the run that is named."""
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    _keep_lines()
    for name in BEFOREHAND:
        importlib.import_module(name)
    importlib.import_module("flows.registry").studies()
    if not select.select([sys.stdin], [], [], 0.0)[0]:  # there is time; a run may do without it
        importlib.import_module("torch")
    flow_run_id = sys.stdin.readline().strip()
    if not flow_run_id:  # the night needed no other run
        return
    sys.argv = ["prefect.engine", flow_run_id]
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _keep_lines() -> None:
    """The lab's own lines go to the run's log file too, which is this process's standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    for name in ("tasks", "flows"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)


def _end_with(owner: int) -> None:
    os.read(owner, 1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
