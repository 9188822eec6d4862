"""The rows of a night: its own, and one for each candidate in its queue; and what earlier nights left.

One night at a time holds a lock of the home. A night whose process is gone is closed as crashed, and what it
had running is queued again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import lock
from lab.errors import UsageError
from lab.fingerprint import canonical
from lab.machine import is_alive, this_process
from lab.night_queue import Candidate, Past
from lab.records import NightRow, QueueRow
from lab.store import Store
from lab.tables import utc_now

NIGHT_LOCK = "night.lock"
OPEN = ("queued", "running", "left")
"""States of a candidate that a later night takes up."""
UNFINISHED = ("budget", "crashed", "cancelled", "failed")
"""Ends of a night that the next one continues."""
AT_DEADLINE = "stopped at the deadline"
WITH_NIGHT = "stopped with its night"
CANCELLED = "cancelled by hand; the next night goes on with it"
"""Notes of a candidate that was stopped; one that is left with another note and a time has failed."""
CHAIN = """
WITH RECURSIVE chain AS (
    SELECT night_id, continues FROM night WHERE night_id = $night
    UNION ALL SELECT night.night_id, night.continues FROM night JOIN chain ON night.night_id = chain.continues
)
"""
"""A night and the unfinished ones that it continues."""


@contextmanager
def only_night(home: Path) -> Iterator[None]:
    """Hold the home's night, or refuse.

    Raises
    ------
    UsageError
        Another night runs; named with its start and process.
    """
    path = home / NIGHT_LOCK
    try:
        with lock.held(path):
            yield
    except lock.HeldError as held:
        rows = Store(home).read(
            "SELECT night_id, started_at, process FROM night WHERE state = 'running' ORDER BY started_at DESC"
        )
        first = next((row for row in rows.to_dicts() if is_alive(str(row["process"]))), None)
        named = (
            held.holder
            if first is None
            else f"night {first['night_id']}, begun {first['started_at']:%Y-%m-%d %H:%M} UTC, {held.holder}"
        )
        raise UsageError(f"a night runs already: {named}; let it end, or stop it with Ctrl-C") from None


@dataclass
class NightBook:
    """The rows of one night, kept in the store as they change."""

    home: Path
    night: NightRow
    rows: dict[str, QueueRow] = field(default_factory=dict)
    """Item -> its row."""

    @cached_property
    def store(self) -> Store:
        """The home's store."""
        return Store(self.home)

    def add(self, one: Candidate, *, state: str = "queued", note: str | None = None) -> bool:
        """Put a candidate into the queue; False when this night has it already."""
        if one.item in self.rows:
            return False
        row = QueueRow(
            night_id=self.night.night_id,
            item=one.item,
            position=len(self.rows),
            study=one.study,
            profile=one.profile,
            settings=canonical(dict(one.settings)),
            why=one.why,
            decision_id=one.decision_id,
            state=state,
            expected_seconds=None,
            expected_from=None,
            missing=None,
            attempt=self._launches.get(one.item, 0),
            flow_run_id=None,
            run_id=None,
            started_at=None,
            seconds=None,
            note=note,
        )
        self.put(row)
        return True

    @cached_property
    def _launches(self) -> dict[str, int]:
        """Item -> how often it was launched since it was last done, in nights before this one."""
        return self._since_done("max(attempt)")

    def failures(self, item: str) -> int:
        """How often the item failed since it was last done, in any night."""
        was_stopped = f"note IN ('{AT_DEADLINE}', '{WITH_NIGHT}', '{CANCELLED}')"
        failed = f"count(*) FILTER (seconds IS NOT NULL AND NOT {was_stopped})"
        return self._since_done(failed).get(item, 0)

    def _since_done(self, counted: str) -> dict[str, int]:
        found = self.store.read(
            f"""WITH known AS (
                SELECT queue.*, night.started_at AS began,
                    max(began) FILTER (queue.state = 'done') OVER (PARTITION BY item) AS was_done
                FROM queue JOIN night USING (night_id)
            ) SELECT item, {counted} AS n FROM known
            WHERE began > coalesce(was_done, '-infinity') GROUP BY item"""
        )
        return dict(zip(found["item"], found["n"], strict=True))

    def put(self, row: QueueRow) -> QueueRow:
        """Keep a row; it is on disk when this returns, and in the database with the next read."""
        self.rows[row.item] = row
        self.store.record([row], drain=False)
        return row

    def waiting(self) -> list[Candidate]:
        """Candidates that have not run, in the order they were asked for."""
        found = [row for row in self.rows.values() if row.state == "queued"]
        return [candidate(row) for row in sorted(found, key=lambda row: row.position)]

    def forget(self, study: str) -> None:
        """How long what waits of a study will take is reckoned anew: a run of it has changed what is here."""
        for row in list(self.rows.values()):
            if row.study == study and row.state == "queued" and row.expected_seconds is not None:
                self.put(replace(row, expected_seconds=None, expected_from=None, missing=None))

    def leave(self, note: str) -> None:
        """What still waits is left for the next night, and says why."""
        for row in list(self.rows.values()):
            if row.state == "queued":
                self.put(replace(row, state="left", note=row.note or note))

    def close(self, state: str, note: str | None) -> None:
        """End the night."""
        self.leave("the night ended before its turn")
        self.night = replace(self.night, state=state, ended_at=utc_now(), note=note)
        self.store.record([self.night])


