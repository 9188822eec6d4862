"""The summary of a morning: what came of the last day, what moved, what it cost, what is worth doing next.

It reads the store and writes three things: the snapshot, the day's Parquet export and the report. What cannot
be written is said on its page, which is shown in any case, and the run then counts as failed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from flows.registry import studies
from flows.run_row import publish
from lab.daily_export import export_day
from lab.errors import UsageError, WorkError
from lab.home import resolve_home
from lab.report import write_report
from lab.store import Store
from lab.summaries import in_a_sentence, page
from lab.summary_rows import plain, summarise
from lab.tables import utc_now


def _named() -> str:
    return f"summary · {utc_now():%Y-%m-%d}"


@flow(
    name="summary",
    flow_run_name=_named,
    description="Verdicts of the last day, drift, cost of verdicts, open questions and next steps.",
)
def summary(
    report: bool = Field(default=True, description="Whether to write report.html too"),
) -> dict[str, Any]:
    """Bring everything in, publish it, and say what it amounts to.

    Raises
    ------
    WorkError
        The export or the report could not be written; the page says so too.
    """
    home, now = resolve_home(), utc_now()
    store = Store(home)
    publish(home)
    found = summarise(store, now=now)
    wanted = {"export": lambda: _export(store, now)}
    if report:
        wanted["report"] = lambda: write_report(store, home / "report.html")
    made, problems = _write(home, wanted)
    create_markdown_artifact(
        key="summary",
        markdown=page(
            found,
            flows=set(studies()),
            made=[f"{what}: `{path}`" for what, path in made.items()],
            problems=problems,
        ),
        description=in_a_sentence(found),
    )
    if problems:
        raise WorkError("; ".join(problems))
    return plain(found) | {"sentence": in_a_sentence(found), "written": made}


def _export(store: Store, now: datetime) -> Path:
    return export_day(store, now.date())


def _write(home: Path, wanted: dict[str, Callable[[], Path]]) -> tuple[dict[str, str], list[str]]:
    """Paths relative to the home by name, and why others are not there."""
    made: dict[str, str] = {}
    problems: list[str] = []
    for what, write in wanted.items():
        try:
            made[what] = write().relative_to(home).as_posix()
        except (OSError, UsageError) as error:  # a held store is an OSError too
            problems.append(f"{what}: {error}")
    return made, problems
