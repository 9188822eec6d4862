"""A night under way: its queue filled, weighed, run one by one, and followed to where gates lead.

Every state of the queue is a row as soon as it is so, and a row is all that the next night needs.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.artifacts import create_markdown_artifact

from flows.registry import studies
from flows.run_row import publish
from lab.errors import UsageError
from lab.fingerprint import canonical
from lab.machine import cpu_name
from lab.night_book import (
    AT_DEADLINE,
    WITH_NIGHT,
    NightBook,
    candidate,
    chain_root,
    done_in_chain,
    left_over,
    open_night,
    past_runs,
)
from lab.night_queue import Candidate, Prediction, next_fitting, predicted
from lab.records import DecisionRow, QueueRow
from lab.report import write_report
from lab.settings import as_json, changed
from lab.snapshot_source import copy_source
from lab.store import Store, StoreLockedError
from lab.study import Study
from models.backends import BackendError
from tasks.launching import Launched, launch, served
from tasks.night_children import Children

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""A candidate that failed so often, and was not done since, is not left for the next night."""
PART = "a part of it"
"""Why a part of a study is run: before the whole, which goes over all parts again."""
END_SECONDS = 3.0
"""Kept for the report and the last rows."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is asked of a night."""

    profile: str
    names: tuple[str, ...]
    """Studies; empty for all of them."""
    only_left: bool
    climb: bool


def begin(home: Path, wishes: Wishes, *, budget_seconds: float) -> Night:
    """A night whose queue is filled: what earlier nights left first, then every study."""
    due = runtime.flow_run.scheduled_start_time
    begun = datetime.now(UTC) if due is None else due.astimezone(UTC)
    book = open_night(
        home,
        profile=wishes.profile,
        budget_seconds=budget_seconds,
        begun=begun.replace(tzinfo=None),
    )
    identity = runtime.flow_run.id
    source = copy_source(home / "nights" / book.night.night_id)
    book.night = replace(
        book.night,
        flow_run_id=None if identity is None else str(identity),
        source=source.relative_to(home).as_posix(),
    )
    book.store.record([book.night])
    root = chain_root(book.store, book.night.night_id)
    children = Children(source, home / "logs")
    night = Night(home=home, wishes=wishes, book=book, source=source, root=root, children=children)
    night.fill()
    return night