def candidate(row: QueueRow) -> Candidate:
    """What a row asks for."""
    return Candidate(
        study=row.study,
        profile=row.profile,
        settings=json.loads(row.settings),
        why=row.why,
        decision_id=row.decision_id,
    )


def open_night(home: Path, *, profile: str, budget_seconds: float, begun: datetime) -> NightBook:
    """A new night; nights whose process is gone are closed as crashed first.

    Parameters
    ----------
    begun
        When it was due, UTC; the deadline is counted from there.
    """
    store = Store(home)
    known = [NightRow(**row) for row in store.read("SELECT * FROM night").iter_rows(named=True)]
    lost = [one for one in known if one.state == "running"]  # the caller holds the only night of the home
    last = max((one.started_at for one in known), default=datetime.min)
    gone: dict[str, Any] = {"state": "crashed", "ended_at": utc_now(), "note": "its process is gone"}
    store.record([replace(one, **gone) for one in lost])
    night = NightRow(
        night_id=f"{begun:%Y%m%d-%H%M}-{secrets.token_hex(2)}",
        profile=profile,
        budget_seconds=budget_seconds,
        started_at=max(utc_now(), last + timedelta(milliseconds=1)),  # nights stand in their order
        deadline=begun + timedelta(seconds=budget_seconds),
        ended_at=None,
        state="running",
        continues=_unfinished(store, profile),
        process=this_process(),
        flow_run_id=None,
        source=None,
        note=None,
    )
    store.record([night])
    return NightBook(home=home, night=night)


def _unfinished(store: Store, profile: str) -> str | None:
    """The last night of the profile, if it did not finish."""
    rows = store.read(
        "SELECT night_id, state FROM night WHERE profile = $profile AND state <> 'running' "
        "ORDER BY started_at DESC LIMIT 1",
        {"profile": profile},
    ).to_dicts()
    return str(rows[0]["night_id"]) if rows and rows[0]["state"] in UNFINISHED else None


def left_over(store: Store, night_id: str) -> list[QueueRow]:
    """What a night, or the unfinished ones it continued, had not finished, in its order.

    A night that was killed before it took up what the one before had left is in the chain all the same.
    """
    rows = store.read(
        f"""{CHAIN}, last AS (
            SELECT queue.*, night.started_at AS night_began FROM queue SEMI JOIN chain USING (night_id)
            JOIN night USING (night_id)
            QUALIFY row_number() OVER (PARTITION BY item ORDER BY night.started_at DESC) = 1
        )
        SELECT * EXCLUDE (night_began) FROM last WHERE state IN {OPEN} ORDER BY night_began, position""",
        {"night": night_id},
    )
    return [QueueRow(**row) for row in rows.iter_rows(named=True)]


def chain_root(store: Store, night_id: str) -> str:
    """The first of the nights that a night continues, or itself."""
    rows = store.read(f"{CHAIN} SELECT night_id FROM chain WHERE continues IS NULL", {"night": night_id})
    return night_id if rows.is_empty() else str(rows["night_id"][0])


def done_in_chain(store: Store, night_id: str) -> set[str]:
    """Items that an unfinished night, or the unfinished ones it continued, had finished."""
    rows = store.read(
        f"{CHAIN} SELECT DISTINCT item FROM queue SEMI JOIN chain USING (night_id) WHERE state = 'done'",
        {"night": night_id},
    )
    return set(rows["item"].to_list())


def past_runs(store: Store, *, drain: bool = True) -> list[Past]:
    """Finished runs of every night, for learning how long work takes.

    Not those that took under a quarter of the longest of the same candidate: they found their work done,
    which not every study can see beforehand.
    """
    rows = store.read(
        "SELECT queue.item, queue.study, queue.profile, environment.cpu, queue.missing, queue.seconds "
        "FROM queue JOIN run USING (run_id) JOIN environment USING (environment_id) "
        "WHERE queue.state = 'done' AND queue.seconds IS NOT NULL AND queue.missing > 0 "
        "QUALIFY queue.seconds >= 0.25 * max(queue.seconds) OVER (PARTITION BY queue.item)",
        drain=drain,
    )
    return [Past(**row) for row in rows.iter_rows(named=True)]


def open_questions(store: Store) -> dict[str, float]:
    """Study -> questions that an hour of it would settle, by the one that is settled soonest."""
    rows = store.read(
        "SELECT study, max(information_per_hour) AS found FROM open_questions "
        "WHERE role IN ('verdict', 'decides') AND information_per_hour IS NOT NULL GROUP BY study"
    )
    return dict(rows.iter_rows())
