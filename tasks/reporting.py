"""The report as a task: work that a night shows on its page, with the time it took."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from lab.report import write_report
from lab.store import Store

WRITES = "write the report"
"""Name of its run, by which `benchmarks.night` counts it."""


@task(name="report", task_run_name=WRITES, cache_policy=NO_CACHE)
def write(home: str) -> str:
    """Write `report.html` of a home from its store; returns its path."""
    return str(write_report(Store(Path(home)), Path(home) / "report.html"))
