"""Nights small enough for tests: a home in which an earlier night left candidates, and what came of them."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from deployments import register
from deployments.service import client
from flows.registry import studies
from lab.fingerprint import canonical
from lab.night_queue import Candidate
from lab.store import Store
from lab.tables import utc_now
from tests.ladder_command import shared_server
from tests.nano_told import SMALL, regimes
from tests.night_rows import NIGHT, QUEUED

TINY = {**SMALL, "seeds": [0, 1]}
QUEUE = "SELECT study, state, attempt, note, seconds FROM queue ORDER BY night_id, position"
NIGHTS = "SELECT night_id, state, continues, coalesce(source, '') AS source FROM night ORDER BY started_at"
FOUND = """
SELECT (SELECT count(*) FROM reaction) AS reactions, (SELECT count(*) FROM metric) AS metrics,
       (SELECT count(*) FROM test) AS tests, (SELECT count(*) FROM step) AS steps
"""
DECIDED = "SELECT gate, verdict, sentence, evidence FROM decision ORDER BY gate"


def asked(folder: Path, **changes: object) -> Candidate:
    """One small candidate."""
    told = TINY | {"regimes": str(regimes(folder)), **changes}
    return Candidate(study="nanodesmo", profile="smoke", settings=told, why="a test")


def left_by_a_night(home: Path, *candidates: Candidate) -> Path:
    """A home in which an earlier night left candidates, and nothing else."""
    home.mkdir(parents=True, exist_ok=True)
    rows = [
        replace(
            QUEUED, night_id="earlier", item=one.item, position=i, study=one.study, profile=one.profile,
            settings=canonical(dict(one.settings)), why=one.why, state="left", attempt=0, flow_run_id=None,
            expected_seconds=None, expected_from=None, missing=None, run_id=None, started_at=None,
            seconds=None,
        )
        for i, one in enumerate(candidates)
    ]  # fmt: skip
    now = utc_now() - timedelta(days=1)
    earlier = replace(NIGHT, night_id="earlier", started_at=now, deadline=now, ended_at=now, note=None)
    Store(home).record([earlier, *rows])
    return home


@functools.cache
def prepared_server() -> dict[str, str]:
    """The tests' server, which knows every deployment; no worker serves them."""
    return prepared(shared_server())


def prepared(url: str) -> dict[str, str]:
    """A server that knows every deployment from now on."""
    with client(url) as api:
        register.prepare_server(api)
        register.register(studies().values(), api)
    return {"PREFECT_API_URL": url}


def night(*more: str) -> tuple[str, ...]:
    """A night of what is left, that proposes and does not climb."""
    return ("night", "--only-left", "--no-climb", *more)


def until(met: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120.0) -> None:
    """Wait for something to happen while a process lives."""
    deadline = time.monotonic() + seconds
    while not met():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs_kept(home: Path) -> int:
    """Trainings that are kept."""
    return len(list(home.glob("models/nano_run-*/state/trained.json")))
