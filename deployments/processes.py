"""Processes that outlive the command that starts them, and their end.

Each is the head of a session of its own, so a Ctrl-C in the terminal that started it does not reach it.
Prefect puts each flow run into yet another group, and a run whose worker was killed has no parent left to
find it by: so all of them carry a mark in their environment, which children inherit, and by which alone they
are found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from deployments.environment import MARK_VARIABLE, Process, identify

LOG_TAIL_LINES = 15


def start(command: Sequence[str], *, log: Path, environment: Mapping[str, str], cwd: Path) -> Process:
    """Start a process that stays when this one ends.

    Parameters
    ----------
    command
        Program and arguments.
    log
        File that its output is added to.
    environment
        All of its environment.
    cwd
        Its working directory.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    child.returncode = 0  # nobody waits for it here, and Popen would warn of that
    return identify(child.pid)


def marked(mark: str) -> list[Process]:
    """Every running process whose environment carries the mark."""
    found: list[Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK_VARIABLE) == mark and process.pid != os.getpid():
                found.append(identify(process.pid))
    return [process for process in found if process.alive()]


def stop(processes: Sequence[Process], *, grace_seconds: float) -> int:
    """Ask processes to end, and kill those that have not within the grace time; returns how many were killed.

    One that ended before, or whose number now belongs to another process, is left alone.
    """
    for process in processes:
        _signal(process, signal.SIGTERM)
    if wait_gone(processes, timeout_seconds=grace_seconds):
        return 0
    left = [process for process in processes if process.alive()]
    for process in left:
        _signal(process, signal.SIGKILL)
    wait_gone(left, timeout_seconds=grace_seconds)
    return len(left)


def wait_gone(processes: Sequence[Process], *, timeout_seconds: float) -> bool:
    """Wait until none is alive; False when the time is up first."""
    deadline = time.monotonic() + timeout_seconds
    while any(process.alive() for process in processes):
        if time.monotonic() > deadline:
            return False
        _reap(processes)
        time.sleep(0.05)
    return True


def log_tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:])
    except OSError:
        return ""


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.alive():
            os.kill(process.pid, number)


def _reap(processes: Sequence[Process]) -> None:
    """Take the exit codes of those that are children of this very process."""
    for process in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
