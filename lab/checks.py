"""What `ladder verify` looks at in any study: its last run ended, its gates decided, its files are whole.

Rows and files are read as they are; nothing is computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.store import Store

_RUNS = """
SELECT run_id, profile, plan_hash, state, note, started_at FROM run WHERE study = $study
QUALIFY row_number() OVER (PARTITION BY study ORDER BY started_at DESC) = 1
"""
_DECIDED = "SELECT count(*) AS n, count(DISTINCT gate) AS gates FROM decision WHERE run_id = $run"
_FILES = """
SELECT DISTINCT path, sha256 FROM artifact JOIN plan_step USING (step_id)
WHERE plan_hash = $plan ORDER BY path
"""
_STUDIES = "SELECT DISTINCT study FROM run ORDER BY study"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    said: str
    """What was found, and what to do when it is not well."""


def studies_run(store: Store) -> list[str]:
    """Studies with a run, by name."""
    return [str(name) for name in store.read(_STUDIES)["study"].to_list()]


def study_checks(store: Store, home: Path, study: str) -> Iterator[Check]:
    """The last run of a study: whether it ended, decided, and left its files whole."""
    runs = store.read(_RUNS, {"study": study}).to_dicts()
    if not runs:
        yield Check(name="run", ok=False, said=f"no run of {study} is in the store; `ladder run {study}`")
        return
    run = runs[0]
    ended = run["state"] in ("completed", "stopped")
    why = (
        ""
        if ended
        else f" ({run['note'] or 'no reason was kept'}); run it again, it goes on where it stopped"
    )
    yield Check(name="run", ok=ended, said=f"{run['profile']}, begun {run['started_at']:%Y-%m-%d %H:%M} UTC: "
                f"{run['state']}{why}")  # fmt: skip
    [decided] = store.read(_DECIDED, {"run": run["run_id"]}).to_dicts()
    yield Check(
        name="gates",
        ok=decided["n"] > 0,
        said=f"{decided['n']} decisions of {decided['gates']} gates" if decided["n"] else "no gate was asked",
    )
    yield from _files(store, home, str(run["plan_hash"]))


def _files(store: Store, home: Path, plan: str) -> Iterator[Check]:
    """One line for all files that are whole, and one for each that is not."""
    rows = store.read(_FILES, {"plan": plan}).to_dicts()
    whole = 0
    for row in rows:
        found = _sha256(home / str(row["path"]))
        if found == row["sha256"]:
            whole += 1
        else:
            what = "is missing" if found is None else "is not what was written"
            yield Check(name="file", ok=False, said=f"{row['path']} {what}; run the study again")
    if rows:
        yield Check(name="files", ok=whole == len(rows), said=f"{whole} of {len(rows)} have their SHA-256")


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
