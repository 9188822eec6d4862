"""The only module that opens the database: rows in, questions out, one connection a batch.

DuckDB lets one process hold a file, so nobody keeps it open. `record` first writes a batch to the outbox,
then tries to drain the outbox into the database; if the file is held, by us or by a person's shell, the
batch waits for the next drain and the caller goes on. A killed process loses nothing that `record` returned
for.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import polars as pl

from lab import database, ingest, lock, readonly, tables
from lab.durable import file_state
from lab.errors import UsageError
from lab.handover import Handover
from lab.ingest import DrainReport
from lab.outbox import copy_synced, sync_directory
from lab.records import Record
from lab.shared_outbox import VARIABLE, UnreachableError
from lab.template import template as _template

logger = logging.getLogger(__name__)

FOREIGN_PAUSES_SECONDS = (0.5, 30.0)
"""How long `record` leaves the database alone after a foreign holder, doubling from first to last."""
Query = tuple[str, Mapping[str, object] | None]
"""A statement and the values of its parameters by name."""
ELSEWHERE = "the store of another home"
"""Stands as the holder where this home only hands in."""


class StoreLockedError(TimeoutError):
    """The database stayed held for longer than the caller would wait; the message says by whom."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person's query returned."""

    frame: pl.DataFrame
    source: Path
    """The file that was read."""
    note: str | None
    """What the reader should know: a snapshot was read, or batches wait."""


