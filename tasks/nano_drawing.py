"""The nanodesmo study's figures as a task: ten seconds of work that the run's page shows."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from lab.nano_exports import write_exports
from lab.report_figures import write_group
from lab.report_group import read_groups
from lab.still import still
from lab.store import Store

COMPOSITE = "composite/"
"""Folder of the summary figures."""


@task(name="draw", task_run_name="draw the figures of {phase}", cache_policy=NO_CACHE)
def draw(phase: str, home: str, plan_hash: str, folder: str, commit: str | None) -> list[str]:
    """Draw a plan's figures from what the store holds now; returns the paths of what was written.

    Parameters
    ----------
    phase
        `summary` for what is composed of several measurements, `collect` for the others and the tables
        beside them.
    commit
        Git commit of the program that measured the rows.
    """
    written: list[Path] = []
    is_summary = phase == "summary"
    with still(Store(Path(home))) as source:
        for group in read_groups(source):
            if group.plan_hash != plan_hash:
                continue
            written += write_group(
                source, group, Path(folder), formats=("svg",),
                wanted=lambda name: name.startswith(COMPOSITE) == is_summary,
            )  # fmt: skip
            if not is_summary:
                written += write_exports(source, group, Path(folder), commit)
    return [str(path) for path in written]
