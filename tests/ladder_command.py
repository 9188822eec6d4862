"""The `ladder` command as a person runs it: in a process of its own, in a home of its own.

`start` begins it from nothing; `ladder` forks it from a process that has imported the libraries.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deployments.environment import answers
from lab.store import Store
from tests.warm_process import WarmProcess

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lab", "models", "stats", "tasks", "flows", "deployments")
TIED_TO_A_HOME = ("PREFECT", "LADDER", "OLLAMA")
RUN = ("run", "entropy_seeds", "--set", "model=pydoc-0.1m")
COUNTS = """
SELECT (SELECT count(*) FROM generation) AS texts, (SELECT count(*) FROM metric) AS metrics,
       (SELECT count(*) FROM test) AS tests, (SELECT count(*) FROM decision) AS decisions,
       (SELECT count(*) FROM seed_draw) AS draws, (SELECT count(*) FROM step) AS steps
"""
DECISIONS = "SELECT gate, look, verdict, evidence, exploratory FROM decision ORDER BY look, gate"


def environment(home: Path, tree: Path = ROOT) -> dict[str, str]:
    """This process's environment without what ties it to another home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TIED_TO_A_HOME)}
    return {
        **kept,
        "LADDER_HOME": str(home),
        "PYTHONPATH": str(tree),
        "COLUMNS": "80",
        "PYTHONUNBUFFERED": "1",
    }


def start(*arguments: str, home: Path, tree: Path = ROOT, **other: Any) -> subprocess.Popen[str]:
    """Begin a command; standard output and error are pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", *arguments],
        cwd=tree,
        env=environment(home, tree) | other.pop("extra", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **other,
    )


@functools.cache
def shared_server() -> str:
    """Address of one Prefect server for the runs of this process; starting one a run costs 6 CPU s."""
    folder = tempfile.mkdtemp(prefix="prefect-")
    port = free_port()
    server = start_server(Path(folder), port)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.wait)
    atexit.register(server.terminate)  # the last one registered goes first
    return server_url(port)


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def server_url(port: int) -> str:
    """Of a Prefect server here."""
    return f"http://127.0.0.1:{port}/api"


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A Prefect server that keeps its database in a folder, once it answers."""
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=environment(folder)
        | {"PREFECT_HOME": str(folder), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
           "PREFECT_UI_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120.0
    while not answers(server_url(port), timeout_seconds=1.0):
        if server.poll() is not None or time.monotonic() > deadline:
            raise ChildProcessError(f"the Prefect server of the tests did not answer at {server_url(port)}")
        time.sleep(0.1)
    return server


def ladder(
    *arguments: str,
    home: Path,
    tree: Path = ROOT,
    extra: dict[str, str] | None = None,
    own_server: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Parameters
    ----------
    own_server
        With a Prefect server of its own, as a person has it; what `work_done` reads is written when it ends.
    """
    others = dict(extra or {})
    if arguments[0] in ("run", "import") and not own_server:
        others.setdefault("PREFECT_API_URL", shared_server())
    if set(others) <= {"PREFECT_API_URL"}:
        told = environment(home, tree) | others
        return warm_process().run(arguments, tree=tree, environment=told, timeout=500.0)
    process = start(*arguments, home=home, tree=tree, extra=others)
    out, err = process.communicate(timeout=500)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@functools.cache
def warm_process() -> WarmProcess:
    """One for the commands of this process."""
    warm = WarmProcess(ROOT)
    atexit.register(warm.end)
    return warm


def ask(query: str, *, home: Path) -> list[dict[str, Any]]:
    """Rows of a query as `ladder sql --format json` prints them, without a process of its own (0.7 CPU s)."""
    rows: list[dict[str, Any]] = json.loads(Store(home).sql(query).frame.write_json())
    return rows


def work_done(home: Path) -> list[str]:
    """Names of tasks of the last flow run that did work, without records, decisions and drawings.

    The run must have had a server of its own.
    """
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        rows = database.execute(
            """SELECT task.name FROM task_run AS task JOIN flow_run AS flow ON flow.id = task.flow_run_id
               WHERE task.state_name = 'Completed'
                 AND flow.id = (SELECT id FROM flow_run ORDER BY created DESC LIMIT 1)"""
        ).fetchall()
    return [name for (name,) in rows if not name.startswith(("record", "gate", "draw"))]


def copy_tree(to: Path) -> Path:
    """The project's packages somewhere else, to edit them."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to
