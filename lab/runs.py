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
