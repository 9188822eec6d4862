"""What every run does first and last: its row, its plan frozen or compared, its end, its path shown.

The row says who, under which plan, on what, started by which Prefect run.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import runtime

from lab.fingerprint import canonical
from lab.gates import STOP
from lab.home import resolve_home
from lab.machine import environment, git_state, this_process
from lab.plan import Plan, deviations, freeze, plan_hash, plan_row, read_declared
from lab.records import DecisionRow, Record, RunRow, StudyRow
from lab.runs import closed, reconcile
from lab.store import Store, StoreLockedError
from lab.tables import utc_now
from tasks import killable
from tasks.deciding import show_path
from tasks.recording import record
from tasks.shell import unwalked

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run whose row is recorded."""

    home: Path
    row: RunRow
    device: str
    frozen_at: datetime
    """When the declared plan was frozen, UTC."""


def open_run(
    plan: Plan,
    default: Plan,
    *,
    question: str,
    text: str,
    model: str,
    settings: Mapping[str, object],
    device: str = "cpu",
) -> Opened:
    """Open a run's row; the first run of a profile freezes the profile's plan, as it is shipped.

    Parameters
    ----------
    plan, default
        The plan of this run, and that of its profile as shipped.
    question, text
        The study's question, and its question, comparison and prediction in full.

    Raises
    ------
    UsageError
        For a home that cannot be written or a frozen plan that is damaged.
    """
    home, now = resolve_home(), utc_now()
    declared = read_declared(home, plan.study, plan.profile) or freeze(home, default, now=now)
    departs = deviations(plan, declared)
    place = environment(device=device)
    row = open_row(
        plan,
        model=model,
        settings=settings,
        environment_id=place.environment_id,
        exploratory=bool(departs),
        now=now,
    )
    study = StudyRow(study=plan.study, question=question, text=text)
    rows: list[Record] = [study, plan_row(plan, declared, now=now), place, row]
    record(str(home), "run", unwalked([*rows, *departs]))
    if departs:
        fields = ", ".join(row.field for row in departs)
        logger.warning("this run departs from the frozen plan (%s): exploratory", fields)
    return Opened(home=home, row=row, device=place.device, frozen_at=declared.frozen_at)


@contextmanager
def closing(home: Path, row: RunRow, path: Sequence[DecisionRow], last_gate: str) -> Iterator[None]:
    """Close the run's row whatever happens; after a whole run, bring everything into the database.

    Parameters
    ----------
    path
        The decisions, filled while the run goes on.
    last_gate
        The gate that concludes: a stop before it makes the run `stopped`.
    """
    try:
        yield
    finally:
        error = sys.exception()
        if error is not None and not isinstance(error, Exception):
            killable.stop_all()  # Prefect would wait for every training under way, longer than 30 s
        Store(home).record([closed(row, *_end(error, path, last_gate))])
    if path:
        show_path(home, path)
    publish(home)


def _end(error: BaseException | None, path: Sequence[DecisionRow], last_gate: str) -> tuple[str, str | None]:
    """State and note of the run's row."""
    if isinstance(error, Exception):
        return "failed", f"{type(error).__name__}: {error}"
    if error is not None:  # Ctrl-C, or Prefect's signal that the run was cancelled
        return "cancelled", "interrupted; run it again to go on where it stopped"
    return ("stopped" if path and path[-1].next == STOP and path[-1].gate != last_gate else "completed"), None


def publish(home: Path) -> None:
    """Bring every row into the database and copy it for readers, unless another program holds it."""
    store = Store(home)
    try:
        reconcile(store)
        store.snapshot(wait_seconds=30.0)
    except StoreLockedError as error:
        logger.warning("%s; the rows wait in the outbox, `ladder drain` brings them in", error)


def summary(path: Sequence[DecisionRow]) -> str:
    """The last decision in a sentence."""
    last = path[-1]
    return f"{last.gate} {last.verdict} at look {last.look}. {last.sentence}. Next: {last.next}"


def result(row: RunRow, model: str, path: Sequence[DecisionRow]) -> dict[str, Any]:
    """The decisions in order, and those of the last look, as plain data."""
    decisions = told(path)
    return {
        "run_id": row.run_id,
        "study": row.study,
        "model": model,
        "decisions": decisions,
        "concluding": [one for one in decisions if one["look"] == path[-1].look],
    }


def told(path: Sequence[DecisionRow]) -> list[dict[str, Any]]:
    """What a flow's result says of each decision, as plain data."""
    wanted = (
        "decision_id",
        "model",
        "gate",
        "look",
        "verdict",
        "exploratory",
        "negligible",
        "sentence",
        "next",
    )
    return [{name: getattr(row, name) for name in wanted} for row in path]


def open_row(
    plan: Plan,
    *,
    model: str,
    settings: Mapping[str, object],
    environment_id: str,
    exploratory: bool,
    now: datetime,
) -> RunRow:
    """A run that starts now, in this process."""
    commit, dirty = git_state()
    flow_run, parent = runtime.flow_run.id, runtime.flow_run.parent_flow_run_id
    return RunRow(
        run_id=secrets.token_hex(8),
        study=plan.study,
        profile=plan.profile,
        model=model,
        plan_hash=plan_hash(plan),
        settings=canonical(settings),
        state="running",
        started_at=now,
        ended_at=None,
        exploratory=exploratory,
        environment_id=environment_id,
        git_commit=commit,
        git_dirty=dirty,
        flow_run_id=None if flow_run is None else str(flow_run),
        parent_flow_run_id=None if parent is None else str(parent),
        process=this_process(),
        note=None,
    )
