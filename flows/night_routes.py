"""Where the runs of a night lead: what their gates name, or a smaller profile when one gave no result."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from flows.night_told import said
from flows.registry import studies
from lab.night_book import CHAIN, NightBook
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
            logger.info("  %s: %s. %s", decision.gate, decision.verdict, decision.sentence)
        one = _wish(decision)
        if one.study not in studies():
            continue
        if one.profile not in studies()[one.study].profiles:
            logger.warning(
                "%s has no profile %s: the route of %s is not taken", one.study, one.profile, one.why
            )
        elif _was_done(book, decision, one):
            logger.info("%s was done for this decision before", said(one))
        elif one.profile != row.profile and not climb:
            note = f"its gates propose a larger profile: ladder run {one.study} --profile {one.profile}"
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
    """The decisions of this night, and of those it continues, that lead to a run store it.

    It may be in the queue for the plan's sake too: a decision that was there before it was launched counts.
    """
    found = book.store.read(
        f"""{CHAIN} SELECT * FROM decision WHERE launched_flow_run_id IS NULL AND (
            decision_id = $decision
            OR run_id IN (SELECT run_id FROM queue SEMI JOIN chain USING (night_id))
        )""",
        {"night": book.night.night_id, "decision": row.decision_id or ""},
    )
    led = [DecisionRow(**one) for one in found.to_dicts()]
    book.store.record(
        [
            replace(one, launched_flow_run_id=row.flow_run_id)
            for one in led
            if one.decision_id == row.decision_id or _wish(one).item == row.item
        ]
    )


def _decisions(book: NightBook, row: QueueRow) -> list[DecisionRow]:
    found = book.store.read(
        "SELECT * FROM decision WHERE run_id = $run ORDER BY decided_at", {"run": row.run_id or ""}
    )
    return [DecisionRow(**one) for one in found.to_dicts()]


def _wish(decision: DecisionRow) -> Candidate:
    """What a decision leads to, if that is a study."""
    told = json.loads(decision.next_parameters)
    return Candidate(
        study=decision.next.replace("-", "_"),
        profile=str(told.pop("profile", decision.profile)),
        settings=told,
        why=f"{decision.study}'s gate {decision.gate}: {decision.verdict}",
        decision_id=decision.decision_id,
    )


def _was_done(book: NightBook, decision: DecisionRow, one: Candidate) -> bool:
    """Whether any night finished the same work for the same decision."""
    found = book.store.read(
        """SELECT count(*) AS n FROM queue
        WHERE item = $item AND state = 'done' AND (decision_id = $decision OR flow_run_id = $launched)""",
        {
            "item": one.item,
            "decision": decision.decision_id,
            "launched": decision.launched_flow_run_id or "",
        },
    )
    return int(found["n"][0]) > 0
