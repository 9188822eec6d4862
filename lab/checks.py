"""What `ladder verify` looks at in any study: run, plan, gates, steps and files of its last whole run.

Rows and files are read as they are; only verdicts are computed again, from their evidence.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import UsageError
from lab.gates import judge, read_rule
from lab.plan import read_declared
from lab.store import Store

_RUNS = """
SELECT run_id, profile, plan_hash, state, note, started_at FROM run WHERE study = $study
QUALIFY row_number() OVER (
  PARTITION BY study
  ORDER BY state = 'completed' AND run_id NOT IN (SELECT run_id FROM decision), started_at DESC
) = 1
"""
"""The last one, but for runs of single phases, which ask no gate."""
_DECIDED = "SELECT gate, verdict, evidence, rule FROM decision WHERE run_id = $run ORDER BY decided_at"
_STEPS = """
SELECT count(*) AS n, count(*) FILTER (reason IS NOT NULL) AS without, any_value(reason) AS reason
FROM plan_step JOIN step USING (step_id) WHERE plan_hash = $plan
"""
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
        else f" ({run['note'] or 'at work, or killed'}); run it again, it goes on where it stopped"
    )
    yield Check(name="run", ok=ended, said=f"{run['profile']}, begun {run['started_at']:%Y-%m-%d %H:%M} UTC: "
                f"{run['state']}{why}")  # fmt: skip
    yield _plan(home, study, run)
    yield _gates(store.read(_DECIDED, {"run": run["run_id"]}).to_dicts())
    [steps] = store.read(_STEPS, {"plan": run["plan_hash"]}).to_dicts()
    without = f", {steps['without']} without a result ({steps['reason']})" if steps["without"] else ""
    yield Check(name="steps", ok=steps["n"] > 0, said=f"{steps['n']} recorded{without}")
    yield from _files(store, home, str(run["plan_hash"]))


def _plan(home: Path, study: str, run: Mapping[str, Any]) -> Check:
    """Whether the plan that the run is compared with is there and is what was frozen."""
    try:
        declared = read_declared(home, study, run["profile"])
    except UsageError as error:
        return Check(name="plan", ok=False, said=str(error))
    if declared is None:
        what = f"none of {study}/{run['profile']} is frozen in this home; `ladder freeze {study}`"
        return Check(name="plan", ok=False, said=what)
    departs = "" if declared.plan_hash == run["plan_hash"] else ", which the run departs from: exploratory"
    when = f"{declared.frozen_at:%Y-%m-%d %H:%M} UTC"
    return Check(name="plan", ok=True, said=f"{declared.plan_hash}, frozen {when}{departs}")


def _gates(decided: Sequence[Mapping[str, Any]]) -> Check:
    """Whether gates were asked, and each decision follows from the evidence that is stored with it."""
    if not decided:
        return Check(name="gates", ok=False, said="no gate was asked")
    otherwise = []
    for row in decided:
        rules, min_n = read_rule(row["rule"])
        again = judge(rules, min_n, json.loads(row["evidence"]))
        if again != row["verdict"]:
            otherwise.append(f"{row['gate']} is {row['verdict']}, by its evidence {again}")
    gates = len({row["gate"] for row in decided})
    said = f"{len(decided)} decision{'s' * (len(decided) > 1)} of {gates} gate{'s' * (gates > 1)}"
    said = f"{said}, computed again"
    if otherwise:
        return Check(name="gates", ok=False, said=f"{said}: {'; '.join(otherwise)}")
    return Check(name="gates", ok=True, said=f"{said}: the same")


def _files(store: Store, home: Path, plan: str) -> Iterator[Check]:
    """One line for all files that are whole, and one for each that is not."""
    rows = store.read(_FILES, {"plan": plan}).to_dicts()
    whole = 0
    for row in rows:
        place = Path(os.path.normpath(home / str(row["path"])))  # a row may come from another machine
        found = _sha256(place) if place.is_relative_to(os.path.normpath(home)) and place.is_file() else None
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
