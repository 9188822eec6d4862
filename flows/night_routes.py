"""Where the runs of a night lead: what their gates name, or a smaller profile when one gave no result."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from flows.night_told import said
from flows.registry import studies
from lab.night_book import NightBook
from lab.night_queue import Candidate
from lab.records import DecisionRow, QueueRow

logger = logging.getLogger(__name__)


def follow(book: NightBook, row: QueueRow, *, climb: bool, was_heard: bool) -> None:
    """Queue what the decisions of a run name, each once.

    Parameters
    ----------
    row
        Of the run, which is done.
    climb
        Whether a route to another profile is taken; else it is proposed.
    was_heard
        Whether the run's own lines have said what it decided.
    """
    for decision in _decisions(book, row):
        if not was_heard:
            logger.info("  %s: %s. %s", decision["gate"], decision["verdict"], decision["sentence"])
        name = str(decision["next"]).replace("-", "_")
        if name not in studies():
            continue
        told = json.loads(str(decision["next_parameters"]))
        profile = str(told.pop("profile", row.profile))
        why = f"{decision['study']}'s gate {decision['gate']}: {decision['verdict']}"
        one = Candidate(
            study=name, profile=profile, settings=told, why=why, decision_id=str(decision["decision_id"])
        )
        if profile not in studies()[name].profiles:
            logger.warning("%s has no profile %s: the route of %s is not taken", name, profile, why)
        elif _was_done(book, one):
            logger.info("%s was done for this decision before", said(one))
        elif profile != row.profile and not climb:
            note = f"its gates propose a larger profile: ladder run {name} --profile {profile}"
            book.add(one, state="proposed", note=note)
        else:
            book.add(one)


def follow_failure(book: NightBook, row: QueueRow) -> None:
    """Queue the study's next smaller profile after a run that failed or was refused, if there is one.

    It tells whether the study works here at all, and leaves verdicts where the larger one left none.
    """
    study = studies().get(row.study)
    smaller = None if study is None else study.smaller_profile(row.profile)
    if smaller is None:
        return
    why = f"{row.study} · {row.profile} gave no result: its smaller profile"
    if book.add(Candidate(study=row.study, profile=smaller, settings={}, why=why)):
        logger.info("%s · %s is queued in its place", row.study, smaller)


def mark_launched(book: NightBook, row: QueueRow) -> None:
    """The decision that asked for a run stores it."""
    if row.decision_id is None:
        return
    rows = book.store.read("SELECT * FROM decision WHERE decision_id = $id", {"id": row.decision_id})
    book.store.record(
        [replace(DecisionRow(**found), launched_flow_run_id=row.flow_run_id) for found in rows.to_dicts()]
    )


def _decisions(book: NightBook, row: QueueRow) -> list[dict[str, Any]]:
    found = book.store.read(
        "SELECT * FROM decision WHERE run_id = $run ORDER BY decided_at", {"run": row.run_id or ""}
    )
    return found.to_dicts()


def _was_done(book: NightBook, one: Candidate) -> bool:
    """Whether any night finished the same work for the same decision."""
    found = book.store.read(
        "SELECT count(*) AS n FROM queue WHERE item = $item AND state = 'done' AND decision_id = $decision",
        {"item": one.item, "decision": one.decision_id or ""},
    )
    return int(found["n"][0]) > 0
