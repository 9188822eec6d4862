"""The `ladder` command as a person runs it: in a process of its own, in a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def ladder(
    *arguments: str, home: Path, tree: Path = ROOT, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = start(*arguments, home=home, tree=tree, extra=extra or {})
    out, err = process.communicate(timeout=500)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def ask(query: str, *, home: Path) -> list[dict[str, Any]]:
    """Rows of a query, through `ladder sql`."""
    done = ladder("sql", query, "--format", "json", home=home)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def work_done(home: Path) -> list[str]:
    """Names of tasks of the last flow run that did work, without records and decisions."""
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        rows = database.execute(
            """SELECT task.name FROM task_run AS task JOIN flow_run AS flow ON flow.id = task.flow_run_id
               WHERE task.state_name = 'Completed'
                 AND flow.id = (SELECT id FROM flow_run ORDER BY created DESC LIMIT 1)"""
        ).fetchall()
    return [name for (name,) in rows if not name.startswith(("record", "gate"))]


def copy_tree(to: Path) -> Path:
    """The project's packages somewhere else, to edit them."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to
