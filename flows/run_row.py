"""The row that a run opens with: who, under which plan, on what, started by which Prefect run."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime

from prefect import runtime

from lab.fingerprint import canonical
from lab.machine import git_state, this_process
from lab.plan import Plan, plan_hash
from lab.records import RunRow


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
