"""A night under way: its queue filled, weighed, run one by one, and followed to where gates lead.

Every state of the queue is a row as soon as it is so, and a row is all that the next night needs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prefect import runtime
from prefect.artifacts import create_markdown_artifact

from flows import night_told
from flows.night_routes import follow, follow_failure, mark_launched
from flows.night_told import said
from flows.registry import find_study, studies
from flows.run_row import publish
from lab.cleaning import delete, of_old_nights
from lab.clock import elapsed
from lab.errors import UsageError
from lab.home import home_id
from lab.machine import cpu_name
from lab.night_book import (
    AT_DEADLINE,
    CANCELLED,
    WITH_NIGHT,
    NightBook,
    candidate,
    chain_root,
    done_in_chain,
    left_over,
    open_night,
    open_questions,
    past_runs,
)
from lab.night_queue import Candidate, Past, Prediction, next_fitting, ordered, predicted
from lab.records import QueueRow
from lab.settings import as_json, changed
from lab.snapshot_source import copy_source
from lab.store import StoreLockedError
from lab.study import Call, Study
from models.backends import BackendError
from tasks import reporting
from tasks.ahead import Ahead
from tasks.launching import Launched, launch
from tasks.night_children import Children

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""A candidate that failed so often, and was not done since, is not left for the next night."""
PART = "a part of it"
"""Why a part of a study is run: before the whole, which goes over all parts again."""
END_SECONDS = 3.0
"""Kept for the last rows, beside what the last report took; at most MOST_OF_A_NIGHT of the budget."""
MOST_OF_A_NIGHT = 0.2
STORE_PATIENCE_SECONDS = 10.0
REPORT_TOOK = "report.seconds"
"""File of the nights' folder: how long the last report took to write."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is asked of a night."""

    profile: str
    names: tuple[str, ...]
    """Studies; empty for all of them."""
    only_left: bool
    climb: bool


command_began: datetime | None = None
"""When somebody asked for the night of this process, UTC: its server takes some seconds of the budget too."""


def begin(home: Path, wishes: Wishes, *, budget_seconds: float) -> Night:
    """A night under way, its queue still empty."""
    due = runtime.flow_run.scheduled_start_time
    begun = min(one.astimezone(UTC) for one in (due or datetime.now(UTC), command_began) if one)
    book = open_night(
        home,
        profile=wishes.profile,
        budget_seconds=budget_seconds,
        begun=begun.replace(tzinfo=None),
    )
    ends = elapsed() + (book.night.deadline - datetime.now(UTC).replace(tzinfo=None)).total_seconds()
    identity = runtime.flow_run.id
    source = copy_source(home / "nights" / book.night.night_id)
    book.night = replace(
        book.night,
        flow_run_id=None if identity is None else str(identity),
        source=source.relative_to(home).as_posix(),
    )
    book.store.record([book.night])
    return Night(
        home=home,
        wishes=wishes,
        book=book,
        source=source,
        root=chain_root(book.store, book.night.night_id),
        children=Children(source, home / "logs"),
        ahead=Ahead(source),
        ends=ends - min(END_SECONDS + _report_took(home), MOST_OF_A_NIGHT * budget_seconds),
    )


