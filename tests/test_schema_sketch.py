"""The sketch of the tables in docs/schema.md is the schema's: tables, keys, types and joining columns."""

from __future__ import annotations

import re

import duckdb

from tests.ladder_command import ROOT

SKETCH = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
OWN = {"lab_schema"}
"""The store's note on itself, which no row refers to."""


def schema() -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """Types of the columns, and the key, of each table that `lab/schema.sql` makes."""
    with duckdb.connect() as con:
        con.execute((ROOT / "lab" / "schema.sql").read_text(encoding="utf-8"))
        columns: dict[str, dict[str, str]] = {}
        for table, column, kind in con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
        ).fetchall():
            columns.setdefault(table, {})[column] = kind
        keys = dict(
            con.execute(
                "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
                "WHERE constraint_type = 'PRIMARY KEY'"
            ).fetchall()
        )
    return columns, keys


def test_every_table_is_sketched_with_its_key() -> None:
    columns, keys = schema()
    sketched = {
        table: re.findall(r"(\w+) (\w+) PK", inside)
        for table, inside in re.findall(r"^    (\w+) \{([^}]*)\}", SKETCH, re.MULTILINE)
    }
    assert set(sketched) == set(columns) - OWN
    for table, found in sketched.items():
        assert [(columns[table][name], name) for name in keys[table]] == found, table


def test_every_line_joins_by_a_column_that_both_tables_have() -> None:
    columns, keys = schema()
    lines = re.findall(r"^    (\w+) ([|}][|o]--o[|{]) (\w+) : (\w+)$", SKETCH, re.MULTILINE)
    assert len(lines) == SKETCH.count("--")
    for one, how, other, column in lines:
        assert column in columns[one], (one, column)
        assert column in columns[other], (other, column)
        if how.startswith("|"):  # one of the first: the column alone is its key
            assert keys[one] == [column], (one, column)
    joined = {table for one, _, other, _ in lines for table in (one, other)}
    assert set(columns) - OWN - joined == {"batch"}
