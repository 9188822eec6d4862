"""Fuzz targets over SQL: a question is answered or refused, and never writes, reads a file, or stays."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import duckdb
import polars as pl

from deployments import answers
from deployments.visible import visible
from lab.errors import UsageError
from lab.gates import GateError, explain, judge, read_rule
from lab.records import MetricRow
from lab.store import Answer, Store
from tests.fuzz_mutation import JUNK, as_bytes, mutated, one_line

SECRET = "canary-5f1d0c"
LONGEST_SECONDS = 20
UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")
FILES = ("secret.csv", "secret.parquet", "secret.json", "secret.txt", "other.duckdb")

READS = (
    "SELECT * FROM metric", "SELECT count(*) AS n FROM metric", "FROM metric", "SUMMARIZE metric",
    "SHOW TABLES", "DESCRIBE decision", "EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT * FROM metric",
    "VALUES (1), (2)", "SELECT * FROM dictionary", "TABLE metric",
    "SELECT name, avg(value) FROM metric GROUP BY ALL", "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
    "SELECT * FROM range(10)", "PIVOT metric ON name USING sum(value)",
    "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t WHERE x < 5) FROM t",
    "SHOW ALL TABLES",
    "SELECT unnest([1, 2]), {'a': 1}, MAP {'k': 1}, INTERVAL 1 DAY, 'x'::BLOB, uuid(), 1::UHUGEINT, NULL",
    "SELECT 1e308 * 10, 0 / 0, sqrt(-1), 10 ** 400, DATE '9999-12-31', TIMESTAMP 'infinity'",
    "SELECT * FROM decision_path", "SELECT * FROM duckdb_settings()", "SELECT * FROM duckdb_secrets()",
    "SELECT 12345678901234567890123456789012345678::DECIMAL(38,0) AS d, 1.5::DECIMAL(4,2), 2::HUGEINT",
    "SELECT TIME '12:00', TIMETZ '12:00+02', '1101'::BIT, [NULL], [[1]], {'a': {'b': [1]}}, current_date",
    "SELECT 1 AS a, 2 AS a, 3 AS \"\", 4 AS \"a_2\"",
    "SELECT '[/b]' AS \"[/x]\", 'a[red]b', ':smile:' AS \":smile:\", '[/INST] [link=x', '[@click=f]'",
    "SELECT chr(27) || '[31m' AS a, chr(155), chr(0), chr(13), chr(9) || 'x', chr(8238), chr(8232), 'é' AS ü",
    "SELECT chr(n::INT) AS one, '[' || chr(n::INT) || ']' AS two FROM range(160) AS r(n)",
    "SELECT ['[/b]'], {'[/b]': chr(27)}, MAP {'[red]': chr(7)}, repeat('[b]', 200)",
    "SELECT 'x\\x1B'::BLOB, ['x'::BLOB] AS \"[red]\", {'a': [MAP {1: 'x'::BLOB}]}",
    "SELECT [INTERVAL 1 DAY], union_value(a := '[/b]'), [union_value(a := 1)]",
)  # fmt: skip
WRITES = (
    "INSERT INTO metric VALUES ('a','b','c',1,NULL)", "DELETE FROM metric", "UPDATE metric SET value = 0",
    "DROP TABLE metric", "CREATE TABLE x AS SELECT 1", "CREATE TEMP TABLE x AS SELECT 1",
    "ALTER TABLE metric ADD y INT", "CREATE MACRO m(x) AS x", "CREATE TEMP MACRO m() AS TABLE SELECT 1",
    "PREPARE p AS SELECT 1", "EXECUTE p", "CHECKPOINT", "FORCE CHECKPOINT", "VACUUM", "ANALYZE", "BEGIN",
    "COMMIT", "ROLLBACK", "CALL pragma_version()", "PRAGMA database_list", "PRAGMA enable_profiling",
    "PRAGMA profiling_output='{d}/out.json'", "SET threads = 1", "SET enable_external_access = true",
    "RESET enable_external_access", "SET memory_limit = '1TB'", "USE memory",
    "SET GLOBAL home_directory = '{d}'", "SET SESSION search_path = 'memory'", "INSTALL httpfs",
    "LOAD httpfs", "FORCE INSTALL spatial FROM 'http://127.0.0.1:9'", "ATTACH '{d}/other.duckdb' AS o",
    "ATTACH ':memory:' AS m", "ATTACH 'http://127.0.0.1:9/a.duckdb'", "DETACH lab",
    "COPY metric TO '{d}/out.csv'", "EXPORT DATABASE '{d}/out'",
    "COPY (SELECT 1) TO '{d}/out.parquet' (FORMAT parquet)", "COPY metric FROM '{d}/secret.csv'",
    "IMPORT DATABASE '{d}'", "CREATE SECRET s (TYPE s3)", "COMMENT ON TABLE metric IS 'x'",
    "TRUNCATE metric",
    "MERGE INTO metric USING (SELECT 1) ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
    "DEALLOCATE p", "EXPLAIN ANALYZE DELETE FROM metric", "EXPLAIN INSERT INTO metric BY NAME SELECT 1",
    "UPDATE EXTENSIONS", "EXPLAIN ANALYZE COPY metric TO '{d}/out.csv'",
    "EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1",
    "WITH a AS (DELETE FROM metric RETURNING *) SELECT * FROM a", "CREATE TYPE t AS ENUM ('a')",
    "WITH a AS (INSERT INTO metric SELECT 1 RETURNING *) FROM a", "CREATE SEQUENCE s", "KILL 1",
    "SET VARIABLE v = 1",
)  # fmt: skip
FILE_READS = (
    "SELECT * FROM '{d}/secret.csv'", "FROM '{d}/secret.parquet'", "SELECT * FROM \"{d}/secret.csv\"",
    "SELECT * FROM read_csv('{d}/secret.csv')", "SELECT * FROM read_csv_auto('{d}/*.csv')",
    "SELECT getenv('CANARY')", "SELECT * FROM read_text('{d}/secret.txt')",
    "SELECT * FROM read_blob('{d}/*')", "SELECT * FROM glob('{d}/*')",
    "SELECT * FROM read_json('{d}/secret.json')", "SELECT * FROM read_parquet('{d}/secret.parquet')",
    "SELECT * FROM parquet_metadata('{d}/secret.parquet')", "SELECT * FROM sniff_csv('{d}/secret.csv')",
    "SELECT * FROM query('FROM ''{d}/secret.csv''')", "SELECT * FROM query_table('{d}/secret.csv')",
    "SELECT * FROM query_table(['{d}/secret.csv'])", "DESCRIBE '{d}/secret.csv'",
    "SUMMARIZE '{d}/secret.csv'", "SELECT * FROM canary", "SELECT * FROM frame", "SELECT * FROM parameters",
    "SELECT * FROM secret", "SELECT (SELECT content FROM read_text('{d}/secret.txt'))",
    "SELECT * FROM '/etc/passwd'",
    "WITH t AS MATERIALIZED (SELECT * FROM read_text('{d}/secret.txt')) SELECT 1 FROM t",
    "SELECT * FROM metric WHERE name IN (SELECT content FROM read_text('{d}/secret.txt'))",
    "SELECT * FROM 'http://127.0.0.1:9/x.csv'", "SELECT * FROM read_csv('s3://bucket/x.csv')",
    "SELECT getvariable('x'), current_setting('home_directory'), current_setting('secret_directory')",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{d}/secret.txt')",
    "SELECT * FROM read_duckdb('{d}/other.duckdb')", "SELECT * FROM pragma_database_list",
    "SELECT * FROM which_secret('s3://x', 's3')", "FROM duckdb_logs",
    "SELECT * FROM (FROM '{d}/secret.csv') JOIN metric ON true",
    "SELECT * FROM file_exists('{d}/secret.csv')", "PIVOT '{d}/secret.csv' ON secret",
    "UNPIVOT '{d}/secret.csv' ON *", "SHOW '{d}/secret.csv'",
    "SELECT parse_path('{d}/a'), current_database(), version(), pg_read_file('{d}/secret.txt')",
    "SELECT write_log('{d}')", "SELECT * FROM parquet_schema('{d}/secret.parquet')",
    "SELECT * FROM duckdb_extensions()", "SELECT * FROM python_map_function(1)",
    "SELECT * FROM arrow_scan(1, 2, 3)", "SELECT * FROM pandas_scan(140000000)",
    "SELECT * FROM repeat_row(1, num_rows=3)", "SELECT * FROM test_all_types()",
    "SELECT * FROM checkpoint()", "SELECT * FROM force_checkpoint()", "SELECT nextval('s'), txid_current()",
    "SELECT * FROM enable_logging()", "SELECT * FROM seq_scan('metric')",
    "SELECT * FROM storage_info('metric')", "SELECT * FROM summary((FROM metric))",
)  # fmt: skip
AROUND = (
    "({})", "SELECT * FROM ({})", "WITH q AS ({}) FROM q", "EXPLAIN {}", "PREPARE z AS {}", "SELECT '{}'",
    "/* {} */ SELECT 1", "DESCRIBE {}", "CREATE VIEW v AS {}",
)  # fmt: skip
GLUE = (
    "; ",
    ";",
    " ; -- x\n",
    " UNION ALL ",
    " -- ",
    " /* */ ",
    "\n",
    " ",
    " WHERE ",
    ") ",
    "; ;",
    " LIMIT 1; ",
)


@functools.cache
def _home(folder: Path) -> Path:
    """A store with rows, beside files that hold the secret."""
    lab = Store(folder / "home")
    lab.record(
        [MetricRow(step_id="s", unit=str(i), name="x", value=float(i), reason=None) for i in range(20)]
    )
    frame = pl.DataFrame({"secret": [SECRET], "step_id": ["s"]})
    frame.write_csv(folder / "secret.csv")
    frame.write_parquet(folder / "secret.parquet")
    frame.write_json(folder / "secret.json")
    (folder / "secret.txt").write_text(SECRET)
    with duckdb.connect(folder / "other.duckdb") as con:
        con.execute(f"CREATE TABLE t AS SELECT '{SECRET}' AS secret")
    os.environ["CANARY"] = SECRET
    return lab.home


def _sql(rng: Random, folder: Path) -> str:
    pools = (READS, READS, WRITES, FILE_READS)
    parts = [rng.choice(rng.choice(pools)) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    text = rng.choice(GLUE).join(parts).replace("{d}", str(folder))
    for _ in range(rng.choice((0, 0, 0, 1, 2, 5))):
        text = _hurt(text, rng)
    if rng.random() < 0.1:
        text = rng.choice(AROUND).format(text)
    return rng.choice((text, text, text.lower(), text.swapcase()))


def _hurt(text: str, rng: Random) -> str:
    words = text.split(" ")
    place = rng.randrange(len(words))
    how = rng.randrange(5)
    if how == 0:
        words[place] = rng.choice(JUNK).decode("utf-8", "replace")[:50]
    elif how == 1:
        words[place] = rng.choice(rng.choice((READS, WRITES, FILE_READS))).split(" ")[-1]
    elif how == 2:
        del words[place]
    elif how == 3:
        words.insert(
            place, rng.choice(("(", ")", "'", '"', ";", "--", "/*", "$x", "$1", "?", "*", "NULL", "\ud800"))
        )
    else:
        words[place] = words[place][: rng.randrange(len(words[place]) + 1)]
    return " ".join(words)


class TooSlowError(Exception):
    """A question that stayed."""


@contextmanager
def _limited() -> Iterator[None]:
    def over(number: int, frame: object) -> None:
        raise TooSlowError(f"over {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file but the lock."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lab.lock"
    }


def _shown(frame: pl.DataFrame, folder: Path) -> None:
    """Every format takes the answer or refuses it; a table has nothing in it that a terminal obeys."""
    for format_ in answers.FORMATS:
        path = folder / f"answer.{format_}"
        try:
            answers.write(Answer(frame=frame, source=path, note=None), format_, path)
        except UsageError as error:
            if f"which {format_} does not hold" not in one_line(error):
                raise
        path.unlink(missing_ok=True)
    folded = answers.as_table(frame, on_terminal=True)
    assert not UNSEEN.search(re.sub(r"\x1b\[[01]m", "", folded)), folded  # bold heads and their end
    table = answers.as_table(frame, on_terminal=False)
    assert not UNSEEN.search(table), table
    texts = [*frame.columns, *(v for row in frame.head(50).rows() for v in row if isinstance(v, str))]
    if sum(map(len, texts)) < 2_000:  # else a table is folded
        for line in "\n".join(texts).split("\n"):
            assert visible(line).rstrip() in table, f"{line!r} is not in\n{table}"


def question(rng: Random, folder: Path) -> str:
    """`Store.sql` and `Store.read` answer or refuse; no file is read, written or named to be changed."""
    lab = Store(rng.choice((_home(folder), _home(folder), folder / "empty")))
    canary = pl.DataFrame({"secret": [SECRET]})  # noqa: F841  (a replacement scan would find it by name)
    sql = _sql(rng, folder)
    before = _state(folder)
    said, answered, frame = "", False, pl.DataFrame()
    with _limited():
        try:
            if rng.random() < 0.5 and lab.path.exists():
                frame = lab.sql(sql).frame
            else:
                frame = lab.read(sql, rng.choice((None, None, {"x": 1})))
            said, answered = repr(frame.to_dicts()), True
        except (UsageError, OSError) as error:
            said = one_line(error)
            assert "\n" not in said
    assert SECRET not in said.replace(sql, ""), f"the secret came out of {sql!r}"
    assert _state(folder) == before, f"files changed by {sql!r}"
    assert lab.read("SELECT count(*) FROM metric").item() == (20 if lab.path.exists() else 0)
    if answered:
        with _limited():
            _shown(frame, folder)
    return "answered" if answered else "refused"


RULES = {
    "min_n": 10,
    "rules": [
        {"verdict": "INVALID", "when": [{"left": "dead", "op": "==", "right": True}]},
        {"verdict": "DETECTED", "when": [{"left": "p", "op": "<", "right": 0.05}]},
        {"verdict": "EQUIVALENT", "when": [{"left": "low", "op": ">", "right": -0.2}]},
    ],
}
EVIDENCE = {"n": 20, "p": 0.04, "low": -0.1, "dead": False}


def rule(rng: Random, folder: Path) -> str:
    """A stored rule and evidence, changed anyhow: one of four verdicts, or a `GateError`."""
    text = as_bytes(mutated(RULES, rng), rng).decode("utf-8", "replace")
    try:
        told = mutated(EVIDENCE, rng)
        rules, min_n = read_rule(text)
        plain = bool | int | float | str | None  # of one row of a query
        evidence = {k: v for k, v in told.items() if isinstance(v, plain)} if isinstance(told, dict) else {}
        verdict = judge(rules, min_n, evidence)
        assert verdict in ("INVALID", "DETECTED", "EQUIVALENT", "INCONCLUSIVE"), verdict
        assert explain(rules, min_n, evidence)
    except GateError as error:
        one_line(error)
        return "refused"
    return "judged"