def _report_took(home: Path) -> float:
    """Seconds that the last report took to write; 0 when none is known."""
    try:
        return float((home / "nights" / REPORT_TOOK).read_text())
    except (FileNotFoundError, ValueError):
        return 0.0


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
    ahead: Ahead
    ends: float
    """When work stops, by `lab.clock.elapsed`: a clock that is set does not move it."""
    failed: int = 0
    refused: int = 0
    calls: dict[str, list[Call]] = field(default_factory=dict)
    """Item -> what could be made before its turn."""
    telling: dict[str, float] = field(default_factory=dict)
    """Study -> open questions of it that an hour would settle."""
    units: dict[str, float] = field(default_factory=dict)
    """Deployment -> units of its steps, here or not."""

    @property
    def left(self) -> float:
        """Seconds until work stops."""
        return self.ends - elapsed()

    def fill(self) -> None:
        """The queue as it begins."""
        if self.left > 0.0:
            self.children.prepare()  # it does its imports while the candidates are found and weighed
        done: set[str] = set()
        before = self.book.night.continues
        if before is not None:
            done = done_in_chain(self.book.store, before)
            for row in left_over(self.book.store, before):
                if not self.wishes.names or row.study in self.wishes.names:
                    self._take_up(row)
        if self.wishes.only_left:
            return
        for name in self.wishes.names or list(studies()):
            study = studies()[name]
            for one in self._of(study):
                if one.item not in done:
                    self.book.add(one)

    def _take_up(self, row: QueueRow) -> None:
        """What an earlier night left; what it had running is looked after first."""
        one = candidate(row)
        why, _, _ = one.why.partition("; left by night ")
        if self.book.add(replace(one, why=f"{why}; left by night {row.night_id}")):
            self.book.put(replace(self.book.rows[one.item], attempt=row.attempt, flow_run_id=row.flow_run_id))

    def _of(self, study: Study) -> list[Candidate]:
        profile = self.wishes.profile
        why = f"the plan of {study.name}"
        if profile not in study.profiles:
            profile, why = "smoke", f"{why}, which has no profile {profile}: smoke"
        parts = study.parts(study.profiles[profile]) if study.parts is not None else []
        return [
            *(Candidate(study=study.name, profile=profile, settings=one, why=PART) for one in parts),
            Candidate(study=study.name, profile=profile, settings={}, why=why),
        ]

    def run(self) -> None:
        """Candidate after candidate until nothing waits or nothing fits."""
        whole = self.left
        if whole <= 0.0:
            logger.warning("the night was due to end before it began; nothing is started")
        while True:
            waiting = self._weighed()
            found = next_fitting(waiting, left=self.left, whole=whole, telling=self.telling)
            if found is None:
                self._say_why_nothing_fits(waiting)
                return
            own = self.calls.get(found[0].item, [])
            others = (
                call for one, _ in ordered(waiting, self.telling) for call in self.calls.get(one.item, [])
            )
            self.ahead.want(call for call in others if call not in own)
            self._launch(*found)

    def _weighed(self) -> list[tuple[Candidate, Prediction]]:
        """What waits and can run, with how long it will take."""
        waiting = self.book.waiting()
        is_new = any(self.book.rows[one.item].expected_seconds is None for one in waiting)
        past = past_runs(self.book.store) if is_new else []
        if is_new:
            self.telling = open_questions(self.book.store)
        weighed = [(one, self._predicted(one, past)) for one in waiting]
        return [(one, found) for one, found in weighed if found is not None]

    def _predicted(self, one: Candidate, past: Sequence[Past]) -> Prediction | None:
        """How long a candidate will take; None for one that need not or cannot run: it leaves the queue."""
        row = self.book.rows[one.item]
        if row.expected_seconds is not None and row.expected_from is not None:
            return Prediction(seconds=row.expected_seconds, source=row.expected_from)
        try:
            study = find_study(one.study)
            missing, self.calls[one.item] = self._missing(study, one)
        except (UsageError, BackendError, ValueError, OSError) as error:  # no such model, text or window here
            self._refuse(one, error)
            return None
        if missing <= 0.0 and row.why.startswith(PART):
            self.book.put(replace(row, state="done", seconds=0.0, missing=0.0, note="it is here already"))
            return None
        found = predicted(
            one,
            missing=missing,
            past=past,
            declared=study.expected_seconds.get(one.profile),
            cpu=cpu_name(),
        )
        self.book.put(
            replace(row, expected_seconds=found.seconds, expected_from=found.source, missing=missing)
        )
        return found

    def _missing(self, study: Study, one: Candidate) -> tuple[float, list[Call]]:
        """Units that a candidate lacks, over the units of its profile as it stands; what can be made now."""
        base = study.settings(one.profile)
        planned = study.steps(changed(base, one.settings), self.home)
        name = study.deployment(one.profile)
        if name not in self.units:
            whole = study.steps(base, self.home) if one.settings else planned
            self.units[name] = sum(step.units for step in whole)
        units = self.units[name]
        missing = sum(step.units - step.cached for step in planned) / units if units else 1.0
        return missing, [call for step in planned for call in step.ahead]

    def _refuse(self, one: Candidate, error: Exception) -> None:
        """What cannot even be launched says why, and the night goes on."""
        self.refused += 1
        row = self.book.put(replace(self.book.rows[one.item], state="refused", note=str(error)))
        logger.warning("%s: %s", said(one), error)
        follow_failure(self.book, row)

    def _launch(self, one: Candidate, expected: Prediction) -> None:
        """Run a candidate to its end or to the deadline."""
        logger.info(
            "%s: about %.0f s (%s), %.0f s left", said(one), expected.seconds, expected.source, self.left
        )
        began = time.monotonic()
        try:
            row, under_way = self._launched(one)
        except UsageError as error:
            self._refuse(one, error)
            return
        try:
            mark_launched(self.book, row)
            self._show()
            found = under_way.wait(self.ends)
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

        The key is the same in every night of this home that continues this one, and raised only when the run
        of that key has ended without being done.
        """
        study = find_study(one.study)
        row = self.book.rows[one.item]
        deployment = study.deployment(one.profile)
        settings = changed(study.settings(one.profile), one.settings)
        asked_by = one.decision_id or self.root
        first = max(1, row.attempt)  # of a night that was killed: its run may be at work, or done
        for attempt in range(first, first + 1 + MOST_ATTEMPTS):
            under_way = launch(
                deployment,
                {"settings": as_json(settings)},
                key=f"{home_id(self.home)}/{asked_by}/{one.item}/{attempt}",
                name=f"{said(one)} · night {self.book.night.night_id}",
                source=self.source,
                home=self.home,
                children=self.children,
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
        self.book.forget(row.study)
        if kind == "COMPLETED":
            follow(self.book, row, climb=self.wishes.climb, was_heard=under_way.child is not None)
            # last: after a kill before it the next night finds the run done and follows its routes again
            self.book.put(replace(row, state="done"))
            return
        if kind == "CANCELLED":  # on its page: no fault of the study's
            self.book.put(replace(row, state="left", note=CANCELLED))
            logger.warning("%s: %s", row.study, CANCELLED)
            return
        self.failed += 1
        again = self.book.failures(row.item) + 1 < MOST_ATTEMPTS
        then = "the next night tries again" if again else f"failed {MOST_ATTEMPTS} times"
        note = f"{kind.lower()}: {message[:300]}; {then}; its log is {under_way.log.relative_to(self.home)}"
        follow_failure(self.book, row)
        self.book.put(replace(row, state="left" if again else "failed", note=note))
        logger.warning("%s: %s", row.study, note)

    def _run_of(self, flow_run_id: str) -> str | None:
        rows = self.book.store.read(
            "SELECT run_id FROM run WHERE flow_run_id = $id ORDER BY started_at DESC LIMIT 1",
            {"id": flow_run_id},
        )
        return None if rows.is_empty() else str(rows["run_id"][0])

    def _say_why_nothing_fits(self, waiting: list[tuple[Candidate, Prediction]]) -> None:
        for one, expected in waiting:
            left = f"{int(self.left)} s were left" if self.left > 0.0 else "the budget was spent"
            note = f"needs about {int(expected.seconds) + 1} s ({expected.source}), {left}"
            self.book.put(replace(self.book.rows[one.item], note=note))

    def how_it_ended(self) -> tuple[str, str | None]:
        """State and note of the night's row."""
        open_ones = [row for row in self.book.rows.values() if row.state in ("queued", "left")]
        if open_ones:
            return "budget", f"{len(open_ones)} of {len(self.book.rows)} are left for the next night"
        return "completed", None

    def end(self, state: str, note: str | None) -> None:
        """Close the night, publish the results, write the report; a cancelled one has no time."""
        self.ahead.stop()
        self.children.dismiss()  # its last events go while the report is written
        try:
            self._close_book(state, note)
        finally:
            self.children.close()

    def _close_book(self, state: str, note: str | None) -> None:
        self.book.close(state, note)
        if state == "cancelled":  # Prefect kills it 30 s after telling it to end
            return
        self._show()
        try:
            self.book.store.read("SELECT 1", wait_seconds=STORE_PATIENCE_SECONDS)
            publish(self.home)
            delete(of_old_nights(self.book.store, self.home))
            began = elapsed()
            is_shown = state != "failed"  # on the night's page, if the server is not what failed
            (reporting.write if is_shown else reporting.write.fn)(str(self.home))
            (self.home / "nights" / REPORT_TOOK).write_text(f"{elapsed() - began:.1f}")
        except StoreLockedError as error:
            logger.warning("no report was written: %s; `ladder report` writes it", error)

    def _show(self) -> None:
        """The queue as a page of the run, unless the server is away just now."""
        with contextlib.suppress(httpx.TransportError):
            create_markdown_artifact(
                key="night-queue", markdown="\n".join(night_told.lines(self.book)), description=self.summary()
            )

    def summary(self) -> str:
        """What was done and what is left, in a sentence."""
        return night_told.summary(self.book)

    def result(self) -> dict[str, Any]:
        """The night as plain data."""
        return night_told.result(self.book) | {"failed": self.failed + self.refused}