class Store:
    """The lab's store in one directory.

    Parameters
    ----------
    home
        Holds `lab.duckdb`, `outbox/` and `lab-snapshot.duckdb`. Nothing is made before the first write. With
        `LADDER_OUTBOX` set, batches are handed in there, and one home's store takes them.
    """

    def __init__(self, home: Path) -> None:
        self.home = Path(home).expanduser().absolute()
        self.path = self.home / "lab.duckdb"
        self.snapshot_path = self.home / "lab-snapshot.duckdb"
        self.outbox = Handover(self.home, os.environ.get(VARIABLE, "").strip())
        self._lock_path = self.home / "lab.lock"
        self._leave_alone_until = 0.0
        self._pause_seconds = 0.0
        self._left_as: tuple[int, ...] | None = None

    def record(self, rows: Sequence[Record], *, drain: bool = True) -> str:
        """Make rows durable and return their batch id; rows of an existing key are replaced.

        Parameters
        ----------
        rows
            Records of any tables. None at all writes nothing and returns an empty id.
        drain
            Also try, without waiting, to bring the outbox into the database. What goes wrong there is logged:
            the rows are safe, and the next drain or read says it. False when many small batches follow.

        Raises
        ------
        ValueError
            A value that its column cannot hold, with table, column and key; nothing is written.
        UsageError
            The home cannot be written.
        OSError
            The disk is full; nothing of the batch is kept.
        """
        if not rows:
            return ""
        batch = tables.to_arrow(rows, _template().schema.tables, _template().find_broken)
        self._make_home()
        drain = drain and time.monotonic() >= self._leave_alone_until
        batch_id = self.outbox.write(batch, durable=not drain)
        if drain:
            self._drain_quietly()  # its commit is synced, so a file that is gone is on disk as rows
            self.outbox.make_durable(batch_id)
        return batch_id

    def drain(self, *, wait_seconds: float | None = 0.0) -> DrainReport:
        """Take every waiting batch into the database; taking one twice changes nothing.

        Parameters
        ----------
        wait_seconds
            How long to go on while someone else holds the database; 0 tries once, None never gives up.

        Raises
        ------
        UsageError
            The database is not one this program can write to.
        """
        waiter, total = lock.Waiter(wait_seconds), DrainReport()
        while True:
            self.outbox.try_now()
            try:
                report = self._drain_once()
                if self.outbox.unreachable is None:
                    return total + report
                held = lock.HeldError(self.outbox.unreachable, foreign=True)
            except lock.HeldError as found:
                held, report = found, DrainReport(waiting=len(self.outbox.waiting()), holder=found.holder)
            if not waiter.sleep(held):
                return total + report
            total += replace(report, waiting=0, holder=None, problem=None)

    def read(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        wait_seconds: float | None = 600.0,
        drain: bool = True,
    ) -> pl.DataFrame:
        """Drain, then answer one query; `$name` in it stands for a parameter. More in `read_all`."""
        [answer] = self.read_all([(sql, parameters)], wait_seconds=wait_seconds, drain=drain)
        return answer

    def read_all(
        self,
        queries: Sequence[Query],
        *,
        wait_seconds: float | None = 600.0,
        drain: bool = True,
    ) -> list[pl.DataFrame]:
        """Drain, then answer queries from one read transaction.

        Parameters
        ----------
        queries
            Statements that only read, each with its parameters.
        wait_seconds
            How long to wait for a holder of the database, in growing delays; None never gives up.
        drain
            False to leave what waits in the outbox there and not in the answer: nothing is written.

        Returns
        -------
        list of polars.DataFrame
            HUGEINT comes as Int64 where it fits, DECIMAL as Float64. A store never written to answers from
            empty tables.

        Raises
        ------
        StoreLockedError
            The database stayed held; the message says by whom.
        UsageError
            The query does not only read, or is wrong; or what is handed in goes to another home's store.
        OSError
            Waiting batches could not be stored (a full disk), so an answer would be incomplete.
        """
        waiter = lock.Waiter(wait_seconds)
        report = self.drain(wait_seconds=wait_seconds) if drain else DrainReport()
        self._refuse_elsewhere(report)
        if report.holder is not None:
            raise StoreLockedError(self._locked_message(report.holder, waiter))
        if report.problem is not None:
            raise OSError(f"{report.waiting} batches wait in {self.outbox.directory}: {report.problem}")
        return self._read_live(queries, waiter)

    def sql(self, sql: str, *, wait_seconds: float = 5.0) -> Answer:
        """A person's query: reads this store alone, no network; the snapshot answers while it is held.

        Raises
        ------
        UsageError
            The statement does not only read, is wrong, or there is nothing to read.
        """
        waiting = len(self.outbox.waiting())
        if not self.path.exists() and not (waiting and self.outbox.is_ours()):
            raise UsageError(f"no store in {self.home}; run a study first, or set LADDER_HOME")
        waiter = lock.Waiter(wait_seconds)
        if waiting and os.access(self.home, os.W_OK):
            waiting = self.drain(wait_seconds=wait_seconds).waiting
        note = f"{waiting} batches wait in the outbox and are not in this answer" if waiting else None
        try:
            [frame] = self._read_live([(sql, None)], waiter)
            return Answer(frame=frame, source=self.path, note=note)
        except StoreLockedError as error:
            return self._ask_snapshot(sql, str(error))

    def snapshot(self, *, wait_seconds: float | None = 600.0) -> Path:
        """Publish a copy of the drained database as `lab-snapshot.duckdb`, replaced in one step.

        Raises
        ------
        StoreLockedError
            The database stayed held.
        OSError
            The disk is full; the old snapshot stands.
        """
        with self._drained(wait_seconds):
            temporary = self.snapshot_path.with_suffix(".tmp")
            try:
                copy_synced(self.path, temporary)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                why = f"cannot write a snapshot ({error.strerror}); the old one stands"
                raise OSError(error.errno, why, str(self.snapshot_path)) from error
            # a shell that wrote to the old snapshot may have left a log; it is not the new file's
            Path(f"{self.snapshot_path}.wal").unlink(missing_ok=True)
            os.replace(temporary, self.snapshot_path)
            sync_directory(self.home)
        return self.snapshot_path

    def copy_to(self, target: Path, *, wait_seconds: float | None = 600.0) -> None:
        """Copy the drained database to a file of the caller's; raises as `snapshot` does."""
        with self._drained(wait_seconds):
            shutil.copyfile(self.path, target)

    def export_parquet(self, directory: Path, *, wait_seconds: float | None = 600.0) -> list[Path]:
        """Write every table as `<table>.parquet`, each replaced in one step; returns the paths."""
        directory = Path(directory).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        with self._drained(wait_seconds), self._open() as con:
            con.begin()
            for name in _template().schema.tables:
                target, temporary = directory / f"{name}.parquet", directory / f"{name}.parquet.tmp"
                quoted = str(temporary).replace("'", "''")
                con.execute(f"COPY {name} TO '{quoted}' (FORMAT parquet)")
                os.replace(temporary, target)
                written.append(target)
        return written

    def _make_home(self) -> None:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"home {self.home} cannot be made: {error.strerror}; set LADDER_HOME elsewhere"
            ) from error
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise UsageError(
                f"home {self.home} cannot be written; set LADDER_HOME elsewhere or change its permissions"
            )

    def _drain_quietly(self) -> None:
        """Drain once for `record`, whose rows are safe; after a foreign holder, stay away for a while."""
        try:
            self._drain_once(claim=False)  # a home that only records takes nobody's batches
        except (UsageError, OSError) as error:
            logger.warning("batches wait in the outbox: %s", error)
        except lock.HeldError as held:
            if held.foreign:
                first, last = FOREIGN_PAUSES_SECONDS
                self._pause_seconds = min(last, max(first, 2.0 * self._pause_seconds))
                self._leave_alone_until = time.monotonic() + self._pause_seconds
                logger.warning("the store is held by %s; batches wait in the outbox", held.holder)
        else:
            self._pause_seconds = 0.0

    @contextmanager
    def _open(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The database, made or brought up to date, for one batch."""
        if not self.path.exists():
            self._create()
        now = file_state(self.path)
        with database.writing(self.path) as con:
            if now != self._left_as:
                tables.prepare(con, _template().schema, self.path)
            yield con
        self._left_as = file_state(self.path)

    def _create(self) -> None:
        """Make the database under another name first: a kill half-way leaves no broken file."""
        new = self.path.with_suffix(".new")
        with database.making(new) as con:
            tables.prepare(con, _template().schema, new)
        os.replace(new, self.path)
        sync_directory(self.home)

    def _drain_once(self, *, claim: bool = True) -> DrainReport:
        """One pass over what waits; raises `lock.HeldError` when the database is taken."""
        if not self._takes_batches(claim=claim):
            left, problem = self.outbox.hand_on(), self.outbox.unreachable
            return DrainReport(waiting=left, holder=None if problem else ELSEWHERE, problem=problem)
        if not self.outbox.waiting():
            return DrainReport(problem=self.outbox.unreachable)
        with lock.held(self._lock_path):
            report = ingest.drain(self.outbox, self._open, _template().schema)
        return report + DrainReport(problem=self.outbox.unreachable)

    def _takes_batches(self, *, claim: bool) -> bool:
        """Whether what is handed in goes to this store; where it goes to none yet, claiming makes it so."""
        if self.outbox.is_ours() or not claim:
            return self.outbox.is_ours()
        self._make_home()
        try:
            with lock.held(self._lock_path):
                return self.outbox.claim()
        except UnreachableError:
            return False  # which the outbox keeps the reason of

    def _refuse_elsewhere(self, report: DrainReport) -> None:
        if report.holder == ELSEWHERE:
            raise UsageError(
                f"{self.outbox.said_elsewhere()}; ask there, or set LADDER_HOME to that home on a shared disk"
            )

    @contextmanager
    def _drained(self, wait_seconds: float | None) -> Iterator[None]:
        """Hold the lock over a database that is drained, checkpointed and closed."""
        self._make_home()
        waiter = lock.Waiter(wait_seconds)
        while True:
            try:
                with lock.held(self._lock_path):
                    self._checkpoint()
                    yield
                    return
            except lock.HeldError as held:
                if not waiter.sleep(held):
                    raise StoreLockedError(self._locked_message(held.holder, waiter)) from None

    def _checkpoint(self) -> None:
        if not (self.outbox.is_ours() or self.outbox.claim()):
            self._refuse_elsewhere(DrainReport(holder=ELSEWHERE))
        report = ingest.drain(self.outbox, self._open, _template().schema)
        if report.problem is not None:
            raise OSError(f"{report.waiting} batches wait in {self.outbox.directory}: {report.problem}")
        try:
            with self._open() as con:
                con.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise OSError(f"{self.path}: {readonly.one_line(error)}") from error

    def _read_live(self, queries: Sequence[Query], waiter: lock.Waiter) -> list[pl.DataFrame]:
        if not self.path.exists():
            return [_template().query(sql, parameters) for sql, parameters in queries]
        while True:
            try:
                with lock.held(self._lock_path, shared=True):
                    was_killed = self._has_journal()
                    if not was_killed:
                        with database.reading(self.path) as con:
                            if tables.is_current(con, _template().schema):
                                con.begin()
                                return [readonly.query(con, *query) for query in queries]
                with lock.held(self._lock_path):
                    if was_killed:
                        database.restore(self.path)
                    else:
                        with self._open():
                            pass  # an older file now has this program's views and tables
            except lock.HeldError as held:
                if not waiter.sleep(held):
                    raise StoreLockedError(self._locked_message(held.holder, waiter)) from None

    def _has_journal(self) -> bool:
        """Whether, while nobody writes, a killed writer left something that we may put back."""
        return database.journal_of(self.path).exists() and all(
            os.access(place, os.W_OK) for place in (self.home, self.path)
        )

    def _ask_snapshot(self, sql: str, why: str) -> Answer:
        if not self.snapshot_path.exists():
            raise UsageError(f"{why} There is no snapshot to read instead.")
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.snapshot_path.stat().st_mtime))
        try:
            with database.reading(self.snapshot_path) as con:
                frame = readonly.query(con, sql)
        except lock.HeldError as held:
            raise UsageError(f"{why} The snapshot is held too, by {held.holder}.") from held
        return Answer(frame=frame, source=self.snapshot_path, note=f"{why} This is the snapshot of {moment}.")

    def _locked_message(self, holder: str, waiter: lock.Waiter) -> str:
        return (
            f"{self.path} is held by {holder}, waited {waiter.elapsed():.0f} s; "
            "close that program, or let it query the snapshot."
        )