@dataclass
class Night:
    """A night under way."""

    home: Path
    wishes: Wishes
    book: NightBook
    source: Path
    root: str
    """The first of the nights that this one continues."""
    children: Children
    failed: int = 0
    refused: int = 0

    @property
    def left(self) -> float:
        """Seconds to the deadline."""
        return (self.book.night.deadline - datetime.now(UTC).replace(tzinfo=None)).total_seconds()

    def fill(self) -> None:
        """The queue as it begins."""
        done: set[str] = set()
        before = self.book.night.continues
        if before is not None:
            done = done_in_chain(self.book.store, before)
            for row in left_over(self.book.store, before):
                self._take_up(row)
        if self.wishes.only_left:
            return
        names = [name.replace("-", "_") for name in self.wishes.names] or list(studies())
        for name in names:
            study = studies()[name]
            for one in self._of(study):
                if one.item not in done:
                    self.book.add(one)

    def _take_up(self, row: QueueRow) -> None:
        """What an earlier night left; what it had running is looked after first."""
        one = candidate(row)
        if self.book.add(replace(one, why=f"{one.why}; left by night {row.night_id}")):
            self.book.put(replace(self.book.rows[one.item], attempt=row.attempt, flow_run_id=row.flow_run_id))

    def _of(self, study: Study) -> list[Candidate]:
        profile = self.wishes.profile
        why = f"the plan of {study.name}"
        if profile not in study.profiles:
            profile, why = "smoke", f"{why}, which has no profile {profile}: smoke"
        parts = study.parts(study.profiles[profile]) if study.parts is not None else []
        return [
            *(
                Candidate(study=study.name, profile=profile, settings=one, why="a part of it")
                for one in parts
            ),
            Candidate(study=study.name, profile=profile, settings={}, why=why),
        ]

    def run(self) -> None:
        """Candidate after candidate until nothing waits or nothing fits."""
        if self.left <= 0.0:
            logger.warning("the night was due to end before it began; nothing is started")
        while self.left > 0.0:
            weighed = ((one, self._predicted(one)) for one in self.book.waiting())
            waiting = [(one, found) for one, found in weighed if found is not None]
            found = next_fitting(waiting, left=self.left - END_SECONDS, budget=self.book.night.budget_seconds)
            if found is None:
                self._say_why_nothing_fits(waiting)
                return
            self._launch(*found)

    def _predicted(self, one: Candidate) -> Prediction | None:
        """How long a candidate will take; None for one that need not or cannot run: it leaves the queue."""
        row = self.book.rows[one.item]
        if row.expected_seconds is not None and row.expected_from is not None:
            return Prediction(seconds=row.expected_seconds, source=row.expected_from)
        study = studies()[one.study]
        try:
            missing = _missing(study, one, self.home)
        except (UsageError, BackendError, ValueError) as error:  # no such model, text or window here
            self.refused += 1
            self.book.put(replace(row, state="refused", note=str(error)))
            logger.warning("%s: %s", said(one), error)
            return None
        if missing <= 0.0 and row.why.startswith(PART):
            self.book.put(replace(row, state="done", seconds=0.0, missing=0.0, note="it is here already"))
            return None
        found = predicted(
            one,
            missing=missing,
            past=past_runs(self.book.store),
            declared=study.expected_seconds.get(one.profile),
            cpu=cpu_name(),
        )
        self.book.put(
            replace(row, expected_seconds=found.seconds, expected_from=found.source, missing=missing)
        )
        return found

    def _launch(self, one: Candidate, expected: Prediction) -> None:
        """Run a candidate to its end or to the deadline."""
        logger.info(
            "%s: about %.0f s (%s), %.0f s left", said(one), expected.seconds, expected.source, self.left
        )
        began = time.monotonic()
        row, under_way = self._launched(one)
        self._mark_launched(row)
        self._show()
        try:
            found = under_way.wait(time.monotonic() + max(0.0, self.left - END_SECONDS))
        except BaseException:  # Ctrl-C, or the night was cancelled
            under_way.stop("its night was stopped; the next one goes on with it")
            spent = time.monotonic() - began
            self.book.put(replace(row, state="left", seconds=spent, note=WITH_NIGHT))
            raise
        spent = time.monotonic() - began
        if found is None:
            under_way.stop("the night's budget is spent; the next night goes on with it")
            self.book.put(replace(row, state="left", seconds=spent, note=AT_DEADLINE))
            return
        self._settle(row, under_way, found, spent)

    def _launched(self, one: Candidate) -> tuple[QueueRow, Launched]:
        """The candidate's run, under way; one that an earlier night launched and lost is launched anew.

        The key is the same in every night that continues this one, and raised only when the run of that key
        has ended without being done.
        """
        study = studies()[one.study]
        row = self.book.rows[one.item]
        deployment = study.deployment(one.profile)
        settings = changed(study.profiles[one.profile], one.settings)
        asked_by = one.decision_id or self.root
        first = max(1, row.attempt)  # of a night that was killed: its run may be at work, or done
        for attempt in range(first, first + 1 + MOST_ATTEMPTS):
            under_way = launch(
                deployment,
                {"settings": as_json(settings)},
                key=f"{asked_by}/{one.item}/{attempt}",
                name=f"{said(one)} · night {self.book.night.night_id}",
                source=self.source,
                home=self.home,
                children=None if served(deployment) else self.children,
            )
            if not under_way.was_lost:
                break
        started = datetime.now(UTC).replace(tzinfo=None)
        row = replace(
            row, state="running", attempt=attempt, flow_run_id=under_way.flow_run_id, started_at=started
        )
        return self.book.put(row), under_way

    def _settle(self, row: QueueRow, under_way: Launched, found: tuple[str, str], spent: float) -> None:
        """A run that ended: done, or failed with the reason; then its routes."""
        kind, message = found
        run_id = self._run_of(under_way.flow_run_id)
        row = replace(row, seconds=spent, run_id=run_id, note=message[:500] or None)
        if kind == "COMPLETED":
            self.book.put(replace(row, state="done"))
            self._follow(row, was_heard=under_way.child is not None)
            return
        self.failed += 1
        again = self.book.failures(row.item) + 1 < MOST_ATTEMPTS
        then = "the next night tries again" if again else f"failed {MOST_ATTEMPTS} times"
        note = f"{kind.lower()}: {message[:300]}; {then}; its log is {under_way.log.relative_to(self.home)}"
        self.book.put(replace(row, state="left" if again else "failed", note=note))
        logger.warning("%s: %s", row.study, note)

    def _run_of(self, flow_run_id: str) -> str | None:
        rows = self.book.store.read(
            "SELECT run_id FROM run WHERE flow_run_id = $id ORDER BY started_at DESC LIMIT 1",
            {"id": flow_run_id},
        )
        return None if rows.is_empty() else str(rows["run_id"][0])

    def _follow(self, row: QueueRow, *, was_heard: bool) -> None:
        """Say what the run decided if nobody heard it, and queue what its decisions name, each once."""
        for decision in self._decisions(row):
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
                continue
            if self._was_done(one):
                logger.info("%s was done for this decision before", said(one))
            elif self.book.add(one) and profile != row.profile and not self.wishes.climb:
                note = f"of profile {profile}: ladder night --profile {profile}, or a night that climbs"
                self.book.put(replace(self.book.rows[one.item], state="proposed", note=note))

    def _decisions(self, row: QueueRow) -> list[dict[str, Any]]:
        found = self.book.store.read(
            "SELECT * FROM decision WHERE run_id = $run ORDER BY decided_at", {"run": row.run_id or ""}
        )
        return found.to_dicts()

    def _was_done(self, one: Candidate) -> bool:
        """Whether any night finished the same work for the same decision."""
        found = self.book.store.read(
            "SELECT count(*) AS n FROM queue WHERE item = $item AND state = 'done' "
            "AND decision_id = $decision",
            {"item": one.item, "decision": one.decision_id or ""},
        )
        return int(found["n"][0]) > 0

    def _mark_launched(self, row: QueueRow) -> None:
        """The decision that asked for the run stores it."""
        if row.decision_id is None:
            return
        rows = self.book.store.read(
            "SELECT * FROM decision WHERE decision_id = $id", {"id": row.decision_id}
        ).to_dicts()
        self.book.store.record(
            [replace(DecisionRow(**found), launched_flow_run_id=row.flow_run_id) for found in rows]
        )

    def _say_why_nothing_fits(self, waiting: list[tuple[Candidate, Prediction]]) -> None:
        for one, expected in waiting:
            note = f"needs about {expected.seconds:.0f} s ({expected.source}), {self.left:.0f} s were left"
            self.book.put(replace(self.book.rows[one.item], note=note))

    def how_it_ended(self) -> tuple[str, str | None]:
        """State and note of the night's row."""
        open_ones = [row for row in self.book.rows.values() if row.state in ("queued", "left")]
        if open_ones:
            return "budget", f"{len(open_ones)} of {len(self.book.rows)} are left for the next night"
        return "completed", None

    def end(self, state: str, note: str | None) -> None:
        """Close the night, publish the results, write the report; a cancelled one has no time."""
        self.children.close()
        self.book.close(state, note)
        if state == "cancelled":  # Prefect kills it 30 s after telling it to end
            return
        self._show()
        publish(self.home)
        try:
            write_report(Store(self.home), self.home / "report.html")
        except StoreLockedError as error:
            logger.warning("no report was written: %s; `ladder report` writes it", error)

    def _show(self) -> None:
        """The queue as a page of the run."""
        create_markdown_artifact(
            key="night-queue", markdown="\n".join(self.lines()), description=self.summary()
        )

    def lines(self) -> list[str]:
        """The queue as a table."""
        head = [
            "| study | profile | state | expected | took | why |",
            "| --- | --- | --- | ---: | ---: | --- |",
        ]
        for row in sorted(self.book.rows.values(), key=lambda row: row.position):
            expected = "" if row.expected_seconds is None else f"{row.expected_seconds:.0f} s"
            took = "" if row.seconds is None else f"{row.seconds:.0f} s"
            why = "; ".join(filter(None, [row.why, row.note])).replace("|", "/")
            head.append(f"| {row.study} | {row.profile} | {row.state} | {expected} | {took} | {why} |")
        return head

    def summary(self) -> str:
        """What was done and what is left, in a sentence."""
        count = dict.fromkeys(("done", "running", "queued", "left", "proposed", "refused", "failed"), 0)
        for row in self.book.rows.values():
            count[row.state] += 1
        return ", ".join(f"{n} {state}" for state, n in count.items() if n) or "nothing to do"

    def result(self) -> dict[str, Any]:
        """The night as plain data."""
        return {
            "night_id": self.book.night.night_id,
            "state": self.book.night.state,
            "summary": self.summary(),
            "failed": self.failed + self.refused,
            "queue": [
                dataclasses.asdict(row) | {"started_at": str(row.started_at or "")}
                for row in sorted(self.book.rows.values(), key=lambda row: row.position)
            ],
        }


def _missing(study: Study, one: Candidate, home: Path) -> float:
    """Units that a candidate lacks, over the units of its profile as it stands."""
    base = study.profiles[one.profile]
    planned = study.steps(changed(base, one.settings), home)
    whole = study.steps(base, home) if one.settings else planned
    units = sum(step.units for step in whole)
    return sum(step.units - step.cached for step in planned) / units if units else 1.0


def said(one: Candidate) -> str:
    """A candidate as people read it."""
    changed = ", ".join(f"{name} {canonical(value)}" for name, value in one.settings.items())
    return f"{one.study} · {one.profile}" + (f" · {changed}" if changed else "")
