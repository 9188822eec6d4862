"""The life of a run in the store: opened as `running`, closed with its end; a killed one is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab.machine import is_alive
from lab.records import RunRow
from lab.store import Store
from lab.tables import utc_now

ENDS = ("completed", "failed", "crashed", "cancelled", "stopped")


def closed(run: RunRow, state: str, note: str | None = None) -> RunRow:
    """The run with its end.

    Raises
    ------
    ValueError
        For a state that is no end.
    """
    if state not in ENDS:
        raise ValueError(f"unknown end {state!r} of run {run.run_id}; allowed: {', '.join(ENDS)}")
    return replace(run, state=state, ended_at=utc_now(), note=note)


def reconcile(store: Store) -> list[str]:
    """Mark runs whose process is gone as crashed; returns their ids. Reads, so it waits for the store."""
    rows = store.read("SELECT * FROM run WHERE state = 'running'").iter_rows(named=True)
    lost: list[dict[str, Any]] = [row for row in rows if not is_alive(row["process"])]
    store.record([closed(RunRow(**row), "crashed", "the process is gone") for row in lost])
    return [row["run_id"] for row in lost]


def is_worked_on(store: Store, flow_run_id: str, *, wait_seconds: float = 600.0) -> bool:
    """Whether the process of a run of the store, known by its Prefect run, still lives.

    Raises
    ------
    StoreLockedError
        Another program holds the store for longer.
    """
    sql = "SELECT process FROM run WHERE flow_run_id = $id AND state = 'running'"
    found = store.read(sql, {"id": flow_run_id}, wait_seconds=wait_seconds)
    return any(is_alive(str(name)) for name in found["process"])


def at_work(store: Store) -> list[str]:
    """Runs and nights of the home whose process lives, in words; one of another machine counts as alive."""
    return [said for said, alive in _running(store) if alive]


def killed(store: Store) -> list[str]:
    """Runs and nights that were at work when their process went."""
    return [said for said, alive in _running(store) if not alive]


def _running(store: Store) -> list[tuple[str, bool]]:
    rows = store.read(
        "SELECT 'run of ' || study || '/' || profile AS what, started_at, process FROM run "
        "WHERE state = 'running' UNION ALL "
        "SELECT 'night ' || night_id, started_at, process FROM night WHERE state = 'running' ORDER BY ALL"
    ).to_dicts()
    return [
        (
            f"{row['what']}, begun {row['started_at']:%Y-%m-%d %H:%M} UTC, "
            f"process {row['process'].split(':')[1]}",
            is_alive(str(row["process"])),
        )
        for row in rows
    ]
