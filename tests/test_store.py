"""The store: what goes in comes out, wrong values are refused by name, keys decide, people may only read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import typing
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import tables
from lab.errors import UsageError
from lab.records import (
    RECORDS,
    AdapterModuleRow,
    AnswerRow,
    ArtifactRow,
    GenerationRow,
    MetricRow,
    NightRow,
    PlanRow,
    QueueRow,
    Record,
    RetrievalRow,
    SeedDrawRow,
    SentenceLossRow,
    TestResultRow,
)
from lab.store import Store
from stats.rows import VERDICTS

OWN_TABLES = {"batch", "lab_schema"}
PYTHON_TO_SQL = {
    str: {"VARCHAR"},
    int: {"BIGINT", "UBIGINT", "UINTEGER"},
    float: {"DOUBLE"},
    bool: {"BOOLEAN"},
    datetime: {"TIMESTAMP"},
}


def metric(name: str, value: float | None = 1.0, *, step: str = "step", unit: str = "*") -> MetricRow:
    reason = "undefined" if value is None else None
    return MetricRow(step_id=step, unit=unit, name=name, value=value, reason=reason)


def plan(recorded_at: datetime) -> PlanRow:
    return PlanRow(plan_hash="h", study="s", profile="smoke", frozen=True, recorded_at=recorded_at, text="{}")


@pytest.fixture(scope="module")
def schema() -> tables.Schema:
    con = duckdb.connect(":memory:")
    try:
        return tables.create(con)
    finally:
        con.close()


# --- the schema -----------------------------------------------------------------------------------


def test_every_record_has_its_table_and_the_store_has_no_other(schema: tables.Schema) -> None:
    assert {kind.table for kind in RECORDS} | OWN_TABLES == set(schema.tables)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.table)
def test_columns_keys_types_and_nullability_are_those_of_the_dataclass(
    kind: type[Record], schema: tables.Schema
) -> None:
    table = schema.tables[kind.table]
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    assert table.columns == tuple(field.name for field in fields)
    assert table.key == kind.key
    for field, sql_type, nullable in zip(fields, table.types, table.nullable, strict=True):
        parts = set(typing.get_args(hints[field.name])) or {hints[field.name]}
        assert nullable == (type(None) in parts), field.name
        [plain] = parts - {type(None)}
        assert sql_type in PYTHON_TO_SQL[plain], field.name


def test_every_number_column_refuses_nan_and_infinity(schema: tables.Schema) -> None:
    for table in schema.tables.values():
        finite = {check.columns for check in table.checks if check.sql.startswith("isfinite")}
        doubles = {(n,) for n, kind in zip(table.columns, table.types, strict=True) if kind == "DOUBLE"}
        assert finite == doubles, table.name


def test_every_table_column_and_view_says_what_it_means(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record([metric("a")])
    views = set(lab.read("SELECT DISTINCT name FROM dictionary WHERE type = 'VIEW'")["name"])
    assert {"latest_run", "decision_path", "open_questions", "missingness", "exclusions", "effects"} <= views
    silent = lab.read('SELECT name, "column" FROM dictionary WHERE meaning IS NULL')
    assert set(silent["name"]) <= views
    assert silent["column"].null_count() == 0


def test_the_verdicts_of_the_schema_are_those_of_the_statistics(schema: tables.Schema) -> None:
    for name in ("test", "decision"):
        [check] = [c.sql for c in schema.tables[name].checks if c.columns == ("verdict",)]
        assert sorted(json.loads(f"[{check.split('(')[2].rstrip(')')}]".replace("'", '"'))) == sorted(
            VERDICTS
        )


# --- what goes in comes out -----------------------------------------------------------------------

JSON_COLUMNS = {
    "sigma",
    "packages",
    "settings",
    "config",
    "sampling",
    "evidence",
    "parameters",
    "rule",
    "next_parameters",
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMED: dict[str, st.SearchStrategy[object]] = {
    "sha256": st.text("0123456789abcdef", min_size=64, max_size=64),
    "verdict": st.sampled_from(VERDICTS),
    "state": st.sampled_from(["running", "completed", "failed", "crashed", "cancelled", "stopped"]),
    "seed64": st.integers(0, 2**64 - 1),
    "seed32": st.integers(0, 2**32 - 1),
    "cores": st.integers(1, 512),
    "low": st.none(),
    **dict.fromkeys(["p", "p_adjusted", "alpha", "power"], st.floats(0.0, 1.0)),
    **dict.fromkeys(["seconds", "margin", "mde"], st.floats(0.0, 1e300)),
    "memory_gib": st.floats(1e-3, 1e300),
}
PLAIN: dict[type, st.SearchStrategy[object]] = {
    str: TEXT,
    int: st.integers(0, 2**63 - 1),
    float: FINITE,
    bool: st.booleans(),
    datetime: st.datetimes(),
}

WITH_REASON: dict[type[Record], str] = {
    MetricRow: "value",
    GenerationRow: "text",
    SentenceLossRow: "bits",
    AnswerRow: "strict",
    RetrievalRow: "rank",
}
"""Tables that hold a number or text, or else the reason why there is none."""


def rows_of(kind: type[Record]) -> st.SearchStrategy[Record]:
    columns: dict[str, st.SearchStrategy[object]] = {}
    for name, hint in typing.get_type_hints(kind).items():
        parts = set(typing.get_args(hint)) or {hint}
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        plain = next(iter(parts - {type(None)}))
        values = NAMED.get(name, PLAIN[plain])
        if name in JSON_COLUMNS or (kind is PlanRow and name == "text"):
            values = st.dictionaries(TEXT, st.none() | FINITE | TEXT, max_size=3).map(json.dumps)
        columns[name] = st.none() | values if type(None) in parts else values
    if kind is TestResultRow:
        columns["reason"] = TEXT
    if kind is SentenceLossRow:
        columns |= {"bits": st.none() | st.floats(0.0, 1e300), "tokens": st.none() | st.integers(1, 2**62)}
        columns |= dict.fromkeys(["bytes", "characters"], st.integers(1, 2**62))
    if kind is AdapterModuleRow:
        columns |= dict.fromkeys(["d_out", "d_in", "parameters"], st.integers(1, 2**31))
        columns |= {"kind": st.sampled_from(["attention", "mlp", "other"]), "planned_rank": st.none()}
        columns |= dict.fromkeys(["spectral", "frobenius"], st.none() | st.floats(0.0, 1e300))
    if kind is AnswerRow:
        columns |= {
            "nll_nats": st.none() | st.floats(0.0, 1e300),
            "tokens": st.none() | st.integers(1, 2**62),
        }
    if kind is RetrievalRow:
        columns |= {"rank": st.none() | st.integers(1, 2**62), "tier": st.none() | st.integers(1, 4)}
    if kind is NightRow:
        columns |= {"state": st.sampled_from(["completed", "budget", "crashed"]), "ended_at": st.datetimes()}
    if kind is QueueRow:
        columns["state"] = st.sampled_from(["queued", "running", "done", "left", "proposed", "refused"])
    built = st.builds(kind, **columns)
    if kind in WITH_REASON:
        return built.map(lambda row: _exactly_one(row, WITH_REASON[kind]))
    return built


def _exactly_one(row: Record, field: str) -> Record:
    if getattr(row, field) is None:
        return dataclasses.replace(row, reason="why not")
    return dataclasses.replace(row, reason=None)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.table)
def test_any_valid_record_comes_back_as_it_went_in(kind: type[Record]) -> None:
    with tempfile.TemporaryDirectory() as home:
        lab = Store(Path(home))

        @settings(max_examples=6, derandomize=True)
        @given(rows=st.lists(rows_of(kind), min_size=1, max_size=4))
        def check(rows: list[Record]) -> None:
            lab.record(rows)
            back = {
                tuple(row[name] for name in kind.key): row
                for row in lab.read(f"SELECT * FROM {kind.table}").iter_rows(named=True)
            }
            expected = {tuple(getattr(r, name) for name in kind.key): dataclasses.asdict(r) for r in rows}
            assert {key: back[key] for key in expected} == expected

        check()


def test_numpy_scalars_are_stored_as_plain_numbers(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record([metric("a", np.float64(0.5)), metric("b", np.float32(0.25)), metric("c", np.int64(3))])
    assert lab.read("SELECT value FROM metric ORDER BY name")["value"].to_list() == [0.5, 0.25, 3.0]


def test_an_empty_store_answers_from_empty_tables_and_makes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "none"
    assert Store(home).read("SELECT count(*) AS n FROM metric")["n"].item() == 0
    assert not home.exists()


def test_several_queries_are_answered_from_one_state_of_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asked = [
        ("SELECT count(*) AS n FROM metric", None),
        ("SELECT value FROM metric WHERE name = $n", {"n": "a"}),
    ]
    assert [len(frame) for frame in store.read_all(asked)] == [1, 0]
    store.record([metric("a", 2.0), metric("b")], drain=False)
    counted, found = store.read_all(asked)
    assert (counted.item(), found.item()) == (2, 2.0)
    with pytest.raises(UsageError, match="only read"):
        store.read_all([*asked, ("DELETE FROM metric", None)])
    assert store.read_all(asked)[0].item() == 2


def test_a_query_cannot_fill_the_empty_tables(tmp_path: Path) -> None:
    insert = "INSERT INTO metric VALUES ('s', 'u', 'n', 1.0, NULL) RETURNING *"
    with contextlib.suppress(UsageError):
        Store(tmp_path / "none").read(f"WITH new AS ({insert}) SELECT * FROM new")
    assert Store(tmp_path / "none").read("SELECT count(*) AS n FROM metric")["n"].item() == 0


def test_recording_nothing_writes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "none"
    assert Store(home).record([]) == ""
    assert not home.exists()


def test_a_home_with_spaces_and_other_scripts_works(tmp_path: Path) -> None:
    home = tmp_path / "mein Lab's é 実験"
    lab = Store(home)
    lab.record([metric("a")])
    assert (home / "lab.duckdb").exists()
    assert lab.read("SELECT count(*) AS n FROM metric")["n"].item() == 1
    assert lab.snapshot().exists()
    assert len(lab.export_parquet(lab.home / "out 'put")) == len(RECORDS) + len(OWN_TABLES)


def test_a_home_that_cannot_be_made_is_a_one_line_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be made.*set LADDER_HOME") as caught:
        Store(tmp_path / "file" / "home").record([metric("a")])
    assert "\n" not in str(caught.value)


# --- keys -----------------------------------------------------------------------------------------


def test_recording_twice_changes_nothing_and_a_new_value_replaces(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    for value in (1.0, 1.0, 2.0):
        lab.record([metric("a", value), metric("b", 5.0)])
    assert lab.read("SELECT name, value FROM metric ORDER BY name").rows() == [("a", 2.0), ("b", 5.0)]


def test_the_last_of_equal_keys_wins_within_a_batch_and_across_batches_of_one_drain(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record([metric("a", float(i)) for i in range(100)])
    assert lab.read("SELECT value FROM metric")["value"].to_list() == [99.0]
    for i in range(50):
        lab.record([metric("a", float(i)), metric("b", None)], drain=False)
    report = lab.drain()
    assert (report.batches, report.rows, report.waiting) == (50, 100, 0)
    assert lab.read("SELECT name, value FROM metric ORDER BY name").rows() == [("a", 49.0), ("b", None)]


# --- wrong values ---------------------------------------------------------------------------------

DRAW = SeedDrawRow(tape="t", draw=0, source="TRNG", stream=None, purpose="x", seed64=0, seed32=0)
RESULT = TestResultRow(
    **{f.name: None for f in dataclasses.fields(TestResultRow)}
    | dict.fromkeys(["step_id", "study", "model", "family", "hypothesis"], "x")
    | {"metric": "*", "contrast": "*", "method": "m", "role": "decides", "look": 4, "p": 0.5}
)
BAD: list[tuple[Record, str]] = [
    (metric("a", float("nan")), r"metric row \(step_id='step'.*value = nan.*None with a reason"),
    (metric("a", float("inf")), r"metric .*value = inf"),
    (dataclasses.replace(metric("a"), reason="both"), r"metric .*value = 1.0, reason = 'both' breaks CHECK"),
    (dataclasses.replace(metric("a"), value=None), r"metric .*value = None, reason = None breaks CHECK"),
    (metric(""), r"metric .*name = ''"),
    (metric("a", "1.0"), r"metric.value of row .*name='a'\): '1.0' is a str; allowed: float or int"),
    (metric("a", True), r"metric.value .*True is a bool"),
    (dataclasses.replace(metric("a"), unit=None), r"metric.unit .*takes no NULL"),
    (metric("\ud800"), r"metric.name .*does not fit string"),
    (
        dataclasses.replace(DRAW, seed64=2**64),
        r"seed_draw.seed64 of row \(tape='t', draw=0\).*does not fit uint64",
    ),
    (dataclasses.replace(DRAW, seed32=2**32), r"seed_draw.seed32 .*does not fit uint32"),
    (dataclasses.replace(DRAW, seed64=-1), r"seed_draw.seed64 .*does not fit uint64"),
    (dataclasses.replace(DRAW, draw=2**63), r"seed_draw.draw .*does not fit int64"),
    (dataclasses.replace(DRAW, draw=1.5), r"seed_draw.draw .*1.5 is a float; allowed: int"),
    (dataclasses.replace(RESULT, p=1.5), r"test row .*p = 1.5 breaks CHECK"),
    (dataclasses.replace(RESULT, verdict="MAYBE"), r"test row .*verdict = 'MAYBE'"),
    (dataclasses.replace(RESULT, p=None), r"test row .*breaks CHECK"),
    (dataclasses.replace(RESULT, low=2.0, high=1.0), r"test row .*low = 2.0, high = 1.0"),
    (plan(datetime(2026, 1, 1, tzinfo=UTC)), r"plan.recorded_at .*carries a zone"),
    (dataclasses.replace(plan(datetime(2026, 1, 1)), text="{"), r"plan row .*text = '\{' breaks CHECK"),
    (ArtifactRow(step_id="s", path="p", kind="k", sha256="xyz", bytes=1), r"artifact row .*sha256 = 'xyz'"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_wrong_value_is_refused_by_table_column_and_key_before_anything_is_written(
    tmp_path: Path, row: Record, message: str
) -> None:
    lab = Store(tmp_path / "home")
    with pytest.raises(ValueError, match=message):
        lab.record([metric("good"), row])
    assert not lab.home.exists()


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="str is no record"):
        Store(tmp_path).record(["text"])  # type: ignore[list-item]


# --- reading --------------------------------------------------------------------------------------


def test_sums_and_decimals_come_as_plain_numbers(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record([metric("a"), metric("b")])
    frame = lab.read(
        "SELECT sum(1) AS n, 0.05 AS alpha, sum(18446744073709551615::UBIGINT) AS big FROM metric"
    )
    assert frame.schema == {"n": pl.Int64, "alpha": pl.Float64, "big": pl.Float64}
    assert frame.row(0) == (2, 0.05, 2.0 * 2**64)


def test_parameters_are_passed_by_name(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record([metric("a"), metric("b; DROP TABLE metric")])
    found = lab.read("SELECT name FROM metric WHERE name = $name", {"name": "b; DROP TABLE metric"})
    assert found["name"].to_list() == ["b; DROP TABLE metric"]
    with pytest.raises(UsageError, match=r"not provided.*: name"):
        lab.read("SELECT $name AS n")


def test_a_wrong_query_is_a_one_line_usage_error(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record([metric("a")])
    for sql in ("SELECT nothing FROM metric", "SELEC 1", "SELECT * FROM metrics"):
        with pytest.raises(UsageError) as caught:
            lab.sql(sql)
        assert "\n" not in str(caught.value)


def test_no_store_at_all_is_said_to_a_person(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no store in .*run a study first"):
        Store(tmp_path).sql("SELECT 1")
