"""Many questions about one moment: a private copy of the database, read over one connection.

A report puts some 300 questions. Each over a connection of its own waits for the lock and reads the catalogue
again, and what is recorded in between makes two parts of a page disagree. A copy costs milliseconds, and
nobody waits while it is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import polars as pl

from lab import readonly
from lab.database import READ_CONFIG
from lab.drawings import Drawings
from lab.fingerprint import canonical
from lab.handover import Handover
from lab.store import Store


@dataclass(frozen=True, kw_only=True)
class Still:
    """A store as it was at one moment."""

    con: duckdb.DuckDBPyConnection
    outbox: Handover
    """Of the store itself, as it is now."""
    drawings: Drawings
    _answered: dict[str, pl.DataFrame] = field(default_factory=dict)

    def read(self, sql: str, parameters: Mapping[str, object] | None = None) -> pl.DataFrame:
        """Answer one query that only reads, once; see `Store.read`."""
        key = canonical([sql, dict(parameters or {})])
        if key not in self._answered:
            self._answered[key] = readonly.query(self.con, sql, parameters)
        return self._answered[key]


Source = Store | Still
"""What can be asked."""


@contextmanager
def still(store: Store) -> Iterator[Source]:
    """The store as it is now, drained; one never written to answers for itself, from empty tables.

    Raises
    ------
    StoreLockedError
        The database stayed held.
    OSError
        The disk is full, or waiting batches could not be stored.
    """
    store.read("SELECT 1")  # drains, and says what is wrong
    if not store.path.exists():
        yield store
        return
    with tempfile.TemporaryDirectory(dir=store.home, prefix=".still-") as folder:
        copy = Path(folder) / store.path.name
        store.copy_to(copy)
        con = duckdb.connect(copy, read_only=True, config=READ_CONFIG)
    try:  # the open file outlives its name, so that a killed process leaves nothing behind
        yield Still(con=con, outbox=store.outbox, drawings=Drawings(store.home))
    finally:
        con.close()
