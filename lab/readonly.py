"""One question to an open database, which may only read.

The connection is read-only, without network, extensions, settings or any file but its own; this module adds
that exactly one statement of a reading kind passes, because DuckDB lets temporary tables, PREPARE and
CHECKPOINT through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pyarrow as pa

from lab.errors import UsageError

_FIRST_DAY, _LAST_DAY = date.min.toordinal() - 719_163, date.max.toordinal() - 719_163
"""Days from 1970-01-01 of the dates that Python has."""
READING = ("SELECT", "EXPLAIN")
"""Statement types that pass; FROM, WITH, VALUES, DESCRIBE, SHOW and SUMMARIZE are SELECT to DuckDB."""

if TYPE_CHECKING:
    from polars._typing import PolarsDataType


def query(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, object] | None = None
) -> pl.DataFrame:
    """Answer one reading statement.

    Parameters
    ----------
    con
        An open connection that itself refuses files and settings.
    sql
        One statement; `$name` stands for a parameter.
    parameters
        Values by name.

    Returns
    -------
    polars.DataFrame
        Sums of whole numbers (HUGEINT) are Int64 where they fit, DECIMAL is Float64.

    Raises
    ------
    UsageError
        Not one statement, not a reading one, or DuckDB refuses it; one line that says which.
    OSError
        The database file cannot be read.
    """
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"character {error.start} of the query is half of one; write it whole") from error
    try:
        _refuse_writing(con, sql)
        relation = con.sql(sql, params=dict(parameters) if parameters else None)
        table = relation.to_arrow_table()
        _refuse_untyped(table.schema)
        frame = pl.from_arrow(table.rename_columns(_distinct(table.column_names)))
    except duckdb.IOException as error:
        raise OSError(one_line(error)) from error
    except duckdb.Error as error:
        raise UsageError(one_line(error)) from error
    except pl.exceptions.ComputeError as error:
        raise UsageError(
            f"a column of the answer has no polars type; cast it in the query ({error})"
        ) from error
    assert isinstance(frame, pl.DataFrame)
    for column in frame:
        _refuse_endless_time(column, column.name)
    return frame.with_columns([_plain_number(column) for column in frame if column.dtype.is_decimal()])


def _distinct(names: Sequence[str]) -> list[str]:
    """Column names with a number behind those that come again, as in a join.

    >>> _distinct(["n", "tape", "tape"])
    ['n', 'tape', 'tape_2']
    """
    found: list[str] = []
    for name in names:
        place = 2
        free = name
        while free in found:
            free, place = f"{name}_{place}", place + 1
        found.append(free)
    return found


def one_line(error: Exception) -> str:
    """DuckDB's message without its drawing of the statement, on one line."""
    return re.sub(r"\s+", " ", str(error).split("\n\nLINE ")[0]).strip()


def _refuse_writing(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = con.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(f"found {len(statements)} statements; give exactly one SELECT")
    try:
        kind = statements[0].type.name
    except ValueError:  # 2.0.0 parses statements that its Python enum does not know
        kind = "unknown"
    if kind not in READING:
        raise UsageError(
            f"{kind} is refused here; SELECT, WITH, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN only read"
        )


def _refuse_untyped(schema: pa.Schema) -> None:
    """Refuse what polars has no type for: inside a list it would panic on taking it in."""
    for field in schema:
        if _is_untyped(field.type):
            raise UsageError(f"column {field.name!r} holds an INTERVAL or UNION; cast it in the query")


def _is_untyped(kind: pa.DataType) -> bool:
    if pa.types.is_interval(kind) or pa.types.is_union(kind):
        return True
    return any(_is_untyped(kind.field(place).type) for place in range(kind.num_fields))


def _refuse_endless_time(column: pl.Series, name: str) -> None:
    """Refuse times that Python has no date for, such as infinity: polars would panic on showing one."""
    if isinstance(column.dtype, pl.Struct):
        for inner in column.struct.unnest():
            _refuse_endless_time(inner, name)
    elif isinstance(column.dtype, pl.List | pl.Array):
        _refuse_endless_time(column.explode(), name)
    elif isinstance(column.dtype, pl.Map):
        entries = pl.Struct({"key": column.dtype.key, "value": column.dtype.value})
        _refuse_endless_time(column.cast(pl.List(entries)), name)
    elif column.dtype in (pl.Date, pl.Datetime) and not column.is_empty():
        days = column.cast(pl.Date).to_physical() if column.dtype == pl.Datetime else column.to_physical()
        if not days.is_between(_FIRST_DAY, _LAST_DAY).all():
            raise UsageError(
                f"column {name!r} holds a time before the year 1 or after 9999; cast it to VARCHAR"
            )


def _plain_number(column: pl.Series) -> pl.Series:
    target: PolarsDataType = pl.Float64 if column.dtype.scale else pl.Int64  # type: ignore[attr-defined]
    try:
        return column.cast(target)
    except pl.exceptions.InvalidOperationError:
        return column.cast(pl.Float64)
