"""The outbox into the tables: one transaction for all that waits, rows and batch ids together.

Ingest is columnar: `INSERT OR REPLACE ... SELECT` from Arrow runs at the speed of DuckDB's own appender,
while `executemany` commits row by row at about 100 rows/s. A batch id that is already in `batch` is
skipped, so taking a file twice, as after a kill between commit and delete, changes nothing. What lies in a
batch (bytes, columns, a broken CHECK) sends its file to `rejected/`; what lies in the machine (disk,
memory) lets it wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePath

import duckdb
import polars as pl
import pyarrow as pa

from lab.errors import UsageError
from lab.handover import Handover
from lab.outbox import SUFFIX, Batch, CorruptBatchError
from lab.readonly import one_line
from lab.tables import Schema, Table, utc_now

logger = logging.getLogger(__name__)

BYTES_A_TRANSACTION = 256 * 2**20
BAD_DATA = (duckdb.DataError, duckdb.IntegrityError, duckdb.ProgrammingError, ValueError)
"""Errors that lie in a batch; all others (disk, memory, a failed commit) may pass, and the batch waits."""

Open = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


@dataclass(frozen=True, kw_only=True)
class DrainReport:
    """What one drain did."""

    batches: int = 0
    """Batches taken into the database."""
    rows: int = 0
    """Rows of those batches."""
    waiting: int = 0
    """Batches that were there and still are."""
    rejected: tuple[str, ...] = ()
    """Files moved to `outbox/rejected/`, each as `name: reason`."""
    holder: str | None = None
    """Who holds the database, when someone does."""
    problem: str | None = None
    """Why batches wait although nobody holds it, e.g. a full disk."""

    def __add__(self, other: DrainReport) -> DrainReport:
        return DrainReport(
            batches=self.batches + other.batches,
            rows=self.rows + other.rows,
            waiting=self.waiting + other.waiting,
            rejected=self.rejected + other.rejected,
            holder=other.holder or self.holder,
            problem=other.problem or self.problem,
        )


def drain(outbox: Handover, open_database: Open, schema: Schema) -> DrainReport:
    """Take what waits, in as few transactions as memory allows, by the one process that holds the lock.

    Parameters
    ----------
    outbox
        Its files are deleted once their rows are committed.
    open_database
        Gives a writable connection to a prepared database; errors that are not OSError or duckdb's pass.
    schema
        The tables of that database.
    """
    outbox.sweep()
    total = DrainReport()
    for paths in _by_size(outbox, outbox.waiting()):
        try:
            total += _take_files(outbox, paths, open_database, schema)
        except UsageError:
            raise
        except (duckdb.Error, OSError) as error:
            problem = one_line(error)
            logger.warning("batches wait in the outbox: %s", problem)
            return total + DrainReport(waiting=len(outbox.waiting()), problem=problem)
    return total


def _take_files(
    outbox: Handover, paths: Sequence[PurePath], open_database: Open, schema: Schema
) -> DrainReport:
    batches, corrupt = _load(outbox, paths)
    if not batches and not corrupt:
        return DrainReport()
    with open_database() as con:
        total = _set_aside(outbox, con, corrupt)
        try:
            return total + _commit(outbox, con, batches, schema)
        except BAD_DATA:
            pass  # one batch is refused: take them one by one, so that it does not block the others
        for batch in batches:
            try:
                total += _commit(outbox, con, [batch], schema)
            except BAD_DATA as error:
                total += _reject(outbox, batch.path, f"the database refuses it: {one_line(error)}")
    return total


def _load(outbox: Handover, paths: Sequence[PurePath]) -> tuple[list[Batch], dict[PurePath, str]]:
    """The whole batches, and why the others are not."""
    batches: list[Batch] = []
    corrupt: dict[PurePath, str] = {}
    for path in paths:
        try:
            batches.append(outbox.load(path))
        except CorruptBatchError as error:
            corrupt[path] = str(error)
        except FileNotFoundError:
            continue  # someone moved it away by hand
    return batches, corrupt


def _set_aside(
    outbox: Handover, con: duckdb.DuckDBPyConnection, corrupt: Mapping[PurePath, str]
) -> DrainReport:
    """Reject corrupt files; one whose rows are in already is what a power cut left of it, and is deleted."""
    report = DrainReport()
    for path, reason in corrupt.items():
        batch_id = path.name.removesuffix(SUFFIX)
        if con.execute("SELECT 1 FROM batch WHERE batch_id = $1", [batch_id]).fetchall():
            outbox.remove(path)
        else:
            report += _reject(outbox, path, f"the file is corrupt: {reason}")
    return report


def _commit(
    outbox: Handover, con: duckdb.DuckDBPyConnection, batches: Sequence[Batch], schema: Schema
) -> DrainReport:
    new = take(con, batches, schema.tables) if batches else []
    for batch in batches:
        outbox.remove(batch.path)
    return DrainReport(batches=len(new), rows=sum(batch.rows for batch in new))


def _reject(outbox: Handover, path: PurePath, reason: str) -> DrainReport:
    outbox.reject(path, reason)
    logger.warning("batch %s moved to %s: %s", path.name, outbox.rejected, reason)
    return DrainReport(rejected=(f"{path.name}: {reason}",))


def _by_size(outbox: Handover, paths: Sequence[PurePath]) -> Iterator[list[PurePath]]:
    """Consecutive groups of files of about BYTES_A_TRANSACTION each."""
    group: list[PurePath] = []
    size = 0
    for path in paths:
        group.append(path)
        size += outbox.size(path)
        if size >= BYTES_A_TRANSACTION:
            yield group
            group, size = [], 0
    if group:
        yield group


def take(
    con: duckdb.DuckDBPyConnection, batches: Sequence[Batch], tables: Mapping[str, Table]
) -> list[Batch]:
    """Insert batches in one transaction; returns those that were new.

    Parameters
    ----------
    con
        Open, writable connection outside a transaction.
    batches
        In the order they were recorded: of rows with one key the last stands.
    tables
        Tables of the open database.

    Raises
    ------
    ValueError
        A batch has a table or columns that the database lacks; nothing was inserted.
    duckdb.Error
        The database refused; nothing was inserted.
    """
    con.begin()
    try:
        new = _claim(con, batches)
        for name in dict.fromkeys(name for batch in new for name in batch.tables):
            _insert(con, tables, name, [batch.tables[name] for batch in new if name in batch.tables])
        con.commit()
    except BaseException:
        _roll_back(con)
        raise
    return new


def _claim(con: duckdb.DuckDBPyConnection, batches: Sequence[Batch]) -> list[Batch]:
    """Enter in `batch` those that are not there, and return them."""
    ids = [[batch.batch_id for batch in batches]]
    known = con.execute("SELECT batch_id FROM batch WHERE list_contains($1, batch_id)", ids).fetchall()
    old = {row[0] for row in known}
    # a batch handed on by a process killed before it deleted its own copy lies in both outboxes
    new = list({batch.batch_id: batch for batch in batches if batch.batch_id not in old}.values())
    if new:
        columns = [[b.batch_id for b in new], utc_now(), [b.rows for b in new], [b.sha256 for b in new]]
        con.execute("INSERT INTO batch SELECT unnest($1), $2, unnest($3), unnest($4)", columns)
    return new


def _insert(
    con: duckdb.DuckDBPyConnection, tables: Mapping[str, Table], name: str, parts: Sequence[pa.Table]
) -> None:
    table = tables.get(name)
    columns = {tuple(part.column_names) for part in parts}
    if table is None or not table.key or columns != {table.columns}:
        raise ValueError(
            f"the database has no table {name} with columns {sorted(columns)[0]}; it comes from other code"
        )
    rows: pa.Table = parts[0]
    if len(parts) > 1:
        frame = pl.from_arrow(pa.concat_tables(parts))
        assert isinstance(frame, pl.DataFrame)
        rows = frame.unique(subset=list(table.key), keep="last", maintain_order=True)
    con.register("incoming", rows)
    verb = "INSERT OR REPLACE" if table.columns != table.key else "INSERT OR IGNORE"
    con.execute(f"{verb} INTO {name} SELECT * FROM incoming")
    con.unregister("incoming")


def _roll_back(con: duckdb.DuckDBPyConnection) -> None:
    try:
        con.rollback()
    except duckdb.Error:
        return  # a failed commit has ended the transaction itself; the first error is the one to report
