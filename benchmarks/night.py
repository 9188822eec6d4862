"""What a night costs beside its steps, and a warm one against a cold one: `python -m benchmarks.night`.

A night of the given studies (two small ones unless named, `all` for every one) runs at `smoke` twice in a new
home, or once more in the home of `--home`, whose first night stands for the cold one, without the command's
start. `make bench` takes a copy of this folder's home so, where `make demo` has left one; else the two small
studies. Those are promised nothing: the start of a server is a large part of so short a night.

Time in tasks is when at least one task of a run was at work; in steps, without those that record rows or ask
gates; writing the report is a step too. The rest of the wall time, from the command to its end, is what
Prefect, processes and server take: bare functions would need none of it. The goals: a rest of at most 5 % of
a cold night, and a warm night of at most 10 % of a cold one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.table import promised, quick
from flows.registry import studies as studies_known
from lab.home import VARIABLE
from lab.store import Store
from tasks.reporting import WRITES

STUDIES = ("nanodesmo", "direct_injection")
NOT_STEPS = ("record", "gate", "decide")
GOAL_REST, GOAL_WARM = 0.05, 0.10


@dataclass(frozen=True)
class Night:
    """One night as it was timed."""

    wall: float
    in_tasks: float
    in_steps: float


def union(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that at least one span covers.

    >>> union([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)])
    4.0
    """
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def night(home: Path, studies: Sequence[str]) -> Night:
    """Run a night as a person does."""
    named = [] if list(studies) == ["all"] else [word for name in studies for word in ("--study", name)]
    command = [sys.executable, "-m", "deployments.cli", "night", "--profile", "smoke", "--budget", "2h"]
    began = time.time()
    subprocess.run(
        [*command, "--no-climb", *named],
        env={**os.environ, "LADDER_HOME": str(home)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return timed(home, began, time.time())


def recorded(home: Path) -> Night:
    """The first night of a home, from its flow's start to its end."""
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        [(first, last)] = database.execute(
            "SELECT run.start_time, run.end_time FROM flow_run AS run JOIN flow ON flow.id = run.flow_id "
            "WHERE flow.name = 'overnight' ORDER BY run.start_time LIMIT 1"
        ).fetchall()
    return timed(home, seconds(first), seconds(last))


def refuse_unfinished(home: Path) -> None:
    """A night after one that left something takes up that alone, and is no warm one.

    Raises
    ------
    SystemExit
        The home has no night, or its last one is not complete.
    """
    nights = Store(home).read("SELECT state, note FROM night ORDER BY started_at DESC LIMIT 1").to_dicts()
    if not nights:
        sys.exit(f"{home} has no night: run one first, or leave --home out")
    [last] = nights
    if last["state"] != "completed":
        sys.exit(f"the last night of {home} ended as {last['state']} ({last['note']}); run one more first")


def timed(home: Path, began: float, ended: float) -> Night:
    """What a night took between two moments."""
    spans = [(name, a, b) for name, a, b in tasks_since(home, began) if b <= ended]
    steps = [(a, b) for name, a, b in spans if not name.startswith(NOT_STEPS)]
    return Night(wall=ended - began, in_tasks=union([(a, b) for _, a, b in spans]), in_steps=union(steps))


def tasks_since(home: Path, began: float) -> list[tuple[str, float, float]]:
    """Name, first and last second of every task run that has worked since a moment; cached ones did not."""
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        rows = database.execute(
            "SELECT task.name, task.start_time, task.end_time FROM task_run AS task "
            "JOIN flow_run AS run ON run.id = task.flow_run_id JOIN flow ON flow.id = run.flow_id "
            "WHERE task.start_time IS NOT NULL AND task.end_time IS NOT NULL "
            "AND task.state_name <> 'Cached' AND (flow.name <> 'overnight' OR task.name = ?)",
            (WRITES,),
        ).fetchall()
    found = [(str(name), seconds(first), seconds(last)) for name, first, last in rows]
    return [one for one in found if one[1] >= began]


def seconds(moment: str) -> float:
    """Of a time as Prefect's database has it, UTC without a zone."""
    return datetime.fromisoformat(f"{moment.split('+')[0]}+00:00").timestamp()


def show(name: str, found: Night) -> None:
    """One line."""
    tasks, steps = (1.0 - part / found.wall for part in (found.in_tasks, found.in_steps))
    print(f"{name:6} {found.wall:8.1f} s; beside tasks {tasks:.1%}, beside steps {steps:.1%}", flush=True)


def main() -> None:
    """Run one or two nights and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", help="names, or all")
    parser.add_argument("--home", type=Path, help="a home whose night is over: only the warm night runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = asked.home or (None if asked.studies else demo(Path(folder)))
        studies = asked.studies or (["all"] if given else STUDIES)
        home = given or Path(folder)
        if given:
            refuse_unfinished(home)
        cold = recorded(home) if given else night(home, studies)
        show("cold", cold)
        warm = night(home, studies)
        show("warm", warm)
    is_whole = list(studies) == ["all"]
    which = "all studies" if is_whole else ", ".join(studies)
    rest = 1.0 - cold.in_tasks / cold.wall
    promised(
        f"night of {which}: beside its tasks",
        "the whole cold night",
        [rest],
        most=GOAL_REST if is_whole else None,
    )
    promised(
        "warm night", "the same night cold", [warm.wall / cold.wall], most=GOAL_WARM if is_whole else None
    )


def demo(folder: Path) -> Path | None:
    """In the quick set a copy of the home here, if a night of every study in it is complete."""
    home = Path(os.environ.get(VARIABLE) or "var")
    if not quick() or not (home / "lab.duckdb").exists():
        return None
    nights = Store(home).read(
        """SELECT arg_max(state, started_at) AS last, arg_min(night_id, started_at) AS first FROM night
        WHERE profile = 'smoke'"""
    )
    whole = Store(home).read(
        "SELECT count(DISTINCT study) AS n FROM queue WHERE state = 'done' AND night_id = $first",
        {"first": nights["first"][0] or ""},
    )
    if nights["last"][0] != "completed" or whole["n"][0] < len(studies_known()):
        return None
    print(f"of a copy of {home}", flush=True)
    return shutil.copytree(home, folder / "home", ignore=shutil.ignore_patterns("*.lock"))


if __name__ == "__main__":
    main()
