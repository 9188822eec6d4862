"""Records as Arrow columns, checked against the schema before they leave the recording process.

`schema.sql` is the one description of the tables. It is run once into a database in memory, which then
answers for types, keys and checks, so a rule is written once and a bad row fails where it is made, not in the
drain of some other process.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from lab.errors import UsageError
from lab.fingerprint import fingerprint
from lab.records import RECORDS, Record

HERE = Path(__file__).resolve().parent
SCHEMA_SQL = (HERE / "schema.sql").read_text(encoding="utf-8")
VIEWS_SQL = (HERE / "views.sql").read_text(encoding="utf-8")
VIEWS_FINGERPRINT = fingerprint(VIEWS_SQL)
SCHEMA_VERSION = 1
"""Raise it when a table changes in a way that an older program must not write to."""

ARROW_TYPES: Mapping[str, tuple[pa.DataType, tuple[type, ...]]] = {
    "VARCHAR": (pa.string(), (str,)),
    "BIGINT": (pa.int64(), (int,)),
    "UBIGINT": (pa.uint64(), (int,)),
    "UINTEGER": (pa.uint32(), (int,)),
    "DOUBLE": (pa.float64(), (float, int)),
    "BOOLEAN": (pa.bool_(), (bool,)),
    "TIMESTAMP": (pa.timestamp("us"), (datetime,)),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """A CHECK of the schema: its SQL and the columns it reads."""

    sql: str
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table as the schema declares it; `types` are SQL types, in column order."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    nullable: tuple[bool, ...]
    key: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of a batch."""
        return pa.schema(
            [
                pa.field(name, ARROW_TYPES[kind][0], nullable=nullable)
                for name, kind, nullable in zip(self.columns, self.types, self.nullable, strict=True)
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What this program's database looks like: its tables, and a fingerprint of them."""

    tables: Mapping[str, Table]
    shape: str


def create(con: duckdb.DuckDBPyConnection) -> Schema:
    """Make tables and views in an open, empty database and describe them."""
    con.execute(SCHEMA_SQL)
    con.execute(VIEWS_SQL)
    found = describe(con)
    return Schema(tables=found, shape=fingerprint(found))


def describe(con: duckdb.DuckDBPyConnection) -> dict[str, Table]:
    """Every table of an open database: columns, types, key and checks."""
    columns: dict[str, list[tuple[str, str, bool]]] = {}
    for table, *column in con.execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() "
        "WHERE NOT internal AND database_name = current_database() "
        "AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE NOT internal) "
        "ORDER BY table_name, column_index"
    ).fetchall():
        columns.setdefault(table, []).append((column[0], column[1], column[2]))
    keys: dict[str, tuple[str, ...]] = {}
    checks: dict[str, list[Check]] = {}
    for table, kind, sql, names in con.execute(
        "SELECT table_name, constraint_type, expression, constraint_column_names FROM duckdb_constraints() "
        "WHERE constraint_type IN ('CHECK', 'PRIMARY KEY') AND database_name = current_database()"
    ).fetchall():
        if kind == "PRIMARY KEY":
            keys[table] = tuple(names)
        else:
            checks.setdefault(table, []).append(Check(sql=sql, columns=tuple(names)))
    return {
        name: Table(
            name=name,
            columns=tuple(c[0] for c in found),
            types=tuple(c[1] for c in found),
            nullable=tuple(c[2] for c in found),
            key=keys.get(name, ()),
            checks=tuple(sorted(checks.get(name, ()), key=lambda check: check.sql)),
        )
        for name, found in sorted(columns.items())
    }


def prepare(con: duckdb.DuckDBPyConnection, schema: Schema, where: Path) -> None:
    """Bring the schema of an open, writable database to the program's, or say why that cannot be.

    Parameters
    ----------
    con
        Open connection outside a transaction.
    schema
        The tables this program knows.
    where
        Path of the file, for messages.

    Raises
    ------
    UsageError
        The file is no lab store, comes from a newer program, or has a table of another shape.
    """
    if is_current(con, schema):
        return
    found = describe(con)
    if found and "lab_schema" not in found:
        raise UsageError(f"{where} is a database of something else ({', '.join(found)[:60]}); move it away")
    if found:
        _refuse_foreign(con, found, schema.tables, where)
    con.begin()
    con.execute(SCHEMA_SQL)
    con.execute(VIEWS_SQL)
    con.execute("DELETE FROM lab_schema")
    row = [SCHEMA_VERSION, schema.shape, VIEWS_FINGERPRINT, utc_now()]
    con.execute("INSERT INTO lab_schema VALUES (?, ?, ?, ?)", row)
    con.commit()


def is_current(con: duckdb.DuckDBPyConnection, schema: Schema) -> bool:
    """True when the open database has this program's tables and views."""
    try:
        found = con.execute("SELECT version, shape, views FROM lab_schema").fetchall()
    except duckdb.CatalogException:
        return False
    return found == [(SCHEMA_VERSION, schema.shape, VIEWS_FINGERPRINT)]


def _refuse_foreign(
    con: duckdb.DuckDBPyConnection, found: Mapping[str, Table], tables: Mapping[str, Table], where: Path
) -> None:
    [(version,)] = con.execute("SELECT max(version) FROM lab_schema").fetchall()
    if version is not None and version > SCHEMA_VERSION:
        raise UsageError(
            f"{where} has schema version {version}, this program writes {SCHEMA_VERSION}; use the newer one"
        )
    differing = [name for name in found if name in tables and found[name] != tables[name]]
    if differing or version != SCHEMA_VERSION:
        raise UsageError(
            f"{where} has schema version {version} with other columns or checks in "
            f"{', '.join(differing) or 'no table'}, this program has version {SCHEMA_VERSION}; "
            "export it with the program that wrote it, then move it away"
        )


def utc_now() -> datetime:
    """The time in UTC, without a zone, as every time column holds it."""
    return datetime.now(UTC).replace(tzinfo=None)


Broken = tuple[Check, dict[str, Any]]
"""A CHECK and the row that breaks it."""


def find_broken(con: duckdb.DuckDBPyConnection, table: Table, batch: pa.Table) -> Broken | None:
    """The first CHECK that a batch breaks and the row that breaks it; None when all hold."""
    if not table.checks:
        return None
    con.register("incoming", batch)
    try:
        held = " AND ".join(f"({check.sql})" for check in table.checks)  # NULL passes, as in a CHECK
        found = con.execute(f"SELECT * FROM incoming WHERE ({held}) IS FALSE LIMIT 1").fetchall()
        if not found:
            return None
        flags = ", ".join(f"({check.sql}) IS FALSE" for check in table.checks)
        [(broken, *row)] = con.execute(
            f"SELECT [{flags}], * FROM incoming WHERE ({held}) IS FALSE LIMIT 1"
        ).fetchall()
    finally:
        con.unregister("incoming")
    return table.checks[broken.index(True)], dict(zip(table.columns, row, strict=True))


def to_arrow(
    rows: Sequence[Record],
    tables: Mapping[str, Table],
    find_broken: Callable[[Table, pa.Table], Broken | None],
) -> dict[str, pa.Table]:
    """Rows grouped by table as checked Arrow tables, one row a key.

    Of rows with the same key the last stands.

    Raises
    ------
    ValueError
        A value of the wrong type, out of range, or refused by a CHECK; with table, column and key.
    """
    groups: dict[type[Record], list[Record]] = {}
    for row in rows:
        groups.setdefault(type(row), []).append(row)
    unknown = [kind.__name__ for kind in groups if kind not in RECORDS]
    if unknown:
        raise ValueError(f"{unknown[0]} is no record of lab.records; give dataclasses from there")
    out: dict[str, pa.Table] = {}
    for kind, group in groups.items():
        table = tables[kind.table]
        out[table.name] = _table_to_arrow(_one_per_key(group, table), table, find_broken)
    return out


def _one_per_key(group: Sequence[Record], table: Table) -> list[Record]:
    key_of = operator.attrgetter(*table.key)
    try:
        by_key = {key_of(row): row for row in group}
    except TypeError as error:
        raise ValueError(
            f"{table.name}: the key ({', '.join(table.key)}) must be plain values: {error}"
        ) from error
    return list(by_key.values())


def _table_to_arrow(
    rows: Sequence[Record], table: Table, find_broken: Callable[[Table, pa.Table], Broken | None]
) -> pa.Table:
    schema = table.arrow
    columns = zip(*map(operator.attrgetter(*table.columns), rows), strict=True)
    arrays = [
        _column_to_arrow(values, table, index, schema.field(index).type, rows)
        for index, values in enumerate(columns)
    ]
    result = pa.Table.from_arrays(arrays, schema=schema)
    broken = find_broken(table, result)
    if broken is not None:
        check, row = broken
        values = ", ".join(f"{name} = {row[name]!r}" for name in check.columns)
        hint = "; an undefined number is None with a reason" if check.sql.startswith("isfinite") else ""
        raise ValueError(f"{table.name} row {_key_text(table, row)}: {values} breaks CHECK {check.sql}{hint}")
    return result


def _column_to_arrow(
    values: Sequence[object], table: Table, index: int, arrow_type: pa.DataType, rows: Sequence[Record]
) -> pa.Array:
    allowed = ARROW_TYPES[table.types[index]][1]
    kinds = set(map(type, values))
    nullable = table.nullable[index]
    if not kinds.issubset((*allowed, type(None))):
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
    try:
        if (nullable or type(None) not in kinds) and all(
            _fits(v, allowed) for v in _samples(values, kinds, allowed)
        ):
            return pa.array(values, arrow_type)
    except (ValueError, TypeError, OverflowError):
        pass  # the loop below finds the value and says which
    for value, row in zip(values, rows, strict=True):
        problem = _problem(value, allowed, nullable, arrow_type)
        if problem is not None:
            key = _key_text(table, {name: getattr(row, name) for name in table.key})
            raise ValueError(f"{table.name}.{table.columns[index]} of row {key}: {problem}")
    raise ValueError(f"{table.name}.{table.columns[index]} cannot be stored as {table.types[index]}")


def _samples(values: Sequence[object], kinds: set[type], allowed: tuple[type, ...]) -> Iterable[object]:
    """The values worth a look one by one: none where every type is exactly right and carries no zone."""
    return () if kinds.issubset((*allowed, type(None))) and datetime not in allowed else values


def _fits(value: object, allowed: tuple[type, ...]) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) and bool not in allowed:
        return False
    return isinstance(value, allowed) and not (isinstance(value, datetime) and value.tzinfo is not None)


def _problem(value: object, allowed: tuple[type, ...], nullable: bool, arrow_type: pa.DataType) -> str | None:
    if value is None:
        return None if nullable else "is None; the column takes no NULL"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return f"{value!r} carries a zone; give UTC without one"
    if not _fits(value, allowed):
        return (
            f"{value!r:.80} is a {type(value).__name__}; allowed: {' or '.join(t.__name__ for t in allowed)}"
        )
    try:
        pa.array([value], arrow_type)
    except (ValueError, TypeError, OverflowError) as error:
        return f"{value!r:.80} does not fit {arrow_type}: {error}"
    return None


def _key_text(table: Table, row: Mapping[str, Any]) -> str:
    return "(" + ", ".join(f"{name}={row[name]!r:.60}" for name in table.key) + ")"
