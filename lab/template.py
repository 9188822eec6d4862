"""The tables in a database in memory, one a process: what a batch is checked against before it is written."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from lab import readonly, tables

CONFIG: dict[str, Any] = {
    "threads": 2,
    "memory_limit": "2GB",
    "max_temp_directory_size": "4GB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
"""Of every connection to a database of the lab."""


class Template:
    """The schema in a database in memory: describes tables, checks batches, answers for an empty store."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._con = duckdb.connect(":memory:", config={**CONFIG, "threads": 1})
        self.schema = tables.create(self._con)
        self._con.execute("SET enable_external_access = false")
        self._con.execute("SET lock_configuration = true")

    def find_broken(self, table: tables.Table, batch: pa.Table) -> tables.Broken | None:
        """The first CHECK that a batch breaks; None when all hold."""
        with self._busy:
            return tables.find_broken(self._con, table, batch)

    def query(self, sql: str, parameters: Mapping[str, object] | None) -> pl.DataFrame:
        """Answer from empty tables, which stay empty whatever the query does."""
        with self._busy:
            self._con.begin()
            try:
                return readonly.query(self._con, sql, parameters)
            finally:
                self._con.rollback()


_template_lock = threading.Lock()
_templates: dict[int, Template] = {}


def template() -> Template:
    """This process's template; a forked child makes its own, because threads do not survive a fork."""
    pid = os.getpid()
    found = _templates.get(pid)
    if found is None:
        with _template_lock:
            found = _templates.get(pid) or Template()
            _templates[pid] = found
    return found
