"""What people do with the store: query it safely, keep a snapshot, open older files, ask the named views."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from lab import tables
from lab.errors import UsageError
from lab.records import (
    DecisionRow,
    DeviationRow,
    GenerationRow,
    MetricRow,
    PlanRow,
    PlanStepRow,
    RunRow,
    StepRow,
    TestResultRow,
)
from lab.store import Store

MOMENT = datetime(2026, 1, 1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("filled") / "home"
    Store(home).record([MetricRow(step_id="step", unit="*", name="a", value=1.0, reason=None)])
    return home


@pytest.fixture
def lab(filled: Path, tmp_path: Path) -> Store:
    shutil.copytree(filled, tmp_path / "home")
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    return Store(tmp_path / "home")


# --- reading only ---------------------------------------------------------------------------------

HOSTILE = [
    "INSERT INTO metric VALUES ('s', 'u', 'n', 1.0, NULL)",
    "UPDATE metric SET value = 2",
    "DELETE FROM metric",
    "TRUNCATE metric",
    "MERGE INTO metric USING metric AS s ON s.name = metric.name WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM metric RETURNING *) SELECT * FROM gone",
    "EXPLAIN ANALYZE DELETE FROM metric",
    "DROP TABLE metric",
    "ALTER TABLE metric ADD COLUMN x INTEGER",
    "CREATE TABLE t (a INTEGER)",
    "CREATE TEMP TABLE t (a INTEGER)",
    "CREATE OR REPLACE VIEW effects AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "SELECT 1; DROP TABLE metric",
    "COPY metric TO '{dir}/out.csv'",
    "COPY (SELECT 1) TO '{dir}/out.parquet' (FORMAT parquet)",
    "COPY metric FROM '{dir}/secret.csv'",
    "EXPORT DATABASE '{dir}/out'",
    "IMPORT DATABASE '{dir}/out'",
    "EXPLAIN ANALYZE COPY metric TO '{dir}/out.csv'",
    "ATTACH '{dir}/out.duckdb'",
    "ATTACH ':memory:' AS m",
    "DETACH lab",
    "SELECT * FROM read_csv('{dir}/secret.csv')",
    "SELECT * FROM '{dir}/secret.csv'",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM glob('{dir}/*')",
    "SELECT * FROM sniff_csv('{dir}/secret.csv')",
    "SELECT * FROM parquet_metadata('{dir}/secret.csv')",
    "SELECT * FROM query('COPY metric TO ''{dir}/out.csv''')",
    "SELECT * FROM frame_of_this_test",
    "SELECT getenv('HOME')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 4",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "SET VARIABLE x = 1",
    "PRAGMA threads = 4",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "PREPARE p AS SELECT 1",
    "BEGIN",
    "USE memory",
    "CREATE SECRET s (TYPE s3)",
    "FROM enable_logging()",
    "CONNECT 'x'",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("sql", HOSTILE, ids=[sql[:50] or "empty" for sql in HOSTILE])
@pytest.mark.parametrize("door", ["sql", "read"])
def test_a_statement_that_does_not_only_read_the_tables_is_refused(
    lab: Store, tmp_path: Path, sql: str, door: str
) -> None:
    frame_of_this_test = pl.DataFrame({"a": [1]})
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(UsageError) as caught:
        (lab.sql if door == "sql" else lab.read)(sql.format(dir=tmp_path))
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert lab.read("SELECT value FROM metric")["value"].to_list() == [1.0]
    assert frame_of_this_test.height == 1


@pytest.mark.parametrize("sql", [sql for sql in HOSTILE if "{dir}" in sql or "/etc/" in sql])
def test_a_store_without_a_file_reads_and_writes_no_file_either(tmp_path: Path, sql: str) -> None:
    """It answers from empty tables in memory, by another connection."""
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError):
        Store(tmp_path / "none").read(sql.format(dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM metric",
        "FROM metric",
        "WITH m AS (SELECT * FROM metric) SELECT * FROM m",
        "VALUES (1)",
        "TABLE metric",
        "DESCRIBE metric",
        "SHOW TABLES",
        "SUMMARIZE metric",
        "EXPLAIN SELECT * FROM metric",
        "SELECT * FROM effects -- a view;",
        "SELECT 'a;b';",
    ],
)
def test_a_statement_that_only_reads_is_answered(lab: Store, sql: str) -> None:
    answer = lab.sql(sql)
    assert (answer.source, answer.note) == (lab.path, None)
    assert answer.frame.width > 0


@pytest.mark.parametrize(
    "value", ["INTERVAL 1 DAY", "[INTERVAL 1 DAY]", "{'a': [INTERVAL 1 DAY]}", "[union_value(a := 1)]"]
)
def test_an_answer_that_polars_cannot_hold_is_a_usage_error(lab: Store, value: str) -> None:
    with pytest.raises(UsageError, match="'it' holds an INTERVAL or UNION; cast it in the query"):
        lab.sql(f"SELECT {value} AS it")


# --- snapshot and export --------------------------------------------------------------------------


def test_a_snapshot_has_rows_views_and_comments_and_is_replaced_under_an_open_reader(lab: Store) -> None:
    assert lab.snapshot() == lab.home / "lab-snapshot.duckdb"
    reader = duckdb.connect(lab.snapshot_path, read_only=True)
    try:
        lab.record([MetricRow(step_id="step", unit="*", name="b", value=1.0, reason=None)], drain=False)
        lab.snapshot()
        assert reader.execute("SELECT count(*) FROM metric").fetchall() == [(1,)]
    finally:
        reader.close()
    with duckdb.connect(lab.snapshot_path, read_only=True) as reader:
        assert reader.execute("SELECT count(*) FROM metric").fetchall() == [(2,)]
        assert reader.execute("SELECT count(*) FROM decision_path").fetchall() == [(0,)]
        meaning = reader.execute(
            "SELECT meaning FROM dictionary WHERE name = 'metric' AND \"column\" = 'reason'"
        ).fetchall()
        assert meaning == [("Why there is no number; NULL when there is one.",)]
    assert sorted(path.name for path in lab.home.iterdir()) == [
        "lab-snapshot.duckdb",
        "lab.duckdb",
        "lab.lock",
        "outbox",
    ]


def test_the_log_of_a_shell_on_the_old_snapshot_does_not_spoil_the_new_one(lab: Store) -> None:
    lab.snapshot()
    Path(f"{lab.snapshot_path}.wal").write_bytes(b"left behind")
    lab.snapshot()
    with duckdb.connect(lab.snapshot_path, read_only=True) as reader:
        assert reader.execute("SELECT count(*) FROM metric").fetchall() == [(1,)]


def test_an_export_holds_every_table_as_parquet(lab: Store, tmp_path: Path) -> None:
    paths = lab.export_parquet(tmp_path / "export")
    assert {"metric.parquet", "batch.parquet"} <= {path.name for path in paths}
    assert pl.read_parquet(tmp_path / "export" / "metric.parquet")["name"].to_list() == ["a"]
    assert not list((tmp_path / "export").glob("*.tmp"))


# --- files of other programs ----------------------------------------------------------------------


def change(lab: Store, sql: str) -> None:
    with duckdb.connect(lab.path) as con:
        con.execute(sql)


def test_a_store_of_a_newer_program_is_refused(lab: Store) -> None:
    change(lab, f"UPDATE lab_schema SET version = {tables.SCHEMA_VERSION + 1}, shape = 'other'")
    with pytest.raises(UsageError, match=r"schema version 2, this program writes 1"):
        lab.read("SELECT 1")


def test_a_store_with_another_table_of_the_same_name_is_refused_by_name(lab: Store) -> None:
    change(lab, "DROP TABLE metric; CREATE TABLE metric (x INTEGER); UPDATE lab_schema SET shape = 'other'")
    with pytest.raises(UsageError, match=r"other columns or checks in metric"):
        lab.read("SELECT 1")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    change(lab, "CREATE TABLE accounts (id INTEGER)")
    with pytest.raises(UsageError, match=r"something else \(accounts\)"):
        lab.read("SELECT 1")


def test_a_file_that_is_no_database_is_said_and_the_batch_waits(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.path.write_bytes(b"not a database" * 1000)
    lab.record([MetricRow(step_id="step", unit="*", name="a", value=1.0, reason=None)])
    report = lab.drain()
    assert report.waiting == 1
    assert "not a valid DuckDB database" in str(report.problem)
    lab.path.unlink()
    assert lab.drain().batches == 1


def test_an_older_store_gets_the_views_and_tables_it_lacks(lab: Store) -> None:
    change(
        lab,
        "DROP VIEW effects; DROP TABLE artifact; CREATE OR REPLACE VIEW latest_run AS SELECT 1 AS x;"
        "UPDATE lab_schema SET shape = 'older', views = 'older'",
    )
    assert lab.read("SELECT * FROM effects").height == 0
    assert lab.read("SELECT * FROM artifact").height == 0
    assert "run_id" in lab.read("SELECT * FROM latest_run").columns
    assert lab.read("SELECT count(*) AS n FROM metric").item() == 1


# --- views ----------------------------------------------------------------------------------------

# fmt: off
STEP = StepRow(
    step_id="cell", study="s", experiment="cell", arm=None, model="m", seed=None, config="{}", code="c",
    seconds=1.0, device="cpu", environment_id="e", recorded_at=MOMENT, reason=None,
)
GENERATION = GenerationRow(
    step_id="cell", sample=0, turn=0, probe=0, sample_id="x", arm="PRNG", prompt_id="p", stream=42,
    order_index=0, seed64=1, seed32=1, text="one two three four five six seven eight nine ten",
    finish_reason="stop", tokens=10, seconds=0.1, model_digest="d", server_version=None, sampling="{}",
    imported=False, reason=None,
)
RESULT = TestResultRow(
    step_id="analysis", study="s", model="m", look=8, family="f", hypothesis="pairwise", metric="mtld",
    contrast="TRNG-PRNG", method="welch", role="decides", estimate=0.1, low=-0.1, high=0.3, effect=0.1,
    statistic=1.0, df1=None, df2=10.0, p=0.3, p_adjusted=0.6, alpha=0.05, margin=0.2, n=96, power=0.5,
    mde=0.3, n_to_settle=40, verdict="INCONCLUSIVE", negligible=None, reason=None,
)
DECISION = DecisionRow(
    decision_id="d1", study="s", profile="smoke", model="m", gate="integrity", look=4, plan_hash="h",
    run_id="r", question="sound?", verdict="EQUIVALENT", exploratory=False, negligible=False, evidence="{}",
    sql="SELECT 1", parameters="{}", rule="{}", sentence="It is sound.", next="look",
    next_parameters=json.dumps({"look": 8}), flow_run_id=None, launched_flow_run_id=None, decided_at=MOMENT,
)
RUN = RunRow(
    run_id="r1", study="s", profile="smoke", model="m", plan_hash="h", settings="{}", state="failed",
    started_at=MOMENT, ended_at=None, exploratory=False, environment_id="e", git_commit=None,
    git_dirty=None, flow_run_id=None, parent_flow_run_id=None, process="host:1:2", note=None,
)
# fmt: on


def test_latest_run_is_the_last_started_of_its_study_profile_and_model(lab: Store) -> None:
    later = dataclasses.replace(RUN, run_id="r0", started_at=datetime(2026, 1, 2))
    lab.record([later, RUN, dataclasses.replace(RUN, run_id="r2", model="n")])
    assert lab.read("SELECT run_id FROM latest_run ORDER BY ALL")["run_id"].to_list() == ["r0", "r2"]


def test_decision_path_is_in_order_and_keeps_the_last_word_of_a_gate_at_a_look(lab: Store) -> None:
    def decided(name: str, gate: str, look: int, minute: int, verdict: str) -> DecisionRow:
        moment = datetime(2026, 1, 1, 0, minute)
        return dataclasses.replace(
            DECISION, decision_id=name, gate=gate, look=look, decided_at=moment, verdict=verdict
        )

    lab.record(
        [
            decided("d4", "effect", 8, 9, "DETECTED"),
            decided("d1", "integrity", 4, 1, "INVALID"),
            decided("d2", "integrity", 4, 2, "EQUIVALENT"),
            decided("d3", "effect", 4, 3, "INCONCLUSIVE"),
        ]
    )
    path = lab.read("SELECT position, gate, look, verdict FROM decision_path")
    assert path.rows() == [
        (1, "integrity", 4, "EQUIVALENT"),
        (2, "effect", 4, "INCONCLUSIVE"),
        (3, "effect", 8, "DETECTED"),
    ]


def test_decision_path_is_that_of_the_last_run_after_the_last_exploratory_one(lab: Store) -> None:
    def decided(name: str, run_id: str, minute: int, exploratory: bool) -> DecisionRow:
        moment = datetime(2026, 1, 1, 0, minute)
        return dataclasses.replace(
            DECISION, decision_id=name, gate=name, run_id=run_id, decided_at=moment, exploratory=exploratory
        )

    lab.record(
        [
            decided("stale", "first", 1, False),
            decided("stands", "second", 2, False),
            decided("tried", "third", 3, True),
        ]
    )
    path = lab.read("SELECT gate, exploratory FROM decision_path ORDER BY position")
    assert path.rows() == [("tried", True), ("stands", False)]


def test_open_questions_and_effects_show_the_largest_look_only(lab: Store) -> None:
    earlier = dataclasses.replace(RESULT, step_id="early", look=4, estimate=9.0)
    settled = dataclasses.replace(RESULT, metric="distinct_2", verdict="EQUIVALENT")
    omnibus = dataclasses.replace(RESULT, contrast="*", verdict="DETECTED")
    plan = PlanRow(plan_hash="h", study="s", profile="smoke", frozen=True, recorded_at=MOMENT, text="{}")
    lab.record([earlier, RESULT, settled, omnibus, plan])
    lab.record([PlanStepRow(plan_hash="h", step_id=step) for step in ("early", "analysis")])
    columns = "profile, metric, look, n_to_settle, further_samples_a_cell"
    assert lab.read(f"SELECT {columns} FROM open_questions").rows() == [("smoke", "mtld", 8, 40, 32)]
    effects = lab.read("SELECT metric, estimate, low, high, margin FROM effects ORDER BY metric")
    assert effects.rows() == [("distinct_2", 0.1, -0.1, 0.3, 0.2), ("mtld", 0.1, -0.1, 0.3, 0.2)]


def test_missingness_counts_failures_by_arm_and_shows_arms_without_any(lab: Store) -> None:
    def sample(i: int, arm: str, reason: str | None) -> GenerationRow:
        text = None if reason else GENERATION.text
        return dataclasses.replace(GENERATION, sample=i, arm=arm, text=text, reason=reason)

    arms = [
        ("PRNG", None),
        ("PRNG", None),
        ("TRNG", None),
        ("TRNG", "timeout"),
        ("TRNG", "timeout"),
        ("TRNG", "x"),
    ]
    lab.record([STEP, *(sample(i, arm, reason) for i, (arm, reason) in enumerate(arms))])
    found = lab.read("SELECT arm, reason, failures, attempts, rate FROM missingness ORDER BY arm, reason")
    assert found.rows() == [
        ("PRNG", None, 0, 2, 0.0),
        ("TRNG", "timeout", 2, 4, 0.5),
        ("TRNG", "x", 1, 4, 0.25),
    ]


def test_exclusions_are_failures_and_texts_under_ten_words_without_their_thinking(lab: Store) -> None:
    texts = [GENERATION.text, "too short", "<think>\na b c d e f g h i j k\n</think> x y", None]
    rows = [
        dataclasses.replace(GENERATION, sample=i, text=text, reason=None if text else "timeout")
        for i, text in enumerate(texts)
    ]
    lab.record([STEP, *rows])
    found = lab.read("SELECT sample, words, cause, reason FROM exclusions")
    assert found.rows() == [
        (1, 2, "under 10 words", None),
        (2, 2, "under 10 words", None),
        (3, None, "no text", "timeout"),
    ]


def test_deviations_name_study_and_field(lab: Store) -> None:
    plan = PlanRow(plan_hash="h", study="s", profile="smoke", frozen=False, recorded_at=MOMENT, text="{}")
    lab.record(
        [plan, DeviationRow(plan_hash="h", declared_hash="g", field="alpha", declared="0.05", used="0.1")]
    )
    found = lab.read("SELECT study, profile, field, declared, used FROM deviations")
    assert found.rows() == [("s", "smoke", "alpha", "0.05", "0.1")]
